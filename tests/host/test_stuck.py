"""Real processes in every state that is claimed, and recorded ones for what this machine cannot be brought into."""

from __future__ import annotations

import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepfed.host.cgroups import find_group
from keepfed.host.stuck import ProcessState, proof_of_no_return, read_state
from keepfed.host.tree import Tree
from tests.host.live import child, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")

REFUSED = "the system calls of other processes may not be read here"


def state(pid: int) -> ProcessState:
    found = read_state(pid)
    assert found is not None
    return found


def waits_in(pid: int, *calls: str) -> bool:
    return until(lambda: state(pid).state == "S" and state(pid).syscall in calls)


def never_proved(pid: int) -> bool:
    return {proof_of_no_return(pid) for _ in range(30)} == {""}


@pytest.fixture
def _pipes_show() -> None:
    """Who of the same user is not to be looked at (ssh-agent, a browser's sandbox) leaves every pipe unproved."""
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            if other == "1" or f"Uid:\t{os.getuid()}\t" not in Path(f"/proc/{other}/status").read_text():
                continue
            for number in os.listdir(f"/proc/{other}/fd"):
                os.readlink(f"/proc/{other}/fd/{number}")
        except PermissionError:
            pytest.skip(f"process {other} of this user may not be looked at")
        except OSError:
            continue


@pytest.fixture(scope="module", autouse=True)
def _may_look() -> None:
    """A sandbox may refuse all of it, whoever asks; there is nothing to claim then."""
    with child(signal.pause) as pid:
        if not until(lambda: state(pid).syscall in ("pause", "rt_sigsuspend", "ppoll"), seconds=5):
            pytest.skip(REFUSED)


# ------------------------------------------------------------------------------------------------------------ real: proved


def test_a_process_stopped_by_a_signal_is_stopped_until_it_is_continued() -> None:
    with child(signal.pause) as pid:
        os.kill(pid, signal.SIGSTOP)
        assert until(lambda: proof_of_no_return(pid) == "stopped")
        assert state(pid).state == "T"
        os.kill(pid, signal.SIGCONT)
        assert until(lambda: state(pid).state == "S")
        assert never_proved(pid)


def test_a_lock_that_another_thread_held_at_the_fork_is_proof() -> None:
    lock, held, free = threading.Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            free.wait()

    owner = threading.Thread(target=hold)
    owner.start()
    held.wait()
    try:
        with child(lock.acquire) as pid:
            assert until(lambda: proof_of_no_return(pid) == "lock")
            assert (state(pid).syscall, state(pid).threads) == ("futex", ("S",))
    finally:
        free.set()
        owner.join()


def test_idle_threads_of_a_pool_do_not_hide_a_main_thread_that_is_stuck() -> None:
    program = (
        "import threading, torch\n"
        "torch.set_num_threads(3)\n"
        "torch.ones(300, 300) @ torch.ones(300, 300)\n"
        "torch.ones(1 << 20).exp().sum()\n"
        "lock = threading.Lock()\n"
        "lock.acquire()\n"
        "print('here', flush=True)\n"
        "lock.acquire()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            assert until(lambda: proof_of_no_return(process.pid) == "lock")
            assert len(state(process.pid).threads) > 1
        finally:
            process.kill()


@pytest.mark.usefixtures("_pipes_show")
def test_a_pipe_of_which_the_process_kept_both_ends_is_proof() -> None:
    reading, writing = os.pipe()
    with child(lambda: os.read(reading, 1)) as pid:
        assert waits_in(pid, "read")
        assert never_proved(pid), "this process has the writing end too"
        os.close(writing)
        assert until(lambda: proof_of_no_return(pid) == "pipe")
    os.close(reading)


@pytest.mark.usefixtures("_pipes_show")
def test_writing_into_a_full_pipe_that_nobody_else_reads_is_proof() -> None:
    reading, writing = os.pipe()
    with child(lambda: os.write(writing, bytes(1 << 20))) as pid:
        assert waits_in(pid, "write")
        assert never_proved(pid), "this process has the reading end too"
        os.close(reading)
        assert until(lambda: proof_of_no_return(pid) == "pipe")
    os.close(writing)


@pytest.mark.usefixtures("_pipes_show")
def test_a_pipe_to_oneself_is_proof_with_a_second_thread_in_a_lock() -> None:
    def body() -> None:
        lock = threading.Lock()
        lock.acquire()
        threading.Thread(target=lock.acquire, daemon=True).start()
        os.read(os.pipe()[0], 1)

    with child(body) as pid:
        assert until(lambda: proof_of_no_return(pid) == "pipe")
        assert state(pid).threads == ("S", "S")


# -------------------------------------------------------------------------------------------------------- real: no proof


def _own_lock_with_a_timeout() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=1000)


