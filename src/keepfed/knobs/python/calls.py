"""Arguments of calls: `DataLoader(dataset, num_workers=4)`, and everything that is built of keywords.

One handler, because a call is one of many things by its name alone: an option, a loader, a dict of settings, a look-up with a
fallback, a print. Keywords are arrows as well: they tell where the values of names go.
"""

from __future__ import annotations

import ast

from keepfed.knobs.python import environment, options
from keepfed.knobs.python.facts import ASSUMED, ELSEWHERE, FOREIGN, NEUTRAL, Key, Scope
from keepfed.knobs.python.foreign import (
    ARGUMENTS,
    is_foreign,
    only_says,
    passes_through,
    pins_something_else,
    tells_workers,
)
from keepfed.knobs.python.names import callee_of, dotted, last_name, text_of
from keepfed.knobs.python.reasons import beside_batches, is_loader_like
from keepfed.knobs.python.walk import Walk, read_keys
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import Spelled, spelled

_DICTS = frozenset(
    """
    dict Dict EasyDict edict AttrDict ConfigDict Config CN CfgNode SimpleNamespace Namespace Munch Bunch DotDict OrderedDict
    Box ConfigNode update Params HParams DictConfig config
    """.split()  # noqa: SIM905  # a list of names is read far more easily without quotes
)
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
    if _lookup(walk, node, scope, to, callee):
        return
    _positional(walk, node, scope, callee, to)
    _keywords(walk, node, scope, callee, path)


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


def _keywords(walk: Walk, node: ast.Call, scope: Scope, callee: str, path: str) -> None:
    settings = callee in _DICTS
    inside = _inside(node, callee, path)
    beside = {named.arg or "" for named in node.keywords}
    for named in node.keywords:
        if named.arg is None:
            walk.push(named.value, scope, ELSEWHERE, path)
            continue
        key: Key = ("field", named.arg) if settings or callee == "set_defaults" else ("arg", callee, named.arg)
        if callee == "params":
            key = ("option", named.arg)
        value, as_option, help_text = options.unwrapped(named.value)
        own_path = f"{inside}.{named.arg}" if inside and (settings or callee == "params") else named.arg
        walk.push(named.value, scope, key, own_path)
        meaning = walk.named(named.arg)
        if meaning is None or value is None or spelled(named.arg) is None:
            continue
        if environment.variable(walk, named.arg, value, scope, owner=inside):
            continue
        role = _role(callee, settings=settings, as_option=as_option)
        if role is Role.OPTION and isinstance(value, ast.Constant) and value.value is None:
            continue
        reasoned = options.speaks_of_loading(help_text) or beside_batches(callee, beside, value, named.arg)
        if reasoned and not meaning.sure:
            for source in read_keys(value, scope):
                walk.facts.arrow(source, ASSUMED, scope)
        for each in _each_value(callee, value):
            walk.place(
                named.arg,
                each,
                role,
                key,
                scope,
                owner=inside if settings else callee,
                setting=own_path if settings or role is Role.OPTION else "",
                reasoned=reasoned,
            )


def _each_value(callee: str, value: ast.expr) -> list[ast.expr]:
    """The value, or those of several loaders that one call makes: `create_loader(…, num_workers=[4, 4, 4])`."""
    if is_loader_like(callee) and isinstance(value, (ast.List, ast.Tuple)):
        return value.elts
    return [value]


def _inside(node: ast.Call, callee: str, path: str) -> str:
    """The path that keywords of a dict of settings belong to."""
    if callee == "update" and isinstance(node.func, ast.Attribute):
        return dotted(node.func.value)
    if callee == "params" and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
        return text_of(node.func.value.args[0]) if node.func.value.args else ""
    return path


def _role(callee: str, *, settings: bool, as_option: bool) -> Role:
    if as_option or callee == "set_defaults":
        return Role.OPTION
    return Role.CONFIG if settings else Role.CALL


def _lookup(walk: Walk, node: ast.Call, scope: Scope, to: Key, callee: str) -> bool:
    """`cfg.get("num_workers", 4)`, `getattr(args, "workers", 4)`, `kwargs.setdefault("num_workers", 4)`."""
    at = 1 if callee == "getattr" else 0
    if callee not in {"get", "pop", "setdefault", "getattr", "setattr"} or len(node.args) <= at:
        return False
    if callee == "setattr":
        return _setattr(walk, node, scope)
    name = text_of(node.args[at])
    if not name or not (meaning := walk.named(name)):
        return False
    root = dotted(
        node.args[0] if callee == "getattr" else node.func.value if isinstance(node.func, ast.Attribute) else node
    )
    for key in _keys(root, name):
        walk.facts.arrow(key, to, scope)
    if len(node.args) > at + 1:
        default = node.args[at + 1]
        walk.push(default, scope, to)
        if callee == "setdefault" and spelled(name):
            setting = f"{root}.{name}" if root else name
            walk.place(name, default, Role.CONFIG, ("field", name), scope, owner=root, setting=setting, meaning=meaning)
    return True


def _setattr(walk: Walk, node: ast.Call, scope: Scope) -> bool:
    name = text_of(node.args[1]) if len(node.args) == 3 else ""  # object, name, value
    if not name or spelled(name) is None:
        return False
    key: Key = ("attr", dotted(node.args[0]), name)
    walk.push(node.args[2], scope, key)
    walk.place(name, node.args[2], Role.CONFIG, key, scope, owner=dotted(node.args[0]), setting=name)
    return True


def _keys(root: str, name: str) -> list[Key]:
    keys: list[Key] = [("field", name), ("option", name)]
    return [("attr", root, name), *keys] if root else keys


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
