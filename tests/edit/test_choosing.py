"""Which places a wish means."""

from __future__ import annotations

from typing import Any

import pytest

from keepfed.edit.choosing import Choice, Place, choose, same_file
from keepfed.edit.generated import is_generated
from keepfed.errors import UsageError
from keepfed.knobs.knob import wish
from keepfed.knobs.site import Kind, KnobSite, Role
from tests.edit.sites import a_site, source_of

WISH = wish("num_workers", "8")


def lines(choice: Choice) -> tuple[list[int], dict[int, str]]:
    """Lines that are changed, and the others with their reasons."""
    return [site.line for site in choice.changing], {kept.site.line: kept.reason for kept in choice.kept}


def test_the_places_that_win_are_changed_and_the_others_listed() -> None:
    sites = [
        a_site(line=1, wins=True),
        a_site(line=2, kind=Kind.OVERRIDDEN, wins=False),
        a_site(line=3, kind=Kind.DEAD),
        a_site(line=5, wins=True, file="other.py"),
        a_site(line=6, knob="pin_memory"),
    ]
    assert lines(choose(WISH, sites)) == ([1, 5], {2: "edit.kept_overridden", 3: "edit.kept_dead"})


def test_of_many_files_that_may_count_the_one_has_to_be_named() -> None:
    sites = [a_site(line=line, file=file) for line, file in ((1, "a.yaml"), (2, "a.yaml"), (3, "b.yaml"))]
    unknown = "edit.kept_unknown"
    assert lines(choose(WISH, sites)) == ([], dict.fromkeys((1, 2, 3), unknown))
    assert lines(choose(WISH, sites, named=["a.yaml"])) == ([1, 2], {3: unknown})
    assert lines(choose(WISH, sites[:2])) == ([1, 2], {})
    assert lines(choose(WISH, [*sites, a_site(line=9, wins=True)])) == ([9], dict.fromkeys((1, 2, 3), unknown))


def test_a_reference_is_listed_and_its_definition_changed() -> None:
    option = a_site(line=1, role=Role.OPTION, spelling="--workers", setting="workers")
    call = a_site(line=9, kind=Kind.REFERENCE, refers_to="args.workers", target=None)
    assert lines(choose(WISH, [option, call])) == ([1], {9: "edit.kept_reference"})


@pytest.mark.parametrize("name", ["--workers", "workers"])
def test_any_spelling_narrows_to_the_places_that_are_written_so(name: str) -> None:
    sites = [a_site(line=1, spelling="--workers"), a_site(line=2, spelling="NUM_WORKERS")]
    assert lines(choose(wish(name, "8"), sites)) == ([1], {2: "edit.kept_not_meant"})


def test_a_thread_variable_means_only_itself() -> None:
    sites = [
        a_site(line=1, knob="threads_env", spelling="OMP_NUM_THREADS"),
        a_site(line=2, knob="threads_env", spelling="MKL_NUM_THREADS"),
    ]
    assert lines(choose(wish("OMP_NUM_THREADS", "1"), sites)) == ([1], {})


def test_a_thread_option_is_meant_with_or_without_its_dashes() -> None:
    site = a_site(knob="threads_env", spelling="--num_cpu_threads_per_process")
    assert choose(wish("num_cpu_threads_per_process", "2"), [site]).changing == [site]


def record(line: int, **others: Any) -> KnobSite:
    return a_site(file="opt.txt", line=line, kind=Kind.RECORD, role=Role.PRINTED, **others)


def test_a_printout_is_changed_only_where_it_is_named() -> None:
    sites = [record(line=1), a_site(line=2)]
    assert lines(choose(WISH, sites)) == ([2], {1: "edit.kept_printout"})
    assert lines(choose(WISH, [record(line=1)], named=["opt.txt"])) == ([1], {})
    assert lines(choose(WISH, sites, place=Place("opt.txt", 1)))[0] == [1]


def test_of_a_printout_with_many_runs_the_last_is_meant() -> None:
    # No printout counts for the program, the last one neither.
    sites = [record(line=1, wins=False), record(line=9, wins=False)]
    assert lines(choose(WISH, sites, named=["opt.txt"])) == ([9], {1: "edit.kept_printout"})


