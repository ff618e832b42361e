from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepfed.knobs import reading
from keepfed.knobs.site import KnobSite
from keepfed.knobs.source import Source
from tests.knobs.marked import sites_in


def notebook(*cells: str | list[str], indent: int | None = 1, ascii_only: bool = True) -> str:
    """A notebook with these code cells, between a markdown cell and outputs that say the same."""
    told = "num_workers=99"
    parts = [
        {"cell_type": "markdown", "source": [told, "DataLoader(d, num_workers=99)"]},
        *(
            {
                "cell_type": "code",
                "execution_count": 3,
                "outputs": [{"name": "stdout", "text": [told, "DataLoader(d, num_workers=99)\n"]}],
                "source": cell if isinstance(cell, list) else cell.splitlines(keepends=True),
            }
            for cell in cells
        ),
    ]
    return json.dumps({"cells": parts, "nbformat": 4}, indent=indent, ensure_ascii=ascii_only)


def found(text: str, encoding: str = "utf-8") -> list[KnobSite]:
    source = Source.of("a.ipynb", text.encode(encoding))
    assert source is not None
    sites = reading.read(source)
    for site in sites:
        assert source.data[site.span.start : site.span.end] == source.encoded(site.value)
        if site.target is not None:
            assert site.span.start <= site.target.start < site.target.end <= site.span.end
    return sites


def values(text: str) -> list[tuple[str, str]]:
    return [(site.knob, site.value) for site in found(text)]


LOADER = "loader = DataLoader(data, num_workers=4)\n"


@pytest.mark.parametrize("indent", [None, 1, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_value_in_a_code_cell_is_found_at_its_own_bytes(indent: int | None, encoding: str) -> None:
    text = notebook('x = "\\té工"  # "工作"\n' + LOADER, indent=indent, ascii_only=indent == 1)
    (site,) = found(text, encoding)
    assert site.value == "4"
    assert text.split("\n")[site.line - 1][site.column - 1] == "4"


def test_a_cell_that_is_one_string_is_read_as_well() -> None:
    text = json.dumps({"cells": [{"cell_type": "code", "source": "# 😀 \\ud83d\n" + LOADER}]})
    assert values(text) == [("num_workers", "4")]


def test_cells_are_one_program() -> None:
    text = notebook("!pip install x\nworkers = 8\n", "%time DataLoader(data, num_workers=workers)\n")
    assert values(text) == [("num_workers", "8"), ("num_workers", "workers")]


def test_a_mistake_in_one_cell_hides_nothing_in_the_others() -> None:
    text = notebook(
        "x = (1,\n",
        "workers = 8\n",
        'y = """\n',
        "DataLoader(data, num_workers=workers)\n",
        "print 3\nnum_workers = 2\n",
    )
    assert values(text) == [("num_workers", "8"), ("num_workers", "workers"), ("num_workers", "2")]


def test_lines_for_ipython_do_not_hide_the_code_around_them() -> None:
    cell = (
        "%matplotlib inline\n%cd /x\n!ls \\\n  -l\nfor x in y:\n    !echo {x}\n    %time z = DataLoader(d, num_workers=3)\n?x\n"
        + LOADER
    )
    assert values(notebook(cell)) == [("num_workers", "3"), ("num_workers", "4")]


def test_a_cell_that_writes_a_file_is_read_as_that_file() -> None:
    text = notebook(
        "%%writefile train.py\n" + LOADER, '%%writefile "conf/a.json"\n{"num_workers": 6}\n', "%%html\nnum_workers=7\n"
    )
    assert ("num_workers", "4") in values(text)
    assert ("num_workers", "7") not in values(text)


def test_shell_lines_and_cells_are_read_by_the_shell_reader() -> None:
    cells = (
        "!python train.py --num_workers 5\n",
        "%%bash\npython train.py --num_workers 6\n",
        "%env OMP_NUM_THREADS=2\n",
    )
    assert values(notebook(*cells)) == [("num_workers", "5"), ("num_workers", "6"), ("threads_env", "2")]


def test_an_expression_over_several_strings_keeps_its_number() -> None:
    text = notebook('n = min(\n  os.cpu_count(),\n  8)\nDataLoader(d, num_workers=n, pin_memory=cfg["pin_memory"])\n')
    first, _, third = found(text)
    assert (first.kind, third.kind) == ("expression", "reference")
    assert first.target is not None
    assert text[first.target.start : first.target.end] == "8"
    assert third.value == 'cfg[\\"pin_memory\\"]'


def test_outputs_and_markdown_are_never_read() -> None:
    assert values(notebook("print(1)\n")) == []


def test_old_notebooks_keep_their_cells_in_worksheets() -> None:
    text = json.dumps({"worksheets": [{"cells": [{"cell_type": "code", "input": [LOADER]}]}], "nbformat": 3})
    assert values(text) == [("num_workers", "4")]


def test_what_is_no_notebook_is_read_line_by_line() -> None:
    assert [site.value for site in sites_in("a.ipynb", "num_workers = 4\n")] in ([], ["4"])


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=30), st.booleans())
def test_any_text_before_a_value_leaves_its_place_exact(before: str, ascii_only: bool) -> None:
    quoted = json.dumps(before)
    text = notebook(f"x = {quoted}\n{LOADER}", ascii_only=ascii_only)
    (site,) = found(text)
    assert site.value == "4"
