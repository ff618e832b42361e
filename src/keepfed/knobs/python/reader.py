"""From what the walk noted to sites: whose a place is, what stands there, and whether anybody reads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from keepfed.knobs.python import assignments, calls, defaults, dicts, reads
from keepfed.knobs.python.dead import unread
from keepfed.knobs.python.facts import Place
from keepfed.knobs.python.interest import Interest
from keepfed.knobs.python.ownership import Ownership
from keepfed.knobs.python.parsing import Parsed, line_starts
from keepfed.knobs.python.value import found
from keepfed.knobs.python.walk import Handler, Walk
from keepfed.knobs.site import Form, Kind, KnobSite, Role
from keepfed.knobs.source import Source

_HANDLERS: Mapping[type[ast.AST], Handler] = MappingProxyType(
    {
        ast.AnnAssign: assignments.annotated,
        ast.Assert: reads.tested,
        ast.Assign: assignments.assign,
        ast.AsyncFunctionDef: defaults.function,
        ast.Attribute: reads.attribute,
        ast.AugAssign: assignments.augmented,
        ast.BinOp: reads.passed_on,
        ast.BoolOp: reads.passed_on,
        ast.Call: calls.call,
        ast.ClassDef: defaults.class_,
        ast.Compare: reads.neutral,
        ast.Constant: reads.nothing,
        ast.Dict: dicts.display,
        ast.FunctionDef: defaults.function,
        ast.If: reads.tested,
        ast.IfExp: reads.branches,
        ast.Import: reads.nothing,
        ast.ImportFrom: reads.nothing,
        ast.JoinedStr: reads.neutral,
        ast.Lambda: defaults.lambda_,
        ast.List: reads.sequence,
        ast.Name: reads.name,
        ast.NamedExpr: assignments.walrus,
        ast.Set: reads.sequence,
        ast.Subscript: reads.subscript,
        ast.Tuple: reads.sequence,
        ast.UnaryOp: reads.passed_on,
        ast.While: reads.tested,
    }
)
_SERVERS = re.compile(r"(?:^|/)(?:gunicorn|uvicorn|hypercorn)[^/]*\.py$")
_PARSED_BY_ARGPARSE = {"add_argument", "add_option", "add_arg", "add"}
_QUOTED = re.compile(r"[rRbBuU]{0,2}(\"\"\"|'''|\"|')(.*)\1", re.DOTALL)


def read(source: Source) -> list[KnobSite]:
    """Every site of a Python file, in its order. Raises nothing on bad syntax: what can be read of it is read."""
    return [] if _SERVERS.search(source.name) else read_code(source)


def read_code(source: Source) -> list[KnobSite]:
    """Every site of Python code, wherever it comes from."""
    starts = line_starts(source.utf8)
    interest = Interest(source.utf8, starts)
    if interest.nothing:
        return []
    parsed = Parsed(source, starts)
    facts = Walk(parsed.tree, interest, _HANDLERS).run()
    places = Ownership(facts, parsed).of_loaders()
    sites = [site for place in places if (site := _site(parsed, place)) is not None]
    return _with_dead(_each_once(sites), parsed.tree, source.utf8)


def _site(parsed: Parsed, place: Place) -> KnobSite | None:
    what = found(place.knob, place.value)
    if what is None or _leaves_it_open(place):
        return None
    start, end, quoted = _span(parsed, place.value)
    if what.kind is Kind.LITERAL and start == end:
        return None
    target = None
    if what.target is not None:
        target_start, target_end, _ = _span(parsed, what.target)
        target = parsed.source.span(target_start, target_end) if target_end > target_start else None
    line, column = parsed.source.place(start)
    return KnobSite(
        parsed.source.name,
        line,
        column,
        parsed.source.span(start, end),
        place.knob,
        place.spelling,
        parsed.source.utf8[start:end].decode("utf-8", "surrogatepass"),
        what.kind,
        Form.PYTHON,
        Role.LIMIT if place.knob in {"shm_size", "cpus_per_task"} else place.role,
        quoted=quoted,
        target=target,
        refusal=what.refusal if target is None else "",
        owner=place.owner,
        refers_to=what.refers_to or (_text(parsed, place.value) if what.kind is Kind.REFERENCE else ""),
        setting=place.setting or (what.refers_to.rpartition(".")[2] if what.kind is Kind.REFERENCE else ""),
    )


def _leaves_it_open(place: Place) -> bool:
    """`num_workers=None` as a default or a variable: the value is set elsewhere."""
    nothing = isinstance(place.value, ast.Constant) and place.value.value is None
    return nothing and place.role not in {Role.CALL, Role.CONFIG}


def _span(parsed: Parsed, value: ast.expr) -> tuple[int, int, bool]:
    """Where the value stands, without its quotes, and whether it has some; an empty stretch for a string in pieces."""
    start, end = parsed.stretch(value)
    if not (isinstance(value, ast.Constant) and isinstance(value.value, str)):
        return start, end, False
    text = parsed.source.utf8[start:end].decode("utf-8", "surrogatepass")
    matched = _QUOTED.fullmatch(text)
    if matched is None or matched[2] != value.value:
        return start, start, True
    opening = len(text[: matched.start(2)].encode())
    return start + opening, start + opening + len(matched[2].encode()), True


def _text(parsed: Parsed, value: ast.expr) -> str:
    return parsed.text(value).decode("utf-8", "surrogatepass")


def _each_once(sites: list[KnobSite]) -> list[KnobSite]:
    """In the order of the file; of an expression and a setting inside it, the inner one counts."""
    kept: list[KnobSite] = []
    for site in sorted(sites, key=lambda site: (site.span.start, -site.span.end)):
        while kept and site.span.end <= kept[-1].span.end and site.span != kept[-1].span:
            if kept[-1].kind is not Kind.EXPRESSION:
                break
            kept.pop()
        if not kept or site.span.start >= kept[-1].span.end:
            kept.append(site)
    return kept


def _with_dead(sites: list[KnobSite], tree: ast.Module, utf8: bytes) -> list[KnobSite]:
    """The same sites; options that nothing reads are marked."""
    dests = {site.setting for site in sites if site.role is Role.OPTION and site.owner in _PARSED_BY_ARGPARSE}
    dead = unread(tree, utf8, dests) if dests else set()
    if not dead:
        return sites
    return [
        replace(site, kind=Kind.DEAD) if site.role is Role.OPTION and site.setting in dead else site for site in sites
    ]
