"""Which files of a scan belong together, and what they know of one another: projects, imports, commands, names in strings.

A scan may cover one project or a folder full of them, and `args.workers` of one must never be tied to an option of its neighbour.
Nothing here touches the disk: `files` gives the text of a name when it is asked for, and few are.
"""

from __future__ import annotations

import os.path
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import PurePosixPath

from keepfed.knobs.precedence.launches import Launch, launches, script_path
from keepfed.knobs.source import Source

_MARKERS = re.compile(
    r"(?i)setup\.(?:py|cfg)|pyproject\.toml|requirements\S*\.txt|readme(?:\.\w+)?|licen[cs]e(?:\.\w+)?|environment\.ya?ml"
    r"|pipfile|\.gitignore|docker-compose\.ya?ml|compose\.ya?ml"
)
_PARTS = re.compile(
    r"(?i)src|lib|conf|configs?|scripts?|options?|experiments?|examples?|tools?|bin|docker|deploy|data|datasets?|models?|utils?"
    r"|checkpoints?|jobs?|slurm|train(?:ing)?|notebooks?|core|_base_"
)
_ONE_PART = re.compile(r"(?i)src|conf|configs?|scripts?|options?")
_COMMANDS = re.compile(
    r"(?i).*\.(?:sh|bash|zsh|ksh|slurm|sbatch|slm|pbs|job|sub|bat|cmd|ps1|mk|dockerfile)|(?:gnu)?makefile|dockerfile.*|justfile"
    r"|(?:docker-)?compose[\w.-]*\.ya?ml"
)
_FILE_NAME = re.compile(r"([\w./-]*[\w-]\.(?:ya?ml|jsonc?|jsonnet|toml|ini|cfg|conf|config))(?![\w.])")
_FILE_IN_STRING = re.compile(rf"[\"'}}/]{_FILE_NAME.pattern}[\"']")
_IMPORT = re.compile(r"(?m)^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+([^\n#]+)|import[ \t]+([^\n#]+))")


