"""A Docker engine in a thread: one container whose files are a dictionary, behind the few requests that a client makes.

It behaves as Docker where Docker and Podman differ: a link is handed out as a link, the archive tells owners, and what it refuses it
explains in a `message`.
"""

from __future__ import annotations

import base64
import io
import json
import posixpath
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

ID = "c0ffee" + "0" * 58
FOLDER, LINK = 1 << 31, 1 << 27


@dataclass
class Fake:
    """What the engine knows; tests change it as they like."""

    files: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=lambda: {"trainer": ID})
    detail: dict[str, Any] = field(default_factory=dict)
    refuses_put: str = ""
    loses_put: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, path: str, data: bytes = b"", **facts: Any) -> None:
        """A file; with `linkname` a link; with `type=tarfile.DIRTYPE` a folder."""
        member = tarfile.TarInfo(posixpath.basename(path))
        member.size = len(data)
        for name, value in facts.items():
            setattr(member, name, value)
        self.files[path], self.data[path] = member, data

    def target(self, path: str) -> str:
        """Where a link leads in the end, as Docker's linkTarget says."""
        seen = 0
        while self.files[path].issym() and seen < 9:
            path, seen = (
                posixpath.normpath(posixpath.join(posixpath.dirname(path), self.files[path].linkname)),
                seen + 1,
            )
        return path


class _Handler(BaseHTTPRequestHandler):
    fake: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's own name
        pass

    def address_string(self) -> str:
        return "a socket"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.fake.asked.append(f"{self.command} {self.path}")
        if parts.path == "/version":
            self._json({"ApiVersion": "1.44", "Version": "25.0.1", "Components": [{"Name": "Engine"}]})
        elif parts.path.endswith("/containers/json"):
            names = self.fake.names.items()
            self._json(
                [{"Id": i, "Names": [f"/{n}"], "Image": "img", "State": "running", "Labels": {}} for n, i in names]
            )
        elif parts.path.endswith("/archive"):
            self._archive(parse_qs(parts.query)["path"][0])
        elif parts.path.endswith("/json"):
            state = {"Running": True, "Pid": 0, "Status": "running", "ExitCode": 0}
            self._json(
                {"Id": ID, "Name": "/trainer", "State": state, "Config": {}, "HostConfig": {}} | self.fake.detail
            )
        else:
            self._json({"message": "no such thing"}, 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.fake.asked.append(f"PUT {self.path}")
        folder = parse_qs(urlsplit(self.path).query)["path"][0]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.fake.refuses_put:
            self._json({"message": self.fake.refuses_put}, 403)
            return
        if not self.fake.loses_put:
            with tarfile.open(fileobj=io.BytesIO(body)) as archive:
                for member in archive:
                    opened = archive.extractfile(member)
                    path = posixpath.join(folder, member.name)
                    self.fake.files[path], self.fake.data[path] = member, opened.read() if opened else b""
        self._json({})

    def _archive(self, path: str) -> None:
        member = self.fake.files.get(path)
        if member is None:
            self._json({"message": f"Could not find the file {path} in container"}, 404)
            return
        mode = member.mode | (LINK if member.issym() else FOLDER if member.isdir() else 0)
        stat = {"name": member.name, "size": member.size, "mode": mode, "linkTarget": ""}
        if member.issym():
            stat["linkTarget"] = self.fake.target(path)
        header = base64.b64encode(json.dumps(stat).encode()).decode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.addfile(member, io.BytesIO(self.fake.data[path]))
        self._send(packed.getvalue(), 200, "application/x-tar", ("X-Docker-Container-Path-Stat", header))

    def _json(self, answer: object, status: int = 200) -> None:
        self._send(json.dumps(answer).encode(), status, "application/json")

    def _send(self, body: bytes, status: int, kind: str, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = False


@contextmanager
def engine(folder: Path) -> Iterator[Fake]:
    """A listening engine; `url` is its address."""
    fake = Fake(url=f"unix://{folder}/docker.sock")
    fake.add("/app", type=tarfile.DIRTYPE, mode=0o755)
    handler = type("Handler", (_Handler,), {"fake": fake})
    with _Server(f"{folder}/docker.sock", handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
