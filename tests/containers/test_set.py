"""`keepfed set` and `undo` inside real containers: exactly one value, its owner kept, and back again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keepfed.cli.main import main
from tests.containers.rig import Rig

OPT = """----------------- Options ---------------
               batch_size: 16
           cv_num_threads: 4
              num_threads: 4                             	[default: 8]
----------------- End -------------------
"""


@pytest.fixture(autouse=True)
def _stand_in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def put(rig: Rig, name: str, path: str, text: str) -> None:
    rig.sh(name, f"cat > {path} <<'END'\n{text}END")


def test_a_printout_goes_from_4_to_0_and_back_while_its_neighbour_stays(rig: Rig, tmp_path: Path) -> None:
    with rig.container(name="trainer") as name:
        rig.sh(name, "mkdir -p /work/checkpoints")
        put(rig, name, "/work/checkpoints/opt.txt", OPT)
        rig.sh(name, "chown 1000:1001 /work/checkpoints/opt.txt; chmod 640 /work/checkpoints/opt.txt")
        words = ["set", "num_threads=0", "/work/checkpoints/opt.txt", "--container", name, "--write"]
        assert main(words) == 0
        changed = rig.sh(name, "cat /work/checkpoints/opt.txt")
        assert changed == OPT.replace(" num_threads: 4", " num_threads: 0")
        assert "cv_num_threads: 4" in changed
        assert rig.sh(name, "stat -c '%u %g %a' /work/checkpoints/opt.txt") == "1000 1001 640\n"
        assert main(["undo", "--container", name]) == 0
        assert rig.sh(name, "cat /work/checkpoints/opt.txt; stat -c '%u %g %a' /work/checkpoints/opt.txt") == (
            f"{OPT}1000 1001 640\n"
        )
    lines = [json.loads(line) for line in (tmp_path / ".keepfed" / "journal.jsonl").read_text().splitlines()]
    assert [(line["verb"], line["from"], line["to"]) for line in lines] == [("set", "4", "0"), ("undo", "0", "4")]
    assert all(len(line["container"]) == 64 and line["container_name"] == "trainer" for line in lines)
    assert all("keepfed-rig" in line["image"] for line in lines)


def test_the_original_is_the_journals_after_an_edit(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.container(working_dir="/app") as name:
        assert main(["set", "num_workers=2", "--container", name, "--write"]) == 0
        assert rig.sh(name, "cat /app/config.yaml") == "num_workers: 2\n"
        capsys.readouterr()
        assert main(["scan", "--json", "--changes", "--container", name]) == 0
        answer = json.loads(capsys.readouterr().out)
        (site,), (change,) = answer["sites"], answer["changes"]
        assert (change["source"], change["from"], change["to"]) == ("journal", "4", "2")
        assert (site["value"], site["original"]) == ("2", {"value": "4", "source": "journal"})


def test_a_mounted_file_is_edited_on_the_host_and_noted_there(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    file = project / "config.yaml"
    file.write_text("num_workers: 4  # four\n", encoding="utf-8")
    with rig.container(working_dir="/work", binds=[f"{project}:/work"]) as name:
        assert main(["set", "num_workers=0", "--container", name, "--write"]) == 0
        assert str(file) in capsys.readouterr().err
        assert rig.sh(name, "cat /work/config.yaml") == "num_workers: 0  # four\n"
        assert file.read_text(encoding="utf-8") == "num_workers: 0  # four\n"
        (line,) = (tmp_path / ".keepfed" / "journal.jsonl").read_text().splitlines()
        assert json.loads(line)["container"] == ""
        assert main(["undo"]) == 0
        assert rig.sh(name, "cat /work/config.yaml") == "num_workers: 4  # four\n"


def test_a_file_that_is_mounted_alone_is_seen_after_a_restart(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("num_workers: 4\n", encoding="utf-8")
    with rig.container(binds=[f"{file}:/work/config.yaml"]) as name:
        assert main(["set", "num_workers=0", "/work/config.yaml", "--container", name, "--write"]) == 0
        assert "mounted as a single file" in capsys.readouterr().err
        assert file.read_text(encoding="utf-8") == "num_workers: 0\n"
        rig.api.restart(name, timeout=0)
        assert rig.sh(name, "cat /work/config.yaml") == "num_workers: 0\n"


def test_a_place_that_is_pointed_at_is_changed_wherever_it_lies(rig: Rig, resting: str) -> None:
    rig.sh(resting, "mkdir /pointed; printf 'num_workers: 4\\ntest_num_workers: 4\\n' > /pointed/a.yaml")
    assert main(["set", "num_workers=2", "--site", "/pointed/a.yaml:2", "--container", resting, "--write"]) == 0
    assert rig.sh(resting, "cat /pointed/a.yaml") == "num_workers: 4\ntest_num_workers: 2\n"


def test_an_undo_refuses_what_changed_since_and_writes_nothing(
    rig: Rig, resting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.sh(resting, "mkdir /since; echo 'num_workers: 4' > /since/a.yaml")
    assert main(["set", "num_workers=2", "/since/a.yaml", "--container", resting, "--write"]) == 0
    rig.sh(resting, "echo 'batch_size: 8' >> /since/a.yaml")
    assert main(["undo"]) == 1
    assert "+batch_size: 8" in capsys.readouterr().out
    assert rig.sh(resting, "cat /since/a.yaml") == "num_workers: 2\nbatch_size: 8\n"


def test_an_undo_finds_the_container_that_took_the_place_of_another(rig: Rig) -> None:
    with rig.container(name="again", working_dir="/app") as name:
        assert main(["set", "num_workers=2", "--container", name, "--write"]) == 0
        config = rig.sh(name, "cat /app/config.yaml")
    with rig.container(name="again", working_dir="/app") as name:
        put(rig, name, "/app/config.yaml", config)
        assert main(["undo", "/app/config.yaml"]) == 0
        assert rig.sh(name, "cat /app/config.yaml") == "num_workers: 4\n"


def test_what_the_engine_will_not_write_is_told_and_not_half_done(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with rig.container(working_dir="/app") as name:
        rig.sh(name, "mkdir /app/more; echo 'num_workers: 4' > /app/more/config.yaml; chmod 400 /app/more/config.yaml")
        assert main(["set", "num_workers=2", "--container", f"{name}-not", "--write"]) == 3
        assert f"Did you mean {name}" in capsys.readouterr().err
        assert main(["set", "num_workers=2", "--container", name, "--script", "s.sh"]) == 2
    assert not (tmp_path / ".keepfed").exists()
