"""A file's text with the questions that insertions ask: where a line begins and ends, what ends it, where bytes of a place lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from keepfed.edit.replacement import Edit, EditRefused
from keepfed.knobs.knob import Wish
from keepfed.knobs.site import KnobSite
from keepfed.knobs.source import Source
from keepfed.text import say


@dataclass(frozen=True)
class Text:
    """The decoded text of a source; indices count characters."""

    source: Source
    """The file."""

    @property
    def all(self) -> str:
        """The whole text, line ends as they are."""
        return self.source.text

    @cached_property
    def eol(self) -> str:
        """What ends the first line of the file, and so the ones that are added."""
        first = self.all.find("\n")
        return "\r\n" if first > 0 and self.all[first - 1] == "\r" else "\n"

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their ends."""
        return [line.removesuffix("\r") for line in self.all.split("\n")]

    def line_start(self, at: int) -> int:
        """Where the line of an index begins."""
        return self.all.rfind("\n", 0, at) + 1

    def line_end(self, at: int) -> int:
        """Where the line of an index ends, before its line end."""
        newline = self.all.find("\n", at)
        if newline < 0:
            return len(self.all)
        return newline - 1 if newline > at and self.all[newline - 1] == "\r" else newline

    def start_of(self, line: int) -> int:
        """The index at which a line (from 1) begins."""
        at = 0
        for _ in range(line - 1):
            at = self.all.index("\n", at) + 1
        return at

    def line_of(self, at: int) -> int:
        """The line, from 1, of an index."""
        return self.all.count("\n", 0, at) + 1

    def value_of(self, site: KnobSite) -> tuple[int, int]:
        """Where a site's value stands. Raises EditRefused where the text says something else."""
        start = self.start_of(site.line) + site.column - 1
        if self.all[start : start + len(site.value)] != site.value:
            raise EditRefused(say("edit.moved", place=f"{site.file}:{site.line}"), next_step=say("edit.moved_next"))
        return start, start + len(site.value)

    def edit(self, wish: Wish, spelling: str, start: int, new: str, *, end: int | None = None) -> Edit:
        """The edit that puts `new` in the place of [start, end), by default of nothing."""
        stop = start if end is None else end
        one, other = (len(self.all[:at].encode("utf-8", "surrogatepass")) for at in (start, stop))
        span = self.source.span(one, other)
        return Edit(
            file=self.source.name,
            span=span,
            old=self.source.data[span.start : span.end],
            new=self.source.encoded(new),
            line=self.line_of(start),
            knob=wish.knob,
            spelling=spelling,
            was=self.all[start:stop],
            becomes=" ".join(new.split()),
        )
