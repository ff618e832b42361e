"""What somebody should know of a change before saying yes: that it will raise, will be overwritten, or leaves a lie behind.

Each is a sentence about one place that was looked at; nothing here stops a change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from keepfed.edit.planning import Planned
from keepfed.edit.replacement import Edit
from keepfed.edit.respelling import unit_changes
from keepfed.knobs.site import Kind, KnobSite, Role
from keepfed.knobs.source import Source
from keepfed.text import say

_LOADING = {Role.CALL, Role.CONFIG}


def cautions(plan: Planned, sites: Sequence[KnobSite], sources: Mapping[str, Source]) -> list[str]:
    """In words, each once."""
    found: list[str] = []
    for site, edit in plan.changed:
        found += _of_place(site, edit, sites)
        if site.role is Role.OPTION and site.file in sources:
            found += _stale_help(site, edit, sources[site.file])
    found += _without_workers(plan, sites)
    found += [
        say("edit.caution_insert", place=f"{edit.file}:{edit.line}", name=edit.spelling)
        for edit in plan.inserted
        if edit.knob in {"num_workers", "prefetch_factor", "pin_memory", "persistent_workers"}
        and not edit.file.endswith(".py")
    ]
    return list(dict.fromkeys(found))


def _of_place(site: KnobSite, edit: Edit, sites: Iterable[KnobSite]) -> Iterator[str]:
    place = f"{site.file}:{site.line}"
    if site.kind is Kind.RECORD or site.role is Role.PRINTED:
        yield say("edit.caution_printout", place=place, default=_default(site, sites))
    if site.kind is Kind.EXPRESSION:
        yield say(
            "edit.caution_expression", place=place, old=edit.was, new=edit.becomes, whole=" ".join(site.value.split())
        )
    if site.kind is Kind.DEAD:
        yield say("edit.caution_dead", place=place)
    if site.kind is Kind.OVERRIDDEN or (site.wins is False and site.kind is not Kind.RECORD):
        counts = f" ({site.counts_at})" if site.counts_at else ""
        yield say("edit.caution_overridden", place=place, counts=counts)
    if site.knob == "shm_size" and unit_changes(edit.was, edit.becomes):
        yield say("edit.caution_unit", place=place, old=edit.was, new=edit.becomes)


def _default(record: KnobSite, sites: Iterable[KnobSite]) -> str:
    """The default that counts where a printout is changed: the option that it was printed from."""
    if record.counts_at:
        return record.counts_at
    name = record.spelling.lstrip("-").replace("-", "_")
    for site in sites:
        if site.role is Role.OPTION and name in {site.setting, site.spelling.lstrip("-").replace("-", "_")}:
            return f"{site.file}:{site.line} ({site.spelling} = {site.value})"
    return (
        say("edit.printed_default", value=record.printed_default) if record.printed_default else say("edit.the_option")
    )


def _stale_help(site: KnobSite, edit: Edit, source: Source) -> Iterator[str]:
    """Help texts repeat the default ("(default: 4)"); they are left alone, and then say something wrong."""
    lines = source.text.split("\n")
    pattern = re.compile(rf"default\w*\W{{1,4}}{re.escape(edit.was)}(?!\w)")
    for number in range(max(1, site.line - 3), min(len(lines), site.line + 4) + 1):
        line = lines[number - 1]
        if pattern.search(line) and not re.search(
            rf"default\s*=\s*{re.escape(edit.was)}(?!\w)", line.split("help")[-1]
        ):
            yield say("edit.caution_help", place=f"{site.file}:{number}", old=edit.was)


def _without_workers(plan: Planned, sites: Iterable[KnobSite]) -> Iterator[str]:
    """torch refuses prefetch_factor and persistent_workers where there are no workers (DataLoader.__init__, ValueError)."""
    none_left = {site.file for site, edit in plan.changed if site.knob == "num_workers" and edit.becomes == "0"}
    if not none_left:
        return
    becomes = {(site.file, site.span): edit.becomes for site, edit in plan.changed}
    for site in sites:
        value = becomes.get((site.file, site.span), site.value)
        given = site.knob == "prefetch_factor" and value.isdecimal()
        asked = site.knob == "persistent_workers" and value.lower() in {"true", "yes", "on", "1"}
        if (given or asked) and site.role in _LOADING and site.wins is not False and site.kind is Kind.LITERAL:
            yield say("edit.caution_no_workers", place=f"{site.file}:{site.line}", name=site.spelling, value=value)
