"""Why a loader has the workers that it has."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, TensorDataset

import keepfed
from keepfed.loader.fixed import tally_of
from keepfed.loader.journal import KEPT, Journal
from keepfed.plan import LoaderId, Plan
from keepfed.policy.decision import JudgedMove, Move, Settled, why
from keepfed.text import choose_language

LOADER = LoaderId("train.py:41", "data.Photos")
MORE = {"workers": 4, "prefetch": 2, "before": 1, "prefetch_before": 2}


def searched() -> Journal:
    journal = Journal(LOADER, Plan(1), "program")
    journal.moved(Move(Plan(4), why("more", wait_share=0.76, busy=1.0, **MORE)))
    journal.judged(JudgedMove(Plan(4), 21.0, 22.5, 0.01, kept=True, reason=why("more_kept", change=2.5, **MORE)))
    journal.settled(Settled(Plan(4), "step", why("limit_step", workers=4, prefetch=2, wait_share=0.01)))
    return journal


def test_a_search_reads_as_a_story_with_what_was_expected_and_measured() -> None:
    told = searched().read(Plan(4))
    lines = str(told).splitlines()
    assert lines[0] == f"{LOADER}: settled on num_workers=4, prefetch 2; followed from here on"
    assert "started with num_workers=1, prefetch 2" in lines[1]
    assert "the loop waits 76% of its time" in lines[2]
    assert "+250.0% throughput, kept (21 batches/s, 22.5 expected)" in lines[3]
    assert "the training step is the limit" in lines[4]
    assert told.plan == Plan(4)
    assert [entry.plan.num_workers for entry in told.entries] == [1, 4, 4, 4]
    assert told.entries[2].predicted_batches_per_s == 22.5


def test_it_is_told_in_the_language_of_whoever_asks() -> None:
    journal = searched()
    choose_language("zh")
    try:
        assert "已选定 num_workers=4" in str(journal.read(Plan(4)))
        assert "预计 22.5" in str(journal.read(Plan(4)))
    finally:
        choose_language("en")


def test_before_the_end_it_says_that_it_searches() -> None:
    journal = Journal(LOADER, Plan(2), "program")
    assert "not measured yet" in str(journal.read(Plan(2)))
    journal.measured()
    assert "still searching" in str(journal.read(Plan(2)))


def test_of_many_moves_the_first_plan_and_the_last_ones_stay() -> None:
    journal = Journal(LOADER, Plan(1), "plan")
    for workers in range(1, KEPT + 20):
        journal.moved(Move(Plan(workers), why("back", workers=workers, prefetch=2)))
    entries = journal.read(None).entries
    assert len(entries) == KEPT + 1
    assert "by an earlier keepfed tune" in entries[0].reason
    assert entries[-1].plan == Plan(KEPT + 19)


def test_a_loader_that_stays_says_why() -> None:
    journal = Journal(LOADER, Plan(2), "program")
    journal.held(Plan(2), "it is an iterable dataset")
    told = str(journal.read(Plan(2)))
    assert "stays at num_workers=2" in told
    assert "it is an iterable dataset" in told


def test_of_a_number_that_the_program_chose_keepfed_says_just_that() -> None:
    loader = keepfed.DataLoader(TensorDataset(torch.arange(8)), num_workers=0)
    assert "decides nothing about this loader" in str(loader.why())
    assert loader.why().entries == ()


def test_torchs_own_iterator_is_named_with_its_reason() -> None:
    loader: DataLoader[object] = DataLoader(TensorDataset(torch.arange(8)))
    tally_of(loader).fallback = "because"
    assert str(keepfed.why(loader)).endswith("torch's own iterator runs this loader: because")


def test_every_source_of_a_first_plan_has_words() -> None:
    for source in ("program", "plan", "first-guess", "rank"):
        assert "num_workers=3" in str(Journal(LOADER, Plan(3), source).read(None))
