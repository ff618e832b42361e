"""Recreating real containers: the size, what is carried over, and the way back."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keepfed.cli.main import main
from tests.containers.rig import IMAGE, Rig

MIB, GIB = 1 << 20, 1 << 30
SERVE = (
    'mkdir -p /tmp/www; echo "{\\"ready\\": true, \\"n\\": 1}" > /tmp/www/ok.json; exec httpd -f -p {port} -h /tmp/www'
)
READY = '{"ready": true}'


MANY: dict[str, Any] = {
    "binds": ["/usr/share:/shared:ro"],
    "cap_add": ["SYS_PTRACE"],
    "cap_drop": ["MKNOD"],
    "devices": ["/dev/null:/dev/nothing"],
    "extra_hosts": {"store": "10.0.0.9"},
    "group_add": ["20"],
    "nano_cpus": 1_500_000_000,
    "oom_score_adj": 100,
    "pids_limit": 100,
    "restart_policy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "security_opt": ["no-new-privileges"],
    "sysctls": {"kernel.msgmax": "12345"},
    "tmpfs": {"/scratch": "size=1m"},
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def service(rig: Rig, name: str, **settings: Any) -> Iterator[str]:
    """A small web service with 64 MB of shared memory, an unnamed volume and a secret; yields its URL."""
    port = free_port()
    host = {"network_mode": "host", "shm_size": "64m", "init": True, "mem_limit": "256m", **settings}
    body = rig.api.create_host_config(**host)
    rig.api.create_container(
        IMAGE,
        ["sh", "-c", SERVE.replace("{port}", str(port))],
        name=name,
        host_config=body,
        volumes=["/cache"],
        environment={"TOKEN": "s3cr3t", "GREETING": "two words"},
        labels={"team": "vision $5"},
    )
    try:
        rig.api.start(name)
        rig.sh(name, "echo kept > /cache/data")
        yield f"http://127.0.0.1:{port}/ok.json"
    finally:
        for one in rig.api.containers(all=True, filters={"name": name}):
            rig.remove(one["Id"])


def names(rig: Rig) -> list[str]:
    return sorted(name for one in rig.api.containers(all=True) for name in one["Names"])


def shm(rig: Rig, name: str) -> int:
    size: int = rig.api.inspect_container(name)["HostConfig"]["ShmSize"]
    return size


def test_a_container_with_64_mb_gets_2_gb_and_keeps_everything_else(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(rig, "trainer", **MANY) as url:
        before = rig.api.inspect_container("trainer")
        words = [
            "recreate",
            "trainer",
            "--shm-size",
            "2g",
            "--health",
            url,
            "--expect",
            READY,
            "--timeout",
            "60",
            "--json",
        ]
        assert main(words) == 0
        report = json.loads(capsys.readouterr().out)
        after = rig.api.inspect_container("trainer")
        assert report["verified"] == {"inspect": 2 * GIB, "inside": 2 * GIB}
        assert after["Id"] == report["id"]["after"] != before["Id"]
        inside = rig.sh("trainer", "cat /cache/data; echo $TOKEN; cat /proc/sys/kernel/msgmax; ls /dev/nothing")
        assert inside == "kept\ns3cr3t\n12345\n/dev/nothing\n"
        assert names(rig) == ["/trainer"]
        moving = {"ShmSize"}
        for name in before["HostConfig"]:
            if name not in moving:
                assert after["HostConfig"][name] == before["HostConfig"][name], name
        assert after["Config"]["Labels"] == {"team": "vision $5"}
        assert sorted(after["Config"]["Env"]) == sorted(before["Config"]["Env"])
        assert main(["recreate", "trainer", "--shm-size", "2g"]) == 0, "it has that size by now"
        assert rig.api.inspect_container("trainer")["Id"] == after["Id"]


def test_a_failing_health_check_brings_the_old_one_back(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with service(rig, "trainer") as url:
        identity = rig.api.inspect_container("trainer")["Id"]
        words = [
            "recreate",
            "trainer",
            "--shm-size",
            "2g",
            "--health",
            url,
            "--expect",
            '{"ready": false}',
            "--timeout",
            "1",
            "--json",
        ]
        assert main(words) == 1
        said = capsys.readouterr()
        assert "in its place again" in said.err
        assert json.loads(said.out)["outcome"] == "rolled_back"
        now = rig.api.inspect_container("trainer")
        assert (now["Id"], now["State"]["Running"]) == (identity, True)
        assert names(rig) == ["/trainer"]
        assert rig.sh("trainer", "cat /cache/data") == "kept\n"


def test_a_new_one_that_ends_is_replaced_by_the_old_one_with_its_last_words(
    rig: Rig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What it needs was there when it was first started, and is gone."""
    flag = tmp_path / "flag"
    flag.touch()
    command = "test -e /flags/flag && exec sleep 1000; echo no flag here; exit 7"
    with rig.container("sh", "-c", command, name="fragile", binds=[f"{tmp_path}:/flags"]) as name:
        while "sleep 1000" not in rig.sh(name, "ps"):
            pass  # it has not looked for the flag yet
        flag.unlink()
        code = main(["recreate", name, "--shm-size", "1g"])
        err = capsys.readouterr().err
        assert code == 1
        assert "exit code 7" in err
        assert "no flag here" in err
        assert shm(rig, name) != GIB


