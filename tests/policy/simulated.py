"""A host, a loader and a training loop in one process and no time at all: what the controller is driven with.

Batches are events: a worker takes the next index when a slot of `workers x prefetch` is free, the loop takes batches in
order, waits, steps. Workers and step stretch each other when they want more cores than there are (processor sharing), and
workers stretch each other at a source that gives only so many batches a second. On a GPU the host runs ahead.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, replace

from keepfed.plan import Plan


@dataclass(frozen=True, slots=True)
class World:
    """One program on one host; all times in seconds per batch."""

    cores: float = 2.0
    wait_s: float = 0.0
    """Part of fetching a batch in which a worker only waits (I/O)."""
    cpu_s: float = 0.0
    """Part of it in which a worker computes."""
    step_s: float = 0.04
    """Step: the part that takes no core (a GPU in lock-step, a sleep)."""
    step_cpu_s: float = 0.0
    """Step: the part that computes on `step_threads` cores."""
    step_threads: float = 1.0
    others: float = 0.0
    """Threads of other processes that compute all the time."""
    visits: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Every so many seconds, for so many seconds, so many more threads of other processes compute."""
    gpu_s: float = 0.0
    """Asynchronous GPU work per batch; the host runs `ahead` batches ahead."""
    ahead: int = 30
    samples: int = 1
    """Samples per batch, whose costs are drawn one by one."""
    shape: str = "normal"
    """How the cost of a sample is distributed: "normal", "lognormal", or "bimodal" (half of them dear)."""
    spread: float = 0.1
    """Relative spread of that cost."""
    tail: tuple[float, float] = (0.0, 1.0)
    """Share of samples that are slow, and how many times slower they are."""
    drift: float = 0.0
    """By how much samples become dearer per minute, as a share of what they cost first."""
    source: float = float("inf")
    """Batches a second that the storage gives at most."""
    take_s: float = 0.0002
    """What taking a batch over costs the loop, inside next()."""
    noise: float = 0.02
    """Host noise: half-width of the speed's scatter from one second to the next."""
    start_s: float = 0.5
    """Until a new worker begins; its first batch takes three times as long."""
    cold: float = 1.0
    """How many times slower waiting is before the page cache is warm."""
    warm_after: int = 0
    """Batches until it is."""
    gap_every: int = 0
    gap_s: float = 0.0
    """An evaluation every so many batches."""
    epoch: int = 0
    """Batches per epoch; 0 means endless."""
    batch_bytes: float = 1e6
    worker_bytes: float = 1e8
    memory_bytes: float = 1e12
    switch: float = 0.01
    """Loss per runnable thread beyond the cores."""

    def at(self, now_s: float) -> World:
        """The same without its drift, as it is at some time."""
        dearer = max(0.2, 1 + self.drift * now_s / 60)
        return replace(self, wait_s=self.wait_s * dearer, cpu_s=self.cpu_s * dearer, drift=0.0)

    def others_at(self, now_s: float) -> float:
        """Threads of other processes at some time."""
        every_s, for_s, threads = self.visits
        return self.others + (threads if every_s and now_s % every_s < for_s else 0.0)


class Shared:
    """Something that many jobs share evenly (cores, a disk): each runs at full speed until there are too many.

    Kept in virtual time, in which every job runs at speed 1, so that a change of speed touches no job.
    """

    def __init__(self, capacity: float, switch: float = 0.0, others: float = 0.0) -> None:
        self.capacity, self.switch, self.others = capacity, switch, others
        self.now = self.virtual = self.weight = self.used = 0.0
        self.jobs: list[tuple[float, int, float, int]] = []
        self.order = 0

    def speed(self) -> float:
        weight = self.weight + self.others
        over = max(0.0, weight - self.capacity)
        return min(1.0, self.capacity / max(weight, 1e-9)) / (1 + self.switch * over)

    def advance(self, now: float) -> None:
        self.virtual += (now - self.now) * self.speed()
        self.used += (now - self.now) * min(self.weight + self.others, self.capacity)
        self.now = now

    def add(self, job: int, work: float, weight: float = 1.0) -> None:
        self.order += 1
        heapq.heappush(self.jobs, (self.virtual + work, self.order, weight, job))
        self.weight += weight

    def next_at(self) -> float:
        return self.now + (self.jobs[0][0] - self.virtual) / self.speed() if self.jobs else float("inf")

    def pop(self) -> int:
        _, _, weight, job = heapq.heappop(self.jobs)
        self.weight = self.weight - weight if self.jobs else 0.0
        return job


