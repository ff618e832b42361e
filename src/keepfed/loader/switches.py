"""The environment variables that a user may set to see whether keepfed is at fault.

- KEEPFED_DISABLE=1: torch's own iterators everywhere
- KEEPFED_TRANSPORT=copy: every batch is copied into ordinary memory at delivery, nothing is leased
- KEEPFED_VERIFY=1: checksums at delivery and at release; given-back slots are overwritten
"""

from __future__ import annotations

import dataclasses
import os

from keepfed.errors import UsageError
from keepfed.loader.terms import Terms
from keepfed.text import say


def _on(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def disabled() -> bool:
    """Whether the user switched keepfed off."""
    return _on("KEEPFED_DISABLE")


def with_switches(terms: Terms) -> Terms:
    """These terms as the environment modifies them. Raises UsageError for a transport that does not exist."""
    transport = os.environ.get("KEEPFED_TRANSPORT", "") or "zero-copy"
    if transport not in ("copy", "zero-copy"):
        raise UsageError(say("loader.bad_transport", value=transport), next_step=say("loader.bad_transport_next"))
    return dataclasses.replace(terms, verify=_on("KEEPFED_VERIFY"), copy_all=transport == "copy")
