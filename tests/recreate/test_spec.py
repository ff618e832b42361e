"""What is read from an engine's answer, and that nothing in it is passed over without a decision."""

from __future__ import annotations

from typing import Any

import pytest

from keepfed.recreate.fields import CONFIG, ENDPOINT, HOST, TOP, Fate
from keepfed.recreate.request import create_body
from keepfed.recreate.spec import ContainerSpec, looks_like_podman, read_spec
from tests.recreate.described import PODMAN_IMAGE, answer, docker_like

GIB = 1 << 30


@pytest.fixture
def docker() -> ContainerSpec:
    return read_spec(answer("docker"), answer("docker_image"))


@pytest.fixture
def podman() -> ContainerSpec:
    return read_spec(answer("podman"), PODMAN_IMAGE)


@pytest.mark.parametrize("name", ["docker", "docker_20", "podman"])
def test_every_field_of_an_answer_has_its_row(name: str) -> None:
    found = answer(name)
    assert set(found) - set(TOP) == set()
    assert set(found["HostConfig"]) - set(HOST) == set()
    assert set(found["Config"]) - set(CONFIG) == set()
    for settings in found["NetworkSettings"]["Networks"].values():
        assert set(settings) - set(ENDPOINT) == set()


def test_every_carried_field_of_dockers_answer_reaches_the_engine_again(docker: ContainerSpec) -> None:
    found, body = answer("docker"), create_body(docker)
    says_nothing: tuple[Any, ...] = (None, "", 0, False, [], {})
    for name, value in found["HostConfig"].items():
        if HOST[name].fate is Fate.CARRIED and (value not in says_nothing or HOST[name].zero_counts):
            assert name in body["HostConfig"], name
    changed = {"Binds", "Links", "Mounts"}
    assert {name: body["HostConfig"][name] for name in body["HostConfig"] if name not in changed} == {
        name: found["HostConfig"][name] for name in body["HostConfig"] if name not in changed
    }


def test_volumes_without_a_name_keep_their_data(docker: ContainerSpec) -> None:
    assert f"{'9d' * 32}:/root/.cache" in docker.host["Binds"]
    scratch = next(mount for mount in docker.host["Mounts"] if mount["Target"] == "/scratch")
    assert scratch["Source"] == "5e" * 32
    assert "Volumes" not in docker.config


def test_what_the_image_brings_is_left_out(docker: ContainerSpec) -> None:
    assert docker.environment == (
        "TOKEN=s3cr3t",
        "GREETING=two words",
        "KEY=-----BEGIN-----\nabc\n-----END-----",
        "LANG",  # taken away from the image's
    )
    assert docker.config["Labels"] == {"team": "vision $5"}
    assert "WorkingDir" not in docker.config
    assert docker.command == (None, ["python", "serve.py", "--port", "8080"])
    assert set(docker.config["ExposedPorts"]) == {"8080/tcp", "9090/tcp", "6006/tcp"}


def test_networks_keep_what_was_asked_for_and_nothing_that_was_given(docker: ContainerSpec) -> None:
    front, back = docker.endpoints
    assert (front.network, back.network) == ("front", "back")
    assert front.settings == {
        "Aliases": ["model"],
        "IPAMConfig": {"IPv4Address": "172.18.0.9"},
        "MacAddress": "02:42:ac:12:00:09",
    }
    assert back.settings == {}
    assert create_body(docker)["NetworkingConfig"] == {"EndpointsConfig": {"front": front.settings}}


def test_a_port_that_the_engine_chose_is_named(docker: ContainerSpec) -> None:
    assert [(one.field, one.value) for one in docker.uncarried] == [("HostConfig.PortBindings.9090/tcp", "49153")]


def test_links_are_spelled_as_they_were_asked_for(docker: ContainerSpec) -> None:
    assert docker.host["Links"] == ["db:sql"]


def test_podmans_own_words_for_nothing_are_not_carried(podman: ContainerSpec) -> None:
    assert podman.podman
    absent = {"PidMode", "UTSMode", "Runtime", "MemorySwappiness", "CpuQuota", "CpuPeriod", "LogConfig"}
    assert absent & set(podman.host) == set()
    assert podman.environment == ("A=1", "B=two words")
    assert podman.host["Ulimits"] == [{"Name": "nofile", "Soft": 512, "Hard": 1024}]
    assert podman.host["NetworkMode"] == "bridge"
    assert [endpoint.settings for endpoint in podman.endpoints] == [{}]


