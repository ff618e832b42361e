"""What a command line starts: `srun docker run IMAGE torchrun train.py` is four programs, each with options of its own.

`--workers 8` is a loader's for `torchrun train.py`, web processes for `gunicorn`, compilers for `make`, and text for `echo`; and
`--shm-size` is read by `docker run` in front of the image, not by what runs in it. So a row of words is cut into layers, and
each layer says what its options may mean.

    srun -c 8 docker run --shm-size 8g IMAGE torchrun --nproc 4 train.py --workers 8
    └─ JOB ─┘ └─────── CONTAINER ─────────┘ └──── PYTHON ─────┘└────── PYTHON ──────┘
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from keepfed.knobs.commands.known_programs import (
    BARE_CONTAINER_OPTIONS,
    CONTAINERS,
    DOUBTFUL,
    ELSEWHERE,
    FOREIGN,
    FOREIGN_SCRIPTS,
    INNER,
    JOBS,
    LAUNCHERS,
    SILENT,
    SURELY_TRAINS,
    TALKS,
    TRAINS,
    WRAPPERS,
)
from keepfed.knobs.commands.words import Word
from keepfed.knobs.spelling import words_of


class Runs(Enum):
    """What a layer of a command line does with its options."""

    PYTHON = auto()
    """A Python program, or a launcher of one."""
    CONTAINER = auto()
    """`docker run` and its kin: options of the container, up to the image."""
    JOB = auto()
    """A job of SLURM: `srun`, `sbatch`, `salloc`."""
    WRAPPER = auto()
    """Something that starts the next one: `env`, `sudo`, `nohup`, `time`."""
    OTHER = auto()
    """A program or script that nothing is known about."""
    FRAGMENT = auto()
    """Options without a program: an array or a string that some command line is put together from."""
    FOREIGN = auto()
    """A program whose workers are not a loader's: `make -j`, `gunicorn --workers`."""
    SILENT = auto()
    """Prints or searches its words: `echo`, `grep`."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One program of a command line."""

    runs: Runs
    """What it does with its options."""
    name: str
    """The program, script or module, without its folder."""
    words: Sequence[Word]
    """Its options and arguments, up to the next layer."""
    trains: bool
    """Whether its options are those of a program that loads data: only then `--workers` is a loader's."""
    elsewhere: bool
    """Whether its plain `num_workers` counts something else: processes of a preprocessing, of Ray."""


_PYTHON = re.compile(r"(?:pypy|ipython|python|\$[({]?\w*PY(?:THON)?\w*[)}]?)[\d.]*(?:\.exe)?", re.IGNORECASE)
_SCRIPT = re.compile(r".*\.py[3c]?")
_SHELL_SCRIPT = re.compile(r".*\.(?:sh|bash|slurm|sbatch)")
_MODULE = {"-m", "--module"}
_JOINTS = str.maketrans("_-.", "   ")
# Names of options that programs have which load data. `data` itself and `model` say too little.
_LOADS = re.compile(
    r"(?i)^[ab]$|\bbatch(?= size| sz|s?$| per)|\b(?:bs|epochs?|lr|learning|optim(?:izer)?|momentum|weight_?decay|wd|arch|backbone"
    r"|gpus?|cuda|cudnn|ddp|dist|amp|fp16|bf16|precision|resume|pretrain(?:ed)?|ckpt|checkpoints?|weights|imgsz|img|datasets?|dataroot"
    r"|train|val|nproc|devices?|sync|loader|schedul(?:e|er)|warmup|rank|world|num classes)(?![a-z])"
)
_OPTION = re.compile(r"--?([A-Za-z][\w.-]*)|\+{0,2}([A-Za-z][\w.]*)=")


def layers(words: Sequence[Word]) -> Iterator[Layer]:
    """The programs of one command, from the outermost in. Words that begin with an option are a fragment."""
    start = 0
    words = [word for word in words if word.text.strip()]
    launched = False
    while start < len(words):
        layer, start = _layer(words, start, launched)
        launched = launched or layer.name in LAUNCHERS
        yield layer


def program_like(text: str) -> bool:
    """Whether a word alone says that a command begins with it: `python`, `torchrun`, `train.py`, `docker`."""
    base = _base(text)
    scripts = (_PYTHON, _SCRIPT, _SHELL_SCRIPT)
    return any(pattern.fullmatch(base) for pattern in scripts) or base in LAUNCHERS | CONTAINERS | JOBS


def is_silent(name: str) -> bool:
    """Whether a command prints its words, or looks for them."""
    base = _base(name)
    return base in SILENT or ("." not in name and "/" not in name and bool(set(words_of(base)) & TALKS))


def is_foreign(name: str) -> bool:
    """Whether a command is a program whose workers are not a loader's, or one that counts."""
    return _base(name) in FOREIGN | {"seq"}


