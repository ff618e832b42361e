"""Which way of adding a setting fits the files that were named; and the proof that it is there afterwards.

An insertion is made of text, so it is read again like any file of the user's: the new setting has to be found, with its value,
and every other one still has to say what it said. Otherwise it is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from keepfed.edit.choosing import Place, same_file
from keepfed.edit.inserting.command import insert_in_docker_run, insert_in_job
from keepfed.edit.inserting.compose import insert_in_service, is_compose
from keepfed.edit.inserting.environment import insert_in_dockerfile, insert_in_dotenv, insert_in_shell
from keepfed.edit.inserting.kubernetes import insert_shared_memory, is_pod
from keepfed.edit.inserting.loader_call import insert_in_calls
from keepfed.edit.inserting.neighbours import insert_beside, neighbours
from keepfed.edit.inserting.text import Text
from keepfed.edit.replacement import Edit, EditRefused, applied
from keepfed.edit.respelling import says_the_same
from keepfed.knobs.knob import Wish
from keepfed.knobs.reading import read_or_lines
from keepfed.knobs.site import KnobSite, Role
from keepfed.knobs.source import Source
from keepfed.text import say

_SHELL = (".sh", ".bash", ".zsh", ".slurm", ".sbatch", ".job")


def added(
    wish: Wish,
    sites: Sequence[KnobSite],
    sources: Mapping[str, Source],
    *,
    place: Place | None = None,
    named: Collection[str] = (),
) -> list[Edit]:
    """The edits that add what is missing; none where there is nothing beside which it would belong.

    `named` are files that the user gave by name: only those get a variable or a mount without a neighbour. Raises EditRefused.
    """
    files = {name: source for name, source in _texts(sources) if place is None or same_file(name, place.file)}
    line = place.line if place else None
    beside = [site for site in neighbours(wish, sites, place) if site.file in files]
    edits = [insert_beside(wish, site, Text(files[site.file])) for site in beside]
    for name in [] if edits else files:
        edits += _unaccompanied(wish, Text(files[name]), line, named=name in named or place is not None)
    if not all(site.role is Role.CALL for site in beside) or not beside:
        _refuse_many(wish, edits, named)
    for file in {edit.file for edit in edits}:
        _prove(wish, files[file], [edit for edit in edits if edit.file == file])
    return edits


def _refuse_many(wish: Wish, edits: Sequence[Edit], named: Collection[str]) -> None:
    """A loader call in every file may be meant; a line in every script, service and image of a project hardly ever is."""
    files = dict.fromkeys(edit.file for edit in edits)
    if len(files) > 1 and not files.keys() <= {*named}:
        places = ", ".join(files)
        raise EditRefused(
            say("edit.which_file", name=wish.spelling), next_step=say("edit.which_file_next", places=places)
        )


def sites_of(edits: Sequence[Edit], sources: Mapping[str, Source]) -> list[KnobSite]:
    """The places that insertions have made, as a scan will find them."""
    found: list[KnobSite] = []
    for file in {edit.file for edit in edits}:
        own = [edit for edit in edits if edit.file == file]
        after = Source.of(file, applied(sources[file].data, own))
        sites, _ = read_or_lines(after) if after else ([], "")
        knobs = {edit.knob for edit in own}
        found += [site for site in sites if site.knob in knobs]
    return found


def _texts(sources: Mapping[str, Source]) -> Iterable[tuple[str, Source]]:
    for name in sources:
        try:
            yield name, sources[name]
        except KeyError:  # its text was not kept, or it is none
            continue


def _unaccompanied(wish: Wish, text: Text, line: int | None, *, named: bool) -> list[Edit]:
    name = text.source.name.lower()
    base = name.rpartition("/")[2]
    if wish.knob == "shm_size":
        return _shared_memory(wish, text, line, name)
    if wish.knob == "cpus_per_task":
        return insert_in_job(wish, text)
    if wish.knob == "threads_env":
        return _variable(wish, text, line, base) if named else []
    return insert_in_calls(wish, text, line) if base.endswith(".py") else []


def _shared_memory(wish: Wish, text: Text, line: int | None, name: str) -> list[Edit]:
    if name.endswith((".yaml", ".yml", ".tpl", ".m4", ".j2")):
        if is_compose(text):
            return insert_in_service(wish, text, line)
        return insert_shared_memory(wish, text, line) if is_pod(text) else []
    return [] if name.endswith((".py", ".md", ".ipynb")) else insert_in_docker_run(wish, text, line)


def _variable(wish: Wish, text: Text, line: int | None, base: str) -> list[Edit]:
    if base.endswith((".yaml", ".yml")):
        return insert_in_service(wish, text, line) if is_compose(text) else []
    if "dockerfile" in base or "containerfile" in base:
        return [insert_in_dockerfile(wish, text)]
    if base.endswith(_SHELL):
        return [insert_in_shell(wish, text)]
    return [insert_in_dotenv(wish, text)] if "env" in base.replace("-", ".").split(".") else []


def _prove(wish: Wish, source: Source, edits: Sequence[Edit]) -> None:
    """Read the file as it would be. Raises EditRefused where the setting is not there, or another one changed."""
    after = Source.of(source.name, applied(source.data, edits))
    before, _ = read_or_lines(source)
    found, _ = read_or_lines(after) if after else ([], "")
    gone = Counter(map(_says, before)) - Counter(map(_says, found))
    there = [site for site in found if site.knob == wish.knob and says_the_same(site, site.value, wish)]
    # A template is not read as what it becomes: there, what was written is all that can be known.
    if gone or (not there and "{{" not in source.text and not source.name.endswith(".m4")):
        raise EditRefused(say("edit.not_proven", file=source.name), next_step=say("edit.no_room_next"))


def _says(site: KnobSite) -> tuple[str, str, str]:
    return site.spelling, site.value, site.owner