def test_podman_calls_every_network_a_bridge() -> None:
    raw = answer("podman")
    raw["NetworkSettings"]["Networks"] = {"mine": {"Aliases": ["web", raw["Id"][:12]]}}
    found = read_spec(raw, PODMAN_IMAGE)
    assert found.host["NetworkMode"] == "mine"
    assert found.endpoints[0].aliases == ["web"]


@pytest.mark.parametrize(
    ("entrypoint", "command", "image_entrypoint", "image_command", "expected"),
    [
        (["run"], ["a"], ["run"], ["a"], (None, None)),
        (["run"], ["b"], ["run"], ["a"], (None, ["b"])),
        (["go"], ["a"], ["run"], ["a"], (["go"], ["a"])),
        (["go"], None, ["run"], ["a"], (["go"], [])),
        (None, ["b"], ["run"], ["a"], ([], ["b"])),
        ([""], ["b"], ["run"], None, ([], ["b"])),
        ([], ["b"], None, None, (None, ["b"])),
        ("sh -c", ["b"], None, None, (["sh", "-c"], ["b"])),
    ],
)
def test_entrypoint_and_command_are_said_where_they_differ_from_the_images(
    entrypoint: Any, command: Any, image_entrypoint: Any, image_command: Any, expected: Any
) -> None:
    container = docker_like(Config__Entrypoint=entrypoint, Config__Cmd=command)
    image = {"Config": {"Entrypoint": image_entrypoint, "Cmd": image_command}}
    assert read_spec(container, image).command == expected


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"HostConfig__UTSMode": "host", "Config__Hostname": "node7"},
        {"HostConfig__NetworkMode": "container:db", "Config__Hostname": "db"},
    ],
)
def test_a_host_name_that_nobody_gave_is_left_to_the_engine(changes: dict[str, Any]) -> None:
    assert "Hostname" not in read_spec(docker_like(**changes), {}).config


def test_a_host_name_that_was_given_is_kept() -> None:
    assert read_spec(docker_like(Config__Hostname="node7"), {}).config["Hostname"] == "node7"


def test_a_field_that_nobody_knows_yet_goes_to_the_engine_as_it_is() -> None:
    assert read_spec(docker_like(HostConfig__Quantum={"spin": 1}), {}).host["Quantum"] == {"spin": 1}


def test_explicit_zeros_are_wishes() -> None:
    found = read_spec(docker_like(HostConfig__Init=False, HostConfig__MemorySwappiness=0, Config__StopTimeout=0), {})
    assert (found.host["Init"], found.host["MemorySwappiness"], found.config["StopTimeout"]) == (False, 0, 0)


def test_the_images_health_check_is_left_to_the_image_and_known() -> None:
    check = {"Test": ["CMD", "true"], "Interval": 10**9}
    found = read_spec(docker_like(Config__Healthcheck=check), {"Config": {"Healthcheck": check}})
    assert "Healthcheck" not in found.config
    assert found.check == ("CMD", "true")


def test_only_the_size_changes(docker: ContainerSpec) -> None:
    before, after = create_body(docker), create_body(docker.with_shm(2 * GIB))
    assert after["HostConfig"].pop("ShmSize") == 2 * GIB
    assert before["HostConfig"].pop("ShmSize") == 64 << 20
    assert before == after


def test_nothing_is_added_to_what_docker_20_was_asked_for() -> None:
    """`docker run` of that container, option by option."""
    found = read_spec(answer("docker_20"), answer("docker_20_image"))
    assert not found.podman
    assert found.command[0] is None
    assert found.environment == ("TOKEN=s3cret", "B=two words")
    assert found.config["Labels"] == {"x": "y"}
    assert "ExposedPorts" not in found.config, "the image's"
    assert sorted(mount.rpartition(":")[2] for mount in found.host["Binds"]) == ["/anon", "/imgvol", "/named", "ro"]
    assert set(found.host) == {
        *("Binds", "CapAdd", "CapDrop", "CgroupnsMode", "Devices", "ExtraHosts", "GroupAdd", "IpcMode", "LogConfig"),
        *("MaskedPaths", "Memory", "MemorySwap", "Mounts", "NanoCpus", "NetworkMode", "OomScoreAdj", "PidsLimit"),
        *("ReadonlyPaths", "RestartPolicy", "Runtime", "SecurityOpt", "ShmSize", "Tmpfs", "Ulimits"),
    }


def test_podmans_grace_period_is_carried_since_none_would_mean_none() -> None:
    raw = answer("podman")
    raw["Config"]["StopTimeout"] = 10
    assert read_spec(raw, PODMAN_IMAGE).config["StopTimeout"] == 10


def test_the_engine_is_known_by_its_paths() -> None:
    assert looks_like_podman(answer("podman"))
    assert not looks_like_podman(answer("docker"))
