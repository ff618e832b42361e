"""A spec as the words of `docker run`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from keepfed.recreate.flags import run_words
from keepfed.recreate.spec import read_spec
from tests.recreate.described import PODMAN_IMAGE, answer, docker_like


def said(**changes: Any) -> list[str]:
    """The options that one change brings."""
    plain = set(run_words(read_spec(docker_like(), {})).options)
    return [
        " ".join(option) for option in run_words(read_spec(docker_like(**changes), {})).options if option not in plain
    ]


@pytest.mark.parametrize(
    ("field", "value", "options"),
    [
        ("HostConfig__Memory", 3 << 29, ["--memory 1536m"]),
        ("HostConfig__MemorySwap", -1, ["--memory-swap -1"]),
        ("HostConfig__NanoCpus", 500_000_000, ["--cpus 0.5"]),
        ("HostConfig__Init", True, ["--init"]),
        ("HostConfig__Init", False, ["--init=false"]),
        ("HostConfig__PortBindings", {"53/udp": [{"HostIp": "", "HostPort": "53"}]}, ["--publish 53:53/udp"]),
        ("HostConfig__PortBindings", {"80/tcp": None}, ["--publish 80/tcp"]),
        ("HostConfig__DeviceRequests", [{"Count": -1, "Capabilities": [["gpu"]]}], ["--gpus all"]),
        ("HostConfig__DeviceRequests", [{"Count": 2, "Capabilities": [["gpu"]]}], ["--gpus count=2"]),
        (
            "HostConfig__DeviceRequests",
            [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}],
            ["--device nvidia.com/gpu=all"],
        ),
        (
            "HostConfig__LogConfig",
            {"Type": "local", "Config": {"max-file": "3"}},
            ["--log-driver local", "--log-opt max-file=3"],
        ),
        ("HostConfig__RestartPolicy", {"Name": "always", "MaximumRetryCount": 0}, ["--restart always"]),
        ("HostConfig__MaskedPaths", [], ["--security-opt systempaths=unconfined"]),
        ("HostConfig__IpcMode", "shareable", ["--ipc shareable"]),
        ("Config__Healthcheck", {"Test": ["NONE"]}, ["--no-healthcheck"]),
        ("Config__Healthcheck", {"Test": ["CMD", "curl", "a b"]}, ["--health-cmd curl 'a b'"]),
        ("Config__Labels", {"a": "b=c"}, ["--label a=b=c"]),
        ("Config__StopTimeout", 0, ["--stop-timeout 0"]),
    ],
)
def test_a_field_is_said_by_its_option(field: str, value: Any, options: list[str]) -> None:
    assert said(**{field: value}) == options


def test_an_entrypoint_of_several_words_runs_the_same_words() -> None:
    words = run_words(read_spec(docker_like(Config__Entrypoint=["tini", "--"], Config__Cmd=["a"]), {}))
    assert ("--entrypoint", "tini") in words.options
    assert words.command == ("--", "a")


def test_no_secret_is_among_the_words() -> None:
    words = run_words(read_spec(answer("docker"), answer("docker_image")))
    assert "s3cr3t" not in repr(words)


def test_what_the_command_line_cannot_say_is_named() -> None:
    words = run_words(read_spec(answer("docker"), answer("docker_image")))
    assert [one.field for one in words.uncarried] == ["HostConfig.KernelMemoryTCP"]


def test_further_networks_are_joined() -> None:
    assert run_words(read_spec(answer("docker"), answer("docker_image"))).joins == (("back",),)


class _Listener(BaseHTTPRequestHandler):
    """As much of an engine as `docker create` asks for; keeps the body of the request."""

    def _answer(self, body: bytes = b"") -> None:
        self.send_response(201 if self.command == "POST" else 200)
        for name, value in {"API-Version": "1.47", "OSType": "linux", "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        with contextlib.suppress(BrokenPipeError):  # it may have seen enough in the headers
            self.end_headers()
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer(b"{}")

    def do_POST(self) -> None:
        asked: Any = self.server
        asked.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b'{"Id": "made"}')

    def address_string(self) -> str:
        return "docker"

    def log_message(self, *_words: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_UNIX
    body: Any = None

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)


def created_by_docker(words: list[str], folder: Path) -> dict[str, Any]:
    """The body that Docker's own command makes of these words."""
    address: Any = str(folder / "d.sock")
    with _Server(address, _Listener) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            environment = {"DOCKER_HOST": f"unix://{address}", "HOME": str(folder), "PATH": os.environ["PATH"]}
            done = subprocess.run(
                ["docker", "create", *words], env=environment, capture_output=True, text=True, check=False
            )
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = server.body
    return found


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command here")
@pytest.mark.parametrize("name", ["docker", "docker_20", "podman"])
def test_dockers_own_command_asks_for_the_same_container(name: str, tmp_path: Path) -> None:
    image = PODMAN_IMAGE if name == "podman" else answer(f"{name}_image")
    spec = read_spec(answer(name), image)
    words = run_words(spec)
    said = [word for option in words.options for word in option]
    body = created_by_docker([*said, "--name", spec.name, "image", *words.command], tmp_path)
    unsaid = {one.field for one in words.uncarried} | {"HostConfig.ReadonlyPaths", "HostConfig.MaskedPaths"}
    for prefix, wanted, got in (("HostConfig", spec.host, body["HostConfig"]), ("Config", spec.config, body)):
        for field, value in wanted.items():
            if f"{prefix}.{field}" not in unsaid and field not in ("Env", "Labels"):
                found, wish = plain(got.get(field)), plain(value)
                if field == "Binds":  # that command keeps them in a map, without an order
                    found, wish = sorted(found), sorted(wish)
                assert found == wish, field
    assert {**body["Labels"]} == {**spec.config.get("Labels", {})}
    first = spec.endpoints[0] if spec.endpoints else None
    if first is not None and first.settings:
        asked_for = body["NetworkingConfig"]["EndpointsConfig"][first.network]
        assert {field: asked_for[field] for field in first.settings} == first.settings


_SYNONYMS = {"default": "bridge", "SYS_PTRACE": "CAP_SYS_PTRACE", "MKNOD": "CAP_MKNOD"}


def plain(value: Any) -> Any:
    """Without what says nothing."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if one not in (None, "", 0, [], {}, False)}
    return [plain(one) for one in value] if isinstance(value, list) else _SYNONYMS.get(str(value), value)
