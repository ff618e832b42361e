"""`shm_size` and variables for a service of a compose file that has none."""

from __future__ import annotations

import re
from collections.abc import Sequence

from keepfed.edit.inserting.outline import Key, below, children, outline
from keepfed.edit.inserting.text import Text
from keepfed.edit.replacement import Edit, EditRefused
from keepfed.edit.respelling import docker_size
from keepfed.knobs.knob import Wish
from keepfed.text import say

_GPU = re.compile(r"nvidia|gpu", re.IGNORECASE)


def is_compose(text: Text) -> bool:
    """Whether a YAML file has services in compose's way."""
    return any(key.name == "services" and key.depth == 0 and not key.value for key in outline(text.lines))


def insert_in_service(wish: Wish, text: Text, line: int | None) -> list[Edit]:
    """The setting for the one service that is meant. Raises EditRefused where that is not clear."""
    keys = outline(text.lines)
    service = _service(text, keys, line)
    inner = children(keys, service)
    if not inner:
        raise EditRefused(
            say("edit.no_room", place=f"{text.source.name}:{service.line}"), next_step=say("edit.no_room_next")
        )
    depth = " " * inner[0].depth
    if wish.knob == "shm_size":
        _refuse_shared(text, inner)
        return [_line_behind(wish, text, _behind(service, inner), f"{depth}shm_size: {docker_size(wish.value)}")]
    block = next((key for key in inner if key.name == "environment" and not key.value), None)
    if block is None:
        new = f'{depth}environment:{text.eol}{depth}  {wish.spelling}: "{wish.value}"'
        return [_line_behind(wish, text, _behind(service, inner), new)]
    return [_line_behind(wish, text, block.line, _variable(wish, text, keys, block))]


def _variable(wish: Wish, text: Text, keys: list[Key], block: Key) -> str:
    """One more variable as the others are written: `- NAME=value` or `NAME: "value"`."""
    following = next((line for line in text.lines[block.line :] if line.strip()), "")
    listed = re.match(r"([ ]*)-[ ]+[\"']?\w+=", following)
    if listed:
        return f"{listed[1]}- {wish.spelling}={wish.value}"
    inner = children(keys, block)
    depth = inner[0].depth if inner else block.depth + 2
    return f'{" " * depth}{wish.spelling}: "{wish.value}"'


def _behind(service: Key, inner: Sequence[Key]) -> int:
    """The line behind which a new key stands well: the image's, else that of the service's name."""
    image = next((key for key in inner if key.name == "image" and key.value), None)
    return image.line if image else service.line


def _line_behind(wish: Wish, text: Text, line: int, new: str) -> Edit:
    at = text.line_end(text.start_of(line))
    return text.edit(wish, wish.spelling if wish.knob == "threads_env" else wish.knob, at, text.eol + new)


def _service(text: Text, keys: list[Key], line: int | None) -> Key:
    root = next(key for key in keys if key.name == "services" and key.depth == 0 and not key.value)
    services = [key for key in children(keys, root) if not key.value or key.value.startswith("&")]
    if line is not None:
        services = [key for key in services if key.line <= line <= _last_line(keys, key)]
    elif len(services) > 1:
        with_gpu = [key for key in services if _GPU.search("\n".join(text.lines[key.line - 1 : _last_line(keys, key)]))]
        services = with_gpu or services
    if len(services) == 1:
        return services[0]
    places = ", ".join(f"{text.source.name}:{key.line} ({key.name})" for key in services)
    raise EditRefused(
        say("edit.which_service", file=text.source.name), next_step=say("edit.which_next", places=places or "-")
    )


def _last_line(keys: list[Key], key: Key) -> int:
    inner = below(keys, key)
    return inner[-1].line if inner else key.line


def _refuse_shared(text: Text, inner: Sequence[Key]) -> None:
    """A service with another's /dev/shm never gets its own (docker run, "IPC settings")."""
    for key in inner:
        if key.name == "ipc" and key.value.strip("\"'").startswith(("host", "service:", "container:")):
            place = f"{text.source.name}:{key.line}"
            raise EditRefused(
                say("edit.ipc_shared", place=place, value=key.value), next_step=say("edit.ipc_shared_next")
            )
