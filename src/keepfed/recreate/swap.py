"""The old container out, the new one in, and back again if anything goes wrong.

          old container                          new container
          ─────────────                          ─────────────
    NAME, running                                                          nothing has happened yet:
      │                                  created as NAME.keepfed-new-…     whatever is wrong with the
      │                                    joined to further networks      request shows here, while
      │                                    compared with what was asked    the old one still serves
      ▼
    stopped                                                              ┐
      ▼                                                                  │
    NAME.keepfed-old-…, stopped          NAME                            │ any failure, Ctrl-C, SIGTERM
                                           started                       ├─ or a closed terminal in here:
                                           healthy?  (URL, engine, or    │ new one removed, old one renamed
                                                      stays up)          │ back and started
                                           /dev/shm as large as asked?   ┘
      ▼
    removed (its volumes stay)           NAME, running

Ctrl-C must not strike between a request and its answer: nobody would know whether the container has been renamed. So signals are
noted and obeyed between two steps, and while waiting. Going back looks at what is there rather than at what was done. The
engine's own removal of volumes (`docker rm -v`) is never asked for: the new container uses the same ones.
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keepfed.engine.client import Refused
from keepfed.engine.container import Container
from keepfed.errors import KeepfedError, UnreachableError
from keepfed.recreate.difference import differences
from keepfed.recreate.inside import shm_inside
from keepfed.recreate.interrupts import Interrupts
from keepfed.recreate.request import create_body
from keepfed.recreate.script import SETTLE_S
from keepfed.recreate.sizes import size_word
from keepfed.recreate.spec import ContainerSpec, Uncarried
from keepfed.recreate.wait import Waiting, wait_until_healthy
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.engine.client import Engine

_STOP_S = 10
_AGAIN_S, _AGAIN_EVERY_S = 10.0, 0.2
_PAGE_BYTES = 1 << 16
"""The kernel rounds a tmpfs up to whole pages, which have up to 64 KiB."""


class RolledBack(KeepfedError):
    """The new container did not make it; the old one is in its place again."""


class Stranded(KeepfedError):
    """Neither the new container made it nor could the old one be put back; says what to do by hand."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """What came of it."""

    identity: str
    """The new container's ID."""
    shm_bytes: int
    """As the engine's inspect says."""
    seen_bytes: int | None
    """As a look inside says; None where nothing in there could look."""
    lost: tuple[Uncarried, ...]
    """What the engine did not take over."""
    left_aside: str
    """Name of the old container where it could not be removed; empty otherwise."""


