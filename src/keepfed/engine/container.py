"""One container: what it is, its processes, its files, and commands inside it.

Files are read and written through the engine's archives, so that nothing has to be installed inside and a stopped container can
be read too. Four traps make the difference between that and `docker cp`:

- a link is followed here, never replaced: an archive put over a symbolic link takes the link's place;
- Docker hands out a link itself where Podman hands out what it leads to, so every path is resolved first, part by part;
- Podman's archives say of every file that it is root's, so the owner is asked for elsewhere before a file is put back;
- below a tmpfs both show what the mount hides: such files are refused instead of read wrongly.
"""

from __future__ import annotations

import posixpath
import tarfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from keepfed.engine.archive import MOST_FILE_BYTES, Inside, LeftOut, Stat, TooMuch, files, one_file, pack, parse_stat
from keepfed.engine.client import ANSWER_S, Engine
from keepfed.engine.mounts import Mount, Placed, mounts_of, placed
from keepfed.engine.owners import owner_in_layers, owner_through_process
from keepfed.engine.pids import processes_here
from keepfed.engine.room import SPARE_BYTES, free_bytes
from keepfed.errors import UnreachableError
from keepfed.text import say

_CHUNK_BYTES = 1 << 20
_MOST_LINKS = 40  # as the kernel: path_resolution(7)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a container."""

    pid: int
    """Its number: the host's where `Processes.on_host`, else whatever the engine's `top` counts."""
    command: str
    """Its command line or name."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a container."""

    found: tuple[Process, ...]
    """All that could be seen."""
    on_host: bool
    """Whether the numbers are those of this machine's /proc."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command inside a container did."""

    exit_code: int
    """Its exit status; 126 and 127 when it could not be started."""
    stdout: bytes
    """What it printed."""
    stderr: bytes
    """What it complained about."""