def _lock_and_a_thread_that(waits: Callable[[], object]) -> Callable[[], None]:
    """The main thread waits for a lock that a thread may yet release."""

    def body() -> None:
        lock = threading.Lock()
        lock.acquire()
        threading.Thread(target=waits, daemon=True).start()
        lock.acquire()

    return body


def _a_lock_with_a_handler_for(number: int) -> Callable[[], None]:
    def body() -> None:
        signal.signal(number, lambda *_: None)
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    return body


def _a_receiving_socket() -> None:
    mine, theirs = socket.socketpair()
    mine.recv(1)
    theirs.close()


def _polling() -> None:
    mine, theirs = socket.socketpair()
    while True:
        select.select([mine], [], [], 0.001)
        theirs.fileno()


def _busy() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        pytest.param(_own_lock_with_a_timeout, ("futex",), id="lock_with_a_timeout"),
        pytest.param(_a_receiving_socket, ("recvfrom",), id="socket"),
        pytest.param(lambda: time.sleep(1000), ("clock_nanosleep", "nanosleep", "select", "pselect6"), id="sleep"),
        pytest.param(_a_lock_with_a_handler_for(signal.SIGALRM), ("futex",), id="an_alarm_may_come"),
        pytest.param(_lock_and_a_thread_that(lambda: time.sleep(1000)), ("futex",), id="other_thread_sleeps"),
        pytest.param(_lock_and_a_thread_that(_a_receiving_socket), ("futex",), id="other_thread_receives"),
        pytest.param(_lock_and_a_thread_that(_own_lock_with_a_timeout), ("futex",), id="other_thread_has_a_timeout"),
        pytest.param(_lock_and_a_thread_that(_polling), ("futex",), id="other_thread_polls"),
    ],
)
def test_who_may_come_back_by_itself_is_not_proved_stuck(body: Callable[[], None], calls: tuple[str, ...]) -> None:
    with child(body) as pid:
        assert waits_in(pid, *calls)
        assert until(lambda: "R" not in state(pid).threads)
        assert never_proved(pid)


@pytest.mark.parametrize("body", [_busy, _polling])
def test_who_runs_is_not_proved_stuck_and_uses_processor_time(body: Callable[[], None]) -> None:
    with child(body) as pid:
        assert until(lambda: state(pid).cpu_s > 0)
        assert never_proved(pid)


def test_two_threads_that_wake_each_other_are_not_proved_stuck() -> None:
    """One of them always waits for a lock; read once, one after the other, both seem to in one reading of five."""

    def body() -> None:
        first, second = threading.Lock(), threading.Lock()
        second.acquire()

        def turn(mine: threading.Lock, theirs: threading.Lock) -> None:
            while True:
                mine.acquire()
                hashlib.sha1(bytes(200_000)).digest()  # long enough to be read, and without the interpreter's lock
                theirs.release()

        threading.Thread(target=turn, args=(first, second), daemon=True).start()
        turn(second, first)

    with child(body) as pid:
        assert until(lambda: len(state(pid).threads) == 2)
        assert {proof_of_no_return(pid) for _ in range(500)} == {""}


def test_the_end_of_a_child_may_wake_a_process_that_catches_it() -> None:
    def body() -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        lock = threading.Lock()
        lock.acquire()
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)  # until its parent is gone
            os._exit(0)
        lock.acquire()

    with child(body) as pid:
        assert waits_in(pid, "futex")
        assert never_proved(pid)


def test_a_semaphore_of_multiprocessing_may_be_released_by_another_process() -> None:
    program = "import multiprocessing\nlock = multiprocessing.Lock()\nlock.acquire()\nlock.acquire()\n"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            assert waits_in(process.pid, "futex")
            assert never_proved(process.pid)
        finally:
            process.kill()


def test_a_process_that_ended_is_a_zombie_and_then_nothing() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert until(lambda: state(pid).state == "Z")
    assert proof_of_no_return(pid) == ""
    os.waitpid(pid, 0)
    assert (read_state(pid), proof_of_no_return(pid)) == (None, "")


