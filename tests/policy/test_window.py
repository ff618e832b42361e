"""Windows: what counts as training, and what is left out."""

from __future__ import annotations

import pytest

from keepfed.plan import Plan
from keepfed.policy.window import Observation, WindowBuilder

PLAN = Plan(2)


class Loop:
    """A training loop that feeds a builder, batch by batch."""

    def __init__(self, builder: WindowBuilder) -> None:
        self.builder, self.now = builder, 100.0
        self.windows: list[Observation] = []

    def batch(self, step_s: float = 0.08, wait_s: float = 0.02, *, all_warm: bool = True) -> None:
        """One step, then one wait in next()."""
        self.now += step_s + wait_s
        if self.builder.delivered(self.now, wait_s, all_warm=all_warm):
            window = self.builder.close(self.now)
            if window is not None:
                self.windows.append(window)

    def batches(self, count: int, step_s: float = 0.08, wait_s: float = 0.02) -> None:
        for _ in range(count):
            self.batch(step_s, wait_s)


def warm_loop(**sizes: float) -> Loop:
    """A loop that has its warm-up behind it."""
    loop = Loop(WindowBuilder(PLAN, **{"min_s": 1.95, **sizes}))  # type: ignore[arg-type]  # seconds and counts mixed
    loop.batches(9)
    return loop


def test_a_window_holds_wait_and_elapsed_of_its_batches() -> None:
    loop = warm_loop()
    loop.batches(20)
    (window,) = loop.windows
    assert window.plan == PLAN
    assert window.batches == 20
    assert window.elapsed_s == pytest.approx(2.0)
    assert window.wait_s == pytest.approx(0.4)
    assert window.now_s == loop.now


def test_an_evaluation_is_left_out_and_reported() -> None:
    loop = warm_loop()
    loop.batches(10)
    loop.batch(step_s=30.0)
    loop.batches(10)
    (window,) = loop.windows
    assert window.elapsed_s == pytest.approx(2.0)
    assert window.batches == 20
    assert loop.builder.gaps == 1
    assert loop.builder.gap_s == pytest.approx(30.02)


@pytest.mark.parametrize("before", range(8))
def test_a_pause_among_the_first_batches_of_a_window_is_left_out_too(before: int) -> None:
    """By itself it lasts longer than a window may, and closes one of three batches if it is taken for a step."""
    builder, now_s = WindowBuilder(Plan(1)), 0.0
    windows = []
    for number in range(60):
        now_s += 60.0 if number == 30 + before else 0.5
        if builder.delivered(now_s, 0.01) and (window := builder.close(now_s)) is not None:
            windows.append(window)
    assert builder.gaps == 1
    assert [window.batches / window.elapsed_s for window in windows] == pytest.approx([2.0] * len(windows))


def test_a_long_wait_is_no_gap() -> None:
    """A starving loader is what is being measured."""
    loop = warm_loop()
    loop.batches(10)
    loop.batch(wait_s=3.0)
    loop.batches(10)
    assert sum(window.wait_s for window in loop.windows) > 3.0


def test_logging_every_few_batches_belongs_to_the_training() -> None:
    loop = warm_loop()
    for _ in range(10):
        loop.batches(4, step_s=0.02)
        loop.batch(step_s=0.3)
    measured = sum(window.batches for window in loop.windows) / sum(window.elapsed_s for window in loop.windows)
    assert measured == pytest.approx(5 / (4 * 0.04 + 0.32), rel=0.1)


def test_a_beat_of_the_log_is_learnt_even_when_it_comes_once_a_window() -> None:
    loop = warm_loop()
    for _ in range(12):
        loop.batches(24, step_s=0.03)
        loop.batch(step_s=1.0)
    last = loop.windows[-1]
    assert last.batches / last.elapsed_s == pytest.approx(25 / (24 * 0.05 + 1.02), rel=0.25)


