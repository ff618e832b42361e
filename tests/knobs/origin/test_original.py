from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from keepfed.knobs.origin.changes import changes_of
from keepfed.knobs.origin.history import committed, first_versions, versions
from keepfed.knobs.origin.journal import Change, journal_in
from keepfed.knobs.origin.original import matched, sites_in, with_originals
from keepfed.knobs.scan import Scanned, scan_paths
from keepfed.knobs.site import Original
from tests.knobs.repository import Repository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
YAML = "train:\n  num_workers: {}\n  prefetch_factor: 2\n"
S = 30.0


def later() -> float:
    return time.monotonic() + S


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "project").mkdir()
    return Repository(tmp_path / "project")


def originals(*paths: str) -> list[Original | None]:
    scanned = scan_paths(paths)
    return [
        site.original for site in with_originals(scanned.sites, scanned.files, git_s=S) if site.knob == "num_workers"
    ]


def note(repository: Repository, file: str, old: str, new: str, line: int = 2, verb: str = "set", **more: str) -> None:
    change = Change(
        id=more.pop("id", "a.1"),
        group="a",
        verb=verb,
        time=more.pop("time", "2024-06-01T00:00:00Z"),
        file=file,
        line=line,
        knob="num_workers",
        spelling="num_workers",
        old=old,
        new=new,
        start=0,
        end=1,
        old_bytes=old.encode(),
        new_bytes=new.encode(),
        sha256_before="",
        sha256_after="",
        user="bob",
        **more,  # type: ignore[arg-type]  # only texts are given here
    )
    journal = journal_in(repository.folder)
    journal.parent.mkdir(mode=0o700, exist_ok=True)
    with journal.open("a", encoding="utf-8") as out:
        out.write(json.dumps(change.to_json(repository.folder)) + "\n")


def test_the_last_commit_has_the_original_of_a_value_that_was_edited_since(repository: Repository) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.commit()
    repository.write("a.yaml", "# a line more\n" + YAML.format(0))
    assert originals(path) == [Original("4", "git")]


def test_the_first_commit_has_the_original_where_the_last_one_has_what_stands_there(repository: Repository) -> None:
    path = repository.write("d é/a.yaml", YAML.format(4))
    repository.commit()
    repository.write("d é/a.yaml", YAML.format(8))
    repository.commit()
    assert originals(path) == [Original("4", "git")]


def test_a_file_that_nobody_committed_or_outside_of_any_repository_has_no_history(
    repository: Repository, tmp_path: Path
) -> None:
    repository.write("b", "")
    repository.commit()
    inside = repository.write("a.yaml", YAML.format(4))
    outside = tmp_path / "b.yaml"
    outside.write_text(YAML.format(4))
    assert originals(inside, str(outside)) == [None, None]


def test_places_are_found_again_by_name_and_turn_and_not_by_line(repository: Repository) -> None:
    two = "a:\n  num_workers: {}\nb:\n  num_workers: {}\n"
    path = repository.write("a.yaml", two.format(4, 2))
    repository.commit()
    repository.write("a.yaml", "x: 1\n\n" + two.format(4, 0))
    assert originals(path) == [Original("4", "git"), Original("2", "git")]


def test_the_journal_comes_before_git_and_its_first_change_is_the_original(repository: Repository) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.commit()
    repository.write("a.yaml", YAML.format(0))
    note(repository, path, "6", "2")
    note(repository, path, "2", "0", id="a.2", time="2024-06-02T00:00:00Z")
    assert originals(path) == [Original("6", "journal")]


def test_a_change_that_was_taken_back_is_no_original(repository: Repository) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    note(repository, path, "4", "0")
    note(repository, path, "0", "4", id="a.2", verb="undo", undoes="a.1")
    assert originals(path) == [None]


def test_what_a_printout_says_of_its_default_comes_behind_what_changed(repository: Repository) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.commit()
    scanned = scan_paths([path])
    printed = [replace(site, original=Original("9", "printed")) for site in scanned.sites]
    assert with_originals(printed, scanned.files, git_s=S)[0].original == Original("9", "printed")
    repository.write("a.yaml", YAML.format(5))
    scanned = scan_paths([path])
    printed = [replace(site, original=Original("9", "printed")) for site in scanned.sites]
    assert with_originals(printed, scanned.files, git_s=S)[0].original == Original("4", "git")


def test_unequal_numbers_of_the_same_name_are_not_paired() -> None:
    one = sites_in("a.yaml", b"a:\n  num_workers: 4\n")
    two = sites_in("a.yaml", b"num_workers: 4\nb:\n  num_workers: 2\n")
    assert len(two) == 2
    assert matched([one[0], one[0]], one) == []


# ----------------------------------------------------------------------------------------------------------------------- git


