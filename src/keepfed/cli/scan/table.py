"""The table of `keepfed scan`: a block per file, a line per place; what counts stands out, what only speaks of it is dimmed.

    configs/train.yaml
      12:14  num_workers       num_workers       8   4 (git)   literal    yes
      20:3   num_workers       test_num_workers  2             literal

Columns are as wide as what stands in them, and as all other blocks have them. On a narrow terminal the canonical name goes
first: the spelling tells it nearly always. What is too wide is folded; of what is computed, forty characters are shown.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keepfed.cli.tune.terminal import show
from keepfed.knobs.scan import Scanned
from keepfed.knobs.site import Kind, KnobSite, Skipped
from keepfed.text import say

_LONGEST_SHOWN = 3
_DIM = (Kind.REFERENCE, Kind.RECORD, Kind.DEAD, Kind.OVERRIDDEN)
_GAP = 2
_LONG_VALUE = 40
_COLUMNS = ("place", "knob", "spelling", "written", "original", "in_effect", "kind", "wins")
# What gives way first on a narrow terminal, and how little of it is still readable.
_GIVES_WAY = (("wins", 16), ("written", 16), ("spelling", 18), ("original", 10), ("written", 8), ("spelling", 12))


def show_table(scanned: Scanned, paths: Sequence[str]) -> None:
    """Print all sites and a line about what was left out."""
    out = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not sys.stdout.isatty():
        out.width = 1000
    rows = [(site, _cells(site)) for site in scanned.sites]
    if rows:
        widths = _widths([cells for _, cells in rows], out.width)
        show(out, _grid([({name: Text(say(f"scan.column_{name}"), "dim") for name in widths}, "")], widths))
        for file, group in groupby(rows, key=lambda row: row[0].file):
            show(out, Text(file, "bold"))
            show(out, _grid([({k: Text(v) for k, v in cells.items()}, _style(site)) for site, cells in group], widths))
        out.print()
    show(out, Text(_summary(scanned, paths)))
    for line in _left_out(scanned.skipped):
        show(out, Text(line, "dim"))


def _cells(site: KnobSite) -> dict[str, str]:
    return {
        "place": f"{site.line}:{site.column}",
        "knob": site.knob,
        "spelling": site.spelling,
        "written": _one_line(site.value),
        "original": _original(site),
        "in_effect": site.in_effect.value if site.in_effect else "",
        "kind": say(f"scan.kind_{site.kind.value}"),
        "wins": _wins(site),
    }


def _wins(site: KnobSite) -> str:
    """Whether it counts, and where the value stands that counts instead: by its line alone in the same file."""
    if site.wins is not False:
        return say("scan.wins") if site.wins else ""
    file, _, line = site.counts_at.rpartition(":")
    if file == site.file:
        return say("scan.loses_to_line", line=line)
    return say("scan.loses_to", place=site.counts_at) if file else say("scan.loses")


def _original(site: KnobSite) -> str:
    """What stood there first, where that is something else."""
    if site.original is None or site.original.value == site.value:
        return ""
    return f"{_one_line(site.original.value)} ({say(f'scan.source_{site.original.source}')})"


def _one_line(value: str) -> str:
    plain = " ".join(value.split())
    return plain if len(plain) <= _LONG_VALUE else f"{plain[: _LONG_VALUE - 3]}..."


def _widths(rows: Iterable[dict[str, str]], room: int) -> dict[str, int]:
    """Columns that have something in them, as wide as that is or as the room allows."""
    widths: dict[str, int] = {}
    cells = list(rows)
    for name in _COLUMNS:
        longest = max(cell_len(row[name]) for row in cells)
        if longest:
            widths[name] = max(longest, cell_len(say(f"scan.column_{name}")))
    if _total(widths) > room:
        del widths["knob"]
    for name, least in _GIVES_WAY:
        over = _total(widths) - room
        if over > 0 and name in widths:
            widths[name] = max(min(least, widths[name]), widths[name] - over)
    return widths


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + _GAP * len(widths)


def _grid(rows: Iterable[tuple[dict[str, Text], str]], widths: dict[str, int]) -> Table:
    table = Table.grid(padding=0)
    for width in widths.values():
        table.add_column(width=_GAP, no_wrap=True)
        table.add_column(width=width, overflow="fold")
    for cells, style in rows:
        table.add_row(*(part for name in widths for part in (Text(), cells[name])), style=style)
    return table


def _style(site: KnobSite) -> str:
    if site.wins:
        return "bold"
    return "dim" if site.kind in _DIM or site.wins is False else ""


def _summary(scanned: Scanned, paths: Sequence[str]) -> str:
    if not scanned.sites:
        return say("scan.nothing", paths=", ".join(paths))
    files = len({site.file for site in scanned.sites})
    return say("scan.summary", sites=len(scanned.sites), files=files)


def _left_out(skipped: Iterable[Skipped]) -> list[str]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in skipped:
        by_reason[one.reason].append(one.file)
    lines = []
    for reason, files in by_reason.items():
        named = ", ".join(files[:_LONGEST_SHOWN])
        more = len(files) - _LONGEST_SHOWN
        names = say("scan.and_more", names=named, count=more) if more > 0 else named
        lines.append(say("scan.left_out", reason=say(reason), names=names))
    return lines
