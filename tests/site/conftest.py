"""Fixtures of these tests."""

from __future__ import annotations

from tests.launch.scratch import bare, equipped

__all__ = ["bare", "equipped"]