def test_a_repository_cannot_make_git_start_programs(repository: Repository, tmp_path: Path) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.write(".gitattributes", "*.yaml diff=evil\n")
    repository.commit()
    repository.write("a.yaml", YAML.format(8))
    repository.commit()
    proof = tmp_path / "proof"
    program = tmp_path / "evil"
    program.write_text(f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for key in (
        "core.fsmonitor",
        "diff.external",
        "diff.evil.textconv",
        "diff.evil.command",
        "core.pager",
        "gpg.program",
    ):
        repository.git("config", key, str(program))
    repository.git("config", "log.showSignature", "true")
    hook = repository.folder / ".git/hooks/post-index-change"
    shutil.copy(program, hook)
    assert len(versions([path], commits=5, until_s=later())) == 2
    assert committed([path], until_s=later()) == {path: YAML.format(8).encode()}
    assert first_versions([path], until_s=later())[path].after == YAML.format(4).encode()
    assert not proof.exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_repository_of_another_user_is_left_alone(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.commit()
    monkeypatch.setenv("HOME", str(repository.folder))
    for folder, folders, files in os.walk(repository.folder):
        for name in (*folders, *files, "."):
            os.chown(os.path.join(folder, name), 65534, 65534)
    assert committed([path], until_s=later()) == {}


def test_first_versions_of_very_many_files_are_left_out(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [repository.write(name, YAML.format(4)) for name in ("a.yaml", "b.yaml")]
    repository.commit()
    monkeypatch.setattr("keepfed.knobs.origin.history.MOST_PATHS", 1)
    assert first_versions(paths, until_s=later()) == {}
    assert set(first_versions(paths[:1], until_s=later())) == {paths[0]}
    assert set(committed(paths, until_s=later())) == set(paths)


def test_a_history_that_takes_too_long_is_left_out(repository: Repository) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.commit()
    assert committed([path], until_s=time.monotonic()) == {}


def test_variables_of_an_outer_git_lead_nowhere_else(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.commit()
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert set(committed([path], until_s=later())) == {path}


# ------------------------------------------------------------------------------------------------------------------- changes


def scanned_of(path: str) -> Scanned:
    return scan_paths([path])


def test_changes_name_author_place_and_both_values_newest_first(repository: Repository) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.commit("Ada")
    repository.write("a.yaml", "# moved\n" + YAML.format(8))
    repository.commit("Grace")
    repository.write("a.yaml", "# moved\n" + YAML.format(8).replace("factor: 2", "factor: 4"))
    repository.commit("Edsger")
    scanned = scanned_of(path)
    rows = changes_of(scanned.sites, scanned.files)
    assert [(row.who, row.knob, row.line, row.old, row.new) for row in rows] == [
        ("Edsger", "prefetch_factor", 4, "2", "4"),
        ("Grace", "num_workers", 3, "4", "8"),
    ]
    assert rows[0].time.startswith("2024-05-03T10:00:00")
    assert rows[0].source == "git"
    assert len(rows[0].reference) == 10


def test_a_setting_that_a_commit_added_or_took_away_is_told(repository: Repository) -> None:
    path = repository.write("a.yaml", "a:\n  num_workers: 4\n")
    repository.commit()
    repository.write("a.yaml", "a:\n  num_workers: 4\n  prefetch_factor: 8\n")
    repository.commit()
    repository.write("a.yaml", "a:\n  prefetch_factor: 8\n")
    repository.commit()
    scanned = scanned_of(path)
    rows = changes_of(scanned.sites, scanned.files)
    assert [(row.knob, row.old, row.new) for row in rows] == [
        ("num_workers", "4", None),
        ("prefetch_factor", None, "8"),
    ]


def test_only_the_last_commits_are_looked_into(repository: Repository) -> None:
    for value in (1, 2, 3, 4):
        path = repository.write("a.yaml", YAML.format(value))
        repository.commit()
    scanned = scanned_of(path)
    assert [row.new for row in changes_of(scanned.sites, scanned.files, commits=2)] == ["4", "3"]


def test_the_last_commits_are_those_that_touched_the_files_also_among_very_many(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository.write("a.yaml", YAML.format(1))
    other = repository.write("b.yaml", YAML.format(1))
    repository.commit()
    repository.write("a.yaml", YAML.format(2))
    repository.commit()
    for text in "xyz":
        repository.write("README", text)
        repository.commit()
    monkeypatch.setattr("keepfed.knobs.origin.history.MOST_PATHS", 1)
    found = versions([path, other], commits=1, until_s=later())
    assert [(version.before, version.after) for version in found] == [
        (YAML.format(1).encode(), YAML.format(2).encode())
    ]


def test_what_is_in_no_commit_is_told_once_by_the_journal_or_as_uncommitted(repository: Repository) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    repository.commit()
    repository.write("a.yaml", YAML.format(0))
    scanned = scanned_of(path)
    (row,) = changes_of(scanned.sites, scanned.files)
    assert (row.source, row.who, row.old, row.new) == ("uncommitted", "", "4", "0")
    note(repository, path, "4", "0")
    (row,) = changes_of(scanned.sites, scanned.files)
    assert (row.source, row.who, row.verb, row.reference) == ("journal", "bob", "set", "a.1")


def test_a_change_that_was_announced_and_not_made_is_not_told(repository: Repository) -> None:
    path = repository.write("a.yaml", YAML.format(4))
    note(repository, path, "4", "0")
    note(repository, path, "0", "4", id="a.2", verb="void", undoes="a.1")
    scanned = scanned_of(path)
    assert changes_of(scanned.sites, scanned.files) == []
