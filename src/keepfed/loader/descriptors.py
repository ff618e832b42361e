"""Too few file descriptors: said with the limit and the number that is needed.

torch keeps a descriptor per tensor that is on its way or in the program's hands, so a program that keeps its batches meets
RLIMIT_NOFILE after a thousand tensors (pytorch issue 973). Here the number depends on the workers alone: each has a memory
file, its mapping, a socket and a pidfd in this process, and all of them have a zygote.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from keepfed.errors import TooFewDescriptors
from keepfed.text import say

PER_WORKER = 4
FOR_ALL = 8
"""Socket and pidfd of the zygote, and what is open for a moment while a worker starts."""


def make_sure_of(workers: int) -> None:
    """Before anything is started: is there room for so many workers? Raises TooFewDescriptors where there is not."""
    opened: list[int] = []
    with explained(workers):
        try:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            for _ in range(PER_WORKER * workers + FOR_ALL - 1):
                opened.append(os.dup(opened[0]))  # what was opened before an error has to be known
        finally:
            for fd in opened:
                os.close(fd)


@contextmanager
def explained(workers: int) -> Iterator[None]:
    """Around what opens descriptors for so many workers. Raises TooFewDescriptors where the kernel says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE) or isinstance(error, TooFewDescriptors):
            raise
        raise _too_few(error.errno, PER_WORKER * workers + FOR_ALL) from error


def _too_few(number: int, needed: int) -> TooFewDescriptors:
    import resource  # does not exist on Windows, and neither do workers of ours

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    key = "loader.too_few_descriptors" if number == errno.EMFILE else "loader.too_few_descriptors_host"
    said = say(key, limit=limit, needed=needed)
    return TooFewDescriptors(
        said, number, next_step=say("loader.too_few_descriptors_next", enough=_enough(limit, needed))
    )


def _enough(limit: int, needed: int) -> int:
    """A limit to ask for: the next power of two with room for the loader and its next epoch's."""
    return 1 << (limit + 2 * needed - 1).bit_length()
