"""What a process adds to the memory in use, by real processes that share, copy and allocate."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keepfed.host.private import PrivateMemory, anonymous_bytes, read_private
from keepfed.host.tree import Tree

MIB = 1 << 20
NOTHING = "Rss: 1 kB\n"

# Pages that the parent has written to since the fork are the child's own from then on: a busy parent's would count.
pytestmark = pytest.mark.alone

if not Path("/proc/self/smaps_rollup").exists():
    pytest.skip("no /proc/PID/smaps_rollup here", allow_module_level=True)


@contextmanager
def child(does: Callable[[], object]) -> Iterator[int]:
    """A forked child that has done this and waits."""
    done, may_end = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        kept = does()
        os.write(done[1], b"x")
        os.close(may_end[1])
        os.read(may_end[0], 1)
        del kept
        os._exit(0)
    try:
        os.read(done[0], 1)
        yield pid
    finally:
        for fd in (*done, *may_end):
            os.close(fd)
        os.waitpid(pid, 0)


def memory_of(pid: int) -> PrivateMemory:
    found = read_private(Tree(), str(pid))
    assert found is not None
    return found


def test_a_child_that_only_reads_has_little_of_its_own_and_all_of_its_parents() -> None:
    shared = bytearray(b"x") * (64 * MIB)
    with child(lambda: shared.count(b"y")) as pid:
        found = memory_of(pid)
        assert found.private_bytes < 16 * MIB
        assert found.shared_bytes > 64 * MIB
        assert found.anonymous_bytes == pytest.approx(anonymous_bytes(pid), abs=MIB)


def test_what_it_writes_to_becomes_its_own_while_all_it_has_stays_the_same() -> None:
    shared = bytearray(b"x") * (64 * MIB)
    with child(lambda: None) as pid:
        before = memory_of(pid)

    def write() -> None:
        shared[: 48 * MIB] = b"y" * (48 * MIB)

    with child(write) as pid:
        after = memory_of(pid)
    assert after.private_bytes - before.private_bytes > 44 * MIB
    assert after.anonymous_bytes - before.anonymous_bytes < 8 * MIB


def test_what_it_allocates_is_its_own() -> None:
    with child(lambda: bytearray(b"x") * (32 * MIB)) as pid:
        found = memory_of(pid)
        assert found.private_bytes > 32 * MIB


def test_a_batch_in_shared_memory_is_not_its_own_before_anybody_has_read_it() -> None:
    region = mmap.mmap(-1, 64 * MIB)

    def write() -> None:
        region[: 48 * MIB] = b"y" * (48 * MIB)

    with child(write) as pid:
        assert memory_of(pid).private_bytes < 16 * MIB
        region[: 24 * MIB].count(b"y")
        assert memory_of(pid).private_bytes < 16 * MIB
    region.close()


def test_a_process_that_is_gone_has_nothing(tmp_path: Path) -> None:
    with child(lambda: None) as pid:
        pass
    assert anonymous_bytes(pid) == 0
    assert read_private(Tree(), str(pid)) is None


def test_a_kernel_that_does_not_tell_is_believed(tmp_path: Path) -> None:
    folder = tmp_path / "proc" / "self"
    folder.mkdir(parents=True)
    (folder / "smaps_rollup").write_text(NOTHING)
    (folder / "status").write_text("RssShmem: 4 kB\n")
    assert read_private(Tree(os.fspath(tmp_path))) is None