def test_the_first_batch_of_an_epoch_belongs_to_no_window() -> None:
    loop = warm_loop()
    for _ in range(10):
        loop.batches(5)
        loop.builder.epoch_started()
        loop.batch(step_s=8.0, wait_s=2.0)
    assert len(loop.windows) == 2, "ten epochs of five batches"
    assert all(window.elapsed_s == pytest.approx(2.0) for window in loop.windows)


def test_nothing_is_measured_until_the_step_time_is_stable() -> None:
    loop = Loop(WindowBuilder(PLAN))
    for step_s in (20.0, 9.0, 4.0, 2.0):
        loop.batch(step_s=step_s)
    loop.batches(40)
    assert all(window.elapsed_s / window.batches == pytest.approx(0.1) for window in loop.windows)


def test_a_step_that_never_becomes_stable_is_taken_as_it_is() -> None:
    loop = Loop(WindowBuilder(PLAN))
    step_s = 4.0
    for _ in range(60):
        loop.batch(step_s=step_s)
        step_s *= 0.9
    assert loop.windows


def test_a_window_never_mixes_two_plans() -> None:
    loop = warm_loop()
    loop.batches(15)
    loop.builder.changed(Plan(3))
    loop.batches(20)
    (window,) = loop.windows
    assert window.plan == Plan(3)
    assert window.batches == 20


def test_a_window_holds_more_than_one_burst() -> None:
    """Sixteen workers release 32 batches behind one slow batch at once."""
    loop = warm_loop()
    loop.builder.changed(Plan(16, 2))
    loop.batches(63)
    assert not loop.windows
    loop.batch()
    assert loop.windows[0].batches == 64


def test_slow_batches_close_a_window_at_its_longest() -> None:
    loop = warm_loop(max_s=12.0)
    loop.batches(4, step_s=4.0)
    assert [window.batches for window in loop.windows] == [3]


def test_a_window_is_warm_when_it_began_warm() -> None:
    loop = warm_loop()
    loop.batch(all_warm=False)
    loop.batches(39)
    assert [window.all_warm for window in loop.windows] == [False, True]


def test_what_workers_report_is_summed_and_stalls_are_none_until_measured() -> None:
    loop = warm_loop()
    loop.builder.fetched(0.2, 0.1)
    loop.builder.fetched(0.4, 0.2)
    loop.batches(20)
    loop.builder.stalled(0.0)
    loop.builder.stalled(0.3)
    loop.batches(20)
    first, second = loop.windows
    assert first.fetched == 2
    assert first.fetch_s == pytest.approx(0.6)
    assert first.fetch_cpu_s == pytest.approx(0.3)
    assert first.stall_s is None
    assert first.starve_s == first.wait_s
    assert second.stall_s == 0.3
    assert second.starve_s == 0.3
    assert second.fetched == 0


def test_a_gpu_is_not_said_to_starve_for_longer_than_the_program_waits() -> None:
    """The first wait of an epoch belongs to no window, and the GPU's answer to it comes when the window has begun."""
    loop = warm_loop()
    loop.builder.epoch_started()
    loop.builder.stalled(1.5)
    loop.batches(30)
    window = loop.windows[0]
    assert window.stall_s == 1.5
    assert window.starve_s == pytest.approx(window.wait_s)


def test_what_had_been_prepared_under_the_old_plan_is_in_one_window() -> None:
    """48 batches are ready when seven of eight workers go: a window of the first eight would show their speed."""
    loop = warm_loop()
    loop.builder.changed(Plan(8, 6))
    loop.builder.changed(Plan(1))
    loop.batches(47)
    assert not loop.windows
    loop.batches(1)
    assert loop.windows[0].batches == 48
    loop.batches(20)
    assert loop.windows[1].batches == 20


def test_the_times_of_single_batches_are_kept_as_groups_with_the_same_mean() -> None:
    loop = warm_loop()
    for index in range(100):
        loop.builder.fetched(1.0 if index % 20 == 0 else 0.1, 0.0)
    loop.batches(20)
    times = loop.windows[0].fetch_times_s
    assert len(times) == 32
    assert max(times) > 0.9
    assert sum(times) / 32 == pytest.approx(0.145, rel=0.02)
