"""A container engine of the tests' own: a Podman service that speaks Docker's API on a socket in a temporary folder.

Storage, settings and networks lie in that folder too, so nothing of the machine's own containers is seen or touched. The image
is one busybox, imported from a folder: no registry is asked.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from tests.containers.podman import NoEngine, settings

IMAGE = "localhost/keepfed-rig:latest"
BUSYBOX = "/bin/busybox"
_COMMANDS = (
    *("sh", "df", "cat", "grep", "sed", "sleep", "ls", "ps", "test", "mv", "cp", "rm", "mkdir", "touch", "echo", "env"),
    *(
        "id",
        "kill",
        "head",
        "tail",
        "wc",
        "httpd",
        "wget",
        "stat",
        "true",
        "false",
        "ln",
        "chmod",
        "chown",
        "dd",
        "find",
        "tail",
    ),
)
_START_S = 60.0
_IDLE_S = 1800
"""The service ends by itself after so long without a client, should the tests be killed before they could end it."""


@dataclass(slots=True)
class Rig:
    """A running engine. Make it with `Rig.started`."""

    folder: Path
    environment: dict[str, str]
    service: subprocess.Popen[bytes]
    api: Any = field(init=False)
    _names: Iterator[int] = field(default_factory=lambda: iter(range(1, 1 << 30)))

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Rig]:
        """An engine with the image, ended afterwards with everything that it started. Raises NoEngine."""
        if sys.platform != "linux" or os.geteuid() != 0:
            raise NoEngine("a podman service of one's own needs root on Linux")
        if not os.access(BUSYBOX, os.X_OK):
            raise NoEngine(f"there is no {BUSYBOX} to make an image of")
        environment = settings(folder, apart=True)
        podman = _podman(folder)
        try:
            _import(podman, environment, folder)
            with open(folder / "service.log", "wb") as log:
                service = subprocess.Popen(
                    [*podman, "system", "service", f"--time={_IDLE_S}", f"unix://{folder}/docker.sock"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            try:
                rig = cls(folder, environment, service)
                rig._wait()
                with rig.open():
                    rig._try()
                yield rig
            finally:
                _podman_do(podman, environment, "rm", "--all", "--force", "--volumes", "--time=0")
                service.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    service.wait(10)
                service.kill()
                service.wait()
                _end_watchers(folder)
        finally:
            _unmount_below(folder)
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def host(self) -> str:
        """The value for DOCKER_HOST."""
        return f"unix://{self.folder}/docker.sock"

    @contextmanager
    def open(self) -> Iterator[None]:
        """Have a client in `api`; no socket of it outlives the block."""
        self.api = docker.APIClient(base_url=self.host, timeout=60)
        try:
            yield
        finally:
            self.api.close()

    @contextmanager
    def container(self, *command: str, name: str = "", image: str = IMAGE, **settings_: Any) -> Iterator[str]:
        """A running container, removed afterwards; its name. `settings_` go into the host config."""
        name = name or f"rig-{next(self._names)}"
        config = {
            key: settings_.pop(key) for key in ("environment", "working_dir", "labels", "user") if key in settings_
        }
        host_config = self.api.create_host_config(**{"network_mode": "none", **settings_})
        words = list(command) or ["sleep", "1000"]
        self.api.create_container(image, words, name=name, host_config=host_config, **config)
        try:
            self.api.start(name)
            yield name
        finally:
            self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a container, if it is there. Podman fails to kill one that has ended by itself a moment ago: asked again, it notices."""
        ends_s = time.monotonic() + _START_S
        while True:
            try:
                self.api.remove_container(name, v=True, force=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError:
                if time.monotonic() > ends_s:
                    raise
                time.sleep(0.05)

    def sh(self, name: str, script: str) -> str:
        """What a shell script inside prints; raises when it fails."""
        made = self.api.exec_create(name, ["sh", "-ec", script])
        printed: bytes = self.api.exec_start(made["Id"])
        assert self.api.exec_inspect(made["Id"])["ExitCode"] == 0, printed
        return printed.decode()

    def left_over(self) -> list[str]:
        """Names of containers that are still there."""
        return [entry["Names"][0] for entry in self.api.containers(all=True)]

    def _wait(self) -> None:
        ends_s = time.monotonic() + _START_S
        while True:
            if self.service.poll() is not None or time.monotonic() > ends_s:
                raise NoEngine(f"podman's service does not start: {(self.folder / 'service.log').read_text()[-300:]}")
            with socket.socket(socket.AF_UNIX) as client:
                if client.connect_ex(f"{self.folder}/docker.sock") == 0:
                    break
            time.sleep(0.05)

    def _try(self) -> None:
        """Start one container, so that a machine on which that fails skips the tests instead of failing them."""
        try:
            with self.container("true"):
                pass
        except docker.errors.DockerException as error:
            raise NoEngine(f"podman cannot start a container here: {str(error)[-300:]}") from error


def _podman(folder: Path) -> list[str]:
    return ["podman", f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}", f"--tmpdir={folder / 'tmp'}"]


def _import(podman: list[str], environment: dict[str, str], folder: Path) -> None:
    root = folder / "image"
    for name in ("bin", "usr/bin", "lib", "lib64", "etc", "proc", "sys", "dev", "tmp", "root", "app"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for name in dict.fromkeys(_COMMANDS):
        (root / "bin" / name).symlink_to("busybox")
    (root / "app" / "config.yaml").write_text("num_workers: 4\n", encoding="utf-8")
    subprocess.run(
        ["tar", "-C", str(root), "--owner=0", "--group=0", "-cf", str(folder / "image.tar"), "."], check=True
    )
    done = _podman_do(podman, environment, "import", str(folder / "image.tar"), IMAGE)
    if done.returncode:
        raise NoEngine(f"podman cannot import an image here: {done.stderr.strip()[-300:]}")


def _podman_do(podman: list[str], environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*podman, *words], env=environment, capture_output=True, text=True, check=False, timeout=_START_S
    )


def _end_watchers(folder: Path) -> None:
    """Podman keeps a process for each `exec` for five minutes, in case somebody asks how it ended."""
    ends_s = time.monotonic() + _START_S
    while (pids := _watchers(folder)) and time.monotonic() < ends_s:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _watchers(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[0].endswith(b"conmon") and any(f"{folder}/".encode() in word for word in words):
                    found.append(int(entry.name))
    return found


def _unmount_below(folder: Path) -> None:
    """Podman bind-mounts its storage onto itself, and a crash of the service leaves that behind."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
