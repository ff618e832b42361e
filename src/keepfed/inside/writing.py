"""Editing files of a container: each where it really lies, noted in this machine's journal, and found again for an undo.

A file in the container's own layer or in a volume is read through the engine, put back through it with its owner and mode, and
read again. One that is bind-mounted is a file of this machine and is edited as one.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from keepfed.edit.replacement import Edit
from keepfed.engine.archive import Inside
from keepfed.engine.client import find_container
from keepfed.engine.container import Container
from keepfed.errors import UnreachableError
from keepfed.inside.places import on_host
from keepfed.knobs.origin.journal import Change
from keepfed.text import say
from keepfed.write.carrying_out import FileEdits
from keepfed.write.replacing import ChangedMeanwhile
from keepfed.write.taking_back import Reached


@dataclass(slots=True)
class InContainer:
    """A file that the engine writes."""

    inside: Container
    """Where it lies."""
    file: Inside
    """As it was read last."""

    @property
    def container(self) -> str:
        """The container's ID."""
        return self.inside.id

    @property
    def container_name(self) -> str:
        """Its name."""
        return self.inside.name

    @property
    def image(self) -> str:
        """The image by name, and what it was exactly."""
        return f"{self.inside.image} ({self.inside.image_id})"

    def check(self, before: bytes) -> None:
        """Raise where the file holds something else, or it is not known whose it is."""
        self.inside.require_writable(self.file)
        self.file = self.inside.read(self.file.path)
        if self.file.data != before:
            raise ChangedMeanwhile(say("edit.changed_meanwhile", file=self.file.path), next_step=say("edit.moved_next"))

    def put(self, data: bytes) -> None:
        """Write it and read it again. Raises UnreachableError."""
        self.file = self.inside.write(self.file, data)

    def put_back(self, before: bytes, after: bytes) -> None:
        """Lead it back from `after`; nothing where it still, or again, holds `before`. Raises KeepfedError for anything else."""
        self.file = self.inside.read(self.file.path)
        if self.file.data == before:
            return
        if self.file.data != after:
            raise ChangedMeanwhile(say("edit.changed_meanwhile", file=self.file.path))
        self.put(before)


def file_edits(container: Container, path: str, before: bytes, edits: tuple[Edit, ...]) -> FileEdits:
    """The edits of one file inside, addressed to whoever has to make them. Raises UnreachableError."""
    here = on_host(container, path)
    if here:
        return FileEdits(Path(here), before, edits, {})
    return FileEdits(Path(path), before, edits, {}, InContainer(container, container.read(path)))


def not_seen_yet(container: Container, path: str, expected: bytes) -> bool:
    """Whether the container still shows the old content of a file that was edited on the host.

    A mount of a single file shows the file that had the name when the container was started; a rename gives the name to another.
    """
    return container.read(path, with_owner=False).data != expected


@dataclass(slots=True)
class Reaching:
    """Opens files in containers that a journal names; use it as a context manager."""

    _open: ExitStack = field(default_factory=ExitStack)
    _containers: dict[str, Container] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def identity(self, name: str | None) -> str:
        """The ID of the container that was asked for, as given where it does not exist any more; "" for none."""
        if name is None:
            return ""
        try:
            return self._container(name, "").id
        except UnreachableError:
            return name

    def __call__(self, change: Change) -> Reached:
        """The file of a change. A container that was made anew under the same name will do: the content decides.

        Raises UnreachableError where there is none, or the file is gone.
        """
        container = self._container(change.container, change.container_name)
        file = container.read(change.file)
        return Reached(file.data, InContainer(container, file))

    def _container(self, identity: str, name: str) -> Container:
        if identity not in self._containers:
            try:
                found = self._open.enter_context(find_container(identity))
            except UnreachableError:
                if not name:
                    raise
                found = self._open.enter_context(find_container(name))
            self._containers[identity] = found
        return self._containers[identity]
