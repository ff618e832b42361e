"""Beside a place where its like is written: a key among the loader's keys, a flag behind its flags, one more exported variable."""

from __future__ import annotations

import re
from collections.abc import Sequence

from keepfed.edit.choosing import Place
from keepfed.edit.inserting.beside import beside
from keepfed.edit.inserting.names import name_beside
from keepfed.edit.inserting.text import Text
from keepfed.edit.replacement import Edit, EditRefused
from keepfed.edit.respelling import answer_in
from keepfed.knobs.knob import Wish
from keepfed.knobs.site import Form, Kind, KnobSite, Role
from keepfed.text import say

_LOADING = ("num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
_ROLES = {Role.CALL: 0, Role.CONFIG: 1, Role.FLAG: 2}
_NOT_THERE = (Kind.RECORD, Kind.DEAD, Kind.OVERRIDDEN)
_JOINT = re.compile(r"[\"']?\]?[ \t]*(?:[=:]|,)?[ \t]*[\"']?")


def neighbours(wish: Wish, sites: Sequence[KnobSite], place: Place | None) -> list[KnobSite]:
    """The places beside which `wish` belongs: of the best kind there is, one for each loader."""
    near = [site for site in sites if _is_near(wish, site)]
    if place is not None:
        near = [site for site in near if place.covers(site)]
        return near[:1]
    if wish.knob == "threads_env":
        return _last_of_each(near)
    for role in sorted({_ROLES[site.role] for site in near}):
        same = [site for site in near if _ROLES[site.role] == role]
        for knob in _LOADING:
            found = [site for site in same if site.knob == knob]
            if found:
                return [site for site in found if site.wins] or found
    return []


def _is_near(wish: Wish, site: KnobSite) -> bool:
    if site.kind in _NOT_THERE or site.wins is False:
        return False
    if wish.knob == "threads_env":
        return site.knob == "threads_env" and site.role is Role.VARIABLE
    return wish.knob in _LOADING and site.knob in _LOADING and site.role in _ROLES


def _last_of_each(sites: Sequence[KnobSite]) -> list[KnobSite]:
    """Of each block of variables (the same file and owner) the last one."""
    blocks = {(site.file, site.owner): site for site in sites}
    return list(blocks.values())


def insert_beside(wish: Wish, site: KnobSite, text: Text) -> Edit:
    """The edit that adds what is asked for beside `site`. Raises EditRefused where it would not be understood there."""
    _refuse_useless(wish, site)
    start, end = text.value_of(site)
    key = text.all.rfind(site.spelling, max(0, start - 200), start)
    joint = text.all[key + len(site.spelling) : start]
    if key < 0 or not _JOINT.fullmatch(joint):
        raise EditRefused(say("edit.no_room", place=f"{site.file}:{site.line}"), next_step=say("edit.no_room_next"))
    opened, closed = _with_quotes(text.all, key, end, quoted=site.quoted)
    name = name_beside(wish, site.spelling)
    item = text.all[opened:key] + name + joint + _value(wish, site.form) + text.all[end:closed]
    at, new = beside(text, opened, closed, item, comma=_parted_by_commas(site, text.all, closed))
    return text.edit(wish, name, at, new)


def _refuse_useless(wish: Wish, site: KnobSite) -> None:
    place = f"{site.file}:{site.line}"
    raises = (wish.knob == "prefetch_factor" and wish.value != "none") or (
        wish.knob == "persistent_workers" and wish.value == "true"
    )
    if raises and site.knob == "num_workers" and site.kind is Kind.LITERAL and site.value == "0":
        raise EditRefused(say("edit.no_workers", place=place, name=wish.knob), next_step=say("edit.no_workers_next"))
    if site.role is Role.FLAG and wish.value in {"true", "false"}:
        raise EditRefused(say("edit.flag_unknown", place=place, name=wish.knob), next_step=say("edit.no_room_next"))


def _with_quotes(text: str, key: int, end: int, *, quoted: bool) -> tuple[int, int]:
    """The whole item: with the quotes of its key, of its value, or of both together (`- "A=1"`)."""
    closed = end + 1 if quoted and text[end : end + 1] in {'"', "'"} else end
    before = text[key - 1 : key]
    opened = key - 1 if before in {'"', "'"} and before in text[key:closed] else key
    lead = text[text.rfind("\n", 0, opened) + 1 : opened]
    reached = re.search(r"os\.environ(?:\[|\.setdefault\()$", lead)
    if not reached:
        return opened, closed
    behind = re.match(r"[ \t]*\)", text[closed:])
    return opened - len(reached[0]), closed + (behind.end() if behind and "setdefault" in reached[0] else 0)


def _parted_by_commas(site: KnobSite, text: str, end: int) -> bool:
    if site.form is Form.JSON:
        return True
    if site.form is Form.PYTHON:
        return site.role in {Role.CALL, Role.CONFIG}
    inline = site.form in {Form.YAML, Form.TOML} and site.role in _ROLES and site.role is not Role.FLAG
    return inline and bool(re.match(r"\s*[,}\]]", text[end:]))


def _value(wish: Wish, form: Form) -> str:
    return answer_in(form, yes=wish.value == "true") if wish.value in {"true", "false"} else wish.value