def test_what_was_written_inside_is_refused_and_then_kept(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with service(rig, "trainer") as url:
        record = "/usr/lib/python3/site-packages/numpy-1.26.4.dist-info"
        rig.sh("trainer", f"mkdir -p {record}; echo > {record}/RECORD; echo note > /root/note; echo > /tmp/x")
        assert main(["recreate", "trainer", "--shm-size", "1g"]) == 1
        err = capsys.readouterr().err
        assert "numpy 1.26.4 (pip)" in err
        assert "/root/note" in err
        assert "/tmp/x" not in err
        image = "localhost/kept-trainer:1"
        assert main(["recreate", "trainer", "--shm-size", "1g", "--commit", IMAGE]) == 2, "that name is taken"
        try:
            assert main(["recreate", "trainer", "--shm-size", "1g", "--commit", image, "--health", url]) == 0
            assert rig.sh("trainer", "cat /root/note; echo $TOKEN") == "note\ns3cr3t\n"
            assert "s3cr3t" not in json.dumps(rig.api.inspect_image(image))
            assert shm(rig, "trainer") == GIB
            rig.sh("trainer", "echo > /root/more")
            assert main(["recreate", "trainer", "--shm-size", "512m", "--discard-changes", "--health", url]) == 0
            assert rig.sh("trainer", "ls /root") == "note\n"
        finally:
            rig.remove("trainer")
            rig.api.remove_image(image, force=True)


def test_the_script_does_the_same(rig: Rig, tmp_path: Path) -> None:
    """With Docker's own command where there is one, else with Podman's, which takes the same words."""
    words = f"docker -H {rig.host}" if shutil.which("docker") else f"podman --remote --url {rig.host}"
    file = tmp_path / "again.sh"
    with service(rig, "trainer") as url:
        asked = ["recreate", "trainer", "--shm-size", "1g", "--script", str(file), "--health", url, "--expect", READY]
        assert main([*asked, "--timeout", "60"]) == 0
        assert [oct(path.stat().st_mode & 0o777) for path in (file, tmp_path / "again.env")] == ["0o700", "0o600"]
        assert "s3cr3t" not in file.read_text(encoding="utf-8")
        done = run(file, words)
        assert done.returncode == 0, done.stderr
        assert "1.0G" in done.stdout
        assert shm(rig, "trainer") == GIB
        assert rig.sh("trainer", "cat /cache/data; echo $TOKEN $GREETING") == "kept\ns3cr3t two words\n"
        assert run(file, words).returncode == 2, "the container that it describes is gone"


def test_the_script_goes_back_too(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "again.sh"
    with service(rig, "trainer") as url:
        identity = rig.api.inspect_container("trainer")["Id"]
        asked = ["recreate", "trainer", "--shm-size", "1g", "--script", str(file), "--health", url, "--expect", "[]"]
        assert main([*asked, "--timeout", "1"]) == 0
        assert run(file, f"podman --remote --url {rig.host}").returncode == 1
        now = rig.api.inspect_container("trainer")
        assert (now["Id"], now["State"]["Running"]) == (identity, True)
        assert names(rig) == ["/trainer"]


def test_ctrl_c_while_waiting_brings_the_old_one_back(rig: Rig) -> None:
    with service(rig, "trainer") as url:
        identity = rig.api.inspect_container("trainer")["Id"]
        words = ["recreate", "trainer", "--shm-size", "2g", "--health", url, "--expect", "[]", "--timeout", "100"]
        with subprocess.Popen([sys.executable, "-m", "keepfed", *words], stderr=subprocess.PIPE, text=True) as running:
            assert running.stderr is not None
            for line in running.stderr:
                if "waiting until" in line:
                    break
            running.send_signal(2)
            running.communicate(timeout=50)
        assert running.returncode == 130
        now = rig.api.inspect_container("trainer")
        assert (now["Id"], now["State"]["Running"]) == (identity, True)
        assert names(rig) == ["/trainer"]


def test_a_stopped_container_is_not_exchanged_and_can_be_written_down(
    rig: Rig, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with rig.container("true", name="done") as name:
        rig.api.wait(name)
        assert main(["recreate", name, "--shm-size", "1g"]) == 3
        assert "does not run" in capsys.readouterr().err
        assert main(["recreate", name, "--shm-size", "1g", "--compose", str(tmp_path / "compose.yaml")]) == 0
        assert "shm_size: 1g" in (tmp_path / "compose.yaml").read_text(encoding="utf-8")


def test_a_compose_service_goes_through_its_file(rig: Rig, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services:\n  db: {}\n  web:\n    image: x\n    shm_size: 64m\n", encoding="utf-8")
    labels = {"project": "p", "service": "web", "project.config_files": str(file)}
    with rig.container(labels={f"com.docker.compose.{name}": value for name, value in labels.items()}) as name:
        identity = rig.api.inspect_container(name)["Id"]
        assert main(["recreate", name, "--shm-size", "2g"]) == 1
        err = capsys.readouterr().err
        assert f"keepfed set shm_size=2g --site {file}:5 {file} --insert" in err
        assert f"docker compose -p p -f {file} up -d web" in err
        assert rig.api.inspect_container(name)["Id"] == identity


def test_dependents_stop_it(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.container(name="main") as main_name, rig.container(name="side", ipc_mode=f"container:{main_name}"):
        assert main(["recreate", "main", "--shm-size", "1g"]) == 1
        assert "side" in capsys.readouterr().err
        assert main(["recreate", "side", "--shm-size", "1g"]) == 1
        assert "--ipc container" in capsys.readouterr().err


def run(file: Path, command: str) -> subprocess.CompletedProcess[str]:
    """The script, with the words that talk to the tests' engine."""
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "DOCKER": command,
        "HOME": "/root",
    }
    return subprocess.run(["sh", str(file)], env=environment, capture_output=True, text=True, check=False, timeout=100)
