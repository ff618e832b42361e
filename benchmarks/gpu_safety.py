"""Is a slot ever written again while a copy that the program started from it is in flight: no byte may be wrong.

Question: batches lie in reused pinned memory, and the GPU is far behind the program. Five programs copy them to the GPU
behind a kernel that sleeps (`torch.cuda._sleep`), drop them at once, and go on: on the default stream; on a side stream that
is dropped after its `with`; as a prefetcher one batch ahead; in a thread of their own; and while a CUDA graph is captured.
Every byte that arrived is compared. One wrong byte is a failure, since no error would ever tell the user.

Controls: the same programs with two wrong gates, one that waits for an event on the current stream only and one that
waits for nothing. Those must corrupt: a check that they pass could not fail.

Result: not run yet on a GPU.

Re-run (a minute; exit status 1 on any wrong byte, or on a control without one; 2 without a GPU):

    python benchmarks/gpu_safety.py --json gpu_safety.json
    python benchmarks/gpu_safety.py --case thread
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

BATCH_SIZE = 8
SAMPLE_ELEMENTS = 1 << 18
"""As float32: 8 MiB per batch, leased in a slot of its own."""
SLEEP_CYCLES = 40_000_000
"""About 25 ms of GPU time before each copy: the workers need less than that to fill a slot again."""
CAPTURED_BATCHES = 6
NO_GPU = 2

_cuda: Any = torch.cuda  # its classes have no types


class Numbered(Dataset[torch.Tensor]):
    """Samples that are full of the number of their batch."""

    def __init__(self, batches: int) -> None:
        self.length = batches * BATCH_SIZE

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((SAMPLE_ELEMENTS,), float(index // BATCH_SIZE))


class Run:
    """One program's batches, and what arrived of them on the GPU."""

    def __init__(self, batches: Iterator[torch.Tensor]) -> None:
        self.batches = enumerate(batches)
        self.arrived: list[tuple[int, torch.Tensor]] = []

    def copy(self, number: int, batch: torch.Tensor) -> None:
        """Queue a copy behind a sleeping kernel, on the current stream."""
        _cuda._sleep(SLEEP_CYCLES)
        self.arrived.append((number, batch.to("cuda", non_blocking=True)))

    def wrong_batches(self) -> list[int]:
        """Batches of which at least one byte is not their own."""
        _cuda.synchronize()
        return [number for number, there in self.arrived if not bool((there == number).all())]


def default_stream(run: Run) -> None:
    for number, batch in run.batches:
        run.copy(number, batch)
        del batch


def side_stream(run: Run) -> None:
    for number, batch in run.batches:
        with _cuda.stream(_cuda.Stream()):
            run.copy(number, batch)
        del batch


def prefetcher(run: Run) -> None:
    """The next batch is copied on a stream of its own while the default stream computes with the one before."""
    side = _cuda.Stream()
    for number, batch in run.batches:
        with _cuda.stream(side):
            run.copy(number, batch)
        del batch
        if len(run.arrived) > 1:
            _cuda.current_stream().wait_stream(side)
            run.arrived[-2][1].add_(0)


def thread(run: Run) -> None:
    def transfer(number: int, batch: torch.Tensor) -> None:
        with _cuda.stream(_cuda.Stream()):
            run.copy(number, batch)

    for number, batch in run.batches:
        other = threading.Thread(target=transfer, args=(number, batch))
        other.start()
        other.join()
        del batch, other


def capture(run: Run) -> None:
    """In the middle of the epoch, with copies in flight, a graph is captured while batches come and are dropped."""
    static, graph, aside = torch.ones(8, device="cuda"), _cuda.CUDAGraph(), _cuda.Stream()
    aside.wait_stream(_cuda.current_stream())
    with _cuda.stream(aside):
        static.add_(1)  # what the captured operation needs is loaded before
    _cuda.synchronize()
    for number, batch in run.batches:
        with _cuda.stream(_cuda.Stream()):
            run.copy(number, batch)
        del batch
        if number == 20:
            with _cuda.stream(aside):
                graph.capture_begin()
                for _ in range(CAPTURED_BATCHES):
                    next(run.batches)
                static.add_(1)
                graph.capture_end()
    graph.replay()
    _cuda.synchronize()
    if static[0].item() != 3:
        raise SystemExit("capture: the graph that was captured does not do what was captured")


