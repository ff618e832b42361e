"""What `keepfed scan --json` prints: one object, whose keys stay what they are (docs/scan.md has each of them)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from keepfed.cli.scan.expect import Verdict
from keepfed.knobs.origin.changes import MOST_COMMITS, Changed
from keepfed.knobs.scan import Scanned
from keepfed.knobs.site import KnobSite, Skipped
from keepfed.text import say

SCHEMA = "keepfed.scan/1"


def report(
    scanned: Scanned, verdicts: Sequence[Verdict] = (), changes: Sequence[Changed] | None = None
) -> dict[str, Any]:
    """The whole answer; `expect` and `changes` are there only where they were asked for."""
    answer: dict[str, Any] = {
        "schema": SCHEMA,
        "sites": [site_fields(site) for site in scanned.sites],
        "skipped": [_skipped(skipped) for skipped in scanned.skipped],
    }
    if verdicts:
        answer["expect"] = [_expected(verdict) for verdict in verdicts]
    if changes is not None:
        answer["changes"] = [row.to_json() for row in changes]
        answer["changes_commits"] = MOST_COMMITS
    return answer


def as_text(answer: Mapping[str, Any]) -> str:
    """The answer as JSON, each place on a line of its own: for people who look, and for the encoder, which is quick that way."""
    parts = []
    for key, value in answer.items():
        rows = ",\n".join(f"  {json.dumps(row)}" for row in value) if isinstance(value, list) and value else ""
        parts.append(f" {json.dumps(key)}: [\n{rows}\n ]" if rows else f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def site_fields(site: KnobSite) -> dict[str, Any]:
    """One site."""
    return {
        "file": site.file,
        "line": site.line,
        "column": site.column,
        "start": site.span.start,
        "end": site.span.end,
        "knob": site.knob,
        "spelling": site.spelling,
        "value": site.value,
        "kind": site.kind.value,
        "wins": site.wins,
        "counts_at": site.counts_at or None,
        "original": asdict(site.original) if site.original else None,
        "in_effect": asdict(site.in_effect) if site.in_effect else None,
        "form": site.form.value,
        "role": site.role.value,
        "owner": site.owner or None,
        "refers_to": site.refers_to or None,
        "editable": asdict(site.target) if site.target else None,
        "refusal": say(site.refusal) if site.refusal else None,
    }


def _skipped(skipped: Skipped) -> dict[str, str]:
    return {"file": skipped.file, "reason": say(skipped.reason), "code": skipped.reason.removeprefix("knobs.skipped_")}


def _expected(verdict: Verdict) -> dict[str, Any]:
    return {
        "knob": verdict.wished.spelling,
        "value": verdict.wished.value,
        "met": verdict.met,
        "differs": [{"file": site.file, "line": site.line, "column": site.column} for site in verdict.differing],
    }
