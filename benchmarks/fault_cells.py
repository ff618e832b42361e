"""One cell of `faults.py`: a program in a process and session of its own, watched from outside until it ends or hangs.

    process ──lines of JSON──▶ watch: no batch for HANGS_S? ──▶ judge: lost, repeated, out of order, altered? how long?
       └─ its session: whatever is left in it a second after its end was left behind

A session (setsid(2)) is what children cannot leave by being orphaned. A process of a cell that is to be killed is killed
alone, as an impatient user would: what becomes of its children is part of the answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fault_cases import BATCH, BATCHES, FAULTS, STRUCK_BATCH, Fault, stricken_s
from fault_program import Cell

HANGS_S = 30.0
"""No batch for so long, and the program counts as hanging."""
STARTS_S = 60.0
"""The same for the first batch: spawned workers import torch first, all at once on few cores."""
GONE_S = 1.0
"""Whatever runs so long after the end of its program was left behind."""
LEAVES_S = 15.0
"""How long the children of a killed program are watched."""
PROGRAM = Path(__file__).with_name("fault_program.py")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one cell."""

    cell: Cell
    end: str
    """"survived", "error", "hangs", "wrong" (batches), or "skipped"."""
    words: str = ""
    """The error, what was wrong, or why it was left out."""
    detected_s: float | None = None
    """From the first strike until the loader said so: in the log, or as an exception."""
    recovered_s: float | None = None
    """From a strike until the first batch of a worker that did not live then; of several strikes, the longest."""
    left: tuple[str, ...] = ()
    """Processes and files of /dev/shm that were there a second after the end."""
    gone_s: float | None = None
    """From the trainer's death until no child of it was left."""
    log: tuple[str, ...] = ()
    """What keepfed logged."""
    digest: str = ""
    """Of all draws, in order."""
    seconds: float = 0.0


@dataclass(slots=True)
class Watched:
    """What a running cell said."""

    fd: int
    pid: int
    events: list[dict[str, Any]] = field(default_factory=list)
    hangs: bool = False
    _text: bytes = b""

    def until_its_end(self, *, kill_after: int | None) -> None:
        """Read until the program ends or hangs; kill it after so many batches, if asked to."""
        while not self.hangs and self._read(HANGS_S if self.of("batch") else STARTS_S):
            if kill_after is not None and len(self.of("batch")) >= kill_after:
                os.kill(self.pid, signal.SIGKILL)
                return
        if self.hangs:
            os.kill(self.pid, signal.SIGKILL)

    def of(self, event: str) -> list[dict[str, Any]]:
        """The events of this name."""
        return [said for said in self.events if said["event"] == event]

    def _read(self, seconds: float) -> bool:
        """Take in what it says; False at the end of the file. What it logs while it hangs is no progress."""
        end_s, batches = time.monotonic() + seconds, len(self.of("batch"))
        while len(self.of("batch")) == batches:
            if not select.select([self.fd], [], [], max(0.0, end_s - time.monotonic()))[0]:
                self.hangs = True
                return False
            data = os.read(self.fd, 1 << 16)
            if not data:
                return False
            *lines, self._text = (self._text + data).split(b"\n")
            self.events += map(json.loads, lines)
        return True


