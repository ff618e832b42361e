"""Assignments: constants, attributes of configs, items of dicts, fields of classes.

NUM_WORKERS = 4        _C.DATALOADER.NUM_WORKERS = 4        kwargs["num_workers"] = 4        num_workers: int = 4
"""

from __future__ import annotations

import ast

from keepfed.knobs.python import environment
from keepfed.knobs.python.facts import ELSEWHERE, Key, Scope
from keepfed.knobs.python.names import dotted
from keepfed.knobs.python.options import speaks_of_loading, unwrapped
from keepfed.knobs.python.walk import Walk, key_of
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled

_YACS = {"_C", "C", "_CN"}


def assign(walk: Walk, node: ast.AST, scope: Scope, _to: Key, _path: str) -> None:
    """`a = b = value`, `a, b = one, two`."""
    assert isinstance(node, ast.Assign)
    for target in node.targets:
        _to_target(walk, target, node.value, scope)


def annotated(walk: Walk, node: ast.AST, scope: Scope, _to: Key, _path: str) -> None:
    """`num_workers: int = 4`: a field where it stands in a class."""
    assert isinstance(node, ast.AnnAssign)
    if scope.kind == "class" and isinstance(node.target, ast.Name):
        walk.facts.fields.setdefault(scope.name, set()).add(node.target.id)
    if node.value is not None:
        _one(walk, node.target, node.value, scope)


def walrus(walk: Walk, node: ast.AST, scope: Scope, to: Key, _path: str) -> None:
    """`(n := value)`: goes to the name and to where the expression goes."""
    assert isinstance(node, ast.NamedExpr)
    _one(walk, node.target, node.value, scope)
    walk.facts.arrow(("name", scope.label, node.target.id), to, scope)


def augmented(walk: Walk, node: ast.AST, scope: Scope, _to: Key, _path: str) -> None:
    """`args.workers //= n_gpus`: changes a value, sets none."""
    assert isinstance(node, ast.AugAssign)
    walk.push(node.value, scope)


def _to_target(walk: Walk, target: ast.expr, value: ast.expr, scope: Scope) -> None:
    if isinstance(target, (ast.Tuple, ast.List)):
        if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts):
            for each, its in zip(target.elts, value.elts, strict=True):
                _to_target(walk, each, its, scope)
            return
        for each in target.elts:
            _bind(each, scope)
        walk.push(value, scope)
        return
    _one(walk, target, value, scope)


def _one(walk: Walk, target: ast.expr, value: ast.expr, scope: Scope) -> None:
    _bind(target, scope)
    if environment.item(walk, target, value, scope):
        return
    key = key_of(target, scope) or ELSEWHERE
    path = dotted(target)
    walk.push(value, scope, key, path)
    if not isinstance(target, ast.Name):
        walk.push(target.value if isinstance(target, (ast.Attribute, ast.Subscript)) else None, scope)
    name = path.rpartition(".")[2]
    if not name or walk.named(name) is None:
        return
    default, as_option, help_text = unwrapped(value)
    if default is None or (scope.kind == "class" and _is_none(default)):
        return
    role = Role.OPTION if as_option else _role(target, scope)
    owner = scope.name if isinstance(target, ast.Name) else path.rpartition(".")[0]
    walk.place(
        name,
        default,
        role,
        key,
        scope,
        owner=owner,
        setting=_setting(path, role),
        reasoned=speaks_of_loading(help_text),
    )


def _role(target: ast.expr, scope: Scope) -> Role:
    if isinstance(target, ast.Subscript):
        return Role.CONFIG
    if isinstance(target, ast.Name):
        return Role.DEFAULT if scope.kind == "class" else Role.NAME
    root, *rest = dotted(target).split(".")
    if root in _YACS:
        return Role.DEFAULT
    return Role.NAME if root in {"self", "cls"} and len(rest) == 1 else Role.CONFIG


def _setting(path: str, role: Role) -> str:
    """`DATALOADER.NUM_WORKERS` for `_C.DATALOADER.NUM_WORKERS`: the path that files of settings write."""
    root, _, rest = path.partition(".")
    if not rest or role is Role.NAME:
        return path.rpartition(".")[2]
    if root == "self":
        rest = rest.partition(".")[2] or rest  # self.args.workers is the option workers
    return rest if spelled(root) is None else path


def _bind(target: ast.expr, scope: Scope) -> None:
    if isinstance(target, ast.Name):
        scope.bound.add(target.id)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
