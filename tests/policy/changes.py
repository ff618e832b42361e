"""Loads that change while the program trains: what becomes of them, and how soon the controller is back at the best."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from keepfed.plan import Plan
from keepfed.policy.controller import Controller
from keepfed.policy.cost import fit, memory_of
from tests.policy.driven import Driver
from tests.policy.simulated import Host, World, rate
from tests.policy.worlds import Case, best_rate, draw

KINDS = ("step", "samples", "cores", "neighbour", "memory", "source")
NOTICED = 8
"""Windows after which a change is noticed, or never."""

LONGEST_S = 240.0
"""After a change: time enough for every search; what it is still doing then is no recovery."""


def change(rng: random.Random, kind: str, case: Case, plan: Plan) -> Case:
    """The same program after something has changed; `plan` is what it was settled on."""
    world, bounds = case.world, case.bounds
    if kind == "step":
        factor = rng.choice([0.5, 2.0])
        seconds = world.step_s * factor, world.step_cpu_s * factor, world.gpu_s * factor
        return replace(case, world=replace(world, step_s=seconds[0], step_cpu_s=seconds[1], gpu_s=seconds[2]))
    if kind == "samples":
        factor = rng.choice([0.5, 2.0])
        return replace(case, world=replace(world, wait_s=world.wait_s * factor, cpu_s=world.cpu_s * factor))
    if kind == "cores":
        cores = max(1.0, world.cores / 2)
        told = bounds if rng.random() < 0.5 else replace(bounds, cores=cores)
        return Case(replace(world, cores=cores), plan, told)
    if kind == "neighbour":
        return replace(case, world=replace(world, others=world.cores * rng.choice([0.5, 1.0])))
    if kind == "memory":
        needed = memory_of(plan, world.batch_bytes, world.worker_bytes)[0]
        return replace(case, bounds=replace(bounds, memory_bytes=needed * rng.choice([0.5, 0.8])))
    return replace(case, world=replace(world, source=rng.uniform(0.3, 1.0) / _cycle_s(world)))


def _cycle_s(world: World) -> float:
    return max(world.step_s + world.step_cpu_s, world.gpu_s)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came of one change."""

    kind: str
    seconds: float
    """From the change until a plan was in force that gives 93 % of the new best; infinite if the last one does not."""
    windows: int
    """The same in windows."""
    moves: int
    """Changes of plan that followed."""
    share: float
    """Throughput of the last plan, of the new best."""
    path: tuple[Plan, ...]
    """Plans in force, from the change on."""


class Story:
    """One program: it settles, something changes, and after a while it is as before."""

    def __init__(self, seed: int, kind: str) -> None:
        self.rng, self.kind = random.Random(seed), kind
        drawn = draw(self.rng)
        world = replace(drawn.world, drift=0.0, visits=(0.0, 0.0, 0.0), warm_after=0)
        self.case = self.now = replace(drawn, world=world)
        self.controller = Controller(self.case.start, self.case.bounds)
        self.driver = Driver(Host(world, self.case.start, seed=seed), self.controller)

    def settle(self) -> None:
        """Until the first search is over, and a little longer."""
        self.train(300.0, until=lambda: bool(self.driver.run.settled))
        self.train(20.0)

    def train(self, seconds: float, until: object = None) -> None:
        """So many simulated seconds, or until something is so."""
        end_s = self.driver.host.now + seconds
        while self.driver.host.now < end_s and not (callable(until) and until()):
            self.driver.turn()

    def there(self) -> Recovery:
        """Something changes."""
        return self._after(change(self.rng, self.kind, self.case, self.controller.plan))

    def back(self) -> Recovery:
        """It is again as it was."""
        return self._after(self.case)

    def _after(self, case: Case) -> Recovery:
        self.now = case
        host, run = self.driver.host, self.driver.run
        at_s, windows, moves, settled = host.now, len(run.windows), len(run.plans), len(run.settled)
        path = [(at_s, self.controller.plan)]
        self.controller.bounds = case.bounds
        host.become(case.world)
        self.train(LONGEST_S, until=lambda: host.now > at_s + 20 and len(run.windows) >= windows + NOTICED)
        self.train(LONGEST_S, until=lambda: len(run.settled) > settled or len(run.plans) == moves)
        path += run.plans[moves:]
        plans = tuple(plan for _, plan in path)
        if (
            plans[1:]
            and fit(plans[0], case.bounds, case.world.batch_bytes, case.world.worker_bytes, share=1.0) != plans[0]
        ):
            del path[0]
        rates = {plan: rate(case.world, plan) for _, plan in path}
        best = best_rate(case.world, case.plans(), max(rates.values()))
        shares = {plan: min(1.0, reached / best) for plan, reached in rates.items()}
        good = [when_s for when_s, plan in path if shares[plan] >= 0.93]
        back_s = good[0] if shares[path[-1][1]] >= 0.93 else float("inf")
        needed = sum(window.now_s <= back_s for window in run.windows[windows:])
        return Recovery(self.kind, back_s - at_s, needed, len(plans) - 1, shares[plans[-1]], plans)
