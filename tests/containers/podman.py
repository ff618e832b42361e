"""Podman as tests can use it: its own settings, and a runtime that asks for nothing that an unprivileged machine refuses.

Podman asks for higher limits than a caller without CAP_SYS_RESOURCE may give (setrlimit(2)), so a small runtime in front of
runc takes that wish out of each container's specification.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

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
{locks}
[engine.runtimes]
runc-plain = ["{runtime}"]
[network]
network_config_dir = "{networks}"
"""


class NoEngine(Exception):
    """Why no container can be started here."""


def settings(folder: Path, *, apart: bool = False) -> dict[str, str]:
    """Write settings into this folder; returns the environment in which podman obeys them. Raises NoEngine.

    `apart`: for a podman with storage of its own. The first start of such a one frees all locks, which usually lie in a segment
    that every podman of this machine shares: it gets locks of its own, too.
    """
    for program in ("podman", "runc"):
        if shutil.which(program) is None:
            raise NoEngine(f"there is no {program} here")
    runtime = folder / "runc-plain"
    runtime.write_text(_RUNTIME.format(python=sys.executable), encoding="utf-8")
    runtime.chmod(0o755)
    networks = folder / "networks"
    networks.mkdir()
    file = folder / "containers.conf"
    file.write_text(
        _SETTINGS.format(runtime=runtime, networks=networks, locks='lock_type = "file"' if apart else ""),
        encoding="utf-8",
    )
    return {**os.environ, "CONTAINERS_CONF": str(file)}
