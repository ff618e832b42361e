"""The control socket: short messages with descriptors between the trainer, its nursery and its zygotes.

A SOCK_SEQPACKET pair, as for the workers (channel.py): borders of messages are the kernel's, and a sender that is killed in
mid-message leaves all of it or nothing. Descriptors travel in the message (SCM_RIGHTS, unix(7)); those of a message that
nobody reads any more are closed by the kernel with the last descriptor of the socket.
"""

from __future__ import annotations

import array
import contextlib
import marshal
import select
import socket
from typing import Any

DATA_BYTES = 4096
"""Room for one message to or from a zygote."""
FDS_BYTES = socket.CMSG_SPACE(4 * array.array("i").itemsize) if hasattr(socket, "CMSG_SPACE") else 0
"""Room for its descriptors."""


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends for short messages with descriptors."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def tell(control: socket.socket, message: tuple[Any, ...], fds: list[int]) -> None:
    """Send a message. Somebody who is gone swallows it: that is noticed in other ways."""
    with contextlib.suppress(OSError):
        socket.send_fds(control, [marshal.dumps(message)], fds)


def read(data: bytes) -> tuple[Any, ...]:
    """A message, as it was dumped by marshal."""
    message: tuple[Any, ...] = marshal.loads(data)  # noqa: S302  # a private socket pair within one process tree
    return message


def descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) // fds.itemsize * fds.itemsize])
    return list(fds)


def readable(fd: int, timeout_s: float, events: int = 1) -> bool:
    """Whether there is something to read within this time; with `events=0`, whether the other end is gone."""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout_s * 1000))
