"""Judging a /dev/shm: arithmetic on facts, nothing is looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.knobs.knob import size_bytes
from keepfed.policy.shm import (
    DEFAULT_CONTAINER_BYTES,
    GIB,
    MIB,
    Loading,
    Room,
    Setting,
    Travel,
    Verdict,
    as_docker_writes,
    judge,
    table_bytes,
)

DEFAULT = Room(there=True, size_bytes=DEFAULT_CONTAINER_BYTES, used_bytes=0)


def test_needed_is_workers_times_batches_ahead_and_one_in_use() -> None:
    judged = judge(Loading(4, 3, 100 * MIB), DEFAULT, Setting.CONTAINER)
    assert judged.need.bytes == 4 * (3 + 1) * 100 * MIB
    assert judged.need.source == "computed"
    assert judged.verdict is Verdict.TOO_SMALL
    assert judged.suggested_bytes == 2 * GIB


def test_torchs_default_prefetch_counts_where_none_is_known() -> None:
    assert judge(Loading(2, None, MIB), DEFAULT, Setting.HOST).need.bytes == 2 * 3 * MIB


@pytest.mark.parametrize(
    ("workers", "gpus", "size"), [(0, 1, 64 * MIB), (1, 1, 2 * GIB), (4, 1, 2 * GIB), (8, 1, 4 * GIB), (2, 4, 8 * GIB)]
)
def test_a_table_stands_in_where_no_batch_was_measured(workers: int, gpus: int, size: int) -> None:
    assert table_bytes(workers, gpus) == size


def test_a_tensor_that_was_seen_is_a_lower_bound_of_a_batch() -> None:
    judged = judge(Loading(2, 2, largest_tensor_bytes=20 * MIB), DEFAULT, Setting.CONTAINER)
    assert (judged.travel, judged.need.source, judged.need.bytes) == (Travel.SEEN, "seen", 120 * MIB)
    assert judge(Loading(2, 2, 5 * MIB, 20 * MIB), DEFAULT, Setting.CONTAINER).need.bytes == 30 * MIB


@pytest.mark.parametrize(
    "loading", [Loading(0), Loading(4, 2, GIB, keepfed_seen=True)], ids=["no workers", "keepfed's loader"]
)
def test_nothing_is_needed_where_nothing_travels(loading: Loading) -> None:
    for room in (DEFAULT, Room(there=False)):
        judged = judge(loading, room, Setting.CONTAINER)
        assert (judged.verdict, judged.need.bytes, judged.ways) == (Verdict.NOT_NEEDED, 0, ())


def test_workers_that_hold_nothing_of_torchs_raise_no_alarm() -> None:
    judged = judge(Loading(4, workers_without=True), DEFAULT, Setting.CONTAINER)
    assert (judged.travel, judged.verdict) == (Travel.PIPES, Verdict.NOT_NEEDED)
    assert judge(Loading(4), DEFAULT, Setting.CONTAINER).verdict is Verdict.TOO_SMALL


def test_segments_of_torch_outweigh_what_else_was_seen() -> None:
    both = Loading(4, 2, GIB, largest_tensor_bytes=GIB, keepfed_seen=True)
    assert judge(both, DEFAULT, Setting.CONTAINER).verdict is Verdict.TOO_SMALL


def test_what_the_loaders_hold_themselves_is_no_loss_to_them() -> None:
    loading = Loading(2, 2, 100 * MIB)
    own = Room(there=True, size_bytes=GIB, used_bytes=600 * MIB, loaders_bytes=600 * MIB)
    others = Room(there=True, size_bytes=GIB, used_bytes=600 * MIB)
    assert judge(loading, own, Setting.HOST).verdict is Verdict.ENOUGH
    assert judge(loading, others, Setting.HOST).verdict is Verdict.FULL
    assert judge(loading, others, Setting.HOST).ways[0] == "end_holders"


def test_a_file_system_without_inodes_is_full_whatever_its_bytes() -> None:
    room = Room(there=True, size_bytes=64 * GIB, used_bytes=MIB, inodes_left=0)
    assert judge(Loading(4), room, Setting.HOST).verdict is Verdict.NO_INODES


def test_a_missing_one_and_an_unknown_one_are_told_apart() -> None:
    assert judge(Loading(4), Room(there=False), Setting.HOST).verdict is Verdict.MISSING
    assert judge(Loading(4), Room(there=True), Setting.HOST).verdict is Verdict.UNKNOWN


def test_a_memory_limit_below_the_size_is_told() -> None:
    tight = Room(there=True, size_bytes=64 * MIB, memory_bytes=GIB)
    assert judge(Loading(4, 2, 200 * MIB), tight, Setting.KUBERNETES).memory_too
    assert not judge(Loading(2, 2, 20 * MIB), tight, Setting.KUBERNETES).memory_too


def test_the_way_out_fits_where_the_program_runs() -> None:
    first = {setting: judge(Loading(4), DEFAULT, setting).ways[0] for setting in Setting}
    assert first == {
        Setting.HOST: "remount",
        Setting.CONTAINER: "recreate",
        Setting.COMPOSE: "compose",
        Setting.KUBERNETES: "kubernetes",
        Setting.FILES: "set",
    }


@given(st.integers(1, 1 << 50))
def test_a_size_is_written_so_that_docker_reads_the_same(size: int) -> None:
    assert size_bytes(as_docker_writes(size)) == size


@given(st.integers(1, 256), st.integers(1, 16), st.integers(1, 1 << 30))
def test_what_is_suggested_is_enough(workers: int, prefetch: int, batch: int) -> None:
    loading = Loading(workers, prefetch, batch)
    suggested = judge(loading, DEFAULT, Setting.CONTAINER).suggested_bytes
    assert (
        judge(loading, Room(there=True, size_bytes=suggested, used_bytes=0), Setting.CONTAINER).verdict
        is Verdict.ENOUGH
    )
