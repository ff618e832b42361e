"""Where memory and descriptors are scarce: a small /dev/shm, a low descriptor limit, batches of very different sizes.

The programs run under torch's loader as well: a limit that torch gets by with would show nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import keepfed.loader.api as keepfed

PROGRAM = Path(__file__).parent / "programs" / "scarce.py"
MIB = 1 << 20
WAIT_S = 50


@cache
def small_shm(*, full: bool = False) -> tuple[str, ...] | str:
    """How to run a command with a /dev/shm of 1 MB, or with one that has no byte left; or why it cannot be done here."""
    if shutil.which("unshare") is None:
        return "there is no unshare(1) here"
    why = ""
    for unshare in (("unshare", "-m"), ("unshare", "-rm")):
        fill = "{ dd if=/dev/zero of=/dev/shm/full bs=64k 2>/dev/null || test -s /dev/shm/full; } &&" if full else ""
        script = f'mount -t tmpfs -o size=1m tmpfs /dev/shm && {fill} exec "$@"'
        command = (*unshare, "sh", "-c", script, "sh")
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False, timeout=WAIT_S)
        if tried.returncode == 0:
            return command
        why = tried.stderr.strip()
    return f"a mount namespace is not permitted here: {why}"


def run(*arguments: str, before: tuple[str, ...] = ()) -> str:
    """The last line that the program printed, or all that it wrote to stderr where it failed."""
    command = [*before, sys.executable, str(PROGRAM), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        return "it hung"
    return done.stdout.strip().rpartition("\n")[2] if done.returncode == 0 else done.stderr


@pytest.mark.timeout(3 * WAIT_S)
def test_a_shm_of_one_megabyte_is_enough() -> None:
    command = small_shm()
    if isinstance(command, str):
        pytest.skip(command)
    assert run("keepfed", before=command) == "12 of 12 batches are right"
    assert re.search(r"shared memory|bus error|timed out|it hung", run("torch", before=command))


@pytest.mark.timeout(4 * WAIT_S)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_full_shm_is_enough_for_batches_and_for_tensors_of_the_dataset(method: str) -> None:
    command = small_shm(full=True)
    if isinstance(command, str):
        pytest.skip(command)
    arguments = ("--batches", "3", "--method", method, "--tensor")
    assert run("keepfed", *arguments, before=command) == "3 of 3 batches are right"


@pytest.mark.timeout(3 * WAIT_S)
def test_48_descriptors_are_enough_to_keep_every_batch() -> None:
    arguments = ("--descriptors", "48", "--keep", "--fields", "8")
    assert run("keepfed", *arguments) == "12 of 12 batches are right"
    assert re.search(r"Too many open files|received \d+ items of ancdata|it hung", run("torch", *arguments))


class Uneven(Dataset[Any]):
    """Small samples of many lengths, and one of 64 MiB."""

    outlier = 6

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((16 * MIB if index == self.outlier else 20_000 + index * 7919 % 60_000,), float(index))


def test_one_outlier_among_small_batches_holds_its_memory_for_a_while_only() -> None:
    iterator: Any = iter(keepfed.DataLoader(Uneven(), batch_size=None, num_workers=1))
    most = last = 0
    for number, batch in enumerate(iterator):
        assert batch[0] == number
        assert batch.min() == batch.max()
        last = iterator.transport_bytes()
        most = max(most, last)
    assert 64 * MIB < most < 64 * MIB + 8 * MIB
    assert last < 8 * MIB
