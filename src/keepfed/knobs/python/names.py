"""How things are called in Python source: the last name of a callee, the dotted path of a reference."""

from __future__ import annotations

import ast

WRAPPERS = frozenset({"partial", "with_parameters", "delayed", "L", "LazyCall", "builds", "pbuilds", "Partial"})
"""Calls that make another call of their first argument: `partial(DataLoader, num_workers=4)`."""


def callee_of(call: ast.Call) -> str:
    """The last name of what is called: `torch.utils.data.DataLoader(…)` is a DataLoader; empty where it has none."""
    name = last_name(call.func)
    if name in WRAPPERS and call.args:
        return last_name(call.args[0]) or name
    if not name and isinstance(call.func, ast.Call) and last_name(call.func.func) in WRAPPERS and call.func.args:
        return last_name(call.func.args[0])  # detectron2: L(DataLoader)(num_workers=4)
    return name


def last_name(node: ast.expr) -> str:
    """`c` of `a.b.c`, and of `a[0].c`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript):
        return last_name(node.value)  # Generic[T](…)
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node: ast.expr) -> str:
    """`args.workers`, `cfg.data.num_workers` (also of `cfg["data"]["num_workers"]`); empty for anything else."""
    parts: list[str] = []
    while True:
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Subscript) and (key := text_of(node.slice)):
            parts.append(key)
            node = node.value
        elif isinstance(node, ast.Name):
            parts.append(node.id)
            return ".".join(reversed(parts))
        else:
            return ""


def text_of(node: ast.expr | None) -> str:
    """The string that a constant holds; empty for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    for given in call.keywords:
        if given.arg == name:
            return given.value
    return None
