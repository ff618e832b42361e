"""The client against an engine that behaves as Docker does where Podman does otherwise."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepfed.engine.client import engines, find_container
from keepfed.errors import UnreachableError, UsageError
from tests.engine.fake import ID, Fake, engine


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with tempfile.TemporaryDirectory(prefix="keepfed-fake-") as folder, engine(Path(folder)) as started:
        monkeypatch.setenv("DOCKER_HOST", started.url)
        yield started


def test_the_engine_tells_what_it_is(fake: Fake) -> None:
    (found,) = engines()
    with found:
        assert (found.kind, found.version) == ("docker", "25.0.1")
        assert [one.name for one in found.containers()] == ["trainer"]


def test_a_link_that_is_handed_out_as_a_link_is_followed_and_never_replaced(fake: Fake) -> None:
    fake.add("/app/opt.txt", b"4\n", mode=0o4640, uid=1000, gid=1001)
    fake.add("/app/link", type=tarfile.SYMTYPE, linkname="opt.txt")
    fake.add("/data", type=tarfile.SYMTYPE, linkname="app")
    with find_container("trainer") as found:
        before = found.read("/data/link")
        assert (before.path, before.data, before.mode, before.owner) == ("/app/opt.txt", b"4\n", 0o4640, (1000, 1001))
        found.write(before, b"0\n")
    assert fake.files["/app/link"].issym()
    changed = fake.files["/app/opt.txt"]
    assert (fake.data["/app/opt.txt"], changed.mode, changed.uid, changed.gid) == (b"0\n", 0o4640, 1000, 1001)


def test_links_in_a_circle_end_in_an_error(fake: Fake) -> None:
    fake.add("/app/a", type=tarfile.SYMTYPE, linkname="b")
    fake.add("/app/b", type=tarfile.SYMTYPE, linkname="a")
    with (
        find_container("trainer") as found,
        pytest.raises(UnreachableError, match=r"too many links|not a regular file"),
    ):
        found.read("/app/a")


def test_what_the_engine_refuses_is_told_in_its_own_words(fake: Fake) -> None:
    fake.add("/app/opt.txt", b"4\n")
    fake.refuses_put = "container rootfs is marked read-only"
    with find_container("trainer") as found:
        before = found.read("/app/opt.txt")
        with pytest.raises(UnreachableError, match="container rootfs is marked read-only"):
            found.write(before, b"0\n")


def test_a_write_that_did_not_arrive_is_noticed(fake: Fake) -> None:
    fake.add("/app/opt.txt", b"4\n")
    fake.loses_put = True
    with find_container("trainer") as found:
        before = found.read("/app/opt.txt")
        with pytest.raises(UnreachableError, match="does not hold what was to be written"):
            found.write(before, b"0\n")


def test_a_file_that_is_too_large_is_not_read(fake: Fake) -> None:
    fake.add("/app/data.bin", b"x" * 300_000)
    with find_container("trainer") as found:
        with pytest.raises(UnreachableError, match="more than 1000 bytes"):
            found.read("/app/data.bin", 1000)
        assert found.read("/app/data.bin", 300_000).data == b"x" * 300_000


def test_what_is_no_regular_file_is_not_read(fake: Fake) -> None:
    fake.add("/app/pipe", type=tarfile.FIFOTYPE)
    with find_container("trainer") as found:
        with pytest.raises(UnreachableError, match="not a regular file"):
            found.read("/app/pipe")
        with pytest.raises(UnreachableError, match="There is no /app/nothing in trainer"):
            found.read("/app/nothing")


@pytest.mark.parametrize(
    "mounts", [{"HostConfig": {"Tmpfs": {"/app": ""}}}, {"Mounts": [{"Type": "tmpfs", "Destination": "/app"}]}]
)
def test_a_file_below_a_tmpfs_is_refused(fake: Fake, mounts: dict[str, object]) -> None:
    fake.add("/app/opt.txt", b"below the mount\n")
    fake.detail = mounts
    with find_container("trainer") as found, pytest.raises(UnreachableError, match="lies in memory"):
        found.read("/app/opt.txt")


def test_a_beginning_that_two_ids_share_is_ambiguous(fake: Fake) -> None:
    fake.names["other"] = ID[:-1] + "1"
    with pytest.raises(UsageError, match="trainer") as error, find_container(ID[:8]):
        pass
    assert "other" in str(error.value)


def test_a_stream_that_breaks_off_is_an_error_and_no_half_file(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.add("/app/opt.txt", b"4" * 100_000)
    with find_container("trainer") as found:
        fake.files["/app/opt.txt"].size = 200_000  # the archive promises more than comes
        with pytest.raises(UnreachableError):
            found.read("/app/opt.txt")
