"""Templates: a file that becomes another one. What it becomes says how it is read; the holes in it are references.

`pod.yaml.j2` tells by its name, `job.tpl` and `pod.m4` by their lines. YAML is read by lines anyway once its grammar does not
hold; scripts are their own readers' business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from keepfed.knobs import reading
from keepfed.knobs.config import yaml_config
from keepfed.knobs.site import KnobSite
from keepfed.knobs.source import Source

_MANIFEST = re.compile(rb"(?m)^(?:apiVersion|kind|services|spec|metadata):")


def read(source: Source) -> Iterable[KnobSite]:
    """The settings of a template. Raises Unreadable where nobody can tell what it becomes."""
    inner = source.name.rpartition(".")[0]
    row = reading.reader_for(inner, b"") if "." in inner.replace("\\", "/").rpartition("/")[2] else None
    if row is not None:
        return [_named(site, inner, source.name) for site in reading.read(replace(source, name=inner))]
    if _MANIFEST.search(source.utf8):
        return yaml_config.read(source)
    raise reading.Unreadable


def _named(site: KnobSite, inner: str, name: str) -> KnobSite:
    counts_at = site.counts_at.removeprefix(inner)
    return replace(site, file=name, counts_at=name + counts_at if counts_at != site.counts_at else site.counts_at)
