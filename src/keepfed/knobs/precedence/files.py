"""The files of a scan by name, each decoded when somebody asks for its text.

Which place wins is written in files that set nothing: the defaults list of a Hydra project, the shell script that starts a
program without the flag. So the bytes that the walk has read anyway are kept, up to a limit that a large tree does not pass by
much: beyond it a file is known by its name alone, and what depends on its text cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keepfed.knobs.source import Source

MOST_BYTES_EACH = 1 << 18
"""Of one file; the scripts and settings that say who wins are smaller."""
MOST_BYTES = 1 << 28
"""Of all files together."""


class Files(Mapping[str, Source]):
    """Sources by name. A name whose text was not kept raises KeyError, and is listed nevertheless."""

    def __init__(self) -> None:
        self._data: dict[str, bytes | Source | None] = {}
        self._bytes = 0

    def add(self, name: str, data: bytes) -> None:
        """Note a file, and keep its bytes where there is room."""
        fits = len(data) <= MOST_BYTES_EACH and self._bytes + len(data) <= MOST_BYTES
        self._data[name] = data if fits else None
        self._bytes += len(data) if fits else 0

    def put(self, source: Source) -> None:
        """Note a file that is decoded already: its text is kept in any case."""
        self._data[source.name] = source

    def __getitem__(self, name: str) -> Source:
        found = self._data[name]
        if isinstance(found, bytes):
            found = self._data[name] = Source.of(name, found)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._data

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)
