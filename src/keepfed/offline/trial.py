"""One measurement in a process of its own: a plan that stays, and at most one thing changed about the loader.

    python -m keepfed.offline.trial module:make_dataset --step-ms 40 --trial '{"num_workers": 4, ...}' --out FILE

What a running search measures of a plan was measured after others, in a process that they have warmed up, filled and
fragmented. The last word between plans that are close, and between things that cannot be changed in a running process at
all (how workers start, how many threads a library keeps), belongs to fresh processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from keepfed.errors import UnreachableError
from keepfed.text import choose_language, say

if TYPE_CHECKING:
    import argparse

MEASURED_S = 3.0
"""Seconds measured, once everything is warm; longer where batches are slow."""

FEWEST_BATCHES = 8
"""Batches measured at least."""

LONGEST_S = 300.0
"""A process that has not answered after so long hangs, or takes longer than anybody would wait for sixteen of them."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""How many threads numpy's linear algebra keeps, whichever library it was built with."""

WATCHED_MODULES = ("cv2", "numpy")
"""Libraries with threads of their own that a worker might do better without."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is measured."""

    num_workers: int
    """Workers."""

    prefetch_factor: int
    """Batches in preparation per worker."""

    change: str = ""
    """What else is changed, a key of `offers.CHANGES`; empty for nothing."""

    whole_epochs: bool = False
    """Whether the start of the workers counts: whole epochs are measured then."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one trial found."""

    batches_per_s: float
    """Throughput of the loop."""

    wait_share: float
    """Share of the time spent waiting for batches."""

    start_s: float
    """Seconds from `iter()` to the first batch."""

    epoch_batches: int
    """Batches in an epoch; 0 where nobody knows."""

    modules: tuple[str, ...]
    """Those of WATCHED_MODULES that the user's code has imported."""

    cuda: bool
    """Whether there is a GPU that batches could be copied to."""

    persistent: bool
    """Whether the user's loader keeps its workers from one epoch to the next."""

    worker_threads: int
    """Threads of the worker that has most of them."""

    start_method: str
    """How its workers are started."""

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch; infinite where nobody knows."""
        return self.epoch_batches / self.batches_per_s if self.epoch_batches else float("inf")


def run(words: Sequence[str], trial: Trial) -> Facts:
    """Measure in a fresh process. `words`: the dataset and the options that speak of it.

    Raises UnreachableError when the process fails, with the last line that it said.
    """
    environ = {key: value for key, value in os.environ.items() if key not in {"KEEPFED_RUN", "KEEPFED_DISABLE"}}
    if trial.change == "blas_threads":
        environ |= dict.fromkeys(THREAD_VARIABLES, "1")
    with tempfile.TemporaryDirectory(prefix="keepfed-trial-") as folder:
        out = Path(folder) / "facts.json"
        options = ["--trial", json.dumps(asdict(trial)), "--out", str(out)]
        command = [sys.executable, "-m", "keepfed.offline.trial", *words, *options]
        try:
            done = subprocess.run(
                command, env=environ, timeout=LONGEST_S, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UnreachableError(say("offline.trial_hangs", seconds=f"{LONGEST_S:.0f}")) from error
        if done.returncode or not out.exists():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise UnreachableError(say("offline.trial_failed", code=done.returncode, line=lines[-1] if lines else "?"))
        found = json.loads(out.read_text(encoding="utf-8"))
    return Facts(**found | {"modules": tuple(found["modules"])})


# -------------------------------------------------------------------------------------------------------- in that process


def main(words: Sequence[str] | None = None) -> int:
    """Measure, write the facts to the file; the exit code is as that of the program."""
    from keepfed.offline.program import guarded, options

    parser = options()
    parser.add_argument("--trial", required=True)
    parser.add_argument("--out", required=True)
    asked = parser.parse_args(words)
    choose_language(asked.lang)

    def measure() -> int:
        facts = measured(asked, Trial(**json.loads(asked.trial)))
        Path(asked.out).write_text(json.dumps(asdict(facts)), encoding="utf-8")
        return 0

    return guarded(asked.spec, measure)


def measured(asked: argparse.Namespace, trial: Trial) -> Facts:
    """Build the loader as the trial wants it, and measure it."""
    import torch

    from keepfed.loader.api import install
    from keepfed.loader.count import WorkerCount
    from keepfed.loader.requests import requests_of
    from keepfed.offline.offers import apply
    from keepfed.offline.program import loader_of, step_of

    install()  # a loader of torch's own class is measured as the search has measured it, with our transport
    # In the long run our own loader keeps its workers, as the search had it; over whole epochs it is as torch's would be.
    loader, ours = loader_of(asked, num_workers=1, persistent_workers=not trial.whole_epochs)
    requests = replace(requests_of(loader), auto=False)  # what else a keepfed.DataLoader was asked for stays
    object.__setattr__(loader, "num_workers", WorkerCount(trial.num_workers, requests))
    object.__setattr__(loader, "prefetch_factor", trial.prefetch_factor if trial.num_workers else None)
    if not trial.num_workers:
        object.__setattr__(loader, "persistent_workers", False)
    apply(trial.change, loader)
    batches_per_s, wait_share, start_s, worker_threads = _timed(loader, step_of(asked), whole=trial.whole_epochs)
    context = loader.multiprocessing_context
    return Facts(
        batches_per_s,
        wait_share,
        start_s,
        epoch_batches=_length(loader),
        modules=tuple(name for name in WATCHED_MODULES if name in sys.modules),
        cuda=torch.cuda.is_available(),
        persistent=loader.persistent_workers and not ours,
        worker_threads=worker_threads,
        start_method=context.get_start_method() if context is not None else torch.multiprocessing.get_start_method(),
    )


def _length(loader: Any) -> int:
    try:
        return len(loader)
    except TypeError:  # a stream
        return 0


@dataclass(slots=True)
class _Clock:
    """Adds up what is to be measured, and nothing else."""

    warm: float
    """Batches that do not count."""
    batches: int = 0
    elapsed_s: float = 0.0
    wait_s: float = 0.0

    def add(self, cycle_s: float, wait_s: float) -> None:
        if self.warm > 0:
            self.warm -= 1
            return
        self.batches, self.elapsed_s, self.wait_s = self.batches + 1, self.elapsed_s + cycle_s, self.wait_s + wait_s

    @property
    def done(self) -> bool:
        return self.batches >= FEWEST_BATCHES and self.elapsed_s >= MEASURED_S


def _timed(loader: Any, step: Callable[[Any], object], *, whole: bool) -> tuple[float, float, float, int]:
    """Batches per second, share of waiting, seconds to the first batch, threads in a worker; steady, or over whole epochs."""
    # Everything that was begun before the last worker was warm is left out: what is in preparation, and one batch each. Of
    # whole epochs the first does not count: workers that persist start in it as all others do.
    warm = max(FEWEST_BATCHES, loader.num_workers * ((loader.prefetch_factor or 1) + 1))
    clock, start_s, threads = _Clock(inf if whole else warm), 0.0, 0
    while not clock.done:
        last_s = time.perf_counter()
        iterator: Iterator[Any] = iter(loader)
        first = True
        while True:
            asked_s = time.perf_counter()
            batch = next(iterator, _END)
            now_s = time.perf_counter()
            if batch is _END:
                clock.warm = 0 if whole else clock.warm
                break
            if clock.done:
                threads = threads or _threads_of_workers()
                if not whole:
                    break
            start_s = start_s or now_s - last_s
            step(batch)
            cycle_s, last_s = time.perf_counter() - last_s, time.perf_counter()
            if whole or not first:
                clock.add(cycle_s, now_s - asked_s)
            first = False
        del batch
    return clock.batches / clock.elapsed_s, min(1.0, clock.wait_s / clock.elapsed_s), start_s, threads


def _threads_of_workers() -> int:
    """Threads of the process below this one that has most of them."""
    counts = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            counts.append(process.num_threads())
    return max(counts, default=0)


_END = object()

if __name__ == "__main__":
    sys.exit(main())
