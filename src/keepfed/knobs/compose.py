"""Services of a compose file: whose setting an entry is, and what else runs there.

`services.NAME.build.shm_size` is what the build gets, and not the service. A service that runs gunicorn has workers of its own,
whatever the variable is called.
"""

from __future__ import annotations

import re

from keepfed.knobs.entry import Document, Entry

OTHER_PROGRAMS = re.compile(
    r"(?i)\b(?:gunicorn|uvicorn|hypercorn|granian|celery|dask\w*|torchserve|tritonserver|vllm|sglang|airflow|nginx|fastapi|flask"
    r"|ray|mlflow|label-studio|supervisord|pytest|locust|huey|dramatiq)\b"
)
"""Programs with workers of their own."""


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


def shares_memory_of_host(document: Document, entry: Entry) -> bool:
    """Whether the service has another's /dev/shm, so that its own size is never made (docker run, "IPC settings")."""
    return document.sibling(entry, "ipc").startswith(("host", "service:", "container:"))
