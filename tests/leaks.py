"""Nothing is left behind after a test: processes, descriptors, memory files, threads. A pytest plugin, on for every test.

A loader that leaks one descriptor per epoch passes every test of its batches and dies after a night. So everything that
outlives its owner is counted before and after each test, and the test that leaves something fails and is shown what.

What is counted, and how a false alarm is avoided:

- *Processes*: new ones that descend from this one, and orphans, which have another parent by now. Orphans are recognised
  by a variable that every started program inherits, and forks of this process by the address of its own environment
  block, which address space randomisation makes its own (env_start, field 50 of /proc/pid/stat, proc_pid_stat(5)).
  Zombies of ours count, since somebody forgot to wait for them. Not seen: an orphan that was started under `env -i`.
- *Descriptors*: entries of /proc/self/fd that were not there, with what they point to.
- *Memory*: mappings and descriptors of memory files (memfd) and of /dev/shm. A tensor that is alive keeps its mapping.
- *Threads* of Python. Native pools (OpenMP) are torch's, and stay.

What looks different is looked at again, after a garbage collection, for up to `--leak-wait-s` seconds: processes need a
moment to end. What is made once per process and kept is allowed by exact identity, never by a pattern that could hide one
that nobody keeps: see `_kept` and `_KEPT_DEVICES`. A test that leaves something on purpose says so:
`@pytest.mark.leaves("memory", reason="...")`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
import uuid
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_SUITE = "KEEPFED_TEST_SUITE"
_KINDS = ("processes", "descriptors", "memory", "threads")

# Opened once per process and kept open: the kernel's random numbers by whoever draws first, the GPU by NVML and CUDA.
_KEPT_DEVICES = ("/dev/urandom", "/dev/nvidia")


@dataclass(frozen=True, slots=True)
class Holdings:
    """What this process holds at one moment, each thing by an identity that survives being looked at twice."""

    processes: dict[int, str]
    """Every process of the machine by pid; described only when it turns out to be new and ours."""
    descriptors: dict[str, str]
    """Our descriptors: "number target"."""
    memory: dict[str, str]
    """Our memory files: "device:inode"."""
    threads: dict[str, str]
    """Our Python threads: identity and name."""


def holdings() -> Holdings:
    """What this process holds now."""
    return Holdings(
        processes=dict.fromkeys(psutil.pids(), ""),
        descriptors=_descriptors(),
        memory=_memory(),
        threads={str(thread.ident): thread.name for thread in threading.enumerate()},
    )


def left_behind(before: Holdings) -> dict[str, list[str]]:
    """What is there now and was not before, by kind."""
    now = holdings()
    found: dict[str, list[str]] = {
        "processes": [text for pid in now.processes.keys() - before.processes.keys() if (text := _ours(pid))]
    }
    for field in fields(Holdings)[1:]:
        old, new = getattr(before, field.name), getattr(now, field.name)
        found[field.name] = [new[key] for key in sorted(new.keys() - old.keys())]
    return {kind: things for kind, things in found.items() if things}


# ----------------------------------------------------------------------------------------------------------------- processes


def _ours(pid: int) -> str:
    """A description of the process if it stems from this one and is not kept by a library, else ""."""
    if pid in _kept()[0]:
        return ""
    try:
        process = psutil.Process(pid)
        parents = [parent.pid for parent in process.parents()]
        zombie = process.status() == psutil.STATUS_ZOMBIE
        if os.getpid() not in parents and (zombie or not _orphan_of_ours(pid)):
            return ""
        words = " ".join(process.cmdline())[:160] if not zombie else "a zombie: nobody waited for it"
        return f"{pid} (parent {process.ppid()}): {words or process.name()}"
    except psutil.Error:
        return ""


def _orphan_of_ours(pid: int) -> bool:
    with contextlib.suppress(OSError):
        if f"{_SUITE}={os.environ[_SUITE]}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return True
        own = _environment_address("self")
        return own != 0 and own == _environment_address(pid)
    return False


def _environment_address(pid: int | str) -> int:
    """env_start of a process; 0 where the kernel does not tell."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(after_name[47]) if len(after_name) > 47 else 0


