"""Starting a command as a shell would, and saying in one line why it cannot be started.

The exit codes and the wording are the shell's (126 found but not executable, 127 not found; POSIX, Shell Command Language,
2.8.2), because scripts and people around the program read them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from keepfed.errors import UsageError
from keepfed.text import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class CommandError(UsageError):
    """The command cannot be started; `exit_code` is what a shell would answer (127 not found, 126 not executable)."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def start_command(
    argv: Sequence[str], environ: Mapping[str, str], in_child: Callable[[], None], output: int | None = None
) -> subprocess.Popen[bytes]:
    """Start `argv` with our stdin, stdout and stderr in a process group of its own. Raises CommandError.

    With `output`, a descriptor, stdout and stderr are that, and stdin is empty.

    Descriptors that we inherited are passed on (a make jobserver, a socket of systemd's), as without us. A file without
    "#!" is run by sh, as execvp(3) does.
    """
    if not argv:
        raise CommandError(say("run.no_command"), exit_code=2)
    options: dict[str, Any] = {"env": dict(environ), "close_fds": False}
    if output is not None:
        options |= {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        options["process_group"] = 0
        options["preexec_fn"] = in_child  # before threads exist in the launcher, which is what makes it safe
    try:
        try:
            return subprocess.Popen(_located(argv, environ), **options)
        except OSError as error:
            if error.errno != errno.ENOEXEC or os.name != "posix":
                raise
            return subprocess.Popen(["/bin/sh", _path_of(argv[0], environ), *argv[1:]], **options)
    except (OSError, ValueError) as error:
        raise _explained(argv, environ, error) from error


def _located(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Windows looks for .exe alone, in other places; elsewhere the search is Popen's."""
    return [_path_of(argv[0], environ), *argv[1:]] if os.name == "nt" else list(argv)


def _path_of(command: str, environ: Mapping[str, str]) -> str:
    return shutil.which(command, path=environ.get("PATH")) or command


def _explained(argv: Sequence[str], environ: Mapping[str, str], error: OSError | ValueError) -> CommandError:
    command = argv[0]
    if not isinstance(error, OSError):  # a null byte in an argument
        return CommandError(say("run.not_startable", command=command, reason=error), exit_code=126)
    if isinstance(error, FileNotFoundError):
        path = command if os.path.dirname(command) else shutil.which(command, path=environ.get("PATH"))
        if path is not None and os.path.exists(path):
            return CommandError(say("run.no_interpreter", command=command, line=_first_line(path)), exit_code=126)
        return CommandError(_not_found(argv), exit_code=127)
    reason = error.strerror or str(error)
    if os.path.isdir(command):
        reason = os.strerror(errno.EISDIR)
    elif command.endswith(".py") and isinstance(error, PermissionError):
        return CommandError(say("run.not_executable_py", command=command, reason=reason), exit_code=126)
    return CommandError(say("run.not_startable", command=command, reason=reason), exit_code=126)


def _not_found(argv: Sequence[str]) -> str:
    command = argv[0]
    if command.endswith(".py") and os.path.exists(command):
        return say("run.not_found_py", command=command)
    if re.fullmatch(r"[A-Za-z_]\w*=.*", command, re.DOTALL):
        return say("run.not_found_assignment", command=command)
    return say("run.not_found", command=command)


def _first_line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.readline(256).decode("utf-8", "replace").strip()
    except OSError:
        return ""
