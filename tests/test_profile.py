"""keepfed.toml: strict to read, gentle to write."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepfed.errors import ProfileError
from keepfed.plan import LoaderId, Plan
from keepfed.profile import (
    LIMITS,
    Evidence,
    HostProfile,
    LoaderProfile,
    Measured,
    Profile,
    find_profile,
    plan_for,
    read_profile,
    write_profile,
)
from keepfed.text import choose_language

HOST = HostProfile("abc123", 8, 2**34, ("NVIDIA H200",))
FIRST_DATE = datetime.fromisoformat("2000-01-01")  # without zone, as hypothesis wants it
EVIDENCE = Evidence(
    date=datetime(2026, 7, 1, 9, 30, tzinfo=UTC),
    before=Measured(Plan(1, 2), 6.1, 0.81),
    after=Measured(Plan(5, 2), 21.8, 0.03),
    limited_by="step",
    seconds=24.1,
)
TRAIN = LoaderProfile(LoaderId("train.py:41", "__main__.PhotoFolder"), Plan(5, 2), EVIDENCE)
EVAL = LoaderProfile(LoaderId("train.py:47", "__main__.PhotoFolder"), Plan(2, 2))

GOOD = """\
schema = "keepfed.profile/1"

[host]
fingerprint = "abc123"
cores = 8
memory_bytes = 17179869184
gpus = []

# the big one
[[loader]]
dataset = "__main__.PhotoFolder"
site = "train.py:41"
num_workers = 4  # as measured
prefetch_factor = 2

[loader.evidence]
date = 2026-07-01T09:30:00Z
before = { num_workers = 1, prefetch_factor = 2, batches_per_s = 6.1, wait_share = 0.81 }
after = { num_workers = 4, prefetch_factor = 2, batches_per_s = 21.8, wait_share = 0.03 }
limited_by = "step"
seconds = 24.1

