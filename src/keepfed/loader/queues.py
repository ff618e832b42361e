"""torch's worker loop has two queues and an event; these take their places in our workers, over one socket.

    torch's                        here
    ───────                        ────
    index_queue.get()     ◀──      TaskQueue.get: next task from the trainer; puts the random streams where they have to be
    data_queue.put(…)     ──▶      ResultQueue.put: encodes and sends
    done_event.is_set()   ◀──      Ending: the trainer said quit, or is gone

No thread feeds them: what cannot be pickled or sent is known in the loop itself, and said there.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from torch.utils.data import get_worker_info

from keepfed.heartbeat import Phase, Pulse
from keepfed.loader import blame, draws, torch_seam
from keepfed.loader.arena import SlotWriter
from keepfed.loader.beats import Stamped, stamps
from keepfed.loader.broken import NOTHING, Holes, Skip
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.codec import EMPTY, BatchWriter, Encoded, encode
from keepfed.loader.notes import Notes
from keepfed.loader.phases import Stopwatch
from keepfed.loader.place import Place
from keepfed.loader.weight import Scales
from keepfed.text import say

if TYPE_CHECKING:
    from keepfed.loader.worker import WorkerJob

QUICK_SAMPLE_S = 20e-6
"""After a batch whose samples took less than this each, the next one's are not told apart: to say which one it is at would cost
a worker half a per cent of its time."""
REST_S = 1.0
"""A worker that has had nothing to do for so long after an epoch, or while memory is short, gives the pages of its free slots
back."""


class Ending:
    """torch's `done_event`: whether this worker should end without making what is still queued."""

    def __init__(self) -> None:
        self._ending = False

    def set(self) -> None:
        """End after the batch in hand."""
        self._ending = True

    def is_set(self) -> bool:
        """Whether to end."""
        return self._ending


