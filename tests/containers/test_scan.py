"""`keepfed scan --container`: the settings inside, what the image has, what a process has, what is mounted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keepfed.cli.main import main
from tests.containers.rig import Rig

TRAIN = "from torch.utils.data import DataLoader\nloader = DataLoader(data, num_workers=8)\n"


@pytest.fixture(autouse=True)
def _stand_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scanned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["scan", "--json", "--container", *words]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_what_the_image_had_is_the_original(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.container(working_dir="/app") as name:
        rig.sh(name, "sed -i s/4/0/ /app/config.yaml")
        answer = scanned(capsys, name)
    assert [(site["file"], site["value"], site["original"]) for site in answer["sites"]] == [
        ("/app/config.yaml", "0", {"value": "4", "source": "image"})
    ]


def test_only_likely_folders_are_read_and_others_when_they_are_named(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    with rig.container("sh", "-c", "sh /work/run.sh; sleep 1000", name="twofold") as name:
        rig.sh(name, f"mkdir -p /work/.venv /elsewhere; printf '{TRAIN!s}' > /work/train.py".replace("\n", "\\n"))
        rig.sh(
            name,
            "cp /work/train.py /elsewhere/other.py; cp /work/train.py /work/.venv/in.py; touch /work/.venv/pyvenv.cfg",
        )
        likely = scanned(capsys, name)
        named = scanned(capsys, name, "/elsewhere/other.py")
    assert [site["file"] for site in likely["sites"]] == ["/work/train.py"]
    assert {"file": "/work/.venv", "reason": "installed packages", "code": "packages"} in likely["skipped"]
    assert [(site["file"], site["value"]) for site in named["sites"]] == [("/elsewhere/other.py", "8")]


def test_a_shell_in_the_root_is_scanned_where_people_put_programs(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.container("sleep", "1000", working_dir="/") as name:
        answer = scanned(capsys, name)
    assert [site["file"] for site in answer["sites"]] == ["/app/config.yaml"]


def test_a_path_that_is_not_there_is_told(rig: Rig, resting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan", "--container", resting, "/nowhere"]) == 3
    assert f"There is no /nowhere in {resting}." in capsys.readouterr().err


def test_a_mounted_folder_is_scanned_with_the_rest(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text(TRAIN, encoding="utf-8")
    with rig.container(working_dir="/work", binds=[f"{project}:/work"]) as name:
        answer = scanned(capsys, name)
    assert [(site["file"], site["value"]) for site in answer["sites"]] == [("/work/train.py", "8")]


def test_what_a_process_was_started_with_is_in_effect(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.container("sleep", "1000", environment={"OMP_NUM_THREADS": "3"}, working_dir="/app") as name:
        rig.sh(name, "echo 'export OMP_NUM_THREADS=1' > /app/env.sh")
        answer = scanned(capsys, name, "/app/env.sh")
    assert [site["in_effect"]["value"] for site in answer["sites"]] == ["3"]


def test_expectations_hold_inside_too(rig: Rig, resting: str) -> None:
    assert main(["scan", "--container", resting, "--expect", "num_workers=4"]) == 0
    assert main(["scan", "--container", resting, "--expect", "num_workers=0"]) == 1


def test_a_link_stands_for_the_file_behind_it_which_is_read_once(
    rig: Rig, resting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.sh(
        resting,
        "mkdir -p /linked /beside; echo 'num_workers: 3' > /beside/b.yaml; echo 'num_workers: 5' > /linked/a.yaml",
    )
    rig.sh(
        resting,
        "cd /linked; ln -s /beside/b.yaml b.yaml; ln -s a.yaml c.yaml; ln -s nowhere.yaml d.yaml; ln -s . e.yaml",
    )
    answer = scanned(capsys, resting, "/linked")
    assert [(site["file"], site["value"]) for site in answer["sites"]] == [
        ("/linked/a.yaml", "5"),
        ("/beside/b.yaml", "3"),
    ]


def test_a_folder_that_is_too_large_for_one_stream_is_read_file_by_file(
    rig: Rig, resting: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepfed.inside.reading.MOST_STREAM_BYTES", 100_000)
    rig.sh(
        resting,
        "mkdir -p /large/wandb; dd if=/dev/zero of=/large/a.bin bs=1k count=300; echo 'num_workers: 8' > /large/z.yaml",
    )
    rig.sh(resting, "cp /large/z.yaml /large/wandb/z.yaml")
    answer = scanned(capsys, resting, "/large")
    assert [(site["file"], site["value"]) for site in answer["sites"]] == [("/large/z.yaml", "8")]
    assert {"file": "/large/wandb", "reason": "outputs of earlier runs", "code": "outputs"} in answer["skipped"]
