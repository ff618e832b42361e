"""The table of a sweep at its widest, and what is said below it."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import RenderableType

from keepfed import text
from keepfed.cli.tune.sweep_table import advice, notes, table
from keepfed.cli.tune.terminal import console, show
from keepfed.tuning.sweep.choice import Choice, Row, choose, rows
from keepfed.tuning.sweep.run import Ending, Limits
from tests.tuning.sweep.made import run, usage


@pytest.fixture(params=text.LANGUAGES)
def _language(request: pytest.FixtureRequest) -> Iterator[None]:
    text.choose_language(request.param)
    yield
    text.choose_language(None)


def drawn(shown: RenderableType) -> list[str]:
    file = StringIO()
    show(console(file), shown)
    return file.getvalue().splitlines()


def swept(*runs: tuple[str, float]) -> tuple[tuple[Row, ...], Choice | None]:
    found = rows(
        [run(value, rate, taken=usage(40.0, 1023 << 20)) for value, rate in runs], [value for value, _ in runs]
    )
    return found, choose(found)


@pytest.mark.usefixtures("_language")
@pytest.mark.parametrize("values", [("0", "16"), ("/opt/python3.12/bin/python", "a-rather-long-word-for-a-value")])
def test_no_number_is_cut_and_no_row_is_wider_than_the_terminal(
    values: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found, choice = swept((values[0], 12345.0), (values[1], 12344.0))
    lines = drawn(table(found, choice))
    assert all(cell_len(line) <= 80 for line in lines)
    first, second = lines[-2:]
    assert first.count("≈") == second.count("≈") == 1
    for line in (first, second):
        assert "1023 MiB" in line
        assert "50%" in line
        assert line.count("…") == (len(values[0]) > 16)
    assert values[0][-10:] in first
    assert values[1][-10:] in second


@pytest.mark.usefixtures("_language")
def test_every_reason_to_doubt_a_number_has_words() -> None:
    runs = [
        run("0", 10, taken=usage(read_bytes=3 << 30, kind="rss")),
        run("2", 20, ending=Ending.FAILED, code=137),
        run("4", None),
        run("8", 20, ending=Ending.INTERRUPTED),
        run("16", 11, taken=usage(read_bytes=1 << 20)),
    ]
    found = rows(runs, ["0", "2", "4", "8", "16"])
    said = "".join(drawn(notes(found, choose(found), Limits(60, 660))))
    assert "sweep." not in said
    for fact in ("137", "8", "5%", "--metric", "--repeat 3", "--repeat 2", "3.0 GiB", "RSS"):
        assert fact in said


def test_equal_values_are_named_and_the_cheapest_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    runs = [run("2", 29.5, taken=usage(2.0)), run("4", 30, taken=usage(4.0)), run("8", 10)]
    choice = choose(rows(runs, ["2", "4", "8"]))
    assert choice is not None
    said = drawn(advice(choice, ["python", "train.py", "--workers={}"]))
    assert "2, 4 cannot be told apart. Of these 2 is the cheapest:" in said
    assert "  python train.py --workers=2" in said


def test_a_metric_that_matched_nothing_is_named_and_not_recommended() -> None:
    found = rows([run("1", None)], ["1"])
    assert "--metric matched nothing" in " ".join(drawn(notes(found, None, Limits(60, 660), metric=True)))
    assert "--metric REGEX" in " ".join(drawn(notes(found, None, Limits(60, 660))))
