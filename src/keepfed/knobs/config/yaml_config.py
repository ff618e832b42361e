"""YAML of every kind: training configurations, compose files, Kubernetes manifests, and templates of these."""

from __future__ import annotations

from collections.abc import Iterator

from keepfed.knobs.config import yaml_lines, yaml_tree
from keepfed.knobs.config.sites import may_state, sites_of
from keepfed.knobs.site import KnobSite
from keepfed.knobs.source import Source


def read(source: Source) -> Iterator[KnobSite]:
    """The settings of a YAML file; where its grammar does not hold, of its lines."""
    if may_state(source.utf8):
        yield from sites_of(yaml_tree.document_of(source) or yaml_lines.document_of(source))
