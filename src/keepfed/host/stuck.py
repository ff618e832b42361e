"""What the kernel says about a process that does not move, and whether it is certain that it never will by itself.

A worker that gives no answer is slow far more often than stuck: a cold object store, a file lock that another rank holds for
minutes, a download. From outside both look the same: waiting for a socket moves neither the CPU time nor the counters of
/proc/PID/io. Replacing the slow one costs its work and may tear the file that it writes. So a worker is given up early only
on proof, and everything that is merely likely is no proof. Three things are certain:

- "stopped": SIGSTOP or another stop signal stopped it, and it is not traced. Only a signal from outside continues it.
- "lock": every thread of the process waits, without a timeout, for a futex that no other process can wake, so that nobody
  is left to wake any of them. The classic is a lock that another thread held at fork(2): the child has the lock, but not
  the thread (pthread_atfork(3), python/cpython#50970).
- "pipe": the same, where at least one thread waits at a pipe of which its own process alone holds the other end.

                 thread 1           thread 2         thread 3
                 futex, private     futex, private   read of a socket, timed wait, running, ...
    "lock"       waits              waits            (none)
    no proof     waits              waits            may come back and wake the others

What could still move such a process is a signal, so one that catches a signal which the kernel sends unasked (an alarm, the
end of a child) is never proved stuck. The threads are read one after another while the process lives on; it counts only when
two readings in a row agree, down to how often each thread was switched off: then none ran in between, and all of them waited
at the moment between the two readings.

Everything is read from /proc: proc_pid_stat(5), proc_pid_status(5), proc_pid_syscall(5), futex(2). The system call of a
thread may be read by who may trace it: the same user, and under Yama's `ptrace_scope` 1 an ancestor. Who is refused, and
every system without /proc, gets no proof. Nothing here raises for a process that has vanished.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from keepfed.host.cgroups import find_group
from keepfed.host.pipes import waits_for_itself
from keepfed.host.syscalls import Call, machine, parse_call, waits_for_own_threads
from keepfed.host.tree import Tree

Proof = Literal["", "stopped", "lock", "pipe"]
"""Why a process can never go on by itself; "" is no proof."""

_PROC = Path("/proc")
_GONE = ("Z", "X", "x")
_SIGCHLD = 17
# Signals that come without anybody's doing, numbered alike on every architecture of syscalls.py (signal(7)): alarms, urgent
# data, input and output, the real-time signals of timers and queues. 32 and 33 are the C library's own. SIGVTALRM and
# SIGPROF are not among them: their clocks stand still while a process waits.
_UNASKED = (14, 23, 29, *range(34, 65))


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process at one moment."""

    pid: int
    """Its number."""
    start_ticks: int
    """When it started, in clock ticks since boot: a number used again belongs to a process with another start."""
    state: str
    """Of its main thread: "R", "S", "D", "T" (stopped), "t" (traced), "Z" (ended, not waited for); "" when unknown."""
    tracer_pid: int
    """Who traces it, a debugger or strace; 0 is nobody."""
    cpu_s: float
    """CPU time of all its threads, user and system, in steps of the clock tick (10 ms)."""
    wchan: str
    """The function of the kernel in which its main thread waits; "" when it runs or may not be looked at."""
    syscall: str
    """The call in which its main thread is blocked: "futex", "read", "poll"; "" when it is in none or may not be seen."""
    threads: tuple[str, ...]
    """States of all threads, the main one first."""
    frozen: bool
    """Whether the freezer of its control group holds it (cgroup.freeze, freezer.state): a suspended job."""


def read_state(pid: int, *, proc: Path = _PROC) -> ProcessState | None:
    """The state of process `pid`; None when there is none. `proc` is the mounted /proc; /sys lies beside it."""
    processes = Tree(os.fspath(proc))
    fields = _stat(processes, f"/{pid}")
    if fields is None:
        return None
    call = parse_call(processes.read(f"/{pid}/syscall") or "", machine())
    wchan = (processes.read(f"/{pid}/wchan") or "").strip()
    return ProcessState(
        pid=pid,
        start_ticks=int(fields[19]),
        state=fields[0],
        tracer_pid=_number(processes.read(f"/{pid}/status") or "", "TracerPid"),
        cpu_s=(int(fields[11]) + int(fields[12])) / _ticks_per_s(),
        wchan="" if wchan == "0" else wchan,
        syscall=call.name if call else "",
        threads=_states(processes, pid),
        frozen=_may_be_frozen(fields[0], wchan) and _frozen(Tree(os.fspath(proc.parent)), pid),
    )


