"""Read small kernel files below a root folder; whatever cannot be read is None.

Facts are asked for exactly when something is wrong: `/sys` not mounted, `/proc` with hidepid, a cgroup that vanishes between
two reads. So reading never raises, never blocks and never takes more than a bounded amount; and because every path is
relative to one root, a recorded machine can be read like a live one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

MOST_BYTES = 1 << 20
"""No file is read past this; the largest that matters, mountinfo of a crowded Kubernetes node, has about 200 kB."""

# A path taken from a garbled mountinfo may lead to a pipe: without O_NONBLOCK, opening one waits for a writer for ever.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOCTTY", 0)


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of one machine, live (`root="/"`) or recorded."""

    root: str = "/"
    """The folder that stands for the machine's `/`."""

    @property
    def live(self) -> bool:
        """Whether this is the machine that we run on, so that system calls describe the same one."""
        return self.root == "/"

    def at(self, path: str) -> str:
        """Where `path`, absolute on that machine, lies on this one."""
        return f"{self.root.rstrip('/')}/{path.lstrip('/')}"

    def read(self, path: str, most: int = MOST_BYTES) -> str | None:
        """The text of one file, undecodable bytes replaced; None when it cannot be read."""
        try:
            descriptor = os.open(self.at(path), _FLAGS)
        except (OSError, ValueError):
            return None
        chunks: list[bytes] = []
        left = most
        try:
            while left > 0 and (chunk := os.read(descriptor, min(left, 1 << 16))):
                chunks.append(chunk)
                left -= len(chunk)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return b"".join(chunks).decode("utf-8", errors="replace")

    def exists(self, path: str) -> bool:
        """Whether something is at `path`; False also when it may not be looked at."""
        return os.path.exists(self.at(path))  # Path.exists raises where a folder above may not be entered

    def folders(self, path: str) -> list[str]:
        """Names of the folders in `path`, sorted; empty when it cannot be listed."""
        try:
            with os.scandir(self.at(path)) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except (OSError, ValueError):
            return []

    def resolve(self, path: str) -> str:
        """`path` with links followed; `path` itself where a link leads out of the root."""
        try:
            base = os.path.realpath(self.root)
            real = os.path.realpath(self.at(path))
        except (OSError, ValueError):
            return path
        if self.live:
            return real
        return real[len(base) :] if real.startswith(base + os.sep) else path