@dataclass(slots=True)
class Swap:
    """One exchange. Make it, and call `run` once."""

    container: Container
    """The old one, as it was looked up."""
    spec: ContainerSpec
    """What the new one shall be."""
    image: Mapping[str, Any]
    """The engine's answer about the image that it is made of."""
    waiting: Waiting
    """When it counts as healthy."""
    tell: Callable[[str], None]
    """Gets a line for each step."""
    interrupts: Interrupts
    """What was noted of Ctrl-C and its like."""
    new_id: str = ""
    """The new container, once it exists."""
    stopped: bool = False
    """Whether the old one was told to stop."""
    _mark: str = field(default_factory=lambda: secrets.token_hex(3))

    @property
    def engine(self) -> Engine:
        """Whose containers they are."""
        return self.container.engine

    @property
    def aside(self) -> str:
        """What the old one is called while the new one has its name."""
        return f"{self.spec.name}.keepfed-old-{self._mark}"

    def run(self) -> Swapped:
        """Exchange them. Raises RolledBack, Stranded, KeyboardInterrupt (after going back)."""
        try:
            lost = self._make()
            self._exchange()
            detail, seen = self._prove()
        except BaseException as error:
            self._back(error)
            raise
        left_aside = self._remove_old()
        return Swapped(self.new_id, int(detail["HostConfig"]["ShmSize"]), seen, lost, left_aside)

    # ------------------------------------------------------------------------------------------------------------ forward

    def _make(self) -> tuple[Uncarried, ...]:
        """Create the new one beside the old one, and see what the engine made of the request."""
        api, born = self.engine.api, f"{self.spec.name}.keepfed-new-{self._mark}"
        self.tell(say("recreate.step_create", image=self.spec.image))
        with self._step("create", self.spec.name):
            self.new_id = str(api.create_container_from_config(create_body(self.spec), born)["Id"])
        # Again, now that ours is to be seen: of two that began together, none goes on alone in the belief that it is alone.
        refuse_leftovers(self.container, besides=born)
        for endpoint in self.spec.endpoints[1:]:
            addresses, settings = endpoint.addresses, endpoint.settings
            with self._step("join", endpoint.network):
                api.connect_container_to_network(
                    self.new_id,
                    endpoint.network,
                    aliases=endpoint.aliases or None,
                    ipv4_address=addresses.get("IPv4Address"),
                    ipv6_address=addresses.get("IPv6Address"),
                    link_local_ips=addresses.get("LinkLocalIPs"),
                    driver_opt=settings.get("DriverOpts"),
                    mac_address=settings.get("MacAddress"),
                )
        grave, light = differences(self.spec, self.engine.inspect(self.new_id), self.image)
        if grave:
            text = "\n".join(f"  {one.field}: {one.value}: {one.why}" for one in grave)
            raise UnreachableError(say("recreate.engine_took_less", fields=text))
        return light

    def _exchange(self) -> None:
        """Stop the old one, give its name to the new one, start that."""
        api, name = self.engine.api, self.spec.name
        grace_s = (self.container.detail.get("Config") or {}).get("StopTimeout")
        self.tell(say("recreate.step_stop", name=name))
        with self._step("stop", name):
            self.stopped = True
            api.stop(self.container.id, timeout=_STOP_S if grace_s is None else int(grace_s))
        with self._step("rename", name):
            api.rename(self.container.id, self.aside)
        with self._step("rename", name):
            api.rename(self.new_id, name)
        self.tell(say("recreate.step_start", name=name, aside=self.aside))
        with self._step("start", name):
            api.start(self.new_id)

    def _prove(self) -> tuple[Mapping[str, Any], int | None]:
        """Wait until it is healthy, and look at its shared memory from outside and from inside."""
        if self.spec.check or self.waiting.expected is not None:
            self.tell(say("recreate.step_wait", timeout=self.waiting.timeout_s))
        else:
            self.tell(say("recreate.step_settle", seconds=SETTLE_S))
        new = wait_until_healthy(self.engine, self.new_id, self.spec, self.waiting, self.interrupts)
        wanted, seen = self.spec.shm_bytes, shm_inside(new)
        for found in (int(new.detail["HostConfig"].get("ShmSize") or 0), seen):
            if found is not None and not wanted <= found <= wanted + _PAGE_BYTES:
                raise UnreachableError(say("recreate.wrong_size", wanted=size_word(wanted), found=size_word(found)))
        return new.detail, seen

    def _remove_old(self) -> str:
        """Remove the old one; a failure is no reason to go back any more. Returns the name it keeps then."""
        try:
            with self.engine.asking(say("recreate.doing_remove", name=self.aside)):
                self.engine.api.remove_container(self.container.id, v=False)
        except UnreachableError as error:
            self.tell(say("recreate.old_stays", aside=self.aside, reason=error.message))
            return self.aside
        return ""

    @contextmanager
    def _step(self, doing: str, name: str) -> Iterator[None]:
        """One request; what was noted of Ctrl-C is obeyed before and after it."""
        self.interrupts.obey()
        with self.engine.asking(say(f"recreate.doing_{doing}", name=name)):
            yield
        self.interrupts.obey()

    # --------------------------------------------------------------------------------------------------------------- back

    def _back(self, cause: BaseException) -> None:
        """Put everything back as it was; raises RolledBack or Stranded, unless `cause` shall be heard itself."""
        if self.stopped:
            self.tell(say("recreate.step_back", name=self.spec.name))
        failures = [failure for undo in (self._remove_new, self._rename_back, self._start_old) for failure in undo()]
        reason = cause.message if isinstance(cause, KeepfedError) else str(cause) or type(cause).__name__
        if failures:
            raise Stranded(
                say("recreate.stranded", reason=reason, failures="; ".join(failures)), next_step=self._by_hand()
            ) from cause
        if isinstance(cause, KeepfedError):
            key = "recreate.rolled_back" if self.stopped else "recreate.not_begun"
            raise RolledBack(say(key, reason=reason, name=self.spec.name), next_step=cause.next_step) from cause

    def _remove_new(self) -> Iterator[str]:
        """Podman fails to kill a container that has ended by itself a moment ago; asked again, it notices."""
        born = self.new_id or f"{self.spec.name}.keepfed-new-{self._mark}"
        ends_s = time.monotonic() + _AGAIN_S
        while True:
            try:
                with self.engine.asking(say("recreate.doing_remove", name=born)):
                    self.engine.api.remove_container(born, v=False, force=True)
            except UnreachableError as error:
                if isinstance(error, Refused) and error.status == 404:
                    return
                if time.monotonic() < ends_s:
                    time.sleep(_AGAIN_EVERY_S)
                    continue
                yield error.message
            return

    def _rename_back(self) -> Iterator[str]:
        try:
            now = str(self.engine.inspect(self.container.id).get("Name", "")).removeprefix("/")
            if now != self.spec.name:
                with self.engine.asking(say("recreate.doing_rename", name=now)):
                    self.engine.api.rename(self.container.id, self.spec.name)
        except UnreachableError as error:
            yield error.message

    def _start_old(self) -> Iterator[str]:
        """Start it if we stopped it; a stop whose answer got lost may still be at work, and a second one waits for it."""
        if not self.stopped:
            return
        try:
            with self.engine.asking(say("recreate.doing_start", name=self.spec.name)):
                self.engine.api.stop(self.container.id, timeout=_STOP_S)
                self.engine.api.start(self.container.id)
        except UnreachableError as error:
            yield error.message

    def _by_hand(self) -> str:
        engine, name = self.engine.kind, self.spec.name
        commands = [
            [engine, "rm", "-f", self.new_id or name],
            [engine, "rename", self.container.id[:12], name],
            [engine, "start", self.container.id[:12]],
        ]
        return say("recreate.by_hand", commands="\n".join(f"    {shlex.join(command)}" for command in commands))


def refuse_leftovers(container: Container, *, besides: str = "") -> None:
    """Raise KeepfedError when an earlier attempt was killed half-way, or another one is at work."""
    prefix = f"{container.name}.keepfed-"
    names = sorted(
        name
        for one in container.engine.containers()
        for name in one.names
        if name.startswith(prefix) and name != besides
    )
    if names:
        message = say("recreate.left_over", names=", ".join(names))
        raise KeepfedError(message, next_step=say("recreate.left_over_next", name=container.name))
