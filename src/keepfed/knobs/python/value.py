"""What stands at a place: a value, a name that gets it elsewhere, or something computed, and what an edit may replace in it.

In an expression one number at most is the setting: the cap of a `min`, the branch that is taken on this kind of machine, the
fallback of a look-up. A divisor, a floor or a factor is not: with `os.cpu_count() // 2`, writing 8 for 2 would set something else.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from keepfed.knobs.python.names import dotted, last_name, text_of
from keepfed.knobs.site import Kind
from keepfed.knobs.spelling import THREAD_VARIABLES, spelled

_COUNTED = {"num_workers", "prefetch_factor", "threads_env", "cpus_per_task"}
_CASTS = {"int", "str", "float", "bool"}
_LOOKUPS = {"get", "getenv", "pop", "setdefault", "getattr", "environ_or", "getint"}
_ON_WINDOWS = {"nt", "win32", "cygwin", "Windows", "windows"}
_RARELY = {"debug", "smoke_test", "smoke", "profile", "is_debug", "DEBUG", "debugging", "dry_run", "no_cuda", "overfit"}
_MOSTLY = {"cuda", "use_cuda", "use_gpu", "is_available", "gpu", "on_gpu", "use_gpus"}

NOT_ONE_NUMBER = "knobs.refuse_expression"
NO_BRANCH = "knobs.refuse_branches"


@dataclass(frozen=True, slots=True)
class Found:
    """What stands there."""

    kind: Kind
    """Literal, reference or expression."""
    target: ast.expr | None = None
    """The constant that an edit may replace."""
    refusal: str = ""
    """Why there is none."""
    refers_to: str = ""
    """The name that the value comes from, if it is one."""


def found(knob: str, value: ast.expr) -> Found | None:
    """What stands at a place of this setting, or None where it cannot be a value of it: a list of workers, a flag."""
    if is_literal(knob, value):
        return Found(Kind.LITERAL, target=value)
    if isinstance(value, (ast.Name, ast.Attribute, ast.Subscript)):
        return _reference(value)
    if isinstance(value, ast.Call) and (name := _plain_lookup(value)):
        return Found(Kind.REFERENCE, refusal="knobs.refuse_reference", refers_to=name)
    if knob in _COUNTED and _is_yes_or_no(value):
        return None
    if isinstance(value, (ast.Call, ast.BinOp, ast.BoolOp, ast.IfExp, ast.Compare, ast.UnaryOp, ast.NamedExpr)):
        target, refusal = _live(knob, value)
        return Found(
            Kind.EXPRESSION, target=target, refusal=refusal if target is None else "", refers_to=_one_name(value)
        )
    return None


def is_literal(knob: str, value: ast.expr) -> bool:
    """Whether this is a value that the setting can have, written out."""
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, (ast.USub, ast.UAdd)):
        return isinstance(value.operand, ast.Constant) and type(value.operand.value) is int
    if not isinstance(value, ast.Constant):
        return False
    given = value.value
    if given is None:
        return True
    if knob in _COUNTED:
        return type(given) is int or (isinstance(given, str) and (given.strip().isdigit() or given == "auto"))
    if knob == "shm_size":
        return type(given) is int or (isinstance(given, str) and given[:1].isdigit())
    return isinstance(given, bool) or given in {0, 1} or str(given).lower() in {"true", "false"}


def _reference(value: ast.expr) -> Found | None:
    name = dotted(value)
    if isinstance(value, ast.Name) and value.id in {"NotImplemented", "Ellipsis"}:
        return None
    return Found(Kind.REFERENCE, refusal="knobs.refuse_reference", refers_to=name)


def _plain_lookup(call: ast.Call) -> str:
    """`cfg.num_workers` for `cfg.get("num_workers")`, which has no number of its own."""
    if (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in {"get", "pop"}
        and len(call.args) == 1
        and not call.keywords
    ):
        root, key = dotted(call.func.value), text_of(call.args[0])
        return f"{root}.{key}" if root and key else ""
    return ""


def _live(knob: str, value: ast.expr) -> tuple[ast.expr | None, str]:
    """The one constant of an expression that acts as its value, or the reason why there is none."""
    if is_literal(knob, value) and not _is_none(value):
        return value, ""
    if isinstance(value, ast.Call):
        return _in_call(knob, value)
    if isinstance(value, ast.IfExp):
        return _in_branches(knob, value)
    if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or) and _may_be_nothing(value.values[0]):
        return _live(knob, value.values[-1])  # `args.workers or 4`
    if isinstance(value, ast.NamedExpr):
        return _live(knob, value.value)
    return None, NOT_ONE_NUMBER


def _in_call(knob: str, call: ast.Call) -> tuple[ast.expr | None, str]:
    name = last_name(call.func)
    if name in _CASTS and len(call.args) == 1:
        return _live(knob, call.args[0])
    if name in _LOOKUPS and len(call.args) >= 2:  # a key and what counts where it is missing
        return _live(knob, call.args[-1])
    if name == "min":
        return _cap(knob, _members(call))
    if name == "max":  # the number beside the cap is a floor: max(1, min(8, cpus))
        inner = [_live(knob, member) for member in _members(call) if not is_literal(knob, member)]
        targets = [target for target, _ in inner if target is not None]
        return (targets[0], "") if len(targets) == 1 else (None, NOT_ONE_NUMBER)
    return None, NOT_ONE_NUMBER


def _members(call: ast.Call) -> list[ast.expr]:
    if len(call.args) == 1 and isinstance(call.args[0], (ast.List, ast.Tuple, ast.Set)):
        return call.args[0].elts
    return call.args


def _cap(knob: str, members: list[ast.expr]) -> tuple[ast.expr | None, str]:
    numbers = [member for member in members if is_literal(knob, member) and not _is_none(member)]
    if not numbers:
        nested = [target for member in members if (target := _live(knob, member)[0]) is not None]
        return (nested[0], "") if len(nested) == 1 else (None, NOT_ONE_NUMBER)
    return (numbers[0], "") if len(numbers) == 1 else (None, NOT_ONE_NUMBER)


def _in_branches(knob: str, value: ast.IfExp) -> tuple[ast.expr | None, str]:
    taken = _taken(value.test)
    if taken is not None:
        branch = value.body if taken else value.orelse
        return _live(knob, branch)
    if (fallback := _where_none(value)) is not None:
        return _live(knob, fallback)
    if _is_none(value.body) != _is_none(value.orelse):
        return _live(knob, value.orelse if _is_none(value.body) else value.body)
    return None, NO_BRANCH


def _may_be_nothing(value: ast.expr) -> bool:
    """Whether it can be None or 0, so that what stands behind the `or` counts: never so for `os.cpu_count()` where people train."""
    if isinstance(value, ast.Call):
        return last_name(value.func) not in {"cpu_count", "process_cpu_count", "count", "len"}
    return isinstance(value, (ast.Name, ast.Attribute, ast.Subscript))


def _taken(test: ast.expr) -> bool | None:
    """Whether a condition holds where training happens: not on Windows, with a GPU, with workers, not for debugging."""
    if isinstance(test, ast.BoolOp):
        sides = [_taken(side) for side in test.values]
        decisive = isinstance(test.op, ast.Or)
        return decisive if decisive in sides else (None if None in sides else not decisive)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        inner = _taken(test.operand)
        return None if inner is None else not inner
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _compared(test.left, test.ops[0], test.comparators[0])
    if isinstance(test, ast.Call):
        if last_name(test.func) == "startswith" and test.args and text_of(test.args[0])[:3] in {"win", "lin"}:
            return text_of(test.args[0]).startswith("lin")
        return True if last_name(test.func) == "is_available" else None
    name = last_name(test)
    if name in _RARELY:
        return False
    if name in _MOSTLY or "worker" in name.lower():
        return True
    return None


def _compared(left: ast.expr, operator: ast.cmpop, right: ast.expr) -> bool | None:
    text = text_of(right) or text_of(left)
    if text in _ON_WINDOWS | {"linux", "posix", "Linux", "cuda", "darwin", "Darwin", "cpu", "mps"}:
        there = text in {"linux", "posix", "Linux", "cuda"}
        return there if isinstance(operator, ast.Eq) else (not there if isinstance(operator, ast.NotEq) else None)
    zero = isinstance(right, ast.Constant) and right.value == 0 and type(right.value) is int
    if "worker" in last_name(left).lower() and zero:
        if isinstance(operator, (ast.Gt, ast.NotEq)):
            return True
        return False if isinstance(operator, (ast.Eq, ast.LtE)) else None
    return None


def _one_name(value: ast.expr) -> str:
    """The single setting-like name in an expression: `args.workers` of `args.workers // n_gpus`."""
    names, waiting = set(), [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Attribute, ast.Name, ast.Subscript)):
            name = dotted(node)
            last = name.rpartition(".")[2]
            if spelled(last) is not None or last.upper() in THREAD_VARIABLES:
                names.add(name)
            continue
        if isinstance(node, ast.Call):
            waiting.extend(node.args)
            continue
        waiting.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr))
    return names.pop() if len(names) == 1 else ""


def _where_none(value: ast.IfExp) -> ast.expr | None:
    """The branch that counts where nothing else was given: 4 in `4 if n is None else n`."""
    test = value.test
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1 and _is_none(test.comparators[0])):
        return None
    given, fallback = value.orelse, value.body
    if isinstance(test.ops[0], ast.IsNot):
        given, fallback = fallback, given
    return fallback if dotted(given) and dotted(given) == dotted(test.left) else None


def _is_yes_or_no(value: ast.expr) -> bool:
    return isinstance(value, ast.Compare) or (isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not))


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
