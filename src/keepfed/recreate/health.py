"""Whether a service answers as it should: its status, and a part of its body.

The URL comes from the user and the answer from whatever listens there, so: http and https alone, no redirect to another host, at
most a megabyte read, no proxy between (the container runs here), and nothing of the body shown.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from keepfed.errors import UsageError
from keepfed.text import say

MOST_BODY_BYTES = 1 << 20
ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What a healthy service answers."""

    url: str
    """http or https."""
    body: Any = None
    """JSON that the body has to contain (`within`)."""
    any_body: bool = True
    """Whether the status alone decides."""


def expected(url: str, body: str | None) -> Expected:
    """Check what the user wrote. Raises UsageError."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(say("recreate.bad_url", url=url, reason=error)) from error
    if parts.scheme not in ("http", "https") or not host or any(ord(char) <= 32 for char in url):
        raise UsageError(say("recreate.bad_url", url=url, reason=say("recreate.bad_url_http")))
    if "@" in parts.netloc:
        # Neither shown nor sent: it would stand in the shell's history and in every error message.
        raise UsageError(say("recreate.url_with_password", host=host))
    if body is None:
        return Expected(url)
    try:
        return Expected(url, json.loads(body), any_body=False)
    except ValueError as error:
        raise UsageError(
            say("recreate.bad_json", text=body, reason=error), next_step=say("recreate.bad_json_next")
        ) from error


def complaint(wanted: Expected, timeout_s: float = ANSWER_S) -> str:
    """What is wrong with the service's answer, in words; empty when it is as expected."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _SameHost())
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "keepfed"})  # noqa: S310  # http and https alone, see expected()
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            body: bytes = answer.read(MOST_BODY_BYTES + 1)
    except urllib.error.HTTPError as error:
        with error:
            return say("recreate.answers_status", url=wanted.url, status=error.code)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return say("recreate.answers_not", url=wanted.url, reason=reason)
    if wanted.any_body:
        return ""
    if len(body) > MOST_BODY_BYTES:
        return say("recreate.answers_too_much", url=wanted.url)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return say("recreate.answers_no_json", url=wanted.url)
    return "" if within(wanted.body, found) else say("recreate.answers_other_body", url=wanted.url)


def within(part: object, whole: object) -> bool:
    """Whether JSON contains other JSON: objects at least the same keys, lists element by element, everything else equal.

    >>> within({"ok": True}, {"ok": True, "model": "big"}), within({"ok": 1}, {"ok": True})
    (True, False)
    """
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(one, whole[key]) for key, one in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(within, part, whole))
    return part == whole and isinstance(part, bool) == isinstance(whole, bool)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to the same scheme, host and port."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The next request; raises HTTPError for one that leads elsewhere."""
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if (before.scheme, before.hostname, before.port) != (after.scheme, after.hostname, after.port):
            raise urllib.error.HTTPError(req.full_url, code, say("recreate.redirects_away"), headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
