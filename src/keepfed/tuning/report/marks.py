"""What a figure consists of, as data. The template turns it into SVG and knows nothing of batches.

Across, positions are percent of the plot's width; down, pixels from its top. So a figure is as wide as its column while
text, dots and lines keep their size. `tone` is a word of the style sheet (measured, chosen, start, dropped, predicted …).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Dot:
    """A point."""

    kind: ClassVar[str] = "dot"
    x: float
    y: float
    tone: str
    title: str = ""
    """What the pointer is told that rests on it."""
    shape: str = "circle"
    """circle, square or diamond: what tells apart must not be colour alone."""


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line: an interval, a step of the path, a moment."""

    kind: ClassVar[str] = "line"
    x: float
    y: float
    x2: float
    y2: float
    tone: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """A line through many points."""

    kind: ClassVar[str] = "trace"
    points: tuple[tuple[float, float], ...]
    tone: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar that begins at the axis."""

    kind: ClassVar[str] = "bar"
    x: float
    y: float
    width: float
    height: float
    tone: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """Words beside a mark."""

    kind: ClassVar[str] = "label"
    x: float
    y: float
    text: str
    anchor: str = "middle"
    """Which part of the words stands at x: start, middle or end."""
    dx: float = 0.0
    """Pixels to the right of x."""
    tone: str = ""


Mark = Dot | Line | Trace | Bar | Label


@dataclass(frozen=True, slots=True)
class Tick:
    """A number beside an axis."""

    at: float
    """Percent across, or pixels down."""

    text: str
    """The number."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot with two axes."""

    title: str
    """What goes up, with its unit."""

    height: float
    """In pixels."""

    x_ticks: tuple[Tick, ...]
    """Below; none for a panel that shares the axis of the one under it."""

    y_ticks: tuple[Tick, ...]
    """At the left."""

    marks: tuple[Mark, ...]
    """What is drawn, in this order."""

    x_title: str = ""
    """What goes to the right, with its unit."""

    described: str = ""
    """What the panel shows, in words, for those who cannot see it."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a figure whose axis goes to the right: label and value above, marks below."""

    label: str
    """What the row is about."""

    value: str
    """Its number in words."""

    marks: tuple[Mark, ...]
    """What is drawn, in a strip of ROW_HEIGHT pixels."""


ROW_HEIGHT = 16.0


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers behind a figure."""

    head: tuple[str, ...]
    """Titles of the columns."""

    rows: tuple[tuple[str, ...], ...]
    """Cells as they are shown."""

    words: tuple[int, ...] = (0,)
    """Which columns hold words; the others hold numbers."""


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend."""

    tone: str
    """Its tone."""

    shape: str
    """circle, square, diamond, line or dashed."""

    text: str
    """What it stands for."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture with its words."""

    name: str
    """A word for anchors and tests."""

    heading: str
    """What it is about."""

    caption: str
    """How to read it."""

    panels: tuple[Panel, ...] = ()
    """Plots; side by side where `beside`, else above each other."""

    rows: tuple[Row, ...] = ()
    """Rows with a common axis."""

    row_ticks: tuple[Tick, ...] = ()
    """The axis below the rows."""

    row_unit: str = ""
    """What it measures."""

    keys: tuple[Key, ...] = ()
    """The legend."""

    table: Table | None = None
    """The numbers."""

    beside: bool = False
    """Whether the panels stand side by side where there is room."""
