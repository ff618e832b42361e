"""Programs that know nothing of keepfed, taken over by the hook; in interpreters of their own, with real torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from keepfed.events import Ended, Joined, LoaderSeen
from keepfed.feed import RunConfig, RunFolder

SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = """
import sys
{first}
import torch
from torch.utils.data import DataLoader
{before}
train = DataLoader(list(range(64)), batch_size=4, num_workers=1)
check = DataLoader(list(range(8)), batch_size=4)
for epoch in range(2):
    print(sum(int(batch.sum()) for batch in train), sum(int(batch.sum()) for batch in check))
{after}
"""


def program(
    folder: Path, *, first: str = "", before: str = "", after: str = "", config: RunConfig | None = None
) -> tuple[str, list[object]]:
    """Run it below a run; its output and what it reported."""
    run = RunFolder.create(folder, config or RunConfig())
    text = PROGRAM.format(first="from keepfed._site.hook import arm; arm()" + first, before=before, after=after)
    environ = {**os.environ, "KEEPFED_RUN": str(run.path), "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, [event for _, event in run.reader().read_new()]


OUTPUT = "2016 28\n2016 28\n"


def test_every_loader_of_an_unmodified_program_is_steered(tmp_path: Path) -> None:
    output, events = program(tmp_path)
    assert output == OUTPUT
    assert [type(event) for event in events] == [Joined, LoaderSeen, LoaderSeen, Ended, Ended]
    seen = [event for event in events if isinstance(event, LoaderSeen)]
    assert [(one.loader.site, one.loader.dataset) for one in seen] == [
        ("<string>:7", "builtins.list"), ("<string>:8", "builtins.list")
    ]  # fmt: skip
    assert [one.handled for one in seen] == [True, True]
    ended = [event for event in events if isinstance(event, Ended)]
    assert [one.batches for one in ended] == [32, 4]


def test_a_program_that_uses_keepfed_itself_is_steered_just_as_much(tmp_path: Path) -> None:
    for before in (
        "import keepfed; DataLoader = keepfed.DataLoader",
        "import keepfed; keepfed.install()",
        'import keepfed; keepfed.install("auto")',
        'import keepfed; other = keepfed.DataLoader([1], num_workers="auto")',
    ):
        folder = tmp_path / str(len(before))
        folder.mkdir()
        output, events = program(folder, before=before)
        assert output == OUTPUT
        assert len([event for event in events if isinstance(event, LoaderSeen)]) == 2
        assert len([event for event in events if isinstance(event, Joined)]) == 1


def test_arming_twice_is_arming_once(tmp_path: Path) -> None:
    after = "from keepfed.loader.armed import arm; arm(); arm(); list(train)"
    _, events = program(tmp_path, after=after)
    assert len([event for event in events if isinstance(event, Joined)]) == 1


def test_a_program_that_kills_itself_leaves_no_process(tmp_path: Path) -> None:
    """The leak fixture counts: zygotes and workers end with the program, however it ends."""
    run = RunFolder.create(tmp_path, RunConfig())
    text = PROGRAM.format(
        first="from keepfed._site.hook import arm; arm()",
        before="",
        after="one, two = iter(train), iter(check); next(one); next(two); import os; os.kill(os.getpid(), 9)",
    )
    environ = {**os.environ, "KEEPFED_RUN": str(run.path), "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", text], env=environ, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == -9
    assert done.stdout in {"", OUTPUT}
