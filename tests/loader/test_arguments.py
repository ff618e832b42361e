"""What torch refuses is refused, in its words; what it takes is taken; and what is set later counts from the next iter()."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset, get_worker_info

import keepfed.loader.api as keepfed
from keepfed.errors import UsageError, WrongType
from keepfed.loader.requests import Requests, requests_of
from keepfed.loader.terms import MAX_PREFETCH, Terms
from tests.loader.side_by_side import Diary, Numbers, assert_same

LoaderClass = type[TorchDataLoader[Any]]


class Stream(IterableDataset[Any]):
    """As a dataset that is iterated."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


REFUSED: list[dict[str, Any]] = [
    *({"num_workers": count} for count in (-1, None, 1.0, 2.5, [2])),
    *({"num_workers": 1, "prefetch_factor": factor} for factor in (-1, 0, 2.5, "2")),
    {"prefetch_factor": 2},
    *({"batch_size": size} for size in (0, -1, 2.5, True, "3")),
    *({"timeout": seconds, "num_workers": 1} for seconds in (-1, "3", None)),
    {"timeout": 3},
    {"dataset": Stream(), "shuffle": True},
    {"dataset": Stream(), "sampler": [1]},
    {"dataset": Stream(), "batch_sampler": [[1]]},
    {"sampler": [1, 2], "shuffle": True},
    {"sampler": 3, "num_workers": 1},
    *(
        {"batch_sampler": [[1]], **other}
        for other in ({"batch_size": 2}, {"shuffle": True}, {"sampler": [1]}, {"drop_last": True})
    ),
    {"batch_sampler": [1, 2], "num_workers": 1},
    {"batch_size": None, "drop_last": True},
    {"drop_last": "x"},
    {"persistent_workers": True},
    *({"multiprocessing_context": context, "num_workers": 1} for context in ("nope", 3, "", warnings)),
    {"multiprocessing_context": "fork"},
    *({"collate_fn": 3, "num_workers": workers} for workers in (0, 1)),
    {"worker_init_fn": 3, "num_workers": 1},
    {"generator": 3},
    {"dataset": None},
    {"dataset": 5, "num_workers": 1},
    {"dataset": [], "shuffle": True},
    {"nonsense": 1},
]


def named(arguments: dict[str, Any]) -> str:
    """The same words in every process: an object is shown by its class alone."""
    return re.sub(r"<(?:\w+\.)*(\w+) object at \w+>", r"\1", str(arguments))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's, of an iterator half made
@pytest.mark.parametrize("arguments", REFUSED, ids=named)
def test_what_torch_refuses_is_refused_where_and_how_torch_does(arguments: dict[str, Any]) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        try:
            loader = cls(**({"dataset": Numbers(4)} | arguments))
            diary.note("made")
            iterator = iter(loader)
            diary.note("iter")
            next(iterator)
        except Exception as error:
            diary.error(error)
        else:
            pytest.fail("torch takes this")

    assert_same(program)


TAKEN: list[dict[str, Any]] = [
    {"num_workers": True},
    {"num_workers": np.int64(2), "prefetch_factor": np.int64(3)},
    {"num_workers": 1, "prefetch_factor": 3 * MAX_PREFETCH},
    {"num_workers": 1, "timeout": 20.5},
    {"num_workers": 1, "multiprocessing_context": torch.multiprocessing.get_context("fork")},
    {"num_workers": 1, "batch_size": torch.tensor(2)},
    *({"num_workers": 1, "dataset": data} for data in ({0: 1, 1: 2}, [5, 6, 7], "abc", np.arange(5), range(5), [])),
    {"dataset": [], "batch_size": 2},
]


@pytest.mark.parametrize("arguments", TAKEN, ids=named)
def test_what_torch_takes_is_taken(arguments: dict[str, Any]) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        try:
            loader = cls(**({"dataset": Numbers(6)} | arguments))
        except Exception as error:
            diary.error(error)
            return
        diary.read(loader, raises=True)
        diary.note("length", len(loader))

    assert_same(program)


@pytest.mark.parametrize("word", ["2", "AUTO", ""])
def test_a_word_for_num_workers_is_a_type_error_as_in_torch_and_a_usage_error(word: str) -> None:
    with pytest.raises(WrongType, match='expected an integer or "auto"') as caught:
        keepfed.DataLoader(Numbers(), num_workers=word)
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, TypeError)


def test_the_sampler_is_read_ahead_as_far_as_asked_whatever_a_plan_can_say() -> None:
    terms = Terms.fixed_count(2, 5_000)
    assert (terms.lookahead, terms.plan.prefetch_factor) == (10_000, MAX_PREFETCH)


GUARDED = ("batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers")
FREE = ("num_workers", "timeout", "collate_fn", "pin_memory", "prefetch_factor", "generator", "worker_init_fn", "own")


def test_six_attributes_are_guarded_and_the_others_may_be_set() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Numbers(6), batch_size=2, num_workers=1)
        for name in (*GUARDED, *FREE):
            try:
                setattr(loader, name, getattr(loader, name, None))
                diary.note(name)
            except ValueError as error:
                diary.error(error)
        for context in ("fork", "nope", 3, None):
            try:
                loader.multiprocessing_context = context
                diary.note("context", str(type(loader.multiprocessing_context)))
            except (TypeError, ValueError) as error:
                diary.error(error)

    assert_same(program)


