"""Dict displays: `{"num_workers": 4, "pin_memory": True}`, also nested, and with others unpacked into them."""

from __future__ import annotations

import ast

from keepfed.knobs.python import environment
from keepfed.knobs.python.facts import ELSEWHERE, Key, Scope
from keepfed.knobs.python.names import text_of
from keepfed.knobs.python.reasons import beside_batches
from keepfed.knobs.python.walk import Walk
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled

_OTHERS_PATHS = ("scaling", "ray", "dask", "cluster", "resources")


def display(walk: Walk, node: ast.AST, scope: Scope, _to: Key, path: str) -> None:
    """Every key that names a setting."""
    assert isinstance(node, ast.Dict)
    beside = {text_of(key) for key in node.keys if key is not None}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            walk.push(value, scope, ELSEWHERE, path)
            continue
        name = text_of(key)
        goes: Key = ("field", name) if name else ELSEWHERE
        own_path = f"{path}.{name}" if path and name else name
        if not name:
            walk.push(key, scope)
        if value.lineno == value.end_lineno or walk.interest.touches(value.lineno, value.end_lineno or value.lineno):
            walk.push(value, scope, goes, own_path)
        if not name or spelled(name) is None or path.rpartition(".")[2].lower().startswith(_OTHERS_PATHS):
            continue
        if environment.variable(walk, name, value, scope, owner=path):
            continue
        walk.place(
            name,
            value,
            Role.CONFIG,
            goes,
            scope,
            owner=path,
            setting=own_path,
            reasoned=beside_batches(path.rpartition(".")[2], beside, value, name),
        )
