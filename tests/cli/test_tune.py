"""`keepfed tune` from the command line to the files, with a program that reports what it is told to report."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import keepfed
from keepfed.cli import main as frame
from keepfed.cli.tune.advice import advice
from keepfed.cli.tune.terminal import show
from keepfed.events import Event
from keepfed.profile import read_profile
from keepfed.tuning import history
from tests.tuning import recorded
from tests.tuning.recorded import EVAL, TRAIN

SOURCE = str(Path(keepfed.__file__).parents[1])

# Says one word on stdout, writes the events of its scenario as a training process would, and then does as the scenario
# says: "wait" for a signal, "interrupt" the launcher as Ctrl-C would, or end with a number.
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from keepfed import events
from keepfed.feed import RunFolder

print("trained", flush=True)
try:
    scenario = json.loads(Path(sys.argv[1]).read_text())
    writer = RunFolder.from_environment().writer()
    for line in scenario["events"]:
        writer.write(events.from_json(line))
    if scenario["then"] == "interrupt":
        os.kill(os.getppid(), signal.SIGINT)
    while scenario["then"] in ("wait", "interrupt"):
        signal.pause()
except KeyboardInterrupt:
    print("saved", flush=True)
    sys.exit(1)
sys.exit(scenario["then"])
"""

pytestmark = pytest.mark.skipif(not hasattr(signal, "pause"), reason="the program under test waits for POSIX signals")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty start folder with the program in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", SOURCE)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "prog.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def command(folder: Path, events: list[Event], then: str | int, *more: str) -> list[str]:
    scenario = {"events": [event.to_json() for event in events], "then": then}
    (folder / "scenario.json").write_text(json.dumps(scenario), encoding="utf-8")
    return ["--", sys.executable, "prog.py", "scenario.json", *more]


def tune(*words: str) -> int:
    return frame.main(["tune", *words])


def written(folder: Path) -> set[str]:
    """What stands in the folder besides the program, and in .keepfed besides the run folders."""
    names = {page.name for page in folder.iterdir()} - {"prog.py", "scenario.json", ".keepfed"}
    return names | {page.name for page in (folder / ".keepfed").glob("tunes*")}


