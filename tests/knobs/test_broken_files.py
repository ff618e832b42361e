"""No reader fails on a broken file, or takes for ever, and whatever it finds in one stands where it says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.knobs.reading import read_or_lines
from keepfed.knobs.source import Source

WHOLE = {
    "a.py": 'p.add_argument("-j", "--workers", default=4, type=int)\nDataLoader(d, num_workers=args.workers, pin_memory=True)\n',
    "a.ipynb": '{"cells": [{"cell_type": "code", "source": ["DataLoader(d,\\n", " num_workers=4)\\n"]}], "nbformat": 4}',
    "a.json": '{"data": {"num_workers": 4, // cores\n "pin_memory": true}, "list": [{"num_workers": "0"}]}',
    "a.yaml": "defaults: [data]\ndata: &d\n  num_workers: 4 # cores\n  pin_memory: ${x.y}\nval: *d\n---\nnum_workers: '2'\n",
    "compose.yaml": "services:\n  a:\n    shm_size: '2gb'\n    environment: [OMP_NUM_THREADS=4]\n    command: >\n      python t.py -j 4\n",
    "a.toml": '[data]\nnum_workers = 4 # cores\nshm_size = """2g"""\nx = {num_workers = 3}\n',
    "a.ini": '[data]\nnum_workers: 4 ; cores\nenvironment=OMP_NUM_THREADS="3",A=1\n',
    "opt.txt": "----- Options -----\n  dataroot: ./d\n  num_threads: 4  \t[default: 8]\n----- End -----\n",
    "a.sh": '#SBATCH -c 8\nN=${N:-4}\ncat <<EOF > x.py\nDataLoader(d, num_workers=$N)\nEOF\npython train.py --workers "$N" \\\n  a.num_workers=3\n',
    "Makefile": "N ?= 4\ntrain:\n\tpython train.py --num-workers $(N) && docker run --shm-size=2g x\n",
    "Dockerfile": 'ENV OMP_NUM_THREADS=4 \\\n  A=1\nCMD ["python", "train.py", "--num-workers", "4"]\n',
    ".env": "export OMP_NUM_THREADS='4' # one\nNUM_WORKERS=2\n",
    "a.bat": "set N=4\r\npython train.py ^\r\n --num-workers %N%\r\n",
    "a.ps1": "$workers = 6 <# six #>\npython train.py --config=tools/x.py --workers $workers\n",
    "a.yaml.tpl": "num_workers: {{ .Values.workers }}\n{{- if .x }}\nshm_size: 2g\n{{ end }}\n",
}  # fmt: skip
PIECES = (*"\"'{}[]()\\\n\t #$%=:-,;&|<>`@!*\0", "\r\n", "<<EOF\n", '"""', "--", "${", "$((", "{{", "数", "😀", "\x0c")


@st.composite
def broken(draw: st.DrawFn, text: str) -> str:
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        to = draw(st.integers(at, min(len(text), at + 30)))
        text = text[:at] + draw(st.sampled_from(["", text[at:to] * 2, *PIECES])) + text[to:]
    return text


@pytest.mark.parametrize("name", WHOLE)
def test_a_broken_file_is_read_as_far_as_it_goes(name: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(broken(WHOLE[name]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]))
    def holds(text: str, encoding: str) -> None:
        data = text.encode(encoding)
        source = Source.of(name, data)
        if source is None:
            return
        sites, problem = read_or_lines(source)
        assert problem != "knobs.skipped_failed"
        for site in sites:
            assert data[site.span.start : site.span.end] == source.encoded(site.value)
            assert source.place(len(source.text[: site_offset(source, site.span.start)].encode())) == (
                site.line,
                site.column,
            )
            assert site.target is None or site.span.start <= site.target.start <= site.target.end <= site.span.end

    holds()


def site_offset(source: Source, on_disk: int) -> int:
    """The number of characters before a byte on disk."""
    return len(source.data[source.mark : on_disk].decode(source.encoding))


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_is_read_well(name: str) -> None:
    source = Source.of(name, WHOLE[name].encode())
    assert source is not None
    sites, problem = read_or_lines(source)
    assert sites
    assert problem == ""
