"""A spec written down: which files, with which rights, and what they cannot say."""

from __future__ import annotations

from pathlib import Path

from keepfed.recreate.compose import compose_file
from keepfed.recreate.environment import for_compose, for_run
from keepfed.recreate.files import Written, beside
from keepfed.recreate.flags import run_words
from keepfed.recreate.script import Health, script
from keepfed.recreate.spec import ContainerSpec, Uncarried

_FOR_ITS_OWNER = 0o600


def as_script(
    spec: ContainerSpec, path: Path, health: Health, commit: str
) -> tuple[list[Written], tuple[Uncarried, ...]]:
    """A script at `path`, and its variables beside it; `commit` is the image that it makes of the old container first."""
    environment = for_run(spec.environment)
    files = [Written(path, script(spec, environment, path.stem, health, commit), 0o700)]
    for text, suffix in ((environment.env_file, "env"), (environment.exports, "exports")):
        if text:
            files.append(Written(beside(path, suffix), text, _FOR_ITS_OWNER))
    return files, (*run_words(spec).uncarried, *environment.uncarried)


def as_compose(spec: ContainerSpec, path: Path) -> tuple[list[Written], tuple[Uncarried, ...]]:
    """A compose file at `path`, and its variables beside it."""
    text, unheld = for_compose(spec.environment)
    env_file = beside(path, "env")
    composed, unsaid = compose_file(spec, f"./{env_file.name}" if text else "")
    files = [Written(path, composed, _FOR_ITS_OWNER)]
    if text:
        files.append(Written(env_file, text, _FOR_ITS_OWNER))
    return files, (*unsaid, *unheld)
