"""A dead worker's message says how it died in torch's words, why, and at which sample."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from torch.utils.data import Dataset

from keepfed.errors import WorkerDied
from keepfed.host.tree import Tree
from keepfed.loader import obituary
from keepfed.loader.api import DataLoader
from keepfed.loader.obituary import Coroner
from tests.loader.processes import program

GROUP = "/sys/fs/cgroup/job"


class Dying(Dataset[int]):
    """Numbers; whoever makes the fifth dies in this way, the first time or always."""

    def __init__(self, how: Callable[[], object], mark: Path | None) -> None:
        self.how, self.mark = how, mark

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        if index == 5 and (self.mark is None or not self.mark.exists()):
            if self.mark is not None:
                self.mark.touch()
            faulthandler.disable()  # pytest's: the crash is meant
            self.how()
        return index


def loader_of(dataset: Dataset[int]) -> DataLoader:
    return DataLoader(dataset, batch_size=2, num_workers=2)


def said(how: Callable[[], object], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What is logged when a worker dies in this way."""
    with caplog.at_level(logging.WARNING, "keepfed"):
        batches = [batch.tolist() for batch in loader_of(Dying(how, tmp_path / "died"))]
    assert batches == [[number, number + 1] for number in range(0, 12, 2)]
    (line,) = [record.message for record in caplog.records]
    assert "DataLoader worker (pid(s) " in line
    assert "exited unexpectedly" in line
    assert "dataset Dying, batch 2, indices [4, 5]: in the dataset's code, sample 5." in line
    return line


def kill_self(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda: ctypes.string_at(0), "is killed by signal: Segmentation fault.*a crash in native code \\(SIGSEGV\\)"),
        (os.abort, "is killed by signal: Aborted.*a crash in native code \\(SIGABRT\\)"),
        (kill_self(signal.SIGILL), "is killed by signal: Illegal instruction.*built for another CPU"),
        (kill_self(signal.SIGXCPU), "the limit of CPU time"),
        (lambda: os._exit(3), r"exited unexpectedly with exit code 3.*called os\._exit\(3\)"),
        (kill_self(signal.SIGTERM), r"is killed by signal: Terminated.*asked it to end \(SIGTERM\)"),
    ],
    ids=["segfault", "abort", "illegal", "cpu time", "exit", "terminated"],
)
def test_a_death_is_explained(
    how: Callable[[], object], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = said(how, tmp_path, caplog)
    assert re.search(words, line), line


# ---- the OOM killer, on a recorded machine ---------------------------------------------------------------------------


def a_machine(folder: Path, kills: int, *, whole: bool = False) -> Tree:
    files = {
        "/proc/self/cgroup": "0::/job\n",
        "/proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "/proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 60000000 kB\n",
        "/proc/vmstat": f"oom_kill {kills}\n",
        f"{GROUP}/memory.events": f"oom 1\noom_kill {kills}\n",
        f"{GROUP}/memory.max": f"{1 << 30}\n",
        f"{GROUP}/memory.current": f"{900 << 20}\n",
        f"{GROUP}/memory.oom.group": f"{int(whole)}\n",
    }
    for path, text in files.items():
        at = folder / path.lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
    return Tree(os.fspath(folder))


def test_the_oom_killer_is_named_with_the_memory_at_that_time(tmp_path: Path) -> None:
    coroner = Coroner(a_machine(tmp_path, 4))
    a_machine(tmp_path, 5)
    words = coroner.of_exit(-signal.SIGKILL)
    assert words.startswith("Cause: out of memory.")
    assert "900 MiB of 1 GiB" in words
    assert f"{GROUP}/memory.events" in words
    assert "memory.oom.group" not in words
    assert "not the kernel's OOM killer" in coroner.of_exit(-signal.SIGKILL), "that one is explained"


def test_what_the_kernel_will_do_the_next_time_is_said(tmp_path: Path) -> None:
    coroner = Coroner(a_machine(tmp_path, 0, whole=True))
    a_machine(tmp_path, 1, whole=True)
    assert "memory.oom.group=1" in coroner.of_exit(-signal.SIGKILL)


def test_a_cause_is_found_out_once(tmp_path: Path) -> None:
    """Ctrl-C while it is told: the second time the counter has not moved any more."""

    class Dead:
        why = last_words = ""
        exitcode = -signal.SIGKILL
        cause: str | None = None

    coroner, dead = Coroner(a_machine(tmp_path, 4)), Dead()
    a_machine(tmp_path, 5)
    first = coroner.of_worker(dead)  # type: ignore[arg-type]  # all that is looked at
    assert "out of memory" in first
    assert coroner.of_worker(dead) == first  # type: ignore[arg-type]  # the same


def test_the_error_names_cause_samples_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = a_machine(tmp_path, 0)
    monkeypatch.setattr(obituary, "Tree", lambda: tree)

    def killed() -> None:
        a_machine(tmp_path, os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDied) as caught:
        list(loader_of(Dying(killed, None)))
    text = str(caught.value)
    assert "is killed by signal: Killed" in text
    assert "indices [4, 5]" in text
    assert "sample 5" in text
    assert "Cause: out of memory." in text
    assert "num_workers=0" in text


# ---- the real one ----------------------------------------------------------------------------------------------------


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path]:
    """A control group of version 1 below our own, if we may make one."""
    lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    own = next((line.split(":", 2)[2] for line in lines if ":memory:" in line), None)
    if own is None:
        pytest.skip("no memory controller of version 1")
    folder = Path(f"/sys/fs/cgroup/memory{own.rstrip('/')}/keepfed-test-{os.getpid()}")
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield folder
    finally:
        folder.rmdir()


def test_a_worker_that_the_oom_killer_took_is_replaced_and_the_message_says_so(tmp_path: Path) -> None:
    def gorge() -> None:
        bytearray(b"x") * (400 << 20)

    def train(pipe: Connection) -> None:
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        obituary._counter.cache_clear()
        lines: list[str] = []
        logging.getLogger("keepfed").addHandler(Telling(lines))
        batches = [batch.tolist() for batch in loader_of(Dying(gorge, tmp_path / "died"))]
        pipe.send((batches, lines))

    class Telling(logging.Handler):
        def __init__(self, lines: list[str]) -> None:
            super().__init__()
            self.lines = lines

        def emit(self, record: logging.LogRecord) -> None:
            self.lines.append(record.getMessage())

    with memory_group(128 << 20) as folder, program(train) as running:
        batches, lines = running.hear(60)
        assert running.wait() == 0
    assert batches == [[number, number + 1] for number in range(0, 12, 2)]
    assert len(lines) == 1
    assert "is killed by signal: Killed" in lines[0]
    assert "Cause: out of memory." in lines[0]
    assert "of 128 MiB are in use" in lines[0]
