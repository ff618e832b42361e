"""Real programs, run once with a value: what is read, what is counted, what is left of them."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from keepfed.launch.program import Program
from keepfed.tuning.sweep.choice import How, rows
from keepfed.tuning.sweep.progress_lines import Metric
from keepfed.tuning.sweep.rounds import Turn, sweep, turns
from keepfed.tuning.sweep.run import Ending, Limits, Run, Runner, Watched

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and signals")
PYTHON = [sys.executable, "-S", "-E", "-c"]

BAR = r"""
import sys, time
for n in range(int(sys.argv[1]) + 1):
    sys.stderr.write(f"\rtrain: {n}/1000 [00:0{n // 100}<00:09, ?it/s]")
    sys.stderr.flush()
    time.sleep(0.005)
"""


@contextmanager
def start(argv: Sequence[str], output: int, environ: Mapping[str, str]) -> Generator[Program]:
    with Program(argv, None, environ, output) as program:
        program.start()
        yield program


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left behind here never ends by itself."""
    monkeypatch.setattr("keepfed.launch.program._LEFTOVERS_S", (0.1, 5.0))


def runner(each_s: float = 30.0, whole_s: float = 50.0, metric: str | None = None) -> Runner:
    return Runner(start, Limits(each_s, whole_s), os.environ, Metric(metric) if metric else None, has_gpu=False)


def unseen(_watched: Watched) -> None:
    pass


def run(
    tmp_path: Path, command: Sequence[str], making: Runner | None = None, seen: Callable[[Watched], None] = unseen
) -> Run:
    return (making or runner()).run("7", [*command], tmp_path / "out.log", seen)


def test_a_bar_is_read_and_the_output_kept_as_it_was_written(tmp_path: Path) -> None:
    made = run(tmp_path, [*PYTHON, BAR, "60"])
    assert (made.ending, made.exit, made.note) == (Ending.ENDED, 0, "")
    (row,) = rows([made], ["7"])
    assert row.how is How.MEASURED
    assert row.unit == "it"
    assert 5 < (row.rate or 0) < 250
    text = (tmp_path / "out.log").read_bytes()
    assert text.startswith(b"\rtrain: 0/1000 [00:00")
    assert text.endswith(b"\rtrain: 60/1000 [00:00<00:09, ?it/s]")
    assert stat.S_IMODE((tmp_path / "out.log").stat().st_mode) == 0o600


def test_the_program_sees_a_wide_terminal_and_no_keyboard(tmp_path: Path) -> None:
    asks = "import os, sys; print(sys.stdout.isatty(), sys.stderr.isatty(), os.get_terminal_size(1)[0], sys.stdin.read() == '')"
    run(tmp_path, [*PYTHON, asks])
    assert (tmp_path / "out.log").read_bytes() == b"True True 200 True\n"


def test_nothing_of_ours_enters_the_program(tmp_path: Path) -> None:
    asks = "import os; print([name for name in os.environ if 'KEEPFED_RUN' in name], '_site' in os.environ.get('PYTHONPATH', ''))"
    run(tmp_path, [*PYTHON, asks])
    assert (tmp_path / "out.log").read_bytes() == b"[] False\n"


def test_a_failure_keeps_its_exit_code_and_its_words(tmp_path: Path) -> None:
    made = run(tmp_path, [*PYTHON, "raise SystemExit('no such file: 7')"])
    assert (made.ending, made.exit) == (Ending.FAILED, 1)
    assert (tmp_path / "out.log").read_bytes() == b"no such file: 7\n"


def test_a_command_that_does_not_exist_is_a_run_too(tmp_path: Path) -> None:
    made = run(tmp_path, ["keepfed-no-such-command"])
    assert (made.ending, made.exit) == (Ending.NOT_STARTED, 127)
    assert "keepfed-no-such-command" in made.note


def test_a_run_is_ended_in_time_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    """A child in a session of its own that ignores Ctrl-C, as ranks of torchrun have one."""
    tree = r"""
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import signal, time; signal.signal(2, signal.SIG_IGN); time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
n = 0
try:
    while True:
        n += 1
        print(f"step {n}/1000", flush=True)
        time.sleep(0.02)
finally:
    print("step 1000/1000", flush=True)
"""
    made = run(tmp_path, [*PYTHON, tree], runner(each_s=0.6))
    assert made.ending is Ending.TIME_UP
    assert made.exit == 128 + signal.SIGINT
    assert 0.5 < made.seconds < 20
    assert (tmp_path / "out.log").read_bytes().count(b"step 1000/1000") == 1
    ((_, track),) = made.tracks.items()
    assert max(one.done or 0 for one in track) < 1000  # drawn when it was told to end
    assert not psutil.pid_exists(int((tmp_path / "out.log").read_bytes().split()[0]))


def test_what_a_program_leaves_behind_does_not_run_beside_the_next_value(tmp_path: Path) -> None:
    leaves = r"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
