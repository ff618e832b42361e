"""From what the walk noted to sites: whose a place is, what stands there, and whether anybody reads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from keepfed.knobs.python import assignments, calls, defaults, dicts, reads
from keepfed.knobs.python.dead import unread
from keepfed.knobs.python.facts import ASSUMED, ENVIRONMENT, FOREIGN, LOADER, LOADERS, Facts, Place, Scope
from keepfed.knobs.python.flow import Flow
from keepfed.knobs.python.foreign import is_foreign, pins_something_else
from keepfed.knobs.python.interest import Interest, may_matter
from keepfed.knobs.python.parsing import Parsed, line_starts
from keepfed.knobs.python.reasons import among_loading, among_training
from keepfed.knobs.python.value import found, is_literal
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
_CLUSTERS = re.compile(rb"(?m)^[ \t]*(?:import|from)[ \t]+(?:ray|dask|distributed|pyspark|horovod\.ray)\b")
_SERVICES = re.compile(
    rb"(?m)^[ \t]*(?:import|from)[ \t]+(?:asyncio|aiohttp|fastapi|flask|celery|uvicorn|concurrent|grpc|playwright|selenium)\b"
)
_LEARNS = re.compile(
    rb"(?i)torch|lightning|litdata|keras|tensorflow|paddle|mindspore|jax|data_?loader|batch_?size|dataset|epoch"
)
_LOADERS = re.compile(rb"(?i)data_?loader|torch\.utils\.data|litdata|torchdata")
_COUNTS_RANKS = re.compile(
    rb"(?i)world_size|num_ranks|ranks_per_node|num_nodes|hvd\.size|comm\.(?:size|get_size)|num_replicas|^len\(|\bkv\.|kvstore"
)
_OF_A_WORKER = re.compile(rb"worker_info|^info\.|\b_?info\.num_workers")
_PARSED_BY_ARGPARSE = {"add_argument", "add_option", "add_arg", "add"}
_QUOTED = re.compile(r"[rRbBuU]{0,2}(\"\"\"|'''|\"|')(.*)\1", re.DOTALL)


def read(source: Source) -> list[KnobSite]:
    """Every site of a Python file, in its order. Raises nothing on bad syntax: what can be read of it is read."""
    return [] if _SERVERS.search(source.name) else read_code(source)


def read_code(source: Source) -> list[KnobSite]:
    """Every site of Python code, wherever it comes from."""
    if not may_matter(source.utf8):
        return []
    starts = line_starts(source.utf8)
    parsed = Parsed(source, starts)
    facts = Walk(parsed.tree, Interest(source.utf8, starts), _HANDLERS).run()
    places = _of_loaders(facts, parsed)
    sites = [site for place in places if (site := _site(parsed, place)) is not None]
    return _with_dead(_each_once(sites), parsed.tree, source.utf8)


def _of_loaders(facts: Facts, parsed: Parsed) -> list[Place]:
    """The places that are a loader's settings, or variables."""
    if not facts.places:
        return []
    flow, utf8 = Flow(facts), parsed.source.utf8
    others_file = bool(_CLUSTERS.search(utf8)) and not _LOADERS.search(utf8)
    others_file = others_file or (bool(_SERVICES.search(utf8)) and not _LEARNS.search(utf8))
    return [place for place in facts.places if _is_a_loaders(place, flow, parsed, others_file=others_file)]


def _is_a_loaders(place: Place, flow: Flow, parsed: Parsed, *, others_file: bool) -> bool:
    if place.role is Role.VARIABLE:
        return place.sure
    if place.knob in {"shm_size", "cpus_per_task", "threads_env"}:
        if not place.sure:
            return place.knob == "threads_env" and ENVIRONMENT in flow.ends(place.key)
        return place.knob != "shm_size" or is_literal(place.knob, place.value)
    if is_foreign(place.owner.rpartition(".")[2]) or _is_torchs_own(place, parsed):
        return False
    ends = flow.ends(place.key)
    if place.hop:
        return bool({LOADER, ASSUMED} & ends) and flow.only_for_loaders(place.key)
    if LOADER in ends or (LOADERS in ends and place.knob != "num_workers"):
        return True
    if (
        FOREIGN in ends
        or others_file
        or place.denied
        or _inside_foreign(place.scope)
        or _shards(place)
        or _pins_tensors(place)
    ):
        return False
    if place.knob == "pin_memory" and place.spelling == "pin_memory" and place.role in {Role.CALL, Role.DEFAULT}:
        return place.reasoned or (place.key[0] == "field" and among_loading(parsed.source.utf8))
    if ASSUMED in ends and place.role is not Role.CALL:
        return True
    if place.sure:
        return not _COUNTS_RANKS.search(parsed.text(place.value))
    return place.reasoned or _stands_among_settings(place, parsed)


def _inside_foreign(scope: Scope | None) -> bool:
    """Whether a class round it is Ray's, Dask's or a pool."""
    while scope is not None:
        if scope.kind == "class" and is_foreign(scope.name):
            return True
        scope = scope.parent
    return False


def _is_torchs_own(place: Place, parsed: Parsed) -> bool:
    """Whether it takes up what torch says about the worker that it runs in: `worker_info.num_workers` is read, not set."""
    if place.knob != "num_workers":
        return False
    sharding = place.scope is not None and place.scope.sharding and place.key[0] == "name"
    return sharding or _OF_A_WORKER.search(parsed.text(place.value)) is not None


def _shards(place: Place) -> bool:
    """Whether it is kept by an object that cuts its data into shares for the workers: a dataset's, not a loader's."""
    holder = place.scope.parent if place.scope is not None else None
    return place.key[:2] == ("attr", "self") and holder is not None and holder.kind == "class" and holder.sharding


def _pins_tensors(place: Place) -> bool:
    """Whether `pin_memory` belongs to a tensor or to an optimizer that lives in host memory."""
    if place.knob != "pin_memory" or place.role is Role.OPTION:
        return False
    names = [*place.owner.split("."), place.scope.name if place.scope is not None else ""]
    return any(pins_something_else(name) for name in names if name)


def _stands_among_settings(place: Place, parsed: Parsed) -> bool:
    """Whether a name that is not sure is set where a training program has its settings."""
    if place.role is Role.NAME and not place.spelling.isupper():
        return False
    if place.role is Role.DEFAULT and place.key[0] == "name":
        return False  # the parameter of some function
    if place.role in {Role.NAME, Role.CONFIG, Role.DEFAULT} and not is_literal(place.knob, place.value):
        return False
    return place.role is not Role.CALL and among_training(parsed.source.utf8, place.spelling)


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
