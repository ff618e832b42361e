"""How many ranks share this host, and what SLURM has given to the job: read from the environment.

The variables are what launchers tell their children (srun(1) "OUTPUT ENVIRONMENT VARIABLES", torchrun's documentation, Open
MPI's mpirun(1)). They are requests, not proof: what SLURM really enforces is an affinity mask or a control group, and only
where its administrator has turned those plugins on (slurm.conf TaskPlugin, cgroup.conf ConstrainCores).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MOST_RANKS = 4096

_LAUNCHERS = (
    # Variable, and whether that launcher may bind each rank to CPUs of its own; torchrun's ranks inherit one common mask.
    ("LOCAL_WORLD_SIZE", False),
    ("OMPI_COMM_WORLD_LOCAL_SIZE", True),
    ("MPI_LOCALNRANKS", True),
)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of one training job on this host."""

    count: int
    """How many there are, at least 1."""
    source: str
    """The variable that tells so, "argument", or "" when nothing does."""
    bind_each: bool
    """Whether their launcher may have bound each of them to CPUs of its own."""


def read_ranks(environ: Mapping[str, str], ranks: int | None = None) -> Ranks:
    """How many ranks share this host; `ranks` overrides the environment.

    A batch script started by sbatch has SLURM_NTASKS_PER_NODE in its environment, yet a program that it starts without srun
    is one process; so SLURM's counts are believed only inside a step (SLURM_STEP_ID is set by srun).
    """
    if ranks is not None:
        return Ranks(max(1, ranks), "argument", bind_each=False)
    for variable, bind_each in _LAUNCHERS:
        if count := whole_number(environ.get(variable, "")):
            return Ranks(min(count, MOST_RANKS), variable, bind_each)
    if "SLURM_STEP_ID" in environ or "SLURM_STEPID" in environ:
        for variable in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE"):
            if count := per_node(environ.get(variable, ""), _node(environ)):
                return Ranks(min(count, MOST_RANKS), variable, bind_each=True)
    return Ranks(1, "", bind_each=False)


def slurm_requests(environ: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """(variable, CPUs on this node) for each of SLURM's statements about the job's share of this node.

    SLURM_CPUS_PER_TASK is multiplied by the tasks on the node, so that all of them speak of the same thing.
    """
    node = _node(environ)
    stated = ("SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE")
    found = [(variable, cpus) for variable in stated if (cpus := per_node(environ.get(variable, ""), node))]
    if per_task := whole_number(environ.get("SLURM_CPUS_PER_TASK", "")):
        counts = (
            per_node(environ.get(variable, ""), node)
            for variable in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")
        )
        found.append(("SLURM_CPUS_PER_TASK", per_task * next(filter(None, counts), 1)))
    return tuple(found)


def per_node(text: str, node: int) -> int | None:
    """The entry for the `node`-th node of a SLURM list such as "72(x2),36"; the last one where the list is too short."""
    entry: int | None = None
    for part in text.split(","):
        number, _, repeat = part.strip().removesuffix(")").partition("(x")
        value, times = whole_number(number), whole_number(repeat) if repeat else 1
        if value is None or times is None:
            return None
        entry = value
        node -= times
        if node < 0:
            break
    return entry


def whole_number(text: str) -> int | None:
    """A plain non-negative number of at most 19 digits; None for anything else (int() takes "1_0" and " ٣ ")."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None


def _node(environ: Mapping[str, str]) -> int:
    return whole_number(environ.get("SLURM_NODEID", "")) or 0
