"""Environment variables that a program sets for itself: `os.environ["OMP_NUM_THREADS"] = "4"`, and those it gives to others."""

from __future__ import annotations

import ast

from keepfed.knobs.python.facts import Key, Scope
from keepfed.knobs.python.names import callee_of, dotted, text_of
from keepfed.knobs.python.walk import Walk
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled

_SETTERS = {"setdefault", "putenv", "setenv", "set_env", "set_env_if_unset"}
_READERS = {"getenv", "get", "pop", "unsetenv"}


def item(walk: Walk, target: ast.expr, value: ast.expr, scope: Scope) -> bool:
    """`os.environ["NAME"] = value`; whether it was one."""
    if not isinstance(target, ast.Subscript) or not (name := text_of(target.slice)):
        return False
    if not _is_environment(dotted(target.value)) or not name.isupper():
        return False
    walk.push(value, scope, ("variable", name))
    _place(walk, name, value, scope, dotted(target.value))
    return True


def call(walk: Walk, node: ast.Call, scope: Scope) -> bool:
    """`os.environ.setdefault("NAME", value)`, `os.putenv("NAME", value)`, and look-ups, which set nothing."""
    callee = callee_of(node)
    if callee not in _SETTERS | _READERS or not node.args or not (name := text_of(node.args[0])):
        return False
    root = dotted(node.func.value) if isinstance(node.func, ast.Attribute) else ""
    if callee in {"setdefault", "get", "pop"} and not _is_environment(root):
        return False
    for given in node.args[1:]:
        walk.push(given, scope)
    if callee in _SETTERS and len(node.args) > 1:
        _place(walk, name, node.args[1], scope, root)
    return True


def variable(walk: Walk, name: str, value: ast.expr, scope: Scope, *, owner: str) -> bool:
    """An entry of a dict that is an environment variable by its name; whether it was one."""
    known = spelled(name)
    if known is None or known.knob != "threads_env" or not name.isupper():
        return False
    _place(walk, name, value, scope, owner)
    return True


def _is_environment(root: str) -> bool:
    return root.rpartition(".")[2].lower().endswith(("environ", "env", "environment", "env_vars", "envs", "env_copy"))


def _place(walk: Walk, name: str, value: ast.expr, scope: Scope, owner: str) -> None:
    key: Key = ("variable", name)
    if spelled(name) is not None:
        walk.place(name, value, Role.VARIABLE, key, scope, owner=owner, setting=name)
