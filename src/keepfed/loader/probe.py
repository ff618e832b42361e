"""A child that times the dataset's own samples: how much is decoding, transforming, reading, and what would be quicker.

    trainer, waiting in next()                              probe: forked from the zygote, as a worker is
    ──────────────────────────                              ─────────────────────────────────────────────
    send_out ──▶ ("probe", indices, seconds) ─────────────▶ torch's own worker loop, one sample at a time:
                                                              1  the first ones, untimed: imports, files, caches
                                                              2  each timed with its layers (layers.py); beside it the
                                                                 same sample with JPEGs decoded smaller, where that fits
                                                              3  its files out of the page cache: storage, then samples
    found ◀───────────────────── ("probed", what it found) ── and the end of the process

It never runs in the training process, nor in a worker that makes batches: it patches decoders, wraps the transform, and draws
random numbers as it likes. What it sees is the dataset as it was at `iter()`, prepared by the loader's own worker_init_fn. It
runs while the workers rest, so that nobody takes the cores or the disk from it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from keepfed.host.storage import Range, forget, ranges_of, read_speed
from keepfed.loader import torch_seam
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.layers import Layers
from keepfed.loader.queues import Ending

if TYPE_CHECKING:
    from keepfed.loader.worker import WorkerJob

ERRAND = 1_000_000
"""In the place of a worker id: no worker has it."""
FEWEST = 3
"""Samples below which nothing is said."""
_UNTIMED = 2
_MOST_FILES = 64
_CODE = (".py", ".pyc", ".so", ".pth")


@dataclass(slots=True)
class Probe:
    """What one probe found. Seconds are per sample: means, and medians where samples were timed twice to be compared."""

    samples: int = 0
    """Samples timed with everything in memory."""
    sample_s: float = 0.0
    """One sample."""
    transform_s: float | None = None
    """Part of it in the dataset's transform, decoding not included; None where it has none that can be told apart."""
    decode_s: float | None = None
    """Part of it decoding; None where no decoder that we know was called."""
    decoder: str = ""
    """Which decoder."""
    draft_samples: int = 0
    """Samples that were timed a second time with their JPEGs decoded smaller."""
    draft_from_s: float = 0.0
    """What these took at first."""
    draft_s: float = 0.0
    """What they took then."""
    cold_samples: int = 0
    """Samples that were timed again with their files out of the page cache."""
    cold_from_s: float = 0.0
    """What these took with their files cached."""
    cold_s: float = 0.0
    """What they took then."""
    files: int = 0
    """Files that the samples opened."""
    read_bytes_per_s: float = 0.0
    """What the storage gave, one reader; 0 where the cache could not be emptied, or made no difference."""


@dataclass(frozen=True, slots=True)
class _Took:
    seconds: float
    made: bool  # and not an exception


_Scenes = Generator[Any, _Took, None]


def serve(job: WorkerJob, end: WorkerEnd) -> None:
    """Be a probe: time what the trainer asks for, answer, and end. Says nothing when the trainer is gone."""
    with contextlib.suppress(EOFError, OSError):
        message = end.receive(block=True)
        if message is not None:
            _, indices, seconds = message
            end.send("timing", os.getpid())
            end.send("probed", asdict(_Study(job.loop_arguments, indices, seconds).found()))


