"""Settings in command lines that stand as values in other files: compose's `command`, a pod's `args`, `launch.json`.

A command line is one text (`command: python train.py --num_workers 8`), or one word per item (`["--num_workers", "8"]`), or a
single assignment (`- OMP_NUM_THREADS=4`), or an option of docker run (`runArgs: ["--shm-size=8g"]`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from keepfed.knobs.spelling import Spelled, spelled

_VALUE = r"""(?P<open>\\?["']?)(?P<value>\$\{[^}\s]*\}|\$?[\w.+~-]+)(?P=open)(?![\w.{$])"""
_SETTING = re.compile(
    r"""(?<![\w.$/{-])
    (?: (?P<flag>--?[A-Za-z][\w.-]*)(?P<joint>=|[ \t]+(?:\\\r?\n[ \t]*)?)
      | (?P<plus>[+~]{0,2})(?P<path>(?:\w+[./@])*)(?P<name>[A-Za-z_]\w*)= )"""
    + _VALUE,
    re.VERBOSE,
)
_COMMENT = re.compile(r"(?m)^[ \t]*#[^\n]*|(?<=[ \t])#[^\n]*")
_ECHO = re.compile(r"\b(?:echo|printf)\b[^\n;&|]*")
_TRAINS = re.compile(
    r"(?i)\.py\b|\btorchrun\b|\baccelerate\b|\bdeepspeed\b|\bpython[\d.]*\s+-m\b|--(?:batch[-_]?size|epochs?|lr|data\w*)\b"
)
OTHER_PROGRAMS = re.compile(
    r"(?i)\b(?:gunicorn|uvicorn|hypercorn|granian|celery|dask\w*|torchserve|tritonserver|vllm|sglang|airflow|nginx|fastapi|flask"
    r"|ray|mlflow|label-studio|supervisord|pytest|locust|huey|dramatiq)\b"
)
KEYS = re.compile(
    r"(?i)(?:\w*[._-])?(?:commands?|cmd|cmdline|args?|arguments|argv|entrypoint|entry_?point|run|script|scripts|shell|exec|overrides"
    r"|runargs|run_options|program|programargs|options|flags|extra_args|setup|job|task|train|launch)"
)
"""Keys whose values are command lines."""


@dataclass(frozen=True, slots=True)
class Word:
    """One setting in a command line."""

    name: str
    """As it is written there: `--num_workers`, `num_workers`, `OMP_NUM_THREADS`."""
    path: str
    """For an assignment, the dotted path: `data.num_workers`."""
    start: int
    """Of the value, in characters of the text."""
    end: int
    """Behind the value."""
    quoted: bool
    """Whether quotes stand round it."""
    meaning: Spelled
    """What the name means."""


def words(text: str, command: str = "") -> Iterator[Word]:
    """The settings of a command line, of a script of several, or of one word of a longer `command`."""
    bare = _ECHO.sub(_blank, _COMMENT.sub(_blank, text))
    for found in _SETTING.finditer(bare):
        name = found["flag"] or found["name"]
        meaning = flag_meaning(name) if found["flag"] else spelled(name)
        if meaning and may_be_the_loaders(meaning, command or _command_round(bare, found)):
            path = found["flag"] or (found["path"] or "") + name
            yield Word(name, path, found.start("value"), found.end("value"), bool(found["open"]), meaning)


def flag_meaning(flag: str) -> Spelled | None:
    """The setting that an option stands for; of `--data.num_workers` the last part. Short ones say nothing by themselves."""
    if not flag.startswith("--"):
        return None
    return spelled(flag) or spelled(flag.rpartition(".")[2])


def may_be_the_loaders(meaning: Spelled, command: str) -> bool:
    """Whether an option of this command line is a loader's."""
    if meaning.knob != "num_workers":
        return meaning.sure
    return not OTHER_PROGRAMS.search(command) and (meaning.sure or bool(_TRAINS.search(command)))


def _command_round(text: str, found: re.Match[str]) -> str:
    begin = max(text.rfind(mark, 0, found.start()) for mark in ("\n\n", ";", "&&", "||"))
    end = text.find("\n\n", found.end())
    return text[max(begin, 0) : end if end >= 0 else len(text)]


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])