class Projects:
    """The files of one scan."""

    def __init__(self, files: Mapping[str, Source]) -> None:
        """`files` has the name of every file that was walked over; a text is taken out of it only when it is needed."""
        self.files = files
        self._texts: dict[str, str] = {}
        self._imports: dict[str, frozenset[str]] = {}
        self._folders: dict[str, str] = {}

    def text(self, name: str) -> str:
        """The text of a file; "" where it is none."""
        if name not in self._texts:
            source = self._source(name)
            self._texts[name] = source.text if source else ""
        return self._texts[name]

    def of(self, name: str) -> str:
        """The folder of the project that a file belongs to: the topmost one below the scan's root that looks like one."""
        folder = name.rpartition("/")[0]
        if folder not in self._folders:
            self._folders[folder] = self._project(name)
        return self._folders[folder]

    def _project(self, name: str) -> str:
        if self._root in self._marked or self._root in self._with_programs or self._root_has_parts:
            return self._root
        folders = [str(folder) for folder in PurePosixPath(name).parents]
        inside = [folder for folder in folders if folder != self._root and _within(folder, self._root)]
        return next(
            (folder for folder in reversed(inside) if folder in self._marked), inside[-1] if inside else self._root
        )

    def together(self, one: str, other: str) -> bool:
        """Whether two files belong to the same project."""
        return self.of(one) == self.of(other)

    def nearest(self, name: str, others: Iterable[str]) -> list[str]:
        """Those of the others that share the longest stretch of folders with a file."""
        ranked: dict[int, list[str]] = defaultdict(list)
        for other in others:
            ranked[len(_common(name, other))].append(other)
        return ranked[max(ranked)] if ranked else []

    def imports(self, name: str, other: str) -> bool:
        """Whether a Python file imports another one, as far as its import lines say so: `lightning.pytorch` is no `core/pytorch.py`."""
        if name not in self._imports:
            self._imports[name] = frozenset(_imported(self.text(name)))
        path = PurePosixPath(other)
        parts = path.parts[:-1] if path.name == "__init__.py" else (*path.parts[:-1], path.stem)
        return any(".".join(parts[-count:]) in self._imports[name] for count in range(1, len(parts) + 1))

    def in_folder(self, folder: str) -> list[str]:
        """Names of the files that lie in a folder itself."""
        return self._by_folder.get(folder, [])

    @cached_property
    def _by_base(self) -> dict[str, list[str]]:
        """Names by their last part."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            found[name.rpartition("/")[2]].append(name)
        return found

    @cached_property
    def started(self) -> dict[str, list[Launch]]:
        """The commands that start each Python file."""
        found: dict[str, list[Launch]] = defaultdict(list)
        for name in self.files:
            if _COMMANDS.fullmatch(name.rpartition("/")[2]):
                for launch in self.launches(name):
                    script = script_path(launch, self.files, self._by_base)
                    if script and self.together(name, script):
                        found[script].append(launch)
        return found

    def launches(self, name: str) -> list[Launch]:
        """The commands in a file that start a Python file."""
        source = self._source(name)
        return launches(source) if source else []

    def script_of(self, launch: Launch) -> str:
        """The file that a command starts, "" where that cannot be told."""
        script = script_path(launch, self.files, self._by_base)
        return script if script and self.together(launch.file, script) else ""

    def names(self, other: str) -> bool:
        """Whether a program of the project, or a command that starts one, speaks of a file by its name.

        With a path, the path has to lead there; a bare name has to be the only one of the project.
        """
        said = self._said.get(self.of(other), frozenset())
        parts = PurePosixPath(other).parts
        if any("/".join(parts[-count:]) in said for count in range(2, min(len(parts), 8) + 1)):
            return True
        alike = [name for name in self._by_base.get(parts[-1], ()) if self.together(name, other)]
        return parts[-1] in said and len(alike) == 1

    @cached_property
    def _said(self) -> dict[str, frozenset[str]]:
        """By project: the configuration files that its programs and the commands that start them speak of."""
        found: dict[str, set[str]] = defaultdict(set)
        for name in self.files:
            if name.endswith(".py"):
                found[self.of(name)].update(map(_bare, _FILE_IN_STRING.findall(self.text(name))))
        for script, group in self.started.items():
            for launch in group:
                found[self.of(script)].update(map(_bare, _FILE_NAME.findall(launch.words)))
        return {project: frozenset(names) for project, names in found.items()}

    def _source(self, name: str) -> Source | None:
        try:
            return self.files[name]
        except KeyError:
            return None

    @cached_property
    def _by_folder(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.files:
            found[name.rpartition("/")[0] or "."].append(name)
        return found

    @cached_property
    def _root(self) -> str:
        """The folder that all files lie in."""
        folders = list(self._by_folder)
        if not folders:
            return "."
        try:
            return os.path.commonpath(folders).replace("\\", "/") or "."
        except ValueError:  # absolute and relative ones, or two drives
            return "."

    @cached_property
    def _marked(self) -> frozenset[str]:
        return frozenset(
            folder
            for folder, names in self._by_folder.items()
            if any(_MARKERS.fullmatch(name.rpartition("/")[2]) for name in names)
        )

    @cached_property
    def _root_has_parts(self) -> bool:
        """Whether the root is, or its folders are, a part of one project: `src` beside `configs`, not one repository each."""
        depth = len(PurePosixPath(self._root).parts)
        return bool(_ONE_PART.fullmatch(PurePosixPath(self._root).name)) or any(
            _PARTS.fullmatch(parts[depth])
            for folder in self._by_folder
            if len(parts := PurePosixPath(folder).parts) > depth
        )

    @cached_property
    def _with_programs(self) -> frozenset[str]:
        return frozenset(
            folder
            for folder, names in self._by_folder.items()
            if any(name.endswith((".py", ".sh", ".ipynb")) for name in names)
        )


def _within(folder: str, root: str) -> bool:
    return folder.startswith(f"{root.rstrip('/')}/") or (root == "." and not folder.startswith(("/", "..")))


def _common(one: str, other: str) -> list[str]:
    shared = []
    for left, right in zip(PurePosixPath(one).parent.parts, PurePosixPath(other).parent.parts, strict=False):
        if left != right:
            break
        shared.append(left)
    return shared


def _bare(path: str) -> str:
    """A path as far as it says where it leads: without `./` and `../`, and without a root."""
    return re.sub(r"^(?:\.{0,2}/)+", "", path)


def _imported(text: str) -> Iterable[str]:
    """The dotted paths of all modules that a text imports, and of all names that it imports from them, without leading dots."""
    for module, names, plain in _IMPORT.findall(text):
        if module:
            path = module.lstrip(".")
            yield path
            yield from (f"{path}.{name}".lstrip(".") for name in re.findall(r"\w+", names))
        for alias in plain.split(","):
            yield alias.strip().split(" ")[0]
