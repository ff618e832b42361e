"""How much room is left where a file of a container lies.

An engine replaces a file by removing it first. On a full disk the removal succeeds and the writing does not, and the file is gone; so
it is asked before. Sources: containers/buildah copier (Put), moby pkg/archive (Untar).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

SPARE_BYTES = 256 << 10
"""What has to be left besides the file itself: folders grow, and others write too."""


def free_bytes(pid: int | None, detail: Mapping[str, Any], folder: str) -> int | None:
    """Bytes that can be written in a resolved folder of a container; None where that cannot be seen from here.

    `pid` is its first process, if that is one of this machine; otherwise its own layer on this machine's disk is asked.
    """
    layer = ((detail.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    for path in ([f"/proc/{pid}/root{folder}"] if pid else []) + ([str(layer)] if layer else []):
        try:
            answer = os.statvfs(path)
        except (OSError, AttributeError):  # no statvfs on Windows
            continue
        return answer.f_bavail * answer.f_frsize
    return None
