"""Figures → the page, in the reader's language and within its size.

A program may build two hundred loaders and search for hours. The page stays under LARGEST all the same: loaders get their
pictures in order of the time that their search took, until the room is used up; the others stand in the overview, which
names everything that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keepfed.host.words import amount, number
from keepfed.plan import Plan
from keepfed.text import language, say
from keepfed.tuning.numbers import NONE, arrow, percent, plan_text, rate, seconds_text, size
from keepfed.tuning.report.headline import gain_text, headline, loader_sentence
from keepfed.tuning.report.marks import Figure, Table
from keepfed.tuning.report.phases import phases
from keepfed.tuning.report.prediction import prediction
from keepfed.tuning.report.reading import Document, Facts, Loader, Point, printable, read_document
from keepfed.tuning.report.sweep import sweep
from keepfed.tuning.report.throughput import throughput
from keepfed.tuning.report.timeline import timeline

if TYPE_CHECKING:
    from jinja2 import Environment

LARGEST = 1_000_000
"""Bytes that a page may have."""

_ROOM = 700_000
"""Bytes for the sections of loaders; overview, host and style share the rest."""

_MOST_OVERVIEW = 250
"""Loaders in the overview."""

_MOST_MOVES = 100
"""Moves in the list of a loader."""

_MOST_LIFTS = 20
"""Sentences about what would lift the limit."""


@dataclass(frozen=True, slots=True)
class About:
    """What a page says that does not stand in the document."""

    command: str
    """The measured command, as it can be typed again; empty if there is none."""

    use: str
    """The one command that uses what was found; empty if nothing was written that could be used."""

    made_at: str
    """When, as it is to be shown."""

    version: str
    """Version of keepfed."""


@dataclass(frozen=True, slots=True)
class Section:
    """One loader on the page."""

    anchor: str
    """Where links to it lead."""

    name: str
    """The loader."""

    sentence: str
    """What was found for it; empty where the headline has said it."""

    details: tuple[tuple[str, str], ...]
    """What else is to be said in a line each: label and words."""

    before_after: Table | None
    """The two plans."""

    lifts: tuple[str, ...]
    """What would lift the limit."""

    figures: tuple[Figure, ...]
    """The pictures."""

    moves: Table | None
    """The path in words."""


def page(document: Mapping[str, Any], about: About) -> str:
    """The page for a document of `tune --json`, in the language in force; shorter than LARGEST in UTF-8."""
    known = read_document(document)
    template = _environment().get_template("page.html.jinja")
    anchors = [f"loader-{place}" for place, _ in enumerate(known.loaders, 1)]
    sections, left_out = _sections(known, anchors)
    shown = len(sections)
    trials = sweep(known.trials)
    return template.render(
        lang="zh-Hans" if language() == "zh" else "en",
        headline=headline(known),
        about=About(*(printable(text) for text in (about.command, about.use, about.made_at, about.version))),
        overview=_overview(known.loaders) if len(known.loaders) > 1 else None,
        links=[f"#{anchor}" for anchor in anchors[:shown]],
        sections=sections,
        left_out=say("report.left_out", count=left_out) if left_out else "",
        sweep=trials,
        host=_host(known.host),
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["say"] = say
    return made


# --------------------------------------------------------------------------------------------------------------- sections


def _sections(document: Document, anchors: list[str]) -> tuple[list[str], int]:
    """The markup of as many loaders as there is room for, and how many are left out."""
    template = _environment().get_template("section.html.jinja")
    sections: list[str] = []
    room = _ROOM
    for loader, anchor in zip(document.loaders, anchors, strict=True):
        made = template.render(section=_section(loader, anchor, document))
        room -= len(made.encode())
        if room < 0:
            break
        sections.append(made)
    return sections, len(document.loaders) - len(sections)


def _section(loader: Loader, anchor: str, document: Document) -> Section:
    headed = len(document.loaders) == 1 and not document.trials
    figures = (throughput(loader, document.search), timeline(loader), prediction(loader), phases(loader))
    return Section(
        anchor,
        loader.name,
        "" if headed else loader_sentence(loader),
        _details(loader),
        _before_after(loader),
        loader.lifts[:_MOST_LIFTS],
        tuple(figure for figure in figures if figure is not None),
        _moves(loader),
    )


def _details(loader: Loader) -> tuple[tuple[str, str], ...]:
    limit = loader.reason or say(f"tune_report.limit_{loader.limited_by}")
    kept = [move.reason for move in loader.moves if move.kept and move.reason]
    state = "tune_report.state_settled" if loader.settled else "tune_report.state_unsettled"
    known = {
        "report.why": kept[-1] if kept else "",
        "report.limit": limit if loader.settled else "",
        "report.search": "" if loader.seconds is None else say(state, seconds=seconds_text(loader.seconds)),
        "report.batch": "" if loader.batch_size is None else say("report.n_samples", count=loader.batch_size),
        "report.dataset": loader.dataset,
        "report.built": loader.site,
    }
    return tuple((say(key), text) for key, text in known.items() if text)


def _before_after(loader: Loader) -> Table | None:
    before, after = loader.before, loader.after
    if before is None or after is None:
        return None
    measured = {point.plan: point for point in loader.points}
    ends = (before, after)
    memory = [size(int(_same(point, measured).memory_bytes or 0)) for point in ends]
    cpu = [_cpu(_same(point, measured)) for point in ends]
    lines = {
        "report.workers": [str(point.plan.num_workers) for point in ends],
        "report.prefetch": [_prefetch(point.plan) for point in ends],
        "report.rate": [rate(point.per_s) for point in ends],
        "report.wait": [percent(point.wait_share) for point in ends],
        "report.memory": memory,
        "report.cpu_per_batch": cpu,
        "report.gpu_idle": [NONE, percent(loader.stall_share)],
    }
    rows = tuple((say(key), *cells) for key, cells in lines.items() if set(cells) != {NONE})
    after_key = "tune_report.after" if loader.settled else "tune_report.best_so_far"
    if before.plan == after.plan:
        return Table(("", say("report.measured")), tuple((row[0], row[2]) for row in rows))
    return Table(("", say("tune_report.before"), say(after_key)), rows)


def _same(point: Point, measured: Mapping[Plan, Point]) -> Point:
    return measured.get(point.plan, point)


def _prefetch(plan: Plan) -> str:
    return str(plan.prefetch_factor) if plan.num_workers else NONE


def _cpu(point: Point) -> str:
    return NONE if point.cpu_s_per_batch is None else say("report.n_seconds", seconds=rate(point.cpu_s_per_batch))


def _moves(loader: Loader) -> Table | None:
    moves = [move for move in loader.moves if move.point.per_s > 0][:_MOST_MOVES]
    if not moves:
        return None
    head = tuple(say(f"report.{key}") for key in ("move", "plan", "verdict", "rate", "wait", "reason"))
    rows = tuple(
        (
            str(place),
            plan_text(move.point.plan),
            say("report.kept" if move.kept else "report.dropped"),
            rate(move.point.per_s),
            percent(move.point.wait_share),
            move.reason or NONE,
        )
        for place, move in enumerate(moves, 1)
    )
    return Table(head, rows, words=(0, 1, 2, 5))


def _overview(loaders: tuple[Loader, ...]) -> Table:
    """A row per loader, in the order of the sections."""
    head = tuple(say(f"report.{key}") for key in ("loader", "state", "workers", "rate", "gain", "wait"))
    rows = tuple(_overview_row(loader) for loader in loaders[:_MOST_OVERVIEW])
    return Table(head, rows, words=(0, 1))


def _overview_row(loader: Loader) -> tuple[str, ...]:
    before, after = loader.before, loader.after
    state = say("report.settled" if loader.settled else "report.unsettled")
    name = loader.name if len(loader.name) <= 120 else f"…{loader.name[-119:]}"
    if before is None or after is None:
        return (name, state, NONE, NONE, NONE, NONE)
    gain = gain_text(before, after)
    return (
        name,
        state,
        arrow(str(before.plan.num_workers), str(after.plan.num_workers)),
        arrow(rate(before.per_s), rate(after.per_s)),
        f"{gain}×" if gain else NONE,
        arrow(percent(before.wait_share), percent(after.wait_share)),
    )


# ------------------------------------------------------------------------------------------------------------------- host


def _host(host: Facts) -> tuple[tuple[str, str], ...]:
    """The machine in a line per fact."""
    known = {
        "report.cores": _cores(host),
        "report.host_memory": _memory(host),
        "report.gpus": _gpus(host),
        "report.cpu": host.text("cpu_model"),
        "report.load": _load(host),
        "report.system": host.text("kernel"),
        "report.container": host.text("container"),
        "report.python": host.text("python"),
        "report.fingerprint": host.text("fingerprint"),
    }
    return tuple((say(key), text) for key, text in known.items() if text)


def _cores(host: Facts) -> str:
    cores, cause = host.amount("cores"), host.text("cores_cause")
    if cores is None:
        return ""
    machine, pool, ranks = (host.amount(key) for key in ("cores_machine", "cores_pool", "ranks"))
    facts = {"cores": number(cores), "machine": number(machine), "pool": number(pool), "ranks": number(ranks)}
    said = say(f"host.cores.{cause}", source=host.text("cores_source"), **facts)
    return number(cores) if said.startswith("host.") else said


def _memory(host: Facts) -> str:
    memory, available = host.amount("memory_bytes"), host.amount("memory_available_bytes")
    if memory is None:
        return ""
    if available is None:
        return amount(memory)
    return say("report.memory_free", memory=amount(memory), available=amount(available))


def _gpus(host: Facts) -> str:
    names = [gpu.text("name") or "?" for gpu in host.many("gpus")]
    return say("report.list").join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))


def _load(host: Facts) -> str:
    load, pressure = host.amount("load_1m"), host.share("cpu_pressure")
    parts = [
        "" if load is None else say("report.load_average", load=number(load)),
        "" if pressure is None else say("report.cpu_pressure", share=percent(pressure)),
    ]
    return say("report.list").join(part for part in parts if part)
