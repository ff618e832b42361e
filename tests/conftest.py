"""What holds for every test: nothing of it is left behind, and no setting of the developer's own leaks into it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from keepfed.text import choose_language

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest_plugins = ["tests.leaks"]

# An example that is slow because the machine is busy has found nothing; pytest's own time limit still holds.
settings.register_profile("keepfed", deadline=None)
settings.load_profile("keepfed")

# Shells start what runs in the background with Ctrl-C ignored, and programs hand that on to all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]

# These stay: they choose how the whole suite runs (`make test-verify`).
_KEPT = ("KEEPFED_VERIFY", "KEEPFED_TRANSPORT", "KEEPFED_TEST_")


@pytest.fixture(autouse=True)
def _same_words_for_everybody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """English texts and none of the developer's own KEEPFED_ settings, in this process and in its children."""
    for name in list(os.environ):
        if name.startswith("KEEPFED_") and not name.startswith(_KEPT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KEEPFED_LANG", "en")
    yield
    choose_language(None)


@pytest.fixture
def repository() -> Path:
    """The folder of the checkout that is tested."""
    return REPOSITORY
