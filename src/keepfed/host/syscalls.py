"""Which system call a thread of another process waits in, and whether only its own process can end that wait.

`/proc/PID/task/TID/syscall` holds one line for a thread that is blocked: the number of the call and its six arguments in hex,
then stack and instruction pointer; "-1" and two pointers when it is blocked outside of a call (a page fault, a stop signal),
"running" when it is not blocked (proc_pid_syscall(5)). Reading it takes the right to trace the process
(PTRACE_MODE_ATTACH_FSCREDS in ptrace(2)): the same user, and with Yama's `ptrace_scope` 1 also an ancestor of it.

The numbers differ between architectures; from 403 on all architectures share them (arch/*/entry/syscalls in the kernel's
sources). A name that is not listed here is not needed by anybody: it stays unknown.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass

# Calls in which a worker can be found, with their numbers on x86-64 and in the generic table (aarch64, riscv64); - is none.
_NUMBERS = """
    read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69; pwritev 296 70;
    poll 7 -; ppoll 271 73; select 23 -; pselect6 270 72; epoll_wait 232 -; epoll_pwait 281 22; epoll_pwait2 441 441;
    futex 202 98; futex_waitv 449 449; futex_wait 455 455; nanosleep 35 101; clock_nanosleep 230 115; pause 34 -;
    recvfrom 45 207; recvmsg 47 212; recvmmsg 299 243; sendto 44 206; sendmsg 46 211; sendmmsg 307 269;
    accept 43 202; accept4 288 242; connect 42 203; wait4 61 260; waitid 247 95; rt_sigtimedwait 128 137;
    rt_sigsuspend 130 133; restart_syscall 219 128; vfork 58 -; clone 56 220; clone3 435 435; execve 59 221;
    flock 73 32; fcntl 72 25; fsync 74 82; fdatasync 75 83; sync 162 81; msync 26 227; open 2 -; openat 257 56;
    openat2 437 437; close 3 57; stat 4 -; lstat 6 -; fstat 5 80; newfstatat 262 79; statx 332 291; statfs 137 43;
    access 21 -; faccessat 269 48; faccessat2 439 439; getdents64 217 61; readlink 89 -; readlinkat 267 78; ioctl 16 29;
    unlink 87 -; unlinkat 263 35; mkdir 83 -; mkdirat 258 34; rename 82 -; renameat 264 38; renameat2 316 276;
    ftruncate 77 46; fallocate 285 47; sendfile 40 71; splice 275 76; copy_file_range 326 285; mmap 9 222; munmap 11 215;
    mprotect 10 226; mremap 25 216; madvise 28 233; brk 12 214; semop 65 193; semtimedop 220 192; msgrcv 70 188;
    msgsnd 69 189; mq_timedreceive 243 183; io_getevents 208 4; io_uring_enter 426 426; exit_group 231 94
"""


def _table(column: int) -> dict[int, str]:
    rows = [row.split() for row in _NUMBERS.split(";")]
    return {int(row[column]): row[0] for row in rows if row[column] != "-"}


_NAMES = {"x86_64": _table(1), "aarch64": _table(2), "riscv64": _table(2)}

# linux/futex.h: operations, and the flags that may be added to them; FUTEX2_PRIVATE of futex_wait(2) has the same value.
_FUTEX_WAIT, _FUTEX_WAIT_BITSET = 0, 9
_FUTEX_PRIVATE, _FUTEX_CLOCK_REALTIME = 128, 256


@dataclass(frozen=True, slots=True)
class Call:
    """A system call in which a thread is blocked."""

    name: str
    """Its name without "sys_": "futex", "read"; "" for a number that is not known on this architecture."""
    arguments: tuple[int, ...]
    """Its six arguments as the kernel got them, unsigned."""


def machine() -> str:
    """The architecture of this process, as the tables of numbers are named: "x86_64", "aarch64"."""
    return platform.machine()


def parse_call(text: str, architecture: str) -> Call | None:
    """Read the line of /proc/PID/syscall; None for a thread that is not blocked in a call, and for anything else."""
    words = text.split()
    if len(words) != 9:
        return None
    try:
        number, arguments = int(words[0]), tuple(int(word, 16) for word in words[1:7])
    except ValueError:
        return None
    return Call(_NAMES.get(architecture, {}).get(number, ""), arguments)


def waits_for_own_threads(call: Call) -> bool:
    """Whether it is a futex wait that nothing but another thread of the same process can end: private, without a timeout.

    That is what a lock of Python, a mutex or a condition of C++ and an idle OpenMP thread wait in (glibc waits with
    FUTEX_WAIT_BITSET and the real-time clock, timed or not). The kernel finds the waiters of a private futex by the
    address space of the caller (futex(2), FUTEX_PRIVATE_FLAG), so no other process can wake them.
    """
    return _untimed_wait(call) == "private"


def waits_for_other_processes(call: Call) -> bool:
    """Whether it is a futex wait without a timeout that another process can end: a lock of multiprocessing, above all.

    Such a lock has no owner that the kernel knows. A process that was killed while it held one has not released it.
    The end of a thread is waited for in the same way (pthread_join(3)).
    """
    return _untimed_wait(call) == "shared"


def _untimed_wait(call: Call) -> str:
    """Who can end a futex wait without a timeout, "private" or "shared"; "" for every other call."""
    if call.name == "futex":
        operation, timeout = call.arguments[1], call.arguments[3]
        kind = operation & ~(_FUTEX_PRIVATE | _FUTEX_CLOCK_REALTIME)
        if kind not in (_FUTEX_WAIT, _FUTEX_WAIT_BITSET):
            return ""
    elif call.name == "futex_wait":  # address, value, mask, flags, timeout, clock
        operation, timeout = call.arguments[3], call.arguments[4]
    else:
        return ""
    if timeout:
        return ""
    return "private" if operation & _FUTEX_PRIVATE else "shared"