def test_a_loader_may_go_to_workers_and_back() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Numbers(6), batch_size=4)
        diary.read(loader)
        loader.num_workers, loader.prefetch_factor, loader.collate_fn = 2, 2, tuple
        diary.read(loader)
        loader.num_workers = 0
        diary.read(loader)

    assert_same(program)


def test_a_loader_is_copied_and_pickled_and_one_in_use_refuses_as_torchs() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        loader = cls(Numbers(6), batch_size=4, num_workers=1, persistent_workers=True)
        diary.read(copy.deepcopy(loader))
        diary.read(pickle.loads(pickle.dumps(loader)))
        diary.read(loader)
        for copied in (copy.deepcopy, pickle.dumps):
            try:
                copied(loader)
            except NotImplementedError as error:
                diary.note("refused", error.args[0])

    assert_same(program)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's, of an iterator half made
def test_warnings_that_are_errors_leave_nothing_behind() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for make in (
                lambda: cls(Numbers(), num_workers=500),
                lambda: iter(cls(Numbers(), num_workers=1, pin_memory=True)),
                lambda: iter(cls(Numbers(), pin_memory=True)),
            ):
                try:
                    make()
                except UserWarning as error:
                    diary.error(error)

    assert_same(program)


def test_subclasses_with_methods_of_their_own_keep_them() -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        class Doubled(cls):  # type: ignore[valid-type, misc]  # either class
            asked = 0

            def __iter__(self) -> Any:
                for batch in super().__iter__():
                    yield batch * 2

            def _get_iterator(self) -> Any:
                self.asked += 1
                return super()._get_iterator()

            def __len__(self) -> int:
                return 99

        for workers in (0, 1):
            loader = Doubled(Numbers(6), batch_size=4, num_workers=workers)
            diary.read(loader)
            diary.note("asked", (loader.asked, len(loader)))

    assert_same(program)


@pytest.mark.parametrize("workers", [0, 1])
def test_profiles_show_torchs_label(workers: int) -> None:
    def program(cls: LoaderClass, diary: Diary) -> None:
        with torch.autograd.profiler.profile() as profile:
            list(cls(Numbers(6), batch_size=4, num_workers=workers))
        diary.note(
            "labels", sorted((event.key, event.count) for event in profile.key_averages() if "Loader" in event.key)
        )

    assert_same(program)


def test_the_class_can_be_subscripted_and_its_instances_are_torchs() -> None:
    assert "DataLoader[int]" in str(keepfed.DataLoader[int])
    assert isinstance(keepfed.DataLoader(Numbers()), TorchDataLoader)


def test_the_program_itself_has_no_worker_info() -> None:
    list(keepfed.DataLoader(Numbers(4), num_workers=1))
    assert get_worker_info() is None


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"stall_timeout": 0}, "stall_timeout=0"),
        ({"stall_timeout": -1.5}, "stall_timeout=-1.5"),
        ({"stall_timeout": float("nan")}, "stall_timeout=nan"),
        ({"stall_timeout": "3"}, "stall_timeout='3'"),
        ({"stall_timeout": True}, "stall_timeout=True"),
        ({"on_stall": "restart"}, "'replace', 'raise', 'warn'"),
        ({"on_error": "ignore"}, "'raise', 'skip'"),
        ({"on_error": "skip", "max_skipped": -1}, "max_skipped=-1"),
        ({"max_skipped": 3}, "on_error="),
        ({"memory_limit": 0}, "memory_limit=0"),
        ({"memory_limit": 1.5}, "memory_limit=1.5"),
        ({"memory_limit": 20 << 20, "num_workers": 2}, f"memory_limit={20 << 20}: 2 workers take {32 << 20} bytes"),
        ({"memory_limit": 10 << 20, "num_workers": "auto"}, f"{16 << 20} bytes"),
    ],
    ids=str,
)
def test_a_value_of_our_own_keywords_that_cannot_be_used_is_refused_when_the_loader_is_built(
    keywords: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        keepfed.DataLoader(Numbers(4), **keywords)


def test_our_own_keywords_are_found_on_a_loader_that_was_rebuilt_from_the_attributes_of_ours() -> None:
    ours = keepfed.DataLoader(
        Numbers(4), num_workers=1, stall_timeout=7, on_stall="warn", on_error="skip", max_skipped=2
    )
    expected = Requests(stall_timeout_s=7.0, on_stall="warn", on_error="skip", max_skipped=2)
    rebuilt = TorchDataLoader(ours.dataset, num_workers=ours.num_workers)
    assert requests_of(ours) == requests_of(rebuilt) == expected
    assert requests_of(pickle.loads(pickle.dumps(rebuilt))) == expected
    again = keepfed.DataLoader(ours.dataset, num_workers=ours.num_workers, on_stall="raise")
    assert requests_of(again) == dataclasses.replace(expected, on_stall="raise")


def test_a_memory_limit_without_workers_has_nothing_to_limit() -> None:
    assert len(list(keepfed.DataLoader(Numbers(4), memory_limit=1))) == 4


def test_a_loader_of_torchs_asks_for_nothing_of_ours() -> None:
    assert requests_of(TorchDataLoader(Numbers(4), num_workers=2)) == Requests()