def proof_of_no_return(pid: int, *, proc: Path = _PROC, architecture: str | None = None) -> Proof:
    """Why process `pid` can never go on by itself; "" when that is not certain.

    "stopped" says nothing about the job: whether all of it is stopped on purpose is for the caller to know. A process that
    is frozen or traced is held by somebody on purpose: no proof. `architecture` stands in tests.
    """
    processes = Tree(os.fspath(proc))
    status = processes.read(f"/{pid}/status") or ""
    if _number(status, "TracerPid"):
        return ""
    proof: Proof = "stopped" if _state(status) == "T" else ""
    if not proof:
        before = _look(processes, pid, architecture or machine())
        proof = _deadlock(processes, pid, before)
        if not proof or _may_be_signalled(processes, pid, status):
            return ""
        if _look(processes, pid, architecture or machine()) != before:
            return ""
    return "" if _frozen(Tree(os.fspath(proc.parent)), pid) else proof


@dataclass(frozen=True, slots=True)
class _Thread:
    """One thread at one moment, comparable with itself at another."""

    state: str
    call: Call | None
    switches: tuple[int, int]


def _look(processes: Tree, pid: int, architecture: str) -> dict[str, _Thread]:
    """All living threads of `pid` by number; a thread that ends meanwhile has the state ""."""
    threads = {}
    for number in processes.folders(f"/{pid}/task"):
        # In this order: a call is shown of a thread that is off its core, so whoever ran before it was read is counted.
        call = parse_call(processes.read(f"/{pid}/task/{number}/syscall") or "", architecture)
        status = processes.read(f"/{pid}/task/{number}/status") or ""
        switches = _number(status, "voluntary_ctxt_switches"), _number(status, "nonvoluntary_ctxt_switches")
        threads[number] = _Thread(_state(status), call, switches)
    return {number: thread for number, thread in threads.items() if thread.state not in _GONE}


def _deadlock(processes: Tree, pid: int, threads: dict[str, _Thread]) -> Proof:
    """What it is called that all `threads` wait for one another; "" where one of them does not."""
    proof: Proof = "lock" if threads else ""
    for thread in threads.values():
        if thread.state != "S" or thread.call is None or not thread.switches[0]:  # who waits was switched off
            return ""
        if waits_for_own_threads(thread.call):
            continue
        if not waits_for_itself(processes, pid, thread.call):
            return ""
        proof = "pipe"
    return proof


def _may_be_signalled(processes: Tree, pid: int, status: str) -> bool:
    """Whether a handler of the process may yet run without anybody's doing, and wake it."""
    found = re.search(r"^SigCgt:\s+([0-9a-f]+)$", status, re.MULTILINE)
    if found is None:
        return True
    caught = int(found.group(1), 16)
    if any(caught >> (number - 1) & 1 for number in _UNASKED):
        return True
    return bool(caught >> (_SIGCHLD - 1) & 1) and _has_children(processes, pid)


def _has_children(processes: Tree, pid: int) -> bool:
    """True also where the kernel does not tell (it is built without CONFIG_PROC_CHILDREN)."""
    children = [processes.read(f"/{pid}/task/{number}/children") for number in processes.folders(f"/{pid}/task")]
    return any(text is None or text.strip() for text in children)


def _may_be_frozen(state: str, wchan: str) -> bool:
    """Whether it is worth a look at its control group, which takes longer than everything else here.

    The freezer of version 2 keeps a process in do_freezer_trap, that of version 1 in __refrigerator or, where it waited
    anyway, in place, and then shows it as "D" (kernel/freezer.c). A stopped one stays where it is.
    """
    return state != "R" and (state != "S" or wchan in ("", "0") or "freeze" in wchan or "refrigerator" in wchan)


def _frozen(root: Tree, pid: int) -> bool:
    """Whether a control group froze it: version 2 by its own group or one above, version 1 as the freezer says."""
    for group in find_group(root, "freezer", str(pid)):
        if group.version == 1:
            if (root.read(f"{group.folders[0]}/freezer.state") or "").strip() in ("FROZEN", "FREEZING"):
                return True
        elif "frozen 1" in (root.read(f"{group.folders[0]}/cgroup.events") or "").splitlines() or any(
            (root.read(f"{folder}/cgroup.freeze") or "").strip() == "1" for folder in group.folders
        ):
            return True
    return False


def _states(processes: Tree, pid: int) -> tuple[str, ...]:
    """States of the threads in the order of their numbers, but the main one first: numbers wrap."""
    numbers = sorted(int(number) for number in processes.folders(f"/{pid}/task") if number.isdigit())
    found = [_stat(processes, f"/{pid}/task/{number}") for number in sorted(numbers, key=lambda number: number != pid)]
    return tuple(fields[0] for fields in found if fields is not None)


def _stat(processes: Tree, folder: str) -> list[str] | None:
    """The fields of a stat file from the state (the third) on; None when it is gone. A name may hold spaces and ")"."""
    fields = (processes.read(f"{folder}/stat") or "").rpartition(")")[2].split()
    return fields if len(fields) > 19 and all(field.lstrip("-").isdigit() for field in fields[1:20]) else None


def _state(status: str) -> str:
    found = re.search(r"^State:\s+(\S)", status, re.MULTILINE)
    return found.group(1) if found else ""


def _number(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)$", status, re.MULTILINE)
    return int(found.group(1)) if found else 0


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
