"""`keepfed scan` as it is typed: what it prints, and what its exit code says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keepfed.cli.main import main
from keepfed.cli.scan.expect import same_value, verdict_of
from keepfed.knobs.knob import wish
from keepfed.knobs.site import Form, InEffect, Kind, KnobSite, Role, Span


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.bat").write_bytes(
        b"set NUM_WORKERS=4\r\npython train.py --num-workers %NUM_WORKERS% --pin-memory true\r\n"
    )
    (tmp_path / "run.ps1").write_bytes(b'docker run --shm-size 2g image\n$env:OMP_NUM_THREADS = "1"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["scan", "--json", *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_json_has_the_keys_that_were_promised(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "train.bat")
    assert found["schema"] == "keepfed.scan/1"
    first = found["sites"][0]
    promised = {
        "file",
        "line",
        "column",
        "start",
        "end",
        "knob",
        "spelling",
        "value",
        "kind",
        "wins",
        "original",
        "in_effect",
    }
    assert promised <= set(first)
    assert (first["file"], first["line"], first["column"], first["start"], first["end"]) == ("train.bat", 1, 17, 16, 17)
    assert (first["knob"], first["spelling"], first["value"], first["kind"]) == (
        "num_workers",
        "NUM_WORKERS",
        "4",
        "literal",
    )


def test_json_says_what_was_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".git").mkdir()
    assert answer(capsys)["skipped"] == [
        {"file": ".git", "reason": "data of the version control", "code": "repository"}
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_the_terminal_and_loses_nothing(
    width: int, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["scan"]) == 0
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) <= width
    assert "train.bat\n" in shown
    assert "1:17" in shown
    squeezed = "".join(shown.split())
    assert "%NUM_WORKERS%" in squeezed or width == 40
    assert "5place(s)in2file(s)" in squeezed


def test_where_nothing_is_written_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"No data loading setting is written in {tmp_path}.\n"


@pytest.mark.parametrize(
    "met",
    [
        ["num_workers=4"],
        ["--num-workers=4", "pin_memory=True"],
        ["pin_memory=1", "shm_size=2048m", "OMP_NUM_THREADS=1"],
        ["NUM_WORKERS=04"],
    ],
)
def test_what_is_as_expected_exits_with_0(met: list[str], project: Path) -> None:
    assert main(["scan", *(word for pair in met for word in ("--expect", pair))]) == 0


def test_what_differs_exits_with_1_and_names_the_places(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--expect", "num_workers=0", "--expect", "pin_memory=true"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "num_workers=0: 1 place(s) differ",
        "train.bat:1:17: NUM_WORKERS = 4",
        "pin_memory=true: so in 1 place(s)",
    ]


def test_what_nobody_sets_exits_with_1(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--expect", "prefetch_factor=2"]) == 1
    assert "nothing sets it" in capsys.readouterr().out
    assert main(["scan", "--json", "--expect", "prefetch_factor=2"]) == 1
    assert json.loads(capsys.readouterr().out)["expect"] == [
        {"knob": "prefetch_factor", "value": "2", "met": False, "differs": []}
    ]


@pytest.mark.parametrize("pair", ["num_workers", "=4", "num_workers=", "num_wrokers=4", "num_workers=-1"])
def test_an_expectation_that_makes_no_sense_is_wrong_usage(pair: str, project: Path) -> None:
    assert main(["scan", f"--expect={pair}"]) == 2


def test_a_path_that_is_not_there_exits_with_3(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "train.bat", "missing"]) == 3
    assert capsys.readouterr().out == ""


def test_a_plain_scan_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    (tmp_path / "train.bat").write_text("python train.py --num-workers 4")
    code = "import sys; from keepfed.cli.main import main; main(['scan', '--json', *sys.argv[1:]]);"
    code += "print({'torch', 'docker', 'psutil', 'rich.table'} & set(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


def site(value: str, kind: Kind = Kind.LITERAL, *, wins: bool | None = None, live: str | None = None) -> KnobSite:
    return KnobSite(
        file="a.py", line=1, column=1, span=Span(0, 1), knob="num_workers", spelling="num_workers", value=value,
        kind=kind, form=Form.PYTHON, role=Role.CALL, wins=wins, in_effect=InEffect(live, 1) if live else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sites", "met"),
    [
        ([site("4"), site("0", wins=True)], True),
        ([site("4"), site("0")], False),
        ([site("0"), site("4", Kind.RECORD), site("4", Kind.DEAD), site("4", Kind.OVERRIDDEN)], True),
        ([site("0"), site("args.workers", Kind.REFERENCE)], True),
        ([site("args.workers", Kind.REFERENCE)], False),
        ([site("min(0, n)", Kind.EXPRESSION)], False),
        ([site("0", wins=False)], False),
        ([site("4", live="0")], True),
        ([site("0", live="4")], False),
        ([], False),
    ],
)
def test_what_counts_is_what_wins_and_what_is_in_effect(sites: list[KnobSite], met: bool) -> None:
    assert verdict_of(wish("num_workers", "0"), sites, lambda file: "").met is met


def test_a_winner_in_one_project_says_nothing_about_another() -> None:
    other = replace(site("4"), file="b/a.py")
    verdict = verdict_of(wish("num_workers", "0"), [site("0", wins=True), other], lambda file: file.rpartition("/")[0])
    assert verdict.differing == (other,)


def test_what_may_count_beside_a_winner_is_told_and_not_judged() -> None:
    verdict = verdict_of(wish("num_workers", "0"), [site("0", wins=True), site("4")], lambda file: "")
    assert verdict.met
    assert verdict.lines()[1:] == ["1 place(s) more may count and say otherwise:", "a.py:1:1: num_workers = 4"]


@pytest.mark.parametrize(
    ("knob", "first", "second", "same"),
    [
        ("num_workers", "0", "00", True),
        ("num_workers", "1_0", "10", True),
        ("num_workers", "None", "0", False),
        ("pin_memory", "True", "yes", True),
        ("shm_size", "2g", "2048m", True),
        ("shm_size", "2gb", "2G", True),
        ("shm_size", "2g", "2", False),
    ],
)
def test_values_are_compared_as_values(knob: str, first: str, second: str, same: bool) -> None:
    assert same_value(knob, first, second) is same
