"""What is in the way: who else looks after a container, whose /dev/shm it is, what it has written."""

from __future__ import annotations

from typing import Any

import pytest

from keepfed.recreate.changes import read_changes
from keepfed.recreate.difference import differences
from keepfed.recreate.managers import manager_of
from keepfed.recreate.obstacles import notes, obstacles, runs_inside
from keepfed.recreate.plan import hide, rows
from keepfed.recreate.podman import sysctls, unseen
from keepfed.recreate.spec import read_spec
from tests.recreate.described import answer, docker_like

GIB = 1 << 30


def in_the_way(others: tuple[dict[str, Any], ...] = (), **changes: Any) -> list[str]:
    container = docker_like(**changes)
    return [one.kind for one in obstacles(container, read_spec(container, {}).with_shm(GIB), others)]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"HostConfig__IpcMode": "shareable"}, []),
        ({"HostConfig__IpcMode": "host"}, ["ipc"]),
        ({"HostConfig__IpcMode": "none"}, ["ipc"]),
        ({"HostConfig__IpcMode": "container:other"}, ["ipc"]),
        ({"HostConfig__Tmpfs": {"/dev/shm/": "size=1g"}}, ["mount"]),
        ({"HostConfig__Binds": ["/dev/shm:/dev/shm"]}, ["mount"]),
        ({"HostConfig__AutoRemove": True}, ["auto_remove"]),
        ({"Config__Labels": {"com.docker.swarm.service.name": "s"}}, ["swarm"]),
        ({"Config__Labels": {"io.kubernetes.pod.name": "p"}}, ["kubernetes"]),
        ({"Config__Labels": {"PODMAN_SYSTEMD_UNIT": "u.service"}}, ["systemd"]),
    ],
)
def test_what_makes_a_size_pointless_or_the_way_back_impossible_is_in_the_way(
    changes: dict[str, Any], kinds: list[str]
) -> None:
    assert in_the_way(**changes) == kinds


@pytest.mark.parametrize(
    "host", [{"NetworkMode": "container:plain"}, {"PidMode": f"container:{'x' * 64}"}, {"VolumesFrom": ["plain:ro"]}]
)
def test_containers_that_lean_on_it_are_found(host: dict[str, Any]) -> None:
    other = {"Id": "o" * 64, "Name": "/side", "HostConfig": host}
    leans = "x" not in str(host)
    assert in_the_way((other,)) == (["dependents"] if leans else [])


def test_keepfed_does_not_end_the_container_that_it_runs_in() -> None:
    identity = "c" * 64
    folder = f"/var/lib/docker/containers/{identity}"
    inside = f"931 913 8:1 {folder}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw"
    on_host = f"931 913 0:52 / {folder}/mounts/shm rw,nosuid - tmpfs shm rw,size=65536k"
    assert runs_inside(identity, inside)
    assert not runs_inside(identity, on_host)
    spec = read_spec(docker_like(), {})
    assert [one.kind for one in obstacles(docker_like(), spec, (), itself=True)] == ["itself"]


def test_a_compose_service_is_left_to_compose_with_the_commands_for_it() -> None:
    labels = {
        "com.docker.compose.project": "vision",
        "com.docker.compose.service": "trainer",
        "com.docker.compose.project.working_dir": "/srv/my app",
        "com.docker.compose.project.config_files": "/srv/my app/compose.yaml,override.yaml",
    }
    manager = manager_of(docker_like(Config__Labels=labels), 2 * GIB, podman=False)
    assert manager is not None
    files = ["/srv/my app/compose.yaml", "/srv/my app/override.yaml"]
    assert manager.commands[0] == ("keepfed", "set", "shm_size=2g", *files, "--insert")
    expected = ("docker", "compose", "-p", "vision", "-f", files[0], "-f", files[1], "up", "-d", "trainer")
    assert manager.commands[1] == expected
    assert "'/srv/my app/compose.yaml'" in manager.next_step


def test_more_shared_memory_than_memory_is_worth_a_note() -> None:
    assert notes(read_spec(docker_like(HostConfig__Memory=GIB), {}).with_shm(2 * GIB))
    assert not notes(read_spec(docker_like(HostConfig__Memory=GIB), {}).with_shm(GIB))


def changed(*paths: str, mounted: tuple[str, ...] = (), podman: bool = False) -> Any:
    kinds = {"C": 0, "A": 1, "D": 2}
    raw = [{"Path": path[2:], "Kind": kinds[path[0]]} for path in paths]
    return read_changes(raw, mounted, podman=podman)


def test_what_never_matters_is_counted_and_not_listed() -> None:
    found = changed(
        "C /tmp",
        "A /tmp/x",
        "C /etc",
        "C /etc/hosts",
        "A /app/__pycache__/a.pyc",
        "A /data",
        "A /run/pid",
        mounted=("/data",),
    )
    assert not found
    assert found.noise == 5


def test_folders_are_told_by_what_changed_in_them() -> None:
    found = changed("C /root", "A /root/new", "A /root/new/file", "D /app/gone.py")
    assert [(one.kind, one.path) for one in found.listed] == [("deleted", "/app/gone.py"), ("added", "/root/new/file")]