def _kept() -> tuple[set[int | None], set[int | None]]:
    """Processes and descriptors of multiprocessing's resource tracker and fork server, and of our nurseries, its like."""
    pids: set[int | None] = set()
    descriptors: set[int | None] = set()
    if tracker := sys.modules.get("multiprocessing.resource_tracker"):
        pids.add(tracker._resource_tracker._pid)
        descriptors.add(tracker._resource_tracker._fd)
    if server := sys.modules.get("multiprocessing.forkserver"):
        pids.add(server._forkserver._forkserver_pid)
        descriptors.add(server._forkserver._forkserver_alive_fd)
    if nursery := sys.modules.get("keepfed.loader.nursery"):
        for kept in nursery._nurseries.values():
            pids.add(kept.pid)
            descriptors |= kept.descriptors()
    return pids, descriptors


def _reap() -> None:
    """Let multiprocessing and subprocess collect the children that they would collect at their next use."""
    if multiprocessing := sys.modules.get("multiprocessing"):
        multiprocessing.active_children()
    if subprocess := sys.modules.get("subprocess"):
        subprocess._cleanup()


# -------------------------------------------------------------------------------------------------- descriptors and memory


def _descriptors() -> dict[str, str]:
    kept = _kept()[1]
    found = {}
    for number, target in _open_files():
        if number not in kept and not target.startswith(_KEPT_DEVICES):
            found[f"{number} {target}"] = f"{number} -> {target}"
    return found


def _open_files() -> Iterator[tuple[int, str]]:
    """Our descriptors and what they point to; none where there is no /proc."""
    try:
        folder = os.open("/proc/self/fd", os.O_RDONLY)
    except OSError:
        return
    try:
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if int(name) != folder:
                    yield int(name), os.readlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def _memory() -> dict[str, str]:
    found = {}
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        if "/memfd:" in line or "/dev/shm/" in line:
            addresses, _, _, device, inode, name = line.split(maxsplit=5)
            found[f"{device}:{inode}"] = f"{name} mapped at {addresses}"
    return found


# ------------------------------------------------------------------------------------------------------------------- pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--leak-wait-s", type=float, default=2.0, help="how long a test's processes may take to end")


def pytest_configure(config: pytest.Config) -> None:
    os.environ[_SUITE] = uuid.uuid4().hex
    config.addinivalue_line("markers", "leaves(kind, reason): this test leaves `kind` behind on purpose")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


_FAILED = pytest.StashKey[bool]()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Generator[None]:
    """Fail a test that leaves processes, descriptors, memory files or threads behind."""
    allowed = _allowed(request.node)
    cuda_before = _cuda_is_up()
    before = holdings()
    yield
    found = _wait_for_nothing(before, allowed, request.config.getoption("--leak-wait-s"))
    _kill(found.get("processes", []))
    if request.node.stash.get(_FAILED, False):
        return  # its traceback keeps everything alive, and it has something more important to say
    if cuda_before != _cuda_is_up():
        # The first use of CUDA opens event descriptors, sockets and threads that stay until the process ends.
        found = {kind: things for kind, things in found.items() if kind == "processes"}
    if found:
        lines = [f"  {kind}: {thing}" for kind, things in found.items() for thing in things]
        pytest.fail("\n".join(["left behind:", *lines]), pytrace=False)


def _allowed(node: pytest.Item) -> set[str]:
    """The kinds that this test says it leaves on purpose."""
    kinds = set()
    for mark in node.iter_markers("leaves"):
        if mark.args[0] not in _KINDS or not mark.kwargs.get("reason"):
            raise pytest.UsageError(f'{node.nodeid}: expected @pytest.mark.leaves(<one of {_KINDS}>, reason="...")')
        kinds.add(mark.args[0])
    return kinds


def _wait_for_nothing(before: Holdings, allowed: set[str], wait_s: float) -> dict[str, list[str]]:
    """What is still left after up to `wait_s`; returns at once when nothing is, without the cost of a collection."""
    deadline_s = time.monotonic() + wait_s
    while True:
        found = {kind: things for kind, things in left_behind(before).items() if kind not in allowed}
        if not found or time.monotonic() > deadline_s:
            return found
        gc.collect()
        _reap()
        time.sleep(0.02)


def _kill(processes: list[str]) -> None:
    """End what a test left running, so that it disturbs no other test."""
    for text in processes:
        with contextlib.suppress(psutil.Error):
            psutil.Process(int(text.split()[0])).kill()


def _cuda_is_up() -> bool:
    torch = sys.modules.get("torch")
    return bool(torch and torch.cuda.is_initialized())
