"""Holds what tells a worker that it is one."""

from __future__ import annotations

_worker_info = None
