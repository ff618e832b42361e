"""From a name to the place that gives it its value: one hop, within a project, and only where no other place could be meant.

    DataLoader(num_workers=args.workers)     ──→ add_argument("--workers", default=4)      the same dest
    DataLoader(num_workers=NUM_WORKERS)      ──→ NUM_WORKERS = 4                           the same name
    python train.py --workers 8              ──→ that option of train.py                   the same option
    nThreads: 4 in opt.txt                   ──→ that option of the project                the same dest

Scripts of one folder often have the same options. So the same file comes first, then what the file imports, then the nearest
folder; where two are left, none is taken.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from keepfed.knobs.precedence.launches import Launch
from keepfed.knobs.precedence.project import Projects
from keepfed.knobs.site import Form, Kind, KnobSite, Role

_WORD = re.compile(r"[A-Za-z_][\w-]*")
_GIVES_VALUE = frozenset({Role.OPTION, Role.DEFAULT, Role.NAME, Role.CONFIG, Role.VARIABLE})
_SHELLS = frozenset({Form.SHELL, Form.MAKEFILE, Form.DOCKERFILE, Form.DOTENV, Form.TEXT})
_MOST_LINES = 30
_CELL = re.compile(r"^\s*\"")
_CLASS = re.compile(r"\s*class\b")
_DEFINES = re.compile(r"\s*(?:async\s+)?(?:def|class)\b")
_FUNCTION = re.compile(r"\s*(?:async\s+)?def\s+(?!__init__\b|__new__\b)")
_BRANCHES = re.compile(r"\s*(?:if|elif|else|except|for|while|case)\b")
_MAIN = re.compile(r"if\s+__name__\s*==")


class Ties:
    """Which place gives which other one its value."""

    def __init__(self, sites: Sequence[KnobSite], projects: Projects) -> None:
        self.sites = sites
        self.projects = projects
        self._giving: dict[str, list[KnobSite]] = defaultdict(list)
        self._options: dict[str, list[KnobSite]] = defaultdict(list)
        for site in sites:
            if site.role in (Role.OPTION, Role.DEFAULT):
                self._options[site.knob].append(site)
            if site.role in _GIVES_VALUE:
                for name in {last_word(site.setting), last_word(site.spelling)} - {""}:
                    self._giving[name].append(site)
        self._split: dict[str, list[str]] = {}
        self._flags: dict[int, tuple[Launch | None, str]] = {}

    def definition(self, site: KnobSite) -> KnobSite | None:
        """The place that a reference takes its value from."""
        parts = words(site.refers_to)
        name = parts[-1] if parts else ""
        if site.refers_to.lstrip().startswith(("$", "%")):
            name = parts[0] if parts else ""
        others = [other for other in self._giving.get(name, ()) if other is not site and other.knob == site.knob]
        here = [other for other in others if other.file == site.file]
        if site.form in _SHELLS:
            return _last_before(site, [other for other in here if other.role is Role.VARIABLE])
        if here:
            return self._in_scope(site, here, bare=len(parts) == 1)
        elsewhere = [other for other in others if other.form not in _SHELLS and other.role is not Role.VARIABLE]
        if len(parts) == 1:
            elsewhere = [other for other in elsewhere if other.role is Role.NAME]
        elsewhere = [other for other in elsewhere if self._can_be_meant_from(site, other)]
        return self._only(site, _with_longest_path(parts, elsewhere))

    def chain(self, site: KnobSite) -> KnobSite | None:
        """The definition at the end of a row of references; None where it cannot be followed to the end."""
        seen = {id(site)}
        at: KnobSite | None = site
        while at is not None and at.kind is Kind.REFERENCE:
            at = self.definition(at)
            if at is None or id(at) in seen:
                return None
            seen.add(id(at))
        return at

    def option_of(self, flag: KnobSite) -> KnobSite | None:
        """The option (or the default of a program's parameter) that a flag on a command line gives a value to."""
        launch, script = self.launch_of(flag)
        wanted = last_word(flag.spelling)
        here = [option for option in self._options[flag.knob] if self.projects.together(option.file, flag.file)]
        named = [option for option in here if wanted in (last_word(option.spelling), last_word(option.setting))]
        named = named or [
            option for option in here if option.file == script and flag.spelling in self.spellings_of(option)
        ]
        options = [option for option in named if option.role is Role.OPTION] or named
        if script:
            mine = [option for option in options if option.file == script]
            mine = mine or [option for option in options if self.projects.imports(script, option.file)]
            if mine:
                return mine[0] if len(mine) == 1 else None
        elif launch is not None:
            return None  # another program's
        return options[0] if len(options) == 1 else None

    def launch_of(self, flag: KnobSite) -> tuple[Launch | None, str]:
        """The command that a flag stands in, and the file that it starts; (None, "") where neither can be told."""
        if id(flag) not in self._flags:
            launch = self._launch(flag)
            self._flags[id(flag)] = launch, self.projects.script_of(launch) if launch else ""
        return self._flags[id(flag)]

    def printed_from(self, record: KnobSite) -> KnobSite | None:
        """The option whose value a printout shows."""
        name = last_word(record.setting or record.spelling)
        options = [other for other in self._giving.get(name, ()) if other.role in (Role.OPTION, Role.DEFAULT)]
        return self._only(record, [option for option in options if option.kind is not Kind.DEAD] or options)

    def is_conditional(self, site: KnobSite) -> bool:
        """Whether a statement of Python runs only in some cases: it stands in a branch or a loop of its function."""
        if site.form is not Form.PYTHON:
            return False
        lines = self._lines(site.file)[: site.line]
        depth = _indent(lines[-1])
        for line in reversed(lines):
            if line.strip() and _indent(line) < depth:
                depth = _indent(line)
                if _DEFINES.match(line):
                    return False
                if _BRANCHES.match(line) and not _MAIN.match(line):
                    return True
        return False

    def _can_be_meant_from(self, site: KnobSite, other: KnobSite) -> bool:
        """Whether another file's place can be what an attribute here stands for, and not a base class of some library's.

        An option or a key of a configuration is there for the whole project. A field or a constant is reached by who imports its
        file, or lies beside it. One that is set in a branch may be something else by then.
        """
        head = site.refers_to.rpartition(".")[0]
        if self.is_conditional(other) or (head and not self._may_be_attribute(other, head)):
            return False
        if other.role in (Role.OPTION, Role.CONFIG) and other.form is not Form.PYTHON:
            return True
        near = site.file.rpartition("/")[0] == other.file.rpartition("/")[0]
        return other.role is Role.OPTION or near or self.projects.imports(site.file, other.file)

    def _launch(self, flag: KnobSite) -> Launch | None:
        known = self.projects.launches(flag.file)
        inside = [launch for launch in known if launch.line <= flag.line <= launch.last_line]
        if inside:
            return inside[-1] if len({launch.script for launch in inside}) == 1 else None
        if flag.form in (Form.YAML, Form.JSON, Form.DOCKERFILE):
            # A list of words over several lines: the command began above.
            before = [launch for launch in known if flag.line - _MOST_LINES <= launch.line <= flag.line]
            return before[-1] if before else None
        return None

    def spellings_of(self, option: KnobSite) -> frozenset[str]:
        """All that a command line may call an option: `add_argument("-j", "--workers")`; its own spelling at least.

        Names stand before the default, so what stands behind it belongs to another option, which may be a password's.
        """
        lines = [*self._lines(option.file)[max(0, option.line - 8) : option.line]]
        before = "\n".join([*lines[:-1], *(line[: option.column - 1] for line in lines[-1:])])
        call = before[before.rfind("add_argument(") :] if "add_argument(" in before else ""
        names = re.findall(r"[\"'](--?[A-Za-z][\w-]*)[\"']", call)
        return frozenset({option.spelling, *(names if option.spelling in names else ())})

    def _in_scope(self, site: KnobSite, here: list[KnobSite], *, bare: bool) -> KnobSite | None:
        """The one of the same file that is meant where the reference stands."""
        if words(site.refers_to)[:1] == ["self"]:
            return self._of_the_class(site, here)
        if not bare:
            head = site.refers_to.rpartition(".")[0]
            assigned = [other for other in here if other.owner == head and other.role in (Role.NAME, Role.CONFIG)]
            before = [other for other in assigned if other.line < site.line]
            if before:
                return before[-1] if self._reaches(before[-1], site, Role.NAME) else None
            options = [other for other in here if other.role is Role.OPTION]
            here = options or [other for other in here if self._may_be_attribute(other, head)]
        if len(here) == 1:
            return here[0] if not bare or self._reaches(here[0], site) else None
        before = [other for other in here if (other.line, other.column) < (site.line, site.column)]
        reaching = [other for other in before if self._reaches(other, site)]
        if len(reaching) > 1 and self.is_conditional(reaching[-1]):
            return None  # this one or the one before, depending on what happens
        return reaching[-1] if reaching else None

    def _may_be_attribute(self, other: KnobSite, head: str) -> bool:
        """Whether `head.workers` can be this place.

        A dict's entry is meant only by the dict's own name, and of parameters only those of a constructor become attributes.
        """
        if other.form is not Form.PYTHON:
            return other.role is not Role.CALL
        if other.role is Role.CONFIG:
            return last_word(other.owner) == last_word(head)
        return other.role is not Role.CALL and (other.role is not Role.DEFAULT or self._is_field(other))

    def _is_field(self, default: KnobSite) -> bool:
        """Whether a default is that of a class's field, or of its constructor's parameter."""
        line = self._enclosing(default, _DEFINES)
        return not line or not _FUNCTION.match(self._lines(default.file)[line - 1])

    def _of_the_class(self, site: KnobSite, here: Sequence[KnobSite]) -> KnobSite | None:
        """For `self.workers`: what the same class assigns to it, else its field or the parameter of its constructor."""
        line = self._class_line(site)
        mine = [other for other in here if self._class_line(other) == line and other.role in (Role.NAME, Role.DEFAULT)]
        assigned = [other for other in mine if other.role is Role.NAME and other.owner == "self"]
        assigned = assigned or [other for other in mine if other.role is Role.NAME and self._is_class_body(other)]
        candidates = assigned or [other for other in mine if other.role is Role.DEFAULT and self._is_field(other)]
        return candidates[0] if len(candidates) == 1 else None

    def line(self, site: KnobSite) -> str:
        """The line that a value stands in."""
        return "".join(self._lines(site.file)[site.line - 1 : site.line])

    def _class_line(self, site: KnobSite) -> int:
        """The line of the class that a place stands in, from 1; 0 where it stands in none."""
        return self._enclosing(site, _CLASS)

    def _is_class_body(self, site: KnobSite) -> bool:
        return self._enclosing(site, _DEFINES) == self._class_line(site)

    def _enclosing(self, site: KnobSite, kind: re.Pattern[str]) -> int:
        """The line of the innermost statement of a kind round a place; 0 where there is none."""
        lines = self._lines(site.file)[: site.line]
        depth = _indent(lines[-1]) + 1
        for at in range(len(lines) - 1, -1, -1):
            if lines[at].strip() and _indent(lines[at]) < depth:
                depth = _indent(lines[at])
                if kind.match(lines[at]):
                    return at + 1
        return 0

    def _lines(self, name: str) -> list[str]:
        if name not in self._split:
            lines = self.projects.text(name).split("\n")
            # A line of code in a notebook is a string in a list: what stands before its quote is no indentation.
            self._split[name] = [_CELL.sub("", line) for line in lines] if name.endswith(".ipynb") else lines
        return self._split[name]

    def _reaches(self, definition: KnobSite, site: KnobSite, role: Role | None = None) -> bool:
        """Whether a parameter's function, or a variable's block, still goes on where the reference stands."""
        role = role or definition.role
        if site.form is not Form.PYTHON or role not in (Role.DEFAULT, Role.NAME):
            return True
        lines = self._lines(site.file)
        start = min(definition.line, len(lines)) - 1
        while role is Role.DEFAULT and start > 0 and not _DEFINES.match(lines[start]):
            start -= 1
        depth = _indent(lines[start])
        if role is Role.NAME and depth == 0:
            return True
        inside = lines[definition.line : site.line]
        floor = depth + 1 if role is Role.DEFAULT else depth
        return all(
            _indent(line) >= floor for line in inside if line.strip() and not line.lstrip().startswith(("#", ")", "]"))
        )

    def _only(self, site: KnobSite, others: Iterable[KnobSite]) -> KnobSite | None:
        """The one place of the same project that can be meant, if it is one."""
        found = [other for other in others if self.projects.together(site.file, other.file)]
        if len(found) > 1 and site.file.endswith(".py"):
            found = [other for other in found if self.projects.imports(site.file, other.file)] or found
        if len(found) > 1:
            files = set(self.projects.nearest(site.file, {other.file for other in found}))
            found = [other for other in found if other.file in files]
        return found[0] if len(found) == 1 else None


def words(name: str) -> list[str]:
    """The names in a dotted path or an option, with `_` for `-`: `cfg["data"].num-workers` has three."""
    return [word.replace("-", "_") for word in _WORD.findall(name)]


def last_word(name: str) -> str:
    """The last of `words`, "" where there is none."""
    parts = words(name)
    return parts[-1] if parts else ""


def _with_longest_path(parts: Sequence[str], others: Sequence[KnobSite]) -> list[KnobSite]:
    """Those whose dotted path agrees with the end of a reference over the most words: `DATA.NUM_WORKERS` before `NUM_WORKERS`."""
    ranked: dict[int, list[KnobSite]] = defaultdict(list)
    for other in others:
        ranked[_shared_end(parts, words(other.setting or other.spelling))].append(other)
    return ranked[max(ranked)] if ranked else []


def _shared_end(left: Sequence[str], right: Sequence[str]) -> int:
    shared = 0
    for one, other in zip(reversed(left), reversed(right), strict=False):
        if one != other:
            break
        shared += 1
    return shared


def _last_before(site: KnobSite, others: Sequence[KnobSite]) -> KnobSite | None:
    before = [other for other in others if (other.line, other.column) < (site.line, site.column)]
    return before[-1] if before else None


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
