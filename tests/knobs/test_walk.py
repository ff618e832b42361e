from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from keepfed.errors import UnreachableError
from keepfed.knobs.scan import Scanned, scan_paths
from keepfed.knobs.walk import LIMIT_BYTES

SETTING = "--num-workers 4\n"
posix = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and permissions of POSIX")


def write(path: Path, text: str = SETTING) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def files(scanned: Scanned, root: Path) -> list[str]:
    return [os.path.relpath(site.file, root).replace(os.sep, "/") for site in scanned.sites]


def skipped(scanned: Scanned, root: Path) -> dict[str, str]:
    return {
        os.path.relpath(one.file, root).replace(os.sep, "/"): one.reason.removeprefix("knobs.skipped_")
        for one in scanned.skipped
    }


def test_a_folder_is_walked_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.bat", "a/z.tpl", "c.bat"):
        write(tmp_path / name)
    assert files(scan_paths([str(tmp_path)]), tmp_path) == ["a/z.tpl", "b.bat", "c.bat"]


def test_what_holds_nobodys_settings_is_said_once_and_not_walked(tmp_path: Path) -> None:
    write(tmp_path / ".git" / "hooks" / "a.bat")
    write(tmp_path / "myenv" / "pyvenv.cfg", "")
    write(tmp_path / "myenv" / "lib" / "a.bat")
    write(tmp_path / "web" / "node_modules" / "a.bat")
    write(tmp_path / "build" / "a.bat")
    write(tmp_path / "data" / "build" / "a.bat")
    write(tmp_path / "setup.py", "")
    write(tmp_path / ".github" / "workflows" / "a.bat")
    scanned = scan_paths([str(tmp_path)])
    assert files(scanned, tmp_path) == ["data/build/a.bat"]
    assert skipped(scanned, tmp_path) == {
        ".git": "repository",
        "myenv": "packages",
        "web/node_modules": "packages",
        "build": "built",
        ".github": "ci",
    }


def test_what_is_named_is_read_wherever_it_lies(tmp_path: Path) -> None:
    inside = write(tmp_path / "site-packages" / "a.bat")
    write(tmp_path / "tests" / "b.bat")
    assert len(scan_paths([str(inside)]).sites) == 1
    assert len(scan_paths([str(tmp_path / "site-packages")]).sites) == 1
    assert len(scan_paths([str(tmp_path / "tests")]).sites) == 1
    assert skipped(scan_paths([str(tmp_path)]), tmp_path) == {"site-packages": "packages", "tests": "tests"}


def test_a_file_named_twice_or_below_a_named_folder_is_read_once(tmp_path: Path) -> None:
    file = write(tmp_path / "a.bat")
    assert len(scan_paths([str(file), str(tmp_path), str(file)]).sites) == 1


def test_a_named_file_of_an_unknown_kind_is_read_line_by_line(tmp_path: Path) -> None:
    file = write(tmp_path / "settings.xyz")
    assert len(scan_paths([str(file)]).sites) == 1
    assert scan_paths([str(tmp_path)]).sites == ()


def test_a_large_file_is_left_out_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path / "big.bat", SETTING + " " * LIMIT_BYTES)
    write(tmp_path / "big.pth", SETTING + " " * LIMIT_BYTES)
    scanned = scan_paths([str(tmp_path)])
    assert skipped(scanned, tmp_path) == {"big.bat": "large"}


def test_a_binary_file_under_a_name_of_settings_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\x7fELF\0\0num_workers: 4")
    (tmp_path / "blob").write_bytes(b"\x7fELF\0\0num_workers: 4")
    assert skipped(scan_paths([str(tmp_path)]), tmp_path) == {"a.yaml": "binary"}


def test_a_file_in_utf_16_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.bat").write_bytes("set NUM_WORKERS=4\r\n".encode("utf-16"))
    (site,) = scan_paths([str(tmp_path)]).sites
    assert (site.value, site.span.start, site.span.end) == ("4", 34, 36)


@posix
def test_links_in_a_circle_pipes_and_broken_links_stop_nobody(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.bat")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "loop.bat").symlink_to(tmp_path / "loop.bat")
    os.mkfifo(tmp_path / "pipe.bat")
    (tmp_path / "null.bat").symlink_to("/dev/null")
    scanned = scan_paths([str(tmp_path)])
    assert files(scanned, tmp_path) == ["a/x.bat"]
    assert skipped(scanned, tmp_path) == {
        "a/again": "link",
        "loop.bat": "broken_link",
        "pipe.bat": "no_file",
        "null.bat": "no_file",
    }


@posix
def test_a_link_to_a_file_is_read_once_under_the_files_own_name(tmp_path: Path) -> None:
    write(tmp_path / "z" / "real.bat")
    (tmp_path / "z" / "a.bat").symlink_to("real.bat")
    (tmp_path / "a.bat").symlink_to("z/real.bat")
    assert files(scan_paths([str(tmp_path)]), tmp_path) == ["z/real.bat"]


@posix
def test_two_names_of_equal_right_are_two_files(tmp_path: Path) -> None:
    os.link(write(tmp_path / "a.bat"), tmp_path / "b.bat")
    assert files(scan_paths([str(tmp_path), str(tmp_path / "a.bat")]), tmp_path) == ["a.bat", "b.bat"]


@posix
def test_folders_may_lie_deeper_than_calls_can(tmp_path: Path) -> None:
    """Three calls per folder would be one too many; removing the folders again takes one."""
    write(tmp_path.joinpath(*["d"] * 400, "a.bat"))
    assert len(scan_paths([str(tmp_path)]).sites) == 1


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    write(tmp_path / "a.bat").chmod(0)
    assert skipped(scan_paths([str(tmp_path)]), tmp_path) == {"a.bat": "unreadable"}


@pytest.mark.parametrize("name", ["missing.yaml", "a.bat/inside", "nul\0byte"])
def test_a_path_that_is_not_there_is_an_error(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.bat")
    with pytest.raises(UnreachableError, match=r"missing|inside|nul"):
        scan_paths([str(tmp_path / name)])


@posix
def test_a_pipe_that_is_named_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreachableError, match="pipe"):
        scan_paths([str(tmp_path / "pipe")])


def test_paths_are_shown_as_they_were_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "p" / "a.bat")
    monkeypatch.chdir(tmp_path)
    for path, shown in (
        (".", "p/a.bat"),
        ("./p", "p/a.bat"),
        ("p/", "p/a.bat"),
        (str(tmp_path), f"{tmp_path}/p/a.bat"),
    ):
        assert [site.file for site in scan_paths([path]).sites] == [shown.replace(os.sep, "/")]
