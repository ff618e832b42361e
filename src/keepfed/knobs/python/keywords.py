"""Keywords of calls: `DataLoader(dataset, num_workers=4)`, `dict(num_workers=4)`, `Section("data").params(num_workers=Param(…))`.

Whatever is called, a keyword is an arrow as well: `make(workers=n)` tells where the value of `n` goes.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from keepfed.knobs.python import environment
from keepfed.knobs.python.facts import ASSUMED, ELSEWHERE, FOREIGN, Key, Scope
from keepfed.knobs.python.names import dotted, text_of
from keepfed.knobs.python.options import speaks_of_loading, unwrapped
from keepfed.knobs.python.reasons import beside_batches, is_loader_like
from keepfed.knobs.python.walk import Walk, read_keys
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled

_DICTS = frozenset(
    """
    dict Dict EasyDict edict AttrDict ConfigDict Config CN CfgNode SimpleNamespace Namespace Munch Bunch DotDict OrderedDict
    Box ConfigNode update Params HParams DictConfig config
    """.split()  # noqa: SIM905  # a list of names is read far more easily without quotes
)


@dataclass(frozen=True, slots=True)
class Called:
    """What the keywords are given to."""

    name: str
    """The callee's last name."""
    inside: str
    """The path that the keywords of a dict of settings belong to."""
    beside: frozenset[str]
    """The names of all keywords."""

    @property
    def settings(self) -> bool:
        """Whether the call makes a dict of settings of its keywords, or updates one."""
        return self.name in _DICTS

    def key(self, name: str) -> Key:
        """Who gets the value of a keyword."""
        if self.name == "params":
            return ("option", name)
        return ("field", name) if self.settings or self.name == "set_defaults" else ("arg", self.name, name)

    def path(self, name: str) -> str:
        """By which path files of settings speak of it."""
        return f"{self.inside}.{name}" if self.inside and (self.settings or self.name == "params") else name

    def role(self, *, as_option: bool) -> Role:
        """What the keyword does."""
        if as_option or self.name == "set_defaults":
            return Role.OPTION
        return Role.CONFIG if self.settings else Role.CALL


_RAYS = {"use_gpu", "resources_per_worker", "trainer_resources"}


def keywords(walk: Walk, node: ast.Call, scope: Scope, callee: str, path: str) -> None:
    """Every keyword of a call; `path` is that of the names round it."""
    called = Called(callee, _inside(node, callee, path), frozenset(given.arg or "" for given in node.keywords))
    for given in node.keywords:
        if given.arg is None:
            walk.push(given.value, scope, ELSEWHERE, path)
        elif walk.interest.with_ray and called.beside & _RAYS and _counts_workers(given.arg):
            walk.push(given.value, scope, FOREIGN)  # Trainer("torch", num_workers=2, use_gpu=True)
        else:
            _keyword(walk, given.arg, given.value, called, scope)


def _counts_workers(name: str) -> bool:
    known = spelled(name)
    return known is not None and known.knob == "num_workers"


def _keyword(walk: Walk, name: str, given: ast.expr, called: Called, scope: Scope) -> None:
    key, path = called.key(name), called.path(name)
    walk.push(given, scope, key, path)
    value, as_option, help_text = unwrapped(given)
    meaning, role = spelled(name), called.role(as_option=as_option)
    if meaning is None or value is None or (role is Role.OPTION and _is_none(value)):
        return
    if environment.variable(walk, name, value, scope, owner=called.inside):
        return
    reasoned = speaks_of_loading(help_text) or beside_batches(called.name, called.beside, value, name)
    if reasoned and not meaning.sure:
        for source in read_keys(value, scope):
            walk.facts.arrow(source, ASSUMED, scope)
    owner = called.inside if called.settings else called.name
    setting = path if called.settings or role is Role.OPTION else ""
    for each in _values(called.name, value):
        walk.place(name, each, role, key, scope, owner=owner, setting=setting, reasoned=reasoned)


def _values(callee: str, value: ast.expr) -> list[ast.expr]:
    """The value, or those of several loaders that one call makes: `create_loader(…, num_workers=[4, 4, 4])`."""
    if is_loader_like(callee) and isinstance(value, (ast.List, ast.Tuple)):
        return value.elts
    return [value]


def _inside(node: ast.Call, callee: str, path: str) -> str:
    if callee == "update" and isinstance(node.func, ast.Attribute):
        return dotted(node.func.value)
    if callee == "params" and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
        return text_of(node.func.value.args[0]) if node.func.value.args else ""
    return path


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
