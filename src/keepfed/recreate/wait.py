"""Whether the new container is well: its URL, the engine's own check, or, without either, that it stays up.

Docker runs a container's health check by itself. Podman leaves that to systemd's timers, and on a machine or in a container
without systemd the status stays "starting" for ever, so for Podman the check's own command is run inside.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keepfed.engine.container import Container
from keepfed.errors import UnreachableError
from keepfed.recreate.health import Expected, complaint
from keepfed.recreate.script import SETTLE_S
from keepfed.recreate.shown import harmless
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.engine.client import Engine
    from keepfed.recreate.interrupts import Interrupts
    from keepfed.recreate.spec import ContainerSpec

_LOOK_EVERY_S = 0.3
_LAST_LINES = 20
_CHECK_S = 30.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """When a container counts as healthy, and how long that may take."""

    expected: Expected | None = None
    """What its URL has to answer; None for no URL."""
    timeout_s: float = 180.0
    """The limit."""


def wait_until_healthy(
    engine: Engine, identity: str, spec: ContainerSpec, waiting: Waiting, interrupts: Interrupts
) -> Container:
    """The container, once it is healthy. Raises UnreachableError when it ends, or is not healthy in time; KeyboardInterrupt."""
    began_s = time.monotonic()
    while True:
        interrupts.obey()
        container = Container.of(engine, engine.inspect(identity))
        _require_alive(container)
        left_s = began_s + waiting.timeout_s - time.monotonic()
        wrong = _what_is_wrong(container, spec, waiting, time.monotonic() - began_s)
        if not wrong:
            return container
        if left_s <= 0:
            raise UnreachableError(
                say("recreate.not_in_time", timeout=f"{waiting.timeout_s:g}", reason=wrong, logs=_logs(container))
            )
        time.sleep(min(_LOOK_EVERY_S, left_s))


def _require_alive(container: Container) -> None:
    state = container.detail.get("State") or {}
    again = int(container.detail.get("RestartCount") or 0)
    if container.running and not again and not state.get("Restarting"):
        return
    raise UnreachableError(say("recreate.ended", code=state.get("ExitCode"), logs=_logs(container)))


def _what_is_wrong(container: Container, spec: ContainerSpec, waiting: Waiting, up_s: float) -> str:
    """In words; empty when it is healthy."""
    if spec.check and (wrong := _engine_check(container, spec)):
        return wrong
    if waiting.expected is not None:
        return complaint(waiting.expected)
    if not spec.check and up_s < min(SETTLE_S, waiting.timeout_s):
        return say("recreate.just_started")
    return ""


def _engine_check(container: Container, spec: ContainerSpec) -> str:
    if spec.podman:
        kind, *words = spec.check
        argv = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
        try:
            code: Any = container.run(argv, timeout_s=_CHECK_S).exit_code
        except UnreachableError as error:
            code = error.message
        return "" if code == 0 else say("recreate.check_fails", code=code)
    status = str(((container.detail.get("State") or {}).get("Health") or {}).get("Status") or "starting")
    if status == "unhealthy":
        raise UnreachableError(say("recreate.unhealthy", logs=_logs(container)))
    return "" if status == "healthy" else say("recreate.check_says", status=status)


def _logs(container: Container) -> str:
    """The last lines that it printed, indented; empty where the engine keeps none."""
    try:
        with container.engine.asking(say("recreate.doing_logs", name=container.name)):
            printed: bytes = container.engine.api.logs(container.id, tail=_LAST_LINES)
    except UnreachableError:
        return ""
    return "".join(f"\n    {line}" for line in harmless(printed.decode(errors="replace")).split("\n") if line)
