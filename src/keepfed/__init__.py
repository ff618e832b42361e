"""keepfed keeps GPUs fed with data.

Names are resolved on first use: importing keepfed imports neither torch nor anything else that is heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keepfed.loader.api import DataLoader, install
    from keepfed.loader.stats import LoaderStats
    from keepfed.plan import Plan

__version__ = "0.1.0"
__all__ = ["DataLoader", "LoaderStats", "Plan", "install"]

_HOME = {
    "DataLoader": "keepfed.loader.api",
    "LoaderStats": "keepfed.loader.stats",
    "Plan": "keepfed.plan",
    "install": "keepfed.loader.api",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'keepfed' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
