"""The real py-spy on real processes, and stand-ins for what it does on machines that forbid it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keepfed.host.stacks import Frame, Stack, ThreadStack, installed_spy, stack_of
from keepfed.host.stuck import read_state
from keepfed.text import choose_language
from tests.host.live import until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")

STUCK = """
import sys, threading, time
def outer():
    return inner()
def inner():
    lock = threading.Lock()
    lock.acquire()
    print("here", flush=True)
    lock.acquire()
threading.Thread(target=time.sleep, args=(1000,), name="sleeper", daemon=True).start()
outer()
"""

BUSY = """
def spin():
    print("here", flush=True)
    while True:
        pass
spin()
"""


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language(None)


@pytest.fixture
def spied() -> None:
    """Needs py-spy, and the right to use it."""
    if installed_spy() is None:
        pytest.skip("py-spy is not installed")


@pytest.fixture
def start() -> Iterator[Callable[[str], int]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str) -> int:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def look(pid: int, *, native: bool = False) -> Stack:
    found = stack_of(pid, 20.0, native=native)
    assert found is not None
    if found.missing == "refused":
        pytest.skip("py-spy may not look at processes here")
    return found


def functions(thread: ThreadStack) -> list[str]:
    return [frame.function for frame in thread.frames]


def state_of(pid: int) -> str:
    found = read_state(pid)
    return found.state if found else ""


# -------------------------------------------------------------------------------------------------------------------- real


@pytest.mark.usefixtures("spied")
def test_the_innermost_python_frame_of_the_main_thread_comes_first(start: Callable[[str], int]) -> None:
    pid = start(STUCK)
    assert until(lambda: functions(look(pid).threads[0]) == ["inner", "outer", "<module>"])
    found = look(pid)
    main, sleeper = found.threads
    assert (found.missing, main.tid, main.name, sleeper.name) == ("", pid, "MainThread", "sleeper")
    assert main.frames[0] == Frame("inner", "<string>", 9)
    assert (main.state, main.call) == ("S", "futex")
    text = found.in_words().splitlines()
    assert text[0].startswith("MainThread waits (futex")
    assert text[1] == "  inner (<string>:9)"


@pytest.mark.usefixtures("spied")
def test_a_busy_process_is_read_without_a_pause(start: Callable[[str], int]) -> None:
    pid = start(BUSY)
    assert until(lambda: functions(look(pid).threads[0])[:1] == ["spin"])


@pytest.mark.usefixtures("spied")
def test_a_stopped_process_shows_its_stack_and_stays_stopped(start: Callable[[str], int]) -> None:
    pid = start(STUCK)
    os.kill(pid, signal.SIGSTOP)
    assert until(lambda: state_of(pid) == "T")
    found = look(pid, native=True)
    assert "inner" in functions(found.threads[0])
    assert found.in_words().startswith("MainThread is stopped by a signal")
    assert state_of(pid) == "T"


@pytest.mark.usefixtures("spied")
def test_native_frames_lie_below_the_python_ones_and_the_process_goes_on(start: Callable[[str], int]) -> None:
    pid = start(STUCK)
    assert until(lambda: state_of(pid) == "S")
    found = look(pid, native=True)
    names = functions(found.threads[0])
    if names[0] == "inner":
        pytest.skip("py-spy may not stop processes here")
    assert names.index("inner") > 0
    assert until(lambda: state_of(pid) == "S")


def test_a_process_that_is_gone_has_no_stack() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert stack_of(process.pid) is None


def test_without_py_spy_the_kernel_still_tells_what_each_thread_waits_in(start: Callable[[str], int]) -> None:
    pid = start(STUCK)
    assert until(lambda: state_of(pid) == "S")
    found = stack_of(pid, find_spy=lambda: None)
    assert found is not None
    assert (found.missing, len(found.threads), found.threads[0].tid) == ("not_installed", 2, pid)
    assert "py-spy is not installed" in found.in_words()


# ---------------------------------------------------------------------------------------------------------------- stand-ins


def a_spy(folder: Path, body: str) -> Callable[[], str]:
    """A program that stands in for py-spy."""
    spy = folder / "py-spy"
    spy.write_text(f"#!/bin/sh\n{body}\n")
    spy.chmod(0o755)
    return lambda: os.fspath(spy)


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ("echo 'Error: Permission denied (os error 13)' >&2; exit 1", "refused"),
        ("echo 'Error: Operation not permitted (os error 1)' >&2; exit 1", "refused"),
        ("echo 'Error: Failed to find python version' >&2; exit 1", "failed"),
        ("kill -SEGV $$", "failed"),
        ("echo '[{}]'", "failed"),
        ("echo 'no json'", "failed"),
        ("echo '7'", "failed"),
        ("exec sleep 1000", "too_slow"),
    ],
)
def test_what_keeps_py_spy_from_it_is_told_in_a_clause(tmp_path: Path, body: str, missing: str) -> None:
    found = stack_of(os.getpid(), 0.3 if missing == "too_slow" else 20.0, find_spy=a_spy(tmp_path, body))
    assert found is not None
    assert found.missing == missing
    assert found.in_words().splitlines()[-1].startswith("no Python stack: py-spy ")


def test_a_spy_that_cannot_be_started_is_no_error(tmp_path: Path) -> None:
    found = stack_of(os.getpid(), find_spy=lambda: os.fspath(tmp_path / "gone"))
    assert found is not None
    assert found.missing == "failed"


def test_without_native_frames_the_python_ones_are_taken(tmp_path: Path, start: Callable[[str], int]) -> None:
    """To stop a process may be refused where reading its memory is not."""
    pid = start(STUCK)
    row = {"name": "inner", "filename": "a.py", "line": 3}
    answer = json.dumps([{"os_thread_id": pid, "thread_name": None, "owns_gil": True, "frames": [row]}])
    body = f"[ \"$2\" = --nonblocking ] || {{ echo 'os error 1)' >&2; exit 1; }}\necho '{answer}'"
    found = stack_of(pid, 20.0, native=True, find_spy=a_spy(tmp_path, body))
    assert found is not None
    assert (found.missing, found.threads[0].frames) == ("", (Frame("inner", "a.py", 3),))
    assert found.threads[0].holds_gil
    assert found.threads[0].name.startswith("python")


def test_a_long_stack_and_many_threads_are_cut_with_their_number() -> None:
    nameless = Frame("0x7f0676ea3f16", "libc.so.6", 0)
    frames = (nameless, *(Frame(f"f{number}", "a.py", number) for number in range(40)))
    python = ThreadStack(1, "MainThread", "S", "read", ("pipe_read", "vfs_read"), frames, holds_gil=True)
    pool = tuple(ThreadStack(number, "omp", "S", "futex", ()) for number in range(2, 9))
    text = Stack(1, (python, *pool), "").in_words(most_frames=2)
    assert text.splitlines() == [
        "MainThread waits (read, pipe_read), holds the GIL",
        "  f0 (a.py)",
        "  f1 (a.py:1)",
        "  ... 38 more frames",
        "... 7 more threads",
    ]


def test_an_unkillable_wait_names_the_calls_that_tell_the_file_system(tmp_path: Path) -> None:
    thread = tmp_path / "50" / "task" / "50"
    thread.mkdir(parents=True)
    (thread / "stat").write_text("50 (pt_data_worker) D 1 1")
    (thread / "comm").write_text("pt_data_worker\n")
    (thread / "stack").write_text("[<0>] rpc_wait_bit_killable+0x1e/0xa0\n[<0>] nfs4_run_open_task+0x1/0x2\n[<0>] c\n")
    found = stack_of(50, proc=tmp_path, find_spy=lambda: None)
    assert found is not None
    first = found.in_words().splitlines()[0]
    assert first == (
        "pt_data_worker waits in the kernel and cannot be killed before that ends "
        "(rpc_wait_bit_killable, nfs4_run_open_task, c)"
    )
