"""What runs inside a worker: torch's own worker loop, with our queues in the place of its.

    torch's _worker_loop                         here
    ────────────────────                         ────
    seeds, worker_info, init_fn, fetcher         (torch's)
    index_queue.get()                   ◀──      TaskQueue.get: next task from the trainer; reseeds first in auto mode
    fetcher.fetch(index)                         (torch's; default_collate writes into the slot)
    data_queue.put((number, data))      ──▶      ResultQueue.put: encode, send, note the times
    done_event.is_set()                 ◀──      Ending: the trainer said quit, or is gone

So seeding, exceptions with tracebacks, `get_worker_info()` and everything that a later torch adds there are the installed
torch's. A worker holds no lock that another process could wait for, and has one descriptor to the trainer.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import torch

from keepfed.loader import probe, torch_seam
from keepfed.loader.arena import Region, SlotWriter
from keepfed.loader.beats import IN_REGIONS, Rows
from keepfed.loader.broken import Holes
from keepfed.loader.channel import WorkerEnd
from keepfed.loader.codec import BatchWriter
from keepfed.loader.collate import SlotCollate
from keepfed.loader.notes import Notes
from keepfed.loader.place import Place
from keepfed.loader.queues import Ending, ResultQueue, TaskQueue
from keepfed.loader.traces import Traces
from keepfed.loader.tracing import let_trainer_look


@dataclass(frozen=True, slots=True)
class WorkerJob:
    """Everything that all workers of one iterator have in common; they inherit it by fork."""

    loop_arguments: dict[str, Any]
    """Arguments of torch's worker loop but for the queues and the worker's id."""
    shared: bool
    """Whether batches are made by whoever is free, each from a random state of its own."""
    verify: bool
    """Whether checksums go with the slots, and slots that were given back are overwritten."""
    holes: bool = False
    """Whether samples that cannot be made are left out of their batches."""
    full_batches: bool = False
    """Whether the place of such a sample is filled."""
    pinned: bool = False
    """Whether the trainer registers slots with a GPU: it must be asked before their pages are given back."""
    traced: bool = False
    """Whether a worker says what its first fetches leave behind in it."""
    rows: Rows = IN_REGIONS
    """Where workers say what they are doing."""


def work(job: WorkerJob, worker_id: int, end: WorkerEnd, region: Region) -> None:
    """Be worker `worker_id` until the trainer says quit or is gone, or go on this errand."""
    if worker_id == probe.ERRAND:
        probe.serve(job, end)
        return
    let_trainer_look()
    ending = Ending()
    pulse = job.rows.pulse(worker_id, region)
    tasks = TaskQueue(end, ending, job, Notes(region.notes()), pulse)
    slots = SlotWriter(
        region,
        0,
        tasks.wait_for_release,
        tasks.released,
        unpin=tasks.unpin if job.pinned else None,
        poison=job.verify,
    )
    tasks.slots = slots
    out = BatchWriter(slots, checksums=job.verify)
    arguments = job.loop_arguments
    collate = SlotCollate(out, pulse, tasks.watch, always=not arguments["auto_collation"])
    torch_seam.collate_map()[torch.Tensor] = collate
    if arguments["auto_collation"]:
        arguments = {**arguments, "collate_fn": collate.within(arguments["collate_fn"])}
    else:
        arguments = {**arguments, "collate_fn": functools.partial(arguments["collate_fn"])}  # one that nobody else has
    holes = Holes(full_batches=job.full_batches)
    if torch_seam.is_iterable_kind(arguments["dataset_kind"]) and not torch_seam.is_datapipe(arguments["dataset"]):
        tasks.place = Place(holes, persistent=arguments["persistent_workers"])
        torch_seam.on_fetcher(arguments["collate_fn"], tasks.place.begin)
    if job.holes:
        torch_seam.on_fetcher(arguments["collate_fn"], holes.guard)
    if job.traced:
        traces = Traces(end, job.loop_arguments["dataset"], job.loop_arguments["collate_fn"])
        torch_seam.on_fetcher(arguments["collate_fn"], traces.watch)
    try:
        torch_seam.worker_loop(
            **arguments,
            index_queue=tasks,
            data_queue=ResultQueue(end, tasks, out, holes),
            done_event=ending,
            worker_id=worker_id,
        )
    except BaseException as error:  # sys.exit() in the dataset, asyncio's cancellation: torch's loop lets them through
        with contextlib.suppress(OSError):
            end.send("leaving", f"{type(error).__name__}: {error}")
        raise


def answer_all(answer: Any, end: WorkerEnd, region: Region) -> None:
    """Be a worker that has no job: answer every task with this until the trainer says quit or is gone."""
    ending = Ending()
    job = WorkerJob({}, shared=False, verify=False)
    tasks = TaskQueue(end, ending, job, Notes(region.notes()), job.rows.pulse(-1, region))
    out = BatchWriter(SlotWriter(region, 0, tasks.wait_for_release, tasks.released, poison=False), checksums=False)
    results = ResultQueue(end, tasks, out, Holes(full_batches=False))
    while (task := tasks.get()) is not None:
        if not torch_seam.is_resume_message(task):
            results.put((task[0], answer))