MAIN = -1
ROUND = 250
"""Batches after which costs recur where a rate is measured; more than are ever in preparation."""


def _sample(rng: random.Random, world: World) -> float:
    """The cost of one sample; 1 on average, but for the slow ones."""
    if world.shape == "lognormal":
        cost = rng.lognormvariate(-(world.spread**2) / 2, world.spread)
    elif world.shape == "bimodal":
        cost = 1 + (world.spread if rng.random() < 0.5 else -world.spread)
    else:
        cost = max(0.2, rng.gauss(1.0, world.spread))
    return cost * (world.tail[1] if world.tail[0] and rng.random() < world.tail[0] else 1.0)


def _batch(rng: random.Random, world: World) -> float:
    """The cost of a batch of samples."""
    return sum(_sample(rng, world) for _ in range(world.samples)) / world.samples


def _round(rng: random.Random, world: World) -> list[float]:
    """Costs of as many batches, with the mean that many rounds would have."""
    mean = 1 + world.tail[0] * (world.tail[1] - 1)
    costs = [_batch(rng, world) for _ in range(ROUND)]
    return [cost * mean * ROUND / sum(costs) for cost in costs]


class Host:
    """The state of one run; `apply` changes the plan between batches."""

    def __init__(self, world: World, plan: Plan, seed: int = 0, *, noisy: bool = True) -> None:
        self.world, self.plan, self.noisy = world, plan, noisy
        self.rng = random.Random(seed)
        self.costs = random.Random(seed + 1)
        self.recurring = None if noisy else _round(self.costs, world)
        self.now = 0.0
        self.delivered = self.issued = 0
        self.done: set[int] = set()
        self.idle: list[tuple[float, int]] = [(0.0, n) for n in range(plan.num_workers)]
        """(since when it may work, worker)"""
        self.live = plan.num_workers
        self.names = plan.num_workers
        self.leaving = 0
        self.fresh: set[int] = set()
        self.jobs: dict[int, tuple[int, float, float]] = {}
        """batch -> (worker, begun, CPU seconds)"""
        self.cpu = Shared(world.cores, world.switch, world.others)
        self.source = Shared(max(1e-6, world.source * world.wait_s))
        self.finishing: list[tuple[float, float]] = []
        self.main_free = True
        self.gpu_free = 0.0
        self.speed = (1.0, 1.0)
        self.speed_until = 0.0

    def become(self, world: World) -> None:
        """The load changes: another step, other samples, other processes."""
        self.world = world
        self.cpu.capacity, self.cpu.others = world.cores, world.others_at(self.now)
        self.source.capacity = max(1e-6, world.source * world.wait_s)

    def apply(self, plan: Plan) -> None:
        """Add or retire workers, as the hands would; a worker that is at work finishes its batch first."""
        self.leaving += max(0, self.live - plan.num_workers)
        for _ in range(plan.num_workers - self.live):
            if self.leaving:
                self.leaving -= 1
                continue
            self.idle.append((self.now + self.world.start_s, self.names))
            self.fresh.add(self.names)
            self.names += 1
        self.live = plan.num_workers
        while self.leaving and self.idle:
            self.idle.pop()
            self.leaving -= 1
        self.plan = plan
        self._issue()

    def _issue(self) -> None:
        """Hand out indices while slots and workers are free."""
        world = self.world
        while self.idle and self.issued - self.delivered < self.plan.num_workers * self.plan.prefetch_factor:
            since, worker = min(self.idle)
            if since > self.now:
                break
            self.idle.remove((since, worker))
            factor = self._cost()
            if worker in self.fresh:
                self.fresh.discard(worker)
                factor *= 3
            cold = world.cold if self.delivered < world.warm_after else 1.0
            self.jobs[self.issued] = (worker, self.now, world.cpu_s * factor + 2e-5)
            self.source.add(self.issued, world.wait_s * factor * cold)
            self.issued += 1

    def _cost(self) -> float:
        """What the next batch costs, in units of the mean without tail and drift."""
        world = self.world
        cost = _batch(self.costs, world) if self.recurring is None else self.recurring[self.issued % ROUND]
        return cost * self.speed[0] * max(0.2, 1 + world.drift * self.now / 60)

    def _event(self, before: float) -> bool:
        """The next thing that happens, if it happens before some time."""
        starting = min(self.idle)[0] if self.idle else float("inf")
        starting = starting if starting > self.now else float("inf")
        at = min(self.source.next_at(), self.cpu.next_at(), starting)
        if at > before:
            self._advance(before)
            return False
        reading = self.source.next_at() <= at
        computing = not reading and self.cpu.next_at() <= at
        self._advance(at)
        if reading:
            job = self.source.pop()
            if job == MAIN:
                self.main_free = True
            else:
                self.cpu.add(job, self.jobs[job][2])
        elif computing:
            job = self.cpu.pop()
            if job == MAIN:
                self.main_free = True
            else:
                self._finish(job)
        else:
            self._issue()
        return True

    def _advance(self, to: float) -> None:
        self.now = max(self.now, to)
        self.source.advance(self.now)
        self.cpu.advance(self.now)

    def _finish(self, job: int) -> None:
        worker, begun, cpu = self.jobs.pop(job)
        self.done.add(job)
        self.finishing.append((self.now - begun, cpu))
        if self.leaving:
            self.leaving -= 1
        else:
            self.idle.append((self.now, worker))
        self._issue()

    def _compute(self, seconds: float, threads: float) -> None:
        """The training process computes; everybody else goes on."""
        if seconds <= 0:
            return
        self.main_free = False
        self.cpu.add(MAIN, seconds, threads)
        while not self.main_free:
            self._event(float("inf"))

    def _sleep_until(self, at: float) -> None:
        while at > self.now and self._event(at):
            pass

    def next(self) -> tuple[float, float | None]:
        """One batch: (seconds in next(), GPU idle seconds or None)."""
        world = self.world
        if self.noisy and self.now >= self.speed_until:
            half = world.noise / 2
            common = 1 + self.rng.uniform(-half, half)
            self.speed = (common + self.rng.uniform(-half, half), common + self.rng.uniform(-half, half))
            self.speed_until = self.now + 1.0
        self.cpu.others = world.others_at(self.now)
        called = self.now
        if self.plan.num_workers == 0 and self.delivered == self.issued:
            self._fetch_here()
        else:
            self._take()
        stall: float | None = None
        if world.gpu_s:
            stall = max(0.0, self.now - max(called, self.gpu_free))
            self.gpu_free = max(self.gpu_free, self.now + world.step_cpu_s) + world.gpu_s * self.speed[1]
            self._sleep_until(self.gpu_free - world.ahead * world.gpu_s - world.step_cpu_s)
        return self.now - called, stall

    def _fetch_here(self) -> None:
        """The training process makes the batch itself."""
        cost = self._cost()
        if self.world.wait_s:
            self.main_free = False
            cold = self.world.cold if self.delivered < self.world.warm_after else 1.0
            self.source.add(MAIN, self.world.wait_s * cost * cold)
            while not self.main_free:
                self._event(float("inf"))
        self._compute(self.world.cpu_s * cost, 1)
        self.issued += 1
        self.delivered += 1

    def _take(self) -> None:
        """Wait for the next batch in order and take it over."""
        self._issue()
        while self.delivered not in self.done:
            self._event(float("inf"))
        self.done.discard(self.delivered)
        self.delivered += 1
        self._issue()
        self._compute(self.world.take_s, 1)

    def step(self, *, gaps: bool = True) -> None:
        """The training step after `next`, and now and then an evaluation."""
        world = self.world
        self._sleep_until(self.now + world.step_s * self.speed[1])
        self._compute(world.step_cpu_s * self.speed[1], world.step_threads)
        if gaps and world.gap_every and self.delivered % world.gap_every == 0:
            self._sleep_until(self.now + world.gap_s)

    def drain(self) -> None:
        """An epoch ends: all that was begun has been taken, and the next one starts with an empty queue."""
        while self.jobs:
            self._event(float("inf"))
        self.done.clear()
        self.delivered = self.issued

    def finished(self) -> list[tuple[float, float]]:
        """(wall, CPU) seconds of batches that workers finished since the last call."""
        done, self.finishing = self.finishing, []
        return done


def rate(world: World, plan: Plan) -> float:
    """Batches a second that a plan gives in the long run, without noise and with everything warm.

    The costs of batches recur, and whole rounds of them are measured: what is in preparation at the beginning is so at the
    end too, and luck does not decide between plans.
    """
    host = Host(replace(world, start_s=0.0, warm_after=0), plan, seed=11, noisy=False)
    for _ in range(ROUND):
        host.next()
        host.step(gaps=False)
    begun = host.gpu_free or host.now
    # Whole rounds of whoever comes and goes, too.
    until_s = host.now + 4 * world.visits[0]
    while host.delivered % ROUND or host.delivered == ROUND or host.now < until_s:
        host.next()
        host.step(gaps=False)
    return (host.delivered - ROUND) / ((host.gpu_free or host.now) - begun)
