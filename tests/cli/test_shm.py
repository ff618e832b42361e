"""`keepfed shm` as a command: its answer, its JSON object, its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keepfed.cli.main import main
from keepfed.text import choose_language

COMPOSE = "services:\n  trainer:\n    image: trainer\n    shm_size: {size}\n"
SMALL = 'mount -t tmpfs -o size=4m tmpfs /dev/shm && exec "$0" "$@"'
TRAIN = "from torch.utils.data import DataLoader\nloader = DataLoader(data, num_workers={workers}, prefetch_factor=4)\n"


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["shm", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_a_small_one_is_told_with_ways_out_and_exit_code_1() -> None:
    """In a mount namespace with a /dev/shm of 4 MB, as in a container."""
    program = 'import sys; from keepfed.cli.main import main; sys.exit(main(["shm", "--num-workers", "4"]))'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", SMALL, sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace of one's own here: {done.stderr.strip()}")
    assert done.returncode == 1, done.stderr
    assert "/dev/shm here: 4 MiB, 0 B used (0%)" in done.stdout
    assert "too small" in done.stdout
    assert "keepfed.DataLoader" in done.stdout
    assert "System V" in done.stdout


def test_without_workers_its_size_does_not_matter(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This machine's /dev/shm may hold tensors of whatever else runs, and what is seen there goes before what is given.
    monkeypatch.setattr("keepfed.cli.shm.looking._seen", lambda loading, *_: loading)
    code, answer = asked(capsys, "--num-workers", "0")
    assert (code, answer["verdict"], answer["travel"]) == (0, "not_needed", "no_workers")


def test_needed_is_computed_from_what_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    _, answer = asked(capsys, "--num-workers", "2", "--prefetch-factor", "3", "--batch-bytes", "1m")
    assert answer["schema"] == "keepfed.shm/1"
    assert answer["needed"] == {
        "bytes": 8 << 20,
        "num_workers": 2,
        "prefetch_factor": 3,
        "batch_bytes": 1 << 20,
        "source": "computed",
    }


def test_this_process_is_looked_at_by_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    _, answer = asked(capsys, "--pid", str(os.getpid()))
    assert answer["subject"]["kind"] == "pid"
    assert answer["size_bytes"] == (shm := os.statvfs("/dev/shm")).f_blocks * shm.f_frsize


def test_a_process_that_is_gone_cannot_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert main(["shm", "--pid", str(process.pid)]) == 3
    assert str(process.pid) in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--num-workers", "-1"], ["--batch-bytes", "much"], ["--pid", "1", "--container", "x"]]
)
def test_a_wrong_option_is_explained(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shm", *words]) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(("size", "code", "verdict"), [("2g", 0, "enough"), ("64m", 1, "too_small")])
def test_files_are_judged_by_what_counts_in_them(
    size: str, code: int, verdict: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE.format(size=size), encoding="utf-8")
    (tmp_path / "train.py").write_text(TRAIN.format(workers=4), encoding="utf-8")
    found, answer = asked(capsys, "--batch-bytes", "64m", str(tmp_path))
    assert (found, answer["verdict"]) == (code, verdict)
    assert answer["needed"]["bytes"] == 4 * 5 * 64 << 20
    assert {site["knob"] for site in answer["sites"]} == {"num_workers", "prefetch_factor", "shm_size"}
    if code:
        assert "keepfed set shm_size=2g" in answer["ways"][0]["text"]


def test_a_container_without_a_written_size_gets_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  a:\n    image: trainer\n    environment: [OMP_NUM_THREADS=1]\n"
    )
    code, answer = asked(capsys, "--num-workers", "4", str(tmp_path))
    assert (code, answer["size_bytes"]) == (1, 64 << 20)
    assert "default" in answer["notes"][0]


def test_the_answer_comes_in_chinese_too(capsys: pytest.CaptureFixture[str]) -> None:
    choose_language("zh")
    main(["--lang", "zh", "shm", "--num-workers", "0"])
    assert "结论" in capsys.readouterr().out


def test_no_engine_at_all_is_told_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert main(["shm", "--container", "trainer"]) == 3
    told = capsys.readouterr().err
    assert "DOCKER_HOST: There is no engine's socket at /nowhere/docker.sock" in told
    assert "Start the engine" in told
