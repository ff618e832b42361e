"""Defaults of command line options: argparse, optparse, configargparse, click, typer, absl, fastargs, Hugging Face's field().

The default is wherever the call has it: behind the type, before it, two lines further down, behind a help text full of digits.
"""

from __future__ import annotations

import ast
import re

from keepfed.knobs.python.facts import Key, Scope
from keepfed.knobs.python.names import callee_of, keyword, last_name, text_of
from keepfed.knobs.python.walk import Walk
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import spelled

_ABSL = re.compile(r"DEFINE_(?:integer|int|bool|boolean|string|alias)\b")
_WRAPS = {
    "Option": 0, "Argument": 0, "Field": 0, "Param": None, "field": None, "attrib": 0, "ib": 0, "Factory": None,
    "ClickOption": 0, "ArgumentField": None, "opt": 0, "InputField": 0,
}  # fmt: skip
_AS_OPTION = {"Option", "Argument", "Param", "ArgumentField"}
_ABOUT_LOADING = re.compile(
    r"(?i)data.{0,3}load|\bload\w*\b.{0,30}\bdata|\bdata(?:set)?s?\b.{0,40}\b(?:load|workers?|threads?|read|fetch|process)|batch|prefetch|"
    r"(?:workers?|process\w*|threads?|jobs)\b.{0,30}\b(?:load|fetch|read)|\bload\w*\b.{0,30}\b(?:workers?|threads?|process)|"
    r"数据.{0,6}(?:加载|读取|载入|线程|进程)|加载.{0,6}(?:数据|线程|进程)"
)
_ABOUT_OTHERS = re.compile(
    r"(?i)\bray\b|dask|server|gunicorn|uvicorn|openmp|\bomp\b|onnx|download|convert|extract|tokeni|export|"
    r"\bhttp|rollout|simulat|environments?\b|parallel (?:jobs|process(?!es))|pre-?process|\b(?:for|to) process"
)


def option(walk: Walk, call: ast.Call, scope: Scope) -> bool:
    """Note the default of an option that this call declares; whether it declares one that matters."""
    strings = _strings(call)
    if not strings:
        return False
    default, spelling = _default(call, strings[0]), _spelling(walk, call, strings)
    if not spelling:
        return False
    dest = text_of(keyword(call, "dest")) or _dest(strings)
    key: Key = ("option", dest)
    if default is not None and not _says_nothing(default):
        help_text = _help(call)
        walk.place(
            spelling,
            default,
            Role.OPTION,
            key,
            scope,
            owner=callee_of(call),
            setting=dest,
            reasoned=speaks_of_loading(help_text),
            denied=speaks_of_others(help_text),
            meaning=walk.named(spelling) or walk.named(dest),
        )
        walk.push(default, scope, key)
    return True


def unwrapped(value: ast.expr) -> tuple[ast.expr | None, bool, str]:
    """The default inside `field(default=4)`, `typer.Option(4)`, `Param(int, default=8)`: itself, whether it is an option, its help.

    Anything else comes back as it is; None where the wrapper has no default.
    """
    name = callee_of(value) if isinstance(value, ast.Call) else ""
    if name not in _WRAPS:
        return value, False, ""
    assert isinstance(value, ast.Call)
    position = _WRAPS[name]
    default = keyword(value, "default")
    if default is None and position is not None and len(value.args) > position:
        default = value.args[position]
    if isinstance(default, ast.Constant) and default.value is ...:
        default = None
    is_option = name in _AS_OPTION or keyword(value, "metadata") is not None
    return default, is_option, _help(value)


def speaks_of_loading(help_text: str) -> bool:
    """Whether a help text says that this is about loading data."""
    return bool(_ABOUT_LOADING.search(help_text)) and not _ABOUT_OTHERS.search(help_text)


def speaks_of_others(help_text: str) -> bool:
    """Whether a help text says that this is about anything but loading data."""
    return bool(_ABOUT_OTHERS.search(help_text)) and not _ABOUT_LOADING.search(help_text)


def _strings(call: ast.Call) -> list[str]:
    """Option strings of a declaration: the leading strings, of which one starts with a dash or is a plain name."""
    strings = []
    for given in call.args:
        if not (text := text_of(given)):
            break
        strings.append(text)
    name = last_name(call.func)
    if _ABSL.match(name):
        return strings[:1] or [given for given in [text_of(keyword(call, "name"))] if given]
    if not strings:
        return []
    if name in {"add_argument", "add_option", "add_arg", "option", "argument", "Option", "Argument"}:
        return [text for text in strings if re.fullmatch(r"[-+]*[\w.-]+(?:/[-\w]+)?", text)]
    if strings[0].startswith("-") and name not in {"append", "extend", "index", "get"}:
        return [text for text in strings if text.startswith("-")] if keyword(call, "default") is not None else []
    return []


def _default(call: ast.Call, first: str) -> ast.expr | None:
    if last_name(call.func).startswith("DEFINE_"):
        given = keyword(call, "default")
        return given if given is not None else (call.args[1] if len(call.args) > 1 else None)
    return keyword(call, "default") if first else None


def _spelling(walk: Walk, call: ast.Call, strings: list[str]) -> str:
    """The option string that names the setting: a sure one before others, a long one before `-j`."""
    names = [text for text in strings if walk.named(_bare(text)) is not None or spelled(text) is not None]
    names.sort(key=lambda text: (not _sure(text), not text.startswith("--"), len(text) <= 2))  # "-j"
    if names:
        return names[0]
    dest = text_of(keyword(call, "dest"))
    if dest and walk.named(dest) is not None:
        return max(strings, key=len)
    return ""


def _sure(text: str) -> bool:
    known = spelled(text)
    return known is not None and known.sure


def _bare(text: str) -> str:
    return text.lstrip("-+").replace("-", "_")


def _dest(strings: list[str]) -> str:
    """argparse's rule: the first long option string, else the first one, with underscores for dashes."""
    long = [text for text in strings if text.startswith("--")]
    plain = [text for text in strings if not text.startswith("-")]
    return _bare((plain or long or strings)[0].partition("/")[0])


def _help(call: ast.Call) -> str:
    given = keyword(call, "help")
    if given is None:
        given = keyword(call, "description")
    if given is None and last_name(call.func).startswith("DEFINE_") and len(call.args) > 2:  # name, default, help
        given = call.args[2]
    if given is None and callee_of(call) == "Param" and len(call.args) > 1:
        given = call.args[1]
    if given is None:
        metadata = keyword(call, "metadata")
        if isinstance(metadata, ast.Dict):
            pairs = zip(metadata.keys, metadata.values, strict=True)
            given = next((value for key, value in pairs if text_of(key) == "help"), None)
        elif isinstance(metadata, ast.Call):
            given = keyword(metadata, "help")
    if isinstance(given, ast.Call):
        given = given.args[0] if given.args else None
    return text_of(given)


def _says_nothing(default: ast.expr) -> bool:
    """`default=None`, `default=argparse.SUPPRESS`: the value is set elsewhere."""
    if isinstance(default, ast.Constant):
        return default.value is None
    return last_name(default) in {"SUPPRESS", "NOT_GIVEN", "MISSING", "UNSET"}
