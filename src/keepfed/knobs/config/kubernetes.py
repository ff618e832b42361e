"""Shared memory and variables of Kubernetes pods.

A pod's /dev/shm is 64 MB unless a volume in memory is mounted over it. So a size limit is the setting only where both are there:

    volumes:                                     containers:
    - name: dshm                                 - volumeMounts:
      emptyDir: {medium: Memory, sizeLimit: 8Gi}   - {name: dshm, mountPath: /dev/shm}

Source: kubernetes.io/docs/concepts/storage/volumes, emptyDir ("tmpfs ... size limit").
"""

from __future__ import annotations

import re

from keepfed.knobs.config.entry import Document, Entry
from keepfed.knobs.spelling import words_of

_SHM = "/dev/shm"  # noqa: S108  # the mount point that is asked for, not a file that is made

_SIZES = {"size", "sizeLimit", "size_limit", "limit"}
_UNIT = re.compile(r"\d\s*[kmgtKMGT]i?[bB]?$")


def shm_volume(document: Document, entry: Entry) -> str:
    """The name of the volume whose size this is, if it is memory that some container has at /dev/shm; else nothing.

    In the values of a chart (`shmVolume: {sizeLimit: 4Gi}`) the name of the section has to tell.
    """
    if entry.key in _SIZES and len(entry.path) > 1 and _UNIT.search(entry.text) and _is_shm(entry.path[-2]):
        return entry.path[-2]
    if entry.path[-2:] != ("emptyDir", "sizeLimit"):
        return ""
    name = document.at(entry.part, (*entry.path[:-2], "name"))
    if name is None or document.sibling(entry, "medium").lower() != "memory":
        return ""
    return name.text if any(_mounts(document, mount, name) for mount in document.entries) else ""


def variable(document: Document, entry: Entry) -> str:
    """The variable whose value this is, in a list of `{name: ..., value: ...}`; else nothing."""
    if entry.key != "value" or len(entry.path) < 2 or not entry.path[-2].isdigit():
        return ""
    return document.sibling(entry, "name")


def container(document: Document, entry: Entry) -> str:
    """The container that an entry belongs to; else nothing."""
    for depth in range(len(entry.path) - 1, 0, -1):
        if entry.path[depth].isdigit() and entry.path[depth - 1] in {"containers", "initContainers"}:
            name = document.at(entry.part, (*entry.path[: depth + 1], "name"))
            return name.text if name else ""
    return ""


def _mounts(document: Document, mount: Entry, volume: Entry) -> bool:
    return (
        mount.part == volume.part
        and mount.key == "mountPath"
        and mount.text.rstrip("/") == _SHM
        and document.sibling(mount, "name") == volume.text
    )


def _is_shm(section: str) -> bool:
    words = set(words_of(section))
    return bool(words & {"shm", "dshm"}) or {"shared", "memory"} <= words