def test_a_process_may_vanish_at_any_point_of_a_look() -> None:
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        ending = threading.Thread(target=os.waitpid, args=(pid, 0))
        ending.start()
        os.kill(pid, signal.SIGKILL)
        while read_state(pid) is not None:
            assert proof_of_no_return(pid) == ""
        ending.join()
        assert proof_of_no_return(pid) == ""


def test_a_number_used_again_shows_by_its_start() -> None:
    with child(signal.pause) as first, child(signal.pause) as second:
        assert state(first).start_ticks == state(first).start_ticks
        assert state(second).start_ticks >= state(first).start_ticks > 0


def test_a_frozen_group_shows_and_is_no_proof() -> None:
    groups = [group for group in find_group(Tree(), "freezer") if group.version == 1]
    if not groups:
        pytest.skip("no cgroup v1 freezer here")
    folder = Path(groups[0].folders[0]) / f"keepfed-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"groups cannot be made here: {error}")
    lock = threading.Lock()
    lock.acquire()
    try:
        with child(lock.acquire) as pid:
            (folder / "cgroup.procs").write_text(str(pid))
            (folder / "freezer.state").write_text("FROZEN")
            assert until(lambda: state(pid).frozen)
            assert never_proved(pid)
            (folder / "freezer.state").write_text("THAWED")
            assert until(lambda: not state(pid).frozen)
            assert until(lambda: proof_of_no_return(pid) == "lock")
    finally:
        folder.rmdir()


# --------------------------------------------------------------------------------------------------------- recorded ones


FUTEX_WAIT_PRIVATE, FUTEX_WAIT_SHARED = 0x189, 0x109


def line(number: int, *arguments: int) -> str:
    """A line of /proc/PID/syscall."""
    padded = [*arguments, *([0] * (6 - len(arguments)))]
    return f"{number} {' '.join(hex(value) for value in padded)} 0x7ffc0000 0x7ff90000\n"


LOCKED = line(202, 0x55F0, FUTEX_WAIT_PRIVATE)


def a_thread(folder: Path, letter: str, syscall: str | None, tracer: int = 0, caught: int = 0) -> None:
    folder.mkdir(parents=True)
    numbers = " ".join(["1"] * 10 + ["150", "50"] + ["0"] * 6 + ["77", *["0"] * 30])
    (folder / "stat").write_text(f"{folder.name} (a ) R (b) {letter} {numbers}\n")
    (folder / "status").write_text(
        f"Name:\ta\nState:\t{letter} (x)\nTracerPid:\t{tracer}\nUid:\t1000\t1000\t1000\t1000\n"
        f"SigCgt:\t{caught:016x}\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n"
    )
    (folder / "wchan").write_text("futex_do_wait" if letter == "S" else "0")
    (folder / "children").write_text("")
    if syscall is not None:
        (folder / "syscall").write_text(syscall)


def a_process(
    root: Path, letter: str = "S", syscall: str | None = LOCKED, tracer: int = 0, caught: int = 0, others: int = 0
) -> Path:
    """A recorded process 50 with `others` more threads; gives the folder of the recorded /proc."""
    proc = root / "proc"
    a_thread(proc / "50", letter, syscall, tracer, caught)
    for number in range(50, 51 + others):
        a_thread(proc / "50" / "task" / str(number), letter, syscall, tracer, caught)
    return proc


def test_an_uninterruptible_wait_shows_and_is_no_proof(tmp_path: Path) -> None:
    proc = a_process(tmp_path, "D", line(0, 5))
    found = read_state(50, proc=proc)
    assert found is not None
    assert (found.state, found.threads, found.frozen, found.wchan) == ("D", ("D",), False, "")
    assert proof_of_no_return(50, proc=proc) == ""


def test_a_name_with_parentheses_does_not_shift_the_fields(tmp_path: Path) -> None:
    found = read_state(50, proc=a_process(tmp_path, others=2))
    assert found is not None
    assert (found.state, found.start_ticks, found.threads) == ("S", 77, ("S", "S", "S"))
    assert found.cpu_s == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))


@pytest.mark.parametrize(("letter", "tracer"), [("T", 7), ("t", 7), ("S", 7)])
def test_what_a_debugger_holds_is_no_proof(tmp_path: Path, letter: str, tracer: int) -> None:
    proc = a_process(tmp_path, letter, LOCKED if letter == "S" else "-1 0x7f 0x7f\n", tracer)
    assert proof_of_no_return(50, proc=proc) == ""
    found = read_state(50, proc=proc)
    assert found is not None
    assert found.tracer_pid == 7


