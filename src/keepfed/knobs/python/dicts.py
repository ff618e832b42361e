"""Dict displays: `{"num_workers": 4, "pin_memory": True}`, also nested, and with others unpacked into them."""

from __future__ import annotations

import ast

from keepfed.knobs.python import environment
from keepfed.knobs.python.facts import ELSEWHERE, Key, Scope
from keepfed.knobs.python.names import text_of
from keepfed.knobs.python.options import speaks_of_loading
from keepfed.knobs.python.reasons import beside_batches
from keepfed.knobs.python.walk import Walk
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled

_PARTS = {"train", "training", "val", "valid", "validation", "eval", "test", "testing", "inference", "predict"}
# Of Databricks' and Spark's clusters, and of Ray's RLlib.
_OTHERS_KEYS = {
    "spark_version", "node_type_id", "autotermination_minutes", "runtime_engine", "spark_conf", "driver_node_type_id",
    "num_envs_per_worker", "num_gpus_per_worker", "num_cpus_per_worker", "rollout_fragment_length", "env_config",
}  # fmt: skip
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
        if not name or spelled(name) is None or beside & _OTHERS_KEYS:
            continue
        if path.rpartition(".")[2].lower().startswith(_OTHERS_PATHS):
            continue
        if environment.variable(walk, name, value, scope, owner=path):
            continue
        reasoned = beside_batches(path.rpartition(".")[2], beside, value, name)
        for part, each in _values(value):
            setting = f"{own_path}.{part}" if part else own_path
            walk.place(name, each, Role.CONFIG, goes, scope, owner=path, setting=setting, reasoned=reasoned)


def _values(value: ast.expr) -> list[tuple[str, ast.expr]]:
    """The value of a key, or those for each part of the data: `{"train": 4, "val": 2}`; a declared option's default."""
    if not isinstance(value, ast.Dict) or not value.keys:
        return [("", value)]
    inside = {text_of(key): each for key, each in zip(value.keys, value.values, strict=True)}
    if set(inside) <= _PARTS:
        return list(inside.items())
    told = text_of(inside.get("description")) or text_of(inside.get("help"))
    return [("", inside["default"])] if "default" in inside and speaks_of_loading(told) else []
