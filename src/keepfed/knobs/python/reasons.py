"""Reasons close by to take a name for the loader's that others use as well: `workers`, `num_threads`, `n_cpu`, `pin_memory`.

Such a name counts where its value goes into a loader (`flow`), where its help text speaks of loading data (`options`), where it
stands beside a loader's or a training run's other settings (here), or in a file full of them (`surroundings`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Set as AbstractSet

from keepfed.knobs.python.foreign import is_foreign

_BATCH = frozenset(
    """
    batch batchsize batch_size batchSize bs imgsz img_size epochs epoch shuffle dataset drop_last pin_memory collate_fn
    train_batch_size samples_per_gpu dataloader train_dataset batch_sampler persistent_workers prefetch_factor
    """.split()  # noqa: SIM905  # a list of names is read far more easily without quotes
)
_LOADER_LIKE = re.compile(r"(?i)(?<!down)(?<!up)loader|datamodule|datapipe|augmenter|_dl$")
_THREADS = {"num_threads", "n_threads", "nThreads", "nthreads", "threads", "nthread", "num_thread"}
_LOADERS_OWN = {"shuffle", "drop_last", "collate_fn", "serial_batches", "load_size", "dataroot", "dataset_mode"}
_NEVER = {"max_workers", "n_jobs", "num_procs", "num_cpus", "num_cpu"}


def is_loader_like(callee: str) -> bool:
    """Whether a call of this name makes a loader, or what holds loaders: a data module."""
    return _LOADER_LIKE.search(callee) is not None


def beside_batches(callee: str, beside: AbstractSet[str], value: ast.expr, name: str) -> bool:
    """Whether the call, or the keywords or keys beside it, are those of a loader or of a training run."""
    if is_foreign(callee) or name in _NEVER:
        return False
    if name == "pin_memory":
        return bool(beside & (_BATCH | {"num_workers", "workers"}) - {name}) or is_loader_like(callee)
    if isinstance(value, ast.Constant) and isinstance(value.value, (bool, float)):
        return False
    neighbours = _LOADERS_OWN if name in _THREADS else _BATCH
    return bool(beside & neighbours) or is_loader_like(callee)
