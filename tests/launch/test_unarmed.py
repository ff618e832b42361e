"""Why nothing was armed: one sentence with the place and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepfed.feed import RunConfig, RunFolder
from keepfed.launch.unarmed import explain_unarmed
from keepfed.text import choose_language


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder in which nothing was reported."""
    return RunFolder.create(tmp_path, RunConfig())


def report(folder: RunFolder, executable: str, version: str, *, torch: bool, error: str = "") -> None:
    line = {"pid": 1, "executable": executable, "version": version, "torch": torch, "error": error}
    with (folder.path / "unarmed.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def explain(folder: RunFolder, command: str, start: Path | None = None) -> str:
    reason = explain_unarmed(folder, command.split(), start)
    assert "\n" not in reason
    return reason


def test_an_interpreter_without_keepfed_is_named_with_its_pip_line(folder: RunFolder) -> None:
    report(folder, "/usr/bin/python3", "3.12.1", torch=False)
    report(folder, "/env/bin/python", "3.11.4", torch=True)
    report(folder, "/usr/bin/python3", "3.12.1", torch=False)
    assert explain(folder, "bash train.sh") == (
        "/env/bin/python (Python 3.11.4) has no keepfed; install it there: /env/bin/python -m pip install keepfed"
    )


def test_an_interpreter_below_the_floor_is_not_told_to_install(folder: RunFolder) -> None:
    report(folder, "/env/bin/python", "3.9.18", torch=True)
    reason = explain(folder, "python train.py")
    assert "Python 3.9.18" in reason
    assert "3.11" in reason
    assert "pip" not in reason


def test_an_arm_that_failed_is_repeated(folder: RunFolder) -> None:
    report(folder, "/env/bin/python", "3.11.4", torch=True, error="ImportError: libtorch")
    assert "ImportError: libtorch" in explain(folder, "python train.py")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sudo -E python train.py --lr 1", "sudo keepfed run -- python train.py --lr 1"),
        ("docker run --gpus all image python train.py", "keepfed run -- python train.py"),
        ("/usr/bin/podman exec it python3 train.py", "in a container"),
        ("sbatch job.sh", "write this line into the job script: keepfed run -- ..."),
        ("srun -N 1 python train.py", "keepfed run -- python train.py"),
        ("nohup nice -n 5 sudo python train.py", "sudo keepfed run -- python train.py"),
        ("env A=1 ssh host torchrun train.py", "keepfed run -- torchrun train.py"),
        ("python -S train.py", "-S starts without site"),
        ("python3.11 -uIS -m train", "-S starts without site"),
        ("python -I train.py", "-I ignores PYTHONPATH"),
        ("time python -W ignore -E train.py", "-E ignores PYTHONPATH"),
        ("env PYTHONPATH=src python train.py", "PYTHONPATH=src replaces the PYTHONPATH"),
    ],
)
def test_the_command_line_shows_it(folder: RunFolder, command: str, said: str) -> None:
    assert said in explain(folder, command)


@pytest.mark.parametrize(
    "command",
    [
        "python train.py -S",
        "python -c pass -I",
        "python -W -S train.py",
        "python train.py sudo docker",
        "env PYTHONPATH=src:$PYTHONPATH python train.py",
        "make train",
    ],
)
def test_what_only_looks_alike_is_not_blamed(folder: RunFolder, command: str) -> None:
    assert explain(folder, command) == "no torch DataLoader was iterated in this program"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("export PYTHONPATH=src", "train.sh:3: PYTHONPATH=src replaces"),
        ('export CUDA_VISIBLE_DEVICES=0 PYTHONPATH="$PWD/src"', 'train.sh:3: PYTHONPATH="$PWD/src" replaces'),
        ("cd x && PYTHONPATH=. python train.py", "train.sh:3: PYTHONPATH=. replaces"),
        ("sudo python train.py", "train.sh:3: sudo starts the program without this environment"),
        ("cd x; docker run image python train.py | tee log", "train.sh:3: docker starts the program in a container"),
        ("exec python -S train.py", "train.sh:3: python -S starts without site"),
    ],
)
def test_a_shell_script_is_read_and_the_line_named(folder: RunFolder, tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "train.sh").write_text(f"#!/bin/bash\n# export PYTHONPATH=old; sudo\n{line}\n", encoding="utf-8")
    for command in ("bash -x train.sh --lr 1", "./train.sh", "nohup sh train.sh"):
        reason = explain(folder, command, tmp_path)
        assert said in reason.removeprefix("./")


@pytest.mark.parametrize(
    "text",
    [
        "export PYTHONPATH=src:$PYTHONPATH\n",
        'PYTHONPATH="${PYTHONPATH:-}:src" python train.py\n',
        "echo 'sudo\nx' \\\n",
        "",
    ],
)
def test_a_script_that_keeps_the_path_is_not_blamed(folder: RunFolder, tmp_path: Path, text: str) -> None:
    (tmp_path / "train.sh").write_text(text, encoding="utf-8")
    assert explain(folder, "bash train.sh", tmp_path) == "no torch DataLoader was iterated in this program"


def test_a_script_that_cannot_be_read_is_passed_over(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "train.sh").write_bytes(b"\xff\xfe\x00export PYTHONPATH=src\n")
    assert "PYTHONPATH=src" in explain(folder, "bash train.sh", tmp_path)
    assert explain(folder, "bash missing.sh", tmp_path) == "no torch DataLoader was iterated in this program"
    assert explain(folder, "bash", tmp_path) == "no torch DataLoader was iterated in this program"
    assert explain(folder, "", tmp_path) == "no torch DataLoader was iterated in this program"


def test_a_replaced_path_outranks_an_interpreter_that_has_no_torch(folder: RunFolder, tmp_path: Path) -> None:
    """A helper script under the system's Python reports itself; the trainer, whose path was replaced, cannot."""
    report(folder, "/usr/bin/python3", "3.12.1", torch=False)
    (tmp_path / "train.sh").write_text("export PYTHONPATH=src\n", encoding="utf-8")
    assert "train.sh:1: PYTHONPATH=src replaces" in explain(folder, "bash train.sh", tmp_path)
    assert "/usr/bin/python3 (Python 3.12.1) has no keepfed" in explain(folder, "bash other.sh", tmp_path)


def test_it_speaks_the_readers_language(folder: RunFolder) -> None:
    choose_language("zh")
    try:
        assert "DataLoader" in explain(folder, "make")
        assert "没有迭代" in explain(folder, "make")
    finally:
        choose_language(None)
