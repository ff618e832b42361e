"""What was measured for a loader goes into the call that builds it, or to where that gets its values."""

from __future__ import annotations

import pytest

from keepfed.edit.measured import measured
from keepfed.edit.planning import Planned, add
from keepfed.edit.replacement import EditRefused, applied
from keepfed.knobs.scan import scan_files
from keepfed.knobs.walk import Bytes
from keepfed.plan import LoaderId, Plan
from keepfed.profile import LoaderProfile

TRAIN = """\
import argparse
from torch.utils.data import DataLoader
parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=4)
args = parser.parse_args()
train = DataLoader(
    data,
    num_workers=args.workers,
    prefetch_factor=3,
)
val = DataLoader(data, num_workers=2)
both = [DataLoader(data, num_workers=2), DataLoader(data, num_workers=2)]
"""


def entry(line: int, num_workers: int, prefetch_factor: int = 2, file: str = "train.py") -> LoaderProfile:
    return LoaderProfile(LoaderId(f"{file}:{line}", "Data"), Plan(num_workers, prefetch_factor))


def after(*entries: LoaderProfile, text: str = TRAIN) -> str:
    scanned = scan_files([Bytes("project/train.py", text.encode())])
    plan = Planned()
    for one in measured(entries, scanned.sites, scanned.files):
        add(plan, one.choice, scanned.files)
    return applied(text.encode(), plan.edits).decode()


def test_a_name_is_led_to_its_definition_and_only_that_call_is_changed() -> None:
    expected = TRAIN.replace("default=4", "default=8").replace("prefetch_factor=3", "prefetch_factor=5")
    assert after(entry(6, 8, 5)) == expected


def test_every_loader_gets_its_own() -> None:
    expected = TRAIN.replace("default=4", "default=8").replace("prefetch_factor=3", "prefetch_factor=2")
    expected = expected.replace("val = DataLoader(data, num_workers=2)", "val = DataLoader(data, num_workers=0)")
    assert after(entry(6, 8), entry(11, 0)) == expected


def test_what_the_call_does_not_say_is_needed_only_where_it_is_not_torchs_default() -> None:
    scanned = scan_files([Bytes("train.py", TRAIN.encode())])
    for prefetch, needed in ((2, False), (4, True)):
        found = measured([entry(11, 8, prefetch)], scanned.sites, scanned.files)
        assert [(one.choice.wish.knob, bool(one.choice.changing), one.needed) for one in found] == [
            ("num_workers", True, True),
            ("prefetch_factor", False, needed),
        ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (entry(12, 4), "several loaders"),
        (entry(6, 4, file="other.py"), "not among"),
    ],
)
def test_what_cannot_be_told_is_refused(asked: LoaderProfile, said: str) -> None:
    with pytest.raises(EditRefused, match=said):
        after(asked)


def test_a_line_that_builds_no_loader_is_refused_among_several_loaders() -> None:
    with pytest.raises(EditRefused, match="no loader is built"):
        after(entry(1, 4), entry(11, 4))


def test_the_only_loader_of_a_framework_means_the_whole_project() -> None:
    text = "args = TrainingArguments(dataloader_num_workers=4)\ntrainer.train()\n"
    assert after(entry(2, 8), text=text) == text.replace("=4", "=8")
