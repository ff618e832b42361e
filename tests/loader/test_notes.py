"""Notes of random states: whole or not there, and worth their cost."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from keepfed.loader.arena import NOTES_BYTES
from keepfed.loader.draws import restore, states
from keepfed.loader.notes import COST_SHARE, Notes


@pytest.fixture
def memory() -> memoryview:
    """A page that nobody has written."""
    return memoryview(bytearray(NOTES_BYTES))


def draw() -> tuple[float, float, float, float, float]:
    """One draw from every global generator, Gaussian ones included: they keep a second number back."""
    return torch.rand(()).item(), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()


def test_restored_states_draw_what_the_noted_process_would_have_drawn() -> None:
    draw()  # leaves half a Gaussian pair in Python and in NumPy
    noted = states()
    drawn = [draw() for _ in range(5)]
    torch.rand(1000)
    restore(noted)
    assert [draw() for _ in range(5)] == drawn


def test_the_newest_note_is_read(memory: memoryview) -> None:
    page = Notes(memory)
    assert page.last() is None
    for number in (0, 3, 5, 7):
        page.write(number)
        drawn = draw()
        found = Notes(memory).last()
        assert found is not None
        assert found[0] == number
        restore(found[1].states)
        assert draw() == drawn


@pytest.mark.parametrize("cut", [8, 24, 100, 5_000, 9_000])
def test_a_worker_killed_while_it_writes_leaves_the_note_before(memory: memoryview, cut: int) -> None:
    page = Notes(memory)
    page.write(0)
    page.write(3)  # lies in the second half; the next one goes to the first
    drawn = draw()
    before = bytes(memory[: NOTES_BYTES // 2])
    page.write(5)
    written = bytes(memory[: NOTES_BYTES // 2])
    torn = bytearray(written[:cut] + before[cut:])
    torn[8:16] = (-1).to_bytes(8, "little", signed=True)  # what stands there until the bytes are whole
    memory[: NOTES_BYTES // 2] = torn
    found = Notes(memory).last()
    assert found is not None
    assert found[0] == 3
    restore(found[1].states)
    assert draw() == drawn


def test_notes_take_a_three_hundredth_of_the_work(memory: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 2))  # a note takes 2 s
    monkeypatch.setattr("keepfed.loader.notes.time.thread_time", lambda: float(next(clock)))
    page = Notes(memory)
    noted = []
    for number in range(1, 1_001):
        page.thing_done(number, 1.0)
        found = page.last()
        assert found is not None
        noted.append(found[0])
    assert sorted(set(noted)) == [1, *range(1 + 2 * COST_SHARE, 1_001, 2 * COST_SHARE)]
