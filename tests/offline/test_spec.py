"""From a name to a loader: what is accepted, and what is said about the rest."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset, IterableDataset

from keepfed.errors import UsageError
from keepfed.offline.loop import loop, waiting_step
from keepfed.offline.spec import checked, function_of, loader_over, subject_of

MODULE = """
from torch.utils.data import DataLoader, Dataset, IterableDataset

class Numbers(Dataset):
    def __init__(self, length=64):
        self.length = length
    def __len__(self):
        return self.length
    def __getitem__(self, index):
        return index

class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(64))

class Rooted(Numbers):
    def __init__(self, root):
        super().__init__()

numbers = Numbers()
listed = list(range(64))
def make(): return Numbers()
def make_loader(): return DataLoader(Numbers(), batch_size=4)
def make_both(): return Numbers(), Numbers()
def make_none(): pass
def make_empty(): return Numbers(0)
def imports_more(): import no_such_package
def raises(): raise FileNotFoundError("/data")
def with_defaults(size=3, *more, **options): return Numbers()
answer = 42
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module `mydata` of the user's, importable."""
    (tmp_path / "mydata.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mydata", None)


@pytest.mark.parametrize("name", ["make", "Numbers", "numbers", "with_defaults", "listed"])
def test_a_dataset_is_found_under_a_function_a_class_or_an_object(name: str) -> None:
    assert len(subject_of(f"mydata:{name}")) == 64


def test_streams_and_loaders_are_subjects_too() -> None:
    assert isinstance(subject_of("mydata:Stream"), IterableDataset)
    assert isinstance(subject_of("mydata:make_loader"), DataLoader)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mydata.py:make", "mydata:make"),
        ("mydta:make", "no module mydta"),
        ("mydata.inner:make", "no module mydata.inner"),
        ("mydata:mak", "What is there: make, "),
        ("mydata:make.nothing", "nothing"),
        ("mydata:Rooted", "it wants: root"),
        ("mydata:make_both", "a sequence of 2 datasets"),
        ("mydata:make_none", "expected a dataset, got NoneType"),
        ("mydata:answer", "expected a dataset, got int"),
        ("mydata:make_empty", "is empty"),
    ],
)
def test_what_leads_nowhere_is_told_with_what_to_do(spec: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        subject_of(spec)
    assert said in str(caught.value)


def test_what_the_users_code_raises_is_raised_as_it_is() -> None:
    with pytest.raises(FileNotFoundError, match="/data"):
        subject_of("mydata:raises")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        subject_of("mydata:imports_more")


def test_a_step_or_collate_function_is_a_function() -> None:
    assert function_of("mydata:make", "--step").__name__ == "make"
    with pytest.raises(UsageError, match="--step make: expected module:function"):
        function_of("make", "--step")
    with pytest.raises(UsageError, match="expected a function, got int"):
        function_of("mydata:answer", "--collate")


class Few(Dataset[int]):
    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> int:
        return index


def test_an_epoch_that_cannot_be_measured_is_refused_before_anything_starts() -> None:
    with pytest.raises(UsageError, match="7 samples in batches of 4"):
        loader_over(Few(), "Few", batch_size=4)
    with pytest.raises(UsageError, match="7 samples in batches of 7"):
        loader_over(DataLoader(Few(), batch_size=7), "Few")
    with pytest.raises(UsageError, match="batch size 0"):
        loader_over(Few(), "Few", batch_size=0)


def test_a_loader_keeps_its_settings_and_takes_no_others() -> None:
    loader = DataLoader(Few(), batch_size=2)
    assert loader_over(loader, "loader") is loader
    with pytest.raises(UsageError, match="batch size and a collate function of its own"):
        loader_over(loader, "loader", batch_size=3)


def test_a_dataset_is_read_as_in_training() -> None:
    loader = loader_over(Few(), "Few", batch_size=2, num_workers=0)
    batches = [batch.tolist() for batch in loader]
    assert [len(batch) for batch in batches] == [2, 2, 2]
    orders = {tuple(index for batch in loader for index in batch.tolist()) for _ in range(20)}
    assert len(orders) > 1


def test_an_object_that_is_no_dataset_is_named() -> None:
    with pytest.raises(UsageError, match="number: expected a dataset, got float"):
        checked(1.5, "number")
    with pytest.raises(UsageError, match="Few: expected a dataset, got type"):
        checked(Few, "Few")


def test_epochs_repeat_until_enough_was_seen() -> None:
    steps: list[int] = []
    loop(lambda: iter(range(3)), steps.append, lambda: len(steps) == 8, "three")
    assert steps == [0, 1, 2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("length", [0, 1])
def test_a_stream_that_ends_at_once_is_told_and_not_repeated_for_ever(length: int) -> None:
    with pytest.raises(UsageError, match=f"its epoch had {length} batches"):
        loop(lambda: iter(range(length)), waiting_step(0), lambda: False, "short")


@pytest.mark.parametrize("step_s", [-1.0, float("nan"), float("inf"), 3600.0])
def test_a_step_is_a_time(step_s: float) -> None:
    with pytest.raises(UsageError, match="expected a time from 0 to an hour"):
        waiting_step(step_s)
