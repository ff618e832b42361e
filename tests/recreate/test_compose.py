"""A spec as a compose file."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from keepfed.recreate.compose import compose_document, compose_file
from keepfed.recreate.composed import place_of
from keepfed.recreate.spec import read_spec
from tests.recreate.described import answer, docker_like


def service(**changes: Any) -> dict[str, Any]:
    document, _ = compose_document(read_spec(docker_like(**changes), {}), "")
    found: dict[str, Any] = document["services"]["plain"]
    return found


def test_the_whole_of_dockers_answer_is_said_or_named() -> None:
    spec = read_spec(answer("docker"), answer("docker_image")).with_shm(2 << 30)
    text, left = compose_file(spec, "trainer.env")
    found = yaml.safe_load(text)
    one = found["services"]["trainer"]
    assert one["shm_size"] == "2g"
    assert one["env_file"] == ["trainer.env"]
    assert one["labels"] == {"team": "vision $$5"}, "compose would replace $5"
    assert one["networks"]["front"] == {
        "aliases": ["model"],
        "ipv4_address": "172.18.0.9",
        "mac_address": "02:42:ac:12:00:09",
    }
    assert found["networks"]["back"] == {"external": True, "name": "back"}
    assert found["volumes"].keys() == {"models", "9d" * 32, "5e" * 32}
    reserved = one["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"device_ids": ["0", "2"], "capabilities": ["utility", "gpu"]}]
    assert one["devices"] == ["/dev/fuse:/dev/fuse:rwm", "nvidia.com/gpu=1"] or one["devices"] == [
        "nvidia.com/gpu=1",
        "/dev/fuse:/dev/fuse:rwm",
    ]
    named = {uncarried.field for uncarried in left}
    assert named == {"HostConfig.CpusetMems", "HostConfig.KernelMemoryTCP", "HostConfig.PublishAllPorts"}
    assert "s3cr3t" not in text


def test_a_container_on_the_default_network_stays_there() -> None:
    assert service()["network_mode"] == "bridge"
    assert service(HostConfig__NetworkMode="host", NetworkSettings__Networks={"host": {}})["network_mode"] == "host"


def test_a_check_without_a_shell_stays_without_one() -> None:
    assert service(Config__Healthcheck={"Test": ["CMD", "a b"], "Retries": 2})["healthcheck"] == {
        "test": ["CMD", "a b"],
        "retries": 2,
    }


def test_an_entrypoint_that_was_taken_away_is_said() -> None:
    spec = read_spec(docker_like(Config__Entrypoint=None), {"Config": {"Entrypoint": ["x"]}})
    document, _ = compose_document(spec, "")
    assert document["services"]["plain"]["entrypoint"] == []


def test_hidden_paths_that_were_opened_stay_open() -> None:
    assert service(HostConfig__MaskedPaths=[], HostConfig__ReadonlyPaths=[])["security_opt"] == [
        "systempaths=unconfined"
    ]


COMPOSE = "services:\n  db:\n    shm_size: 128m\n  web:\n    image: x\n"


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"a.yaml": COMPOSE}, ("a.yaml", 4)),
        ({"a.yaml": COMPOSE + "    shm_size: 64m\n"}, ("a.yaml", 6)),
        ({"a.yaml": COMPOSE + "    shm_size: 64m\n", "b.yaml": "services: {web: {shm_size: 1g}}"}, ("b.yaml", 1)),
        ({"a.yaml": COMPOSE + "    shm_size: 64m\n", "b.yaml": "services: {web: {image: y}}"}, ("a.yaml", 6)),
        ({"a.yaml": "services: [", "b.yaml": None}, None),
        ({"a.yaml": "services: {db: 1}"}, None),
    ],
)
def test_the_line_of_a_service_is_found_in_its_compose_files(files: dict[str, str | None], place: Any) -> None:
    assert place_of("web", list(files), files.get) == place
