"""What has to be started anew before a changed setting does anything. Nearly every "it did not help" of the first hour is this.

Files are read when something starts: a value in a compose file by the creation of the container (a restart keeps the old
one), ENV by the build of the image, `#SBATCH` by sbatch, a cell by its execution.
"""

from __future__ import annotations

from collections.abc import Iterable

from keepfed.edit.respelling import is_kubernetes
from keepfed.knobs.site import Form, Kind, KnobSite, Role


def restarts(sites: Iterable[KnobSite]) -> list[str]:
    """Keys of the locales, `edit.restart_*`, of what these places need, each once. A printout needs nothing: nobody reads it."""
    return list(dict.fromkeys(restart(site) for site in sites if site.kind is not Kind.RECORD))


def restart(site: KnobSite) -> str:
    """What one place needs, a key of the locales."""
    name = site.file.lower()
    if name.endswith(".ipynb"):
        return "edit.restart_kernel"
    if site.knob == "cpus_per_task" or name.endswith((".slurm", ".sbatch")):
        return "edit.restart_job"
    if site.form is Form.YAML and (site.setting.startswith("services.") or "compose" in name):
        return "edit.restart_compose"
    if is_kubernetes(site) or (site.form is Form.YAML and "containers" in site.setting.split(".")):
        return "edit.restart_pod"
    if site.knob == "shm_size":
        return "edit.restart_container"
    if site.form is Form.DOCKERFILE:
        return "edit.restart_image"
    if site.form is Form.DOTENV:
        return "edit.restart_environment"
    return "edit.restart_shell" if site.role is Role.VARIABLE and site.form is Form.SHELL else "edit.restart_process"