PROGRAMS: dict[str, Callable[[Run], None]] = {
    "default stream": default_stream,
    "side stream": side_stream,
    "prefetcher": prefetcher,
    "thread": thread,
    "capture": capture,
}
FOOLED = {"current stream only": ("side stream", "prefetcher", "thread"), "no event": tuple(PROGRAMS)[:4]}
"""Which programs a wrong gate must corrupt."""


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one program."""

    gate: str
    program: str
    batches: int
    wrong: int
    """Batches with a wrong byte."""
    passed: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run every program behind the right gate and behind wrong ones; 1 when any outcome is not the one that must be."""
    args = parse_args(argv)
    if not torch.cuda.is_available():
        print(f"needs an NVIDIA GPU; torch {torch.__version__} sees none", file=sys.stderr)
        return NO_GPU
    print(f"{_cuda.get_device_name()}, torch {torch.__version__}, {args.batches} batches of 8 MiB", flush=True)
    rows = []
    for gate, programs in {"right": tuple(PROGRAMS), **FOOLED}.items():
        for program in programs:
            if args.case in program:
                with gate_of(gate):
                    rows.append(judged(gate, program, args.batches))
                print(line(rows[-1]), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(record(rows), indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.passed for row in rows) else 1


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(description="Delayed copies from reused pinned memory, every byte compared.")
    parser.add_argument("--batches", type=int, default=60, help="per program (at least 40)")
    parser.add_argument("--case", default="", help="only the programs whose name contains this")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows here, too")
    args = parser.parse_args(argv)
    if args.batches < 40:
        parser.error("--batches must be at least 40")
    return args


def judged(gate: str, program: str, batches: int) -> Row:
    """One program over one loader."""
    from keepfed import DataLoader

    loader = DataLoader(Numbered(batches), batch_size=BATCH_SIZE, num_workers=2, pin_memory=True)
    for batch in loader:  # one epoch: slots are registered, workers' pages exist
        if not batch.is_pinned():
            raise SystemExit("batches are not pinned: nothing of this would be tested")
    del batch
    run = Run(iter(loader))
    PROGRAMS[program](run)
    wrong = len(run.wrong_batches())
    return Row(gate, program, len(run.arrived), wrong, passed=(wrong == 0) == (gate == "right"))


@contextmanager
def gate_of(name: str) -> Iterator[None]:
    """Replace the marks that the loader sets by wrong ones."""
    from keepfed.loader.device import CudaDevice, StreamMark

    wrong: dict[str, Callable[[Any], Any]] = {
        "current stream only": lambda _: StreamMark([_cuda.current_stream()]),
        "no event": lambda _: StreamMark([]),
    }
    right = CudaDevice.mark
    try:
        CudaDevice.mark = wrong.get(name, right)  # type: ignore[method-assign]  # what a wrong loader would do
        yield
    finally:
        CudaDevice.mark = right  # type: ignore[method-assign]  # as it was


def line(row: Row) -> str:
    """A row of the printed table."""
    verdict = "ok" if row.passed else "FAILED"
    control = " (must be wrong)" if row.gate != "right" else ""
    return f"{row.gate:22}{row.program:16}{row.wrong:4} of {row.batches} batches wrong{control}: {verdict}"


def record(rows: Sequence[Row]) -> dict[str, Any]:
    """What --json writes."""
    return {
        "schema": "keepfed.benchmark.gpu_safety/1",
        "gpu": _cuda.get_device_name(),
        "torch": torch.__version__,
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
