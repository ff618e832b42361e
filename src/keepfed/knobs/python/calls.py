"""A call is one of many things by its name alone: an option, a loader, a dict of settings, a look-up with a fallback, a print."""

from __future__ import annotations

import ast

from keepfed.knobs.python import environment, lookups, options
from keepfed.knobs.python.facts import FOREIGN, NEUTRAL, Key, Scope
from keepfed.knobs.python.foreign import (
    ARGUMENTS,
    is_foreign,
    only_says,
    passes_through,
    pins_something_else,
    tells_workers,
)
from keepfed.knobs.python.keywords import keywords
from keepfed.knobs.python.names import callee_of, last_name
from keepfed.knobs.python.walk import Walk, read_keys
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import Spelled, spelled

_POSITIONS = {5: "num_workers", 7: "pin_memory"}
_TORCH_LOADERS = {"DataLoader", "StatefulDataLoader"}


def call(walk: Walk, node: ast.AST, scope: Scope, to: Key, path: str) -> None:
    """Whatever a call may be."""
    assert isinstance(node, ast.Call)
    callee = _made(node, scope)
    walk.push(node.func, scope)
    if options.option(walk, node, scope):
        return
    if environment.call(walk, node, scope):
        return
    if passes_through(callee) or only_says(callee):
        _pass(walk, node, scope, to if passes_through(callee) else NEUTRAL)
        return
    if lookups.lookup(walk, node, scope, to, callee):
        return
    _positional(walk, node, scope, callee, to)
    keywords(walk, node, scope, callee, path)


def _made(node: ast.Call, scope: Scope) -> str:
    """What a call makes: `super().__init__(…)` makes the part of the object that is its base class."""
    callee = callee_of(node)
    if callee != "__init__" or not isinstance(node.func, ast.Attribute):
        return callee
    named = last_name(node.func.value)
    if named and named != "self":
        return named  # Base.__init__(self, …)
    holder = scope.parent
    return (holder.base if holder is not None and holder.kind == "class" else "") or "super"


def _pass(walk: Walk, node: ast.Call, scope: Scope, to: Key) -> None:
    for given in node.args:
        walk.push(given, scope, to)
    for named in node.keywords:
        walk.push(named.value, scope, to)


def _positional(walk: Walk, node: ast.Call, scope: Scope, callee: str, to: Key) -> None:
    gives_back = to[0] == "arg" or spelled(to[-1]) is not None
    for index, given in enumerate(node.args):
        if isinstance(given, ast.Starred):
            walk.push(given.value, scope)
            return
        key: Key = ("arg", callee, str(index))
        walk.push(given, scope, key)
        if gives_back:  # Pool(checked(args.num_workers)): what comes out is what went in, near enough
            for source in read_keys(given, scope):
                walk.facts.arrow(source, to, scope)
        if callee in _TORCH_LOADERS and index in _POSITIONS:
            name = _POSITIONS[index]
            meaning = Spelled(name, sure=True)
            walk.place(name, given, Role.CALL, key, scope, owner=callee, meaning=meaning, positional=True)


def resolved(key: Key) -> Key | None:
    """What an argument of a call that is not defined in the file amounts to; None where that cannot be said."""
    _, callee, argument = key
    if tells_workers(callee):
        return NEUTRAL
    if is_foreign(callee) or argument in ARGUMENTS:
        return FOREIGN
    if callee == "range" or (argument == "pin_memory" and pins_something_else(callee)):
        return FOREIGN
    return None
