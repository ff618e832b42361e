"""Files that lie over other files: compose's override, Hydra's defaults list, the second of two equal keys.

    docker-compose.yml            shm_size: 8gb      ←─ docker-compose.override.yml   shm_size: 2gb    wins, same service
    conf/train.yaml               defaults: [data: mnist, debug: null]
    conf/data/mnist.yaml          num_workers: 4     selected, counts
    conf/debug/default.yaml       num_workers: 0     counts for who says debug=default: cannot be told
    configs/my.py                 _base_ = ["../_base_/coco.py"]; train_dataloader = dict(num_workers=4)   its own value counts

Sources: docs.docker.com/compose/how-tos/multiple-compose-files/merge (which file is merged by itself),
hydra.cc/docs/advanced/defaults_list, mmengine's "Config" (inheritance), and YAML 1.2 section 3.2.1.3, by which equal keys are an error that most loaders answer by
taking the later one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from keepfed.knobs.precedence.launches import plain_path
from keepfed.knobs.precedence.project import Projects
from keepfed.knobs.site import Form, KnobSite, Role

_COMPOSE = re.compile(r"(?:docker-)?compose\.ya?ml")
_COMPOSE_OVERRIDE = re.compile(r"(?:docker-)?compose\.override\.ya?ml")
_DEFAULTS = re.compile(
    r"(?m)^defaults:[ \t]*(?:#[^\n]*)?\r?\n((?:[ \t]*(?:-[^\n]*|#[^\n]*|[ \t]+[^\n]*)?\r?(?:\n|\Z))+)"
)
_ENTRY = re.compile(
    r"^[ \t]*-[ \t]+(?:(?:override|optional)[ \t]+)*/?([\w./@-]+)[ \t]*(?::[ \t]*[\"']?([^\s#\"']*)[\"']?)?[ \t]*(?:#.*)?$",
    re.MULTILINE,
)
_BASE = re.compile(r"(?m)^_base_[ \t]*=[ \t]*((?:\[[^\]]*\]|\([^)]*\)|[\"'][^\n]*))")
_MOST_LEVELS = 4


def overriding(site: KnobSite, sites: Sequence[KnobSite]) -> KnobSite | None:
    """The place in a compose override file that replaces one of the base file; None where there is none."""
    path = PurePosixPath(site.file)
    if site.form is not Form.YAML or not _COMPOSE.fullmatch(path.name):
        return None
    for other in sites:
        beside = PurePosixPath(other.file)
        if beside.parent == path.parent and _COMPOSE_OVERRIDE.fullmatch(beside.name) and _same_place(site, other):
            return other
    return None


def repeated(sites: Sequence[KnobSite], projects: Projects) -> dict[int, KnobSite]:
    """By the id of a site: the later one in the same mapping whose key is the same and which therefore replaces it."""
    found: dict[int, KnobSite] = {}
    groups: dict[tuple[str, str, str], list[KnobSite]] = defaultdict(list)
    for site in sites:
        if site.role in (Role.CONFIG, Role.LIMIT, Role.VARIABLE) and site.form in (Form.YAML, Form.JSON, Form.TOML):
            groups[site.file, site.owner, site.setting or site.spelling].append(site)
    for (name, _, _), group in groups.items():
        lines = projects.text(name).split("\n") if len(group) > 1 else []
        for first, second in pairwise(group):
            if first.spelling == second.spelling and _same_mapping(lines, first, second):
                found[id(first)] = second
    return found


@dataclass(frozen=True, slots=True)
class Selection:
    """What Hydra's defaults lists say of one file."""

    known: bool
    """Whether there is a defaults list above the file at all."""
    selected: bool
    """Whether it is loaded when nobody says otherwise."""
    group: str = ""
    """The group that it belongs to, as a command line names it."""
    name: str = ""
    """Its name in that group."""


def selection(name: str, projects: Projects) -> Selection:
    """Whether a YAML file is loaded by Hydra without being asked for."""
    path = PurePosixPath(name)
    if defaults_of(projects.text(name)) is not None and not _is_listed(path, projects):
        return Selection(known=True, selected=True)
    for above in list(path.parents)[1 : _MOST_LEVELS + 1]:
        primaries = [other for other in projects.in_folder(str(above)) if other.endswith((".yaml", ".yml"))]
        lists = [listed for other in primaries if (listed := defaults_of(projects.text(other))) is not None]
        if lists:
            group = str(path.parent.relative_to(above))
            chosen = {listed[group] for listed in lists if group in listed}
            return Selection(True, path.stem in chosen or f"{group}/{path.stem}" in chosen, group, path.stem)
    return Selection(known=False, selected=False)


