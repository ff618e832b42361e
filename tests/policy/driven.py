"""A controller at the wheel of a simulated host: windows in, moves carried out, as the pilot does it in a real program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from keepfed.plan import Plan
from keepfed.policy.controller import Controller, Decision, Move, Settled
from keepfed.policy.cost import Bounds
from keepfed.policy.search import Search
from keepfed.policy.window import Observation, WindowBuilder
from tests.policy.simulated import Host, World


def bounds_of(world: World, most: int = 16, fewest: int = 1, *, zero: bool = False) -> Bounds:
    """Bounds as the host would give them; `zero`: no workers may be chosen at an epoch's end."""
    bounds = Bounds(fewest, most, world.cores, world.memory_bytes, max_prefetch=16, max_outstanding=max(64, most))
    return replace(bounds, min_workers=0, zero_allowed=True) if zero else bounds


@dataclass(slots=True)
class Run:
    """What a controller did in one world."""

    plans: list[tuple[float, Plan]] = field(default_factory=list)
    """(time, plan) of every change asked for."""
    decisions: list[Decision] = field(default_factory=list)
    windows: list[Observation] = field(default_factory=list)
    settled: list[tuple[float, Settled]] = field(default_factory=list)


class Driver:
    """The hands: measures windows of one host, hands them to the controller, and does what it says."""

    def __init__(self, host: Host, controller: Controller | Search) -> None:
        self.host, self.controller, self.run = host, controller, Run()
        gpu = host.world.gpu_s > 0
        self._builder = WindowBuilder(host.plan, min_s=3.0, min_batches=30) if gpu else WindowBuilder(host.plan)
        self._changed_at, self._warm_at = host.now, host.delivered
        self._opened, self._used = host.now, host.cpu.used
        self._in_epoch = 0

    def turn(self) -> None:
        """One batch and its step."""
        host = self.host
        waited, stall = host.next()
        for busy, cpu in host.finished():
            self._builder.fetched(busy, cpu)
        if stall is not None:
            self._builder.stalled(stall)
        if self._builder.delivered(host.now, waited, all_warm=self._warm()):
            self._close()
        host.step()
        self._in_epoch += 1
        if host.world.epoch and self._in_epoch >= host.world.epoch:
            self._end_epoch()

    def _warm(self) -> bool:
        host = self.host
        delivered = host.delivered - self._warm_at
        return delivered >= 3 * max(1, host.plan.num_workers) and host.now > self._changed_at + host.world.start_s

    def _close(self) -> None:
        host = self.host
        used = (host.cpu.used - self._used) / max(1e-9, host.now - self._opened)
        window = self._builder.close(
            host.now,
            batch_bytes=host.world.batch_bytes,
            worker_bytes=host.world.worker_bytes,
            host_busy=min(1.0, used / host.world.cores),
        )
        if window is None:
            return
        self._opened, self._used = host.now, host.cpu.used
        self.run.windows.append(window)
        self._carry_out(self.controller.observe(window))

    def _end_epoch(self) -> None:
        self._in_epoch = 0
        self._builder.epoch_started()
        self.host.drain()
        self._carry_out(self.controller.epoch_ended())

    def _carry_out(self, decision: Decision) -> None:
        host, run = self.host, self.run
        run.decisions.append(decision)
        if isinstance(decision, Move):
            host.apply(decision.plan)
            self._builder.changed(decision.plan)
            run.plans.append((host.now, decision.plan))
            self._warm_at, self._changed_at = host.delivered, host.now
        elif isinstance(decision, Settled):
            run.settled.append((host.now, decision))


def drive(
    host: Host,
    controller: Controller | Search,
    *,
    seconds: float,
    until_settled: bool = True,
    at: Callable[[Host], None] | None = None,
) -> Run:
    """Train for some simulated seconds; the controller sees windows and its moves are carried out."""
    driver = Driver(host, controller)
    end_s = host.now + seconds
    while host.now < end_s and not (until_settled and driver.run.settled):
        if at is not None:
            at(host)
        driver.turn()
    return driver.run
