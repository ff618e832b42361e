"""A module that the fork server preloads (preloaded.py)."""

from __future__ import annotations

import os

IMPORTED_BY = os.getpid()
