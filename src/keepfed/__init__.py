"""keepfed keeps GPUs fed with data.

Names are resolved on first use: importing keepfed imports neither torch nor anything else that is heavy, since the verbs
that look at programs from outside import it too, on machines without torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs 5 ms in every Python below `keepfed run`
if TYPE_CHECKING:
    from keepfed.loader.api import DataLoader, install, stats, uninstall, why
    from keepfed.loader.journal import Why, WhyEntry
    from keepfed.loader.stats import LoaderStats
    from keepfed.offline.search import TuneResult, tune
    from keepfed.plan import Plan

__version__ = "0.1.0"
__all__ = [
    "DataLoader",
    "LoaderStats",
    "Plan",
    "TuneResult",
    "Why",
    "WhyEntry",
    "install",
    "stats",
    "tune",
    "uninstall",
    "why",
]

# Where each public name lives. Whatever stands here stands in __all__ and in the block above as well (tested).
_HOME = {
    "DataLoader": "keepfed.loader.api",
    "LoaderStats": "keepfed.loader.stats",
    "Plan": "keepfed.plan",
    "TuneResult": "keepfed.offline.search",
    "Why": "keepfed.loader.journal",
    "WhyEntry": "keepfed.loader.journal",
    "install": "keepfed.loader.api",
    "stats": "keepfed.loader.api",
    "tune": "keepfed.offline.search",
    "uninstall": "keepfed.loader.api",
    "why": "keepfed.loader.api",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'keepfed' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted([*__all__, "__version__"])
