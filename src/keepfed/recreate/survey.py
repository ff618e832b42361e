"""Everything that has to be known before a container is recreated, asked of the engine; nothing is changed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keepfed.engine.client import ANSWER_S, Engine, Refused
from keepfed.engine.container import Container
from keepfed.errors import UnreachableError
from keepfed.recreate.changes import Changes, read_changes
from keepfed.recreate.obstacles import Obstacle, notes, obstacles
from keepfed.recreate.podman import PATH, unseen
from keepfed.recreate.spec import ContainerSpec, read_spec
from keepfed.text import say


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
    detail = {**container.detail, "Pod": native.get("Pod")}
    image = _image(container)
    name, moved = _image_name(engine, container)
    before = read_spec(detail, image, image_name=name, podman=podman)
    spec = replace(before.with_shm(shm_bytes), uncarried=(*before.uncarried, *unseen(native)))
    others = _others(engine, container.id)
    moved_note = [say("recreate.image_moved", image=container.image)] if moved else []
    return Survey(
        container,
        image,
        spec,
        before.shm_bytes,
        _changes(container, podman),
        tuple(obstacles(detail, spec, others)),
        (*moved_note, *notes(spec)),
    )


def _image(container: Container) -> dict[str, Any]:
    try:
        return container.engine.inspect_image(container.image_id)
    except Refused as error:
        message = say("recreate.image_gone", image=container.image, name=container.name)
        raise UnreachableError(message, next_step=say("recreate.image_gone_next")) from error


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