def in_a_fresh_process(cell: Cell) -> Outcome:
    """Run a cell in a Python process of its own."""
    fault = FAULTS[cell.fault]
    before = small_shm(fault.shm_mb) if fault.shm_mb else ()
    if isinstance(before, str):
        return Outcome(cell, "skipped", before)
    arguments = (cell.loader, cell.fault, cell.method, cell.kind)
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1] / "src"), "KEEPFED_LANG": "en"}
    with tempfile.TemporaryDirectory() as folder:
        program = subprocess.Popen(
            [*before, sys.executable, str(PROGRAM), folder, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert program.stdout is not None
        with program, program.stdout:
            return outcome_of(cell, Path(folder), program.pid, program.stdout.fileno())


def outcome_of(cell: Cell, folder: Path, pid: int, fd: int) -> Outcome:
    """Watch the program `pid`, the leader of its session, which tells its events on `fd`."""
    started_s, files = time.monotonic(), shm_files()
    watched = Watched(fd, pid)
    watched.until_its_end(kill_after=STRUCK_BATCH if FAULTS[cell.fault].trainer_dies else None)
    ended_s = time.monotonic()
    processes = left_in_session(pid, GONE_S)
    gone_s = None
    if FAULTS[cell.fault].trainer_dies:
        left_in_session(pid, LEAVES_S - GONE_S)
        gone_s = time.monotonic() - ended_s
    end_session(pid)
    left = (*processes, *sorted(shm_files() - files))
    return judged(cell, watched, stricken_s(folder), left, gone_s, time.monotonic() - started_s)


# ----------------------------------------------------------------------------------------------------------------- judging


def judged(
    cell: Cell, watched: Watched, struck_s: float | None, left: Sequence[str], gone_s: float | None, seconds: float
) -> Outcome:
    """What this cell's events add up to."""
    fault = FAULTS[cell.fault]
    end, words = how_it_ended(fault, cell, watched, gone_s)
    strikes = strikes_in(fault, watched, struck_s)
    first_s = strikes[0][0] if strikes else float("inf")
    detected = [said["at_s"] for said in watched.events if is_word_of_it(said) and said["at_s"] > first_s]
    checked = watched.of("checked")
    return Outcome(
        cell=cell,
        end=end,
        words=words,
        detected_s=detected[0] - first_s if detected else None,
        recovered_s=slowest_recovery(strikes, watched) if end == "survived" else None,
        left=tuple(left),
        gone_s=gone_s,
        log=tuple(said["words"] for said in watched.of("logged")),
        digest=checked[0]["digest"] if checked else "",
        seconds=seconds,
    )


def how_it_ended(fault: Fault, cell: Cell, watched: Watched, gone_s: float | None) -> tuple[str, str]:
    """The outcome in one word, and what there is to say about it."""
    wrong = what_is_wrong(fault, cell, watched)
    if wrong:
        return "wrong", wrong
    if watched.hangs:
        return "hangs", f"no batch for {HANGS_S if watched.of('batch') else STARTS_S:g} s"
    for raised in watched.of("raised"):
        return "error", re.sub(r"\d{2,}", "N", raised["words"])
    if fault.trainer_dies:
        return ("survived", "") if gone_s is not None and gone_s < LEAVES_S else ("error", "its children stay")
    if not watched.of("checked"):
        return "error", "the program died without a word"
    return "survived", ""


def what_is_wrong(fault: Fault, cell: Cell, watched: Watched) -> str:
    """What was lost, repeated, out of order or altered among the batches that came; empty if nothing was."""
    batches = watched.of("batch")
    numbers = [number for batch in batches for number in batch["numbers"]]
    if not all(batch["right"] for batch in batches):
        return "a batch has other bytes than were written"
    if not all(said["kept_right"] for said in watched.of("checked")):
        return "a batch changed while the program kept it"
    if len(set(numbers)) < len(numbers):
        return "samples came twice"
    if fault.corrupt >= 0 and cell.kind == "iterable":
        numbers.sort()  # the samples after the one that is missing move up in their worker's share
    wanted = [number for number in range(BATCHES * BATCH) if number != fault.corrupt]
    if watched.of("checked") and len(numbers) < len(wanted):
        return f"{len(wanted) - len(numbers)} samples are lost"
    return "" if numbers == wanted[: len(numbers)] else "samples are out of order"


def strikes_in(fault: Fault, watched: Watched, struck_s: float | None) -> list[tuple[float, set[int] | None]]:
    """When something struck, and the workers that there were then; None for those whose batches came before."""
    strikes: list[tuple[float, set[int] | None]] = [(said["at_s"], set(said["known"])) for said in watched.of("struck")]
    if fault.held_lock:
        strikes += [(said["at_s"], set()) for said in watched.of("began")]
    if struck_s is not None:
        strikes.append((struck_s, None))
    return strikes


def slowest_recovery(strikes: Sequence[tuple[float, set[int] | None]], watched: Watched) -> float | None:
    """The longest time from a strike to the first batch of a worker that was not there then; None without a strike."""
    batches, slowest = watched.of("batch"), []
    for at_s, known in strikes:
        old = {batch["pid"] for batch in batches if batch["at_s"] < at_s} if known is None else known
        after = (batch["at_s"] for batch in batches if batch["at_s"] > at_s and batch["pid"] not in old)
        slowest.append(next(after, None))
    times = [found - at_s for found, (at_s, _) in zip(slowest, strikes, strict=True) if found is not None]
    return max(times, default=None)


def is_word_of_it(said: dict[str, Any]) -> bool:
    """Whether the loader said that something is wrong."""
    return said["event"] == "raised" or (said["event"] == "logged" and said["level"] in {"WARNING", "ERROR"})


# --------------------------------------------------------------------------------------------------------------- leftovers


def left_in_session(session: int, seconds: float) -> list[str]:
    """Processes of this session that still run after this time; returns as soon as none does."""
    end_s = time.monotonic() + seconds
    while (left := members_of(session)) and time.monotonic() < end_s:
        time.sleep(0.01)  # a session has no handle to wait on
    return [f"process {name}" for name in left.values()]


def members_of(session: int) -> dict[int, str]:
    """Pids of the living processes of a session, with their states and names (proc(5), fields 2, 3 and 6 of stat)."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError):
            name, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            state, _, _, of = rest.split()[:4]
            if int(of) == session and state not in {"Z", "X"}:
                found[int(pid)] = f"{name.partition('(')[2]} ({state})"
    return found


def end_session(session: int) -> None:
    """Kill what is left of it, so that it disturbs no other cell."""
    for pid in members_of(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def shm_files() -> set[str]:
    """Files of torch's in /dev/shm whose maker is gone ("torch_PID_..."): those of other programs that run are theirs."""
    with contextlib.suppress(OSError):
        return {name for name in os.listdir("/dev/shm") if (by := re.match(r"torch_(\d+)_", name)) and not _runs(by[1])}
    return set()


def _runs(pid: str) -> bool:
    return Path("/proc", pid).exists()


@cache
def small_shm(megabytes: int) -> tuple[str, ...] | str:
    """How to run a command with a small /dev/shm (mount_namespaces(7)), or why it cannot be done here."""
    if shutil.which("unshare") is None:
        return "there is no unshare(1) here"
    why = ""
    for unshare in (("unshare", "-m"), ("unshare", "-rm")):
        script = f'mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm && exec "$@"'
        command = (*unshare, "sh", "-c", script, "sh")
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False, timeout=30)
        if tried.returncode == 0:
            return command
        why = tried.stderr.strip()
    return f"a mount namespace is not permitted here: {why}"
