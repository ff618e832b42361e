"""What the rest of a file says about a name that does not say it alone: whether it trains, loads, or is a service.

Asked once per file and only where a place is in doubt. Substrings before regular expressions: these are searches over whole files.
"""

from __future__ import annotations

import re
from functools import cached_property

_BATCHES = (b"batch_size", b"batchsize", b"per_batch", b"samples_per_gpu", b"--batch", b"batch-size")
_TRAINS = (b"epoch", b"learning_rate", b"learning-rate", b"momentum", b"weight_decay", b"niter")
_RATE = re.compile(rb"\b(?:base_)?lr\b")
_LOADS = (
    b"dataloader",
    b"data_loader",
    b"load_size",
    b"serial_batches",
    b"dataset_mode",
    b"train_loader",
    b"imagefolder",
)
_CLUSTERS = re.compile(rb"(?m)^[ \t]*(?:import|from)[ \t]+(?:ray|dask|distributed|pyspark|horovod\.ray)\b")
_LOADERS = (b"dataloader", b"data_loader", b"torch.utils.data", b"litdata", b"torchdata")
_SERVICES = re.compile(
    rb"(?m)^[ \t]*(?:import|from)[ \t]+(?:asyncio|aiohttp|fastapi|flask|celery|redis|rq|pika|uvicorn|concurrent|grpc|playwright|selenium)\b"
)
_LEARNS = (
    b"torch",
    b"lightning",
    b"litdata",
    b"keras",
    b"tensorflow",
    b"paddle",
    b"mindspore",
    b"jax",
    b"dataset",
    b"epoch",
)
_TRAINING = (b"train", b"batch", b"cuda", b"model", b"loader", b"gpu", b"transform")
_TELLING_BYTES = 3000
_THREADS = {"num_threads", "n_threads", "nthreads", "threads", "nthread", "num_thread"}
_NEVER = {"max_workers", "n_jobs", "num_procs", "num_cpus", "num_cpu"}


class Surroundings:
    """One file's text, asked for its subject."""

    def __init__(self, utf8: bytes) -> None:
        self._utf8 = utf8

    @cached_property
    def belong_to_others(self) -> bool:
        """Whether the file is about a cluster or a service, and not about learning or loading."""
        if b"import" not in self._low:
            return False
        if _CLUSTERS.search(self._low) and not self._says(_LOADERS):
            return True
        return bool(_SERVICES.search(self._low)) and not self._says(_LEARNS + _LOADERS + _BATCHES)

    @cached_property
    def speak_of_nothing(self) -> bool:
        """Whether a file that is long enough to tell has no word of learning: it reads logs, or crawls."""
        return len(self._utf8) >= _TELLING_BYTES and not self._says(_LEARNS + _LOADERS + _BATCHES + _TRAINING)

    @cached_property
    def loads(self) -> bool:
        """Whether the file speaks of loaders."""
        return self._says(_LOADS)

    @cached_property
    def has_batches(self) -> bool:
        """Whether the file sets a batch size."""
        return self._says(_BATCHES)

    @cached_property
    def trains(self) -> bool:
        """Whether the file sets what a training run needs besides: epochs, a learning rate."""
        return self._says(_TRAINS) or (b"lr" in self._low and _RATE.search(self._low) is not None)

    def settle(self, spelling: str) -> bool:
        """Whether a name that is not sure may be taken for a loader's in this file."""
        bare = spelling.lstrip("-").replace("-", "_")
        if bare in _NEVER or not self.has_batches:
            return False
        return self.loads if bare in _THREADS else self.loads or self.trains

    @cached_property
    def _low(self) -> bytes:
        return self._utf8.lower()

    def _says(self, words: tuple[bytes, ...]) -> bool:
        return any(word in self._low for word in words)
