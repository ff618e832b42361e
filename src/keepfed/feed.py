"""The run folder: what launcher, program and ranks tell each other, as files that anybody can read.

Files and not sockets, because the program may be a tree of any depth (shell, torchrun, ranks), started before anybody
knows which of its processes will iterate a loader, and because what happened must still be readable after a crash. Each
process appends to a file of its own, one line per write, so that no locks are needed and a process that is killed spoils at
most the end of its own last line.

The folder is private (0700), and a `.keepfed` that is a symbolic link or another user's is not used: both sides act on what
stands in there. Writing must never disturb training: a full disk switches the writer off with one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from keepfed import events
from keepfed.errors import UnreachableError
from keepfed.heartbeat import Heartbeat, read_folder
from keepfed.text import say

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_VARIABLE = "KEEPFED_RUN"
"""Environment variable that names the run folder to the program and everything below it."""
SCHEMA = "keepfed.run/1"
KEPT_RUNS = 50
"""Folders of earlier runs that stay; older ones are removed when a new one is made."""
_RUN_NAME = re.compile(r"\d{8}-\d{6}-(\d+)(?:-\d+)?")
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What the launcher asks of the processes of a run."""

    mode: str = "run"
    """ "run" (follow the load) or "tune" (explore, settle)."""
    exact: bool = False
    """Keep the program's own worker counts and torch's random draws."""
    search: str = "online"
    """How plans are found while tuning: "online" (a few moves) or "exhaustive" (a grid, in laps)."""
    plan_file: str | None = None
    """The plan file to start from, absolute; None without one."""
    lang: str = "en"
    """Language of what is said to the user."""
    fingerprint: str = ""
    """The host, as the launcher sees it with its GPUs: tells whether a plan was measured here."""
    start_folder: str = ""
    """Where the launcher was started: construction sites are written relative to it."""


@dataclass(frozen=True, slots=True)
class UnarmedInterpreter:
    """A Python of the program in which keepfed cannot be imported."""

    pid: int
    """The process."""
    executable: str
    """The interpreter, as sys.executable."""
    version: str
    """Its version, "3.8.18"."""
    torch: bool
    """Whether torch is installed there, so that it may be the one that trains."""
    error: str = ""
    """What went wrong where keepfed can be imported but could not take over; empty where it cannot be imported."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder, from either side."""

    path: Path
    """Absolute."""
    config: RunConfig
    """What the launcher asked."""
    elsewhere: str = ""
    """Why it does not lie in the start folder, in words; empty where it does."""

    @classmethod
    def create(cls, start: Path, config: RunConfig) -> Self:
        """Make `<start>/.keepfed/runs/<time>-<pid>`, or a folder in the temporary folder where that cannot be had.

        Fills in the start folder. Raises OSError when neither place can be written.
        """
        start = Path(os.path.abspath(start))
        config = replace(config, start_folder=str(start))
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        elsewhere = ""
        try:
            path = _make_private(start, name)
        except OSError as error:
            path = Path(tempfile.mkdtemp(prefix=f"keepfed-{name}-"))
            reason = error.strerror or str(error)
            elsewhere = say("run.folder_elsewhere", wanted=start / ".keepfed", reason=reason, path=path)
        _write_config(path, config)
        return cls(path, config, elsewhere)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The folder that another process made. Raises UnreachableError when it is missing, foreign or not private."""
        config_file = path / "config.json"
        try:
            _check_private(path.lstat(), path)
            descriptor = os.open(config_file, os.O_RDONLY | _NO_FOLLOW)
            with open(descriptor, encoding="utf-8") as file:
                _check_private(os.fstat(descriptor), config_file)
                asked = json.load(file)
            if asked.get("schema") != SCHEMA:
                raise ValueError(f"schema {asked.get('schema')!r}, not {SCHEMA!r}")
            known = {field.name for field in fields(RunConfig)}
            return cls(path, RunConfig(**{key: value for key, value in asked.items() if key in known}))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UnreachableError(say("run.folder_unusable", path=path, reason=error)) from error

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self | None:
        """The folder named by KEEPFED_RUN; None where that is not set. Raises as `open`."""
        path = (os.environ if environ is None else environ).get(RUN_VARIABLE)
        return cls.open(Path(path)) if path else None

    def writer(self) -> Writer:
        """A writer for this process."""
        return Writer(self.path)

    def reader(self) -> Reader:
        """A reader that starts with the first event."""
        return Reader(self.path)

    def heartbeats(self) -> dict[int, list[Heartbeat]]:
        """What every worker is doing, by the pid of its training process; also after that was killed."""
        return read_folder(self.path)

    def unarmed(self) -> tuple[UnarmedInterpreter, ...]:
        """The interpreters of the program in which keepfed could not be imported, in the order in which they started."""
        with contextlib.suppress(OSError), (self.path / "unarmed.jsonl").open("rb") as file:
            return tuple(found for line in file if (found := _unarmed(line)) is not None)
        return ()


class Writer:
    """Appends this process's events to its own file. Never raises: the program trains on, whatever the disk does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pid = 0
        self._descriptor = -1
        self._off = False

    def write(self, event: events.Event, time_s: float | None = None) -> None:
        """Append one event as one line, with the time (default: now, unix seconds) and this process's pid."""
        if self._off:
            return
        try:
            pid = os.getpid()
            stamp = {"event": event.name, "time_s": time.time() if time_s is None else time_s, "pid": pid}
            line = json.dumps(stamp | event.to_json(), ensure_ascii=False, default=_plain) + "\n"
            if pid != self._pid:
                self._open(pid)
            data = line.encode("utf-8", "backslashreplace")
            if os.write(self._descriptor, data) < len(data):
                raise OSError(say("run.feed_short_write"))
        except Exception as error:
            self._give_up(error)

    def _open(self, pid: int) -> None:
        """Open this process's file; also in a forked child, which must not write into its parent's."""
        self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_FOLLOW
        self._descriptor = os.open(self._folder / f"events-{pid}.jsonl", flags, 0o600)
        self._pid = pid
        if os.fstat(self._descriptor).st_size:  # the pid was used before: whatever it left ends here
            os.write(self._descriptor, b"\n")

    def _give_up(self, error: Exception) -> None:
        self._off = True
        self.close()
        with contextlib.suppress(Exception):
            reason = getattr(error, "strerror", None) or error
            sys.stderr.write(say("run.feed_off", folder=self._folder, reason=reason) + "\n")

    def close(self) -> None:
        """Close the file. Writing again opens it again."""
        descriptor, self._descriptor, self._pid = self._descriptor, -1, 0
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)


