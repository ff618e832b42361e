"""Every private name of torch that keepfed leans on, in one place, checked once.

torch's DataLoader was not made to be cut open, and its private names move between releases. So they are looked up here
and nowhere else; `missing()` says which of them the installed torch lacks, and then every loader is left to torch's own
iterator with one line that names them. What is inherited and called rather than copied: all draws and warnings of
`_BaseDataLoaderIter`, and the whole of `_worker_loop` (seeding, fetchers, exception wrapping), so that these are always
the installed torch's own.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import torch
import torch.multiprocessing
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, _utils, dataloader
from torch.utils.data._utils import collate, worker

WORKER_LOOP_ARGUMENTS = (
    "dataset_kind",
    "dataset",
    "index_queue",
    "data_queue",
    "done_event",
    "auto_collation",
    "collate_fn",
    "drop_last",
    "base_seed",
    "init_fn",
    "worker_id",
    "num_workers",
    "persistent_workers",
    "shared_seed",
)
"""Parameters of `_worker_loop` as of torch 2.6 to 2.13; anything else is a torch that we do not know."""
WORKER_LOOP_ARGUMENTS_2_15 = tuple("dataset_holder" if name == "dataset" else name for name in WORKER_LOOP_ARGUMENTS)
"""As of torch 2.15: the dataset comes in a list from which the loop takes it."""

_NEEDED: tuple[tuple[Any, str], ...] = (
    (dataloader, "_BaseDataLoaderIter"),
    (dataloader, "_MultiProcessingDataLoaderIter"),
    (dataloader, "_SingleProcessDataLoaderIter"),
    (dataloader, "_DatasetKind"),
    (getattr(dataloader, "_DatasetKind", None), "create_fetcher"),
    (worker, "_worker_loop"),
    (worker, "_worker_info"),
    (worker, "_ResumeIteration"),
    (worker, "_IterableDatasetStopIteration"),
    (worker, "WorkerInfo"),
    (collate, "default_collate_fn_map"),
    (collate, "collate_tensor_fn"),
    (DataLoader, "_get_iterator"),
    (torch.autograd, "_profiler_enabled"),
)

if hasattr(dataloader, "IterDataPipe"):
    _NEEDED += ((dataloader, "_sharding_worker_init_fn"),)

BaseDataLoaderIter: Any = getattr(dataloader, "_BaseDataLoaderIter", object)
MultiProcessingDataLoaderIter: Any = getattr(dataloader, "_MultiProcessingDataLoaderIter", object)
SingleProcessDataLoaderIter: Any = getattr(dataloader, "_SingleProcessDataLoaderIter", object)
_profiler_enabled: Any = getattr(torch.autograd, "_profiler_enabled", bool)
_pin_memory: Any = _utils.pin_memory.pin_memory
collate_tensor: Any = getattr(collate, "collate_tensor_fn", None)
original_get_iterator: Any = inspect.unwrap(getattr(DataLoader, "_get_iterator", lambda _: None))
"""torch's own, under whatever stub `keepfed run` has put over it."""


@cache
def missing() -> tuple[str, ...]:
    """Private names that the installed torch lacks, or has in another shape; empty when all is well."""
    absent = [f"{getattr(owner, '__name__', owner)}.{name}" for owner, name in _NEEDED if not hasattr(owner, name)]
    loop = getattr(worker, "_worker_loop", None)
    known = WORKER_LOOP_ARGUMENTS, WORKER_LOOP_ARGUMENTS_2_15
    if loop is not None and tuple(inspect.signature(loop).parameters) not in known:
        absent.append("torch.utils.data._utils.worker._worker_loop(...) with the parameters that we know")
    return tuple(absent)


def worker_loop(**arguments: Any) -> None:
    """Run torch's own worker loop with our queues in the place of its."""
    loop: Any = worker._worker_loop
    if "dataset_holder" in inspect.signature(loop).parameters:
        arguments["dataset_holder"] = [arguments.pop("dataset")]
    loop(**arguments)


def on_fetcher(collate_fn: Callable[[Any], Any], made: Callable[[Any], None]) -> None:
    """From now on every fetcher that this process makes with exactly this collate function goes through `made` first."""
    kind: Any = dataloader._DatasetKind
    original: Any = kind.create_fetcher

    def create_fetcher(*arguments: Any) -> Any:
        fetcher = original(*arguments)
        if any(argument is collate_fn for argument in arguments):
            made(fetcher)
        return fetcher

    kind.create_fetcher = staticmethod(create_fetcher)


def fetcher_of(loader: Any) -> Any:
    """What makes this loader's batches, as in a worker; nothing of the program runs yet (map style)."""
    kind: Any = dataloader._DatasetKind
    return kind.create_fetcher(
        loader._dataset_kind, loader.dataset, loader._auto_collation, loader.collate_fn, loader.drop_last
    )


def resume_message(shared_seed: int | None) -> Any:
    """The message on which torch's worker loop starts a new epoch in a persistent worker."""
    return worker._ResumeIteration(shared_seed)