@pytest.mark.parametrize(
    ("architecture", "syscall", "proof"),
    [
        ("x86_64", LOCKED, "lock"),
        ("x86_64", line(202, 0x55F0, 0x80), "lock"),
        ("aarch64", line(98, 0x55F0, FUTEX_WAIT_PRIVATE), "lock"),
        ("aarch64", line(202, 0x55F0, FUTEX_WAIT_PRIVATE), ""),  # accept
        ("x86_64", line(98, 0x55F0, FUTEX_WAIT_PRIVATE), ""),  # getrusage
        ("aarch64", line(455, 0x55F0, 2, 0xFFFFFFFF, 0x82), "lock"),
        ("x86_64", line(455, 0x55F0, 2, 0xFFFFFFFF, 0x82, 0x7FFC), ""),
        ("x86_64", line(455, 0x55F0, 2, 0xFFFFFFFF, 0x02), ""),
        ("x86_64", line(449, 0x55F0, 1), ""),
        ("x86_64", line(202, 0x55F0, FUTEX_WAIT_SHARED), ""),
        ("x86_64", line(202, 0x55F0, FUTEX_WAIT_PRIVATE, 0, 0x7FFC), ""),
        ("x86_64", line(202, 0x55F0, 0x86), ""),  # FUTEX_LOCK_PI
        ("s390x", LOCKED, ""),
        ("x86_64", "running\n", ""),
        ("x86_64", "-1 0x7ffc 0x7ff9\n", ""),
        ("x86_64", "nonsense in nine words that are no numbers at all\n", ""),
        ("x86_64", "", ""),
        ("x86_64", None, ""),  # refused
    ],
)
def test_only_a_private_futex_without_a_timeout_is_a_lock(
    tmp_path: Path, architecture: str, syscall: str | None, proof: str
) -> None:
    proc = a_process(tmp_path, syscall=syscall)
    assert proof_of_no_return(50, proc=proc, architecture=architecture) == proof


def test_one_thread_that_may_not_be_looked_at_is_enough_for_no_proof(tmp_path: Path) -> None:
    proc = a_process(tmp_path, others=2)
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == "lock"
    (proc / "50" / "task" / "52" / "syscall").unlink()
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == ""


def test_a_thread_that_has_ended_does_not_count(tmp_path: Path) -> None:
    proc = a_process(tmp_path)
    a_thread(proc / "50" / "task" / "51", "Z", None)
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == "lock"


@pytest.mark.parametrize(
    ("number", "proof"), [(signal.SIGTERM, "lock"), (signal.SIGINT, "lock"), (34, ""), (signal.SIGALRM, "")]
)
def test_a_signal_that_comes_unasked_may_wake_it(tmp_path: Path, number: int, proof: str) -> None:
    proc = a_process(tmp_path, caught=1 << (number - 1))
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == proof


def test_a_caught_end_of_a_child_counts_only_where_there_is_a_child(tmp_path: Path) -> None:
    proc = a_process(tmp_path, caught=1 << (signal.SIGCHLD - 1))
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == "lock"
    (proc / "50" / "task" / "50" / "children").write_text("51 ")
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == ""
    (proc / "50" / "task" / "50" / "children").unlink()
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == ""


@pytest.mark.parametrize("wchan", ["do_freezer_trap", "0"])
@pytest.mark.parametrize(
    ("files", "frozen"),
    [
        ({"job/worker/cgroup.freeze": "1"}, True),
        ({"job/cgroup.freeze": "1"}, True),
        ({"job/worker/cgroup.events": "populated 1\nfrozen 1\n"}, True),
        ({"job/worker/cgroup.freeze": "0", "job/cgroup.freeze": "0"}, False),
    ],
)
def test_a_group_frozen_itself_or_from_above_is_frozen(
    tmp_path: Path, files: dict[str, str], frozen: bool, wchan: str
) -> None:
    proc = a_process(tmp_path, "S")
    (proc / "50" / "cgroup").write_text("0::/job/worker\n")
    (proc / "self").mkdir()
    (proc / "self" / "mountinfo").write_text("30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n")
    (tmp_path / "sys/fs/cgroup/job/worker").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "sys/fs/cgroup" / name).write_text(text)
    (proc / "50" / "wchan").write_text(wchan)
    found = read_state(50, proc=proc)
    assert found is not None
    assert found.frozen is frozen
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == ("" if frozen else "lock")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, 200),
    junk=st.text(max_size=20),
    name=st.sampled_from(["stat", "status", "syscall", "wchan", "task/50/status", "task/50/stat", "task/50/syscall"]),
)
def test_no_content_of_a_file_raises(recorded: Path, cut: int, junk: str, name: str) -> None:
    file = recorded / "50" / name
    whole = file.read_text()
    file.write_text(whole[:cut] + junk)
    read_state(50, proc=recorded)
    proof_of_no_return(50, proc=recorded, architecture="x86_64")
    file.write_text(whole)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return a_process(tmp_path)


