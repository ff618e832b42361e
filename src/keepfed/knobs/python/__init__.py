"""Settings in Python source, the largest single place where they are written, read from the syntax tree.

    bytes ─→ Interest (which lines can matter?) ─→ Parsed (ast, or a tree regrown after mistakes)
                                                      │ Walk, once, each node to its form:
                                                      │ calls, options, assignments, dicts, defaults, environment
                                                      ↓
                                       Facts: places, and arrows of where values go
                                                      │ Flow: whose is it? value: what stands there? dead: is it read?
                                                      ↓
                                                   KnobSite

Nothing is taken for a setting because of its name alone: `num_workers` is Ray's as well, `workers` is gunicorn's, and a
scanner that changes those is worse than none.
"""

from __future__ import annotations

from keepfed.knobs.python.reader import read

__all__ = ["read"]
