"""The frame around the verbs: help that is cheap, errors that become exit codes, `ls cli` that equals `keepfed --help`."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pytest
import typer

import keepfed
from keepfed import text
from keepfed.cli import main as frame
from keepfed.errors import KeepfedError, LoaderError, ProfileError, UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(frame.__file__).parent

# Files of cli/ that are no verbs: the frame, and how findings and plans are shown.
NO_VERBS = {"__init__", "main"}

# Runs the frame, and prints its own CPU time in seconds and whether torch was imported.
COST = """
import resource, sys
from keepfed.cli.main import main
code = main(sys.argv[1:])
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime, "torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


def listed(help_text: str) -> list[str]:
    """The verbs in a help text."""
    block = re.search(r"^Commands:\n((?:  .*\n)*)", help_text, re.MULTILINE)
    return re.findall(r"^  (\S+)", block.group(1), re.MULTILINE) if block else []


# ---------------------------------------------------------------------------------------------------------------- the table


def test_every_file_or_folder_in_cli_is_a_verb_and_every_verb_one_of_them() -> None:
    doors = {file.stem: f"keepfed.cli.{file.stem}" for file in FOLDER.glob("*.py") if file.stem not in NO_VERBS}
    doors |= {door.parent.name: f"keepfed.cli.{door.parent.name}.door" for door in FOLDER.glob("*/door.py")}
    assert set(frame.VERBS) == set(doors)
    for name, verb in frame.VERBS.items():
        assert verb.target == f"{doors[name]}:{name}"
        assert (verb.line_key, verb.help_key) == (f"cli.verb_{name}", f"cli.help_{name}")


@pytest.mark.parametrize("language", text.LANGUAGES)
def test_help_lists_every_verb_with_one_line(language: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["--lang", language, "--help"]) == 0
    shown = capsys.readouterr().out
    assert listed(shown) == list(frame.VERBS)


@pytest.mark.parametrize("name", sorted(frame.VERBS))
@pytest.mark.parametrize("language", text.LANGUAGES)
def test_every_verb_explains_itself(name: str, language: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(["--lang", language, name, "--help"]) == 0
    assert f"Usage: keepfed {name}" in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------------- its cost


@pytest.mark.skipif(sys.platform == "win32", reason="CPU time is read with getrusage")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], []])
def test_help_takes_less_than_0_3_s_of_cpu_time_and_no_torch(arguments: list[str]) -> None:
    """The best of three: the first one may have to compile bytecode."""
    costs = []
    for _ in range(3):
        command = [sys.executable, "-c", COST, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        cpu_s, torch = done.stderr.split()
        assert torch == "False"
        costs.append(float(cpu_s))
    assert min(costs) < 0.3


def test_listing_a_verb_does_not_import_it() -> None:
    code = "import sys; from keepfed.cli.main import main; main(['--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(re.findall(r"'(keepfed\.cli\.\w+)'", done.stdout))
    assert imported == {"keepfed.cli.main"}


# ------------------------------------------------------------------------------------------------------------------ doors in


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "keepfed"],
        [str(Path(sysconfig.get_path("scripts")) / "keepfed")],
    ],
    ids=["module", "script"],
)
def test_both_doors_print_the_version(command: list[str]) -> None:
    if not Path(command[0]).exists():
        pytest.skip("keepfed is on PYTHONPATH here, not installed")
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"keepfed {keepfed.__version__}\n"
    assert done.stderr == ""


def test_a_bare_keepfed_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main([]) == 0
    bare = capsys.readouterr()
    assert frame.main(["--help"]) == 0
    assert bare.out == capsys.readouterr().out
    assert bare.err == ""


def test_the_help_is_in_the_language_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--lang", "zh"], ["--lang=zh", "-h"]):
        assert frame.main(words) == 0
        assert "训练" in capsys.readouterr().out


def test_a_terminal_that_cannot_show_chinese_is_no_reason_to_fail() -> None:
    command = [sys.executable, "-m", "keepfed", "--lang", "zh", "--help"]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "GPU" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["scan", "--json", __file__]])
