"""What a blocked call is about, seen at real files, locks and sockets."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepfed.host.stacks import stack_of
from keepfed.host.syscalls import Call
from keepfed.host.tree import Tree
from keepfed.host.waits import leave_memory_alone, target_of
from keepfed.text import say
from tests.host.live import child, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")


def first_call(pid: int) -> str:
    """The call of its main thread."""
    found = stack_of(pid, find_spy=lambda: None)
    return found.threads[0].call if found else ""


def comes_to(pid: int, *wanted: str) -> bool:
    """Whether its main thread is seen in that call; skips where calls are not to be seen."""
    if until(lambda: first_call(pid) in wanted):
        return True
    if not first_call(pid):
        pytest.skip("the system calls of other processes may not be read here")
    return False


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def connection(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, str]]:
    """A connection to this machine, and its peer as it is to be shown."""
    host = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    try:
        server = socket.create_server((host, 0), family=request.param)
    except OSError:
        pytest.skip(f"no {host} here")
    with server, socket.create_connection(server.getsockname()[:2]) as connected:
        port = server.getsockname()[1]
        yield connected, f"tcp 127.0.0.1:{port}" if host == "127.0.0.1" else f"tcp [::1]:{port}"


def test_who_receives_names_its_peer(connection: tuple[socket.socket, str]) -> None:
    connected, peer = connection
    with child(lambda: connected.recv(1)) as pid:
        assert comes_to(pid, f"recvfrom {peer}")


def test_who_receives_with_a_timeout_polls_and_names_its_peer_all_the_same(
    connection: tuple[socket.socket, str],
) -> None:
    connected, peer = connection
    connected.settimeout(1000)
    with child(lambda: connected.recv(1)) as pid:
        assert comes_to(pid, f"poll {peer}")


def test_who_waits_for_a_file_lock_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "vocab.lock"
    with path.open("w") as held, path.open() as wanted:
        fcntl.flock(held, fcntl.LOCK_EX)
        with child(lambda: fcntl.flock(wanted, fcntl.LOCK_EX)) as pid:
            assert comes_to(pid, f"flock {path}")


def test_a_unix_socket_and_a_pipe_are_told_apart() -> None:
    mine, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with mine, theirs, child(lambda: mine.recv(1)) as pid:
        assert comes_to(pid, "recvfrom unix")
    with child(lambda: os.read(reading, 1)) as pid:
        assert comes_to(pid, f"read {os.readlink(f'/proc/self/fd/{reading}')}")
    os.close(reading)
    os.close(writing)


def test_an_event_loop_names_the_connections_that_it_waits_for(connection: tuple[socket.socket, str]) -> None:
    connected, peer = connection
    waking, waker = os.pipe()

    def body() -> None:
        with select.epoll() as loop:
            loop.register(waking, select.EPOLLIN)
            loop.register(connected, select.EPOLLIN)
            loop.poll()

    with child(body) as pid:
        assert comes_to(pid, f"epoll_wait {peer}", f"epoll_pwait {peer}")
    os.close(waking)
    os.close(waker)


def test_a_lock_that_is_shared_with_other_processes_is_explained() -> None:
    """Somebody may have died with it, but the kernel does not know who has it."""
    lock = multiprocessing.get_context("fork").Lock()
    with lock, child(lock.acquire) as pid:
        assert comes_to(pid, "futex shared")
        found = stack_of(pid, find_spy=lambda: None)
        assert found is not None
        assert found.in_words().splitlines()[1] == "  " + say("host.stack.shared_lock")


def call(name: str, *arguments: int) -> Call:
    return Call(name, (*arguments, *([0] * (6 - len(arguments)))))


def test_memory_is_left_alone_while_a_thread_may_hold_the_lock_of_its_map() -> None:
    assert leave_memory_alone([call("poll"), call("futex"), call("recvfrom")])
    assert not leave_memory_alone([call("poll"), call("munmap")])
    assert not leave_memory_alone([call("poll"), None]), "a page fault, or not to be seen"


def test_without_memory_a_poll_says_nothing_of_its_descriptor() -> None:
    assert target_of(Tree("/proc"), os.getpid(), call("poll", 0x1000, 1), memory=False) == ""


@pytest.mark.parametrize("asked", [call("poll", 0x10, 1), call("poll", 1 << 63, 1), call("poll", 0x10, 2)])
def test_a_poll_of_several_or_of_nothing_readable_says_nothing(asked: Call) -> None:
    assert target_of(Tree("/proc"), os.getpid(), asked, memory=True) == ""


@pytest.mark.parametrize(
    ("table", "row", "shown"),
    [
        ("tcp", "0: 0100007F:1F90 0700020A:01BB 01 0:0 0:0 0 1000 0 77 1", "tcp 10.2.0.7:443"),
        ("udp", "0: 0100007F:1F90 0700020A:0035 01 0:0 0:0 0 1000 0 77 1", "udp 10.2.0.7:53"),
        ("tcp6", f"0: {'0' * 32}:1 0000000000000000FFFF00000700020A:01BB 01 0:0 0:0 0 0 0 77 1", "tcp 10.2.0.7:443"),
        ("tcp", "0: 0100007F:1F90 nonsense 01 0:0 0:0 0 1000 0 77 1", "tcp nonsense"),
        ("unix", "0000: 00000003 0 0 0001 03 77 /run/store.sock", "unix /run/store.sock"),
        ("tcp", "0: 0100007F:1F90 0700020A:01BB 01 0:0 0:0 0 1000 0 78 1", "socket:[77]"),
        ("tcp", "short", "socket:[77]"),
    ],
)
@pytest.mark.skipif(sys.byteorder != "little", reason="recorded on a little-endian machine")
def test_the_peer_is_found_by_the_number_of_the_socket(tmp_path: Path, table: str, row: str, shown: str) -> None:
    (tmp_path / "50/fd").mkdir(parents=True)
    (tmp_path / "50/net").mkdir()
    (tmp_path / "50/fd/5").symlink_to("socket:[77]")
    (tmp_path / "50/net" / table).write_text(f"  sl  local_address rem_address ...\n   {row}\n")
    assert target_of(Tree(os.fspath(tmp_path)), 50, call("recvfrom", 5), memory=False) == shown