def is_resume_message(message: object) -> bool:
    """Whether torch's worker loop acknowledges a new epoch with this object."""
    return isinstance(message, worker._ResumeIteration)


def is_end_of_dataset(data: object) -> bool:
    """Whether torch's worker loop says by this, in the place of a batch, that its iterable dataset has no more."""
    return isinstance(data, worker._IterableDatasetStopIteration)


def worker_init_fn(iterator: Any, own: Any) -> Any:
    """What a worker runs first: the program's `own` function; for datapipes, after torch's that shards them."""
    if not is_datapipe(iterator._dataset):
        return own
    shard: Any = dataloader._sharding_worker_init_fn
    return functools.partial(shard, own, iterator._world_size, iterator._rank)


def set_worker_seed(seed: int) -> None:
    """From now on `torch.utils.data.get_worker_info().seed` is this; objects that it returned before stay as they are.

    A frozen dataclass in torch 2.13; in 2.6 a class that refuses assignments.
    """
    info: Any = worker._worker_info
    if hasattr(info, "__dataclass_fields__"):
        worker._worker_info = dataclasses.replace(info, seed=seed)
    elif info is not None:
        worker._worker_info = copy.copy(info)
        vars(worker._worker_info)["seed"] = seed


def collate_map() -> dict[Any, Any]:
    """The table from element type to collate function that `default_collate` walks."""
    return collate.default_collate_fn_map


def profiler_enabled() -> bool:
    """Whether torch's profiler is recording."""
    return bool(_profiler_enabled())


def is_map_style(loader: DataLoader[Any]) -> bool:
    """Whether the loader indexes its dataset (in contrast to iterating it)."""
    return bool(loader._dataset_kind == dataloader._DatasetKind.Map)


def is_iterable_kind(kind: object) -> bool:
    """Whether an iterator's `_dataset_kind` says that it iterates its dataset, where StopIteration is the end of it."""
    return bool(kind == dataloader._DatasetKind.Iterable)


def profile_name(iterator_class: type) -> str:
    """The label under which profiles show the `__next__` of one of torch's iterators."""
    return f"enumerate(DataLoader)#{iterator_class.__name__}.__next__"


def is_datapipe(dataset: object) -> bool:
    """Whether the dataset is one of torch's datapipes, which draw a seed shared by all ranks."""
    pipes = tuple(getattr(dataloader, name) for name in ("IterDataPipe", "MapDataPipe") if hasattr(dataloader, name))
    return isinstance(dataset, pipes)


def wrap_exception(error: BaseException, where: str = "") -> ExceptionWrapper:
    """An exception as torch sends it from worker to program: type and text of the traceback; from a worker, unless told."""
    make: Any = ExceptionWrapper
    info = worker._worker_info
    where = where or "in DataLoader worker process" + (f" {info.id}" if info is not None else "")
    wrapped: ExceptionWrapper = make((type(error), error, error.__traceback__), where=where)
    return wrapped


def pin_memory(batch: Any, device: Any) -> Any:
    """A batch in pinned memory, as torch's own iterators make it."""
    return _pin_memory(batch, device)


def pins_for(iterator: Any) -> str:
    """The kind of accelerator for which this iterator of torch's pins its batches; empty when it does not."""
    if not iterator._pin_memory:
        return ""
    named = iterator._pin_memory_device  # torch 2.6 leaves it out unless the program named one
    accelerator = torch.accelerator.current_accelerator()
    return str(named or (accelerator.type if accelerator is not None else "cuda")).partition(":")[0]


_open_captures: set[int] = set()


@cache
def watch_captures() -> None:
    """Know from now on when a graph is being captured, by whichever thread."""
    for graph in (torch.cuda.CUDAGraph, getattr(torch.accelerator, "Graph", None)):
        if graph is not None:
            setattr(graph, "capture_begin", _opens(graph.capture_begin))  # noqa: B010  # a method of torch's
            setattr(graph, "capture_end", _closes(graph.capture_end))  # noqa: B010  # a method of torch's


def capturing() -> bool:
    """Whether a graph is being captured. Then no event may be asked for and no memory registered, by any thread."""
    return bool(_open_captures) or bool(torch.cuda.is_current_stream_capturing())


def _opens(begin: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(begin)
    def capture_begin(graph: Any, *args: Any, **kwargs: Any) -> Any:
        _open_captures.add(id(graph))
        try:
            return begin(graph, *args, **kwargs)
        except BaseException:
            _open_captures.discard(id(graph))
            raise

    return capture_begin


def _closes(end: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(end)
    def capture_end(graph: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return end(graph, *args, **kwargs)
        finally:
            _open_captures.discard(id(graph))

    return capture_end


def reraise_if_exception(batch: Any) -> None:
    """Raise what a worker raised, if this is that and not a batch."""
    if isinstance(batch, ExceptionWrapper):
        raise_again: Any = batch.reraise
        raise_again()


def is_exception(data: object) -> bool:
    """Whether this is what a worker raised."""
    return isinstance(data, ExceptionWrapper)
