"""Messages between the trainer and one worker: one socket, no locks, no threads, nothing half.

A Unix SOCK_SEQPACKET pair keeps message borders in the kernel: a worker that is killed in mid-message leaves either the
whole packet or nothing, and an end of file is never mistaken for data. Long messages are cut into packets. The trainer's end never blocks: what the kernel does not take waits in `outbox`, so a stopped
worker cannot stop the training loop, and two full sockets cannot wait for each other.

Ctrl-C can strike between any two bytecodes. So receiving is one call in C (`deque.extend(iter(recv, b""))`): a packet is
either still in the kernel or already in `inbox`. Every packet carries a number, so that one that is sent twice
(interrupted between the send and the note of it) is taken once.
"""

from __future__ import annotations

import errno
import pickle
import select
import socket
import struct
from collections import deque
from functools import partial
from itertools import islice
from typing import Any

PACKET_BYTES = 60 << 10
"""Well below the default socket buffer (net.core.wmem_default, 212,992 bytes), so several packets fit."""
_HEADER = struct.Struct("<Q?")
_RECEIVE_BYTES = PACKET_BYTES + _HEADER.size
_LATER = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM}
"""send(2): what the kernel says when it has no room for a packet now."""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends: the trainer's (non-blocking) and the worker's (blocking)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


class Packets:
    """Cuts messages into numbered packets."""

    def __init__(self) -> None:
        self._number = 0

    def cut(self, message: bytes) -> list[bytes]:
        """The packets of one message: number, whether more follow, bytes."""
        cut = []
        for start in range(0, len(message), PACKET_BYTES):
            self._number += 1
            more = start + PACKET_BYTES < len(message)
            cut.append(_HEADER.pack(self._number, more) + message[start : start + PACKET_BYTES])
        return cut


def _joined(parts: list[bytes]) -> Any:
    whole = parts[0] if len(parts) == 1 else b"".join([parts[0], *(part[_HEADER.size :] for part in parts[1:])])
    return pickle.loads(memoryview(whole)[_HEADER.size :])  # noqa: S301  # a private socket pair within one process tree


class TrainerEnd:
    """The trainer's end: sends without ever blocking, receives without losing a packet to Ctrl-C."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.outbox: deque[bytes] = deque()
        self.inbox: deque[bytes] = deque()
        self.ended = False
        self._receive = partial(sock.recv, _RECEIVE_BYTES)
        self._packets = Packets()

    def send(self, *message: Any) -> None:
        """Queue a message and send what the kernel takes now."""
        self.outbox.extend(self._packets.cut(pickle.dumps(message, 5)))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it. A worker that is gone swallows everything."""
        try:
            while self.outbox:
                self.sock.send(self.outbox[0])
                self.outbox.popleft()
        except OSError as error:
            if error.errno not in _LATER:
                self.outbox.clear()

    def receive(self) -> None:
        """Move all packets that have arrived into `inbox`."""
        for _ in range(2):  # a peer that closed with unread messages is reported once before its last packets come
            try:
                self.inbox.extend(iter(self._receive, b""))
                self.ended = True
            except ConnectionResetError:
                continue
            except BlockingIOError:
                pass
            except OSError:
                self.ended = True
            return

    def peek(self) -> tuple[Any, ...] | None:
        """The first whole message of `inbox`, which stays there until `done_with_first`."""
        count = self._packets_of_first()
        if count == 0:
            return None
        message: tuple[Any, ...] = _joined(list(islice(self.inbox, count)))
        return message

    def done_with_first(self) -> None:
        """Drop the first whole message of `inbox`. All its packets in one call in C, else Ctrl-C would leave half of it."""
        deque(islice(iter(self.inbox.popleft, None), self._packets_of_first()), maxlen=0)

    def _packets_of_first(self) -> int:
        for count, packet in enumerate(self.inbox, 1):
            if not _HEADER.unpack_from(packet)[1]:
                return count
        return 0

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


class WorkerEnd:
    """The worker's end: blocks, since a worker has nothing else to do."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._packets = Packets()
        self._parts: list[bytes] = []
        self._last = 0

    def send(self, *message: Any) -> None:
        """Send one message. Raises OSError when the trainer is gone."""
        for packet in self._packets.cut(pickle.dumps(message, 5)):
            self.sock.send(packet)

    def wait(self, seconds: float) -> bool:
        """Whether something comes within so many seconds (a message, or the end)."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def receive(self, *, block: bool) -> tuple[Any, ...] | None:
        """The next message; None when there is none now.

        Raises EOFError when the trainer is gone.
        """
        flags = 0 if block else socket.MSG_DONTWAIT
        try:
            while packet := self.sock.recv(_RECEIVE_BYTES, flags):
                number, more = _HEADER.unpack_from(packet)
                if number <= self._last:
                    continue  # sent twice: the trainer was interrupted between the send and its note of it
                self._last = number
                self._parts.append(packet)
                if not more:
                    parts, self._parts = self._parts, []
                    message: tuple[Any, ...] = _joined(parts)
                    return message
        except BlockingIOError:
            return None
        raise EOFError("the training process is gone")
