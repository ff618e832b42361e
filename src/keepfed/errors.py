"""Every exception that keepfed raises on purpose.

    KeepfedError                      what went wrong, and the next step
    ├── UsageError                    an argument, option or environment variable is wrong
    │   └── WrongType                 an argument of the DataLoader has a wrong type; also a TypeError
    ├── ProfileError                  keepfed.toml (or --plan FILE) cannot be used; names file and line
    ├── UnreachableError              the thing asked about could not be reached or measured
    └── LoaderError                   the data loader cannot go on
        ├── WorkerDied                a worker process ended by itself; also a RuntimeError, in torch's wording
        ├── WorkerStuck              a worker makes no progress, and the program asked to be told; also a RuntimeError
        ├── WorkerNotReady            a worker that was not forked from the program could not unpack its dataset
        ├── ForkedIterator            an iterator was used in a forked child of the process that made it
        ├── StoppedEarly              StopIteration came out of a sample; also a RuntimeError, as in generators
        ├── SkippedTooMany            more samples were skipped than max_skipped allows
        ├── EmptyBatch                all samples of a batch were skipped, and other ranks wait for that batch
        ├── TooFewDescriptors         no descriptor is left for a worker; also an OSError
        └── BatchCorrupted            verify mode found bytes that are not the ones that the worker wrote

Each one carries the next step, so that no message ends with the problem alone.
"""

from __future__ import annotations

import errno


class KeepfedError(Exception):
    """Base of all errors that keepfed raises on purpose.

    `message` says what happened and where; `next_step` says what the reader can do about it.
    """

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(f"{message}\n{next_step}" if next_step else message)
        self.message = message
        self.next_step = next_step


class UsageError(KeepfedError):
    """An argument, option or environment variable has a value that cannot be used."""


class WrongType(UsageError, TypeError):
    """An argument is of a type that torch's DataLoader refuses with a TypeError."""


class ProfileError(KeepfedError):
    """A plan file is malformed; the message starts with `file:line`."""


class UnreachableError(KeepfedError):
    """What was asked about (a process, a device, a measurement) could not be reached."""


class LoaderError(KeepfedError):
    """The data loader cannot deliver the next batch."""


class WorkerDied(LoaderError, RuntimeError):
    """A worker ended without being asked to.

    A RuntimeError whose text keeps torch's wording ("DataLoader worker (pid(s) N) exited unexpectedly"), since programs
    and people search for it.
    """


class WorkerStuck(LoaderError, RuntimeError):
    """A worker made no progress for `stall_timeout` seconds, with `on_stall="raise"`. `next()` may be called again."""


class WorkerNotReady(LoaderError, RuntimeError):
    """A worker that was started by spawn or forkserver could not import the program's modules or unpickle its dataset."""


class StoppedEarly(LoaderError, RuntimeError):
    """A StopIteration came out of `__getitem__`, a transform or a collate function, where it must not end the epoch.

    A RuntimeError as in generators (PEP 479).
    """


class SkippedTooMany(LoaderError):
    """`on_error="skip"` left out more samples than `max_skipped` allows."""


class EmptyBatch(LoaderError):
    """`on_error="skip"` left no sample of a batch that other ranks wait for.

    A single process leaves the batch out; a rank that did so would run one step less than the others.
    """


class TooFewDescriptors(LoaderError, OSError):
    """The limit of open files leaves no room for a worker. An OSError with the kernel's number (EMFILE or ENFILE)."""

    def __init__(self, message: str, number: int = errno.EMFILE, *, next_step: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.errno = number


class ForkedIterator(LoaderError, RuntimeError):
    """`next()` was called in a forked child on an iterator that belongs to the parent process."""


class BatchCorrupted(LoaderError):
    """Verify mode compared checksums and found different bytes: a bug in keepfed, never in the program."""
