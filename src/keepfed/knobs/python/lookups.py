"""Look-ups with a fallback, and settings by name: `cfg.get("num_workers", 4)`, `kwargs.setdefault("num_workers", 4)`."""

from __future__ import annotations

import ast

from keepfed.knobs.python.facts import Key, Scope
from keepfed.knobs.python.names import dotted, text_of
from keepfed.knobs.python.walk import Walk
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled


def lookup(walk: Walk, node: ast.Call, scope: Scope, to: Key, callee: str) -> bool:
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
