"""The page of `keepfed tune --report FILE`: what was measured, as one self-contained HTML file. A document in, a page out.

A page like this is opened where nothing else is at hand: as an attachment of a mail, in the artefact viewer of a CI server
(which sandboxes it), from a cluster's file share without a network, on paper. Scripts are
blocked in all of these. So the charts are SVG inside the page, drawn here, and there is no script at all:

| way | why not |
|---|---|
| uPlot or Chart.js, their code put into the page | an empty frame wherever scripts are blocked, and in print only what was on the screen; a canvas has no text to select, search or read aloud; 50 and 200 KB of foreign code per page |
| Matplotlib, Altair | tens of megabytes beside a launcher that has to work on a login node; fixed width and colours: a picture for light pages cannot become one for dark ones, and shrinks to 6-point type on a phone |
| pygal, leather | SVG of fixed width with text that shrinks with it; no intervals, their own colours |

What the page needs of a chart is little (points with intervals, steps, bars, from zero), and all of it becomes data first
(`marks.py`), which tests can read. The trick that makes it fluid without a script: horizontal positions are percentages,
vertical ones pixels, so a chart is as wide as its column while its text keeps its size. Colours are CSS variables.

Jinja2 makes the markup, with autoescape: names of datasets, commands and reasons come from other people's programs. It is
imported when a page is made, not before, as `keepfed --help` should not pay for it. The page is well-formed XML besides
being HTML, so that any strict parser can check it, and forbids itself by a Content-Security-Policy to load or run anything.
Where a server forbids even inline styles, as Jenkins does unless told otherwise, the page is plain and still whole: marks have
their strokes as attributes, tables and words need none.

```
 document ─ reading.py ─→ records.py ─┬─ headline.py                                            the first sentence
                                      ├─ throughput.py (path.py), timeline.py, prediction.py,   figures: marks.py,
                                      │  phases.py, factors.py, sweep.py                        placed with axes.py
                                      ├─ overview.py, section.py, machine.py                    tables and words
                                      └─────────────→ page.py ─ templates/ ─→ page, within its size
```
"""

from __future__ import annotations

from keepfed.tuning.report.page import About, page

__all__ = ["About", "page"]
