"""Programs that know nothing of keepfed, taken over by the hook; in interpreters of their own, with real torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from keepfed.events import Ended, Joined, LoaderSeen
from keepfed.feed import RunConfig, RunFolder

SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = """
from keepfed._site.hook import arm; arm()
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
    folder: Path, *, before: str = "", after: str = "", code: int = 0
) -> Callable[[], tuple[str, list[object]]]:
    """Start it below a run; calling the result gives its output and what it reported."""
    folder.mkdir(exist_ok=True)
    run = RunFolder.create(folder, RunConfig())
    text = PROGRAM.format(before=before, after=after)
    environ = {**os.environ, "KEEPFED_RUN": str(run.path), "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text],
        env=environ, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def ended() -> tuple[str, list[object]]:
        out, err = process.communicate(timeout=50)
        assert (process.returncode, err) == (code, ""), err
        return out, [event for _, event in run.reader().read_new()]

    return ended


OUTPUT = "2016 28\n2016 28\n"


def test_every_loader_of_an_unmodified_program_is_steered(tmp_path: Path) -> None:
    output, events = program(tmp_path)()
    assert output == OUTPUT
    assert [type(event) for event in events] == [Joined, LoaderSeen, LoaderSeen, Ended, Ended]
    seen = [event for event in events if isinstance(event, LoaderSeen)]
    assert [(one.loader.site, one.loader.dataset) for one in seen] == [
        ("<string>:6", "builtins.list"), ("<string>:7", "builtins.list")
    ]  # fmt: skip
    assert [one.handled for one in seen] == [True, True]
    ended = [event for event in events if isinstance(event, Ended)]
    assert [one.batches for one in ended] == [32, 4]


def test_a_program_that_uses_keepfed_itself_is_steered_just_as_much(tmp_path: Path) -> None:
    ways = (
        "import keepfed; keepfed.install()",
        'import keepfed; other = keepfed.DataLoader([1], num_workers="auto")',
    )
    for ended in [program(tmp_path / str(number), before=way) for number, way in enumerate(ways)]:
        output, events = ended()
        assert output == OUTPUT
        assert len([event for event in events if isinstance(event, LoaderSeen)]) == 2
        assert len([event for event in events if isinstance(event, Joined)]) == 1


def test_arming_twice_is_arming_once(tmp_path: Path) -> None:
    _, events = program(tmp_path, after="from keepfed.loader.armed import arm; arm(); arm(); list(train)")()
    assert len([event for event in events if isinstance(event, Joined)]) == 1


def test_a_program_that_kills_itself_leaves_no_process(tmp_path: Path) -> None:
    """The leak fixture counts: zygotes and workers end with the program, however it ends."""
    after = "one, two = iter(train), iter(check); next(one); next(two); import os; os.kill(os.getpid(), 9)"
    program(tmp_path, after=after, code=-9)()
