"""The training program of one cell of `faults.py`: reads an epoch while a fault strikes, and says what it saw.

It looks for nothing but what any program sees: batches, exceptions, the log. `run` tells it in small dictionaries, each with
an "event" and the time ("at_s", time.monotonic(), which all processes of a machine share):

    began · batch (number, by which worker) · struck (by the trainer) · logged (a line of keepfed's) · raised, or checked

`faults.py` starts it as a process of its own and reads these as lines of JSON; tests call `run` in a forked process.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import resource
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fault_cases import BATCH, BATCHES, DATASETS, FAULTS, WORKERS, Samples, is_right

Tell = Callable[[dict[str, Any]], None]
SEED = 5


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the table."""

    loader: str
    """"keepfed" or "torch"."""
    fault: str
    method: str
    kind: str


class LogTeller(logging.Handler):
    """Tells every line that keepfed logs."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.INFO)
        self.tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it."""
        said = {"event": "logged", "level": record.levelname, "words": record.getMessage()}
        self.tell({**said, "at_s": time.monotonic()})


def run(cell: Cell, folder: Path, tell: Tell) -> None:
    """Read one epoch, and tell. A fault of a worker leaves its mark in `folder`."""
    fault = FAULTS[cell.fault]
    logger, teller = logging.getLogger("keepfed"), LogTeller(tell)
    logger.addHandler(teller)
    warnings.filterwarnings("ignore", "This DataLoader will create")  # three workers on two cores
    torch.manual_seed(SEED)
    lock = threading.Lock() if fault.held_lock else None
    samples = Samples(cell.fault, folder, lock)
    loader = loader_of(cell, samples)
    if fault.descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (fault.descriptors, fault.descriptors))
    tell({"event": "began", "at_s": time.monotonic()})
    try:
        _read(iter_while_held(loader, lock), cell, tell)
    except Exception as error:
        # What torch's loader says when it gives up is a result, whatever it is.
        words = f"{type(error).__name__}: {error}".partition("\n")[0]
        tell({"event": "raised", "words": words, "at_s": time.monotonic()})
    finally:
        logger.removeHandler(teller)


def loader_of(cell: Cell, samples: Samples) -> Any:
    """The loader of this cell."""
    fault = FAULTS[cell.fault]
    arguments: dict[str, Any] = {"batch_size": BATCH, "num_workers": WORKERS, "collate_fn": samples.collate}
    arguments["multiprocessing_context"] = cell.method
    dataset = DATASETS[cell.kind](samples, BATCH * BATCHES)
    if cell.loader == "torch":
        return torch.utils.data.DataLoader(dataset, **arguments)
    import keepfed

    return keepfed.DataLoader(dataset, **arguments, **fault.options)


def iter_while_held(loader: Any, lock: Any) -> Any:
    """`iter(loader)`, while another thread holds the lock, if there is one."""
    if lock is None:
        return iter(loader)
    held, started = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            started.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        return iter(loader)
    finally:
        started.set()
        thread.join()


def _read(iterator: Any, cell: Cell, tell: Tell) -> None:
    fault, kept, digest = FAULTS[cell.fault], [], hashlib.sha256()
    for count, batch in enumerate(iterator, 1):
        digest.update(struct.pack(f"{len(batch['draw'])}f", *batch["draw"].tolist()))
        said = {"numbers": batch["number"].tolist(), "pid": int(batch["pid"][0]), "right": is_right(batch, fault)}
        tell({"event": "batch", **said, "at_s": time.monotonic()})
        if fault.keep:
            kept.append(batch)
        if count in fault.strikes and fault.strike is not None:
            time.sleep(fault.settle_s)
            workers = [worker.pid for worker in iterator._workers if worker.is_alive()]
            tell({"event": "struck", "known": workers, "at_s": time.monotonic()})
            # Not always the same worker: it is another one's turn after every batch.
            first = count % len(workers)
            fault.strike([*workers[first:], *workers[:first]])
    still_right = all(is_right(batch, fault) for batch in kept)
    tell({"event": "checked", "digest": digest.hexdigest(), "kept_right": still_right, "at_s": time.monotonic()})


def main() -> None:
    """One cell in this process: `fault_program.py FOLDER LOADER FAULT METHOD KIND`."""
    run(Cell(*sys.argv[2:6]), Path(sys.argv[1]), teller(sys.stdout.fileno()))


def teller(fd: int) -> Tell:
    """Tells in lines of JSON on this descriptor."""
    return lambda said: _write(fd, json.dumps(said).encode() + b"\n")


def _write(fd: int, line: bytes) -> None:
    while line:
        line = line[os.write(fd, line) :]


if __name__ == "__main__":
    main()
