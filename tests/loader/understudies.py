"""What tests need to know of a pool's zygote and of the one that waits to take its place."""

from __future__ import annotations

import os
import signal
from typing import Any

from keepfed.loader.pool import Pool
from tests.loader.processes import children_of, wait_until


def understudy_of(pool: Pool) -> int:
    """Its process id, as soon as there is one."""
    zygote = pool._zygote.pid
    workers = {worker.pid for worker in pool.workers.values()}
    found: list[int] = []

    def there() -> bool:
        found[:] = [pid for pid in children_of(zygote) if pid not in workers]
        return bool(found)

    wait_until(there, "an understudy")
    return found[0]


def kill_zygote(pool: Pool) -> int:
    """Kill it once it has an understudy; its process id."""
    understudy_of(pool)
    killed = pool._zygote.pid
    os.kill(killed, signal.SIGKILL)
    return killed


def succeed(pool: Pool) -> int:
    """Kill the zygote and hear of its successor; the process id of the one that was killed."""
    generation = pool._zygote.generation
    killed = kill_zygote(pool)
    wait_until(lambda: pool.hear(0.2) and pool._zygote.generation > generation, "a successor")
    return killed


def pool_of(iterator: Any) -> Pool:
    """The processes of one of our iterators."""
    found: Pool = iterator._crew.roster.pool()
    return found
