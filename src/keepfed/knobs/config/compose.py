"""Services of a compose file: whose setting an entry is, and what else runs there.

`services.NAME.build.shm_size` is what the build gets, and not the service. A service that runs gunicorn has workers of its own,
whatever the variable is called.
"""

from __future__ import annotations

import re

from keepfed.knobs.config.entry import Document, Entry

OTHER_PROGRAMS = re.compile(
    r"(?i)\b(?:gunicorn|uvicorn|hypercorn|granian|celery|dask\w*|torchserve|tritonserver|vllm|sglang|airflow|nginx|fastapi|flask"
    r"|ray|mlflow|label-studio|supervisord|pytest|locust|huey|dramatiq)\b"
)
"""Programs with workers of their own."""
_MOUNT = re.compile(r"(?:^|:)/dev/shm/?(?::|$)")
_TMPFS = re.compile(r"^/dev/shm/?:(?:[^\s]*,)?size=(\d+[kmgKMG]?)(?=,|$)")


def service(entry: Entry) -> str:
    """The service that an entry belongs to; else nothing."""
    if len(entry.path) < 3 or entry.path[0] != "services":
        return ""
    return entry.path[1]


def runs_something_else(document: Document, entry: Entry) -> bool:
    """Whether the image or the command of its service is a server's or a cluster's, which has workers of its own."""
    root = entry.path[:2]
    return any(
        OTHER_PROGRAMS.search(other.text)
        for other in document.entries
        if other.part == entry.part and other.path[:2] == root and set(other.path) & {"image", "command", "entrypoint"}
    )


def other_shm(document: Document, entry: Entry) -> Entry | None:
    """What gives the service another /dev/shm, so that its own size is never made (docker run, "IPC settings")."""
    root = entry.path[:-1]
    for other in document.entries:
        if other.part != entry.part or other.path[: len(root)] != root:
            continue
        shares = other.path == (*root, "ipc") and other.text.startswith(("host", "service:", "container:"))
        if shares or ({"volumes", "tmpfs"} & set(other.path) and _MOUNT.search(other.text)):
            return other
    return None


def tmpfs_size(entry: Entry) -> tuple[int, int] | None:
    """Where in `tmpfs: /dev/shm:size=2g` the size stands, in characters of the text."""
    found = _TMPFS.search(entry.text) if "tmpfs" in entry.path[-2:] else None
    return found.span(1) if found else None
