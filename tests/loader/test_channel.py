"""Messages arrive whole, once and in order, and never make the trainer wait."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from keepfed.loader.channel import PACKET_BYTES, Packets, TrainerEnd, WorkerEnd, channel_pair
from tests.loader.processes import program


@pytest.fixture
def ends() -> Iterator[tuple[TrainerEnd, WorkerEnd]]:
    ours, theirs = channel_pair()
    yield TrainerEnd(ours), WorkerEnd(theirs)
    ours.close()
    theirs.close()


def first_message(end: TrainerEnd, seconds: float = 10.0) -> tuple[object, ...] | None:
    """The next message, waited for."""
    poll = select.poll()
    poll.register(end.sock, select.POLLIN)
    end_s = time.monotonic() + seconds
    while (message := end.peek()) is None and not end.ended and time.monotonic() < end_s:
        poll.poll(100)
        end.receive()
        end.flush()
    if message is not None:
        end.done_with_first()
    return message


@pytest.mark.parametrize("size", [0, 1, PACKET_BYTES - 1, PACKET_BYTES, PACKET_BYTES + 1, 40 * PACKET_BYTES + 7])
def test_a_message_of_any_length_arrives_whole(ends: tuple[TrainerEnd, WorkerEnd], size: int) -> None:
    trainer, worker = ends
    data = os.urandom(size)
    trainer.send("task", 1, data)
    trainer.send("task", 2, "behind it")
    received: list[tuple[object, ...]] = []
    while len(received) < 2:
        trainer.flush()
        if (message := worker.receive(block=False)) is not None:
            received.append(message)
    assert received == [("task", 1, data), ("task", 2, "behind it")]
    assert not trainer.outbox


def test_both_directions_full_at_once_do_not_wait_for_each_other() -> None:
    """The worker sends two megabytes before it reads; so does the trainer, in the same moment."""
    ours, theirs = channel_pair()
    data = os.urandom(2 << 20)

    def echo(_: Connection) -> None:
        ours.close()
        end = WorkerEnd(theirs)
        end.send("first", data)
        message = end.receive(block=True)
        end.send("second", message)

    with program(echo) as running:
        theirs.close()
        trainer = TrainerEnd(ours)
        trainer.send("task", data)
        assert trainer.outbox, "the socket is full"
        assert first_message(trainer) == ("first", data)
        assert first_message(trainer) == ("second", ("task", data))
        assert running.wait() == 0
    ours.close()


def test_a_stopped_worker_does_not_make_the_trainer_wait(ends: tuple[TrainerEnd, WorkerEnd]) -> None:
    trainer, _ = ends
    for number in range(50):
        began_s = time.monotonic()
        trainer.send("task", number, bytes(200_000))
        assert time.monotonic() - began_s < 1
    assert trainer.outbox


def test_of_a_worker_that_is_killed_in_mid_message_nothing_half_arrives() -> None:
    ours, theirs = channel_pair()

    def half(_: Connection) -> None:
        end = WorkerEnd(theirs)
        end.send("done", 1)
        packets = Packets()
        packets.cut(b"x" * 10)
        theirs.send(packets.cut(os.urandom(3 * PACKET_BYTES))[0])
        os.kill(os.getpid(), signal.SIGKILL)

    with program(half) as running:
        theirs.close()
        assert running.wait() == -signal.SIGKILL
        trainer = TrainerEnd(ours)
        assert first_message(trainer) == ("done", 1), "what was sent before the death counts"
        assert first_message(trainer) is None
        assert trainer.ended
    ours.close()


def test_what_a_worker_sent_counts_although_it_closed_with_unread_messages() -> None:
    """The kernel then reports a reset connection, once, before it hands out the last packets (unix(7))."""
    ours, theirs = channel_pair()
    trainer, worker = TrainerEnd(ours), WorkerEnd(theirs)
    trainer.send("task", 1)
    worker.send("done", 0)
    theirs.close()
    trainer.receive()
    assert trainer.peek() == ("done", 0)
    assert trainer.ended
    ours.close()


def test_a_packet_that_is_sent_twice_is_taken_once(ends: tuple[TrainerEnd, WorkerEnd]) -> None:
    """Ctrl-C between the send and the note of it: the packet is sent again."""
    trainer, worker = ends
    real = trainer.sock

    class Interrupted:
        def send(self, packet: bytes) -> None:
            real.send(packet)
            raise KeyboardInterrupt

    for number in range(3):
        trainer.sock = Interrupted()  # type: ignore[assignment]  # a socket as far as flush() uses it
        with pytest.raises(KeyboardInterrupt):
            trainer.send("task", number, bytes(2 * PACKET_BYTES))
        trainer.sock = real
        trainer.flush()
        assert worker.receive(block=True) == ("task", number, bytes(2 * PACKET_BYTES))
        assert worker.receive(block=False) is None


def test_a_worker_whose_trainer_is_gone_is_told_so(ends: tuple[TrainerEnd, WorkerEnd]) -> None:
    trainer, worker = ends
    trainer.send("task", 1)
    trainer.close()
    assert worker.receive(block=True) == ("task", 1)
    with pytest.raises(EOFError):
        worker.receive(block=True)
    with pytest.raises(OSError, match="Broken pipe"):
        worker.send("done", 1)


def test_what_is_sent_to_a_worker_that_is_gone_vanishes(ends: tuple[TrainerEnd, WorkerEnd]) -> None:
    trainer, worker = ends
    trainer.send("task", bytes(1 << 20))
    assert trainer.outbox
    worker.sock.close()
    trainer.send("task", 2)
    trainer.receive()
    assert trainer.ended
    assert not trainer.outbox


def test_a_kernel_without_room_for_a_packet_is_asked_again(ends: tuple[TrainerEnd, WorkerEnd]) -> None:
    """ENOBUFS does not mean that the worker is gone; the packet must not vanish."""
    trainer, worker = ends
    real = trainer.sock

    class Full:
        def send(self, _: bytes) -> None:
            raise OSError(105, "No buffer space available")

    trainer.sock = Full()  # type: ignore[assignment]  # a socket as far as flush() uses it
    trainer.send("task", 1)
    trainer.sock = real
    trainer.flush()
    assert worker.receive(block=True) == ("task", 1)


def test_the_trainers_end_never_blocks_and_neither_end_is_inherited_by_programs() -> None:
    ours, theirs = channel_pair()
    assert not ours.getblocking()
    assert not ours.get_inheritable()
    assert not theirs.get_inheritable()
    assert ours.type & socket.SOCK_SEQPACKET == socket.SOCK_SEQPACKET
    ours.close()
    theirs.close()
