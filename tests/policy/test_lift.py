"""What would lift the limit: nothing above the measured ceiling, no factor without a measurement, best first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.policy.lift import WORTH, Remedy, Sample, Standing, Timed, remedies

LIMITS = ["step", "cores", "memory", "io", "workers", "unknown"]
TIMED_KEYS = {"draft", "cached"}

STARVED = Standing(
    rate=10.0,
    limited_by="workers",
    cores=8.0,
    workers=4,
    ceiling=25.0,
    replayed=32,
    fetch_s=0.36,
    collate_s=0.03,
    copy_s=0.01,
    cpu_s=0.38,
    trainer_cpu_s=0.02,
)
"""Four workers, 0.4 s a batch each; the steps alone would do 2.5 times as much."""

seconds = st.floats(1e-6, 100.0)
parts = st.none() | seconds


@st.composite
def timed(draw: st.DrawFn) -> Timed:
    return Timed(draw(st.integers(3, 48)), draw(seconds), draw(seconds))


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    whole_s = draw(seconds)
    return Sample(
        whole_s,
        decode_s=draw(parts),
        decoder="PIL",
        transform_s=draw(parts),
        draft=draw(st.none() | timed()),
        cold=draw(st.none() | timed()),
        storage_bytes_per_s=draw(st.just(0.0) | st.floats(1e3, 1e11)),
    )


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    """Anything that could come out of a session, and some of what could not."""
    zero_or_seconds = st.just(0.0) | seconds
    return Standing(
        rate=draw(st.just(0.0) | st.floats(1e-3, 1e4)),
        limited_by=draw(st.sampled_from(LIMITS)),
        cores=draw(st.just(0.0) | st.floats(0.1, 256.0)),
        workers=draw(st.integers(0, 64)),
        ceiling=draw(st.just(0.0) | st.floats(1e-3, 1e4)),
        replayed=draw(st.integers(0, 64)),
        fetch_s=draw(zero_or_seconds),
        collate_s=draw(zero_or_seconds),
        copy_s=draw(zero_or_seconds),
        cpu_s=draw(zero_or_seconds),
        queued_s=draw(zero_or_seconds),
        trainer_cpu_s=draw(zero_or_seconds),
        sample=draw(st.none() | samples()),
    )


@given(standings())
def test_no_factor_is_above_the_measured_ceiling(now: Standing) -> None:
    for remedy in remedies(now):
        assert remedy.factor is None or 0 < remedy.factor <= now.headroom * (1 + 1e-12)


@given(standings())
def test_there_is_no_factor_without_its_measurement(now: Standing) -> None:
    found = {remedy.key: remedy.factor for remedy in remedies(now)}
    if not now.ceiling or not now.rate:
        assert not found
    if now.sample is None:
        assert not found.keys() & {*TIMED_KEYS, "decode", "transform", "storage"}
    else:
        assert now.sample.draft is not None or "draft" not in found
        assert now.sample.cold is not None or "cached" not in found
    if "cores" in found:
        assert now.cores > 0
        assert now.cpu_s + now.trainer_cpu_s > 0 or now.limited_by == "cores"
    for key in ("decode", "transform", "waiting", "workers", "collate", "copy", "storage"):
        assert found.get(key) is None, "only what was timed two ways has a factor"


@given(standings())
def test_the_greatest_gain_comes_first_and_what_has_no_factor_last(now: Standing) -> None:
    factors = [remedy.factor for remedy in remedies(now)]
    known = [factor for factor in factors if factor is not None]
    assert known == sorted(known, reverse=True)
    assert factors == [*known, *[None] * (len(factors) - len(known))]


@given(standings())
def test_each_remedy_is_named_once_and_a_share_is_a_share(now: Standing) -> None:
    found = remedies(now)
    assert len({remedy.key for remedy in found}) == len(found)
    for remedy in found:
        assert 0 <= float(remedy.facts.get("share", 0.0)) <= 1


@given(standings().filter(lambda now: 0 < now.headroom < WORTH))
def test_where_the_step_is_the_limit_nothing_else_is_said(now: Standing) -> None:
    assert [remedy.key for remedy in remedies(now)] == ["step_replay" if now.replayed else "step_steps"]


@given(standings(), st.floats(1.0, 10.0))
def test_a_higher_ceiling_never_makes_a_remedy_worth_less(now: Standing, times: float) -> None:
    before = {remedy.key: remedy.factor for remedy in remedies(now)[1:]}
    after = {remedy.key: remedy.factor for remedy in remedies(replace(now, ceiling=now.ceiling * times))}
    for key, factor in before.items():
        if factor is not None:
            assert (after[key] or 0.0) >= factor * (1 - 1e-9)


def only(now: Standing, key: str) -> Remedy:
    (found,) = [remedy for remedy in remedies(now) if remedy.key == key]
    return found


def test_the_ceiling_says_how_it_was_measured() -> None:
    assert only(STARVED, "ceiling_replay").factor == pytest.approx(2.5)
    assert only(replace(STARVED, replayed=0), "ceiling_steps").factor == pytest.approx(2.5)


def test_a_program_that_only_loads_is_told_so() -> None:
    assert only(replace(STARVED, ceiling=1e4), "loading").facts["share"] == pytest.approx(0.001)


def test_busy_cores_name_how_many_more_would_reach_the_ceiling() -> None:
    found = only(replace(STARVED, cores=4.0, limited_by="cores"), "cores")
    assert found.facts["more"] == 6
    assert found.factor == pytest.approx(2.5)


def test_cores_that_others_have_are_not_asked_for_a_second_time() -> None:
    crowded = replace(STARVED, limited_by="cores", queued_s=0.2)
    found = only(replace(crowded, cores=8.0), "crowded")
    assert found.factor == pytest.approx(8.0 / 4.0)
    assert "cores" not in {remedy.key for remedy in remedies(crowded)}
    assert "crowded" not in {remedy.key for remedy in remedies(replace(crowded, queued_s=0.0))}


def test_cores_that_are_idle_are_not_asked_for() -> None:
    assert "cores" not in {remedy.key for remedy in remedies(replace(STARVED, cores=64.0))}


def test_no_number_of_cores_is_named_that_nobody_could_plan_with() -> None:
    far = replace(STARVED, cores=4.0, cpu_s=0.5, limited_by="cores", ceiling=1e4)
    found = only(far, "cores")
    assert found.facts["more"] == 12
    assert found.factor == pytest.approx(4.0)


def test_a_quicker_decoder_counts_only_for_the_datasets_part() -> None:
    sample = Sample(0.010, decode_s=0.0071, decoder="PIL", draft=Timed(20, 0.010, 0.002))
    found = only(replace(STARVED, ceiling=90.0, sample=sample), "draft")
    assert found.factor == pytest.approx(0.40 / (0.36 * 0.2 + 0.04))
    assert found.facts["share"] == pytest.approx(0.71)


def test_where_the_cores_bind_a_quicker_sample_leaves_the_training_process_its_part() -> None:
    sample = Sample(0.010, decode_s=0.0071, decoder="PIL", draft=Timed(20, 0.010, 0.002))
    busy = replace(STARVED, ceiling=90.0, limited_by="cores", trainer_cpu_s=0.4, sample=sample)
    assert only(busy, "draft").factor == pytest.approx(0.78 / (0.78 - 0.288))


def test_a_saving_beyond_the_ceiling_is_cut_off_there() -> None:
    sample = Sample(0.010, decode_s=0.0099, decoder="PIL", draft=Timed(20, 0.010, 0.0001))
    assert only(replace(STARVED, collate_s=0.0, copy_s=0.0, sample=sample), "draft").factor == pytest.approx(2.5)


def test_decoding_without_an_alternative_is_named_without_a_factor() -> None:
    sample = Sample(0.010, decode_s=0.006, decoder="cv2.imdecode", transform_s=0.0035)
    found = remedies(replace(STARVED, sample=sample))
    assert [(remedy.key, remedy.factor) for remedy in found[1:]] == [("decode", None), ("transform", None)]


def test_workers_that_wait_while_cores_are_idle_are_reading() -> None:
    waits = replace(STARVED, cpu_s=0.04, limited_by="io")
    assert only(waits, "waiting").facts["share"] == pytest.approx(0.9)
    sample = Sample(0.01, cold=Timed(12, 0.002, 0.010), storage_bytes_per_s=140e6)
    found = [remedy.key for remedy in remedies(replace(waits, sample=sample))]
    assert found == ["ceiling_replay", "cached", "storage"]


def test_workers_that_wait_are_better_many_where_their_number_was_the_limit() -> None:
    found = remedies(replace(STARVED, cpu_s=0.04))
    assert [remedy.key for remedy in found] == ["ceiling_replay", "workers", "waiting"]
    assert found[1].facts == {"workers": 4, "more": 8}


def test_workers_that_wait_for_a_core_are_not_reading() -> None:
    assert "waiting" not in {remedy.key for remedy in remedies(replace(STARVED, cpu_s=0.04, limited_by="cores"))}
    assert "waiting" not in {remedy.key for remedy in remedies(replace(STARVED, cpu_s=0.04, queued_s=0.3))}


def test_files_that_the_program_finds_cached_are_no_remedy_however_slow_the_disk_is() -> None:
    sample = Sample(0.01, cold=Timed(12, 0.002, 0.010), storage_bytes_per_s=140e6)
    assert {remedy.key for remedy in remedies(replace(STARVED, sample=sample))} == {"ceiling_replay"}


def test_a_costly_collate_function_or_copy_is_named() -> None:
    found = {remedy.key for remedy in remedies(replace(STARVED, collate_s=0.4, copy_s=0.4))}
    assert {"collate", "copy"} <= found


def test_nothing_is_said_of_a_loader_that_was_not_measured() -> None:
    assert remedies(replace(STARVED, rate=0.0)) == ()
    assert remedies(replace(STARVED, ceiling=0.0)) == ()
