"""How fast do batches arrive on the GPU: torch's DataLoader against keepfed's, and against the bus itself.

Question: same dataset, same persistent workers, samples ready in memory; the program wants each batch on the GPU and
touches it there. How many batches per second, and how much of what the bus can carry? And does it matter to a real step: a
ResNet-50 in bfloat16 that is fed with JPEGs.

Method: four ways to the GPU: torch with pin_memory and without, each with the program's own `.to(non_blocking=True)`;
keepfed with pin_memory and the same `.to()`; keepfed with device="cuda". torch's better way is what ours are measured
against. A pair is one epoch of theirs and one of ours, one right after the other, in turned order from pair to pair (ABBA);
the figure is the median of the pairs' ratios with a 95 % bootstrap interval, and a bar counts as met when the lower end of
the interval meets it. The bus is measured in the same run: one pinned tensor of the batch's size, copied again and again.
Before anything is timed all four must deliver equal batches.

Bars: float32 at least 8 times torch's better way, and 50 % of the bus with pin_memory, 75 % with device; uint8 at least 10
times; ResNet-50 at least 1.15 times (12 workers), 1.0 times (16).

Result: not run yet on a GPU.

Re-run (about ten minutes; exit status 1 if a bar is missed, 2 without a GPU; the JPEGs need pillow):

    python benchmarks/gpu.py --workers 12 --json gpu.json
    python benchmarks/gpu.py --case resnet --workers 16
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pairs import Interval, in_turn, median_interval
from torch import nn
from torch.utils.data import DataLoader, Dataset

NO_GPU = 2
_cuda: Any = torch.cuda  # its classes have no types


@dataclass(frozen=True, slots=True)
class Case:
    """One shape of batch."""

    name: str
    dtype: torch.dtype
    batches: int
    """Batches in one timed epoch."""
    bar: float
    """Times torch's better way."""
    bus_bars: tuple[float, float]
    """Share of the bus with pin_memory, and with device."""


CASES = (
    Case("256x3x224x224 float32", torch.float32, 40, 8.0, (0.50, 0.75)),
    Case("256x3x224x224 uint8", torch.uint8, 80, 10.0, (0.0, 0.0)),
)
SHAPE = (3, 224, 224)
BATCH_SIZE = 256
RESNET_BARS = {12: 1.15, 16: 1.0}
RESNET_BATCHES = 40


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of one case and one of our ways."""

    case: str
    way: str
    torch_batches_per_s: float
    ours_batches_per_s: float
    ratio: Interval
    bus_share: float
    """Bytes per second as a share of the bus; 0 where that was not asked."""
    bar: float | None
    bus_bar: float
    met: bool | None


class Ready(Dataset[tuple[torch.Tensor, int]]):
    """Samples that are already tensors in memory: fetching one costs nothing."""

    def __init__(self, dtype: torch.dtype, batches: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.samples = [(torch.rand(SHAPE, generator=draw) * 255).to(dtype) for _ in range(8)]
        self.length = BATCH_SIZE * batches

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.samples[index % len(self.samples)], index


class Jpegs(Dataset[tuple[torch.Tensor, int]]):
    """Photographs of 500 by 375, decoded, cropped and flipped as for ImageNet."""

    def __init__(self, batches: int) -> None:
        from PIL import Image

        draw = np.random.default_rng(0)
        self.files = []
        for _ in range(64):
            coarse = Image.fromarray(draw.integers(0, 255, (12, 16, 3), dtype=np.uint8))
            pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)).astype(np.int16)
            noisy = pixels + draw.normal(0, 12, pixels.shape).astype(np.int16)
            file = io.BytesIO()
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
            self.files.append(file.getvalue())
        self.length = BATCH_SIZE * batches

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        image = Image.open(io.BytesIO(self.files[index % len(self.files)])).convert("RGB")
        size = int(torch.randint(160, 375, ()))
        left, top = int(torch.randint(0, 501 - size, ())), int(torch.randint(0, 376 - size, ()))
        image = image.resize((224, 224), Image.Resampling.BILINEAR, (left, top, left + size, top + size))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return (pixels.flip(2) if torch.rand(()) < 0.5 else pixels).contiguous(), index % 1000


# ----------------------------------------------------------------------------------------------------------------- the step


class Bottleneck(nn.Module):
    """The block of ResNet-50: 1x1, 3x3, 1x1, and a way around them (He et al., 2015)."""

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.way = nn.Sequential(
            *conv(inner, width, 1, 1), nn.ReLU(), *conv(width, width, 3, stride), nn.ReLU(), *conv(width, out, 1, 1)
        )
        self.around = nn.Sequential(*conv(inner, out, 1, stride)) if stride != 1 or inner != out else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, inner, h, w) to (batch, 4 * width, h / stride, w / stride)."""
        return torch.relu(self.way(x) + self.around(x))


