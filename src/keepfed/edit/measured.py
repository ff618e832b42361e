"""From keepfed.toml to places: each loader was measured under the line that builds it, and its settings belong into that call.

    [[loader]]                          train.py:34   loader = DataLoader(
    site = "train.py:34"        ──→     train.py:36       num_workers=args.workers,      a name: led to where it is defined
    num_workers = 8                     train.py:37   )
    prefetch_factor = 4                 train.py:12   add_argument("--workers", default=2)   ← changed to 8

What a call does not say stays unsaid where torch's default is what was measured (prefetch_factor 2), and is added with `--insert` else. A loader
that a framework builds has no call of its own; if it is the only one, the settings of the whole project are meant.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from keepfed.edit.choosing import Choice, Kept, Place, choose, definitions_of, same_file
from keepfed.edit.replacement import EditRefused
from keepfed.knobs.knob import Wish
from keepfed.knobs.site import Kind, KnobSite, Role, Span
from keepfed.knobs.source import Source
from keepfed.profile import LoaderProfile
from keepfed.text import say

TORCH_PREFETCH = 2
"""What torch takes for prefetch_factor where there are workers and nobody says (torch.utils.data.DataLoader)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One setting of one loader, and what it means in the files."""

    choice: Choice
    """The places to change."""
    place: Place
    """The line that builds the loader, where the setting is added if it is missing."""
    needed: bool = True
    """Whether it has to be written, or is torch's own default."""


def measured(
    entries: Sequence[LoaderProfile], sites: Sequence[KnobSite], sources: Mapping[str, Source]
) -> list[Measured]:
    """What the plans of these loaders come to. Raises EditRefused where a loader's line builds none, or more than one."""
    found = []
    for entry in entries:
        file, _, line = entry.loader.site.rpartition(":")
        place = Place(file.replace("\\", "/"), int(line))
        inside = _inside(entry, place, sites, sources, alone=len(entries) == 1)
        for wish in _wishes(entry):
            default = wish.knob == "prefetch_factor" and int(wish.value) == TORCH_PREFETCH
            choice = choose(wish, sites) if inside is None else _in_call(wish, inside, sites)
            found.append(Measured(choice, place, needed=not default))
    return found


def _wishes(entry: LoaderProfile) -> Iterator[Wish]:
    yield Wish("num_workers", "num_workers", str(entry.plan.num_workers))
    if entry.plan.num_workers:
        yield Wish("prefetch_factor", "prefetch_factor", str(entry.plan.prefetch_factor))


def _inside(
    entry: LoaderProfile, place: Place, sites: Sequence[KnobSite], sources: Mapping[str, Source], *, alone: bool
) -> list[KnobSite] | None:
    """The sites in the call of a loader; None where a framework builds it and everything is meant."""
    names = [name for name in sources if same_file(name, place.file)]
    if len(names) != 1:
        key = "edit.plan_no_file" if not names else "edit.plan_many_files"
        message = say(key, loader=entry.loader, files=", ".join(names))
        raise EditRefused(message, next_step=say("edit.plan_next"))
    file = names[0]
    own = [site for site in sites if site.file == file]
    calls = [call for call in _calls(sources[file], place.line) if _is_loader(call, own, sources[file])]
    if len(calls) == 1:
        span = _span(calls[0], sources[file])
        within = [site for site in own if span.start <= site.span.start and site.span.end <= span.end]
        spread = any(keyword.arg is None for keyword in calls[0].keywords)
        return within + ([site for site in own if site.role is Role.CONFIG and site not in within] if spread else [])
    if alone and not calls:
        return None
    key = "edit.plan_no_call" if not calls else "edit.plan_many_calls"
    raise EditRefused(say(key, loader=entry.loader), next_step=say("edit.plan_next"))


def _in_call(wish: Wish, inside: Sequence[KnobSite], sites: Sequence[KnobSite]) -> Choice:
    choice = Choice(wish)
    for site in inside:
        if site.knob != wish.knob or site.kind is Kind.DEAD:
            continue
        if site.target is not None:
            choice.changing.append(site)
            continue
        definitions = [
            other for other in definitions_of(site, sites) if other.target is not None and other.wins is not False
        ]
        winners = [other for other in definitions if other.wins] or definitions
        if winners:
            choice.changing += winners
            choice.ways += [(site, other) for other in winners]
        else:
            choice.kept.append(Kept(site, site.refusal or "edit.kept_reference"))
    return choice


def _calls(source: Source, line: int) -> list[ast.Call]:
    """The calls that begin on a line: that is the line of the frame that makes them (Python 3.8 and newer)."""
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.lineno == line]


def _is_loader(call: ast.Call, sites: Sequence[KnobSite], source: Source) -> bool:
    """Whether a call builds a loader: by its name, or because it takes a loader's settings and no inner call does."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name.endswith(("DataLoader", "Loader")):
        return True
    own = _span(call, source)
    within = [site for site in sites if own.start <= site.span.start < own.end and site.role is Role.CALL]
    inner = [_span(node, source) for node in ast.walk(call) if isinstance(node, ast.Call) and node is not call]
    return any(not any(span.start <= site.span.start < span.end for span in inner) for site in within)


def _span(call: ast.Call, source: Source) -> Span:
    start = source.offset(call.lineno, call.col_offset)
    return source.span(start, source.offset(call.end_lineno or call.lineno, call.end_col_offset or 0))