class _Study:
    """Takes the places of torch's two queues and its event: asks its loop for one sample after the other, and times them."""

    def __init__(self, loop_arguments: dict[str, Any], indices: list[Any], seconds: float) -> None:
        self._arguments = {**loop_arguments, "collate_fn": _nothing}
        self._indices, self._seconds = indices, seconds
        self._probe, self._layers, self._files = Probe(), Layers(), _Files()
        self._scenes = self._all_scenes()
        self._took: _Took | None = None
        self._began_s = 0.0
        self._ending = Ending()

    def found(self) -> Probe:
        """What was found, also where the dataset ended it all."""
        with contextlib.suppress(Exception):  # an init function that works in real workers only: nothing was found then
            torch_seam.worker_loop(
                **self._arguments, index_queue=self, data_queue=self, done_event=self._ending, worker_id=0
            )
        return self._probe

    def get(self, timeout: float | None = None) -> Any:
        """The next sample that shall be made."""
        del timeout
        try:
            index = next(self._scenes) if self._took is None else self._scenes.send(self._took)
        except StopIteration:
            self._ending.set()
            return None
        self._files.begin()
        self._began_s = time.perf_counter()
        return 0, [index]

    def put(self, item: tuple[Any, Any]) -> None:
        """It was made."""
        took_s = time.perf_counter() - self._began_s
        self._files.end()
        self._took = _Took(took_s, made=not torch_seam.is_exception(item[1]))

    def cancel_join_thread(self) -> None:
        """There is no thread."""

    def close(self) -> None:
        """There is nothing to close."""

    # ---- the scenes -------------------------------------------------------------------------------------------------

    def _all_scenes(self) -> _Scenes:
        now_s = time.monotonic()
        for index in self._indices[:_UNTIMED]:  # noqa: UP028  # a list cannot be sent to, as `yield from` would
            yield index
        self._layers.wrap_dataset(self._arguments["dataset"])
        self._layers.wrap_decoders()
        known = yield from self._get_to_know(now_s + 0.3 * self._seconds)
        plain = yield from self._with_layers(known, now_s + 0.7 * self._seconds)
        yield from self._cold(plain, known, now_s + self._seconds)

    def _get_to_know(self, until_s: float) -> Generator[Any, _Took, dict[int, list[str]]]:
        """Each sample once, so that its files are cached; which files it opens. Samples that raise are left out."""
        known: dict[int, list[str]] = {}
        for place, index in enumerate(self._indices):
            if place >= FEWEST and time.monotonic() > until_s:
                break
            took = yield index
            if took.made:
                known[place] = self._files.opened()
        return known

    def _with_layers(self, known: dict[int, list[str]], until_s: float) -> Generator[Any, _Took, list[int]]:
        """Plain and drafted side by side: whatever slows this machine down slows both."""
        layers = self._layers
        rows: list[tuple[float, float, float]] = []
        drafted: list[tuple[float, float]] = []
        plain: list[int] = []
        for place in known:
            if len(rows) >= FEWEST and time.monotonic() > until_s:
                break
            layers.begin()
            took = yield self._indices[place]
            if not took.made:
                continue
            plain.append(place)
            rows.append((took.seconds, layers.decode_s, layers.transform_s))
            if (scale := layers.allowed_scale()) > 1:
                layers.begin(scale)
                before = layers.drafts
                again = yield self._indices[place]
                if again.made and layers.drafts > before:
                    drafted.append((took.seconds, again.seconds))
        layers.begin()
        self._note(rows, drafted)
        return plain

    def _note(self, rows: list[tuple[float, float, float]], drafted: list[tuple[float, float]]) -> None:
        probe, layers = self._probe, self._layers
        if len(rows) >= FEWEST:
            probe.samples = len(rows)
            probe.sample_s, decode_s, transform_s = (sum(column) / len(rows) for column in zip(*rows, strict=True))
            probe.decode_s, probe.decoder = (decode_s, layers.decoder) if layers.decoded else (None, "")
            probe.transform_s = transform_s if layers.transformed else None
        if len(drafted) >= FEWEST:
            probe.draft_samples = len(drafted)
            probe.draft_from_s, probe.draft_s = _medians(drafted)

    def _cold(self, plain: list[int], known: dict[int, list[str]], until_s: float) -> _Scenes:
        """First the storage by itself; then samples, if it turned out that files can be forgotten."""
        files = list(dict.fromkeys(path for place in plain for path in known[place]))
        self._probe.files = len(files)
        some = [part for path in files[:_MOST_FILES] for part in ranges_of(path)]
        speed = read_speed(some, until_s=time.monotonic() + max(0.0, until_s - time.monotonic()) / 2)
        if not speed.forgot:
            return
        self._probe.read_bytes_per_s = speed.cold_bytes_per_s
        pairs: list[tuple[float, float]] = []
        for place in plain:
            parts = _whole(known[place])
            if time.monotonic() > until_s:
                break
            if parts:
                cached = yield self._indices[place]
                forget(parts)
                cold = yield self._indices[place]
                if cached.made and cold.made:
                    pairs.append((cached.seconds, cold.seconds))
        if len(pairs) >= FEWEST:
            self._probe.cold_samples = len(pairs)
            self._probe.cold_from_s, self._probe.cold_s = _medians(pairs)


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Of the first and of the second: one sample that another process got in the way of must not make a factor."""
    first, second = (median(column) for column in zip(*pairs, strict=True))
    return first, second


def _nothing(samples: Any) -> None:
    """Collates nothing: samples are timed alone."""
    del samples


class _Files:
    """Which data files are opened while a sample is made, as far as Python opens them (sys.audit, event "open")."""

    def __init__(self) -> None:
        self._listening = False
        self._now: list[str] = []
        sys.addaudithook(self._heard)

    def begin(self) -> None:
        """A sample is made from here on."""
        self._now, self._listening = [], True

    def end(self) -> None:
        """It is made."""
        self._listening = False

    def opened(self) -> list[str]:
        """Regular files that the last sample opened for reading, without code."""
        return [path for path in dict.fromkeys(self._now) if _is_data(path)]

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._listening and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            mode = arguments[1]
            if mode is None or not set(str(mode)) & set("wax+"):
                self._now.append(os.fsdecode(arguments[0]))


def _is_data(path: str) -> bool:
    if path.endswith(_CODE) or path.startswith(("/proc/", "/sys/", "/dev/")):
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _whole(paths: Iterable[str]) -> list[Range]:
    """All bytes of these files; none at all where one is so large that more than this sample would be forgotten."""
    parts = [ranges_of(path) for path in paths]
    return [part for of_file in parts for part in of_file] if all(len(of_file) == 1 for of_file in parts) else []
