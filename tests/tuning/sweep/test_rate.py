"""What a bar showed over time → the rate of its steady part. The recordings are of real programs on a pseudo terminal."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.tuning.sweep.choice import main_bar
from keepfed.tuning.sweep.rate import Sighting, epoch_seconds, moves_s, steady, typical_epoch
from keepfed.tuning.sweep.run import Ending, Run, Watched

RECORDED = Path(__file__).parent / "recorded"


def track(*points: tuple[float, float]) -> list[Sighting]:
    return [Sighting(at_s, done, None) for at_s, done in points]


def even(from_s: float, rate: float, total: int, start_s: float = 0.0) -> list[Sighting]:
    """An epoch that shows 0 at once, its first batch after `start_s`, and then one every 1 / rate."""
    first_s = from_s + start_s + 1 / rate
    return track((from_s, 0), *((first_s + n / rate, n + 1) for n in range(total)))


def test_an_even_bar_has_its_rate() -> None:
    found = steady(even(5.0, 20.0, 400))
    assert found is not None
    assert found.rate == pytest.approx(20)
    assert found.warm
    assert found.change == pytest.approx(0)


def test_the_start_of_the_workers_is_not_in_the_rate_but_in_the_epoch() -> None:
    bar = [*even(0.0, 20.0, 100, start_s=3.0), *even(8.0, 20.0, 100, start_s=3.0)]
    found = steady(bar)
    assert found is not None
    assert found.rate == pytest.approx(20)
    assert list(epoch_seconds(bar, 100)) == pytest.approx([8.0, 8.0])


def test_a_cold_beginning_is_left_out() -> None:
    cold, warm = even(0.0, 5.0, 50), [Sighting(10.0 + n / 50, 50.0 + n, None) for n in range(1, 2000)]
    found = steady([*cold, *warm])
    assert found is not None
    assert found.rate == pytest.approx(50, rel=0.01)


def test_no_more_than_twenty_seconds_are_warm_up() -> None:
    found = steady(even(0.0, 2.0, 1000))
    assert found is not None
    assert found.from_s <= 22


def test_what_lies_between_two_epochs_is_not_counted() -> None:
    bar = [*even(0.0, 10.0, 100), *even(60.0, 10.0, 100)]
    found = steady(bar)
    assert found is not None
    assert found.rate == pytest.approx(10)


def test_an_evaluation_in_the_middle_of_an_epoch_is_not_counted_and_a_stall_is() -> None:
    """As transformers draws it: one bar for all epochs, which stands still while another one moves."""
    before, after = even(0.0, 10.0, 400), [Sighting(70.0 + n / 10, 400.0 + n, None) for n in range(1, 300)]
    evaluation = [41.0 + n for n in range(28)]
    found, stalled = steady([*before, *after], evaluation), steady([*before, *after])
    assert found is not None
    assert stalled is not None
    assert found.rate == pytest.approx(10)
    assert stalled.rate < 7
    beside = steady(before, [one.at_s for one in before])  # a bar that moves with this one is no evaluation
    assert beside == steady(before)


def test_a_bar_that_is_drawn_again_and_again_counts_once() -> None:
    bar = even(0.0, 10.0, 100)
    redrawn = [Sighting(20.0 + n, 100.0, None) for n in range(50)]
    found, plain = steady([*bar, *redrawn]), steady(bar)
    assert found == plain
    assert moves_s([*bar, *redrawn]) == moves_s(bar)


def test_ranks_that_draw_the_same_bar_are_read_as_one() -> None:
    """The second rank is always a little later, and still at the end of an epoch when the first begins the next one."""
    first = [
        *even(0.0, 20.0, 200, start_s=1.0),
        *even(12.0, 20.0, 200, start_s=1.0),
        *even(24.0, 20.0, 200, start_s=1.0),
    ]
    second = [Sighting(one.at_s + 1.07, one.done, None) for one in first]
    both = sorted([*first, *second], key=lambda one: one.at_s)
    found = steady(both)
    assert found is not None
    assert found.rate == pytest.approx(20, rel=0.03)
    assert all(9 < seconds < 13 for seconds in epoch_seconds(both, 200))  # none, rather than a wrong one


def test_a_rate_that_was_still_rising_is_told() -> None:
    slow, fast = even(0.0, 10.0, 200), [Sighting(20.0 + n / 20, 200.0 + n, None) for n in range(1, 400)]
    found = steady([*slow, *fast])
    assert found is not None
    assert found.change > 0.2


def test_two_points_are_too_short_for_a_warm_up() -> None:
    found = steady(track((0, 0), (1, 10), (2, 20), (3, 30)))
    assert found is not None
    assert not found.warm
    assert found.rate == pytest.approx(10)


def test_rates_that_are_only_named_give_their_median_after_the_first_quarter() -> None:
    said = [Sighting(float(second), None, 1.0 if second < 10 else 8.0) for second in range(41)]
    found = steady(said)
    assert found is not None
    assert found.rate == 8
    assert found.done is None
    alone = steady([Sighting(3.0, None, 120.5)])
    assert alone is not None
    assert (alone.rate, alone.warm) == (120.5, False)


def test_nothing_shown_is_no_rate() -> None:
    assert steady([]) is None
    assert steady(track((0, 0))) is None
    assert steady([Sighting(0.0, 0.0, None), Sighting(1.0, 1.0, None)]) is None


def test_only_whole_epochs_have_seconds_and_the_first_counts_when_alone() -> None:
    bar = [*even(0.0, 10.0, 50), *even(10.0, 20.0, 50), *even(20.0, 20.0, 30)]
    assert list(epoch_seconds(bar, 50)) == pytest.approx([5.0, 2.5])
    assert epoch_seconds(bar, None) == ()
    assert typical_epoch((5.0,)) == 5.0
    assert typical_epoch((5.0, 2.5)) == 2.5
    assert typical_epoch(()) is None


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50) | st.none(), st.floats(0, 1e6) | st.none()), max_size=60)
)
def test_no_bar_breaks_it(seen: list[tuple[float, int | None, float | None]]) -> None:
    bar = [Sighting(at_s, done, rate) for (at_s, done, rate) in sorted(seen, key=lambda one: one[0])]
    found = steady(bar)
    epoch_seconds(bar, 50)
    if found is not None:
        assert found.rate > 0
        assert found.from_s <= found.to_s


# ----------------------------------------------------------------------------------------------------------- real programs


def recording(name: str) -> Run:
    """What was read of a recorded program."""
    chunks = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    assert all(one <= other for (one, _), (other, _) in pairwise(chunks))
    watched = Watched(None)
    watched.take([(at_s, text.encode()) for at_s, text in chunks], last=True)
    return Run("1", Ending.ENDED, 0, chunks[-1][0], watched.tracks, None, None)


@pytest.mark.parametrize(
    ("name", "bar", "rate", "epochs"),
    [
        ("tqdm", ("Epoch", "batch"), 48.7, (1.22, 1.24, 1.24)),  # 20 ms per batch, in a bar of epochs, beside another one
        ("lightning_rich", ("Epoch", "it"), 11.5, (0.73, 0.72, 0.70)),  # 80 ms, then as many batches of validation
        ("lightning_tqdm", ("Epoch", "it"), 11.5, (0.77, 0.72, 0.71)),
        ("keras", ("", "step"), 40.1, ()),  # 20 ms and its own work; its bar never shows 0
    ],
)  # fmt: skip
def test_recorded_programs_are_read(name: str, bar: tuple[str, str], rate: float, epochs: tuple[float, ...]) -> None:
    run = recording(name)
    assert main_bar([run]) == bar
    ((bar_id, own),) = [(one, own) for one, own in run.tracks.items() if (one.words, one.unit) == bar]
    found = steady(own)
    assert found is not None
    assert found.rate == pytest.approx(rate, rel=0.05)
    assert epoch_seconds(own, bar_id.total) == pytest.approx(epochs, abs=0.02)
