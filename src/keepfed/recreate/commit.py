"""What a container has written, kept as an image, from which the new one is made.

An image made of a container takes over its variables, passwords included, and images are pushed. So every variable of the
container's own is emptied in the image; the new container is given them again. `docker commit` against Podman fails for want of a
body ("Decode(): EOF", containers/podman, pkg/api/handlers/compat/images.go); the API's call has one.
"""

from __future__ import annotations

import re
from typing import Any

from keepfed.engine.client import Engine, Refused
from keepfed.engine.container import Container
from keepfed.errors import UsageError
from keepfed.recreate.spec import ContainerSpec
from keepfed.text import say

_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMIT_S = 3600.0


def checked_reference(name: str) -> tuple[str, str]:
    """Repository and tag of an image's name ("latest" if it has none). Raises UsageError.

    >>> checked_reference("registry:5000/team/trainer:fixed")
    ('registry:5000/team/trainer', 'fixed')
    """
    matched = _REFERENCE.fullmatch(name)
    if matched is None:
        raise UsageError(say("recreate.bad_image", image=name), next_step=say("recreate.bad_image_next"))
    tag = matched[1]
    return (name[: -len(tag) - 1], tag) if tag else (name, "latest")


def check_new(engine: Engine, name: str) -> None:
    """Raise UsageError when there is an image of that name: the name would be taken from it."""
    try:
        engine.inspect_image(name)
    except Refused:
        return
    raise UsageError(say("recreate.image_exists", image=name), next_step=say("recreate.image_exists_next"))


def commit(container: Container, spec: ContainerSpec, name: str) -> dict[str, Any]:
    """Make the image, its variables emptied; returns the engine's answer about it. Raises UnreachableError, UsageError."""
    repository, tag = checked_reference(name)
    names = [entry.partition("=")[0] for entry in spec.environment]
    emptied = [f"ENV {variable}=" for variable in names if _NAME.fullmatch(variable)]
    api = container.engine.api
    before_s, api.timeout = api.timeout, _COMMIT_S
    try:
        with container.engine.asking(say("recreate.doing_commit", name=container.name)):
            made = api.commit(container.id, repository=repository, tag=tag, changes=emptied or None, conf={})
    finally:
        api.timeout = before_s
    return container.engine.inspect_image(str(made["Id"]))
