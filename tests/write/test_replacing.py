"""Files are replaced whole or not at all; what hangs on them stays; and where that cannot be had, it is said."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from keepfed.write.replacing import ChangedMeanwhile, Content, WriteError, read_file, replace_all


def nothing(lost: Collection[Path] = ()) -> None:
    pass


def leftovers(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".keepfed-")]


def test_a_file_gets_its_new_content_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "run.sh"
    file.write_bytes(b"old")
    file.chmod(0o751)
    assert replace_all([Content(file, b"old", b"new")], nothing, nothing) == []
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o751
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="no extended attributes on this system")
def test_a_file_keeps_its_extended_attributes(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old")
    try:
        os.setxattr(file, "user.note", b"mine")
    except OSError as error:
        pytest.skip(f"the file system has none: {error}")
    replace_all([Content(file, b"old", b"new")], nothing, nothing)
    assert os.getxattr(file, "user.note") == b"mine"


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    file, link = tmp_path / "real" / "x", tmp_path / "link"
    file.write_bytes(b"old")
    link.symlink_to("real/x")
    notes = replace_all([Content(link, b"old", b"new")], nothing, nothing)
    assert link.is_symlink()
    assert file.read_bytes() == b"new"
    assert "symbolic link" in notes[0]
    assert str(file) in notes[0]


def test_other_hard_links_keep_the_old_content_and_that_is_said(tmp_path: Path) -> None:
    file, other = tmp_path / "x", tmp_path / "y"
    file.write_bytes(b"old")
    os.link(file, other)
    notes = replace_all([Content(file, b"old", b"new")], nothing, nothing)
    assert (file.read_bytes(), other.read_bytes()) == (b"new", b"old")
    assert "hard links" in notes[0]


def test_a_file_that_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"newer")
    with pytest.raises(ChangedMeanwhile, match="has changed"):
        replace_all([Content(file, b"old", b"new")], nothing, nothing)
    assert file.read_bytes() == b"newer"
    assert leftovers(tmp_path) == []


def test_a_change_between_staging_and_renaming_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"old")
    other.write_bytes(b"old")
    sync, synced = os.fsync, []

    def meddle(descriptor: int) -> None:
        sync(descriptor)
        synced.append(descriptor)
        if len(synced) == 2:
            one.write_bytes(b"somebody's")

    monkeypatch.setattr(os, "fsync", meddle)
    with pytest.raises(ChangedMeanwhile):
        replace_all([Content(one, b"old", b"new"), Content(other, b"old", b"new")], nothing, nothing)
    assert (one.read_bytes(), other.read_bytes()) == (b"somebody's", b"old")
    assert leftovers(tmp_path) == []


def test_a_read_only_file_is_left_alone_even_by_root(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old")
    file.chmod(0o444)
    with pytest.raises(WriteError, match="read-only") as caught:
        replace_all([Content(file, b"old", b"new")], nothing, nothing)
    assert "chmod u+w" in caught.value.next_step
    assert file.read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["folder", "fifo", "absent", "dangling"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    with pytest.raises(WriteError):
        read_file(path)


def test_files_are_all_replaced_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.write_bytes(b"old")
    replace, voided = os.replace, []

    def failing(source: Path, target: Path) -> None:
        if Path(target).name == "c":
            raise OSError(errno.EIO, "broken disk")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(WriteError, match="broken disk"):
        replace_all([Content(file, b"old", b"new") for file in files], nothing, lambda lost: voided.append(list(lost)))
    assert [file.read_bytes() for file in files] == [b"old"] * 3
    assert voided == [[]]
    assert leftovers(tmp_path) == []


def test_what_cannot_be_put_back_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(b"old")
    replace, calls = os.replace, []

    def failing(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) > 1:
            raise OSError(errno.EIO, "broken disk")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(WriteError) as caught:
        replace_all([Content(file, b"old", b"new") for file in files], nothing, nothing)
    assert str(files[0]) in caught.value.message
    assert "could not be put back" in caught.value.message


def test_nothing_happens_where_the_change_cannot_be_noted(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old")

    def full() -> None:
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        replace_all([Content(file, b"old", b"new")], full, nothing)
    assert file.read_bytes() == b"old"
    assert leftovers(tmp_path) == []


def test_a_file_that_is_mounted_by_itself_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old and longer")
    identity = file.stat().st_ino

    def busy(source: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    notes = replace_all([Content(file, b"old and longer", b"new")], nothing, nothing)
    assert (file.read_bytes(), file.stat().st_ino) == (b"new", identity)
    assert "in place" in notes[0]
    assert leftovers(tmp_path) == []


def test_a_write_in_place_that_fails_puts_the_old_content_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"old")
    sync, calls = os.fsync, []

    def failing(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:  # the first is that of the temporary file
            raise OSError(errno.EIO, "broken disk")
        sync(descriptor)

    def busy(source: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(WriteError, match="broken disk"):
        replace_all([Content(file, b"old", b"much newer")], nothing, nothing)
    assert file.read_bytes() == b"old"


FULL = """
import resource, sys
from pathlib import Path
from keepfed.write.replacing import Content, WriteError, replace_all
file = Path(sys.argv[1])
before = file.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    replace_all([Content(file, before, before + b"more")], lambda: None, lambda lost: None)
except WriteError as error:
    print(error)
    sys.exit(0 if file.read_bytes() == before else 1)
sys.exit(2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of file sizes as Linux has them")
def test_a_file_that_cannot_be_written_to_its_end_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"x" * 5000)
    done = subprocess.run([sys.executable, "-c", FULL, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it is as it was before" in done.stdout
    assert leftovers(tmp_path) == []


ON_A_FULL_DISK = """
mount -t tmpfs -o size=64k tmpfs "$1" || exit 77
cp "$2" "$1/x"
head -c 200000 /dev/zero > "$1/filler" 2> /dev/null
"$3" -c '
import sys
from pathlib import Path
from keepfed.write.replacing import Content, WriteError, replace_all
file = Path(sys.argv[1])
before = file.read_bytes()
try:
    replace_all([Content(file, before, before.replace(b"4", b"16"))], lambda: None, lambda lost: None)
except WriteError as error:
    print(error)
    sys.exit(0 if file.read_bytes() == before else 1)
sys.exit(2)
' "$1/x"
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
def test_a_full_disk_leaves_the_original_intact(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "x").write_bytes(b"num_workers: 4\n" * 500)
    command: list[str | Path] = [
        "unshare",
        "-m",
        "sh",
        "-c",
        ON_A_FULL_DISK,
        "sh",
        tmp_path / "disk",
        tmp_path / "x",
        sys.executable,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mount namespace may be made here")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Make room" in done.stdout
