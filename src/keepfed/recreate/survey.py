"""Everything that has to be known before a container is recreated, asked of the engine; nothing is changed here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keepfed.engine.client import ANSWER_S, Engine, Refused
from keepfed.engine.container import Container
from keepfed.errors import UnreachableError
from keepfed.recreate.changes import Changes, read_changes
from keepfed.recreate.obstacles import Obstacle, notes, obstacles, runs_inside
from keepfed.recreate.podman import PATH, sysctls, unseen
from keepfed.recreate.spec import ContainerSpec, read_spec
from keepfed.text import say

_MOST_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Survey:
    """A container, and what stands in the way of recreating it."""

    container: Container
    """As it is now."""
    image: Mapping[str, Any]
    """The engine's answer about the image that it was made of."""
    spec: ContainerSpec
    """What the new one shall be."""
    now_bytes: int
    """The size that /dev/shm has now."""
    changes: Changes
    """What the container has written into its own layer."""
    obstacles: tuple[Obstacle, ...]
    """Why it must not be recreated."""
    notes: tuple[str, ...]
    """What is worth knowing."""


def survey(container: Container, shm_bytes: int) -> Survey:
    """Look at a container that shall get this size. Raises UnreachableError."""
    engine = container.engine
    podman = engine.kind == "podman"
    native = _native(container) if podman else {}
    if podman:
        container = Container.of(engine, _with_more(container.detail, native, local=engine.local))
    detail = container.detail
    image = _image(container)
    name, moved = _image_name(engine, container)
    before = read_spec(detail, image, image_name=name, podman=podman)
    spec = replace(before.with_shm(shm_bytes), uncarried=(*before.uncarried, *unseen(native)))
    read = _text if engine.local else lambda _file: None
    itself = runs_inside(container.id, _text("/proc/self/mountinfo") or "")
    others = _others(engine, container.id)
    moved_note = [say("recreate.image_moved", image=container.image)] if moved else []
    return Survey(
        container,
        image,
        spec,
        before.shm_bytes,
        _changes(container, podman),
        tuple(obstacles(detail, spec, others, read, itself=itself)),
        (*moved_note, *notes(spec)),
    )


def _image(container: Container) -> dict[str, Any]:
    try:
        return container.engine.inspect_image(container.image_id)
    except Refused as error:
        message = say("recreate.image_gone", image=container.image, name=container.name)
        raise UnreachableError(message, next_step=say("recreate.image_gone_next")) from error


def _with_more(detail: Mapping[str, Any], native: Mapping[str, Any], *, local: bool) -> dict[str, Any]:
    """Docker's words, and what Podman keeps elsewhere on this machine."""
    try:
        runtime = json.loads((_text(str(native.get("OCIConfigPath") or "")) if local else None) or "{}")
    except ValueError:
        runtime = {}
    more = {"Sysctls": found} if (found := sysctls(runtime)) else {}
    host = {**(detail.get("HostConfig") or {}), **more}
    return {**detail, "HostConfig": host, "Pod": native.get("Pod")}


def _text(file: str) -> str | None:
    """A small file of this machine; None where it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return stream.read(_MOST_TEXT_BYTES).decode("utf-8")
    except (OSError, ValueError):
        return None


def _native(container: Container) -> dict[str, Any]:
    """Podman's own answer about a container; empty where it gives none."""
    api = container.engine.api
    try:
        with container.engine.asking(say("recreate.doing_inspect", name=container.name)):
            answer = api.get(f"{api.base_url}{PATH.format(identity=container.id)}", timeout=ANSWER_S)
            container.engine.require_ok(answer, say("recreate.doing_inspect", name=container.name))
            found: dict[str, Any] = answer.json()
    except UnreachableError:
        return {}
    return found


def _image_name(engine: Engine, container: Container) -> tuple[str, bool]:
    """What to create from, and whether its name means another image by now: a pull has moved it on, or it was removed."""
    try:
        same = engine.inspect_image(container.image).get("Id") == container.image_id
    except UnreachableError:
        same = False
    return (container.image, False) if same else (container.image_id, True)


def _others(engine: Engine, identity: str) -> list[dict[str, Any]]:
    """The other containers' descriptions; one that goes away meanwhile is none of them."""
    found = []
    for listed in engine.containers():
        if listed.id != identity:
            try:
                found.append(engine.inspect(listed.id))
            except Refused:
                continue
    return found


def _changes(container: Container, podman: bool) -> Changes:
    with container.engine.asking(say("recreate.doing_diff", name=container.name)):
        raw = container.engine.api.diff(container.id)
    return read_changes(raw, [mount.target for mount in container.mounts], podman=podman)
