"""Whatever a reader of command lines calls a literal can be replaced: the script stays a script, and says the new value."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.knobs import reading
from keepfed.knobs.site import Kind, KnobSite
from keepfed.knobs.source import Source

_BASH = shutil.which("bash")

_COUNTS = st.integers(0, 64).map(str)
_NAMES = st.sampled_from(["NUM_WORKERS", "num_workers", "DATALOADER_WORKERS", "SHM_SIZE", "OMP_NUM_THREADS"])
_QUOTES = st.sampled_from(["", '"', "'"])
_FLAGS = st.sampled_from(
    ["--num_workers ", "--num-workers=", "--workers ", "-j ", "-j", "data.num_workers=", "++x.workers="]
)
_PROGRAMS = st.sampled_from(
    [
        "python train.py --epochs 3",
        "torchrun --nproc_per_node 2 train.py",
        "srun -c 8 python -u main.py --gpu 0",
        "./train.sh",
    ]
)
_JOINTS = st.sampled_from([" ", " \\\n    ", "  "])
_OTHERS = st.sampled_from(
    [
        "# 注释 --num_workers 8\n",
        'echo "--num_workers 8"\n',
        "make -j8 && cd build\n",
        "\n",
        "if true; then\n  : # nothing\nfi\n",
        "cat <<EOF\nnum_workers: 4 $NUM_WORKERS\nEOF\n",
        "args=(--lr 0.1 --num_workers 2)\n",
        'run() { local n="${1:-4}"; python a.py -j "$n" --gpu 0; }\n',
        "#SBATCH --cpus-per-task=8  # 4 before\n",
        "docker run --rm --shm-size 8g image bash -c 'python train.py --workers 3'\n",
    ]
)


@st.composite
def commands(draw: st.DrawFn) -> str:
    """A command that starts a program with some settings."""
    flags = [f"{draw(_FLAGS)}{(quote := draw(_QUOTES))}{draw(_COUNTS)}{quote}" for _ in range(draw(st.integers(1, 3)))]
    return draw(_PROGRAMS) + "".join(draw(_JOINTS) + flag for flag in flags) + "\n"


@st.composite
def assignments(draw: st.DrawFn) -> str:
    """A variable, with or without a fallback."""
    name, value, quote = draw(_NAMES), draw(_COUNTS), draw(_QUOTES)
    form = draw(
        st.sampled_from(["{n}={q}{v}{q}", "export {n}={q}{v}{q}", "{n}=${{{n}:-{v}}}", 'readonly {n}="${{1:-{v}}}"'])
    )
    return form.format(n=name, v=value, q=quote) + "\n"


_SCRIPTS = st.lists(st.one_of(commands(), assignments(), _OTHERS), min_size=1, max_size=8).map("".join)


def literals(data: bytes) -> list[KnobSite]:
    """The literal settings of a script."""
    source = Source.of("run.sh", data)
    assert source is not None
    found = reading.read(source)
    for site in found:
        assert data[site.span.start : site.span.end] == source.encoded(site.value)
    return [site for site in found if site.target is not None]


def replaced(data: bytes, sites: list[KnobSite], value: str) -> bytes:
    """Every target with the new value, and every other byte as it was."""
    for site in reversed(sites):
        assert site.target is not None
        data = data[: site.target.start] + value.encode() + data[site.target.end :]
    return data


@given(_SCRIPTS, st.sampled_from(["", "\r\n", "BOM", "cut"]), st.integers(100, 128).map(str))
@settings(max_examples=150, deadline=None)
def test_a_new_value_is_found_where_the_old_one_was(script: str, variant: str, value: str) -> None:
    data = script.encode()
    if variant == "\r\n":
        data = data.replace(b"\n", b"\r\n")
    elif variant == "BOM":
        data = b"\xef\xbb\xbf" + data
    elif variant == "cut":
        data = data.removesuffix(b"\n")
    before = literals(data)
    changed = replaced(data, before, value)
    after = literals(changed)
    assert [(site.line, site.spelling, site.kind) for site in after] == [
        (site.line, site.spelling, site.kind) for site in before
    ]
    assert all(site.value == value for site in after)
    assert replaced(changed, after, "1") == replaced(data, before, "1")


@pytest.mark.skipif(_BASH is None, reason="no bash")
@given(_SCRIPTS)
@settings(max_examples=25, deadline=None)
def test_bash_accepts_the_changed_script(script: str) -> None:
    changed = replaced(script.encode(), literals(script.encode()), "16")
    for text in (script.encode(), changed):
        checked = subprocess.run([_BASH or "bash", "-n"], input=text, capture_output=True, check=False, timeout=60)
        assert checked.returncode == 0, checked.stderr


@given(st.text(st.sampled_from("num_workers= -\n\\\"'$`(){}<>#;|&=8EOF\tpython train.py--"), max_size=80))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_a_reader_fail(text: str) -> None:
    for name in ("run.sh", "Makefile", "Dockerfile", ".env", "job.slurm"):
        source = Source.of(name, text.encode())
        assert source is not None
        for site in reading.read(source):
            assert source.data[site.span.start : site.span.end] == source.encoded(site.value)
            assert site.kind is not Kind.LITERAL or site.target == site.span
