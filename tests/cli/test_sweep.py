"""`keepfed tune --sweep` from the command line to the files, with programs that draw a bar."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import keepfed
from keepfed.cli import main as frame
from keepfed.tuning import history

# Draws a bar whose speed is its first argument; 7 fails in the middle.
PROGRAM = r"""
import sys, time
speed = int(sys.argv[1])
began = time.monotonic()
for n in range(int(0.35 * speed)):
    time.sleep(max(0.0, began + n / speed - time.monotonic()))
    sys.stderr.write(f"\rEpoch 0:  5%|5  | {n}/5000 [00:01<00:09, {speed}.0it/s]")
    sys.stderr.flush()
    if speed == 7:
        sys.exit("\nKeyError: 'seven'")
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and signals")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty start folder with the program in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "prog.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def command(*words: str) -> list[str]:
    return ["--", sys.executable, "-S", "-E", "prog.py", *words]


def tune(*words: str) -> int:
    return frame.main(["tune", *words])


def test_values_are_run_tabled_and_kept(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--sweep", "40,120,7", "--json", "out.json", "--report", "out.html", *command("{}")) == 4
    said = capfd.readouterr()
    assert said.out == ""
    rows = {line.split()[0]: line.split() for line in said.err.splitlines() if line.startswith("  ") and line.split()}
    assert rows["{}"][1:4] == ["it/s", "epoch", "wall"]
    assert 25 < float(rows["40"][1]) < 45
    assert 80 < float(rows["120"][1]) < 130
    assert rows["7"][1] == "failed"
    assert "3/3  7: ended with exit code 1" in said.err
    assert "    KeyError: 'seven'\n" in said.err
    assert "120 is the fastest" in said.err
    assert "prog.py 120\n" in said.err
    assert not (start / "keepfed.toml").exists()
    assert "120" in (start / "out.html").read_text(encoding="utf-8")
    assert all(len(line) <= 80 or line.startswith(("keepfed: ", "  /")) for line in said.err.splitlines())

    document: dict[str, Any] = json.loads((start / "out.json").read_text(encoding="utf-8"))
    assert (document["schema"], document["search"], document["loaders"]) == ("keepfed.tune/1", "sweep", [])
    assert [value["how"] for value in document["sweep"]["values"]] == ["measured", "measured", "failed"]
    assert document["sweep"]["best"] == "120"
    (log,) = document["sweep"]["values"][2]["output"]
    assert Path(log).read_bytes().endswith(b"KeyError: 'seven'\n")

    ((past,), unreadable) = history.read(start)
    assert unreadable == 0
    assert past.sweep == document["sweep"]
    assert tune("--history") == 0
    shown = capfd.readouterr().out
    assert "sweep, exit code 4" in shown
    assert "7: –" in shown
    assert "take 120" in shown


def test_it_speaks_chinese(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["--lang", "zh", "tune", "--sweep", "90", *command("{}")]) == 0
    said = capfd.readouterr().err
    assert "不进入程序内部" in said
    assert "只测得了 90：" in said
    assert "sweep." not in said


def test_repeated_runs_are_compared_by_their_medians(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--sweep", "60,200", "--repeat", "2", *command("{}")) == 0
    said = capfd.readouterr().err
    order = [line.split()[2] for line in said.splitlines() if line.startswith("keepfed: ") and "/4 " in line]
    assert order == ["60:", "200:", "200:", "60:"]
    assert "By the scatter of the runs" in " ".join(said.split())


def test_programs_that_show_no_rate_are_compared_by_their_time(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sleeps = ["--", sys.executable, "-S", "-c", "import time; time.sleep({})"]
    assert tune("--sweep", "0.6,0", *sleeps) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "No rate was seen, so whole runs are compared" in said
    assert "0 is done first" in said


def test_a_command_that_does_not_exist_has_the_shells_exit_code(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--sweep", "1,2", "--", "keepfed-no-such-command", "{}") == 127
    said = capfd.readouterr().err
    assert said.count("could not be started") == 1
    assert not history.path_in(start).exists()


def test_the_command_itself_can_be_what_differs(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--sweep", f"{sys.executable},keepfed-none", "--", "{}", "-S", "prog.py", "90") == 4
    said = capfd.readouterr().err
    assert "keepfed-none" in said
    assert "no start" in said


def test_ctrl_c_tables_what_is_known(start: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(keepfed.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-m", "keepfed", "tune", "--sweep", "90,2", "--json", "out.json", *command("{}")],
        stderr=subprocess.PIPE, text=True, env=environ, cwd=start,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "1/2  90:" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, said
    assert "interrupted. Known so far:" in said
    document = json.loads((start / "out.json").read_text(encoding="utf-8"))
    assert document["sweep"]["values"][0]["how"] == "measured"


def test_ctrl_c_in_the_middle_of_a_run_shows_its_rate_and_takes_no_value(start: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(keepfed.__file__).parents[1])}
    counts = "import time\nfor n in range(3000): print(f'step {n}/3000', flush=True); time.sleep(.01)"
    program = ["--", sys.executable, "-S", "-E", "-c", counts, "{}"]
    with subprocess.Popen(
        [sys.executable, "-m", "keepfed", "tune", "--sweep", "5,6", *program],
        stderr=subprocess.PIPE, text=True, env=environ, cwd=start,
    ) as process:  # fmt: skip
        folder = start / ".keepfed" / "runs"
        while not any(b"step 40/" in log.read_bytes() for log in folder.glob("*/output-1-5.log")):
            assert process.poll() is None
            threading.Event().wait(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=50)
    assert process.returncode == 130, said
    (row,) = [line.split() for line in said.splitlines() if line.startswith("  5 ")]
    assert 20 < float(row[1]) < 110
    assert "Cut short by Ctrl-C, and therefore not compared: 5." in said
    assert "fastest" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sweep", "0,2", "--", "python", "train.py"], "no word of the command contains {}"),
        (["--sweep", "", "--", "python", "{}"], "a value is empty"),
        (["--sweep", "1,1", "--", "python", "{}"], "1 stands in it twice"),
        (["--sweep", "1,2"], "no program to run"),
        (["--sweep", "1", "--metric", "(", "--", "p", "{}"], "no regular expression"),
        (["--sweep", "1", "--metric", "x", "--", "p", "{}"], "found 0"),
        (["--sweep", "1", "--each", "0", "--", "p", "{}"], "--each 0"),
        (["--sweep", "1", "--repeat", "0", "--", "p", "{}"], "--repeat 0"),
        (["--sweep", "1", "--max-seconds", "-1", "--", "p", "{}"], "--max-seconds -1"),
        (["--sweep", "1", "--plan", "x.toml", "--", "p", "{}"], "--plan has no meaning with --sweep"),
        (["--sweep", "1", "--then", "continue", "--", "p", "{}"], "--then continue has no meaning"),
        (["--sweep", "1", "--exhaustive", "--", "p", "{}"], "--exhaustive has no meaning"),
        (["--sweep", "1", "--step-ms", "4", "--", "p", "{}"], "--step-ms has no meaning"),
        (["--sweep", "1", "--history"], "--history has no meaning"),
        (["--metric", "(x)", "--", "p", "{}"], "--metric belongs to --sweep"),
        (["--repeat", "2", "--", "p"], "--repeat belongs to --sweep"),
        (["--sweep", "1", "--json", "no/such/x.json", "--", "p", "{}"], "does not exist"),
    ],
)  # fmt: skip
def test_wrong_usage_is_refused_before_anything_runs(
    start: Path, capfd: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert tune(*words) == 2
    assert said in capfd.readouterr().err
    assert sorted(page.name for page in start.iterdir()) == ["prog.py"]