def test_a_reader_who_has_seen_enough_hears_no_complaint(words: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "keepfed", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as shown:
        assert shown.stdout is not None
        shown.stdout.close()
        assert shown.stderr is not None
        assert shown.stderr.read() == b""
    assert shown.returncode in {1, 141}


# -------------------------------------------------------------------------------------------------------- verbs and errors


@dataclass
class Seen:
    """What the verb of these tests was called with."""

    program: list[str]
    steps: int = 0


@pytest.fixture
def with_verb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Hang one verb, `try`, in the frame; it does `deed` and takes a program."""

    def hang(deed: Callable[[], int | None] = lambda: None) -> Seen:
        seen = Seen([])

        def attempt(context: typer.Context, steps: Annotated[int, typer.Option("--steps")] = 1) -> int | None:
            seen.program, seen.steps = context.args, steps
            return deed()

        monkeypatch.setattr(
            frame, "VERBS", {"try": frame.Verb("here:attempt", "cli.what", "cli.what", runs_program=True)}
        )
        monkeypatch.setattr(frame, "load", lambda verb: attempt)
        return seen

    return hang


def raising(error: BaseException) -> Callable[[], None]:
    def deed() -> None:
        raise error

    return deed


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (["try", "--", "python", "train.py", "--steps", "9"], ["python", "train.py", "--steps", "9"]),
        (["try", "python", "train.py", "--steps", "9", "-h"], ["python", "train.py", "--steps", "9", "-h"]),
        (
            ["--lang", "en", "try", "--", "bash", "-c", "a -- b", "--", "--help"],
            ["bash", "-c", "a -- b", "--", "--help"],
        ),
        (["--lang=zh", "try", "--", "--odd"], ["--odd"]),
        (["try"], []),
    ],
)
def test_the_program_arrives_as_it_was_typed(
    words: list[str], program: list[str], with_verb: Callable[..., Seen]
) -> None:
    seen = with_verb()
    assert frame.main(words) == 0
    assert seen == Seen(program, 1)


def test_options_before_the_program_are_the_verbs_own(with_verb: Callable[..., Seen]) -> None:
    seen = with_verb()
    assert frame.main(["try", "--steps", "3", "--", "python", "--steps", "4"]) == 0
    assert seen == Seen(["python", "--steps", "4"], 3)


def test_a_mistyped_option_is_an_error_and_not_a_part_of_the_program(
    with_verb: Callable[..., Seen], capsys: pytest.CaptureFixture[str]
) -> None:
    with_verb()
    assert frame.main(["try", "--stpes", "3", "--", "python"]) == 2
    assert "--stpes" in capsys.readouterr().err


@pytest.mark.parametrize("code", [None, 0, 4, 130])
def test_what_a_verb_returns_is_the_exit_code(code: int | None, with_verb: Callable[..., Seen]) -> None:
    with_verb(lambda: code)
    assert frame.main(["try"]) == (code or 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x.py: not a thing", next_step="Name a thing."), 2),
        (ProfileError("keepfed.toml:3: unknown key", next_step="Remove it."), 2),
        (UnreachableError("nothing was measured", next_step="Let it run longer."), 3),
        (LoaderError("no batch", next_step="Look above."), 1),
        (typer.Exit(7), 7),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_becomes_its_exit_code(
    error: BaseException, code: int, with_verb: Callable[..., Seen], capsys: pytest.CaptureFixture[str]
) -> None:
    with_verb(raising(error))
    assert frame.main(["try"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    if isinstance(error, KeepfedError):
        assert shown.err == f"keepfed: {error.message}\n{error.next_step}\n"


def test_a_bug_keeps_its_traceback(with_verb: Callable[..., Seen]) -> None:
    with_verb(raising(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError, match="ours"):
        frame.main(["try"])


@pytest.mark.parametrize("words", [["--nope"], ["nope"], ["--lang"], ["--lang", "fr"]])
def test_wrong_usage_exits_with_2_and_says_what_was_wrong(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert frame.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words[-1] in shown.err