def test_packages_are_told_by_name() -> None:
    site = "/usr/lib/python3.11/site-packages"
    found = changed(
        f"A {site}/numpy-2.0.dist-info/RECORD",
        f"A {site}/numpy-2.0.dist-info/METADATA",
        f"D {site}/torch-2.5.1.dist-info/RECORD",
        f"A {site}/torch-2.6.0+cu124.dist-info/RECORD",
        f"D {site}/six-1.0.egg-info",
        "A /var/lib/dpkg/info/libgl1:amd64.list",
        "A /opt/conda/conda-meta/ffmpeg-6.1-h1_0.json",
    )
    assert [(str(one), one.kind) for one in found.packages] == [
        ("ffmpeg 6.1 (conda)", "added"),
        ("libgl1 (dpkg)", "added"),
        ("numpy 2.0 (pip)", "added"),
        ("six 1.0 (pip)", "deleted"),
        ("torch 2.6.0+cu124 (pip)", "modified"),
    ]


def test_thousands_of_files_are_told_by_few_folders() -> None:
    found = changed(*(f"A /usr/lib/p{number}/deep/f" for number in range(300)))
    assert found.folders() == [("/usr/lib", 300)]


def test_podmans_own_user_files_are_no_changes() -> None:
    assert not changed("A /etc/passwd", "A /etc/group", podman=True)
    assert changed("C /etc/passwd", podman=True)


@pytest.mark.parametrize(
    ("change", "grave"),
    [({"Binds": []}, True), ({"Memory": 0}, False), ({"DeviceRequests": None}, True), ({"Runtime": "runc"}, False)],
)
def test_what_the_engine_passed_over_is_found(change: dict[str, Any], grave: bool) -> None:
    spec = read_spec(answer("docker"), answer("docker_image"))
    made = answer("docker")
    assert differences(spec, made, answer("docker_image")) == ((), ())
    made["HostConfig"] |= change
    serious, light = differences(spec, made, answer("docker_image"))
    assert (bool(serious), bool(light)) == (grave, not grave)


def test_a_command_in_another_order_is_another_command() -> None:
    spec = read_spec(docker_like(Config__Cmd=["a", "b"]), {})
    serious, _ = differences(spec, docker_like(Config__Cmd=["b", "a"]), {})
    assert [one.field for one in serious] == ["Config.Cmd"]


def test_variables_that_were_lost_are_named_without_their_values() -> None:
    spec = read_spec(docker_like(Config__Env=["TOKEN=s3cr3t"]), {})
    serious, _ = differences(spec, docker_like(), {})
    assert [one.field for one in serious] == ["Config.Env"]
    assert "s3cr3t" not in repr(serious)


def test_the_plan_shows_names_of_variables_and_no_passwords() -> None:
    spec = read_spec(
        docker_like(Config__Env=["TOKEN=s3cr3t"], Config__Cmd=["serve", "--api-key", "s3cr3t", "password=s3cr3t"]), {}
    )
    shown = repr(rows(spec))
    assert "TOKEN=***" in shown
    assert "s3cr3t" not in shown


def test_only_what_says_that_it_is_a_secret_is_hidden() -> None:
    assert hide({"max-size": "10m", "splunk-token": "x"}) == {"max-size": "10m", "splunk-token": "***"}
    assert hide(["--tokenizer", "bpe"]) == ["--tokenizer", "***"], "better too much than too little"


def test_what_only_podman_knows_is_named() -> None:
    native = {
        "Config": {"Annotations": {"a": "b", "io.container.manager": "libpod"}, "Umask": "0022", "Timezone": "UTC"},
        "HostConfig": {"LogConfig": {"Type": "k8s-file", "Size": "1MB", "Tag": ""}, "UsernsMode": ""},
    }
    assert [(one.field, one.value) for one in unseen(native)] == [
        ("Config.Timezone", "UTC"),
        ("HostConfig.LogConfig.Size", "1MB"),
        ("Config.Annotations.a", "b"),
    ]


def test_a_hardware_address_is_kept_unless_docker_made_it_of_the_address() -> None:
    def found(address: str, asked: str = "") -> Any:
        settings = {"MacAddress": address, "IPAddress": "172.17.0.2"}
        container = docker_like(NetworkSettings__Networks={"bridge": settings}, Config__MacAddress=asked)
        return read_spec(container, {}).endpoints[0].settings.get("MacAddress")

    assert found("02:42:ac:11:00:02") is None
    assert found("02:42:ac:11:00:02", asked="02:42:ac:11:00:02") == "02:42:ac:11:00:02"
    assert found("00:50:56:00:00:07") == "00:50:56:00:00:07"


def test_kernel_settings_are_read_from_what_the_runtime_was_told() -> None:
    told = {"linux": {"sysctl": {"net.ipv4.ping_group_range": "0 0", "net.core.somaxconn": "100"}}}
    assert sysctls(told) == {"net.core.somaxconn": "100"}
    assert sysctls({}) == {}
