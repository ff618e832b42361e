from __future__ import annotations

import configparser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.knobs.config.ini_config import document_of
from keepfed.knobs.site import Form, Kind
from keepfed.knobs.source import Source
from tests.knobs.configured import ENCODINGS, Encode, literals, sites

WORKER = """[train] #train 参数 4
epoch = 16
batch_size = 128

reader_num = 8 ; not 16

[eval]
batch_size: 128
reader_num: 4
"""


@pytest.mark.parametrize("written", ENCODINGS.values(), ids=ENCODINGS)
def test_sections_with_comments_behind_them_are_read(written: Encode) -> None:
    found = sites("config/default.config", written(WORKER))
    assert [(site.setting, site.value, site.line, site.owner) for site in found] == [
        ("train.reader_num", "8", 5, "train"),
        ("eval.reader_num", "4", 9, "eval"),
    ]


def test_quotes_stay_and_properties_have_no_sections() -> None:
    text = (
        '! workers=3\nnum_workers="4"\npin_memory=true\nnum.workers.note=x\nloader.num.workers=6\nray.num_workers=7\n'
    )
    found = sites("train.properties", text)
    assert [(site.value, site.quoted) for site in found] == [("4", True), ("true", False), ("6", False)]


def test_a_key_that_comes_again_in_its_section_overrides() -> None:
    found = sites("a.ini", "[data]\nnum_workers=1\n[other]\nnum_workers=2\n[data]\nnum_workers=3\n")
    assert [(site.value, site.kind) for site in found] == [
        ("1", Kind.OVERRIDDEN),
        ("2", Kind.LITERAL),
        ("3", Kind.LITERAL),
    ]


def test_an_interpolation_of_configparser_is_a_reference() -> None:
    found = sites("a.cfg", "[loader]\ncount = 4\nnum_workers = %(count)s\n")
    assert [(site.value, site.kind) for site in found] == [("%(count)s", Kind.REFERENCE)]


@pytest.mark.parametrize(
    "text", ["[server:main]\nworkers = 4\n", "default_workers_per_model=4\n", "# num_workers=4\n; num_workers=3\n"]
)
def test_workers_of_servers_and_comments_are_no_sites(text: str) -> None:
    assert literals("config.properties", text) == []


def test_the_environment_of_a_service_holds_variables() -> None:
    text = '[Service]\nEnvironment=OMP_NUM_THREADS=4\nEnvironment="MKL_NUM_THREADS=2" "A=1"\nExecStart=/usr/bin/python train.py --num_workers 8\n'
    assert literals("train.service", text) == [
        ("OMP_NUM_THREADS", "4"),
        ("MKL_NUM_THREADS", "2"),
        ("--num_workers", "8"),
    ]
    supervised = '[program:t]\ncommand=gunicorn --workers 4\nenvironment=OMP_NUM_THREADS="3",A="b"\n'
    assert [(site.value, site.quoted) for site in sites("programs.conf", supervised)] == [("3", True)]


@given(
    st.dictionaries(
        st.sampled_from(["a", "B", "c d"]),
        st.dictionaries(
            st.sampled_from(["k", "key two", "x.y"]), st.sampled_from(["1", "a b", "http://h/p", "x#y", ""])
        ),
        max_size=3,
    ),
    st.integers(0, 64),
    st.sampled_from(["=", " = ", ":", ": "]),
)
def test_the_reported_span_is_what_the_parser_reads(
    sections: dict[str, dict[str, str]], count: int, joint: str
) -> None:
    sections = {name: {**values, "num_workers": str(count)} for name, values in {**sections, "data": {}}.items()}
    lines = [
        line
        for name, values in sections.items()
        for line in (f"[{name}]", *(f"{key}{joint}{value}" for key, value in values.items()))
    ]
    source = Source.of("a.ini", "\n".join(lines).encode())
    assert source is not None
    changed = source.utf8
    found = [entry for entry in document_of(source, Form.INI).entries if entry.key == "num_workers"]
    assert len(found) == len(sections)
    for entry in reversed(found):
        changed = changed[: entry.start] + b"777" + changed[entry.end :]
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"))
    parser.read_string(changed.decode())
    for name, values in sections.items():
        assert dict(parser[name]) == {**values, "num_workers": "777"}
