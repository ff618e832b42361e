"""Asking a service: what counts as healthy, and what a hostile answer can do, which is nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from keepfed.errors import UsageError
from keepfed.recreate.health import MOST_BODY_BYTES, complaint, expected

ANSWERS: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "/ok": (200, b'{"ready": true, "models": [{"name": "a"}]}', {}),
    "/bad": (503, b"{}", {}),
    "/text": (200, b"<html>", {}),
    "/huge": (200, b" " * (MOST_BODY_BYTES + 2), {}),
    "/here": (302, b"", {"Location": "/ok"}),
    "/away": (302, b"", {"Location": "http://198.51.100.1/ok"}),
    "/file": (302, b"", {"Location": "file:///etc/passwd"}),
}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body, headers = ANSWERS[self.path]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "expect", "words"),
    [
        ("/ok", None, ""),
        ("/ok", '{"ready": true}', ""),
        ("/ok", '{"models": [{}]}', ""),
        ("/ok", '{"ready": 1}', "not with what"),
        ("/here", '{"ready": true}', ""),
        ("/bad", None, "status 503"),
        ("/text", "{}", "not with JSON"),
        ("/text", None, ""),
        ("/huge", "{}", "more than 1 MiB"),
        ("/away", None, "status 302"),
        ("/file", None, "status 302"),
    ],
)
def test_an_answer_is_judged_by_its_status_and_by_a_part_of_its_body(
    base: str, path: str, expect: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://198.51.100.1:9")
    found = complaint(expected(base + path, expect))
    assert found == "" if not words else words in found


def test_nobody_there_is_said_so() -> None:
    assert "does not answer" in complaint(expected("http://127.0.0.1:1/", None), timeout_s=1)


@pytest.mark.parametrize(
    "url", ["localhost:8080", "file:///etc/passwd", "ftp://host/x", "http://", "http://h:99999/", "http://a b/"]
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--health"):
        expected(url, None)


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        expected("http://me:s3cr3t@host/", None)
    assert "s3cr3t" not in str(caught.value)


def test_what_is_expected_has_to_be_json() -> None:
    with pytest.raises(UsageError, match="no JSON"):
        expected("http://host/", "{ready: true}")
