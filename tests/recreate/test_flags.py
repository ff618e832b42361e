"""A spec as the words of `docker run`."""

from __future__ import annotations

import shutil
import subprocess
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


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command here")
@pytest.mark.parametrize("name", ["docker", "podman"])
def test_dockers_own_command_knows_every_option(name: str) -> None:
    """It parses all of them before it looks for an engine, of which there is none; what devices mean it would ask the engine."""
    asks_engine = {"--device", "--gpus"}
    spec = read_spec(answer(name), answer("docker_image") if name == "docker" else PODMAN_IMAGE)
    words = [word for option in run_words(spec).options for word in option if option[0] not in asks_engine]
    environment = {
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/nonexistent",
    }
    done = subprocess.run(
        ["docker", "create", *words, "image"], env=environment, capture_output=True, text=True, check=False
    )
    assert "nonexistent" in done.stderr, done.stderr
    assert "unknown flag" not in done.stderr
