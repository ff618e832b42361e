"""Which of all the places that a scan found counts: `wins` for each of them, and where the value comes from that counts instead.

A grep shows ten lines with num_workers. One of them decides:

    DataLoader(num_workers=4)                      a value in the call: nothing comes after it
    python train.py --workers 8                    the command line
        add_argument("--workers", default=4)           overridden, where every known command gives the option
    python train.py data.num_workers=8             the same with Hydra
        conf/data/mnist.yaml  num_workers: 4           overridden; without the flag it counts, if the defaults list takes it
            def __init__(self, num_workers=0)              overridden by the file that names its class
    docker-compose.override.yml  shm_size: 2g      laid over docker-compose.yml by `docker compose` itself
    checkpoints/x/opt.txt  nThreads: 4             a printout: nothing reads it, the option counts

"Counts" is said of the places that were scanned: what somebody types by hand tomorrow stands in no file. Where two answers are
possible, the answer is None; to say "this one" and be wrong sends somebody to the wrong file at night.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import PurePosixPath

from keepfed.knobs.precedence.overlays import (
    Selection,
    defaults_of,
    is_laid_over,
    overriding,
    path_in_hydra,
    repeated,
    selection,
)
from keepfed.knobs.precedence.project import Projects
from keepfed.knobs.precedence.rivals import Rivals
from keepfed.knobs.precedence.ties import Ties, last_word, words
from keepfed.knobs.site import Form, Kind, KnobSite, Original, Role
from keepfed.knobs.source import Source

_WRITES = re.compile(r"open\([^\n]*?[\"'][wax][bt+]*[\"']|\.write_text\(|\.dump\(")
_DEFAULTS = frozenset({Role.OPTION, Role.DEFAULT})
_TARGET = re.compile(r"(?m)^[ \t-]*(?:_target_|class_path|_class_|type|name)[ \t]*:[ \t]*[\"']?([\w.]+)")


def decided(sites: Sequence[KnobSite], files: Mapping[str, Source]) -> list[KnobSite]:
    """The same sites in the same order, with `wins`, `counts_at`, and the kinds that only the whole scan can tell.

    `files` has every file that was walked over by the name that sites call it; a text is asked for only where it matters.
    """
    return _Decision(sites, Projects(files)).made()


class _Decision:
    def __init__(self, sites: Sequence[KnobSite], projects: Projects) -> None:
        self.projects = projects
        self.sites = [self._living(site) for site in sites]
        self.ties = Ties(self.sites, projects)
        self.keys_in_yaml: dict[str, list[KnobSite]] = defaultdict(list)
        for site in self.sites:
            if site.role is Role.CONFIG and site.form is Form.YAML:
                self.keys_in_yaml[last_word(site.setting or site.spelling)].append(site)
        self.in_overrides = [site for site in self.sites if ".override." in site.file]
        self.later = repeated(self.sites, projects)
        self.selections: dict[str, Selection] = {}
        self.rivals = Rivals(self.sites, projects)
        self.assigned = Counter(
            (site.file, site.spelling, site.owner) for site in self.sites if site.role is Role.VARIABLE
        )
        self.behind: dict[int, KnobSite] = {}
        self.flags = self._flags_by_default()

    def made(self) -> list[KnobSite]:
        judged = [self._judged(site) for site in self.sites]
        return [self._with_default(site, at) for at, site in enumerate(self._with_losers(judged))]

    # -------------------------------------------------------------------------------------------------- kinds across files

    def _living(self, site: KnobSite) -> KnobSite:
        """A site whose kind only other files can tell: a printout without a header, an option that another file reads."""
        if site.kind is not Kind.RECORD and self._is_written_by_code(site):
            return replace(site, kind=Kind.RECORD, role=Role.PRINTED, target=site.target or site.span)
        if site.kind is Kind.DEAD and site.role is Role.OPTION and self._is_read_elsewhere(site):
            return replace(site, kind=Kind.LITERAL if site.target == site.span else Kind.EXPRESSION)
        return site

    def _is_read_elsewhere(self, site: KnobSite) -> bool:
        """Whether a file that imports the one with an option reads it: `from train import args`."""
        reads = re.compile(rf"\.\s*{re.escape(last_word(site.setting) or last_word(site.spelling))}\b")
        return any(
            reads.search(self.projects.text(name)) and self.projects.imports(name, site.file)
            for name in self._programs_beside(site)
        )

    def _programs_beside(self, site: KnobSite) -> Iterator[str]:
        """The Python files of the same project."""
        return (
            name for name in self.projects.files if name.endswith(".py") and self.projects.together(name, site.file)
        )

    def _is_written_by_code(self, site: KnobSite) -> bool:
        """Whether a Python file of the project opens a file of this name for writing."""
        path = PurePosixPath(site.file)
        if path.suffix != ".txt" or site.role is Role.PRINTED:
            return False
        # "{}_opt.txt".format(phase), "%s_opt.txt" % phase and phase + "_opt.txt" write train_opt.txt
        end = "_opt.txt" if path.name.endswith("_opt.txt") else path.name
        named = re.compile(rf"(?<![\w.]){re.escape(path.name)}[\"']|(?:\}}|%s|[\"']){re.escape(end)}[\"']")
        texts = (self.projects.text(name) for name in self._programs_beside(site))
        return any(named.search(text) and _WRITES.search(text) for text in texts)

    # --------------------------------------------------------------------------------------------------------- one place

    def _with_default(self, site: KnobSite, at: int) -> KnobSite:
        """The value that the program itself would take, as far as the files tell: what a printout or a flag stands in front of."""
        if site.original is not None:
            return site
        if site.printed_default:
            return replace(site, original=Original(site.printed_default, "printed"))
        behind = self.behind.get(id(self.sites[at]))
        return replace(site, original=Original(behind.value, "default")) if behind is not None else site

    def _judged(self, site: KnobSite) -> KnobSite:
        if site.kind is Kind.RECORD or site.role is Role.PRINTED:
            return _beaten(site, self.ties.printed_from(site), kind=Kind.RECORD)
        if site.kind in (Kind.DEAD, Kind.OVERRIDDEN):
            return _beaten(site, self.later.get(id(site)), kind=site.kind)
        later = self.later.get(id(site)) or overriding(site, self.in_overrides)
        if later is not None:
            return _beaten(site, later, kind=Kind.OVERRIDDEN)
        if site.kind is Kind.REFERENCE:
            return self._referring(site)
        if site.role in _DEFAULTS:
            return self._default(site)
        if site.role is Role.CONFIG and site.form is not Form.PYTHON:
            return self._config(site)
        if site.role in (Role.NAME, Role.CONFIG):
            return self._named(site)
        if site.role is Role.VARIABLE:
            return self._variable(site)
        return replace(site, wins=True)

    def _referring(self, site: KnobSite) -> KnobSite:
        """A name is no value: the place that it leads to counts, where it can be followed."""
        end = self.ties.chain(site)
        return replace(site, wins=None) if end is None else _beaten(site, end, kind=Kind.REFERENCE)

    def _default(self, site: KnobSite) -> KnobSite:
        """The default of an option or of a parameter: counts for whoever gives nothing else."""
        over = self._given_by_all(site) or self._config_over(site)
        if over is not None:
            if site.kind is Kind.LITERAL:
                self.behind.setdefault(id(over), site)
            return _beaten(site, over, kind=Kind.OVERRIDDEN)
        return replace(site, wins=None if self._may_be_replaced(site) else True)

    def _config(self, site: KnobSite) -> KnobSite:
        """A key of a configuration file: counts where it is known that the program loads this file."""
        over = self._given_by_all(site)
        if over is not None:
            return _beaten(site, over, kind=Kind.OVERRIDDEN)
        if self._given_by_unknown(site):
            return replace(site, wins=None)
        chosen = self._selection(site.file)
        if chosen.selected and (others := self._also_composed(site)):
            return self._composed(site, others)
        if chosen.known:
            return replace(site, wins=True if chosen.selected or self._chosen_by_command(site.file, chosen) else None)
        if self.projects.names(site.file):
            return replace(site, wins=True)
        return replace(site, wins=None if self.rivals.has_other(site) else True)

    def _also_composed(self, site: KnobSite) -> list[KnobSite]:
        """The same key in other files that Hydra composes with this one."""
        return [
            other
            for other in self.keys_in_yaml[last_word(site.setting or site.spelling)]
            if other.file != site.file and other.knob == site.knob and self._are_composed(site.file, other.file)
            if self._hydra_path(other) == self._hydra_path(site) and self.projects.together(other.file, site.file)
        ]

    def _are_composed(self, name: str, other: str) -> bool:
        """Whether both are loaded by one start: a list's own file with what it lists, or files of two groups."""
        one, two = self._selection(name), self._selection(other)
        if not (one.selected and two.selected) or one.group == two.group:
            return False
        if one.group and two.group:
            return True
        primary, listed = (name, two) if two.group else (other, one)
        return (defaults_of(self.projects.text(primary)) or {}).get(listed.group) == listed.name

    def _hydra_path(self, site: KnobSite) -> str:
        return path_in_hydra(site, self._selection(site.file).group, self.projects.text(site.file))

    def _composed(self, site: KnobSite, others: Sequence[KnobSite]) -> KnobSite:
        """One of several files with a key that Hydra lays over each other: the last one counts, where the list shows the order."""
        group, other = self._selection(site.file).group, others[0]
        other_group = self._selection(other.file).group
        if len(others) > 1 or bool(group) == bool(other_group):
            return replace(site, wins=None)
        primary = self.projects.text(other.file if group else site.file)
        group_wins = is_laid_over(primary, group or other_group)
        if group_wins is None:
            return replace(site, wins=None)
        return replace(site, wins=True) if group_wins == bool(group) else _beaten(site, other, kind=Kind.OVERRIDDEN)

    def _named(self, site: KnobSite) -> KnobSite:
        """A constant, an attribute, a dict's entry: counts where something is known to take it, or nothing else is there."""
        # In a branch, a variable had another value before; a dict's entry may be the only one there is.
        if self.ties.is_conditional(site) and (site.role is Role.NAME or self.rivals.has_other(site)):
            return replace(site, wins=None)
        if self.rivals.lies_under_others(site):
            return replace(site, wins=None)
        if self.rivals.lies_over_others(site):
            return replace(site, wins=True)
        over = self._given_by_all(site)
        if over is not None:
            return _beaten(site, over, kind=Kind.OVERRIDDEN)
        if id(site) in self._ends or not self.rivals.has_other(site):
            return replace(site, wins=True)
        return replace(site, wins=None)

    def _variable(self, site: KnobSite) -> KnobSite:
        """A variable: the only assignment of a file counts, unless another file of the project has a later say."""
        once = self.assigned[site.file, site.spelling, site.owner] == 1
        return replace(site, wins=True if once and not self._may_be_set_later(site) else None)

    def _may_be_set_later(self, site: KnobSite) -> bool:
        """Whether an environment variable may have another value by the time that it is read.

        A program that sets it in itself comes last, unless it asks first whether it is set; compose's `environment` comes behind
        the image's ENV and behind an env_file.
        """
        if site.knob != "threads_env":
            return False
        others = self.rivals.variables(site)
        if site.form is Form.PYTHON:
            return bool(others) and (self.ties.is_conditional(site) or "setdefault" in self.ties.line(site))
        if any(other.form is Form.PYTHON for other in others):
            return True
        return site.form in (Form.DOCKERFILE, Form.DOTENV) and any(other.form is Form.YAML for other in others)

    # ------------------------------------------------------------------------------------------------------------- rivals

    def _flags_by_default(self) -> dict[int, list[KnobSite]]:
        """The flags on command lines by the id of the default, or of the configuration's key, that they give a value to."""
        found: dict[int, list[KnobSite]] = defaultdict(list)
        for flag in self.sites:
            if flag.role is Role.FLAG and flag.kind is not Kind.DEAD:
                for given in self._given(flag):
                    found[id(given)].append(flag)
                    if given.role in _DEFAULTS and given.kind is Kind.LITERAL:
                        self.behind[id(flag)] = given
        return found

    def _given(self, flag: KnobSite) -> Iterable[KnobSite]:
        option = self.ties.option_of(flag)
        if option is not None:
            yield option
        if option is None or "." in flag.setting:
            keys = self.keys_in_yaml[last_word(flag.setting or flag.spelling)]
            yield from (site for site in keys if self._hydra_means(flag, site))

    def _hydra_means(self, flag: KnobSite, site: KnobSite) -> bool:
        """Whether `data.num_workers=8` on a command line is this key of this file: the file's folder is the group."""
        if site.knob != flag.knob or flag.spelling.startswith("-") or not self.projects.together(flag.file, site.file):
            return False
        path = words(flag.setting or flag.spelling)
        own = words(site.setting or site.spelling)
        whole = [*PurePosixPath(site.file).parent.parts, *own]
        if not self._selection(site.file).known:
            return path == own
        return whole[-len(path) :] == path and len(path) <= len(own) + len(words(self._selection(site.file).group))

    def _given_by_all(self, site: KnobSite) -> KnobSite | None:
        """The flag that replaces a default in every command that is known to start its program."""
        flags = self.flags.get(id(site), [])
        launched = [(flag, *self.ties.launch_of(flag)) for flag in flags]
        scripts = {script for _, _, script in launched if script}
        if not scripts or not all(script for _, _, script in launched):
            return None
        with_flag = {(launch.file, launch.line) for _, launch, _ in launched if launch is not None}
        every = [launch for script in scripts for launch in self.projects.started.get(script, ())]
        if site.file in self.projects.started and site.file not in scripts:
            return None  # it is started by itself, too
        if all((launch.file, launch.line) in with_flag for launch in every):
            return flags[0]
        return None

    def _given_by_unknown(self, site: KnobSite) -> bool:
        """Whether a command gives the value of which nobody can say what it starts."""
        return not all(self.ties.launch_of(flag)[1] for flag in self.flags.get(id(site), ()))

    def _config_over(self, site: KnobSite) -> KnobSite | None:
        """The configuration file that names the class of a default, or that its own code opens by name."""
        if site.role is not Role.DEFAULT or not site.file.endswith(".py"):
            return None
        over = [
            config for config in self._configs_of(site) if self._names_class(config, site) or self._opens(site, config)
        ]
        return over[0] if len(over) == 1 else None

    def _configs_of(self, site: KnobSite) -> Iterator[KnobSite]:
        """The keys of configuration files that may stand for the same setting, those that are loaded by default."""
        return (other for other in self.rivals.configurations(site) if self._is_loaded(other.file))

    def _is_loaded(self, name: str) -> bool:
        chosen = self._selection(name)
        return chosen.selected if chosen.known else True

    def _names_class(self, config: KnobSite, site: KnobSite) -> bool:
        """Whether `_target_` or `class_path` beside a key names the class whose default this is."""
        classes = set(words(site.owner))
        return any(target.rpartition(".")[2] in classes for target in _TARGET.findall(self.projects.text(config.file)))

    def _opens(self, site: KnobSite, config: KnobSite) -> bool:
        """Whether the file of a default names that configuration file in a string."""
        name = PurePosixPath(config.file).name
        return bool(re.search(rf"[\"'/]{re.escape(name)}[\"']", self.projects.text(site.file)))

    def _may_be_replaced(self, site: KnobSite) -> bool:
        """Whether some commands, callers or files give another value, so that it depends which one is started."""
        if self.flags.get(id(site)):
            return self._given_by_unknown(site)
        if site.role is Role.OPTION:
            return any(self._opens(site, config) for config in self._configs_of(site))
        if self.rivals.is_given_by_a_caller(site):
            return True
        if any(self.ties.chain(entry) is not site for entry in self.rivals.entries_beside(site)):
            return True
        return any(True for _ in self._configs_of(site)) or not self._is_used(site)

    def _is_used(self, site: KnobSite) -> bool:
        """Whether a call is known to take this default, or no other place could be meant."""
        return id(site) in self._ends or not self.rivals.has_other(site)

    @cached_property
    def _ends(self) -> frozenset[int]:
        """Ids of the places in which the references of the scan end."""
        ends = (self.ties.chain(site) for site in self.sites if site.kind is Kind.REFERENCE)
        return frozenset(id(end) for end in ends if end is not None)

    # --------------------------------------------------------------------------------------------------------------- files

    def _selection(self, name: str) -> Selection:
        if name not in self.selections:
            is_yaml = name.endswith((".yaml", ".yml"))
            self.selections[name] = (
                selection(name, self.projects) if is_yaml else Selection(known=False, selected=False)
            )
        return self.selections[name]

    def _chosen_by_command(self, name: str, chosen: Selection) -> bool:
        """Whether a known command selects a file of a group: `experiment=small`."""
        said = re.compile(rf"(?<![\w.])\+?{re.escape(chosen.group)}={re.escape(chosen.name)}(?![\w/])")
        return bool(said.search(self._commands.get(self.projects.of(name), "")))

    @cached_property
    def _commands(self) -> dict[str, str]:
        """By project: all that its known commands hand to the programs that they start."""
        found: dict[str, str] = defaultdict(str)
        for script, group in self.projects.started.items():
            found[self.projects.of(script)] += "\n".join(launch.words for launch in group) + "\n"
        return found

    def _with_losers(self, judged: Sequence[KnobSite]) -> list[KnobSite]:
        """The same flag twice in one command: the later one counts, as argparse, click and Hydra have it."""
        last: dict[tuple[str, int, str], int] = {}
        for at, site in enumerate(judged):
            if site.role is Role.FLAG:
                launch, _ = self.ties.launch_of(self.sites[at])
                if launch is not None:
                    last[site.file, launch.line, site.setting or site.spelling] = at
        kept = list(judged)
        for at, site in enumerate(judged):
            if site.role is Role.FLAG and site.kind is not Kind.DEAD:
                launch, _ = self.ties.launch_of(self.sites[at])
                winner = last.get((site.file, launch.line, site.setting or site.spelling), at) if launch else at
                if winner != at:
                    kept[at] = _beaten(site, judged[winner], kind=Kind.OVERRIDDEN)
        return kept


def _beaten(site: KnobSite, winner: KnobSite | None, *, kind: Kind) -> KnobSite:
    """A place that does not count, and the one that does."""
    return replace(site, kind=kind, wins=False, counts_at=f"{winner.file}:{winner.line}" if winner else site.counts_at)
