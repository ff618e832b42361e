"""Who holds what in /dev/shm: real processes and real segments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from keepfed.host.shm import ShmUse, read_shm_use
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="there is no /dev/shm here")

SIZE = 1 << 20

# Makes a segment as torch does, under a name of torch's, unlinks it where asked, and holds it in one way.
HOLDER = """
import mmap, os, sys
name, how = sys.argv[1:]
path = f"/dev/shm/{name}"
number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.posix_fallocate(number, 0, 1 << 20)
if "mapped" in how:
    mapping = mmap.mmap(number, 1 << 20)
    os.close(number)
if "unlinked" in how:
    os.unlink(path)
print("ready", flush=True)
sys.stdin.read()
if "unlinked" not in how:
    os.unlink(path)
"""


@contextmanager
def holder(name: str, how: str) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, name, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate()


@pytest.fixture
def name() -> str:
    return f"torch_{os.getpid()}_{os.urandom(4).hex()}_0"


def gone() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def of(use: ShmUse, pid: int) -> tuple[int, int, int]:
    """Segments, unlinked ones, bytes of one process."""
    held = next(one for one in use.holders if one.pid == pid)
    return held.segments, held.unlinked, held.torch_bytes


@pytest.mark.parametrize("how", ["open", "mapped"])
def test_a_segment_without_a_name_is_told_with_its_holder(name: str, how: str) -> None:
    with holder(name, f"{how}, unlinked") as pid:
        use = read_shm_use()
        assert of(use, pid) == (1, 1, SIZE)
        segment = next(one for one in use.segments if one.name == name)
        assert (segment.bytes, segment.linked, segment.holders) == (SIZE, False, (pid,))
        assert not os.path.exists(f"/dev/shm/{name}")
        assert use.unlinked_bytes >= SIZE
    assert not any(one.name == name for one in read_shm_use().segments)


def test_a_file_with_a_name_that_is_held_is_not_left_over(name: str) -> None:
    with holder(name, "open") as pid:
        use = read_shm_use()
        assert of(use, pid) == (1, 0, SIZE)
        assert not any(one.name == name for one in use.left_over)


@pytest.mark.parametrize("maker", ["gone", "alive"])
def test_a_file_of_torch_is_left_over_when_nobody_holds_it_and_its_maker_is_gone(maker: str) -> None:
    """With the file_system strategy a batch that waits to be fetched is held by nobody, while the worker that made it lives."""
    name = f"torch_{gone() if maker == 'gone' else os.getpid()}_{os.urandom(4).hex()}_0"
    path = f"/dev/shm/{name}"
    with open(path, "wb") as file:
        file.write(b"x" * SIZE)
    try:
        use = read_shm_use()
        assert any(one.name == name and one.bytes == SIZE for one in use.segments)
        left = {one.name for one in use.left_over}
        assert name not in left if maker == "alive" else use.unseen_processes or name in left
    finally:
        os.unlink(path)


def test_memory_files_are_no_part_of_it() -> None:
    number = os.memfd_create("keepfed")
    try:
        os.ftruncate(number, SIZE)
        use = read_shm_use()
        assert os.getpid() in use.keepfed_processes
        assert not any(segment.name.startswith("memfd") for segment in use.segments)
    finally:
        os.close(number)


def test_another_process_is_looked_at_with_its_own_dev_shm(name: str) -> None:
    with holder(name, "mapped, unlinked") as pid:
        theirs = read_shm_use(pid)
        assert of(theirs, pid) == (1, 1, SIZE)
        assert theirs.filesystem == "tmpfs"


SMALL = 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$0" "$@"'

PROBE = """
import json, os
from keepfed.host.shm import read_shm_use
number = os.open("/dev/shm/torch_1_2_3", os.O_RDWR | os.O_CREAT)
os.posix_fallocate(number, 0, 1 << 20)
os.unlink("/dev/shm/torch_1_2_3")
use = read_shm_use()
print(json.dumps([use.use.size_bytes, use.use.used_bytes, use.unlinked_bytes, use.dark_bytes, len(use.holders)]))
"""


def test_a_mount_of_its_own_is_not_mixed_with_the_hosts() -> None:
    """A small /dev/shm in a mount namespace, as a container has one, while the host's is in use as well."""
    with holder(f"torch_{os.getpid()}_{os.urandom(4).hex()}_1", "open, unlinked"):
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", SMALL, sys.executable, "-c", PROBE],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespace of one's own here: {done.stderr.strip()}")
    assert json.loads(done.stdout) == [4 << 20, SIZE, SIZE, 0, 1]
