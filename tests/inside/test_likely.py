"""Where the settings of a container's program are looked for, when nobody says."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepfed.engine.client import find_container
from keepfed.errors import UsageError
from keepfed.inside.likely import likely_folders, without_nested
from tests.engine.fake import Fake, engine


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with tempfile.TemporaryDirectory(prefix="keepfed-fake-") as folder, engine(Path(folder)) as started:
        monkeypatch.setenv("DOCKER_HOST", started.url)
        for path in ("/usr", "/usr/bin", "/work", "/work/jobs", "/elsewhere"):
            started.add(path, type=tarfile.DIRTYPE)
        yield started


def likely(fake: Fake, workdir: str, *command: str) -> list[str]:
    fake.detail = {"Config": {"WorkingDir": workdir}, "Path": command[0], "Args": list(command[1:])}
    with find_container("trainer") as found:
        return likely_folders(found)


@pytest.mark.parametrize(
    ("workdir", "command", "folders"),
    [
        ("/work", ("python", "train.py"), ["/work"]),
        ("/", ("python", "/elsewhere/train.py"), ["/elsewhere"]),
        ("/", ("sh", "-c", "cd /work && exec python jobs/train.py"), ["/app", "/work"]),  # what cd does is not guessed
        ("/work", ("bash", "-c", "'jobs/run.sh' --fast; sleep 9"), ["/work"]),
        ("/elsewhere", ("/work/run.sh",), ["/elsewhere", "/work"]),
        ("/usr/bin", ("/usr/bin/python3",), ["/app", "/work"]),
    ],
)
def test_the_command_and_its_folder_say_where(
    workdir: str, command: tuple[str, ...], folders: list[str], fake: Fake
) -> None:
    assert likely(fake, workdir, *command) == folders


def test_what_is_mounted_comes_before_giving_up(fake: Fake) -> None:
    del fake.files["/app"]
    mount = {"Type": "bind", "Source": "/home/me/project", "Destination": "/elsewhere"}
    fake.detail = {"Config": {"WorkingDir": "/"}, "Path": "bash", "Args": [], "Mounts": [mount]}
    del fake.files["/work"]
    with find_container("trainer") as found:
        assert likely_folders(found) == ["/elsewhere"]


def test_a_container_that_tells_no_folder_has_to_be_told_one(fake: Fake) -> None:
    for path in ("/app", "/work"):
        del fake.files[path]
    with pytest.raises(UsageError, match="Name them"):
        likely(fake, "/", "bash")


def test_no_folder_is_read_twice() -> None:
    assert without_nested(["/a/b", "/a", "/ab", "/a/b/c", "/"]) == ["/"]
    assert without_nested(["/a/b", "/ab", "/a", "/a"]) == ["/a", "/ab"]