def test_a_settled_program_is_stopped_and_its_plan_written(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune(*command(start, recorded.tuned(), "wait", "--workers", "1")) == 0
    said = capfd.readouterr()
    assert said.out == "trained\nsaved\n"
    assert "its checkpoints and logs are real" in said.err.replace("\n", " ")
    assert said.err.index("real") < said.err.index("as the program asks") < said.err.index("stopping the program")
    assert "train.py:41 PhotoFolder, batches of 8" in said.err
    assert "--workers 5  instead of  --workers 1" in said.err
    assert "keepfed run -- " in said.err
    (entry,) = read_profile(start / "keepfed.toml").loaders
    assert (entry.loader, entry.plan.num_workers) == (TRAIN, 5)
    assert written(start) == {"keepfed.toml", "tunes.jsonl"}


def test_the_table_shows_before_and_after(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tune(*command(start, recorded.tuned(), "wait"))
    rows = {line.split("  ")[1]: line.split() for line in capfd.readouterr().err.splitlines() if line.startswith("  ")}
    assert rows["workers"][-2:] == ["1", "5"]
    assert rows["batches/s"][-3:] == ["6.00", "24.0", "4.00×"]
    assert rows["waiting for data"][-2:] == ["76%", "4%"]
    assert rows["memory"][-4:] == ["95", "MiB", "477", "MiB"]
    assert "train.py:41: DataLoader(…, num_workers=5)" in " ".join(rows["train.py:41: DataLoader(…, num_workers=5)"])


def test_no_line_is_wider_than_80_columns_except_what_is_copied(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tune(*command(start, recorded.tuned(), "wait"))
    for line in capfd.readouterr().err.splitlines():
        assert len(line) <= 80 or line.startswith(("keepfed: ", "  keepfed run -- "))
        assert line == line.rstrip()


def test_the_output_is_plain_text_where_stderr_is_no_terminal(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tune(*command(start, recorded.tuned(), "wait"))
    assert "\x1b" not in capfd.readouterr().err


def test_it_speaks_chinese(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["--lang", "zh", "tune", *command(start, recorded.tuned(), "wait")]) == 0
    said = capfd.readouterr().err
    assert "每批 8 个样本" in said
    assert "已写入 keepfed.toml" in said
    assert "tune_report." not in said


def test_with_continue_the_program_trains_to_its_end(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--then", "continue", *command(start, recorded.tuned(), 0)) == 0
    said = capfd.readouterr()
    assert said.out == "trained\n"
    assert said.err.count("batches of 8") == 1
    assert written(start) == {"keepfed.toml", "tunes.jsonl"}
    assert len(history.read(start)[0]) == 1


def test_a_failure_after_the_search_keeps_the_plan_and_the_code(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The plan was found before; that the program fails later is its own affair."""
    waits = start / "waits.py"
    waits.write_text(
        "import pathlib, select, subprocess, sys, time\n"
        "subprocess.run([sys.executable, 'prog.py', 'scenario.json'])\n"
        "until = time.monotonic() + 30\n"
        "while not pathlib.Path('keepfed.toml').exists() and time.monotonic() < until: time.sleep(0.05)\n"
        "sys.exit(9)\n",
        encoding="utf-8",
    )
    command(start, recorded.tuned(), 0)
    assert tune("--then", "continue", "--", sys.executable, "waits.py") == 9
    assert read_profile(start / "keepfed.toml").loaders
    assert "exit code 9" in capfd.readouterr().err


def test_at_the_limit_the_program_is_stopped_and_nothing_unsettled_written(
    start: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert tune("--max-seconds", "1.5", *command(start, recorded.half_tuned(), "wait")) == 4
    said = capfd.readouterr().err
    assert "2 s are over; stopping the program" in said
    assert "best so far" in said
    assert "Not settled, so not written to keepfed.toml: train.py:41 PhotoFolder" in said
    assert written(start) == {"tunes.jsonl"}


def test_a_program_that_ends_too_early_is_exit_code_4(start: Path) -> None:
    assert tune(*command(start, recorded.half_tuned(), 0)) == 4
    assert written(start) == {"tunes.jsonl"}


def test_only_the_settled_loader_is_written(start: Path) -> None:
    assert tune(*command(start, [*recorded.tuned(), *recorded.half_tuned(EVAL)], 0)) == 4
    assert [entry.loader for entry in read_profile(start / "keepfed.toml").loaders] == [TRAIN]


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "no torch DataLoader was iterated"),
        ([recorded.joined(), recorded.seen()], "ended before enough batches had passed (train.py:41 PhotoFolder)"),
        ([recorded.joined(), recorded.left()], "left to torch's own loader: it is an IterableDataset"),
    ],
)
def test_nothing_measured_is_said_and_nothing_written(
    start: Path, capfd: pytest.CaptureFixture[str], events: list[Event], said: str
) -> None:
    assert tune("--json", "out.json", *command(start, events, 0)) == 3
    heard = capfd.readouterr().err
    assert "nothing was measured" in heard
    assert said in heard
    assert written(start) == set()


@pytest.mark.parametrize("events", [[], recorded.half_tuned()], ids=["early", "measured"])
def test_a_program_that_fails_gets_one_line_and_keeps_its_code(
    start: Path, capfd: pytest.CaptureFixture[str], events: list[Event]
) -> None:
    assert tune(*command(start, events, 7)) == 7
    said = capfd.readouterr().err
    after = said[said.index("train on") :].splitlines()[1:]
    assert [line for line in after if "exit code 7" in line] == after[-1:]
    assert "keepfed.toml" not in written(start)
    assert ("1 → 4" in said) == bool(events)


def test_ctrl_c_stops_the_program_and_writes_no_plan(start: Path) -> None:
    """In a process of its own: the signal goes to the launcher."""
    words = ["tune", "--json", "out.json", "--report", "out.html"]
    words += command(start, recorded.half_tuned(), "interrupt")
    done = subprocess.run(
        [sys.executable, "-m", "keepfed", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 130, done.stderr
    assert done.stdout == "trained\nsaved\n"
    assert "interrupted; nothing was written. Known so far:" in done.stderr
    assert "best so far" in done.stderr
    assert written(start) == {"out.json", "out.html"}
    assert json.loads((start / "out.json").read_text(encoding="utf-8"))["loaders"][0]["settled"] is False
    page = (start / "out.html").read_text(encoding="utf-8")
    assert "<h1>Not settled after" in page
    assert "keepfed run" not in page


def test_a_command_that_does_not_exist_is_one_line_and_127(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--", "no-such-program-here") == 127
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "no-such-program-here" in lines[0]
    assert written(start) == set()


def test_a_file_that_is_not_executable_is_one_line_and_126(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--", "./prog.py") == 126
    assert len(capfd.readouterr().err.splitlines()) == 1


def _schema(value: Any) -> Any:
    """The shape of a JSON value: keys and kinds."""
    if isinstance(value, dict):
        return {key: _schema(inner) for key, inner in value.items()}
    return [_schema(value[0])] if isinstance(value, list) else type(value).__name__


def test_the_json_file_holds_the_documented_object(start: Path) -> None:
    assert tune("--json", "out.json", *command(start, recorded.tuned(), "wait")) == 0
    document = json.loads((start / "out.json").read_text(encoding="utf-8"))
    assert list(document) == ["schema", "host", "search", "loaders"]
    assert document["schema"] == "keepfed.tune/1"
    assert document["host"]["fingerprint"] == read_profile(start / "keepfed.toml").host.fingerprint
    plan = {"num_workers": "int", "prefetch_factor": "int", "batches_per_s": "float", "wait_share": "float"}
    point = {"low": "float", "high": "float", "windows": "int", "seconds": "float", "memory_bytes": "int"}
    point |= {"cpu_s_per_batch": "float", "predicted_batches_per_s": "NoneType"}
    assert _schema(document["loaders"]) == [
        {
            "dataset": "str",
            "site": "str",
            "ordinal": "int",
            "batch_size": "int",
            "before": plan,
            "after": plan,
            "limited_by": "str",
            "reason": "str",
            "moves": [
                {**plan, "kept": "bool", "reason": "str", "predicted_batches_per_s": "NoneType", "at_s": "float"}
            ],
            "settled": "bool",
            "stall_share": "NoneType",
            "seconds": "float",
            "points": [{**plan, **point}],
            "timeline": [{"at_s": "float", **plan}],
            "what_if": [{"key": "str", "factor": "float", "derived": "bool", "text": "str"}],
        }
    ]
    assert stat.S_IMODE((start / "out.json").stat().st_mode) == 0o666 & ~_umask()


def test_the_page_says_what_was_found_and_how_to_use_it(start: Path) -> None:
    assert frame.main(["--lang", "zh", "tune", "--report", "out.html", *command(start, recorded.tuned(), "wait")]) == 0
    page = (start / "out.html").read_text(encoding="utf-8")
    assert "<h1>由“1 个 worker”改为“5 个 worker”：每秒批次数是原来的 4.00 倍</h1>" in page
    assert f"<code>keepfed run -- {sys.executable} prog.py scenario.json</code>" in page
    assert f"<code>{sys.executable} prog.py scenario.json</code>" in page
    assert written(start) == {"keepfed.toml", "tunes.jsonl", "out.html"}


def test_a_page_that_cannot_be_written_any_more_is_said_and_changes_no_exit_code(
    start: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (start / "pages").mkdir()
    removes = start / "removes.py"
    removes.write_text(
        "import pathlib, runpy, sys\npathlib.Path('pages').rmdir()\nsys.argv[1:] = ['scenario.json']\n"
        "runpy.run_path('prog.py', run_name='__main__')\n",
        encoding="utf-8",
    )
    command(start, recorded.tuned(), 0)
    assert tune("--report", "pages/out.html", "--", sys.executable, "removes.py") == 0
    assert "--report pages/out.html could not be written: No such file" in capfd.readouterr().err


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_malformed_plan_is_refused_before_the_program_starts(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = 'schema = "keepfed.profile/1"\n[host]\nfingerprint = "a"\ncors = 3\n'
    (start / "keepfed.toml").write_text(text, encoding="utf-8")
    assert tune(*command(start, recorded.tuned(), "wait")) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert "keepfed.toml:4: unknown key 'cors' in [host]" in said.err
    assert (start / "keepfed.toml").read_text(encoding="utf-8") == text


def test_another_plan_file_is_written_and_named(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--plan", "cats.toml", *command(start, recorded.tuned(), "wait")) == 0
    assert "keepfed run --plan cats.toml -- " in capfd.readouterr().err
    assert written(start) == {"cats.toml", "tunes.jsonl"}


def test_a_plan_that_became_unwritable_meanwhile_is_said(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    breaks = start / "breaks.py"
    breaks.write_text(
        "import pathlib, runpy, sys\npathlib.Path('keepfed.toml').write_text('oh =')\nsys.argv[1:] = ['scenario.json']\n"
        "runpy.run_path('prog.py', run_name='__main__')\n",
        encoding="utf-8",
    )
    command(start, recorded.tuned(), 0)
    assert tune("--", sys.executable, "breaks.py") == 2
    assert "keepfed.toml:1: not TOML" in capfd.readouterr().err
    assert (start / "keepfed.toml").read_text(encoding="utf-8") == "oh ="


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "keepfed tune -- python train.py"),
        (["--then", "dance", "--", "true"], "dance"),
        (["--max-seconds", "0", "--", "true"], "--max-seconds 0: expected a number of seconds above 0"),
        (["--max-seconds", "nan", "--", "true"], "expected a number of seconds above 0"),
        (["--json", "no/such/folder.json", "--", "true"], "does not exist"),
        (["--json", ".", "--", "true"], "this is a folder"),
        (
            ["--report", "no/such/folder.html", "--", "true"],
            "--report no/such/folder.html: the folder no/such does not",
        ),
        (["--report", "page.html", "--json", "./page.html", "--", "true"], "--json and --report both name page.html"),
        (["--report", "page.html", "--history"], "--history runs none"),
        (["--plan", "no/such/plan.toml", "--", "true"], "does not exist"),
        (["--history", "--", "true"], "--history runs no program"),
        (["--wrokers", "--", "true"], "--wrokers"),
    ],
)
def test_wrong_usage_is_refused_before_anything_starts(
    start: Path, capfd: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert tune(*words) == 2
    assert said in capfd.readouterr().err
    assert not (start / ".keepfed").exists()


def test_a_plan_that_is_a_dangling_link_is_refused_before_the_program_starts(
    start: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (start / "keepfed.toml").symlink_to(start / "gone" / "keepfed.toml")
    assert tune(*command(start, recorded.tuned(), "wait")) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert "a symbolic link to" in said.err


def test_a_switched_off_keepfed_does_not_run_the_program_for_nothing(
    start: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEEPFED_DISABLE", "1")
    assert tune(*command(start, recorded.tuned(), "wait")) == 2
    assert "KEEPFED_DISABLE" in capfd.readouterr().err


def test_the_history_is_printed_oldest_first(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tune(*command(start, recorded.half_tuned(), 0, "--first"))
    tune(*command(start, recorded.tuned(), "wait", "--second"))
    capfd.readouterr()
    assert tune("--history", "--json", "past.json") == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "workers 1 → 5" in said.out
    assert said.out.index("not settled, ") < said.out.rindex(" settled, ")
    document = json.loads((start / "past.json").read_text(encoding="utf-8"))
    assert document["schema"] == "keepfed.tunes/1"
    assert [entry["exit"] for entry in document["tunes"]] == [4, 0]


def test_a_folder_without_history_says_how_to_start_one(start: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert tune("--history") == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert "keepfed tune -- python train.py" in said.err


def test_a_history_that_cannot_be_written_costs_only_the_history(
    start: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (start / ".keepfed").mkdir(mode=0o700)
    (start / ".keepfed" / "tunes.jsonl").mkdir()
    assert tune(*command(start, recorded.tuned(), "wait")) == 0
    assert "the history in .keepfed/tunes.jsonl could not be written" in capfd.readouterr().err
    assert (start / "keepfed.toml").exists()


def test_the_json_goes_into_a_pipe_too(start: Path) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as reader:
        assert tune("--json", f"/dev/fd/{write_end}", *command(start, recorded.tuned(), "wait")) == 0
        os.close(write_end)
        assert json.loads(reader.read())["schema"] == "keepfed.tune/1"


def test_a_long_command_is_neither_cut_nor_broken() -> None:
    """It is there to be copied: the terminal may break it on the screen, we may not."""
    printed = StringIO()
    screen = Console(file=printed, width=60)
    command = ["python", "train.py", *[f"--option-{number}=value" for number in range(20)]]
    show(screen, advice([], command, "keepfed.toml"))
    assert f"  keepfed run -- {' '.join(command)}\n" in printed.getvalue()