@dataclass(frozen=True, slots=True)
class Container:
    """A container as it was when it was looked up."""

    engine: Engine
    """Whose it is."""
    id: str
    """64 hexadecimal digits."""
    name: str
    """Without the leading slash."""
    detail: Mapping[str, Any]
    """What the engine's inspect says, unchanged."""
    mounts: tuple[Mount, ...]
    """What is mounted where."""
    _folders: set[str] = field(default_factory=set, compare=False, repr=False)
    """Folders that are known to be no links: a path has several parts, and each question takes the engine its time."""

    @classmethod
    def of(cls, engine: Engine, detail: Mapping[str, Any]) -> Container:
        """The container that was inspected."""
        identity = str(detail["Id"])
        name = str(detail.get("Name") or identity[:12]).removeprefix("/")
        return cls(engine, identity, name, detail, mounts_of(detail))

    @property
    def running(self) -> bool:
        """Whether its processes live; a paused one's do."""
        return bool((self.detail.get("State") or {}).get("Running"))

    @property
    def pid(self) -> int | None:
        """Its first process, as the engine's host counts; None when it does not run."""
        return int((self.detail.get("State") or {}).get("Pid") or 0) or None

    @property
    def image(self) -> str:
        """The image as it was asked for: name and tag."""
        return str((self.detail.get("Config") or {}).get("Image") or self.image_id)

    @property
    def image_id(self) -> str:
        """The image itself, "sha256:..."."""
        return str(self.detail.get("Image") or "")

    @property
    def workdir(self) -> str:
        """The folder in which its command starts."""
        return str((self.detail.get("Config") or {}).get("WorkingDir") or "/")

    @property
    def command(self) -> tuple[str, ...]:
        """Its first process: entrypoint and command."""
        return (str(self.detail.get("Path") or ""), *(str(word) for word in self.detail.get("Args") or ()))

    def refreshed(self) -> Container:
        """The same container as it is now. Raises UnreachableError when it is gone."""
        return Container.of(self.engine, self.engine.inspect(self.id))

    def require_running(self) -> None:
        """Raise UnreachableError when it does not run."""
        if self.running:
            return
        state = self.detail.get("State") or {}
        message = say("engine.stopped", name=self.name, state=state.get("Status"), code=state.get("ExitCode"))
        next_step = say("engine.stopped_next", name=self.name, engine=self.engine.kind)
        raise UnreachableError(message, next_step=next_step)

    # ------------------------------------------------------------------------------------------------------- processes

    def processes(self) -> Processes:
        """Its processes, by this machine's numbers where they can be told. Raises UnreachableError when it is stopped."""
        self.require_running()
        pid = self.pid
        if self.engine.local and pid is not None:
            here = processes_here(pid, self.id)
            if here is not None:
                return Processes(tuple(Process(number, command) for number, command in here), on_host=True)
        with self.engine.asking(say("engine.doing_processes", name=self.name)):
            table = self.engine.api.top(self.id)
        return Processes(tuple(_from_table(table)), on_host=False)

    def processes_here(self) -> tuple[Process, ...]:
        """Its processes by this machine's numbers; none where they cannot be told, or it does not run."""
        try:
            processes = self.processes()
        except UnreachableError:
            return ()
        return processes.found if processes.on_host else ()

    def run(self, argv: Sequence[str], *, user: str = "", timeout_s: float = ANSWER_S) -> Ran:
        """Run a command inside, without a shell between; waits for its end. Raises UnreachableError."""
        self.require_running()
        api = self.engine.api
        with self.engine.asking(say("engine.doing_exec", command=" ".join(argv), name=self.name)):
            before_s, api.timeout = api.timeout, timeout_s
            try:
                started = api.exec_create(self.id, list(argv), user=user)
                stdout, stderr = api.exec_start(started["Id"], demux=True)
                code = api.exec_inspect(started["Id"])["ExitCode"]
            finally:
                api.timeout = before_s
        return Ran(int(code or 0), stdout or b"", stderr or b"")

    # ----------------------------------------------------------------------------------------------------------- files

    def stat(self, path: str) -> Stat | None:
        """What is at an absolute path, its last link not followed; None when there is nothing."""
        doing = say("engine.doing_read", path=path, name=self.name)
        with self.engine.asking(doing):
            answer = self.engine.api.head(self._archive_url, params={"path": path}, timeout=ANSWER_S)
            if answer.status_code == 404:
                return None
            self.engine.require_ok(answer, doing)
            return parse_stat(answer.headers["X-Docker-Container-Path-Stat"])

    def resolve(self, path: str) -> str:
        """An absolute path with every link on the way followed. Raises UnreachableError where nothing is there."""
        done, waiting, links = "/", [part for part in path.split("/") if part], 0
        while waiting:
            part = waiting.pop(0)
            if part in (".", ".."):
                done = posixpath.normpath(posixpath.join(done, part))
                continue
            here = posixpath.join(done, part)
            if here in self._folders:
                done = here
                continue
            found = self.stat(here)
            if found is None:
                raise UnreachableError(say("engine.no_such_file", path=path, name=self.name))
            if found.link and posixpath.normpath(found.link) != here:
                links += 1
                if links > _MOST_LINKS:
                    raise UnreachableError(say("engine.link_loop", path=path, name=self.name))
                waiting = [*(part for part in posixpath.join(done, found.link).split("/") if part), *waiting]
                done = "/"
                continue
            if waiting:
                self._folders.add(here)
            done = here
        return done

    def placed(self, path: str) -> Placed:
        """Where a resolved path lies: in the container's layers, in a mount, or on the host."""
        return placed(path, self.mounts)

    def read(self, path: str, most_bytes: int = MOST_FILE_BYTES, *, with_owner: bool = True) -> Inside:
        """A regular file, links followed. Raises UnreachableError where there is none, or where it is too large.

        Podman has to be asked for the owner separately; without it the file cannot be written.
        """
        path = self._reachable(self.resolve(path))
        try:
            with closing(self._chunks(path)) as chunks:
                found = one_file(path, chunks, most_bytes)
        except TooMuch as error:
            raise UnreachableError(say("engine.huge", path=path, name=self.name, most=most_bytes)) from error
        except tarfile.TarError as error:
            raise UnreachableError(say("engine.bad_archive", path=path, name=self.name, reason=error)) from error
        if found is None:
            raise UnreachableError(say("engine.not_a_file", path=path, name=self.name))
        if self.engine.kind == "docker":
            return found
        return replace(found, owner=self._owner(path) if with_owner else None)

    def read_folder(self, path: str, wanted: Callable[[str, int], bool], most_bytes: int) -> Iterator[Inside | LeftOut]:
        """The regular files below a folder that `wanted(path, size)` chooses, in one stream of at most `most_bytes`.

        Links inside are not followed. Raises UnreachableError.
        """
        path = self._reachable(self.resolve(path))
        try:
            with closing(self._chunks(path)) as chunks:
                for found in files(posixpath.dirname(path), chunks, wanted, most_bytes):
                    if isinstance(found, LeftOut) or self.engine.kind == "docker":
                        yield found
                    else:
                        yield replace(found, owner=None)
        except tarfile.TarError as error:
            raise UnreachableError(say("engine.bad_archive", path=path, name=self.name, reason=error)) from error

    def write(self, before: Inside, data: bytes) -> Inside:
        """Give a file that came from `read` new content: same owner, group and mode; the time becomes now.

        Reads it again first and afterwards. Raises UnreachableError when it has changed meanwhile (nothing is written), when
        the engine refuses, or when what stands there afterwards is something else.
        """
        owner = self.require_writable(before)
        self.require_unchanged(before)
        folder, name = posixpath.split(before.path)
        self._require_room(folder, len(data))
        packed = pack(name, data, before.mode, owner, float(int(time.time())))
        with self.engine.asking(say("engine.doing_write", path=before.path, name=self.name)):
            if not self.engine.api.put_archive(self.id, folder, packed):
                raise UnreachableError(say("engine.not_written", path=before.path, name=self.name))
        after = self.read(before.path)
        if (after.data, after.mode, after.owner) != (data, before.mode, before.owner):
            raise UnreachableError(say("engine.not_written", path=before.path, name=self.name))
        return after

    def require_writable(self, file: Inside) -> tuple[int, int]:
        """Whose file it is. Raises UnreachableError where that is not known: it could not be given back to its owner."""
        if file.owner is None:
            raise UnreachableError(
                say("engine.whose_file", path=file.path, name=self.name),
                next_step=say("engine.whose_file_next", name=self.name, engine=self.engine.kind),
            )
        return file.owner

    def require_unchanged(self, before: Inside) -> None:
        """Raise UnreachableError when a file is not what was read."""
        now = self.read(before.path)
        if (now.data, now.mode, now.owner) != (before.data, before.mode, before.owner):
            raise UnreachableError(say("engine.changed_meanwhile", path=before.path, name=self.name))

    @contextmanager
    def as_its_image(self) -> Iterator[Container]:
        """A second container of the same image, never started, to read the image's own files in; removed afterwards.

        Raises UnreachableError, also where the image is gone.
        """
        api = self.engine.api
        doing = say("engine.doing_image", image=self.image)
        with self.engine.asking(doing):
            made = api.create_container(self.image_id, ["true"], network_disabled=True, labels={"keepfed": "reading"})
        try:
            yield Container.of(self.engine, self.engine.inspect(made["Id"]))
        finally:
            with self.engine.asking(doing):
                api.remove_container(made["Id"], v=True, force=True)

    def _require_room(self, folder: str, size: int) -> None:
        """Raise UnreachableError where a file of this size would not fit."""
        if not self.engine.local:
            return
        pid = self.pid if self.processes_here() else None
        free = free_bytes(pid, self.detail, folder)
        if free is not None and free < size + SPARE_BYTES:
            raise UnreachableError(
                say("engine.disk_full", folder=folder, name=self.name, free=free),
                next_step=say("engine.disk_full_next"),
            )

    def _owner(self, path: str) -> tuple[int, int] | None:
        """User and group of a file that Podman hands out as root's: seen through its first process's root, or asked inside."""
        if not self.running:
            return owner_in_layers(self.detail, path)
        seen = owner_through_process(self.pid, path) if self.processes_here() else None
        if seen is not None:
            return seen
        ran = self.run(["stat", "-c", "%u %g", path], user="0")
        words = ran.stdout.split()
        told = ran.exit_code == 0 and len(words) == 2 and all(word.isdigit() for word in words)
        return (int(words[0]), int(words[1])) if told else None

    @property
    def _archive_url(self) -> str:
        api = self.engine.api
        return f"{api.base_url}/v{api.api_version}/containers/{self.id}/archive"

    def _chunks(self, path: str) -> Generator[bytes]:
        doing = say("engine.doing_read", path=path, name=self.name)
        with self.engine.asking(doing):
            answer = self.engine.api.get(
                self._archive_url,
                params={"path": path},
                headers={"Accept-Encoding": "identity"},
                stream=True,
                timeout=ANSWER_S,
            )
            try:
                if answer.status_code == 404:
                    raise UnreachableError(say("engine.no_such_file", path=path, name=self.name))
                self.engine.require_ok(answer, doing)
                yield from answer.iter_content(_CHUNK_BYTES)
            finally:
                answer.close()

    def _reachable(self, path: str) -> str:
        """The path, unless it lies in memory. Raises UnreachableError there."""
        if self.placed(path).hidden:
            raise UnreachableError(say("engine.in_memory", path=path, name=self.name))
        return path


def _from_table(table: Mapping[str, Any]) -> Iterator[Process]:
    """The rows of the engine's `top`; Podman joins a whole row into one cell."""
    titles = [word for cell in table.get("Titles") or () for word in str(cell).split()]
    at = titles.index("PID") if "PID" in titles else 0
    for row in table.get("Processes") or ():
        words = [word for cell in row for word in str(cell).split()] if len(row) == 1 else [str(cell) for cell in row]
        if at < len(words) and words[at].isdigit():
            yield Process(int(words[at]), " ".join(words[len(titles) - 1 :]))