def path_in_hydra(site: KnobSite, group: str, text: str) -> str:
    """Where Hydra puts a key of one of its files: below the name of the file's group, unless the file names its own package."""
    package = re.match(r"(?:[ \t]*(?:#[^\n]*)?\r?\n)*?[ \t]*#[ \t]*@package[ \t]+(\S+)", text)
    prefix = package[1] if package else group.replace("/", ".")
    return site.setting if prefix in ("", ".", "_global_") else f"{prefix}.{site.setting}"


def is_laid_over(primary: str, group: str) -> bool | None:
    """Whether a group of a defaults list is laid over the file that has the list; None where the list does not say `_self_`.

    Without it the answer depends on Hydra's version (hydra.cc/docs/upgrades/1.0_to_1.1/default_composition_order).
    """
    found = _DEFAULTS.search(primary)
    names = [name.partition("@")[0] for name, _ in _ENTRY.findall(found[1])] if found else []
    if "_self_" not in names or group not in names:
        return None
    return names.index(group) > names.index("_self_")


def bases_of(name: str, projects: Projects) -> frozenset[str]:
    """The files that a configuration of mmcv's kind is laid over: `_base_ = ["../_base_/datasets/coco.py"]`."""
    found = _BASE.search(projects.text(name))
    paths = re.findall(r"[\"']([^\"'\n]+\.(?:py|ya?ml|json))[\"']", found[1]) if found else []
    return frozenset(plain_path(PurePosixPath(name).parent / path) for path in paths)


def defaults_of(text: str) -> dict[str, str] | None:
    """A defaults list: the name that each group gets ("" for none); None where the file has no such list."""
    found = _DEFAULTS.search(text)
    if not found:
        return None
    chosen: dict[str, str] = {}
    for group, name in _ENTRY.findall(found[1]):
        plain = group.partition("@")[0]
        if name:
            chosen[plain] = "" if name in ("null", "~") else re.sub(r"\.ya?ml$", "", name)
        elif "/" in plain:
            folder, _, last = plain.rpartition("/")
            chosen[folder] = last
        elif plain != "_self_":
            chosen.setdefault(plain, "")
    return chosen


def _is_listed(path: PurePosixPath, projects: Projects) -> bool:
    """Whether a file with a defaults list of its own is itself an entry of one above it (an experiment, a debug overlay)."""
    return any(
        defaults_of(projects.text(other)) is not None
        for above in list(path.parents)[1:3]
        for other in projects.in_folder(str(above))
        if other.endswith((".yaml", ".yml"))
    )


def _same_place(site: KnobSite, other: KnobSite) -> bool:
    """Whether two compose files speak of the same service's same key."""
    same_key = (site.setting, site.owner) == (other.setting, other.owner)
    return site.knob == other.knob and site.spelling == other.spelling and same_key


def _same_mapping(lines: Sequence[str], first: KnobSite, second: KnobSite) -> bool:
    """Whether no line between two keys leaves their mapping: equal indentation, and nothing shallower or a new item between."""
    if first.form is not Form.YAML:
        return _same_braces("\n".join(lines), first, second) if first.form is Form.JSON else False
    if second.line > len(lines):
        return False
    one, other = lines[first.line - 1], lines[second.line - 1]
    depth = _depth(one)
    if depth != _depth(other) or other.lstrip().startswith("- "):
        return False
    between = [
        line for line in lines[first.line : second.line - 1] if line.strip() and not line.lstrip().startswith("#")
    ]
    return all(_indent(line) >= depth and not line.startswith("---") for line in between)


def _same_braces(text: str, first: KnobSite, second: KnobSite) -> bool:
    """The same for JSON: no bracket that was open at the first key is closed before the second, none opened stays open."""
    stretch = text.encode("utf-8", "surrogatepass")[first.span.end : second.span.start].decode("utf-8", "replace")
    bare = re.sub(r'"(?:[^"\\\n]|\\.)*"', "", stretch)
    depth = 0
    for character in bare:
        depth += (character in "{[") - (character in "}]")
        if depth < 0:
            return False
    return depth == 0


def _depth(line: str) -> int:
    """Where the key begins: behind the dash of a list's item."""
    return len(line) - len(re.sub(r"^[ \t]*(?:-[ \t]+)*", "", line))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
