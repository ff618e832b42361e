"""Options that are parsed and never read: whoever changes them changes nothing.

That can be said only where the parsed arguments stay in the file. Once they are passed to other modules, returned, or kept in
an object, somebody out of sight may read them.
"""

from __future__ import annotations

import ast
import re

from keepfed.knobs.python.foreign import only_says
from keepfed.knobs.python.names import callee_of, last_name

_PARSERS = {"parse_args", "parse_known_args", "parse_intermixed_args"}
_WHOLE = {"__dict__", "_get_kwargs", "items", "keys", "values"}


def unread(tree: ast.Module, utf8: bytes, dests: set[str]) -> set[str]:
    """Those of the options that nothing reads."""
    suspects = {dest for dest in dests if _never_named(utf8, dest)}
    return suspects if suspects and _stays(tree) else set()


def _never_named(utf8: bytes, dest: str) -> bool:
    """Whether neither `.dest` nor `"dest"` (for getattr) stands anywhere."""
    name = re.escape(dest.encode())
    return re.search(rb"\.\s*" + name + rb"\b|[\"']" + name + rb"[\"']", utf8) is None


def _stays(tree: ast.Module) -> bool:
    """Whether parsed arguments are used here, by names of this file alone, and only attribute by attribute.

    A module that declares options and uses few of them is one that others take them from.
    """
    holders: set[str] = set()
    parsed = kept = declared = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = last_name(node.func)
            parsed += name in _PARSERS
            declared += name == "add_argument"
        if isinstance(node, ast.Assign) and _parses(node.value):
            target = node.targets[0]
            first = target.elts[0] if isinstance(target, ast.Tuple) and target.elts else target
            if isinstance(first, ast.Name):
                holders.add(first.id)
                kept += 1
    if not parsed or kept != parsed:
        return False
    read: set[str] = set()
    for node in ast.walk(tree):
        if _escapes(node, holders):
            return False
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in holders:
            read.add(node.attr)
    return 2 * len(read) >= declared and not read & _WHOLE


def _parses(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and last_name(value.func) in _PARSERS


def _escapes(node: ast.AST, holders: set[str]) -> bool:
    """Whether a node uses the arguments as a whole: everything but `args.x`, and but printing them."""
    if isinstance(node, (ast.Attribute, ast.FormattedValue)):
        return False
    if isinstance(node, ast.Call) and only_says(callee_of(node)):
        return False
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Name) and child.id in holders and isinstance(child.ctx, ast.Load):
            return True
    return False