def conv(inner: int, out: int, size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """A convolution and its normalisation."""
    return nn.Conv2d(inner, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out)


def resnet50() -> nn.Module:
    """ResNet-50 with 1000 classes."""
    layers: list[nn.Module] = [*conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inner = 64
    for blocks, width, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for number in range(blocks):
            layers.append(Bottleneck(inner, width, stride if number == 0 else 1))
            inner = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, 1000))


def training_step() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """One step of training; it waits for nothing."""
    model: Any = resnet50().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # one of nn's
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        x = images.to(memory_format=torch.channels_last).float().div_(255)
        with torch.autocast("cuda", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def touch(images: torch.Tensor, labels: torch.Tensor) -> None:
    """Use the batch on the GPU, and wait: a batch counts when it is there."""
    images.view(-1)[:16].float().sum()
    labels.sum()
    _cuda.synchronize()


# ---------------------------------------------------------------------------------------------------------------- measuring

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "torch pinned": ("torch", {"pin_memory": True}),
    "torch": ("torch", {}),
    "pin_memory": ("keepfed", {"pin_memory": True}),
    "device": ("keepfed", {"device": "cuda"}),
}
OURS = ("pin_memory", "device")


def main(argv: Sequence[str] | None = None) -> int:
    """Run every case, print the table; 1 when a bar is missed."""
    args = parse_args(argv)
    if not torch.cuda.is_available():
        print(f"needs a GPU; torch {torch.__version__} sees none", file=sys.stderr)
        return NO_GPU
    print(
        f"{_cuda.get_device_name()}, torch {torch.__version__}, {args.workers} workers, {args.pairs} pairs", flush=True
    )
    print(HEADER, flush=True)
    rows = []
    for case in CASES:
        if args.case in case.name:
            rows += carried(case, args)
    if args.case in "resnet":
        rows += trained(args)
    if args.json is not None:
        args.json.write_text(json.dumps(record(args, rows), indent=2) + "\n", encoding="utf-8")
    return 1 if any(row.met is False for row in rows) else 0


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line, with its defaults filled in."""
    parser = argparse.ArgumentParser(description="Batches delivered to the GPU, torch's DataLoader against keepfed's.")
    parser.add_argument("--pairs", type=int, default=10, help="pairs per case")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--case", default="", help='only the cases whose name contains this ("resnet" is one)')
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the rows here, too")
    args = parser.parse_args(argv)
    if args.pairs < 1 or args.workers < 1:
        parser.error("--pairs and --workers must be at least 1")
    return args


def carried(case: Case, args: argparse.Namespace) -> list[Row]:
    """Both of our ways for one shape, against torch's better one and against the bus."""
    dataset = Ready(case.dtype, case.batches)
    batch_bytes = BATCH_SIZE * torch.Size(SHAPE).numel() * case.dtype.itemsize
    bus = bus_bytes_per_s(batch_bytes)
    print(f"{case.name}: the bus carries {bus / 1e9:.1f} GB/s", flush=True)
    best = better_of_torchs(dataset, args.workers, touch)
    rows = []
    for way, bus_bar in zip(OURS, case.bus_bars, strict=True):
        with warmed(best, dataset, args.workers) as left, warmed(way, dataset, args.workers) as right:
            require_equal(left, right, case.name)
            pairs = list(in_turn(args.pairs, partial(timed_epoch, left, touch), partial(timed_epoch, right, touch)))
        rows.append(summed_up(case.name, way, pairs, case.bar, batch_bytes / bus, bus_bar))
        print(line(rows[-1]), flush=True)
    return rows


def trained(args: argparse.Namespace) -> list[Row]:
    """A real step, fed with JPEGs."""
    dataset, step = Jpegs(RESNET_BATCHES), training_step()
    best = better_of_torchs(dataset, args.workers, step)
    rows = []
    for way in OURS:
        with warmed(best, dataset, args.workers) as left, warmed(way, dataset, args.workers) as right:
            pairs = list(in_turn(args.pairs, partial(timed_epoch, left, step), partial(timed_epoch, right, step)))
        rows.append(summed_up("resnet50 on JPEGs", way, pairs, RESNET_BARS.get(args.workers), 0.0, 0.0))
        print(line(rows[-1]), flush=True)
    return rows


