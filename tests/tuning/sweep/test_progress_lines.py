"""One piece → how far which bar is. The lines were drawn by the programs that the test names."""

from __future__ import annotations

import time

import pytest

from keepfed.errors import UsageError
from keepfed.tuning.sweep.progress_lines import BarId, Metric, Reading, read_progress

TQDM = {
    " 33%|███▎      | 1/3 [00:00<00:01,  1.43it/s]": ("", 3, "it", 1, 1.43),
    "  0%|          | 0/3 [00:00<?, ?it/s]": ("", 3, "it", 0, None),
    "Epoch 0:  20%|██▏       | 5/25 [00:00<00:00, 48.11batch/s]": ("Epoch", 25, "batch", 5, 48.11),
    "Epoch 7/90: 100%|██| 25/25 [1:02:03<00:00, 1.45s/batch, loss=0.5]": ("Epoch", 25, "batch", 25, 1 / 1.45),
    "12.0kimg [00:00, 25.2kimg/s, loss=0.5]": ("", None, "img", 12e3, 25.2e3),
    "52it [00:05, 10.53it/s]": ("", None, "it", 52, 10.53),
    "train:  10%|█         | 1.00k/10.0k [00:01<00:09, 1.02kit/s]": ("train", 10e3, "it", 1e3, 1.02e3),
    " 12%|#2        | 12/100 [00:01<00:10,  8.11it/s, v_num=0]": ("", 100, "it", 12, 8.11),
    "  5%|5         | 1/20 [00:02<00:41,  2.18s/it]": ("", 20, "it", 1, 1 / 2.18),
}
DRAWN = {
    "Epoch 0/1  ━━╸━━━━━━━━ 2/32 0:00:00 • 0:00:01 74.97it/s loss: -2.505": ("Epoch", 32, "it", 2, 74.97),
    "Epoch 0/1  ━╺━━━━━━━━━ 1/32 0:00:00 • -:--:-- 0.00it/s loss: -2.503": ("Epoch", 32, "it", 1, None),
    "Validation ━━━━━━━╺━━━ 2/8 0:00:00 • -:--:-- 0.00it/s": ("Validation", 8, "it", 2, None),
    "13/75 ━━━━━━━━━━━━━━━━━━━━ 0s 4ms/step - loss: 0.1927 ": ("", 75, "step", 13, 250),
    "75/75 ━━━━━━━━━━━━━━━━━━━━ 12s 1s/step - loss: 0.1927 ": ("", 75, "step", 75, 1),
    " 45/100 [============>.................] - ETA: 5s - loss: 0.3": ("", 100, "", 45, None),
}
LOGGED = {
    "Epoch: [3][ 10/5004]\tTime  0.250 ( 0.300)\tData  0.010 ( 0.020)": ("Epoch", 5004, "it", 10, None),
    "Epoch: [0]  [ 10/100]  eta: 0:01:00  lr: 0.1  img/s: 120.5  time: 0.2": ("Epoch", 100, "it", 10, None),
    "Train: 4 [ 150/1251 ( 12%)]  Loss: 6.9": ("Train", 1251, "it", 150, None),
    "step 40/900, loss 2.1": ("", 900, "it", 40, None),
    "step 40: loss 2.1, 812.5 samples/s": ("", None, "samples", None, 812.5),
    "throughput: 35.2 img/sec": ("", None, "img", None, 35.2),
    "img/s: 120.5  loss: 3": ("", None, "img", None, 120.5),
    "1.2k tokens/s": ("", None, "tokens", None, 1200),
    "iteration took 250 ms/iter": ("", None, "iter", None, 4),
}
NOTHING = [
    "hello 3/4", "Working ━━━━━━━━ 10% 0:00:01", "Sanity Checking: |     | 0/? [00:00<?, ?it/s]", "loss: 0.3",
    "2026/01/31 10:00:00", "100%", "", "http://localhost:8000/3/4/s", "[1.0, 2.0]",
]  # fmt: skip


def expected(bar: tuple[str, float | None, str, float | None, float | None]) -> Reading:
    words, total, unit, done, rate = bar
    return Reading(BarId(words, total, unit), done, None if rate is None else pytest.approx(rate, rel=1e-9))  # type: ignore[arg-type]  # compares as a float


@pytest.mark.parametrize("piece", [*TQDM, *DRAWN])
def test_bars_are_read(piece: str) -> None:
    assert read_progress(piece) == expected((TQDM | DRAWN)[piece])


@pytest.mark.parametrize("piece", LOGGED)
def test_lines_of_logs_are_read(piece: str) -> None:
    assert read_progress(piece) == expected(LOGGED[piece])


@pytest.mark.parametrize("piece", NOTHING)
def test_other_text_is_no_progress(piece: str) -> None:
    assert read_progress(piece) is None


@pytest.mark.parametrize(
    "piece",
    [
        "model.bin:  5%|▌  | 52.0M/1.00G [00:05<01:30, 10.5MB/s]",
        "Map (num_proc=4):  20%|██  | 10000/50000 [00:01<00:04, 9456.78 examples/s]",
        "Generating train split:   7%|▋  | 3610/50000 [00:00<00:01, 57033.97 examples/s]",
        "Loading checkpoint shards: 100%|██| 2/2 [00:05<00:00,  2.61s/it]",
        "Sanity Checking DataLoader 0:  50%|████    | 1/2 [00:00<00:00, 1684.46it/s]",
    ],
)
def test_what_comes_before_training_is_known_as_that(piece: str) -> None:
    reading = read_progress(piece)
    assert reading is None or reading.bar.prepares


def test_training_is_not_taken_for_preparing() -> None:
    for piece in [*TQDM, *DRAWN]:
        reading = read_progress(piece)
        assert reading is not None
        assert not reading.bar.prepares


@pytest.mark.parametrize(
    "line", ["0.123 " * 160, "1" * 990, "a1 / " * 190, "1/1 " * 240, "━" * 900, "1[1 " * 240 + "/s"]
)
def test_no_line_takes_long_to_read(line: str) -> None:
    began_s = time.process_time()
    for _ in range(10):
        read_progress(line)
    assert time.process_time() - began_s < 0.5


def test_megabytes_in_one_piece_are_not_searched() -> None:
    assert read_progress("1/3 [00:00<00:01,  1.43it/s]" + "x" * 5000) is None


# ---------------------------------------------------------------------------------------------------------------- --metric


def test_a_metric_is_the_number_in_its_group() -> None:
    assert (Metric(r"speed=([\d.]+)").read("lr 0.1 speed=12.5 img") or pytest.fail("unread")).rate == 12.5
    assert Metric(r"speed=(\S+)").read("speed=fast") is None
    assert Metric(r"speed=([\d.]+)").read("no such thing") is None
    assert (Metric(r"tok ([\d,]+)").read("tok 1,234") or pytest.fail("unread")).rate == 1234


def test_a_group_named_for_a_time_is_turned_round() -> None:
    assert (Metric(r"time: (?P<seconds>[\d.]+)").read("time: 0.25") or pytest.fail("unread")).rate == 4
    assert (Metric(r"(?P<ms>\d+) ms").read("took 20 ms") or pytest.fail("unread")).rate == 50
    assert Metric(r"time: (?P<seconds>[\d.]+)").read("time: 0.0") is None


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("speed (", "no regular expression"), ("speed", "found 0"), (r"(a)(\d)", "found 2"), (r"(?P<hz>\d)", "not hz")],
)
def test_a_metric_that_cannot_work_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Metric(pattern)
    assert pattern in str(caught.value)
