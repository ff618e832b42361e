"""What git knows of some files: the version of the last commit, and each commit that changed them, with both versions.

All of it in a few calls, however many files are asked for: one `git log` for the names and ids of all versions, one
`git cat-file --batch` for their contents. A working tree belongs to somebody else more often than not, and its configuration may
name programs that git would start: hooks, a file system monitor, external diffs, a signature check, a transport for missing
objects. All of those are switched off. Whose tree it is, git judges itself (safe.directory), and where it refuses, as where there is
no git, nothing is known. All calls together have a time limit: history is a nicety,
and a scan must not wait for it. `until_s` is a time of time.monotonic() everywhere.

Sources: git(1), git-log(1) (`-z --raw`), git-cat-file(1) (BATCH OUTPUT), git-config(1) (safe.directory, core.fsmonitor,
log.showSignature), gitprotocol (GIT_ALLOW_PROTOCOL).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_PATHS = 200
"""More files than these are not named on git's command line, but picked out of what it tells of all."""
_OTHERS_COMMITS = 20
MOST_VERSION_BYTES = 1 << 20
"""A version larger than this is not looked into."""
_SAFE = (
    "--no-pager",
    "--literal-pathspecs",
    "-c",
    f"core.hooksPath={os.devnull}",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "log.showSignature=false",
    "-c",
    "core.quotePath=false",
)
_LOG = ("log", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-textconv", "--root", "--no-mailmap")
_FORMAT = "--format=%x01%H%x02%an%x02%aI"
_REGULAR = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class Version:
    """One commit's change of one file."""

    file: str
    """The file, by the name under which it was asked for."""
    commit: str
    """Its full id."""
    author: str
    """The author's name."""
    time: str
    """When it was written, ISO 8601."""
    before: bytes | None
    """The file before; None where the commit brought it."""
    after: bytes | None
    """The file with the commit; None where the commit took it away."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A line of the log: ids of contents instead of contents."""

    path: str
    commit: str
    author: str
    time: str
    before: str
    after: str


def committed(files: Iterable[str], *, until_s: float) -> dict[str, bytes]:
    """The files as the last commit has them, by the names given; those that are in no commit are missing."""
    found: dict[str, bytes] = {}
    for root, names in _by_tree(files).items():
        answers = _contents(root, [f"HEAD:{path}" for path in names], until_s)
        found.update({names[path]: data for path, data in zip(names, answers, strict=False) if data is not None})
    return found


def first_versions(files: Iterable[str], *, until_s: float) -> dict[str, Version]:
    """The commit that brought each file, as far back as the history reaches here.

    Missing where reading it takes too long, and for the files of a tree of which more than MOST_PATHS are asked for.
    """
    found: dict[str, Version] = {}
    for root, names in _by_tree(files).items():
        if len(names) > MOST_PATHS:
            continue
        brought = {change.path: change for change in _log(root, names, (), until_s) if _is_blob(change.after)}
        for version in _with_contents(root, names, list(brought.values()), until_s):
            found[version.file] = version
    return found


def versions(files: Iterable[str], *, commits: int, until_s: float) -> list[Version]:
    """What the last commits that touched the files did to them, the newest first; at most so many commits per working tree."""
    found: list[Version] = []
    for root, names in _by_tree(files).items():
        # Where git tells of all files, most of its commits are about others.
        asked = commits if len(names) <= MOST_PATHS else commits * _OTHERS_COMMITS
        changes = _log(root, names, (f"-{asked}",), until_s)
        last = set(list(dict.fromkeys(change.commit for change in changes))[:commits])
        found.extend(_with_contents(root, names, [change for change in changes if change.commit in last], until_s))
    return found


def _by_tree(files: Iterable[str]) -> dict[str, dict[str, str]]:
    """The files by the working tree that they lie in, each as git calls it, with the name that was given."""
    trees: dict[str, dict[str, str]] = {}
    roots: dict[str, str] = {}
    for name in files:
        real = os.path.realpath(name)
        folder = os.path.dirname(real)
        if folder not in roots:
            roots[folder] = _root(folder)
        if roots[folder]:
            path = os.path.relpath(real, roots[folder]).replace(os.sep, "/")
            if "\n" not in path:
                trees.setdefault(roots[folder], {})[path] = name
    return trees


def _root(folder: str) -> str:
    """The working tree that a folder lies in, "" where it lies in none."""
    for above in (Path(folder), *Path(folder).parents):
        if os.path.lexists(above / ".git"):
            return str(above)
    return ""


def _log(root: str, names: Mapping[str, str], limits: Sequence[str], until_s: float) -> list[_Change]:
    """The changes of these files, the newest first."""
    paths = ["--", *names] if len(names) <= MOST_PATHS else []
    told = _git(root, [*_LOG, _FORMAT, *limits, "HEAD", *paths], b"", until_s)
    return [change for change in _changes(told) if change.path in names]


def _changes(told: bytes) -> Iterator[_Change]:
    r"""The entries of `git log -z --raw`: `\1commit\2author\2time`, then `:mode mode id id status` and a path, all ended by NUL."""
    commit = author = time = ""
    words = iter(told.decode("utf-8", "surrogateescape").split("\0"))
    for word in words:
        entry = word.lstrip("\n")
        if entry.startswith("\1"):
            commit, author, time = entry[1:].split("\2")
        elif entry.startswith(":"):
            mode, new_mode, before, after, _ = entry[1:].split(" ")
            path = next(words, "")
            if mode in (*_REGULAR, "000000") and new_mode in (*_REGULAR, "000000"):
                yield _Change(path, commit, author, time, before, after)


def _is_blob(name: str) -> bool:
    """Whether an id is that of a content: zeros, 40 or 64 of them, stand for none."""
    return set(name) != {"0"}


def _with_contents(
    root: str, names: Mapping[str, str], changes: Sequence[_Change], until_s: float
) -> Iterator[Version]:
    ids = list(dict.fromkeys(blob for change in changes for blob in (change.before, change.after) if _is_blob(blob)))
    contents = dict(zip(ids, _contents(root, ids, until_s), strict=False))
    for change in changes:
        before, after = contents.get(change.before), contents.get(change.after)
        yield Version(names[change.path], change.commit, change.author, change.time, before, after)


def _contents(root: str, objects: Sequence[str], until_s: float) -> list[bytes | None]:
    """What these objects hold, in their order; None for one that is missing or too large."""
    if not objects:
        return []
    asked = "".join(f"{name}\n" for name in objects).encode("utf-8", "surrogateescape")
    told = _git(root, ["cat-file", "--batch"], asked, until_s)
    answers: list[bytes | None] = []
    at = 0
    while at < len(told):
        end = told.find(b"\n", at)
        words = told[at:end].split(b" ")
        at = end + 1
        if len(words) == 3 and words[2].isdigit():
            size = int(words[2])
            fits = words[1] == b"blob" and size <= MOST_VERSION_BYTES
            answers.append(told[at : at + size] if fits else None)
            at += size + 1
        else:  # "HEAD:path missing"
            answers.append(None)
        if end < 0:
            break
    return answers


def _git(root: str, arguments: Sequence[str], given: bytes, until_s: float) -> bytes:
    """What git says; empty where it fails, refuses, is missing or takes longer."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ |= {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    try:
        done = subprocess.run(
            ["git", "-C", root, *_SAFE, *arguments],
            input=given,
            capture_output=True,
            env=environ,
            timeout=max(0.0, until_s - time.monotonic()),
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