def _layer(words: Sequence[Word], start: int, launched: bool) -> tuple[Layer, int]:
    first = words[start].text
    base = _base(first)
    if first.startswith("-") or "=" in first:
        rest = _until(words, start)
        return _made(Runs.FRAGMENT, "", words[start:rest], launched), rest
    if is_silent(first):
        return Layer(Runs.SILENT, base, words[start + 1 :], trains=False, elsewhere=True), len(words)
    if base in CONTAINERS or re.fullmatch(r"\$[({]?\w*(?:DOCKER|PODMAN|CONTAINER)\w*[)}]?", base):
        return _container(words, start)
    if _PYTHON.fullmatch(base) or _SCRIPT.fullmatch(base) or (start and words[start - 1].text in _MODULE):
        return _python(words, start, launched)
    runs = _of(base)
    takes_all = runs is Runs.FOREIGN or _SHELL_SCRIPT.fullmatch(base)
    rest = len(words) if takes_all else _until(words, start + 1, runs)
    return _made(runs, first, words[start + 1 : rest], launched or runs is Runs.PYTHON), rest


def _of(base: str) -> Runs:
    for names, runs in (
        (FOREIGN, Runs.FOREIGN),
        (LAUNCHERS, Runs.PYTHON),
        (JOBS, Runs.JOB),
        (WRAPPERS, Runs.WRAPPER),
    ):
        if base in names:
            return runs
    return Runs.OTHER


def _python(words: Sequence[Word], start: int, launched: bool) -> tuple[Layer, int]:
    """A Python program: its own options, its script or module, and all that follows, which is the script's."""
    at, name = (start, words[start].text)
    if _PYTHON.fullmatch(_base(name)):
        at, name = _script(words, start + 1)
    if name in LAUNCHERS:
        rest = _until(words, at + 1, Runs.PYTHON)
        return _made(Runs.PYTHON, name, words[at + 1 : rest], launched=True), rest
    stem = _base(name).removesuffix(".py")
    if stem.split(".")[0] in FOREIGN | FOREIGN_SCRIPTS:
        return Layer(Runs.FOREIGN, name, words[at + 1 :], trains=False, elsewhere=True), len(words)
    return _made(Runs.PYTHON, name, words[at + 1 :], launched), len(words)


def _script(words: Sequence[Word], at: int) -> tuple[int, str]:
    """Where the interpreter's own options end, and what it runs."""
    while at < len(words) and words[at].text.startswith("-"):
        option = words[at].text
        if option == "-m":
            return at + 1, words[at + 1].text if at + 1 < len(words) else ""
        if option.startswith("-c") or option == "-":
            return at, ""
        at += 2 if option in {"-W", "-X"} else 1
    return at, words[at].text if at < len(words) else ""


def _container(words: Sequence[Word], start: int) -> tuple[Layer, int]:
    """`docker run` up to the image. Another verb of docker has no options that count here, but for `exec -e`."""
    at = start + 1
    while at < len(words) and words[at].text not in {"run", "create", "exec"}:
        if not words[at].text.startswith("-") and words[at].text != "container":
            return Layer(Runs.FOREIGN, _base(words[start].text), words[at:], trains=False, elsewhere=True), len(words)
        at += 1
    at += 1
    first = at
    while at < len(words) and (words[at].text.startswith("-") or words[at].text in {"\\", "\n"}):
        option = words[at].text
        alone = "=" in option or option in BARE_CONTAINER_OPTIONS or re.fullmatch(r"-[itdP]+|-q", option)
        at += 1 if alone else 2
    name = words[at].text if at < len(words) else ""
    return _made(Runs.CONTAINER, name, words[first:at], launched=False), min(at + 1, len(words))


def _made(runs: Runs, path: str, words: Sequence[Word], launched: bool) -> Layer:
    """A layer, judged by the name of its program and by the names of the options beside."""
    name = _base(path)
    said = set(words_of(_stem(name)))
    elsewhere = bool(said & ELSEWHERE) and not said & SURELY_TRAINS
    doubtful = bool(said & DOUBTFUL) and not said & SURELY_TRAINS
    says_so = bool(set(words_of(_stem(path))) & TRAINS)
    trains = {
        Runs.PYTHON: launched or says_so or _loads(words),
        Runs.OTHER: says_so,
        Runs.FRAGMENT: launched or _loads(words),
    }.get(runs, False)
    return Layer(runs, name, words, trains and not elsewhere and not doubtful, elsewhere)


def _loads(words: Sequence[Word]) -> bool:
    """Whether the options beside are those of a program that loads data: a batch size, epochs, GPUs."""
    options = (found[1] or found[2] for word in words if (found := _OPTION.match(word.text)))
    return any(_LOADS.search(option.translate(_JOINTS)) for option in options)


def _until(words: Sequence[Word], start: int, runs: Runs = Runs.OTHER) -> int:
    """Where the next program begins."""
    for at in range(start, len(words)):
        base = _base(words[at].text)
        if runs is Runs.PYTHON and words[at - 1].text in _MODULE:
            return at
        if words[at].text.startswith("-") or "=" in words[at].text:
            continue  # `--config=tools/train.py` starts nothing
        if program_like(base) or (at == start and _of(base) is not Runs.OTHER):
            return at
        if runs in {Runs.WRAPPER, Runs.JOB} and base in FOREIGN | JOBS | INNER:
            return at
    return len(words)


def _base(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].removesuffix(".exe")


def _stem(path: str) -> str:
    """A script without its suffix, a module without its package's name where that is the same for all of its programs."""
    return re.sub(r"\.(?:py|sh|bash|slurm|sbatch)$", "", path)
