from __future__ import annotations

import tomllib

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from keepfed.knobs.config.toml_config import document_of
from keepfed.knobs.site import Role
from keepfed.knobs.source import Source
from tests.knobs.configured import ENCODINGS, Encode, literals, sites

KOHYA = """[accelerate]
num_cpu_threads_per_process = 2       # 线程 4

[basic]
max_data_loader_n_workers = 0         # 0..16
persistent_data_loader_workers = true

[[datasets]]
num_workers = "4"
loader.num_workers = 6
inline = {workers = 1, batch_size = 2}
[[datasets]]
num_workers = 8
"""


@pytest.mark.parametrize("written", ENCODINGS.values(), ids=ENCODINGS)
def test_tables_arrays_dotted_keys_and_inline_tables_are_read(written: Encode) -> None:
    found = sites("config example.toml", written(KOHYA))
    assert [(site.setting, site.value, site.quoted) for site in found] == [
        ("accelerate.num_cpu_threads_per_process", "2", False),
        ("basic.max_data_loader_n_workers", "0", False),
        ("basic.persistent_data_loader_workers", "true", False),
        ("datasets.0.num_workers", "4", True),
        ("datasets.0.loader.num_workers", "6", False),
        ("datasets.0.inline.workers", "1", False),
        ("datasets.1.num_workers", "8", False),
    ]
    assert [site.owner for site in found[:3]] == ["accelerate", "basic", "basic"]


def test_environment_tables_hold_variables() -> None:
    (site,) = sites("pixi.toml", '[activation.env]\nOMP_NUM_THREADS = "4"\n')
    assert (site.role, site.quoted) == (Role.VARIABLE, True)


def test_a_broken_file_is_read_by_its_lines() -> None:
    assert literals("c.toml", "[a\n[train]\nnum_workers = 4 # 3\nx = = 2\npin_memory = true\n") == [
        ("num_workers", "4"),
        ("pin_memory", "true"),
    ]


VALUES = st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8) | st.lists(st.integers(0, 9), max_size=3)
TABLES = st.recursive(
    st.dictionaries(st.sampled_from(["a", "b c", "ä", "x-y"]), VALUES, max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from(["t", "u.v", "w"]), inner | st.lists(inner, min_size=1, max_size=2), max_size=2
    ),
    max_leaves=5,
)


@given(TABLES, st.integers(0, 64))
def test_the_reported_span_is_what_the_parser_reads(tables: dict[str, object], count: int) -> None:
    tables = {**tables, "num_workers": count, "data": {"num_workers": count}}
    source = Source.of("c.toml", tomlkit.dumps(tables).encode())
    assert source is not None
    document = document_of(source)
    assert document is not None
    found = [entry for entry in document.entries if entry.key == "num_workers"]
    assert [entry.path for entry in found] == [("num_workers",), ("data", "num_workers")]
    changed = source.utf8
    for entry in reversed(found):
        changed = changed[: entry.start] + b"777" + changed[entry.end :]
    assert tomllib.loads(changed.decode()) == {**tables, "num_workers": 777, "data": {"num_workers": 777}}
