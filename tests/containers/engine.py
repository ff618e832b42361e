"""A container that runs this very Python, where Podman can start one: real limits of memory and /dev/shm.

No image is needed: the root is an empty folder, into which the host's system folders, the interpreter and this repository
are mounted read-only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tests.containers.podman import NoEngine, settings

REPOSITORY = Path(__file__).resolve().parents[2]
START_S = 60
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc")


@dataclass(frozen=True, slots=True)
class Engine:
    """Starts containers; everything that it needs lies in one folder."""

    folder: Path
    environment: dict[str, str]

    @classmethod
    def set_up(cls, folder: Path) -> Engine:
        """An engine that has started a container. Raises NoEngine where that fails."""
        environment = settings(folder)
        (folder / "root").mkdir()
        for name in (*_SYSTEM, "/proc", "/sys", "/dev", "/tmp"):  # mount points
            (folder / "root" / name[1:]).mkdir()
        engine = cls(folder, environment)
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
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=timeout_s
        )


def _needed() -> list[str]:
    """Folders of the host that Python, torch and keepfed lie in; none twice."""
    torch = find_spec("torch")  # imported, it would take seconds of every test here
    found_torch = [str(Path(torch.origin).parents[1])] if torch and torch.origin else []
    wanted = [*_SYSTEM, sys.base_prefix, sys.prefix, *found_torch, str(REPOSITORY)]
    found: list[str] = []
    for path in wanted:
        if os.path.isdir(path) and not any(Path(path).is_relative_to(other) for other in found):
            found.append(path)
    return found
