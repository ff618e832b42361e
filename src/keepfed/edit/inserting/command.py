"""`--shm-size` for a `docker run` in a script, `--cpus-per-task` for a job: options of a command that stands in a line."""

from __future__ import annotations

import re

from keepfed.edit.inserting.text import Text
from keepfed.edit.replacement import Edit, EditRefused
from keepfed.edit.respelling import docker_size
from keepfed.knobs.knob import Wish
from keepfed.text import say

_RUN = re.compile(
    r"(?m)^(?P<lead>[^#\n]*?)\b(?:nvidia-docker|docker|podman|nerdctl)[ \t]+(?:container[ \t]+)?(?:run|create)(?=[ \t\\])"
)
_SHARED = re.compile(r"--ipc[= ][\"']?(?:host|container:)")
_SBATCH = re.compile(r"(?m)^#SBATCH[ \t]+-[^\r\n]*")


def insert_in_docker_run(wish: Wish, text: Text, line: int | None) -> list[Edit]:
    """`--shm-size` for the one `docker run` that is meant. Raises EditRefused where that is not clear."""
    found = [run for run in _RUN.finditer(text.all) if line is None or text.line_of(run.end()) == line]
    if not found:
        return []
    if len(found) > 1:
        places = ", ".join(f"{text.source.name}:{text.line_of(run.end())}" for run in found)
        raise EditRefused(say("edit.which_run", file=text.source.name), next_step=say("edit.which_next", places=places))
    at = found[0].end()
    shared = _SHARED.search(_command(text, at))
    if shared:
        place = f"{text.source.name}:{text.line_of(at)}"
        raise EditRefused(say("edit.ipc_shared", place=place, value=shared[0]), next_step=say("edit.ipc_shared_next"))
    return [text.edit(wish, "--shm-size", at, f" --shm-size={docker_size(wish.value)}")]


def insert_in_job(wish: Wish, text: Text) -> list[Edit]:
    """One more `#SBATCH` line behind the last."""
    lines = list(_SBATCH.finditer(text.all))
    if not lines:
        return []
    return [text.edit(wish, "--cpus-per-task", lines[-1].end(), f"{text.eol}#SBATCH --cpus-per-task={wish.value}")]


def _command(text: Text, at: int) -> str:
    """The rest of a command, continued lines included."""
    end = text.line_end(at)
    while text.all[at:end].rstrip().endswith("\\") and end < len(text.all):
        end = text.line_end(text.all.index("\n", end) + 1)
    return text.all[at:end]
