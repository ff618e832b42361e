"""Whose a value is: where its arrows lead, through names, attributes, options and parameters of the file's own functions."""

from __future__ import annotations

from keepfed.knobs.python.calls import resolved
from keepfed.knobs.python.facts import (
    ASSUMED,
    ELSEWHERE,
    ENVIRONMENT,
    FOREIGN,
    LOADER,
    LOADERS,
    NEUTRAL,
    Facts,
    Key,
    Scope,
)
from keepfed.knobs.python.reasons import is_loader_like
from keepfed.knobs.spelling import spelled

_SINKS = {LOADER, LOADERS, ASSUMED, ENVIRONMENT, FOREIGN, ELSEWHERE, NEUTRAL}


def _is_sure(name: str) -> bool:
    known = spelled(name)
    return known is not None and known.sure


class Flow:
    """The arrows of one file, to be followed."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._next: dict[Key, set[Key]] = {}
        for source, arrows in facts.arrows.items():
            for to, scope in arrows:
                self._next.setdefault(self._home(source, scope), set()).update(self._ends(to))
        self._reached: dict[Key, frozenset[Key]] = {}

    def ends(self, key: Key) -> frozenset[Key]:
        """All sinks that a value can get to from here."""
        if key not in self._reached:
            seen, waiting = set(), list(self._ends(key))
            while waiting:
                at = waiting.pop()
                if at not in seen:
                    seen.add(at)
                    waiting.extend(self._next.get(at, ()))
                    if at[0] in {"field", "attr"} and at not in self._next and _is_sure(at[-1]):
                        seen.add(ASSUMED)  # kept under the loader's own name, for somebody in another file
            self._reached[key] = frozenset(seen & _SINKS)
        return self._reached[key]

    def only_for_loaders(self, key: Key) -> bool:
        """Whether every reader of this very thing is a loader, or a name of the loader's settings."""
        following = {end for start in self._ends(key) for end in self._next.get(start, ())} - {NEUTRAL}
        return bool(following) and all(end in {LOADER, ASSUMED} or self._speaks(end) for end in following)

    def _speaks(self, key: Key) -> bool:
        known = spelled(key[-1])
        return (
            key not in _SINKS
            and known is not None
            and known.knob == "num_workers"
            and bool({LOADER, ASSUMED} & self.ends(key))
        )

    def _ends(self, to: Key) -> list[Key]:
        """Where an arrow's head really is: an argument is the parameter that it fills, or a loader's, or another's."""
        if to[0] == "variable":
            return [ENVIRONMENT] if spelled(to[1]) is not None else [ELSEWHERE]
        if to[0] != "arg":
            return [self._home(to, None)]
        _, callee, argument = to
        functions = self._facts.functions.get(callee, ())
        filled: list[Key] = []
        for each in functions:
            name = argument
            if argument.isdigit() and int(argument) < len(each.params):
                name = each.params[int(argument)]
            if name in each.params:
                filled.append(("name", each.scope.label, name))
        if argument in self._facts.fields.get(callee, ()):
            filled.append(("field", argument))
        if filled:
            return filled
        known = resolved(to)
        if known is not None:
            return [known]
        meaning = spelled(argument) if not argument.isdigit() else None
        if callee.endswith("DataLoader") and argument == "5":
            return [LOADER]
        if meaning is not None and is_loader_like(callee):
            return [LOADER if meaning.knob == "num_workers" else LOADERS]
        return [ASSUMED] if meaning is not None and meaning.sure else [ELSEWHERE]

    def _home(self, key: Key, scope: Scope | None) -> Key:
        """The scope that binds a name: the nearest one round its reader."""
        if key[0] != "name":
            return key
        at = scope or self._facts.scopes.get(key[1]) or self._facts.module
        name = key[2]
        first = at
        while True:
            if name in at.bound and (at.kind != "class" or at is first):
                return ("field", name) if at.kind == "class" else ("name", at.label, name)
            if at.parent is None:
                return ("name", "", name)
            at = at.parent
