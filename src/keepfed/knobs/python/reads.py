"""Where values are read, and where they go: names, attributes, items, and the expressions that pass them on."""

from __future__ import annotations

import ast
from itertools import pairwise

from keepfed.knobs.python.facts import ELSEWHERE, NEUTRAL, Key, Scope
from keepfed.knobs.python.names import text_of
from keepfed.knobs.python.walk import Walk, read_keys
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled


def name(walk: Walk, node: ast.AST, scope: Scope, to: Key, _path: str) -> None:
    """`n`: its value goes where the expression goes."""
    assert isinstance(node, ast.Name)
    if isinstance(node.ctx, ast.Load):
        walk.facts.arrow(("name", scope.label, node.id), to, scope)
        if "worker_info" in node.id:
            _shards(scope)


def attribute(walk: Walk, node: ast.AST, scope: Scope, to: Key, _path: str) -> None:
    """`args.workers`: an attribute, and the option or field of that name."""
    assert isinstance(node, ast.Attribute)
    if isinstance(node.ctx, ast.Load):
        for key in read_keys(node, scope):
            walk.facts.arrow(key, to, scope)
        if "worker_info" in node.attr:
            _shards(scope)
    walk.push(node.value, scope)


def _shards(scope: Scope) -> None:
    """Note that a function asks which worker it runs in, and so does the class that it belongs to."""
    scope.sharding = True
    if scope.parent is not None and scope.parent.kind == "class":
        scope.parent.sharding = True


def subscript(walk: Walk, node: ast.AST, scope: Scope, to: Key, _path: str) -> None:
    """`cfg["num_workers"]`."""
    assert isinstance(node, ast.Subscript)
    if isinstance(node.ctx, ast.Load) and text_of(node.slice):
        for key in read_keys(node, scope):
            walk.facts.arrow(key, to, scope)
    walk.push(node.value, scope)
    walk.push(node.slice, scope)


def passed_on(walk: Walk, node: ast.AST, scope: Scope, to: Key, path: str) -> None:
    """Arithmetic, `a or b`, `-n`: whatever is read in it goes where the result goes."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            walk.push(child, scope, to, path)


def branches(walk: Walk, node: ast.AST, scope: Scope, to: Key, path: str) -> None:
    """`a if test else b`: both branches go on, what is tested does not."""
    assert isinstance(node, ast.IfExp)
    walk.push(node.test, scope, NEUTRAL)
    walk.push(node.body, scope, to, path)
    walk.push(node.orelse, scope, to, path)


def neutral(walk: Walk, node: ast.AST, scope: Scope, _to: Key, _path: str) -> None:
    """Comparisons and formatted strings use a value for nothing else."""
    walk.children(node, scope, NEUTRAL)


def tested(walk: Walk, node: ast.AST, scope: Scope, _to: Key, _path: str) -> None:
    """`if n:`, `while n:`, `assert n`: the condition says nothing of whose the value is."""
    assert isinstance(node, (ast.If, ast.While, ast.Assert))
    walk.push(node.test, scope, NEUTRAL)
    if isinstance(node, ast.Assert):
        walk.push(node.msg, scope, NEUTRAL)
    else:
        walk.body(node.body, scope)
        walk.body(node.orelse, scope)


def sequence(walk: Walk, node: ast.AST, scope: Scope, to: Key, path: str) -> None:
    """A list or tuple: `min([cpus, 8])` passes its members on."""
    assert isinstance(node, (ast.List, ast.Tuple, ast.Set))
    if isinstance(node, ast.List):
        _pairs(walk, node, scope, path)
    for each in node.elts:
        if each.lineno == (each.end_lineno or each.lineno) or walk.interest.touches(each.lineno, each.end_lineno or 0):
            walk.push(each, scope, to if to != ELSEWHERE else ELSEWHERE, path)


def _pairs(walk: Walk, node: ast.List, scope: Scope, path: str) -> None:
    """`["train.py", "--num_workers", "4"]`, `["DATALOADER.NUM_WORKERS", 4]`: a name, and its value behind it."""
    for named, value in pairwise(node.elts):
        name = text_of(named)
        known = spelled(name) if name and isinstance(value, ast.Constant) and value.value is not None else None
        if known is not None and known.sure:
            flag = name.startswith("-")
            setting = name.lstrip("-").replace("-", "_") if flag else name
            role = Role.FLAG if flag else Role.CONFIG
            walk.place(name, value, role, ("option", setting), scope, owner=path, setting=setting)


def nothing(_walk: Walk, _node: ast.AST, _scope: Scope, _to: Key, _path: str) -> None:
    """Constants and imports: nothing in them."""
