"""Projects in miniature: files as text, and sites put where `⟨value⟩` stands in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from keepfed.knobs.site import Form, Kind, KnobSite, Role, Span
from keepfed.knobs.source import Source

_FORMS = {".py": Form.PYTHON, ".sh": Form.SHELL, ".yaml": Form.YAML, ".yml": Form.YAML, ".json": Form.JSON}


class Places:
    """A project whose files mark their values, and the sites that a scan would report there."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.marks: dict[str, list[tuple[int, int, str]]] = {}
        self.sources: dict[str, Source] = {}
        self.sites: list[KnobSite] = []
        for name, text in files.items():
            plain, marks = "", []
            for at, part in enumerate(text.replace("⟩", "⟨").split("⟨")):
                if at % 2:
                    marks.append((len(plain.encode()), len((plain + part).encode()), part))
                plain += part
            source = Source.of(name, plain.encode())
            assert source is not None
            self.marks[name], self.sources[name] = marks, source

    def site(self, name: str, role: Role, spelling: str = "num_workers", mark: int = 0, **facts: object) -> KnobSite:
        """The site at a mark of a file; what is not said follows from the file."""
        start, end, value = self.marks[name][mark]
        line, column = self.sources[name].place(start)
        made = KnobSite(
            file=name,
            line=line,
            column=column,
            span=Span(start, end),
            knob="num_workers",
            spelling=spelling,
            value=value,
            kind=Kind.LITERAL if value.isdigit() else Kind.REFERENCE,
            form=_FORMS.get(PurePosixPath(name).suffix, Form.TEXT),
            role=role,
            refers_to="" if value.isdigit() else value,
        )
        made = replace(made, **facts)  # type: ignore[arg-type]  # the facts are fields of the site
        self.sites.append(made)
        return made
