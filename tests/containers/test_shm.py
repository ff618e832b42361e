"""`keepfed shm` on real containers: a size that is too small is found, with who fills it, running or not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keepfed.cli.main import main
from tests.containers.rig import Rig

# A process of the container with a segment that has no name any more, as torch makes them.
FILLS = "dd if=/dev/zero of=/dev/shm/torch_9_1_0 bs=1048576 count=3; exec 9< /dev/shm/torch_9_1_0; rm /dev/shm/torch_9_1_0; sleep 500"


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["shm", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_the_default_size_is_too_small_for_workers_and_recreating_is_the_way_out(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    with rig.container(name="trainer", shm_size="64m"):
        code, answer = asked(capsys, "--container", "trainer", "--num-workers", "4")
    assert (code, answer["verdict"], answer["size_bytes"]) == (1, "too_small", 64 << 20)
    assert answer["subject"] == {"kind": "container", "name": "trainer", "runs_in": "container"}
    assert "keepfed recreate trainer --shm-size 2g" in answer["ways"][0]["text"]


def test_segments_without_a_name_are_found_inside_a_container(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.container("sh", "-c", FILLS, name="full", shm_size="4m") as name:
        while "torch" in rig.sh(name, "ls /dev/shm") or "sleep 500" not in rig.sh(name, "ps"):
            pass
        assert rig.sh(name, "ls /dev/shm") == ""
        code, answer = asked(capsys, "--container", "full", "--num-workers", "1")
    assert (code, answer["travel"]) == (1, "seen")
    assert answer["used_bytes"] == answer["unlinked_bytes"] == 3 << 20
    assert [(holder["unlinked"], holder["torch_bytes"]) for holder in answer["holders"]] == [(1, 3 << 20)]
    assert answer["holders"][0]["command"] == "sleep 500"


def test_enough_is_enough(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.container(name="roomy", shm_size="3g"):
        code, answer = asked(capsys, "--container", "roomy", "--num-workers", "4")
    assert (code, answer["verdict"], answer["ways"]) == (0, "enough", [])


def test_a_stopped_container_is_judged_by_the_size_that_it_will_have(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    with rig.container("true", name="done", shm_size="32m") as name:
        rig.api.wait(name)
        code, answer = asked(capsys, "--container", name, "--num-workers", "2")
    assert (code, answer["size_bytes"], answer["used_bytes"]) == (1, 32 << 20, None)
    assert "does not run" in answer["notes"][0]


def test_the_hosts_dev_shm_is_not_blamed_on_the_container(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.container(name="sharing", ipc_mode="host"):
        _, answer = asked(capsys, "--container", "sharing", "--num-workers", "4")
    assert answer["subject"]["runs_in"] == "host"
    assert "--shm-size does nothing" in answer["notes"][0]


def test_a_compose_service_is_sent_to_its_compose_file(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"com.docker.compose.project": "p", "com.docker.compose.service": "trainer"}
    with rig.container(name="p-trainer-1", labels=labels, shm_size="64m"):
        _, answer = asked(capsys, "--container", "p-trainer-1", "--num-workers", "4")
    assert "shm_size: 2g" in answer["ways"][0]["text"]
