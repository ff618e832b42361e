"""The processes of a container as live programs: command lines, environments, loader workers."""

from __future__ import annotations

from keepfed.engine.container import Container
from keepfed.errors import UnreachableError
from keepfed.host.running import Running, read_running


def running_in(container: Container) -> tuple[Running, ...]:
    """Every process of it but loader workers, parents first; those that may not be looked at are left out.

    What `docker exec` starts is no child of the container's first process, so each one is asked. Nothing where the container does
    not run, or runs on another machine.
    """
    found: dict[int, Running] = {}
    for pid in sorted(process.pid for process in container.processes_here()):
        if pid in found:
            continue
        try:
            found |= {one.pid: one for one in read_running(pid)}
        except UnreachableError:
            continue
    workers = {worker for one in found.values() for worker in one.workers}
    return tuple(one for pid, one in found.items() if pid not in workers)
