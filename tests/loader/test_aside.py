from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from keepfed.loader import aside
from keepfed.loader.aside import Aside

DRAWS: dict[str, Callable[[], object]] = {
    "python": random.random,
    "python, all its words": lambda: [random.random() for _ in range(312)],
    "python, a pair of which one is kept": lambda: random.gauss(0, 1),
    "python, seeded": lambda: random.seed(4),
    "python, as it was": lambda: random.setstate(random.getstate()),
    "numpy": np.random.rand,
    "numpy, a pair of which one is kept": np.random.randn,
    "numpy, all its words": lambda: np.random.bytes(2496),
    "torch": lambda: float(torch.rand(())),
    "nothing": lambda: None,
}


def _seed_all() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def _a_batch(kept: Aside, seed: int) -> tuple[object, ...]:
    kept.seed(seed)
    drawn = random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))
    kept.put_back()
    return drawn


@given(st.lists(st.tuples(st.sampled_from(sorted(DRAWS)), st.integers(0, 3)), max_size=12))
def test_the_program_draws_as_if_no_batch_had_been_made(calls: list[tuple[str, int]]) -> None:
    _seed_all()
    alone = [DRAWS[name]() for name, _ in calls]
    _seed_all()
    kept, beside = Aside(), []
    for name, batches in calls:
        beside.append(DRAWS[name]())
        for _ in range(batches):
            _a_batch(kept, 7)
    assert beside == alone


@given(st.lists(st.sampled_from(sorted(DRAWS)), max_size=6), st.integers(0, 2**63 - 1))
def test_a_batch_draws_the_same_whatever_the_program_drew_before(names: list[str], seed: int) -> None:
    kept = Aside()
    first = _a_batch(kept, seed)
    for name in names:
        DRAWS[name]()
        assert _a_batch(kept, seed) == first


def test_where_the_words_of_the_generator_are_is_known_here() -> None:
    # Whoever runs this on an interpreter that keeps them elsewhere loses a few microseconds per batch, and has to know.
    assert aside._words_are_known()
