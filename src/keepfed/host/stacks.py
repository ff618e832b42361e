"""Where another process stands: its Python stack if py-spy is installed and may look, and always what the kernel tells.

"Worker 3 has given nothing for two minutes" sends its reader to gdb; "worker 3: recv_into (ssl.py:1166), get_object
(s3.py:42)" to the line to mend. The process itself cannot be asked: its interpreter is what does not go on, and the signals
that could make it talk (faulthandler.register) belong to the program.

py-spy reads the memory of the process, here without pausing it (`--nonblocking`), so that looking at a slow one changes
nothing. With `native` it also gives the frames of C and C++, and must stop the process with ptrace(2) for about half a
second: calls that a stop interrupts (signal(7), "Interruption of system calls by stop signals") may then fail with EINTR.
That is for a process which is about to be replaced anyway. One that is stopped already is not to be had that way.

To read memory takes the right to trace (PTRACE_MODE_ATTACH_REALCREDS of process_vm_readv(2)). Under Yama's `ptrace_scope` 1
py-spy is only a sibling of the worker and refused, unless the worker named an ancestor of both with PR_SET_PTRACER.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from keepfed.host.syscalls import machine, parse_call
from keepfed.host.tree import Tree
from keepfed.host.waits import SHARED, leave_memory_alone, target_of
from keepfed.text import say

Missing = Literal["", "not_installed", "refused", "too_slow", "failed"]
"""Why there are no Python frames; "" where there are."""

_KERNEL_FRAME = re.compile(r"^\[<\w+>\] (\w[\w.]*)", re.MULTILINE)
_REFUSALS = ("permission denied", "operation not permitted", "os error 1)", "os error 13)")
_TRIES = 3
"""Read without a pause, a stack may change under the reader, which then gives up."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One call on a stack."""

    function: str
    """Its name; qualified by its class where the interpreter knows it (3.11 and newer)."""
    file: str
    """Where it is written; the library for a native frame."""
    line: int
    """The line that it has come to; 0 for a native frame without debug information."""


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """One thread."""

    tid: int
    """Its number as the kernel counts; that of the main thread is the process's."""
    name: str
    """As Python named it, else as the kernel knows it."""
    state: str
    """"R", "S", "D", "T", ... as in proc_pid_stat(5); "" when unknown."""
    call: str
    """The system call in which it is blocked, and what it is about: "futex", "flock /cache/vocab.lock"; "" when unknown."""
    kernel: tuple[str, ...]
    """Functions of the kernel in which it waits, innermost first: all for root, else the first alone."""
    frames: tuple[Frame, ...] = ()
    """Its Python frames, and native ones if they were asked for, innermost first; none for a thread without Python."""
    holds_gil: bool = False
    """Whether it keeps all other Python threads of the process waiting."""


@dataclass(frozen=True, slots=True)
class Stack:
    """All threads of one process at about one moment."""

    pid: int
    """The process."""
    threads: tuple[ThreadStack, ...]
    """The main thread first, then those with frames."""
    missing: Missing
    """Why there are no Python frames."""

    def in_words(self, most_frames: int = 15, most_threads: int = 4) -> str:
        """A few lines for a log: the innermost frames of the first threads, or why there are none.

        Idle threads of native pools are only counted, unless nothing better is known than what the kernel tells of them.
        """
        best = [thread for thread in self.threads if thread.frames] or list(self.threads)
        lines = [line for thread in best[:most_threads] for line in _lines(thread, most_frames)]
        if more := len(self.threads) - len(best[:most_threads]):
            lines.append(say("host.stack.more_threads", count=more))
        if self.missing:
            lines.append(say(f"host.stack.{self.missing}"))
        return "\n".join(lines)


def installed_spy() -> str | None:
    """The py-spy that belongs to this interpreter, else the one on PATH; None when there is neither."""
    return shutil.which("py-spy", path=os.path.dirname(sys.executable)) or shutil.which("py-spy")


def stack_of(
    pid: int,
    seconds: float = 5.0,
    *,
    native: bool = False,
    proc: Path = Path("/proc"),
    find_spy: Callable[[], str | None] = installed_spy,
) -> Stack | None:
    """Where all threads of `pid` stand; None when there is no such process. Takes at most about `seconds`.

    `native` asks for frames of C and C++ too, and stops the process for a moment: see above. The last two stand in tests.
    """
    threads = _from_kernel(Tree(os.fspath(proc)), pid)
    if not threads and proc.is_dir():
        return None
    main = threads.get(pid)
    if main and main.state not in ("R", "S"):
        native = False
    found, missing = _from_spy(find_spy(), pid, seconds, native)
    for thread in found:
        threads[thread.tid] = _merged(threads.get(thread.tid), thread)
    if not threads:
        return None
    order = sorted(threads.values(), key=lambda thread: (thread.tid != pid, not thread.frames, thread.tid))
    return Stack(pid, tuple(order), missing)


