"""What a blocked system call is about: the file, the lock or the machine at the other end.

"Waits in flock" leaves its reader with nothing, "flock /cache/vocab.lock" and "recvfrom 10.2.0.7:443" name the culprit. Most
calls have a descriptor as their first argument, and /proc/PID/fd says where that leads. A socket is only a number there;
its peer stands in the tables of /proc/PID/net (proc_pid_net(5)).

Who receives with a timeout, which is most of what fetches over a network, waits in poll(2), whose descriptor lies in memory. It is
read from /proc/PID/mem, but only if every thread of the process waits in a call that leaves its map of memory alone: a
reader has to take the lock of that map, and would wait with a thread that holds it while its NFS server is away.
"""

from __future__ import annotations

import ipaddress
import os
import re
import struct
import sys
from collections.abc import Iterable

from keepfed.host.syscalls import Call, waits_for_other_processes
from keepfed.host.tree import Tree

# Calls whose first argument is a descriptor, and calls in which a thread holds no lock of its process's memory.
_ABOUT_DESCRIPTOR = re.compile(
    r"p?(read|write)(v|64)?|recv(from|msg|mmsg)|send(to|msg|mmsg|file)|accept4?|connect|splice|close"
    r"|flock|fcntl|fsync|fdatasync|ftruncate|fallocate|fstat|getdents64|ioctl"
)
_WITHOUT_MEMORY = re.compile(
    r"futex(_wait)?|p?poll|p?select6?|epoll_p?wait|(clock_)?nanosleep|wait4|waitid|recv(from|msg)|accept4?"
)
_POLLS, _EPOLLS = ("poll", "ppoll"), ("epoll_wait", "epoll_pwait", "epoll_pwait2")
_MOST_POLLED = 3
_EPOLL_TARGET = re.compile(r"^tfd:\s+(\d+)", re.MULTILINE)
SHARED = "shared"
"""What a wait is about that another process can end: no name is to be had without the map of memory."""
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def leave_memory_alone(calls: Iterable[Call | None]) -> bool:
    """Whether threads that are blocked in these calls hold no lock that reading their memory would wait for."""
    return all(call is not None and _WITHOUT_MEMORY.fullmatch(call.name) for call in calls)


def target_of(processes: Tree, pid: int, call: Call, *, memory: bool) -> str:
    """What `call` of process `pid` waits for: a path, "pipe:[123]", "tcp 10.2.0.7:443"; "" when it does not show.

    `processes` is the tree of /proc itself, `memory` whether that of the process may be read.
    """
    if waits_for_other_processes(call):
        return SHARED
    if _ABOUT_DESCRIPTOR.fullmatch(call.name):
        return _behind(processes, pid, call.arguments[0])
    if memory and call.name in _POLLS and call.arguments[1] == 1:
        number = _polled(processes, pid, call.arguments[0])
        return "" if number is None else _behind(processes, pid, number)
    if call.name in _EPOLLS:
        return ", ".join(_machines(processes, pid, call.arguments[0]))
    return ""


def _behind(processes: Tree, pid: int, number: int) -> str:
    """Where a descriptor leads."""
    try:
        link = os.readlink(processes.at(f"/{pid}/fd/{number}"))
    except (OSError, ValueError):
        return ""
    found = _SOCKET.fullmatch(link)
    return _peer(processes, pid, found.group(1)) or link if found else link


def _machines(processes: Tree, pid: int, epoll: int) -> list[str]:
    """The connections that an event loop waits for; its own wake-up pipes and timers are left out (proc_pid_fdinfo(5))."""
    numbers = _EPOLL_TARGET.findall(processes.read(f"/{pid}/fdinfo/{epoll}") or "")
    shown = (_behind(processes, pid, int(number)) for number in numbers)
    return [text for text in shown if text.startswith(("tcp ", "udp "))][:_MOST_POLLED]


def _polled(processes: Tree, pid: int, address: int) -> int | None:
    """The one descriptor in an array of struct pollfd."""
    try:
        memory = os.open(processes.at(f"/{pid}/mem"), os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        data = os.pread(memory, 4, address)
    except (OSError, OverflowError):
        return None
    finally:
        os.close(memory)
    number: int = struct.unpack("=i", data)[0] if len(data) == 4 else -1
    return number if number >= 0 else None


def _peer(processes: Tree, pid: int, inode: str) -> str:
    """Who is at the other end of a socket, as far as the kernel's tables tell."""
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for words in _rows(processes, f"/{pid}/net/{protocol}"):
            if len(words) >= 10 and words[9] == inode:
                return f"{protocol.removesuffix('6')} {_address(words[2])}"
    for words in _rows(processes, f"/{pid}/net/unix"):
        if len(words) >= 7 and words[6] == inode:
            return " ".join(["unix", *words[7:]])
    return ""


def _rows(processes: Tree, path: str) -> Iterable[list[str]]:
    return (line.split() for line in (processes.read(path) or "").splitlines()[1:])


def _address(text: str) -> str:
    """Make 10.2.0.7:443 of "0700020A:01BB": 32-bit words in the byte order of the machine."""
    digits, _, port = text.partition(":")
    try:
        words = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
        packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
        host = ipaddress.ip_address(packed)
        number = int(port, 16)
    except ValueError:
        return text
    if isinstance(host, ipaddress.IPv6Address):
        return f"{host.ipv4_mapped}:{number}" if host.ipv4_mapped else f"[{host}]:{number}"
    return f"{host}:{number}"