def bus_bytes_per_s(nbytes: int, copies: int = 40) -> float:
    """What the bus carries from one pinned tensor of this size."""
    here = torch.ones(nbytes, dtype=torch.uint8).pin_memory()
    there = torch.empty_like(here, device="cuda")
    for repeats in (3, copies):
        _cuda.synchronize()
        started_s = time.perf_counter()
        for _ in range(repeats):
            there.copy_(here, non_blocking=True)
        _cuda.synchronize()
    return copies * nbytes / (time.perf_counter() - started_s)


@contextmanager
def warmed(way: str, dataset: Dataset[Any], workers: int) -> Iterator[Any]:
    """A loader whose workers are up and have carried a whole epoch; they are gone afterwards."""
    whose, options = WAYS[way]
    kind: Any = DataLoader
    if whose == "keepfed":
        from keepfed import DataLoader as kind  # noqa: N813  # a class in a variable
    loader = kind(dataset, batch_size=BATCH_SIZE, num_workers=workers, persistent_workers=True, **options)
    try:
        for _ in loader:
            pass
        yield loader
    finally:
        loader._iterator = None  # persistent workers live as long as the loader's iterator


def better_of_torchs(dataset: Dataset[Any], workers: int, use: Callable[..., None]) -> str:
    """Whether torch is faster with or without pinning here."""
    rates = {}
    for way in ("torch pinned", "torch"):
        with warmed(way, dataset, workers) as loader:
            rates[way] = timed_epoch(loader, use)
    return max(rates, key=lambda way: rates[way])


def require_equal(left: Any, right: Any, case: str) -> None:
    """A faster loader that delivers something else would have won nothing."""
    for number, (ours, theirs) in enumerate(zip(left, right, strict=True)):
        if not all(torch.equal(a.cuda(), b.cuda()) for a, b in zip(ours, theirs, strict=True)):
            raise SystemExit(f"{case}: batch {number} differs from torch's, nothing was timed")


def timed_epoch(loader: Any, use: Callable[..., None]) -> float:
    """Batches per second of one epoch, from `iter()` to the moment when the GPU is done with the last one."""
    _cuda.synchronize()
    started_s, count = time.perf_counter(), 0
    for images, labels in loader:
        use(images.to("cuda", non_blocking=True), labels.to("cuda", non_blocking=True))
        count += 1
    _cuda.synchronize()
    return count / (time.perf_counter() - started_s)


def summed_up(
    case: str, way: str, pairs: Sequence[tuple[float, float]], bar: float | None, bus_s: float, bus_bar: float
) -> Row:
    """The row of one case; `bus_s`: what the bus alone needs for a batch."""
    ratio = median_interval([ours / theirs for theirs, ours in pairs])
    rate = float(np.median([ours for _, ours in pairs]))
    met = None if bar is None else ratio.low >= bar and rate * bus_s >= bus_bar
    return Row(
        case, way, float(np.median([theirs for theirs, _ in pairs])), rate, ratio, rate * bus_s, bar, bus_bar, met
    )


HEADER = (
    f"{'batch':24}{'ours':12}{'torch b/s':>11}{'ours b/s':>11}{'ratio':>8}  {'95 % interval':18}{'of the bus':>10}  bar"
)


def line(row: Row) -> str:
    """A row of the printed table."""
    interval = f"[{row.ratio.low:.2f}, {row.ratio.high:.2f}]"
    share = f"{row.bus_share:.0%}" if row.bus_share else "-"
    bus = f" and {row.bus_bar:.0%} of the bus" if row.bus_bar else ""
    verdict = "-" if row.bar is None else f"{row.bar:g}x{bus} {'met' if row.met else 'missed'}"
    return (
        f"{row.case:24}{row.way:12}{row.torch_batches_per_s:11.1f}{row.ours_batches_per_s:11.1f}"
        f"{row.ratio.median:8.2f}  {interval:18}{share:>10}  {verdict}"
    )


def record(args: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    """What --json writes."""
    return {
        "schema": "keepfed.benchmark.gpu/1",
        "gpu": _cuda.get_device_name(),
        "torch": torch.__version__,
        "workers": args.workers,
        "pairs": args.pairs,
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