[[loader]]
dataset = "__main__.Other"
site = "eval.py:7"
num_workers = 1
prefetch_factor = 2
"""


@pytest.fixture(autouse=True)
def _english() -> None:
    choose_language("en")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    write_profile(path, Profile(HOST, (TRAIN, EVAL)))
    assert read_profile(path) == Profile(HOST, (TRAIN, EVAL))


# Any text that a path or a class name can hold, quotes, line ends and lone surrogates included.
_WORD = st.text(min_size=1, max_size=30)
_PLANS = st.builds(Plan, st.integers(0, 1024), st.integers(1, 1024))
_MEASURED = st.builds(
    Measured,
    _PLANS,
    st.floats(0, 1e6).map(lambda rate: round(rate, 4)),
    st.floats(0, 1).map(lambda part: round(part, 4)),
)
_EVIDENCE = st.builds(
    Evidence,
    date=st.datetimes(min_value=FIRST_DATE, timezones=st.just(UTC)).map(lambda when: when.replace(microsecond=0)),
    before=_MEASURED,
    after=_MEASURED,
    limited_by=st.sampled_from(LIMITS),
    seconds=st.floats(0, 1e5).map(lambda seconds: round(seconds, 1)),
    host=st.sampled_from(["", "elsewhere"]),
)
_LOADERS = st.builds(
    LoaderProfile,
    st.builds(
        LoaderId,
        st.tuples(_WORD, st.integers(1, 9999)).map(lambda site: f"{site[0]}:{site[1]}"),
        _WORD,
        st.integers(0, 3),
    ),
    _PLANS,
    st.none() | _EVIDENCE,
)
_ENCODABLE = st.lists(_LOADERS, max_size=4, unique_by=lambda entry: entry.loader).map(tuple)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=_ENCODABLE, second=_ENCODABLE)
def test_any_names_survive_the_file_and_a_later_write(
    tmp_path: Path, first: tuple[LoaderProfile, ...], second: tuple[LoaderProfile, ...]
) -> None:
    path = tmp_path / "keepfed.toml"
    path.unlink(missing_ok=True)
    write_profile(path, Profile(HOST, first))
    assert read_profile(path) == Profile(HOST, first)
    write_profile(path, Profile(HOST, second), alive=[entry.loader for entry in first])
    merged = {entry.loader: entry for entry in first} | {entry.loader: entry for entry in second}
    assert {entry.loader: entry for entry in read_profile(path).loaders} == merged


def test_a_path_that_is_no_utf8_is_written_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    odd = LoaderId("caf\udce9.py:3", "__main__.Set")
    write_profile(path, Profile(HOST, (LoaderProfile(odd, Plan(3, 2)),)))
    match = plan_for(read_profile(path), odd)
    assert match is not None
    assert match.plan == Plan(3, 2)


def test_comments_and_other_loaders_stay(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text(GOOD, encoding="utf-8")
    write_profile(path, Profile(HostProfile("abc123", 8, 2**34), (TRAIN,)))
    expected = GOOD.replace("num_workers = 4  #", "num_workers = 5  #").replace(
        "after = { num_workers = 4", "after = { num_workers = 5"
    )
    assert path.read_text(encoding="utf-8") == expected


def test_a_loader_whose_line_moved_takes_its_table_along(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text(GOOD, encoding="utf-8")
    moved = LoaderProfile(LoaderId("train.py:44", "__main__.PhotoFolder"), Plan(5, 2), EVIDENCE)
    write_profile(path, Profile(HOST, (moved,)))
    assert [entry.loader.site for entry in read_profile(path).loaders] == ["train.py:44", "eval.py:7"]
    assert "# the big one" in path.read_text(encoding="utf-8")


def test_a_loader_that_lives_beside_another_does_not_take_its_table(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text(GOOD, encoding="utf-8")
    write_profile(path, Profile(HOST, (EVAL,)), alive=[TRAIN.loader])
    assert [entry.loader.site for entry in read_profile(path).loaders] == ["train.py:41", "eval.py:7", "train.py:47"]


def test_one_old_table_goes_to_one_loader_only(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text(GOOD, encoding="utf-8")
    both = tuple(LoaderProfile(LoaderId(f"train.py:{line}", "__main__.PhotoFolder"), Plan(3, 2)) for line in (44, 50))
    write_profile(path, Profile(HOST, both))
    assert [entry.loader.site for entry in read_profile(path).loaders] == ["train.py:44", "eval.py:7", "train.py:50"]


def test_loaders_written_inline_are_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    row = '{ dataset = "D", site = "a.py:1", num_workers = 1, prefetch_factor = 2 }'
    path.write_text(
        f'schema = "keepfed.profile/1"\nloader = [{row}]\n[host]\nfingerprint = "abc123"\n', encoding="utf-8"
    )
    write_profile(path, Profile(HOST, (TRAIN,)))
    assert [entry.loader.site for entry in read_profile(path).loaders] == ["a.py:1", "train.py:41"]


def test_a_table_from_another_host_remembers_that_host(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text(GOOD, encoding="utf-8")
    other = LoaderProfile(LoaderId("new.py:1", "__main__.New"), Plan(2, 2))
    write_profile(path, Profile(HostProfile("ffff", 2, 2**33), (other,)))
    profile = read_profile(path)
    kept = plan_for(profile, TRAIN.loader, fingerprint="abc123")
    assert kept is not None
    assert kept.measured_here
    fresh = plan_for(profile, other.loader, fingerprint="abc123")
    assert fresh is not None
    assert not fresh.measured_here


def test_a_write_leaves_no_second_file_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text(GOOD, encoding="utf-8")
    path.chmod(0o640)
    write_profile(path, Profile(HOST, (TRAIN,)))
    assert [page.name for page in tmp_path.iterdir()] == ["keepfed.toml"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "shared.toml", tmp_path / "keepfed.toml"
    target.write_text(GOOD, encoding="utf-8")
    link.symlink_to(target)
    write_profile(link, Profile(HOST, (TRAIN,)))
    assert link.is_symlink()
    assert plan_for(read_profile(target), TRAIN.loader).plan == Plan(5, 2)  # type: ignore[union-attr]  # None fails the test


def test_nothing_is_written_through_a_dangling_link(tmp_path: Path) -> None:
    link = tmp_path / "keepfed.toml"
    link.symlink_to(tmp_path / "gone" / "keepfed.toml")
    with pytest.raises(ProfileError, match="does not exist"):
        write_profile(link, Profile(HOST, (TRAIN,)))
    assert [page.name for page in tmp_path.iterdir()] == ["keepfed.toml"]


def test_a_malformed_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text("schema = ", encoding="utf-8")
    with pytest.raises(ProfileError):
        write_profile(path, Profile(HOST, (TRAIN,)))
    assert path.read_text(encoding="utf-8") == "schema = "


def _changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


MALFORMED = {
    "misspelt key": (
        _changed("num_workers = 4", "num_worker = 4"),
        13,
        "unknown key 'num_worker' in [[loader]]",
        "Did you mean 'num_workers'?",
    ),
    "unknown table": (
        GOOD + "\n[gpu]\nmemory = 3\n",
        29,
        "unknown key 'gpu' in the top level",
        "Known keys here: schema, host, loader",
    ),
    "text for a number": (
        _changed("num_workers = 4", 'num_workers = "4"'),
        13,
        "num_workers = '4': expected a whole number from 0 to 1024",
        "Correct the value",
    ),
    "true for a number": (
        _changed("cores = 8", "cores = true"),
        5,
        "cores = true: expected a number of cores above 0",
        "",
    ),
    "fraction of a worker": (
        _changed("num_workers = 4", "num_workers = 4.5"),
        13,
        "num_workers = 4.5: expected a whole number",
        "",
    ),
    "negative workers": (
        _changed("num_workers = 4", "num_workers = -1"),
        13,
        "num_workers = -1: expected a whole number from 0 to 1024",
        "",
    ),
    "no prefetch at all": (
        _changed("prefetch_factor = 2", "prefetch_factor = 0"),
        14,
        "prefetch_factor = 0: expected a whole number from 1 to 1024",
        "",
    ),
    "missing key": (_changed('site = "train.py:41"\n', ""), 10, "'site' is missing in [[loader]]", "Add 'site'"),
    "missing host": (GOOD.replace("[host]", "[[loader]]", 1), 4, "unknown key 'fingerprint'", ""),
    "site without line": (_changed('"train.py:41"', '"train.py"'), 12, 'expected "file:line"', ""),
    "another format": (_changed("profile/1", "profile/9"), 1, 'expected "keepfed.profile/1"', ""),
    "unknown limit": (
        _changed('limited_by = "step"', 'limited_by = "bad luck"'),
        20,
        "limited_by = 'bad luck': expected one of step, cores",
        "",
    ),
    "share over one": (
        _changed("wait_share = 0.03", "wait_share = 3"),
        19,
        "wait_share = 3: expected a share from 0 to 1",
        "",
    ),
    "not a number": (_changed("seconds = 24.1", "seconds = nan"), 21, "seconds = nan: expected a number", ""),
    "date as text": (
        _changed("2026-07-01T09:30:00Z", '"yesterday"'),
        17,
        "date = 'yesterday': expected a date like",
        "",
    ),
    "table for a list": (_changed("gpus = []", "gpus = { a = 1 }"), 7, "expected a list of names", ""),
    "one loader described twice": (
        _changed('"__main__.Other"\nsite = "eval.py:7"', '"__main__.PhotoFolder"\nsite = "train.py:41"'),
        23,
        "is described twice, first on line 10",
        "Remove one",
    ),
    "key in a dotted spelling": (GOOD + "evidence.sorrow = 1\n", 28, "unknown key 'sorrow' in [loader.evidence]", ""),
    "value over several lines": (_changed("gpus = []", "gpus = [\n  1,\n]"), 7, "expected a list of names", ""),
    "syntax": (_changed("cores = 8", "cores = eight"), 5, "not TOML: Invalid value", "Correct the line"),
    "syntax at the end": (GOOD + "seconds", 28, "not TOML", ""),
    "same key twice": (_changed("cores = 8", "cores = 8\ncores = 9"), 6, "not TOML", ""),
    "empty": ("", 1, "'schema' is missing in the top level", ""),
}


@pytest.mark.parametrize(("text", "line", "what", "next_step"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, what: str, next_step: str
) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert what in caught.value.message
    assert next_step in caught.value.next_step
    assert caught.value.next_step


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_bytes(b'schema = "keepfed.profile/1"\n# caf\xe9\n')
    with pytest.raises(ProfileError, match=r"keepfed\.toml:2: not UTF-8"):
        read_profile(path)


def test_a_folder_in_place_of_the_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        read_profile(tmp_path)


def test_the_complaint_is_in_the_readers_language(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_text(_changed("num_workers = 4", "num_worker = 4"), encoding="utf-8")
    choose_language("zh")
    try:
        with pytest.raises(ProfileError, match="未知的键"):
            read_profile(path)
    finally:
        choose_language("en")


def test_a_byte_order_mark_and_foreign_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "keepfed.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert read_profile(path).loaders[0].plan == Plan(4, 2)


def test_a_plan_is_found_by_site_class_and_ordinal() -> None:
    second = LoaderProfile(LoaderId("train.py:41", "__main__.PhotoFolder", 1), Plan(3, 2))
    profile = Profile(HOST, (TRAIN, EVAL, second))
    assert plan_for(profile, EVAL.loader).entry == EVAL  # type: ignore[union-attr]  # None fails the test
    assert plan_for(profile, second.loader).entry == second  # type: ignore[union-attr]  # None fails the test
    assert plan_for(profile, LoaderId("train.py:41", "__main__.Other")) is None


def test_the_start_folder_does_not_matter() -> None:
    match = plan_for(Profile(HOST, (TRAIN,)), LoaderId("/home/ann/train.py:41", "__main__.PhotoFolder"))
    assert match is not None
    assert not match.note
    assert plan_for(Profile(HOST, (TRAIN,)), LoaderId("/home/ann/pretrain.py:41", "__main__.PhotoFolder")) is None


def test_a_loader_on_another_line_is_the_same_when_there_is_only_one() -> None:
    moved = LoaderId("train.py:44", "__main__.PhotoFolder")
    match = plan_for(Profile(HOST, (TRAIN,)), moved)
    assert match is not None
    assert (
        match.note == "train.py:41 is taken for train.py:44: the same dataset class in the same file, on another line"
    )
    assert plan_for(Profile(HOST, (TRAIN, EVAL)), moved) is None


def test_a_second_loader_does_not_take_the_entry_of_the_first() -> None:
    profile = Profile(HOST, (TRAIN,))
    assert plan_for(profile, LoaderId("train.py:47", "__main__.PhotoFolder"), taken=[TRAIN.loader]) is None


def test_a_plan_counts_as_measured_only_on_its_own_host() -> None:
    profile = Profile(HOST, (TRAIN,))
    for fingerprint, here in (("abc123", True), ("ffff", False), ("", False)):
        match = plan_for(profile, TRAIN.loader, fingerprint=fingerprint)
        assert match is not None
        assert match.measured_here is here


def test_only_the_folder_itself_is_searched(tmp_path: Path) -> None:
    (tmp_path / "keepfed.toml").write_text(GOOD, encoding="utf-8")
    inner = tmp_path / "inner"
    inner.mkdir()
    assert find_profile(tmp_path) == tmp_path / "keepfed.toml"
    assert find_profile(inner) is None