@pytest.mark.parametrize("kind", [Kind.DEAD, Kind.OVERRIDDEN, Kind.EXPRESSION, Kind.LITERAL])
def test_a_place_that_somebody_points_at_is_changed_whatever_it_is(kind: Kind) -> None:
    sites = [a_site(line=1, kind=kind, wins=False), a_site(line=2, wins=True)]
    choice = choose(WISH, sites, place=Place("train.py", 1))
    assert lines(choice) == ([1], {2: "edit.kept_elsewhere"})


def test_pointing_at_a_reference_leads_to_its_definition() -> None:
    option = a_site(line=1, setting="workers", kind=Kind.OVERRIDDEN)
    other = a_site(line=2, setting="workers", file="elsewhere.py")
    call = a_site(line=9, kind=Kind.REFERENCE, refers_to="args.workers", target=None)
    choice = choose(WISH, [option, other, call], place=Place("train.py", 9))
    assert choice.changing == [option]
    assert choice.ways == [(call, option)]


def test_pointing_at_a_name_leads_to_what_counts() -> None:
    option = a_site(line=1, setting="workers", kind=Kind.OVERRIDDEN)
    flag = a_site(line=3, file="run.sh", spelling="--workers", wins=True)
    call = a_site(line=9, kind=Kind.REFERENCE, refers_to="args.workers", target=None, counts_at="run.sh:3")
    assert choose(WISH, [option, flag, call], place=Place("train.py", 9)).changing == [flag]


def test_an_expression_without_a_safe_part_is_refused_with_its_reason() -> None:
    site = a_site(line=1, kind=Kind.EXPRESSION, target=None, refusal="knobs.refuse_reference")
    assert lines(choose(WISH, [site])) == ([], {1: "knobs.refuse_reference"})
    assert lines(choose(WISH, [site], place=Place("train.py", 1))) == ([], {1: "knobs.refuse_reference"})


def test_two_places_on_one_line_have_to_be_told_apart() -> None:
    sites = [a_site(column=5, value="8"), a_site(column=30, spelling="dataset.num_workers")]
    with pytest.raises(UsageError, match="more than once") as caught:
        choose(
            wish("workers", "2"),
            [a_site(column=5, spelling="workers"), a_site(column=30, spelling="workers")],
            place=Place("train.py", 1),
        )
    assert "train.py:1:30" in caught.value.next_step
    assert choose(WISH, sites, place=Place("train.py", 1, 30)).changing == [sites[1]]
    assert choose(WISH, sites, place=Place("train.py", 1)).changing == [sites[0]], "the one that is written exactly so"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("train.py:12", Place("train.py", 12)),
        ("a/b.py:12:5", Place("a/b.py", 12, 5)),
        (r"C:\x\train.py:3", Place("C:/x/train.py", 3)),
        ("12:7", Place("12", 7)),
    ],
)
def test_a_place_is_a_file_a_line_and_maybe_a_column(text: str, place: Place) -> None:
    assert Place.of(text) == place


@pytest.mark.parametrize("text", ["train.py", "train.py:", ":3", "train.py:0", "train.py:x"])
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="FILE:LINE"):
        Place.of(text)


def test_a_place_may_be_named_by_the_tail_of_its_path() -> None:
    assert same_file("./project/train.py", "project/train.py")
    assert same_file("/home/ann/project/train.py", "train.py")
    assert not same_file("project/pretrain.py", "train.py")


def test_a_file_that_a_program_writes_is_left_alone_unless_its_place_is_named() -> None:
    sites = [a_site(line=1), a_site(line=2, file="other.py")]
    assert lines(choose(WISH, sites, generated=["train.py"])) == ([2], {1: "edit.kept_generated"})
    assert lines(choose(WISH, sites, generated=["train.py"], place=Place("train.py", 1)))[0] == [1]


@pytest.mark.parametrize(
    ("text", "generated"),
    [
        ("# AUTOGENERATED! DO NOT EDIT! File to edit: nbs/train.ipynb\n", True),
        ("#!/bin/sh\n# This file was automatically generated by make.\n", True),
        ("// @generated\n{}", True),
        ("# 本文件由脚本自动生成\n", True),
        ("# generated by hydra 1.1\nnum_workers: 4\n", False),
        ('print("do not edit")\n', False),
        ("num_workers: 4  # do not exceed 8\n", False),
    ],
)
def test_a_file_says_itself_that_a_program_writes_it(text: str, generated: bool) -> None:
    assert is_generated(source_of(text)) is generated
