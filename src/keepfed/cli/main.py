"""The frame around the verbs: global options, the table of verbs, errors to exit codes.

`keepfed --help` is typed by people who want an answer now, and tab completion and shell prompts call it too: it has to
answer within 0.3 s and must not import torch (which alone takes seconds). So the table is plain data and the file of a
verb is imported only when that verb was chosen; Typer's Rich rendering, which costs more than everything else here
together, stays off.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from keepfed import __version__
from keepfed.errors import KeepfedError, ProfileError, UnreachableError, UsageError
from keepfed.text import LANGUAGES, choose_language, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Verb:
    """One line of the table: where a verb lives and how its command line is read."""

    target: str
    """The function, "module:name"."""

    line_key: str
    """Key of its one line in `keepfed --help`."""

    help_key: str
    """Key of what `keepfed VERB --help` says before the options."""

    runs_program: bool = False
    """Whether a program of the user's follows, which is then taken as it stands."""

    takes_spec: bool = False
    """Whether `module:name` may stand in the program's place; options are then read behind it as well."""

    takes_any_name: bool = False
    """Whether words that look like options may be names of settings (`--workers=8`); the verb itself refuses the others."""

    @property
    def usage(self) -> str:
        """What follows the verb."""
        program = "(-- COMMAND [ARGS]... | MODULE:NAME)" if self.takes_spec else "-- COMMAND [ARGS]..."
        return f"[OPTIONS] {program}" if self.runs_program else "[OPTIONS]"


VERBS: dict[str, Verb] = {
    "run": Verb("keepfed.cli.run:run", "cli.verb_run", "cli.help_run", runs_program=True),
    "tune": Verb("keepfed.cli.tune.door:tune", "cli.verb_tune", "cli.help_tune", runs_program=True, takes_spec=True),
    "recreate": Verb("keepfed.cli.recreate.door:recreate", "cli.verb_recreate", "cli.help_recreate"),
    "scan": Verb("keepfed.cli.scan.door:scan", "cli.verb_scan", "cli.help_scan"),
    "shm": Verb("keepfed.cli.shm.door:shm", "cli.verb_shm", "cli.help_shm"),
    "set": Verb("keepfed.cli.set.door:set", "cli.verb_set", "cli.help_set", takes_any_name=True),
    "undo": Verb("keepfed.cli.undo:undo", "cli.verb_undo", "cli.help_undo"),
}

EXIT_CODES: tuple[tuple[type[KeepfedError], int], ...] = (
    (UsageError, 2),
    (ProfileError, 2),
    (UnreachableError, 3),
    (KeepfedError, 1),
)

_LANG = "--lang"
_HELP = {"help_option_names": ["-h", "--help"]}

# The first word that is not an option of ours begins the user's program, and nothing after it is read by us.
_PROGRAM = {"allow_extra_args": True, "allow_interspersed_args": False}

SPEC = "keepfed.spec"
"""Key in the context's `meta` of the `module:name` that was given instead of a program."""

_SPEC_WORD = re.compile(r"[\w./-]+:[A-Za-z_][\w.]*")


class SpecCommand(TyperCommand):
    """A verb whose program may be `module:name`: what stands behind that belongs to us, and not to a program."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # Typer's own Context
        """Look where the program begins; behind two dashes it is always one."""
        _, rest, _ = self.make_parser(ctx).parse_args(list(args))
        begins = len(args) - len(rest)
        if rest and _SPEC_WORD.fullmatch(rest[0]) and (begins == 0 or args[begins - 1] != "--"):
            ctx.meta[SPEC] = rest[0]
            ctx.allow_interspersed_args = True
        return super().parse_args(ctx, args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _survive_narrow_encodings()
    chosen_language, chosen_verb = _look_ahead(words)
    choose_language(chosen_language)
    command = typer.main.get_command(build_app(chosen_verb))
    try:
        outcome = command.main(words, prog_name="keepfed", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _nobody_reads()
    except KeepfedError as error:
        sys.stderr.write(f"keepfed: {error}\n")
        return exit_code(error)
    except typer.Abort:
        return 130
    except Exception as error:
        if not hasattr(error, "show"):
            raise
        # What the parser itself refuses. Typer has moved the class of these errors between versions; that they can show
        # themselves and know their exit code has stayed.
        error.show()
        return int(getattr(error, "exit_code", 2))
    return outcome if isinstance(outcome, int) else 0


def exit_code(error: KeepfedError) -> int:
    """The exit code of an error: that of the first class in EXIT_CODES that it belongs to."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def build_app(chosen: str | None) -> typer.Typer:
    """The Typer application, with the real function behind `chosen` and a stand-in behind every other verb."""
    app = typer.Typer(
        add_completion=False,
        help=say("cli.what"),
        epilog=say("cli.exit_codes"),
        context_settings=_HELP,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(_globals)
    for name, verb in VERBS.items():
        register = app.command(
            name,
            cls=SpecCommand if verb.takes_spec else None,
            help=say(verb.help_key),
            short_help=say(verb.line_key),
            options_metavar=verb.usage,
            context_settings=_HELP
            | (_PROGRAM if verb.runs_program else {})
            | ({"ignore_unknown_options": True} if verb.takes_any_name else {}),
        )
        register(load(verb) if name == chosen else _stand_in)
    return app


def load(verb: Verb) -> Callable[..., int | None]:
    """Import the function behind a verb."""
    module, _, name = verb.target.partition(":")
    function: Callable[..., int | None] = getattr(import_module(module), name)
    return function


def _globals(
    context: typer.Context,
    lang: Annotated[str | None, typer.Option(_LANG, metavar="|".join(LANGUAGES), help=say("cli.lang"))] = None,
    version: Annotated[bool, typer.Option("--version", help=say("cli.version"))] = False,
) -> None:
    if lang is not None and lang not in LANGUAGES:
        raise UsageError(
            say("cli.unknown_language", lang=lang, known=", ".join(LANGUAGES)),
            next_step=say("cli.unknown_language_next"),
        )
    if version:
        typer.echo(f"keepfed {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _stand_in() -> None:
    """Take the place of a verb that is only listed, so that listing it imports nothing."""


def _look_ahead(words: Sequence[str]) -> tuple[str | None, str | None]:
    """Language and verb of a command line, before the parser exists: its very help texts depend on them."""
    lang: str | None = None
    rest = iter(words)
    for word in rest:
        if word == _LANG:
            lang = next(rest, None)
        elif word.startswith(f"{_LANG}="):
            lang = word.partition("=")[2]
        elif not word.startswith("-"):
            return lang, word
    return lang, None


def _nobody_reads() -> int:
    """Whoever read has seen enough (`keepfed scan | head`): what is left goes nowhere, without a word, as of other tools.

    The interpreter flushes once more when it ends, so stdout must not be the pipe any longer (library reference, signal).
    """
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13  # SIGPIPE, as a shell says it


def _survive_narrow_encodings() -> None:
    """Make a terminal that cannot show a character show "?" there, instead of ending in UnicodeEncodeError."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
