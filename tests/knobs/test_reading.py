from __future__ import annotations

import pytest

from keepfed.knobs import reading
from keepfed.knobs.grammar import LANGUAGES, parse
from keepfed.knobs.reading import READERS, Reader, Unreadable, reader_for
from keepfed.knobs.source import Source


def row_of(name: str) -> Reader | None:
    return reader_for(name, b"")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_grammar_loads_and_counts_bytes(language: str) -> None:
    assert parse(language, "# 数\n".encode()).root_node.end_byte <= 6


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("a/train.py", "x.py"),
        ("compose.YML", "x.yaml"),
        ("docker/Dockerfile.gpu", "Dockerfile"),
        ("cpu.dockerfile", "Dockerfile"),
        ("makefile.py", "x.py"),
        ("dockerfile.test.yaml", "x.yaml"),
        ("Makefile.gpu", "Makefile"),
        ("Makefile", "x.mk"),
        ("train_opt.txt", "opt.txt"),
        (".env.example", ".env"),
        ("train.env", ".env"),
        ("job.slurm", "x.sh"),
    ],
)
def test_names_choose_the_reader(name: str, like: str) -> None:
    assert row_of(name) is not None
    assert row_of(name) is row_of(like)


@pytest.mark.parametrize(
    ("head", "like"),
    [
        (b"#!/bin/bash\n", "x.sh"),
        (b"#!/usr/bin/env python3\n", "x.py"),
        (b"#!/usr/bin/env -S bash -e\n", "x.sh"),
        (b"\n#SBATCH --cpus-per-task=8\n", "x.sh"),
        (b"------------ Options -------------\n", "opt.txt"),
    ],
)
def test_without_a_suffix_the_first_bytes_choose(head: bytes, like: str) -> None:
    assert reader_for("job", head) is row_of(like)


@pytest.mark.parametrize("name", ["README.md", "a.cpp", "notes.txt", "core"])
def test_what_looks_like_no_settings_has_no_reader(name: str) -> None:
    assert row_of(name) is None


def test_every_reader_can_be_imported() -> None:
    for row in READERS:
        assert callable(reading._function(row.target))


def test_what_a_reader_gives_up_on_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(source: Source) -> list[object]:
        raise Unreadable

    lines = reading._function("keepfed.knobs.text_lines:read")
    monkeypatch.setattr(reading, "_function", lambda target: lines if target.endswith("text_lines:read") else give_up)
    monkeypatch.setitem(reading._BY_SUFFIX, ".zz", Reader("x:read", suffixes=(".zz",)))
    source = Source.of("a.zz", b"num_workers = 4\n")
    assert source is not None
    sites = reading.read(source)
    assert [site.value for site in sites] == ["4"]
    assert reading.each_once([*sites, *sites]) == sites
