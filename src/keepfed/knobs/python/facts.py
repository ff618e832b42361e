"""What one walk over a file notes: places that may be settings, and where values go from there.

Whether `num_workers=1` is a loader's or Ray's cannot be said where it stands. It can be said once it is known where the value
goes, so the walk draws arrows between named things, and the judgement (`flow`) follows them when it is over:

    --workers ──→ args.workers ──→ num_workers (of make_loader) ──→ DataLoader(num_workers=…)   a loader's
    --num-workers ──→ args.num_workers ──→ n (of tune) ──→ RayStrategy(num_workers=…)           somebody else's
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from keepfed.knobs.site import Role

Key = tuple[str, ...]
"""A named thing that holds a value: ("name", scope, n), ("attr", root, n), ("option", n), ("field", n), ("arg", callee, n)."""

LOADER: Key = ("sink", "loader")
"""A loader takes the value, as its worker count."""
LOADERS: Key = ("sink", "loader's")
"""A loader takes the value, as another of its settings."""
ASSUMED: Key = ("sink", "assumed")
"""Something unknown takes it under the loader's own word (`make(num_workers=…)`), or it is kept under it for other files."""
ENVIRONMENT: Key = ("sink", "environment")
"""A variable of the environment that sets threads takes it."""
FOREIGN: Key = ("sink", "foreign")
"""Something takes it that is known to be no loader."""
ELSEWHERE: Key = ("sink", "elsewhere")
"""Anything else reads it."""
NEUTRAL: Key = ("sink", "neutral")
"""It is printed or compared: that says nothing about whose it is."""


@dataclass(slots=True, eq=False)
class Scope:
    """The module, a class or a function."""

    label: str
    """Unique in the file."""
    kind: str
    """"module", "class" or "function"."""
    name: str
    """As it is called."""
    parent: Scope | None = None
    """The scope round it."""
    bound: set[str] = field(default_factory=set)
    """Names that get a value here."""
    base: str = ""
    """For a class: the last name of its first base."""
    sharding: bool = False
    """Whether it asks torch which worker it runs in: its `num_workers` are read, not set."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place that may set something."""

    knob: str
    """Canonical name of the setting."""
    sure: bool
    """Whether the name alone says so."""
    spelling: str
    """The name as it is written."""
    value: ast.expr
    """What stands there."""
    role: Role
    """What it does for the program."""
    key: Key
    """Who gets the value."""
    owner: str = ""
    """The call, class, function or variable that it belongs to."""
    setting: str = ""
    """The name by which other places speak of it."""
    reasoned: bool = False
    """For a name that is not sure: whether its surroundings say that it is a loader's."""
    denied: bool = False
    """Whether its help text says that it is about something else."""
    hop: bool = False
    """A name that says nothing: it counts only because a loader takes its value from it."""
    scope: Scope | None = None
    """Where it stands."""
    positional: bool = False
    """An argument without its name."""


@dataclass(slots=True)
class Function:
    """A function or method of the file."""

    scope: Scope
    """Its own scope."""
    params: list[str]
    """Parameters in order, without self and cls."""


@dataclass(slots=True)
class Facts:
    """All that one file told."""

    module: Scope = field(default_factory=lambda: Scope("", "module", ""))
    """The outermost scope."""
    places: list[Place] = field(default_factory=list)
    """In no particular order."""
    arrows: dict[Key, list[tuple[Key, Scope]]] = field(default_factory=dict)
    """From whom to whom values go; keys of names are resolved in the scope that read them."""
    functions: dict[str, list[Function]] = field(default_factory=dict)
    """By name; classes stand here with the parameters of `__init__`."""
    fields: dict[str, set[str]] = field(default_factory=dict)
    """Annotated fields of each class."""
    scopes: dict[str, Scope] = field(default_factory=dict)
    """By label."""

    def scope(self, kind: str, name: str, parent: Scope) -> Scope:
        """A new scope inside `parent`."""
        made = Scope(f"{parent.label}/{name}#{len(self.scopes)}", kind, name, parent)
        self.scopes[made.label] = made
        return made

    def arrow(self, source: Key, to: Key, scope: Scope) -> None:
        """The value of `source`, read in `scope`, goes to `to`."""
        self.arrows.setdefault(source, []).append((to, scope))
