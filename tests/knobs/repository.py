"""A small git repository for tests, whose commits have fixed authors and times."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Repository:
    """A working tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._commits = 0
        self.git("init", "--quiet")

    def write(self, name: str, text: str) -> str:
        """Write a file; its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def commit(self, author: str = "Ada") -> None:
        """Commit everything; each commit is a day later than the one before."""
        self._commits += 1
        day = f"2024-05-{self._commits:02d}T10:00:00+00:00"
        self.git("add", "--all")
        self.git("-c", f"user.name={author}", "-c", "user.email=a@b", "commit", "--quiet", "-m", "x", day=day)

    def git(self, *arguments: str, day: str = "") -> None:
        """Run git in the working tree, with nobody's own configuration."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        environ |= {"GIT_AUTHOR_DATE": day, "GIT_COMMITTER_DATE": day} if day else {}
        subprocess.run(["git", "-C", str(self.folder), *arguments], env=environ, check=True)
