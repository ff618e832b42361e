"""What the programs of the zoo train on: nine kinds of samples, each standing for one kind of program, all from a seed.

They differ in what decides about workers: whether samples compute or wait, whether they cost more than carrying them over,
whether all cost the same, and whether memory ends before the cores do. How much they cost is measured where they run
(`zoo_program.py`), so that a cell means the same on every machine.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

MIB = 1 << 20
CHEAP_EPOCH_S = 4.0


def chance(index: int, seed: int) -> float:
    """A number in [0, 1) that belongs to this sample, whoever asks (Knuth's multiplicative hash)."""
    return (index + 1) * 2654435761 % 2**32 * (2 * seed + 1) % 2**32 / 2**32


def file_made(path: Path, make: Callable[[], bytes]) -> Path:
    """This file; made if it is missing, whole or not at all."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}")
        part.write_bytes(make())
        part.replace(path)
    return path


class Samples(Dataset[Any]):
    """As many as an epoch wants; what they are made from is smaller and comes again."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


class Photos(Samples):
    """JPEG files, decoded, cropped at random, resized, mirrored: image classification."""

    FILES = 48
    SIZE = (500, 375)

    def __init__(self, folder: Path, seed: int, length: int) -> None:
        super().__init__(length)
        self.files = [
            file_made(folder / f"photo-{seed}" / f"{number:03}.jpg", partial(self._photo, seed, number))
            for number in range(self.FILES)
        ]

    def _photo(self, seed: int, number: int) -> bytes:
        """Smooth shapes with grain: compresses about as a photograph does."""
        draw = np.random.default_rng((seed, number))
        shapes = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            self.SIZE, Image.Resampling.BICUBIC
        )
        grain = draw.normal(0, 6, (self.SIZE[1], self.SIZE[0], 3))
        pixels = np.clip(np.asarray(shapes) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.files[index % self.FILES]) as image:
            photo = image.convert("RGB")
        side = random.randint(200, 375)
        left, top = random.randint(0, 500 - side), random.randint(0, 375 - side)
        crop = photo.resize((224, 224), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        pixels = torch.from_numpy(np.asarray(crop).transpose(2, 0, 1).astype(np.float32) / 255)
        return (pixels.flip(2) if random.random() < 0.5 else pixels), index % 10


class Texts(Samples):
    """Texts cut into the longest known pieces, in pure Python: a tokenizer that holds the interpreter lock."""

    def __init__(self, _folder: Path, seed: int, length: int) -> None:
        draw = random.Random(seed)
        syllables = [a + b for a in "bcdfghklmnprstvw" for b in "aeiou"]
        pieces = {"".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(4000)}
        self.pieces = {piece: number for number, piece in enumerate(sorted(pieces | set(syllables)), 1)}
        self.texts = ["".join(draw.choices(syllables, k=draw.randint(300, 500))) for _ in range(256)]
        super().__init__(length)

    def __getitem__(self, index: int) -> Tensor:
        text, found, at = self.texts[index % len(self.texts)], [], 0
        while at < len(text):
            end = min(len(text), at + 6)
            while text[at:end] not in self.pieces:
                end -= 1
            found.append(self.pieces[text[at:end]])
            at = end
        return torch.tensor(found)


def padded(texts: list[Tensor]) -> Tensor:
    """Texts as one tensor, as long as the longest."""
    return pad_sequence(texts, batch_first=True)


class Clips(Samples):
    """Two seconds of sound to a log-mel spectrogram: short Fourier transforms, as speech models want them."""

    def __init__(self, _folder: Path, seed: int, length: int) -> None:
        draw = np.random.default_rng(seed)
        self.clips = draw.integers(-(2**14), 2**14, (32, 32_000), dtype=np.int16)
        self.mel = torch.from_numpy(draw.random((80, 257), dtype=np.float32))
        self.window = torch.hann_window(512)
        super().__init__(length)

    def __getitem__(self, index: int) -> Tensor:
        sound = torch.from_numpy(self.clips[index % 32].astype(np.float32) / 2**15)
        sound = sound + 0.01 * torch.randn_like(sound)
        waves = torch.stft(sound, 512, hop_length=80, window=self.window, return_complex=True)
        return torch.log(self.mel @ waves.abs().square() + 1e-6)


class Volumes(Samples):
    """Random crops of 3-D scans in mapped files: medical segmentation."""

    SIDE, CROP = 160, 80

    def __init__(self, folder: Path, seed: int, length: int) -> None:
        files = [
            file_made(folder / f"volume-{seed}" / f"{number}.npy", partial(self._scan, seed, number))
            for number in range(3)
        ]
        self.scans = [np.load(file, mmap_mode="r") for file in files]
        super().__init__(length)

    def _scan(self, seed: int, number: int) -> bytes:
        buffer = io.BytesIO()
        shape = (self.SIDE,) * 3
        np.save(buffer, np.random.default_rng((seed, number)).integers(-1000, 3000, shape, dtype=np.int16))
        return buffer.getvalue()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        corner = [random.randint(0, self.SIDE - self.CROP) for _ in range(3)]
        z, y, x = (slice(start, start + self.CROP) for start in corner)
        crop = self.scans[index % 3][z, y, x].astype(np.float32)
        crop = np.flip(crop, axis=random.randrange(3))
        scan = torch.from_numpy(np.ascontiguousarray((crop - crop.mean()) / crop.std())).unsqueeze(0)
        return scan, (scan > 1.0).to(torch.uint8)


class Rows(Samples):
    """Rows of a table in memory: samples that cost little more than being asked for."""

    def __init__(self, _folder: Path, seed: int, length: int) -> None:
        self.table = torch.rand((50_000, 16), generator=torch.Generator().manual_seed(seed))
        super().__init__(length)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.table[index % 50_000], index % 2


class Reads(Samples):
    """Every sample is waited for, 10 to 30 ms: an object store, a network drive."""

    def __init__(self, _folder: Path, seed: int, length: int) -> None:
        super().__init__(length)
        self.seed = seed

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        time.sleep(0.010 + 0.020 * chance(index, self.seed))
        return torch.full((3, 32, 32), float(index)), index


class Tail(Samples):
    """One sample in twenty has to be waited for 80 ms; the others cost a millisecond of work."""

    SLOW = 0.05

    def __init__(self, _folder: Path, seed: int, length: int) -> None:
        super().__init__(length)
        self.seed = seed
        self.bytes = np.random.default_rng(seed).bytes(1 * MIB)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        digest = hashlib.sha256(self.bytes).digest()
        if chance(index, self.seed) < self.SLOW:
            time.sleep(0.080)
        return torch.full((3, 32, 32), float(digest[0])), index


class Large(Samples):
    """Every worker holds a table of 64 MiB of its own, batches are 9.6 MB, and samples are waited for: memory ends first."""

    def __init__(self, _folder: Path, seed: int, length: int) -> None:
        super().__init__(length)
        self.seed = seed
        self.images = np.random.default_rng(seed).integers(0, 256, (8, 3, 224, 224), dtype=np.uint8)
        self.table: np.ndarray[Any, Any] | None = None

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        if self.table is None:  # as programs load a vocabulary or an index at first use
            self.table = np.full(64 * MIB // 8, float(self.seed))
        time.sleep(0.008)
        pixels = torch.from_numpy(self.images[index % 8].astype(np.float32))
        return pixels, float(self.table[index % len(self.table)])


class Free(Samples):
    """Samples that are there already: what remains is carrying them over."""

    def __init__(self, _folder: Path, seed: int, length: int) -> None:
        self.sample = torch.rand(16, generator=torch.Generator().manual_seed(seed))
        super().__init__(length)

    def __getitem__(self, index: int) -> Tensor:
        return self.sample


class Dearer(Dataset[Any]):
    """Any of them, whose samples can be made to cost several times as much while workers run."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.times = torch.ones((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        for _ in range(int(self.times) - 1):
            self.dataset[index]
        return self.dataset[index]


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of samples, and how a program uses them."""

    name: str
    dataset: Callable[[Path, int, int], Any]
    """Makes it from a folder for its files, a seed and a length."""
    batch_size: int
    waits: bool = False
    """Samples mostly wait, so that more workers than cores make sense."""
    computes: bool = False
    """The step computes on the CPU, as training without a GPU does; otherwise it sleeps, as waiting for a GPU is."""
    collate_fn: Callable[[Any], Any] | None = None
    memory_limit_bytes: int | None = None
    """What the program allows workers and batches together, whoever chooses their number."""
    warm_s: float = 1.0
    """Before a stretch begins; longer where a memory limit has to be noticed first."""
    epoch_s: float = 12.0
    """So long an epoch lasts about; short where no workers at all may be best, which can only begin between epochs."""
    prefetches: tuple[int, ...] = (2,)
    """Prefetch factors that the sweep tries; more than one where single samples are slow."""


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("photos", Photos, 8),
        Workload("tokens", Texts, 32, collate_fn=padded),
        Workload("audio", Clips, 16, computes=True),
        Workload("volumes", Volumes, 2),
        Workload("rows", Rows, 256, epoch_s=CHEAP_EPOCH_S),
        Workload("reads", Reads, 8, waits=True),
        Workload("tail", Tail, 8, waits=True, prefetches=(2, 8)),
        Workload("memory", Large, 16, waits=True, memory_limit_bytes=600 * MIB, warm_s=4.0),
        Workload("free", Free, 8, epoch_s=CHEAP_EPOCH_S),
    )
}
