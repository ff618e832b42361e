"""Loaders whose worker count is the program's own business.

With a map-style dataset the sampler says which samples there are, and any number of workers delivers each of them once. An
iterable dataset is asked by every worker for a stream: what comes out is what N streams hold, and N is a part of the
program. A dataset that shards by `get_worker_info()` gives each sample once whatever N is; one that does not gives it N
times, in torch as well; and in mid-epoch nothing can be moved from one stream to another. Whether a dataset shards cannot
be seen from outside, so nobody but the program changes that number.
"""

from __future__ import annotations

from typing import Any

from keepfed.loader import torch_seam
from keepfed.text import say


def why_held(loader: Any) -> str:
    """Why the worker count of this loader stays what the program asks for, in words; empty where it may be changed."""
    if torch_seam.is_datapipe(loader.dataset):
        return say("loader.datapipe")
    if not torch_seam.is_map_style(loader):
        return say("loader.iterable")
    return ""
