"""From `pkg.module:make_dataset` to a DataLoader that can be measured.

A misspelt name must not end in a traceback out of importlib, and an exception of the user's own function must not be hidden
behind one of ours: so what is wrong with the name is a UsageError, and what the function raises is raised as it is.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

from keepfed.errors import UsageError
from keepfed.loader.api import DataLoader as OurDataLoader
from keepfed.text import say

BATCH_SIZE = 32
"""Samples per batch of a dataset, unless told otherwise."""

FEWEST_BATCHES = 2
"""Batches in an epoch: the first one after the start of the workers counts in no measurement."""


def find(spec: str) -> Any:
    """The object that `module:attribute` names. Raises UsageError when there is none; what the module raises is raised."""
    module_name, _, attribute = spec.partition(":")
    if module_name.endswith(".py"):
        better = f"{module_name.removesuffix('.py')}:{attribute}"
        raise UsageError(say("offline.is_a_file", spec=spec), next_step=say("offline.is_a_file_next", better=better))
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # an import inside the module
        message = say("offline.no_module", spec=spec, module=error.name)
        raise UsageError(message, next_step=say("offline.no_module_next")) from None
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            near = difflib.get_close_matches(name, _public(found), n=3, cutoff=0.5) or _public(found)[:8]
            message = say("offline.no_attribute", spec=spec, name=name, file=_file_of(found))
            raise UsageError(message, next_step=say("offline.no_attribute_next", names=", ".join(near))) from None
    return found


def subject_of(spec: str) -> Any:
    """The dataset or DataLoader that a spec leads to; a function or class is called without arguments.

    Raises UsageError when it leads to something else. What the call raises is raised as it is.
    """
    found = find(spec)
    if isinstance(found, Dataset | DataLoader) or not callable(found):
        return checked(found, spec)
    missing = _arguments(found)
    if missing:
        message = say("offline.takes_arguments", spec=spec, arguments=", ".join(missing))
        raise UsageError(message, next_step=say("offline.takes_arguments_next"))
    return checked(found(), say("offline.returned_by", spec=spec))


def function_of(spec: str, option: str) -> Callable[..., Any]:
    """The function that a spec names. Raises UsageError when it is none."""
    if ":" not in spec:
        raise UsageError(say("offline.no_colon", option=option, value=spec), next_step=say("offline.no_colon_next"))
    found = find(spec)
    if not callable(found):
        raise UsageError(say("offline.not_callable", option=option, spec=spec, kind=type(found).__name__))
    function: Callable[..., Any] = found
    return function


def checked(subject: Any, name: str) -> Any:
    """`subject`, if a DataLoader can read it. Raises UsageError otherwise; `name` is what it is called there."""
    if isinstance(subject, DataLoader | IterableDataset):
        return subject
    if isinstance(subject, tuple | list) and any(isinstance(one, Dataset | DataLoader) for one in subject):
        message = say("offline.several", name=name, count=len(subject))
        raise UsageError(message, next_step=say("offline.several_next"))
    if isinstance(subject, type) or not (hasattr(subject, "__getitem__") and hasattr(subject, "__len__")):
        message = say("offline.no_dataset", name=name, kind=type(subject).__name__)
        raise UsageError(message, next_step=say("offline.no_dataset_next"))
    if len(subject) == 0:
        raise UsageError(say("offline.empty", name=name), next_step=say("offline.empty_next"))
    return subject


def loader_over(
    subject: Any,
    name: str,
    *,
    batch_size: int | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    num_workers: Any = "auto",
    **more: Any,
) -> DataLoader[Any]:
    """A loader that trains on this dataset: shuffled, whole batches only, workers kept from one epoch to the next.

    A DataLoader is returned as it is; asking for another batch size or collate function is then a UsageError, and so are
    epochs that are too short to be measured.
    """
    if isinstance(subject, DataLoader):
        if batch_size is not None or collate_fn is not None:
            raise UsageError(say("offline.has_own", name=name), next_step=say("offline.has_own_next"))
        loader = subject
    else:
        size = BATCH_SIZE if batch_size is None else batch_size
        if size < 1:
            raise UsageError(say("offline.bad_batch_size", value=size), next_step=say("offline.bad_batch_size_next"))
        streams = isinstance(subject, IterableDataset)
        if not streams and len(subject) // size < FEWEST_BATCHES:
            _too_short(name, len(subject), size)
        loader = OurDataLoader(
            subject, batch_size=size, collate_fn=collate_fn, num_workers=num_workers,
            shuffle=None if streams else True, drop_last=True,
            **{"persistent_workers": num_workers != 0, **more},
        )  # fmt: skip
    if not isinstance(loader.dataset, IterableDataset) and len(loader) < FEWEST_BATCHES:
        _too_short(name, len(loader.dataset), loader.batch_size)  # type: ignore[arg-type]  # no IterableDataset
    return loader


def _too_short(name: str, samples: int, size: int | None) -> None:
    message = say("offline.too_short", name=name, samples=samples, size=size or 1, least=FEWEST_BATCHES)
    raise UsageError(message, next_step=say("offline.too_short_next"))


def _arguments(function: Callable[..., Any]) -> list[str]:
    """Arguments that a call cannot leave out."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins tell nobody
        return []
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [one.name for one in parameters if one.kind in named and one.default is inspect.Parameter.empty]


def _public(found: Any) -> list[str]:
    """Names that could have been meant."""
    return [name for name, value in vars(found).items() if not name.startswith("_") and not inspect.ismodule(value)]


def _file_of(found: Any) -> str:
    return str(getattr(found, "__file__", None) or getattr(found, "__name__", found))
