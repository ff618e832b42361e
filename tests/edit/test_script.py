"""The script edits as `keepfed set` does, under every shell at hand, refuses other files, and goes back."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.edit.replacement import Edit, applied
from keepfed.edit.script import FileToEdit, checksum, script
from keepfed.knobs.site import Span

SHELLS = {
    name: command
    for name, command in {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}.items()
    if shutil.which(command[0])
}


@pytest.fixture(params=SHELLS, scope="module")
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, str]]:
    """A shell, and an environment in which it finds few tools: busybox only its own."""
    command = SHELLS[request.param]
    folder = tmp_path_factory.mktemp("tools")
    if request.param == "dash":  # as on a system that has no sha256sum
        for tool in ("cksum", "dd", "tail", "cat", "cmp", "cp", "mv", "rm", "readlink", "dirname"):
            (folder / tool).symlink_to(shutil.which(tool) or "")
        return [shutil.which("dash") or ""], {"PATH": str(folder)}
    if request.param != "busybox":
        return command, dict(os.environ)
    busybox = shutil.which("busybox") or ""
    for applet in ("sha256sum", "dd", "tail", "cat", "cmp", "cp", "mv", "rm", "readlink", "dirname", "printf", "sh"):
        (folder / applet).symlink_to(busybox)
    return [str(folder / "sh")], {"PATH": str(folder)}


def edit(data: bytes, old: bytes, new: bytes) -> Edit:
    at = data.index(old)
    return Edit("x", Span(at, at + len(old)), old, new, 1, "num_workers", "num_workers", "4", "8")


def run(shell: tuple[list[str], dict[str, str]], folder: Path, text: bytes, *words: str) -> tuple[int, str]:
    (folder / "fix.sh").write_bytes(text)
    command, environment = shell
    done = subprocess.run(
        [*command, "fix.sh", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    (folder / "fix.sh").unlink()
    return done.returncode, done.stderr


CONTENTS = {
    "plain": b"a = 4\nb = 22\n",
    "first byte": b"4 b22",
    "crlf without end": b"a = 4\r\nb = 22",
    "nul bytes": "a = 4 # 进程\nb = 22\n".encode("utf-16"),
    "long": b"x" * 70_000 + b"4\n" + b"y" * 70_000 + b"22",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_script_makes_the_edits_and_takes_them_back(
    tmp_path: Path, shell: tuple[list[str], dict[str, str]], name: str
) -> None:
    before = CONTENTS[name]
    wide = b"\0" in before
    edits = tuple(
        edit(
            before, old.decode().encode("utf-16-le") if wide else old, new.decode().encode("utf-16-le") if wide else new
        )
        for old, new in ((b"4", b"16"), (b"22", b"3"))
    )
    file = tmp_path / "it's a file.py"
    file.write_bytes(before)
    file.chmod(0o754)
    text = script([FileToEdit(file.name, before, edits)])
    assert run(shell, tmp_path, text)[0] == 0
    assert file.read_bytes() == applied(before, edits)
    assert stat.S_IMODE(file.stat().st_mode) == 0o754
    backups = [other for other in tmp_path.iterdir() if other != file]
    assert [backup.read_bytes() for backup in backups] == [before]
    code, told = run(shell, tmp_path, text)
    assert code == 0
    assert "already" in told
    assert run(shell, tmp_path, text, "--undo")[0] == 0
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def two_files(folder: Path) -> tuple[bytes, list[FileToEdit]]:
    before = b"a = 4\n"
    for name in ("one", "two"):
        (folder / name).write_bytes(before)
    files = [FileToEdit(name, before, (edit(before, b"4", b"8"),)) for name in ("one", "two")]
    return script(files), files


def test_one_file_that_differs_stops_all(tmp_path: Path, shell: tuple[list[str], dict[str, str]]) -> None:
    text, _ = two_files(tmp_path)
    (tmp_path / "two").write_bytes(b"a = 5\n")
    code, told = run(shell, tmp_path, text)
    assert code == 1
    assert "two" in told
    assert (tmp_path / "one").read_bytes() == b"a = 4\n"
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_a_missing_file_is_named(tmp_path: Path, shell: tuple[list[str], dict[str, str]]) -> None:
    text, _ = two_files(tmp_path)
    (tmp_path / "one").unlink()
    code, told = run(shell, tmp_path, text)
    assert (code, "one" in told) == (1, True)
    assert os.listdir(tmp_path) == ["two"]


def test_a_file_that_changed_since_is_not_taken_back(tmp_path: Path, shell: tuple[list[str], dict[str, str]]) -> None:
    text, _ = two_files(tmp_path)
    assert run(shell, tmp_path, text)[0] == 0
    (tmp_path / "two").write_bytes(b"mine\n")
    assert run(shell, tmp_path, text, "--undo")[0] == 1
    assert (tmp_path / "one").read_bytes() == b"a = 8\n"


def test_a_symbolic_link_stays_and_its_target_is_changed(
    tmp_path: Path, shell: tuple[list[str], dict[str, str]]
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"a = 4\n")
    (tmp_path / "link").symlink_to("real/x")
    before = b"a = 4\n"
    text = script([FileToEdit("link", before, (edit(before, b"4", b"8"),))])
    assert run(shell, tmp_path, text)[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "x").read_bytes() == b"a = 8\n"


def test_an_unknown_word_is_refused(tmp_path: Path, shell: tuple[list[str], dict[str, str]]) -> None:
    text, _ = two_files(tmp_path)
    assert run(shell, tmp_path, text, "--help")[0] == 2
    assert (tmp_path / "one").read_bytes() == b"a = 4\n"


@given(st.binary(max_size=300))
def test_the_checksum_is_a_function_of_every_byte(data: bytes) -> None:
    assert checksum(data) != checksum(data + b"\0")


@pytest.mark.skipif(shutil.which("cksum") is None, reason="needs cksum(1)")
@pytest.mark.parametrize("data", [b"", b"4", b"x" * 70_000, bytes(range(256)) * 3])
def test_the_checksum_is_that_of_cksum(data: bytes) -> None:
    said = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout.split()
    assert [int(word) for word in said[:2]] == [checksum(data), len(data)]
