from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keepfed.errors import UnreachableError
from keepfed.host.running import read_running
from keepfed.host.tree import Tree
from tests.host.live import child

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_FORKS = """
    import os, sys
    pids = [os.fork() or sys.stdin.read() or os._exit(0) for _ in range(3)]
    print("ready", flush=True)
    sys.stdin.read()
"""
_NAMED = """
    import ctypes, os, sys
    for worker in (True, True, False):
        ready, told = os.pipe()
        if os.fork() == 0:
            if worker:
                ctypes.CDLL(None).prctl(15, b"pt_data_worker")
            os.write(told, b".")
            sys.stdin.read()
            os._exit(0)
        os.read(ready, 1)
    print("ready", flush=True)
    sys.stdin.read()
"""
_ALONE = """
    import sys
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def program(text: str, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program that runs until its input ends, and has said that it is ready."""
    command = [sys.executable, "-c", textwrap.dedent(text), *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | environ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.communicate()


def test_a_process_shows_its_options_variables_folder_and_cores() -> None:
    with program(_ALONE, "--workers", "8", "", OMP_NUM_THREADS="3") as process:
        (seen,) = read_running(process.pid)
    assert seen.argv[-3:] == ("--workers", "8", "")
    assert seen.environ["OMP_NUM_THREADS"] == "3"
    assert seen.cwd == str(Path.cwd())
    assert seen.cores == len(os.sched_getaffinity(0))
    assert seen.workers == ()


def test_the_shared_memory_is_the_one_that_the_process_sees() -> None:
    with program(_ALONE) as process:
        (seen,) = read_running(process.pid)
    expected = os.statvfs("/dev/shm")
    assert seen.shm_bytes == expected.f_blocks * expected.f_frsize


def test_forks_of_a_python_program_count_as_its_workers() -> None:
    with program(_FORKS) as process:
        (seen,) = read_running(process.pid)
    assert len(seen.workers) == 3
    assert not seen.named


def test_workers_that_name_themselves_are_told_from_other_forks() -> None:
    with program(_NAMED) as process:
        seen, other = read_running(process.pid)
    assert len(seen.workers) == 2
    assert seen.named
    assert other.workers == ()


def test_a_trainer_below_a_shell_is_found_with_its_workers() -> None:
    command = ["/bin/sh", "-c", '"$0" -c "$1" --workers 3; true', sys.executable, textwrap.dedent(_FORKS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shell:
        try:
            assert shell.stdout is not None
            assert shell.stdout.readline() == "ready\n"
            first, trainer = read_running(shell.pid)
        finally:
            shell.communicate()
    assert first.pid == shell.pid
    assert first.workers == ()
    assert trainer.argv[-2:] == ("--workers", "3")
    assert len(trainer.workers) == 3


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 7])
def test_a_process_that_is_not_there_is_said_to_be_gone(pid: int) -> None:
    with pytest.raises(UnreachableError, match=str(pid)) as error:
        read_running(pid)
    assert error.value.next_step


def test_a_process_that_has_ended_but_was_not_waited_for_is_unreachable() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(UnreachableError, match="ended"):
            read_running(process.pid)
    finally:
        process.wait()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_unreachable_and_its_owner_is_named() -> None:
    with program(_ALONE) as process, child(lambda: _ask_as_nobody(process.pid)) as asking:
        assert _exit_of(asking) == 7


def _ask_as_nobody(pid: int) -> None:
    os.setgid(65534)
    os.setuid(65534)
    try:
        read_running(pid)
    except UnreachableError as error:
        os._exit(7 if "root" in error.message else 8)
    os._exit(9)


def _exit_of(pid: int) -> int:
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return found.si_status


def test_a_system_without_proc_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="/proc"):
        read_running(1, Tree(str(tmp_path)))


def _recorded(root: Path, pid: int, parent: int, name: str, command: str, **files: str) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    contents = {
        "stat": f"{pid} ({name}) S {parent} 0 0",
        "status": "State:\tS (sleeping)\nUid:\t0\t0\nCpus_allowed_list:\t0-3,8\n",
        "cmdline": "".join(f"{word}\0" for word in command.split()),
        "environ": "A=1\0",
        "mountinfo": "7 1 0:1 / /dev/shm rw - tmpfs shm rw,size=65536k\n",
    }
    for file, text in (contents | files).items():
        (folder / file).write_text(text)


def test_what_spawn_started_counts_but_not_its_tracker(tmp_path: Path) -> None:
    spawn = "python3 -c from=multiprocessing.spawn;spawn_main(tracker_fd=5) --multiprocessing-fork"
    _recorded(tmp_path, 10, 1, "python3", "python3 train.py")
    _recorded(tmp_path, 11, 10, "python3", "python3 -c from=multiprocessing.resource_tracker;main(4)")
    _recorded(tmp_path, 12, 10, "python3", spawn)
    _recorded(tmp_path, 13, 10, "python3", spawn)
    trainer, tracker = read_running(10, Tree(str(tmp_path)))
    assert trainer.workers == (12, 13)
    assert trainer.cores == 5
    assert tracker.workers == ()


def test_spawned_ranks_with_workers_of_their_own_are_trainers(tmp_path: Path) -> None:
    spawn = "python3 -c spawn_main(tracker_fd=5)"
    _recorded(tmp_path, 10, 1, "python3", "python3 train.py")
    for rank in (20, 30):
        _recorded(tmp_path, rank, 10, "python3", spawn)
        for worker in range(rank + 1, rank + 4):
            _recorded(tmp_path, worker, rank, "pt_data_worker", spawn)
    launcher, *ranks = read_running(10, Tree(str(tmp_path)))
    assert launcher.workers == ()
    assert [rank.workers for rank in ranks] == [(21, 22, 23), (31, 32, 33)]


def test_workers_that_a_forkserver_or_an_idle_fork_starts_belong_to_the_trainer(tmp_path: Path) -> None:
    _recorded(tmp_path, 10, 1, "python3", "python3 train.py")
    _recorded(tmp_path, 11, 10, "python3", "python3 -c from=multiprocessing.forkserver;main(5)")
    _recorded(tmp_path, 12, 11, "python3", "python3 -c from=multiprocessing.forkserver;main(5)")
    _recorded(tmp_path, 40, 1, "python3", "python3 train.py")
    _recorded(tmp_path, 41, 40, "python3", "python3 train.py")
    _recorded(tmp_path, 42, 41, "python3", "python3 train.py")
    assert [one.workers for one in read_running(10, Tree(str(tmp_path)))] == [(12,)]
    assert [one.workers for one in read_running(40, Tree(str(tmp_path)))] == [(42,)]


def test_a_shell_that_forks_itself_has_no_workers(tmp_path: Path) -> None:
    _recorded(tmp_path, 10, 1, "bash", "bash train.sh")
    _recorded(tmp_path, 11, 10, "bash", "bash train.sh")
    assert [one.workers for one in read_running(10, Tree(str(tmp_path)))] == [(), ()]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_the_shared_memory_of_another_mount_namespace_is_seen_from_outside() -> None:
    mount = "mount -t tmpfs -o size=4m tmpfs /dev/shm && echo ready && read -r line"
    command = ["unshare", "--mount", "/bin/sh", "-c", mount]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                pytest.skip("no mount namespace of its own may be made here")
            (seen,) = read_running(process.pid)
        finally:
            process.communicate()
    assert seen.shm_bytes == 4 << 20
