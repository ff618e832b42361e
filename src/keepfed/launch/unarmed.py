"""Why nothing was armed: the one most likely reason, with where it is written and what to do.

A run in which keepfed never got to act looks exactly like one in which it had nothing to do. The evidence is thin by design (an armed
interpreter leaves no trace until it iterates a loader), so this reads what there is, from the surest to the weakest: interpreters
that reported themselves, the command line, the shell scripts that it names.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keepfed.text import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from keepfed.feed import RunFolder, UnarmedInterpreter

FLOOR = (3, 11)
"""The oldest Python in which keepfed's loader runs."""

_LEAVES: Mapping[str, str] = {
    **dict.fromkeys(("sudo", "doas", "su", "pkexec"), "sudo"),
    **dict.fromkeys(("docker", "podman", "nerdctl", "apptainer", "singularity", "enroot", "kubectl"), "container"),
    **dict.fromkeys(("sbatch", "qsub", "bsub", "condor_submit"), "job"),
    **dict.fromkeys(("srun", "mpirun", "mpiexec", "ssh", "pdsh", "deepspeed", "ray"), "hosts"),
}
"""Commands that start the program somewhere where our two variables do not arrive, by the sentence that explains them."""

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_TRANSPARENT = frozenset({"nohup", "exec", "command", "time", "stdbuf", "setsid", "ionice", "chrt", "uv", "poetry"})
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*(?:\.exe)?")
_REPLACED = re.compile(r"""(?:^|[\s;&(])PYTHONPATH=(?P<value>"[^"]*"|'[^']*'|[^\s;&)]*)""")
_LARGEST_SCRIPT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Word:
    """One command of the command line or of a script named there."""

    words: tuple[str, ...]
    """The command and its arguments."""
    where: str
    """ "file:line", or empty for the command line itself."""


def explain_unarmed(run: RunFolder, argv: Sequence[str], start: Path | None = None) -> str:
    """One sentence (no line break): why no process of `argv` was armed, and what to do. `start`: where it ran (default: here)."""
    commands = list(_commands(argv, Path.cwd() if start is None else start))
    told = run.unarmed()
    trainers = [interpreter for interpreter in told if interpreter.torch]
    return (
        _by_interpreter(trainers)
        or _by_command(commands)
        or _by_flag(commands)
        or _by_path(commands)
        or _by_interpreter(told)
        or say("run.unarmed_no_loader")
    )


def _by_interpreter(told: Sequence[UnarmedInterpreter]) -> str:
    if not told:
        return ""
    last = told[-1]
    if last.error:
        return say("run.unarmed_failed", executable=last.executable, error=last.error)
    numbers = tuple(int(part) for part in last.version.split(".")[:2] if part.isdigit())
    floor = ".".join(map(str, FLOOR))
    if numbers < FLOOR:
        return say("run.unarmed_old_python", executable=last.executable, version=last.version, floor=floor)
    return say("run.unarmed_not_installed", executable=last.executable, version=last.version)


def _by_command(commands: Sequence[Word]) -> str:
    for command in commands:
        name = Path(command.words[0]).name
        kind = _LEAVES.get(name)
        if kind is not None:
            inner = _program_in(command.words) or "..."
            return _located(command, say(f"run.unarmed_{kind}", command=name, line=f"keepfed run -- {inner}"))
    return ""


def _by_flag(commands: Sequence[Word]) -> str:
    """-S switches both doors off; -I and -E only PYTHONPATH, so that they matter where keepfed is not installed."""
    found = [(command, flags) for command in commands if (flags := _python_flags(command.words))]
    for letter in "SIE":
        for command, flags in found:
            if letter in flags:
                key = "run.unarmed_flag_s" if letter == "S" else "run.unarmed_flag_path"
                return _located(command, say(key, flag=f"-{letter}", python=command.words[0]))
    return ""


def _by_path(commands: Sequence[Word]) -> str:
    for command in commands:
        for word in command.words:
            name, _, value = word.partition("=")
            if name == "PYTHONPATH" and "$PYTHONPATH" not in value and "${PYTHONPATH" not in value:
                return _located(command, say("run.unarmed_path_replaced", assignment=word))
    return ""


def _located(command: Word, sentence: str) -> str:
    return f"{command.where}: {sentence}" if command.where else sentence


# ------------------------------------------------------------------------------------------------------- reading command lines


def _commands(argv: Sequence[str], start: Path) -> Iterator[Word]:
    """The command of `argv` with what stands in front of it taken off, and those of the shell script that it runs."""
    words, assignments = _unwrapped(argv)
    if assignments:
        yield Word(assignments, "")
    if not words:
        return
    yield Word(words, "")
    script = _script_of(words)
    if script is not None:
        yield from _commands_of_script(script, start)


def _unwrapped(argv: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(`argv` without `env A=1`, `nohup`, `nice -n 5` and the like, the assignments among them)."""
    words, assignments = list(argv), []
    while words:
        name = Path(words[0]).name
        if re.fullmatch(r"[A-Za-z_]\w*=.*", words[0], re.DOTALL):
            assignments.append(words.pop(0))
        elif name == "env":
            words.pop(0)
            while words and words[0].startswith("-"):
                if words.pop(0) in {"-u", "-C", "--unset", "--chdir"} and words:
                    words.pop(0)
        elif name in _TRANSPARENT or name in {"nice", "timeout", "taskset", "numactl"}:
            words.pop(0)
            while words and (words[0].startswith("-") or re.fullmatch(r"[\d.,x-]+[smhd]?", words[0])):
                words.pop(0)
            if name in {"uv", "poetry"} and words and words[0] == "run":
                words.pop(0)
        else:
            break
    return tuple(words), tuple(assignments)


def _script_of(words: Sequence[str]) -> str | None:
    """The shell script that a command runs: `bash -x train.sh` or `./train.sh`."""
    if Path(words[0]).name in _SHELLS:
        return next((word for word in words[1:] if not word.startswith("-") and "=" not in word), None)
    return words[0] if words[0].endswith((".sh", ".bash")) else None


def _commands_of_script(script: str, start: Path) -> Iterator[Word]:
    path = start / script
    try:
        if path.stat().st_size > _LARGEST_SCRIPT_BYTES:
            return
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            continue
        where = f"{script}:{number}"
        for match in _REPLACED.finditer(line):
            yield Word((f"PYTHONPATH={match['value']}",), where)
        for piece in re.split(r"&&|\|\||[;|]", line):
            words, _ = _unwrapped(_split(piece))
            if words and words[0] != "export":
                yield Word(words, where)


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quotation that spans lines
        return line.split()


def _python_flags(words: Sequence[str]) -> str:
    """The one-letter flags of a python command, before the script: "IS" for `python -I -S train.py`."""
    if not _PYTHON.fullmatch(Path(words[0]).name):
        return ""
    letters = ""
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-") or word.startswith("--"):
            break
        for letter in word[1:]:
            if letter in "cm":
                return letters
            if letter in "WX":  # takes a value: the rest of this word, or the next one
                if word.endswith(letter):
                    next(rest, None)
                break
            letters += letter
    return letters


def _program_in(words: Sequence[str]) -> str:
    """The Python command inside `sudo -E python train.py`, as it would be typed; empty where none is seen."""
    for position, word in enumerate(words[1:], start=1):
        if _PYTHON.fullmatch(Path(word).name) or Path(word).name in {"torchrun", "accelerate"}:
            return shlex.join(words[position:])
    return ""