class Reader:
    """Reads what has been added since last time, from all processes of the run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read_bytes: dict[str, int] = {}

    def read_new(self) -> list[tuple[int, events.Event]]:
        """New events with the pid that wrote them, in order of time. Half lines wait; what is not understood is skipped."""
        found: list[tuple[float, int, events.Event]] = []
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self._folder)):
                if name.startswith("events-") and name.endswith(".jsonl"):
                    found.extend(entry for line in self._new_lines(name) if (entry := _event(line)) is not None)
        found.sort(key=lambda entry: entry[0])
        return [(pid, event) for _, pid, event in found]

    def _new_lines(self, name: str) -> list[bytes]:
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | _NO_FOLLOW)
        except OSError:
            return []
        with open(descriptor, "rb") as file:
            file.seek(self._read_bytes.get(name, 0))
            complete, newline, _half = file.read().rpartition(b"\n")
        self._read_bytes[name] = self._read_bytes.get(name, 0) + len(complete) + len(newline)
        return complete.split(b"\n")


def _make_private(start: Path, name: str) -> Path:
    """Make `.keepfed/runs/<name>` below `start`, following no link and entering no folder of another user."""
    if not hasattr(os, "geteuid"):
        path = start / ".keepfed" / "runs" / name
        path.mkdir(parents=True)
        return path
    with contextlib.ExitStack() as opened:
        folder = _enter(opened, start)
        for part in (".keepfed", "runs"):
            folder = _enter_own(opened, folder, part)
        with contextlib.suppress(OSError):
            _forget_old_runs(start / ".keepfed" / "runs")
        for attempt in range(1, 100):
            unique = name if attempt == 1 else f"{name}-{attempt}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(unique, 0o700, dir_fd=folder)
                _check_private(os.stat(unique, dir_fd=folder, follow_symlinks=False), start)
                return start / ".keepfed" / "runs" / unique
        raise FileExistsError(0, name)


def _enter(opened: contextlib.ExitStack, folder: Path | str, inside: int | None = None) -> int:
    """Descriptor of a folder that is no link (of the start folder itself, `inside` being None, links are fine)."""
    no_follow = 0 if inside is None else _NO_FOLLOW
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | no_follow, dir_fd=inside)
    opened.callback(os.close, descriptor)
    return descriptor


def _enter_own(opened: contextlib.ExitStack, folder: int, part: str) -> int:
    """Descriptor of `part` in `folder`, made where it is missing. PermissionError where it is a link or another user's."""
    made = False
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, 0o700, dir_fd=folder)
        made = True
    if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
        raise PermissionError(0, say("run.is_a_link", name=part))
    inner = _enter(opened, part, folder)
    if os.fstat(inner).st_uid != os.geteuid():
        raise PermissionError(0, say("run.is_foreign", name=part))
    if made and part == ".keepfed":
        _hide_from_git(inner)
    return inner


def _hide_from_git(folder: int) -> None:
    """As pytest does with its cache: whoever runs a program must not find our files in `git status`."""
    descriptor = os.open(".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600, dir_fd=folder)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write("# Made by keepfed.\n*\n")


def _forget_old_runs(runs: Path) -> None:
    """Remove the oldest folders beyond KEPT_RUNS, unless their launcher is alive."""
    names = sorted(name for name in os.listdir(runs) if _RUN_NAME.fullmatch(name))
    for name in names[: max(0, len(names) - KEPT_RUNS + 1)]:
        match = _RUN_NAME.fullmatch(name)
        if match is not None and not _alive(int(match[1])):
            shutil.rmtree(runs / name, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _check_private(found: os.stat_result, path: Path) -> None:
    """Raise PermissionError unless `found` is this user's alone."""
    if not hasattr(os, "geteuid"):
        return
    if found.st_uid != os.geteuid():
        raise PermissionError(0, say("run.is_foreign", name=path))
    if stat.S_ISLNK(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(0, say("run.is_open", name=path))


def _write_config(folder: Path, config: RunConfig) -> None:
    descriptor = os.open(folder / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump({"schema": SCHEMA, **asdict(config)}, file, indent=1, ensure_ascii=False)
        file.write("\n")


def _event(line: bytes) -> tuple[float, int, events.Event] | None:
    """Time, pid and record of one line; None for an empty, broken or unknown one."""
    try:
        fields_of_line: dict[str, Any] = json.loads(line)
        event = events.from_json(fields_of_line)
        return None if event is None else (float(fields_of_line["time_s"]), int(fields_of_line["pid"]), event)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _unarmed(line: bytes) -> UnarmedInterpreter | None:
    try:
        told: dict[str, Any] = json.loads(line)
        error = str(told.get("error", ""))
        return UnarmedInterpreter(
            int(told["pid"]), str(told["executable"]), str(told["version"]), bool(told.get("torch")), error
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _plain(value: object) -> object:
    """What JSON does not know: numbers of numpy and torch as Python's, the rest as text."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
