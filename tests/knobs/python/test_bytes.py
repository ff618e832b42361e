from __future__ import annotations

import ast
import io
import tokenize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.knobs import reading
from keepfed.knobs.source import Source
from tests.knobs.marked import compare, plain

TEXT = "# {} num_workers = 9\nloader = DataLoader(d, num_workers=⟨4⟩, pin_memory=⟨True⟩)  # 8 {}\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gbk", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("final", [True, False])
def test_spans_are_exact_in_every_encoding_and_with_every_line_end(encoding: str, end: str, final: bool) -> None:
    word = "naïve" if encoding == "latin-1" else "工作进程"
    marked = TEXT.format(word, word)
    text = plain(marked if final else marked.rstrip("\n")).replace("\n", end)
    data = text.encode(encoding)
    source = Source.of("a.py", data)
    assert source is not None
    values = [(data[site.span.start : site.span.end], source.encoded(site.value)) for site in reading.read(source)]
    assert values == [(source.encoded("4"),) * 2, (source.encoded("True"),) * 2]


def test_lone_carriage_returns_and_form_feeds_shift_nothing() -> None:
    compare("a.py", "x = 1\ry = '\x0c'\n\x0c\nnum_workers = ⟨4⟩\n")
    compare("a.py", "x = '''a\rb\u2028c'''\nnum_workers = ⟨4⟩\n")


def test_a_coding_cookie_does_not_change_where_things_are() -> None:
    text = "# -*- coding: latin-1 -*-\n# 工作\nnum_workers = ⟨4⟩\n"
    compare("a.py", text)


NAMES = st.sampled_from(["num_workers", "NUM_WORKERS", "workers_per_gpu", "pin_memory", "prefetch_factor", "x"])
VALUES = st.sampled_from(
    ["4", "0", "True", "None", "args.n", "min(8, n)", "'4'", "[4]", "n // 2", "4 if a else 0", "-1", "0x10"]
)
TEMPLATES = st.sampled_from(
    [
        "{n} = {v}",
        "x = DataLoader(d, {n}={v})",
        "kw = {{'{n}': {v}, 'b': 3}}",
        "cfg.data.{n} = {v}",
        "cfg['{n}'] = {v}",
        "p.add_argument('--{n}', default={v}, help='{n}={v}')",
        "def f(a, {n}={v}): pass",
        "class A:\n    {n}: int = {v}",
        "# {n} = {v}",
        "'''{n} = {v}'''",
        "print('{n}={v}'.format(1))",
        "工 = dict({n}={v})",
    ]
)
LINES = st.builds(lambda template, n, v: template.format(n=n, v=v.replace("'", '"')), TEMPLATES, NAMES, VALUES)


@given(st.lists(LINES, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_what_is_reported_is_code_and_exactly_its_bytes(lines: list[str], end: str) -> None:
    text = end.join(lines) + end
    try:
        ast.parse(text)
    except SyntaxError:
        return
    source = Source.of("a.py", text.encode())
    assert source is not None
    words = [
        (token.start, token.end)
        for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline)
        if token.type in {tokenize.COMMENT, tokenize.STRING}
    ]
    for site in reading.read(source):
        assert source.data[site.span.start : site.span.end].decode() == site.value
        ast.parse(f"({site.value})")
        at = (site.line, site.column - 1)
        inside = [(start, stop) for start, stop in words if start <= at < stop]
        whole = [1 for start, stop in inside if start == at]
        assert not inside or site.quoted or whole or site.kind != "literal"
        if site.quoted:
            (start, stop) = inside[0]
            assert (start[1] + 1, stop[1] - 1) == (at[1], at[1] + len(site.value))
