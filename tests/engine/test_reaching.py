"""Where an engine is looked for, and what is said when none can be reached: each cause has a way out of its own."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepfed.engine import addresses as module
from keepfed.engine.addresses import Address, addresses, nothing_listens, why_not
from keepfed.engine.client import engines
from keepfed.engine.picking import Listed, pick
from keepfed.errors import UnreachableError, UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are named pipes there")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="keepfed-sock-") as name:
        yield Path(name)


def urls(environ: dict[str, str], home: Path) -> list[str]:
    return [address.url for address in addresses(environ, home)]


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "CONTAINER_HOST"])
def test_an_address_that_was_named_is_the_only_one(variable: str, folder: Path) -> None:
    assert addresses({variable: "tcp://box:2375"}, folder) == [Address("tcp://box:2375", variable)]


def test_the_usual_sockets_are_looked_for_also_those_of_rootless_engines(folder: Path) -> None:
    found = urls({"XDG_RUNTIME_DIR": "/run/user/7"}, folder)
    assert found[0] == "unix:///var/run/docker.sock"
    assert {
        "unix:///run/user/7/docker.sock",
        "unix:///run/user/7/podman/podman.sock",
        "unix:///run/podman/podman.sock",
    } <= set(found)


def test_the_docker_context_in_use_comes_before_them(folder: Path) -> None:
    meta = folder / ".docker" / "contexts" / "meta" / hashlib.sha256(b"rootless").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": "unix:///run/user/7/docker.sock"}}}))
    (folder / ".docker" / "config.json").write_text(json.dumps({"currentContext": "rootless"}))
    first = addresses({}, folder)[0]
    assert (first.url, first.source) == ("unix:///run/user/7/docker.sock", "docker context rootless")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"currentContext": "gone"}'])
def test_a_broken_docker_configuration_is_no_obstacle(text: str, folder: Path) -> None:
    (folder / ".docker").mkdir()
    (folder / ".docker" / "config.json").write_text(text)
    assert addresses({}, folder)[0].url == "unix:///var/run/docker.sock"


def test_a_socket_that_is_not_there_and_one_on_which_nobody_listens_are_told_apart(folder: Path) -> None:
    path = folder / "docker.sock"
    assert why_not(Address(f"unix://{path}", ""))[0] == f"There is no engine's socket at {path}."
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    message, next_step = why_not(Address(f"unix://{path}", ""))
    assert "nobody listens" in message
    assert "Start the engine" in next_step


def test_a_socket_of_another_group_is_told_with_the_group(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        monkeypatch.setattr(module, "_knock", lambda _path: PermissionError(13, "Permission denied"))
        message, next_step = why_not(Address(f"unix://{path}", ""))
    import grp

    group = grp.getgrgid(path.stat().st_gid).gr_name
    assert f"the group {group}" in message
    assert f"usermod -aG {group}" in next_step


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_is_really_refused(folder: Path) -> None:
    folder.chmod(0o755)
    path = folder / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        os.seteuid(65534)
        try:
            message, _ = why_not(Address(f"unix://{path}", ""))
        finally:
            os.seteuid(0)
    assert message.startswith("No permission to use the engine's socket")


def test_nothing_installed_and_something_asleep_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: set[str] = set()
    monkeypatch.setattr("shutil.which", lambda name: name if name in installed else None)
    assert "neither Docker nor Podman is installed" in nothing_listens()[0]
    installed.add("podman")
    assert "systemctl --user start podman.socket" in nothing_listens()[1]
    installed.add("dockerd")
    assert "Docker is installed" in nothing_listens()[0]


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:9", "nonsense://x", "tcp://"])
def test_an_address_that_cannot_be_used_is_told_with_who_named_it(url: str, folder: Path) -> None:
    with pytest.raises(UnreachableError, match="DOCKER_HOST: No engine answers"):
        engines({"DOCKER_HOST": url}, folder)


LISTED = [
    Listed("ab1" + "0" * 61, ("trainer",), "img", "running", "trainer"),
    Listed("ab2" + "0" * 61, ("proj-web-1",), "img", "exited", "web"),
]


@pytest.mark.parametrize(("wanted", "name"), [("trainer", "trainer"), ("/trainer", "trainer"), ("ab2", "proj-web-1")])
def test_a_container_is_picked_by_name_or_unique_beginning(wanted: str, name: str) -> None:
    assert pick(wanted, LISTED).name == name


@pytest.mark.parametrize(
    ("wanted", "kind", "told"),
    [
        ("ab", UsageError, "several"),
        ("trianer", UnreachableError, "Did you mean trainer"),
        ("web", UnreachableError, "Did you mean proj-web-1"),
        ("zzz", UnreachableError, "There are: trainer (running), proj-web-1 (exited)"),
        ("", UsageError, "empty"),
    ],
)
def test_what_cannot_be_picked_is_answered_with_what_there_is(wanted: str, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind) as error:
        pick(wanted, LISTED)
    assert told in str(error.value)
