"""Reasons to take a name for the loader's that others use as well: `workers`, `num_threads`, `n_cpu`, `WORKERS`.

Such a name counts where its value goes into a loader (`flow`), where its help text speaks of loading data, or where it stands
among a training program's other settings: batch size, epochs, learning rate, image size.
"""

from __future__ import annotations

import ast
import re

from keepfed.knobs.python.foreign import is_foreign

_BATCH = {
    "batch", "batchsize", "batch_size", "batchSize", "bs", "imgsz", "img_size", "epochs", "epoch", "shuffle", "dataset", "data",
    "drop_last", "pin_memory", "collate_fn", "train_batch_size", "samples_per_gpu", "dataloader", "train_dataset", "batch_sampler",
    "persistent_workers", "prefetch_factor",
}  # fmt: skip
_TAKES_BATCHES = re.compile(
    rb"(?i)\b(?:_?batch_?size|batchsize|imgs_per_batch|ims_per_batch|samples_per_gpu|--batch)\b|batch_size|BATCH_?SIZE|--batch"
)
_TRAINS = re.compile(
    rb"(?i)\b(?:lr|learning_rate|base_lr|n?_?epochs?|num_epochs|max_epochs|n_epochs|niter|momentum|weight_decay)\b|--lr\b|--epochs?\b"
)
_LOADS = re.compile(rb"(?i)data_?loader|load_size|serial_batches|dataset_mode|train_loader|imagefolder")
_LOADER_LIKE = re.compile(r"(?i)loader|datamodule|datapipe|augmenter|_dl$")
_THREADS = {"num_threads", "n_threads", "nThreads", "nthreads", "threads", "nthread", "num_thread"}
_LOADERS_OWN = {"shuffle", "drop_last", "collate_fn", "serial_batches", "load_size", "dataroot", "dataset_mode"}
_NEVER = {"max_workers", "n_jobs", "num_procs", "num_cpus", "num_cpu"}


def beside_batches(callee: str, beside: set[str], value: ast.expr, name: str) -> bool:
    """Whether the keywords or keys beside it are those of a loader or of a training run."""
    if is_foreign(callee) or name in _NEVER:
        return False
    if name == "pin_memory":
        return bool(beside & (_BATCH | {"num_workers", "workers"}) - {name}) or _LOADER_LIKE.search(callee) is not None
    if not _counts(value):
        return False
    if name in _THREADS:
        return "loader" in callee.lower() or bool(beside & _LOADERS_OWN)
    return bool(beside & _BATCH) or "loader" in callee.lower()


def among_training(utf8: bytes, spelling: str) -> bool:
    """Whether the file sets what a training run needs besides: batch size, and learning rate or epochs."""
    bare = spelling.lstrip("-").replace("-", "_")
    if bare in _NEVER or not _TAKES_BATCHES.search(utf8):
        return False
    if bare in _THREADS - {"nThreads"}:
        return _LOADS.search(utf8) is not None
    return _TRAINS.search(utf8) is not None or _LOADS.search(utf8) is not None


def among_loading(utf8: bytes) -> bool:
    """Whether the file speaks of loaders or batches at all."""
    return _LOADS.search(utf8) is not None or _TAKES_BATCHES.search(utf8) is not None


def _counts(value: ast.expr) -> bool:
    return not (isinstance(value, ast.Constant) and isinstance(value.value, (bool, float)))
