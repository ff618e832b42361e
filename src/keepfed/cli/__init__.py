"""The doors: one file per verb, so that `ls cli` equals `keepfed --help`. `main.py` is the frame that they hang in.

What a verb is. A file `cli/<verb>.py` with one function that Typer can read, and one line in `main.VERBS`:

- The function's annotations are the command line: `Annotated[..., typer.Option(help=say("<verb>.<option>"))]`. The file is
  imported only when its verb was chosen, after `--lang` was read, so `say` answers in the reader's language.
- A verb that starts a program (`runs_program=True` in the table) takes `ctx: typer.Context` and finds the user's command,
  untouched, in `ctx.args`: everything after `--`, or from the first word that is not an option. Options of ours stand
  before it; an unknown one there is an error, never a part of the program.
- It returns its exit code (None is 0), or raises a KeepfedError, which `main` prints and turns into one. It never calls
  `sys.exit`.
- Its one line in `keepfed --help` is `cli.verb_<verb>` in the locales, what `keepfed <verb> --help` says `cli.help_<verb>`.

Exit codes that all verbs share: 0 fine, 1 findings, 2 wrong usage (UsageError, ProfileError), 3 what was asked about could
not be reached (UnreachableError), 130 Ctrl-C.
"""
