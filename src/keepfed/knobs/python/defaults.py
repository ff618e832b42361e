"""Defaults of parameters: `def make_loader(dataset, num_workers=4)`, and the scopes that functions and classes open."""

from __future__ import annotations

import ast

from keepfed.knobs.python.facts import ELSEWHERE, Function, Key, Scope
from keepfed.knobs.python.names import last_name
from keepfed.knobs.python.options import speaks_of_loading, unwrapped
from keepfed.knobs.python.reasons import beside_batches
from keepfed.knobs.python.walk import Walk
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled

_SHARD = {"worker_id", "worker_index", "worker_rank", "worker_idx", "wid"}


def function(walk: Walk, node: ast.AST, scope: Scope, _to: Key, _path: str) -> None:
    """A function: its defaults, its decorators, its body."""
    assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    inner = walk.facts.scope("function", node.name, scope)
    for decorator in node.decorator_list:
        walk.push(decorator, scope)
    params = _parameters(walk, node.args, scope, inner, node.name)
    if scope.kind == "class":
        params = params[1:] if params[:1] in (["self"], ["cls"]) else params
        if node.name == "__init__":
            walk.facts.functions.setdefault(scope.name, []).append(Function(inner, params))
    walk.facts.functions.setdefault(node.name, []).append(Function(inner, params))
    if node.decorator_list:
        for name in params:  # click hands its options over as parameters
            walk.facts.arrow(("option", name), ("name", inner.label, name), inner)
    _returned(walk, node, inner)
    walk.body(node.body, inner)


def _returned(walk: Walk, node: ast.FunctionDef | ast.AsyncFunctionDef, inner: Scope) -> None:
    """`def get_dataloader_workers(): return 4`: a function that is called like a setting is one, with its value inside."""
    meaning = spelled(node.name.removeprefix("get_").removeprefix("default_"))
    if meaning is None or not meaning.sure or meaning.knob != "num_workers":
        return
    for statement in node.body:
        if isinstance(statement, ast.Return) and isinstance(statement.value, (ast.Constant, ast.Call, ast.IfExp)):
            key: Key = ("name", inner.label, "return")
            value = statement.value
            walk.place(node.name, value, Role.DEFAULT, key, inner, owner=node.name, setting=node.name, meaning=meaning)


def lambda_(walk: Walk, node: ast.AST, scope: Scope, _to: Key, _path: str) -> None:
    """A lambda, whose parameters hide names outside."""
    assert isinstance(node, ast.Lambda)
    inner = walk.facts.scope("function", "lambda", scope)
    _parameters(walk, node.args, scope, inner, "lambda")
    walk.push(node.body, inner)


def class_(walk: Walk, node: ast.AST, scope: Scope, _to: Key, _path: str) -> None:
    """A class: its fields are noted by the assignments in its body."""
    assert isinstance(node, ast.ClassDef)
    inner = walk.facts.scope("class", node.name, scope)
    inner.base = last_name(node.bases[0]) if node.bases else ""
    for decorator in node.decorator_list:
        walk.push(decorator, scope)
    walk.body(node.body, inner)


def _parameters(walk: Walk, args: ast.arguments, scope: Scope, inner: Scope, owner: str) -> list[str]:
    positional = [*args.posonlyargs, *args.args]
    every = [*positional, *args.kwonlyargs]
    names = [each.arg for each in every]
    inner.bound.update(names)
    inner.bound.update(each.arg for each in (args.vararg, args.kwarg) if each is not None)
    if _SHARD & set(names):
        inner.sharding = True
    given = dict(zip(names[len(positional) - len(args.defaults) : len(positional)], args.defaults, strict=True))
    given |= {each.arg: value for each, value in zip(args.kwonlyargs, args.kw_defaults, strict=True) if value}
    holder = scope.name if scope.kind == "class" else owner
    for name, value in given.items():
        key: Key = ("name", inner.label, name)
        walk.push(value, scope, key if walk.named(name) else ELSEWHERE, name)
        default, as_option, help_text = unwrapped(value)
        if walk.named(name) is None or default is None or (isinstance(default, ast.Constant) and default.value is None):
            continue
        walk.place(
            name,
            default,
            Role.OPTION if as_option else Role.DEFAULT,
            key,
            inner,
            owner=holder,
            setting=name,
            reasoned=speaks_of_loading(help_text)
            or beside_batches(holder if owner == "__init__" else owner, set(names), default, name),
        )
    return names