class TaskQueue:
    """torch's `index_queue`: hands out tasks in order, and takes in what else the trainer says."""

    def __init__(self, end: WorkerEnd, ending: Ending, job: WorkerJob, notes: Notes, pulse: Pulse) -> None:
        self._end = end
        self._ending = ending
        self._job = job
        self._notes = notes
        self.pulse = pulse
        """Where this worker says what it is doing."""
        self._scales = Scales(notes)
        self._fixed = not job.shared
        self._stream = torch_seam.is_iterable_kind(job.loop_arguments.get("dataset_kind"))
        arguments = job.loop_arguments
        self._stamps = arguments.get("auto_collation", False) and stamps(arguments["dataset"])
        self._quick = False  # whether the samples of the last batch were
        self._things = 0
        self._tasks: deque[tuple[Any, ...]] = deque()
        self._released: deque[Any] = deque()
        self._hurried = False
        self._asked = 0
        self._unpinned: dict[int, tuple[int, ...]] = {}
        self._seen: set[int] = set()
        self._resting = False
        self.slots: SlotWriter | None = None
        """The slots of this worker: how much they may take comes with every task."""
        self.place: Place | None = None
        """Where it stands in its stream, if it reads one."""
        self.again = False  # whether the task in hand was answered before, by a worker that is dead
        self.epoch = -1  # of the task in hand: a worker may be forked in any epoch
        self.number = -1
        self.index: Any = None
        self.watch = Stopwatch()
        """What the task in hand has taken so far."""

    def get(self, timeout: float | None = None) -> Any:
        """The next (number, index) for torch's loop, its resume message, or None to end. `timeout` is not needed."""
        del timeout
        message = self._next()
        if message is None:
            return None
        kind, *rest = message
        if kind == "resume":
            if self._fixed and self._stream:  # its stream begins anew: only from here can it be read again
                self._notes.write(self._things)
            self._things += 1
            return torch_seam.resume_message(*rest)
        self._things += 1
        self.again = kind == "again"
        self.epoch, self.number, self.index, state = rest
        if isinstance(state, int):
            draws.reseed(state)
        elif state is not None:
            draws.restore(state)
        self.pulse.batch(self.epoch, self.number)
        self.watch.begin()
        stamped = self._stamps and not self._quick and type(self.index) is list
        return self.number, Stamped(self.index, self.pulse) if stamped else self.index

    def _next(self) -> tuple[Any, ...] | None:
        """The next task or resume message; None to end."""
        while True:
            self._take_in(block=False)
            if not self._tasks:
                self.pulse.idle()
            while not self._tasks and not self._ending.is_set():
                if self._resting and self.slots is not None and not self._end.wait(REST_S):
                    self.slots.trim()
                    self._resting = False
                self._take_in(block=True)
            if self._ending.is_set():
                return None
            message = self._tasks.popleft()
            if message[0] != "restore":
                return message
            _, self._things, noted = message
            if noted.stream and self.place is not None:
                try:
                    self.place.go_to(noted.stream)
                except Exception as error:  # what load_state_dict raised
                    raise RuntimeError(
                        say("loader.stream_not_resumed", error=f"{type(error).__name__}: {error}")
                    ) from error
            draws.restore(noted.states)
            self._notes.write(self._things, noted.stream)

    def answered(self, *, went_on: bool) -> None:
        """The task in hand is done; it `went_on` if that was by a batch and not by an exception or the end of a stream."""
        self._scales.perhaps_weigh()
        seconds = time.perf_counter() - self.watch.began_s
        self._quick = type(self.index) is list and seconds < QUICK_SAMPLE_S * len(self.index)
        if self._fixed and not self._stream:
            self._notes.thing_done(self._things, seconds)
        elif self.place is not None and went_on:
            self._notes.thing_done(self._things, seconds, self.place.state)

    @property
    def noted(self) -> int:
        """After how many of the things that it was told this worker has noted its random states; -1 for never."""
        return self._notes.noted

    def released(self) -> tuple[Any, ...]:
        """Slot uses that the trainer has given back since the last call."""
        taken = tuple(self._released)
        self._released.clear()
        return taken

    def wait_for_release(self) -> bool:
        """Say that all slots are out, and block until some come back.

        False when there are none to give back and the program waits for this very batch, and when this worker should end.
        """
        self._hurried = False
        before, began_s = self.pulse.waits_for_room(), time.perf_counter()
        try:
            self._end.send("dry")
        except OSError:
            self._ending.set()
        while not (self._released or self._hurried or self._ending.is_set()):
            self._take_in(block=True)
        self.pulse.phase(before)
        self.watch.waited(time.perf_counter() - began_s)
        return bool(self._released) and not self._ending.is_set()

    def unpin(self, slots: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
        """Have free slots unregistered from the GPU, and block until the trainer says which are."""
        self._asked += 1
        try:
            self._end.send("unpin", self._asked, slots)
        except OSError:
            self._ending.set()
        while self._asked not in self._unpinned and not self._ending.is_set():
            self._take_in(block=True)
        answer = self._unpinned.get(self._asked, ())
        self._unpinned.clear()  # an interrupted trainer may answer twice
        return answer

    def _take_in(self, *, block: bool) -> None:
        try:
            while (message := self._end.receive(block=block)) is not None:
                self._sort(message)
                block = False
        except (EOFError, OSError):
            self._ending.set()

    def _sort(self, message: tuple[Any, ...]) -> None:
        kind, *rest = message
        if kind == "task":
            epoch, number, index, state, released, allowance_bytes = rest
            self._resting = False
            self._released.extend(released)
            if self.slots is not None and allowance_bytes != self.slots.allowance_bytes:
                self.slots.allow(allowance_bytes)
            if number not in self._seen:  # the trainer was interrupted between sending it and taking note of that
                self._seen.add(number)
                self._tasks.append(("task", epoch, number, index, state))
        elif kind == "again":
            self._tasks.append((*message, None))
        elif kind == "restore":
            self._tasks.append(message)
        elif kind == "resume":
            self._seen.clear()
            if self._job.shared:
                self._tasks.clear()  # contents do not depend on what was made before: nothing to be kept in step
            self._tasks.append(message)
        elif kind == "release":
            self._released.extend(rest[0])
            self._hurried = not rest[0]
        elif kind in {"rest", "short"}:
            self._released.extend(rest[0])
            self._resting = True
            if kind == "short" and self.slots is not None:
                self.slots.allow(rest[1])
        elif kind == "unpinned":
            self._unpinned[rest[0]] = rest[1]
        elif kind == "quit":
            self._ending.set()


class ResultQueue:
    """torch's `data_queue`: encodes what the loop made and sends it."""

    def __init__(self, end: WorkerEnd, tasks: TaskQueue, out: BatchWriter, holes: Holes) -> None:
        self._end = end
        self._tasks = tasks
        self._out = out
        self._holes = holes

    def put(self, item: tuple[Any, Any]) -> None:
        """Send one result. What cannot be pickled is sent as the exception that it is."""
        number, data = item
        if torch_seam.is_resume_message(number):
            return
        skipped = self._holes.take()
        if self._tasks.again:
            self._out.discard()
        elif torch_seam.is_end_of_dataset(data):
            self._out.discard()
            self._send("ended", self._tasks.epoch, number)
        else:
            self._batch(number, data, skipped)
        self._tasks.answered(went_on=not (torch_seam.is_exception(data) or torch_seam.is_end_of_dataset(data)))

    def _batch(self, number: int, data: Any, skipped: tuple[Skip, ...]) -> None:
        self._tasks.pulse.phase(Phase.SENDING)
        self._tasks.watch.made()
        encoded = tuple(self._encode(data))
        times = self._tasks.watch.read()
        rest = (skipped,) if skipped else ()
        self._send("done", self._tasks.epoch, number, encoded, times, self._tasks.noted, *rest)

    def _send(self, *message: Any) -> None:
        try:
            self._end.send(*message)
        except OSError:
            self._tasks.wait_for_release()  # the trainer is gone: its end of file ends the loop

    def _encode(self, data: Any) -> Encoded:
        if data is NOTHING:
            self._out.discard()
            return EMPTY
        try:
            return encode(data, self._out)
        except Exception as error:  # whatever pickling raised: it comes out of next() in the program
            self._out.discard()
            failure = torch_seam.wrap_exception(self._unsendable(data, error))
        return encode(failure, self._out)

    def _unsendable(self, data: Any, error: Exception) -> Exception:
        """What to raise in the program for a batch that cannot be sent: the pickling error, else its text."""
        info = get_worker_info()
        place = blame.place(info.dataset if info is not None else None, self._tasks.number, self._tasks.index)
        said = say("loader.unsendable", kind=type(data).__name__, place=place)
        text = f"{said}\n{type(error).__name__}: {error}"
        if torch_seam.is_exception(data):
            return RuntimeError(f"{text}\nOriginal exception in the worker:\n{data.exc_msg}")
        try:
            pickle.dumps(type(error))
        except Exception:  # an exception class that exists in the worker only
            return RuntimeError(text)
        error.add_note(said)
        return error

    def cancel_join_thread(self) -> None:
        """There is no thread."""

    def close(self) -> None:
        """The process ends; so does its socket."""
