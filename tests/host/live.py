"""Real processes to look at from outside, and waiting for what becomes of them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def child(body: Callable[[], object]) -> Iterator[int]:
    """A fork of this process that does `body` and then ends; killed at the end."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            body()
        os._exit(1)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def until(claim: Callable[[], object], seconds: float = 30.0) -> bool:
    """Whether `claim` comes true."""
    end = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end:
            return False
        time.sleep(0.002)
    return True
