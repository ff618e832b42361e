"""The diff, checked by the program that has to accept it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.edit.diff import unified

pytestmark = pytest.mark.skipif(shutil.which("patch") is None, reason="needs patch(1)")


def patched(folder: Path, name: str, old: bytes, diff: bytes) -> bytes:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(old)
    done = subprocess.run(["patch", "-p1", "--batch"], cwd=folder, input=diff, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert b"fuzz" not in done.stdout
    return (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"a = 4\n", b"a = 8\n"),
        (b"a = 4", b"a = 8"),
        (b"x\na = 4", b"x\na = 8"),
        (b"a = 4\r\nb = 2\r\n", b"a = 8\r\nb = 2\r\n"),
        (b"a\rb\x0c\na = 4\n", b"a\rb\x0c\na = 8\n"),
        ("# 进程数\na = 4\n".encode("gb18030"), "# 进程数\na = 8\n".encode("gb18030")),
        ("\ufeffa = 4\n# 进程数\n".encode("utf-16-le"), "\ufeffa = 8\n# 进程数\n".encode("utf-16-le")),
        (b"# \xe9\na = 4\n", b"# \xe9\na = 8\n"),
        (
            b"".join(b"line %d\n" % n for n in range(40)),
            b"".join(b"line %d\n" % (n if n % 15 else -1) for n in range(40)),
        ),
        (b"a\nb\n", b"a\nnew\nb\n"),
        (b"", b"OMP_NUM_THREADS=1\n"),
    ],
)
def test_patch_makes_the_new_file_of_the_old_one(tmp_path: Path, old: bytes, new: bytes) -> None:
    assert patched(tmp_path, "train.py", old, unified("train.py", old, new)) == new


@pytest.mark.parametrize("name", ["config example.toml", 'a"b\\c.py', "配置/train.yaml", "deep/er/x.sh"])
def test_patch_finds_files_of_any_name(tmp_path: Path, name: str) -> None:
    old, new = b"a = 4\n", b"a = 8\n"
    assert patched(tmp_path, name, old, unified(name, old, new)) == new


def test_equal_contents_have_no_diff() -> None:
    assert unified("train.py", b"a\n", b"a\n") == b""


LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"a\r\n", b"\n", b"num_workers: 4\n", b"\xff\n"]), max_size=30)


@settings(max_examples=40)
@given(old=LINES, new=LINES, ends=st.sampled_from([b"", b"tail"]))
def test_patch_accepts_the_diff_of_any_two_texts(
    tmp_path_factory: pytest.TempPathFactory, old: list[bytes], new: list[bytes], ends: bytes
) -> None:
    one, other = b"".join(old) + b"first\n", b"".join(new) + b"first\n" + ends
    if one != other:
        assert patched(tmp_path_factory.mktemp("patch"), "x", one, unified("x", one, other)) == other