def test_nothing_is_known_where_there_is_no_proc(tmp_path: Path) -> None:
    assert read_state(50, proc=tmp_path / "proc") is None
    assert proof_of_no_return(50, proc=tmp_path / "proc") == ""


def a_pipe_end(proc: Path, pid: int, number: int, flags: str, session: int = 1) -> None:
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True, exist_ok=True)
    (folder / "fdinfo").mkdir(exist_ok=True)
    (folder / "fd" / str(number)).symlink_to("pipe:[4711]")
    (folder / "fdinfo" / str(number)).write_text(f"pos:\t0\nflags:\t{flags}\nmnt_id:\t14\n")


@pytest.mark.parametrize(
    ("other", "proof"),
    [("00", "pipe"), ("02000000", "pipe"), ("01", ""), ("02000001", ""), ("02", ""), ("unreadable", "")],
)
def test_only_a_writing_end_elsewhere_can_end_a_read(tmp_path: Path, other: str, proof: str) -> None:
    proc = a_process(tmp_path, syscall=line(0, 5, 0x7F00, 1))
    a_pipe_end(proc, 50, 5, "00")
    a_pipe_end(proc, 50, 6, "01")
    a_thread(proc / "60", "S", None)
    a_pipe_end(proc, 60, 9, other)
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == proof


def test_a_read_from_a_pipe_whose_writer_is_another_process_alone_is_no_proof(tmp_path: Path) -> None:
    proc = a_process(tmp_path, syscall=line(0, 5, 0x7F00, 1))
    a_pipe_end(proc, 50, 5, "00")
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == ""


@pytest.mark.parametrize("refused", ["listdir", "readlink"])
@pytest.mark.parametrize(
    ("user", "session", "pid", "proof"),
    [(1000, 9, 60, ""), (0, 1, 60, ""), (0, 9, 60, "pipe"), (1000, 1, 1, "pipe")],
    ids=["same_user", "same_session", "stranger", "ancestor"],
)
def test_who_may_not_be_looked_at_counts_where_it_may_have_inherited_the_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, user: int, session: int, pid: int, proof: str
) -> None:
    """Of the same user (it made itself unreadable), or of the same session (sudo)."""
    proc = a_process(tmp_path, syscall=line(0, 5, 0x7F00, 1))
    a_pipe_end(proc, 50, 5, "00")
    a_pipe_end(proc, 50, 6, "01")
    a_thread(proc / str(pid), "S", None)
    other = proc / str(pid)
    a_pipe_end(proc, pid, 9, "00")
    (other / "status").write_text(f"Uid:\t{user}\t0\t0\t0\n")
    (other / "stat").write_text(f"{pid} (sudo) S 0 {pid} {session} 0\n")
    real = getattr(os, refused)

    def refuse(path: str) -> object:
        if path.startswith(os.fspath(other / "fd")):
            raise PermissionError
        return real(path)

    monkeypatch.setattr(os, refused, refuse)  # root reads every folder, so its mode would claim nothing
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == proof


def test_a_process_forked_while_we_looked_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder forks, and is gone when its turn comes: its child has the end now."""
    proc = a_process(tmp_path, syscall=line(0, 5, 0x7F00, 1))
    a_pipe_end(proc, 50, 5, "00")
    a_pipe_end(proc, 50, 6, "01")
    (proc / "60").mkdir()
    real = os.listdir

    def listdir(path: str) -> list[str]:
        if path == os.fspath(proc / "60" / "fd") and not (proc / "61").exists():
            a_pipe_end(proc, 61, 6, "01")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert proof_of_no_return(50, proc=proc, architecture="x86_64") == ""
