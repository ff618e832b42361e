from __future__ import annotations

from dataclasses import replace

import pytest

from keepfed.host.running import Running
from keepfed.knobs.site import Form, InEffect, Kind, KnobSite, Role, Span
from keepfed.policy.in_effect import Told, given, with_effects

SITE = KnobSite(
    "train.py", 10, 1, Span(0, 1), "num_workers", "num_workers", "4", Kind.LITERAL, Form.PYTHON, Role.CALL, wins=True
)
OPTION = replace(SITE, role=Role.OPTION, spelling="--workers", setting="workers")


def process(*argv: str, pid: int = 7, workers: tuple[int, ...] = (), **environ: str) -> Running:
    return Running(pid, ("python", "train.py", *argv), environ, "/w", 8, 64 << 20, workers)


def effects(*sites: KnobSite, family: tuple[Running, ...], told: tuple[Told, ...] = ()) -> list[InEffect | None]:
    return [site.in_effect for site in with_effects(sites, family, told)]


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (("--workers", "8"), "8"),
        (("--workers=8",), "8"),
        (("--workers", "8", "--workers=2"), "2"),
        (("--num-workers", "8"), None),
        (("--workers", "--debug"), None),
        ((), None),
    ],
)
def test_an_options_value_is_the_one_on_the_command_line(argv: tuple[str, ...], value: str | None) -> None:
    assert given(argv, OPTION) == value


def test_a_short_option_is_read_with_its_value_behind_it_or_glued_to_it() -> None:
    site = replace(OPTION, spelling="-j", setting="workers")
    assert [given(argv, site) for argv in (["-j", "8"], ["-j8"], ["-J8"])] == ["8", "8", None]


def test_an_option_is_known_by_all_its_spellings() -> None:
    seen = with_effects([OPTION], (process("-j", "8"),), (), lambda _: frozenset({"-j", "--num-workers"}))
    assert seen[0].in_effect == InEffect("8", 7)
    seen = with_effects([OPTION], (process("--num-workers=3"),), (), lambda _: frozenset({"-j", "--num-workers"}))
    assert seen[0].in_effect == InEffect("3", 7)


@pytest.mark.parametrize("argv", [("--workers", "hunter2"), ("--workers=hunter2",), ("-j", "hunter2")])
def test_what_is_no_value_of_the_setting_is_not_repeated(argv: tuple[str, ...]) -> None:
    assert with_effects([OPTION], (process(*argv),), (), lambda _: frozenset({"-j"}))[0].in_effect is None


def test_an_override_of_hydra_is_the_key_whose_path_it_ends() -> None:
    key = replace(SITE, role=Role.CONFIG, form=Form.YAML, setting="data.num_workers")
    assert given(["data.num_workers=8"], key) == "8"
    assert given(["model.num_workers=8"], key) is None


def test_variables_memory_and_cores_come_from_the_process() -> None:
    variable = replace(SITE, file="run.sh", knob="threads_env", spelling="OMP_NUM_THREADS", role=Role.VARIABLE)
    shm = replace(SITE, file="compose.yaml", knob="shm_size", spelling="shm_size", role=Role.LIMIT)
    cpus = replace(SITE, file="job.sh", knob="cpus_per_task", spelling="--cpus-per-task", role=Role.LIMIT)
    seen = effects(variable, shm, cpus, replace(variable, file="a.py"), family=(process(OMP_NUM_THREADS="3"),))
    assert seen == [InEffect("3", 7), InEffect(str(64 << 20), 7), InEffect("8", 7), None]


def test_living_workers_are_shown_where_one_place_alone_can_have_asked_for_them() -> None:
    shell = process()
    trainer = process(pid=8, workers=(1, 2, 3))
    reference = replace(SITE, line=20, kind=Kind.REFERENCE, wins=False)
    assert effects(SITE, reference, family=(shell, trainer)) == [InEffect("3", 8), None]
    assert effects(SITE, replace(SITE, line=20), family=(shell, trainer)) == [None, None]


def test_ranks_with_different_numbers_of_workers_say_nothing() -> None:
    ranks = (process(pid=8, workers=(1,)), process(pid=9, workers=(2, 3)))
    assert effects(SITE, family=ranks) == [None]
    assert effects(SITE, family=(ranks[0], replace(ranks[0], pid=9))) == [InEffect("1", 8)]


def test_a_loader_that_keepfed_started_says_itself_what_it_has() -> None:
    prefetch = replace(SITE, line=11, knob="prefetch_factor", spelling="prefetch_factor")
    other = replace(SITE, line=90)
    told = (Told(7, "train.py", 9, 6, 2), Told(7, "train.py", 89, 1, None))
    assert effects(SITE, prefetch, other, family=(process(),), told=told) == [
        InEffect("6", 7),
        InEffect("2", 7),
        InEffect("1", 7),
    ]


def test_the_same_option_of_another_program_is_not_in_effect() -> None:
    other = replace(OPTION, file="eval.py")
    assert effects(OPTION, other, family=(process("--workers", "8"),)) == [InEffect("8", 7), None]


def test_a_printout_is_never_in_effect() -> None:
    assert effects(replace(OPTION, kind=Kind.RECORD), family=(process("--workers", "8"),)) == [None]


def test_of_several_limits_only_the_one_that_the_process_has_is_in_effect() -> None:
    first = replace(SITE, knob="shm_size", spelling="shm_size", role=Role.LIMIT, value="64m")
    second = replace(first, line=20, value="2g")
    assert effects(first, second, family=(process(),)) == [InEffect(str(64 << 20), 7), None]
    assert effects(second, family=(process(),)) == [InEffect(str(64 << 20), 7)]
