"""Which other places of a project speak of the same setting: whoever else may give the value that a program takes.

Places are grouped by project and by the last word of their setting's name, and a group is walked only as far as the question needs:
a family of three thousand configurations has one group of three thousand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property

from keepfed.knobs.precedence.overlays import bases_of
from keepfed.knobs.precedence.project import Projects
from keepfed.knobs.precedence.ties import last_word, words
from keepfed.knobs.site import Form, Kind, KnobSite, Role

_OUT_OF_PLAY = frozenset({Kind.RECORD, Kind.DEAD})
_NO_RIVALS = frozenset({Role.CALL, Role.LIMIT, Role.FLAG})


class Rivals:
    """The places of one scan, by what they speak of."""

    def __init__(self, sites: Sequence[KnobSite], projects: Projects) -> None:
        self.projects = projects
        self._groups: dict[tuple[str, str], list[KnobSite]] = defaultdict(list)
        self._callees: dict[tuple[str, str], set[str]] = defaultdict(set)
        for site in sites:
            if site.kind not in _OUT_OF_PLAY:
                self._groups[self._key(site)].append(site)
            if site.role is Role.CALL:
                self._callees[self._key(site)].add(last_word(site.owner))
        self._configurations = {site.file for site in sites if site.role is Role.CONFIG and site.form is Form.PYTHON}

    def has_other(self, site: KnobSite) -> bool:
        """Whether another place gives a value to something of the same name."""
        return any(
            other.kind in (Kind.LITERAL, Kind.EXPRESSION) and other.role not in _NO_RIVALS
            for other in self._others(site)
        )

    def entries_beside(self, site: KnobSite) -> Iterator[KnobSite]:
        """The entries of that name in dicts of the same file, which may be handed over as arguments."""
        return (other for other in self._others(site) if other.role is Role.CONFIG and other.file == site.file)

    def configurations(self, site: KnobSite) -> Iterator[KnobSite]:
        """The keys of configuration files (no Python) that may stand for the same setting."""
        return (other for other in self._others(site) if other.role is Role.CONFIG and other.form is not Form.PYTHON)

    def variables(self, site: KnobSite) -> list[KnobSite]:
        """The variables of that name in other files."""
        return [other for other in self._others(site) if other.role is Role.VARIABLE and other.file != site.file]

    def is_given_by_a_caller(self, site: KnobSite) -> bool:
        """Whether some call hands a value to the function or class whose parameter this is."""
        return bool(self._callees[self._key(site)] & set(words(site.owner)))

    def lies_over_others(self, site: KnobSite) -> bool:
        """Whether its file is a configuration with `_base_` files."""
        return site.file in self._bases

    def lies_under_others(self, site: KnobSite) -> bool:
        """Whether a configuration that sets the same names its file as a `_base_`."""
        return (site.owner, site.spelling) in self._over.get(site.file, ())

    def _key(self, site: KnobSite) -> tuple[str, str]:
        return self.projects.of(site.file), last_word(site.setting) or last_word(site.spelling)

    def _others(self, site: KnobSite) -> Iterator[KnobSite]:
        return (other for other in self._groups[self._key(site)] if other is not site)

    @cached_property
    def _bases(self) -> dict[str, frozenset[str]]:
        """The files that each configuration lies over, for those that do."""
        found = {name: bases_of(name, self.projects) for name in self._configurations}
        return {name: bases for name, bases in found.items() if bases}

    @cached_property
    def _over(self) -> dict[str, set[tuple[str, str]]]:
        """What the configurations above each file set anew."""
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for group in self._groups.values():
            for site in group:
                for base in self._bases.get(site.file, ()):
                    found[base].add((site.owner, site.spelling))
        return found
