"""A container that runs this very Python, where Podman can start one: real limits of memory and /dev/shm.

No image is needed: the root is an empty folder, into which the host's system folders, the interpreter and this repository
are mounted read-only. Podman asks for higher limits than an unprivileged caller may give (setrlimit(2), CAP_SYS_RESOURCE), so
a small runtime in front of runc takes that wish out of each container's specification.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc")
_RUNTIME = """#!{python}
import json, os, sys
arguments = sys.argv[1:]
if "--bundle" in arguments:
    path = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")
    with open(path) as file:
        specification = json.load(file)
    specification["process"].pop("rlimits", None)
    with open(path, "w") as file:
        json.dump(specification, file)
os.execvp("runc", ["runc", *arguments])
"""
_SETTINGS = """[containers]
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc-plain"
[engine.runtimes]
runc-plain = ["{runtime}"]
"""


class NoEngine(Exception):
    """Why no container can be started here."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Starts containers; everything that it needs lies in one folder."""

    folder: Path

    @classmethod
    def set_up(cls, folder: Path) -> Engine:
        """An engine that has started a container. Raises NoEngine where that fails."""
        for program in ("podman", "runc"):
            if shutil.which(program) is None:
                raise NoEngine(f"there is no {program} here")
        runtime = folder / "runc-plain"
        runtime.write_text(_RUNTIME.format(python=sys.executable), encoding="utf-8")
        runtime.chmod(0o755)
        (folder / "containers.conf").write_text(_SETTINGS.format(runtime=runtime), encoding="utf-8")
        (folder / "root").mkdir()
        for name in (*_SYSTEM, "/proc", "/sys", "/dev", "/tmp"):  # mount points
            (folder / "root" / name[1:]).mkdir()
        engine = cls(folder)
        tried = engine.run("-c", "pass", timeout_s=START_S)
        if tried.returncode:
            raise NoEngine(f"podman cannot start a container here: {tried.stderr.strip()[-300:]}")
        return engine

    def run(
        self, *arguments: str, options: tuple[str, ...] = (), timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments in a container made with these options of `podman run`."""
        mounts = [f"--volume={path}:{path}:ro" for path in _needed()]
        command = ["podman", "run", "--rm", "--network=none", *options, *mounts]
        command += [f"--env=PYTHONPATH={REPOSITORY / 'src'}", "--env=PYTHONDONTWRITEBYTECODE=1"]
        command += ["--rootfs", str(self.folder / "root"), sys.executable, *arguments]
        environment = {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s)


def _needed() -> list[str]:
    """Folders of the host that Python, torch and keepfed lie in; none twice."""
    wanted = [*_SYSTEM, sys.base_prefix, sys.prefix, str(Path(torch.__file__).parents[1]), str(REPOSITORY)]
    found: list[str] = []
    for path in wanted:
        if os.path.isdir(path) and not any(Path(path).is_relative_to(other) for other in found):
            found.append(path)
    return found