"""
    made = run(tmp_path, [*PYTHON, leaves])
    assert made.ending is Ending.ENDED
    assert not psutil.pid_exists(int((tmp_path / "out.log").read_bytes().split()[0]))


def test_a_program_that_shows_nothing_is_ended_too_and_the_others_are_not_run(tmp_path: Path) -> None:
    making = runner(whole_s=0.5)
    told: list[Turn] = []
    runs, interrupted = sweep(
        making, [*PYTHON, "import time; time.sleep(600)", "{}"], turns(["1", "2"], 1), tmp_path,
        told.append, lambda _turn, _watched: None, lambda turn, _run: told.append(turn),
    )  # fmt: skip
    assert [one.ending for one in runs] == [Ending.TOO_SLOW]
    assert not interrupted
    assert len(told) == 2


def test_a_metric_takes_the_place_of_bars(tmp_path: Path) -> None:
    prints = "print('train: 1/9 [00:01<00:09, 99.0it/s]', 'speed=12.5', sep='\\n')"
    (row,) = rows([run(tmp_path, [*PYTHON, prints], runner(metric=r"speed=([\d.]+)"))], ["7"])
    assert row.rate == 12.5


def test_cpu_seconds_of_children_that_have_ended_are_counted(tmp_path: Path) -> None:
    burns = "import time\nwhile time.process_time() < 0.25: pass"
    tree = f"""
import subprocess, sys, time
for _ in range(2):
    subprocess.run([sys.executable, "-S", "-c", {burns!r}], check=True)
print("step 1/9", "step 2/9", sep="\\n", flush=True)
time.sleep(600)
"""
    made = run(tmp_path, [*PYTHON, tree], runner(each_s=0.05))
    assert made.usage is not None
    assert 0.5 <= made.usage.cpu_s < 3.0
    assert made.usage.cpu[-1].cpu_s >= 0.5  # known while it runs too
    assert made.usage.peak_bytes > 1 << 20


@pytest.mark.skipif(not hasattr(psutil.Process().memory_full_info(), "pss"), reason="no PSS on this system")
def test_memory_that_processes_share_is_counted_once(tmp_path: Path) -> None:
    """Three forks of a process of 64 MiB that write to none of it."""
    forks = r"""
import os, time
block = bytearray(64 << 20)
block[::4096] = b"x" * (len(block) // 4096)
pids = []
for _ in range(3):
    pids.append(os.fork())
    if not pids[-1]:
        time.sleep(1)
        os._exit(0)
for pid in pids:
    os.waitpid(pid, 0)
"""
    made = run(tmp_path, [*PYTHON, forks])
    assert made.usage is not None
    assert made.usage.memory_kind == "pss"
    assert 64 << 20 < made.usage.peak_bytes < 120 << 20


def test_ctrl_c_is_passed_on_and_ends_the_sweep(tmp_path: Path) -> None:
    pressed: list[float] = []

    def press(_turn: Turn, watched: Watched) -> None:
        if watched.first_s is not None and not pressed:
            pressed.append(watched.first_s)
            os.kill(os.getpid(), signal.SIGINT)

    runs, interrupted = sweep(
        runner(), [*PYTHON, BAR, "{}"], turns(["900", "901"], 1), tmp_path,
        lambda _turn: None, press, lambda _turn, _run: None,
    )  # fmt: skip
    assert interrupted
    (made,) = runs
    assert (made.ending, made.exit) == (Ending.INTERRUPTED, 128 + signal.SIGINT)
    assert made.tracks


def test_without_pseudo_terminals_it_is_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise OSError("out of pty devices")

    monkeypatch.setattr("os.openpty", none)
    made = run(
        tmp_path,
        [*PYTHON, "import os; print(os.environ['PYTHONUNBUFFERED'], os.isatty(1), '3/9 [00:01<00:01, 2.5it/s]')"],
    )
    assert (tmp_path / "out.log").read_bytes() == b"1 False 3/9 [00:01<00:01, 2.5it/s]\n"
    assert rows([made], ["7"])[0].rate == 2.5


@pytest.mark.skipif(sys.platform != "linux", reason="orphans come to us on Linux alone")
def test_a_daemon_in_a_session_of_its_own_is_found_ended_and_counted(tmp_path: Path) -> None:
    """Its parent has ended before anybody could look: two forks, and the first process is over."""
    daemon = r"""
import os, time
ready, say = os.pipe()
if not os.fork():
    os.setsid()
    if not os.fork():
        while time.process_time() < 0.3:
            pass
        os.write(say, b"x")
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(ready, 1)
"""
    before = set(psutil.Process().children())
    made = run(tmp_path, [*PYTHON, daemon])
    assert made.ending is Ending.ENDED
    assert set(psutil.Process().children()) <= before
    assert made.usage is not None
    assert made.usage.cpu_s >= 0.3
