"""Documents of every form, drawn at random: settings among remarks, other keys, odd line ends and encodings."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from hypothesis import strategies as st

# File name, how a remark is written there, what has to stand before and behind, lines with one setting each, other lines.
_FORMS = {
    "train.py": (
        "# {}",
        "",
        "",
        [
            "loader = DataLoader(data, num_workers={n}, pin_memory={b})",
            "test = DataLoader(data, batch_size=8, num_workers = {n} )  # not 7",
            "kwargs = dict(num_workers={n}, prefetch_factor={p})\nmore = DataLoader(data, **kwargs)",
            'os.environ["OMP_NUM_THREADS"] = "{p}"',
        ],
        ["x = 4", 'print("num_workers=4")', "def f():\n    return 8"],
    ),
    "config.yaml": (
        "# {}",
        "",
        "",
        [
            "part{i}:\n  num_workers: {n}  # was 4",
            "part{i}:\n  pin_memory: {b}",
            "part{i}: {{num_workers: '{n}', batch_size: 4}}",
        ],
        ["other{i}: 4", "text{i}: 'num_workers'"],
    ),
    "config.jsonc": (
        "// {}",
        "{",
        '"end": 0}',
        ['"num_workers{i}": 4, "num_workers": {n},', '"data{i}": {{"num_workers": "{n}", "pin_memory": {j}}},'],
        ['"batch_size{i}": 4,', '"text{i}": "num_workers: 4",'],
    ),
    "config.toml": (
        "# {}",
        "",
        "",
        ["[part{i}]\nnum_workers = {n}   # 8 | 16\npin_memory = {j}"],
        ["[other{i}]\nbatch_size = 4"],
    ),
    "config.ini": ("; {}", "[a]", "", ["[part{i}]\nnum_workers = {n}"], ["[other{i}]\nbatch_size = 4"]),
    "run.sh": (
        "# {}",
        "#!/bin/sh",
        "",
        [
            "export OMP_NUM_THREADS={p}",
            "python train.py --num_workers {n} --lr 0.1",
            "python train.py --workers={n} \\\n  --epochs 8",
            "docker run --shm-size={n1}g --rm image python x.py",
        ],
        ["echo 4", "ls"],
    ),
    "Dockerfile": (
        "# {}",
        "FROM base",
        "",
        ["ENV OMP_NUM_THREADS={p}", 'CMD ["python", "train.py", "--num_workers", "{n}"]'],
        ["RUN echo 4"],
    ),
    "compose.yaml": (
        "# {}",
        "services:",
        "",
        [
            '  s{i}:\n    image: x\n    shm_size: "{n1}gb"',
            "  s{i}:\n    image: x\n    environment:\n      - OMP_NUM_THREADS={p}",
        ],
        ["  o{i}:\n    image: y:4"],
    ),
    ".env": ("# {}", "", "", ["OMP_NUM_THREADS={p}", 'MKL_NUM_THREADS="{p}"'], ["TOKEN=4"]),
    "opt.txt": (
        "{}",
        "----------------- Options ---------------",
        "----------------- End -------------------",
        ["{:>25}: {:<30}\t[default: 4]".format("num_threads", "{n}"), "              num_threads: {n}"],
        ["           cv_num_threads: 4", "                    name: x"],
    ),
    "book.ipynb": (
        '    "# {}\\n",',
        '{\n "cells": [\n  {\n   "cell_type": "code",\n   "metadata": {},\n   "outputs": [],\n   "source": [',
        '    "pass"\n   ]\n  }\n ],\n "metadata": {},\n "nbformat": 4,\n "nbformat_minor": 4\n}',
        ['    "loader{i} = DataLoader(data, num_workers={n}, pin_memory={b})\\n",'],
        ['    "x = 4\\n",'],
    ),
    "Makefile": (
        "# {}",
        "all:",
        "",
        ["\tpython train.py --num-workers {n}", "\tdocker run --shm-size={n1}gb image python x.py"],
        ["\tls"],
    ),
    "job.slurm": (
        "# {}",
        "#!/bin/bash",
        "",
        ["#SBATCH --cpus-per-task={n1}  # 8 of 32", "#SBATCH -c {n1}"],
        ["#SBATCH -N 4", "ls"],
    ),
    "train.bat": (":: {}", "@echo off", "", ["python train.py --num-workers {n} ^\n  --lr 1"], ["set A=4"]),
}
_REMARKS = ("num_workers=4", "进程数 num_workers: 8", "größer", "a\x0cb", "7\r8", "")
_MARKS = {"utf-8-sig": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}


@dataclass(frozen=True, slots=True)
class Document:
    """One file."""

    name: str
    data: bytes
    encoding: str


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """A file of any form, in any encoding that has its characters."""
    name = draw(st.sampled_from(sorted(_FORMS)))
    remark, head, tail, settings, others = _FORMS[name]
    lines = [head] if head else []
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["setting", "setting", "other", "remark"]))
        if kind == "remark":
            lines.append(remark.format(draw(st.sampled_from(_REMARKS))))
        else:
            pattern = draw(st.sampled_from(settings if kind == "setting" else others))
            lines.append(_filled(draw, pattern, number) if kind == "setting" else pattern.replace("{i}", str(number)))
    if tail:
        lines.append(tail)
    eol = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = "\n".join(lines).replace("\n", eol) + draw(st.sampled_from([eol, ""]))
    if name in {"config.ini", ".env"} and draw(st.booleans()):
        text = text.replace("=", "= ").replace("=  ", "= ") if name == "config.ini" else text
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "gb18030", "latin-1"]))
    try:
        data = text.encode("utf-8" if encoding == "utf-8-sig" else encoding)
    except UnicodeEncodeError:
        encoding, data = "utf-8", text.encode()
    return Document(name, _MARKS.get(encoding, b"") + data, encoding)


def _filled(draw: st.DrawFn, pattern: str, number: int) -> str:
    yes = draw(st.booleans())
    return pattern.format(
        i=number,
        n=draw(st.integers(0, 64)),
        n1=draw(st.integers(1, 64)),
        p=draw(st.integers(1, 64)),
        b=draw(st.sampled_from(["True", "False"])),
        j=str(yes).lower(),
    )