def _merged(seen: ThreadStack | None, spied: ThreadStack) -> ThreadStack:
    if seen is None:  # started in between, or there is no /proc
        return spied
    return replace(seen, name=spied.name or seen.name, frames=spied.frames, holds_gil=spied.holds_gil)


# ------------------------------------------------------------------------------------------------------------------ kernel


def _from_kernel(processes: Tree, pid: int) -> dict[int, ThreadStack]:
    """All threads as /proc shows them."""
    folders = {int(number): f"/{pid}/task/{number}" for number in processes.folders(f"/{pid}/task") if number.isdigit()}
    calls = {
        number: parse_call(processes.read(f"{folder}/syscall") or "", machine()) for number, folder in folders.items()
    }
    memory = leave_memory_alone(calls.values())
    threads = {}
    for number, call in calls.items():
        about = target_of(processes, pid, call, memory=memory) if call else ""
        name = " ".join(filter(None, (call.name, about))) if call else ""
        threads[number] = _thread(processes, folders[number], number, name)
    return threads


def _thread(processes: Tree, folder: str, number: int, call: str) -> ThreadStack:
    wchan = (processes.read(f"{folder}/wchan") or "").strip()
    kernel = tuple(_KERNEL_FRAME.findall(processes.read(f"{folder}/stack") or ""))
    return ThreadStack(
        tid=number,
        name=(processes.read(f"{folder}/comm") or "").strip(),
        state=(processes.read(f"{folder}/stat") or "").rpartition(")")[2][1:2],
        call=call,
        kernel=kernel or ((wchan,) if wchan not in ("", "0") else ()),
    )


# ------------------------------------------------------------------------------------------------------------------ py-spy


def _from_spy(spy: str | None, pid: int, seconds: float, native: bool) -> tuple[list[ThreadStack], Missing]:
    if spy is None:
        return [], "not_installed"
    end = time.monotonic() + seconds
    if native:  # no more than half of the time: without native frames is better than without any
        threads, missing = _dump(spy, pid, "--native", seconds / 2)
        if not missing:
            return threads, missing
    for _ in range(_TRIES):
        threads, missing = _dump(spy, pid, "--nonblocking", end - time.monotonic())
        if missing != "failed":
            break
    return threads, missing


def _dump(spy: str, pid: int, mode: str, seconds: float) -> tuple[list[ThreadStack], Missing]:
    """Run py-spy once."""
    command = [spy, "dump", mode, "--json", "--full-filenames", "--pid", str(pid)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=max(0.0, seconds), check=False
        )
    except subprocess.TimeoutExpired:
        return [], "too_slow"
    except (OSError, ValueError):
        return [], "failed"
    if done.returncode:
        complaint = done.stderr.decode(errors="replace").lower()
        return [], "refused" if any(word in complaint for word in _REFUSALS) else "failed"
    try:
        return [_spied(thread) for thread in json.loads(done.stdout)], ""
    except (ValueError, TypeError, KeyError):
        return [], "failed"


def _spied(thread: dict[str, Any]) -> ThreadStack:
    frames = tuple(Frame(str(row["name"]), str(row["filename"]), int(row["line"])) for row in thread["frames"])
    name, gil = str(thread.get("thread_name") or ""), bool(thread.get("owns_gil"))
    return ThreadStack(int(thread["os_thread_id"]), name, "", "", (), frames, gil)


# ------------------------------------------------------------------------------------------------------------------- words


def _lines(thread: ThreadStack, most: int) -> list[str]:
    named = [frame for frame in thread.frames if not frame.function.startswith("0x")]  # a library without symbols
    shown = [f"  {frame.function} ({_place(frame)})" for frame in named[:most]]
    if len(named) > most:
        shown.append("  " + say("host.stack.more_frames", count=len(named) - most))
    hint = ["  " + say("host.stack.shared_lock")] if thread.call.endswith(f" {SHARED}") else []
    return [_headline(thread), *hint, *shown]


def _place(frame: Frame) -> str:
    return f"{frame.file}:{frame.line}" if frame.line else frame.file


def _headline(thread: ThreadStack) -> str:
    doing = {"R": "runs", "T": "stopped", "t": "traced", "D": "unkillable", "Z": "ended"}.get(thread.state, "waits")
    most = 3 if doing == "unkillable" else 1  # which file system or driver it is, is a few calls further out
    where = ", ".join(filter(None, (thread.call, *thread.kernel[:most])))
    if doing == "waits" and not where:
        doing = "unknown"
    line = say(f"host.stack.{doing}", thread=thread.name or thread.tid, where=where or "?")
    return line + (say("host.stack.holds_gil") if thread.holds_gil else "")
