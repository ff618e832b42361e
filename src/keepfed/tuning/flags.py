"""Finds the worker count among the words of a command line, to say which word would have to change.

Most training scripts take it as an option, under a handful of names: `--num-workers`, `--workers` and `-j` (the ImageNet
example of PyTorch, timm), `--nw`, `--dataloader_num_workers` (transformers), `--data.num_workers` (LightningCLI),
`loader.num_workers=4` (Hydra, OmegaConf). Only a word whose value is the one that the loader asked for is taken: another
number under such a name belongs to something else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import PurePath

WORKER_NAMES = frozenset({
    "num_workers", "workers", "nw", "n_workers", "nworkers", "numworkers", "worker", "loader_workers", "data_workers",
    "dataloader_num_workers", "dataloader_workers", "num_data_workers", "train_num_workers", "j",
})  # fmt: skip
PREFETCH_NAMES = frozenset({"prefetch_factor", "dataloader_prefetch_factor", "prefetch"})

_BUILDERS = frozenset({"make", "gmake", "ninja"})
"""For these, -j is their own."""


def worker_flag(command: Sequence[str], asked: int, wanted: int) -> tuple[str, str] | None:
    """The words that set `asked` workers, and the same words with `wanted`: ("-j 4", "-j 6"). None if there are none."""
    names = WORKER_NAMES - {"j"} if _program(command) in _BUILDERS else WORKER_NAMES
    return _flag(command, names, asked, wanted)


def prefetch_flag(command: Sequence[str], asked: int, wanted: int) -> tuple[str, str] | None:
    """The same for the prefetch factor."""
    return _flag(command, PREFETCH_NAMES, asked, wanted)


def _program(command: Sequence[str]) -> str:
    return PurePath(command[0]).name.lower() if command else ""


def _flag(command: Sequence[str], names: frozenset[str], asked: int, wanted: int) -> tuple[str, str] | None:
    for word, following in zip_longest(command, command[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if equals and _known(name, names) and _is(value, asked):
            return word, f"{name}={wanted}"
        if word.startswith("-") and not equals and _known(word, names) and _is(following, asked):
            return f"{word} {following}", f"{word} {wanted}"
        if "j" in names and re.fullmatch(r"-j\d+", word) and _is(word[2:], asked):
            return word, f"-j{wanted}"
    return None


def _known(name: str, names: frozenset[str]) -> bool:
    """`--data.init_args.num-workers`, `+loader.num_workers` and `num_workers` all end in the same name."""
    return re.split(r"[./]", name.lstrip("-+"))[-1].replace("-", "_").lower() in names


def _is(value: str, number: int) -> bool:
    return value.isascii() and value.isdigit() and int(value) == number
