"""Shared memory for a pod: a volume in memory with a size limit, mounted at /dev/shm. Whatever of it is missing is added.

    spec:
      containers:
        - name: train
          volumeMounts:
            - mountPath: /dev/shm        a mount without a volume fails, a volume without a mount does nothing
              name: dshm
      volumes:
        - name: dshm
          emptyDir:
            medium: Memory
            sizeLimit: 2Gi

Source: kubernetes.io/docs/concepts/storage/volumes, emptyDir.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from keepfed.edit.inserting.outline import Key, below, items, outline
from keepfed.edit.inserting.text import Text
from keepfed.edit.replacement import Edit, EditRefused
from keepfed.edit.respelling import kubernetes_size
from keepfed.knobs.knob import Wish
from keepfed.text import say

_SHM = "/dev/shm"  # noqa: S108  # the mount point that is asked for, not a file that is made
_NAME = "dshm"


@dataclass(frozen=True, slots=True)
class _Pod:
    keys: list[Key]
    containers: Key
    """The key `containers`."""
    container: list[Key]
    """The keys of the container that is meant."""
    beside: list[Key]
    """The keys beside `containers`."""


def is_pod(text: Text) -> bool:
    """Whether a YAML file describes containers of Kubernetes."""
    keys = outline(text.lines)
    return any(key.name == "containers" and not key.value for key in keys) and any(key.name == "kind" for key in keys)


def insert_shared_memory(wish: Wish, text: Text, line: int | None) -> list[Edit]:
    """What is missing for a /dev/shm of the size that is asked for. Raises EditRefused where it is not clear whose."""
    pod = _pod(text, line)
    size = kubernetes_size(wish.value)
    mount = next((key for key in _of(pod.container, "mountPath") if key.value.strip("\"'").rstrip("/") == _SHM), None)
    if mount is not None:
        return [_limited(wish, text, pod, mount, size)]
    _refuse_hidden(text, pod)
    return [_mounted(wish, text, pod), _volume(wish, text, pod, size)]


def _refuse_hidden(text: Text, pod: _Pod) -> None:
    """A mount in braces, or of a template, is not in the outline; a second one at the same path would be refused by the server."""
    first, last = pod.container[0].line, pod.container[-1].line
    for number in range(first, last + 1):
        line = text.lines[number - 1]
        if _SHM in line.split("#")[0]:
            place = f"{text.source.name}:{number}"
            raise EditRefused(say("edit.no_room", place=place), next_step=say("edit.no_room_next"))


def _limited(wish: Wish, text: Text, pod: _Pod, mount: Key, size: str) -> Edit:
    """There is a mount: its volume gets the limit, and memory where it had none."""
    name = _name_beside(pod.container, mount)
    volumes = next((key for key in pod.beside if key.name == "volumes"), None)
    volume = next((item for item in (items(pod.keys, volumes) if volumes else []) if _value(item, "name") == name), [])
    place = f"{text.source.name}:{mount.line}"
    empty = next((key for key in volume if key.name == "emptyDir"), None)
    if empty is None:
        raise EditRefused(say("edit.shm_other_volume", place=place, name=name), next_step=say("edit.no_room_next"))
    line = text.lines[empty.line - 1]
    start = text.start_of(empty.line)
    if empty.value:
        old = re.search(r"\{\s*(medium:\s*[\"']?Memory[\"']?)?\s*\}", line)
        if not old:
            raise EditRefused(
                say("edit.no_room", place=f"{text.source.name}:{empty.line}"), next_step=say("edit.no_room_next")
            )
        if old[1]:
            return text.edit(wish, "sizeLimit", start + old.end(1), f", sizeLimit: {size}")
        new = f"{{medium: Memory, sizeLimit: {size}}}"
        return text.edit(wish, "sizeLimit", start + old.start(), new, end=start + old.end())
    medium = next((key for key in below(pod.keys, empty) if key.name == "medium"), None)
    if medium is None or medium.value.strip("\"'") != "Memory":
        raise EditRefused(say("edit.shm_other_volume", place=place, name=name), next_step=say("edit.no_room_next"))
    at = text.line_end(text.start_of(medium.line))
    return text.edit(wish, "sizeLimit", at, f"{text.eol}{' ' * medium.depth}sizeLimit: {size}")


def _mounted(wish: Wish, text: Text, pod: _Pod) -> Edit:
    mounts = next((key for key in pod.container if key.name == "volumeMounts" and not key.value), None)
    if mounts is not None:
        dash = " " * _dash_below(pod, mounts)
        new = f"{text.eol}{dash}- mountPath: {_SHM}{text.eol}{dash}  name: {_NAME}"
        return text.edit(wish, "mountPath", text.line_end(text.start_of(mounts.line)), new)
    image = next((key for key in pod.container if key.name == "image" and key.value), None)
    image = image or next((key for key in pod.container if key.name == "name" and key.value), pod.container[0])
    depth = " " * image.depth
    dash = " " * (image.depth + _dash_below(pod, pod.containers) - pod.containers.depth)
    lines = [f"{depth}volumeMounts:", f"{dash}- mountPath: {_SHM}", f"{dash}  name: {_NAME}"]
    new = "".join(text.eol + line for line in lines)
    return text.edit(wish, "mountPath", text.line_end(text.start_of(image.line)), new)


def _volume(wish: Wish, text: Text, pod: _Pod, size: str) -> Edit:
    volumes = next((key for key in pod.beside if key.name == "volumes" and not key.value), None)
    anchor = volumes or pod.containers
    dash = " " * (_dash_below(pod, volumes) if volumes else _dash_below(pod, pod.containers))
    lines = [
        f"{dash}- name: {_NAME}",
        f"{dash}  emptyDir:",
        f"{dash}    medium: Memory",
        f"{dash}    sizeLimit: {size}",
    ]
    if volumes:
        new = "".join(text.eol + line for line in lines)
        return text.edit(wish, "sizeLimit", text.line_end(text.start_of(volumes.line)), new)
    if anchor.item is not None:
        place = f"{text.source.name}:{anchor.line}"
        raise EditRefused(say("edit.no_room", place=place), next_step=say("edit.no_room_next"))
    head = " " * anchor.depth + "volumes:"
    new = "".join(line + text.eol for line in [head, *lines])
    return text.edit(wish, "sizeLimit", text.start_of(anchor.line), new)


def _pod(text: Text, line: int | None) -> _Pod:
    keys = outline(text.lines)
    found: list[tuple[Key, list[Key]]] = []
    for key in keys:
        if key.name == "containers" and not key.value:
            found += [(key, item) for item in items(keys, key)]
    if line is not None:
        found = [(key, item) for key, item in found if item[0].line <= line <= item[-1].line]
    elif len(found) > 1:
        found = [(key, item) for key, item in found if any("gpu" in inner.name for inner in item)] or found
    if len(found) != 1:
        places = ", ".join(f"{text.source.name}:{item[0].line} ({_value(item, 'name')})" for _, item in found)
        message = say("edit.which_container", file=text.source.name)
        raise EditRefused(message, next_step=say("edit.which_next", places=places or "-"))
    containers, container = found[0]
    return _Pod(keys, containers, container, _beside(keys, containers))


def _beside(keys: list[Key], key: Key) -> list[Key]:
    """The keys of the mapping that `key` stands in."""
    at = keys.index(key)
    first = at
    while first > 0 and keys[first - 1].depth >= key.depth and not _ends(keys[first], key):
        first -= 1
    last = at
    while last + 1 < len(keys) and keys[last + 1].depth >= key.depth and not _ends(keys[last + 1], key):
        last += 1
    return [other for other in keys[first : last + 1] if other.depth == key.depth]


def _ends(other: Key, key: Key) -> bool:
    """Whether another item of a list that holds `key` begins there."""
    return other.item is not None and other.item < key.depth and other.depth == key.depth


def _dash_below(pod: _Pod, key: Key) -> int:
    """The column of the dashes of a list; for an empty one, that of `containers` relative to its key."""
    inner = items(pod.keys, key)
    if inner and inner[0][0].item is not None:
        return inner[0][0].item
    return (
        key.depth + _dash_below(pod, pod.containers) - pod.containers.depth if key is not pod.containers else key.depth
    )


def _of(keys: list[Key], name: str) -> list[Key]:
    return [key for key in keys if key.name == name]


def _value(keys: list[Key], name: str) -> str:
    return next((key.value.strip("\"'") for key in keys if key.name == name), "")


def _name_beside(keys: list[Key], mount: Key) -> str:
    """The `name` in the same item of volumeMounts."""
    at = keys.index(mount)
    first = at
    while keys[first].item is None and first > 0:
        first -= 1
    group = [keys[first]]
    for key in keys[first + 1 :]:
        if key.item is not None or key.depth < keys[first].depth:
            break
        group.append(key)
    return _value(group, "name")
