"""The engine's client against a real engine: finding containers, their processes, their files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from keepfed.engine.archive import Inside, LeftOut
from keepfed.engine.client import find_container
from keepfed.errors import UnreachableError, UsageError
from tests.containers.rig import IMAGE, Rig


def test_a_container_is_found_by_its_name_and_by_the_beginning_of_its_id(rig: Rig, resting: str) -> None:
    with find_container(resting) as found:
        assert found.name == resting
        assert found.running
        assert found.image == IMAGE
        assert found.workdir == "/app"
        assert found.engine.kind == "podman"
        identity = found.id
    with find_container(identity[:12]) as again:
        assert again.id == identity


def test_an_absent_container_is_answered_with_the_nearest_names(rig: Rig, resting: str) -> None:
    with pytest.raises(UnreachableError, match=f"Did you mean {resting}"), find_container("restign"):
        pass


def test_processes_carry_this_machines_numbers(rig: Rig) -> None:
    with rig.container("sh", "-c", "sleep 500 & sleep 501", name="pids"), find_container("pids") as found:
        processes = found.processes()
        assert processes.on_host
        assert {"sleep 500", "sleep 501"} <= {process.command for process in processes.found}
        assert all(os.path.exists(f"/proc/{process.pid}") for process in processes.found)
        assert not any("conmon" in process.command for process in processes.found)


def test_a_stopped_container_can_be_read_and_not_asked_for_processes(rig: Rig) -> None:
    with rig.container("true", name="done") as name:
        rig.api.wait(name)
        with find_container(name) as found:
            assert not found.running
            assert found.read("/app/config.yaml").data == b"num_workers: 4\n"
            with pytest.raises(UnreachableError, match="does not run"):
                found.processes()
            with pytest.raises(UnreachableError, match="podman start done"):
                found.run(["true"])


def test_a_command_is_a_list_and_never_a_shells(rig: Rig, resting: str) -> None:
    with find_container(resting) as found:
        ran = found.run(["echo", "$HOME; a  b"])
        assert (ran.exit_code, ran.stdout) == (0, b"$HOME; a  b\n")
        assert found.run(["false"]).exit_code == 1
        failed = found.run(["sh", "-c", "echo oh >&2; exit 3"])
        assert (failed.exit_code, failed.stderr) == (3, b"oh\n")


def test_an_edit_keeps_owner_group_and_mode_and_follows_links(rig: Rig, resting: str) -> None:
    script = "mkdir /edited; cd /edited; echo 4 > opt.txt; chown 1000:1001 opt.txt; chmod 4640 opt.txt; ln -s opt.txt l; ln -s /edited /data"
    with find_container(resting) as found:
        rig.sh(resting, script)
        before = found.read("/data/l")
        assert (before.path, before.data) == ("/edited/opt.txt", b"4\n")
        assert (before.mode, before.owner) == (0o4640, (1000, 1001))
        found.write(before, b"0\n")
        assert (
            rig.sh(resting, "cat /edited/opt.txt; stat -c '%a %u %g' /edited/opt.txt; test -L /edited/l")
            == "0\n4640 1000 1001\n"
        )


def test_the_owner_is_asked_for_inside_where_it_cannot_be_seen(
    rig: Rig, resting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepfed.engine.container.owner_through_process", lambda _pid, _path: None)
    rig.sh(resting, "mkdir /asked; echo 4 > /asked/a.txt; chown 5:6 /asked/a.txt")
    with find_container(resting) as found:
        assert found.read("/asked/a.txt").owner == (5, 6)


def test_a_file_of_a_stopped_container_keeps_its_owner(rig: Rig) -> None:
    with rig.container("sh", "-c", "chown 7:8 /app/config.yaml") as name:
        rig.api.wait(name)
        with find_container(name) as found:
            found.write(found.read("/app/config.yaml"), b"0\n")
            assert (after := found.read("/app/config.yaml")).owner == (7, 8)
            assert after.data == b"0\n"


def test_a_file_that_changed_meanwhile_is_not_written(rig: Rig, resting: str) -> None:
    with find_container(resting) as found:
        rig.sh(resting, "mkdir /changing; echo 4 > /changing/a.txt")
        before = found.read("/changing/a.txt")
        rig.sh(resting, "echo other > /changing/a.txt")
        with pytest.raises(UnreachableError, match="has changed"):
            found.write(before, b"0\n")
        assert rig.sh(resting, "cat /changing/a.txt") == "other\n"


def test_on_a_full_disk_the_file_stays_as_it_is(rig: Rig, tmp_path: Path) -> None:
    """A volume on a file system of its own that is full: an engine removes the file before it writes it anew."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system of one's own can be mounted here")
    try:
        (small / "opt.txt").write_text("4\n", encoding="utf-8")
        with rig.container(binds=[f"{small}:/small"]) as name, find_container(name) as found:
            before = found.read("/small/opt.txt")
            (small / "fill").write_bytes(b"x" * 900_000)
            with pytest.raises(UnreachableError, match="disk is full"):
                found.write(before, b"0\n")
            assert (small / "opt.txt").read_bytes() == b"4\n"
            (small / "fill").unlink()
            found.write(before, b"0\n")
            assert (small / "opt.txt").read_bytes() == b"0\n"
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_the_images_own_copy_is_still_there_after_an_edit(rig: Rig) -> None:
    with rig.container() as name, find_container(name) as found:
        there = rig.left_over()
        rig.sh(name, "echo 'num_workers: 0' > /app/config.yaml; echo new > /app/new.txt")
        with found.as_its_image() as twin:
            assert twin.read("/app/config.yaml").data == b"num_workers: 4\n"
            assert twin.stat("/app/new.txt") is None
        assert rig.left_over() == there


def test_a_folder_is_read_in_one_stream_up_to_a_limit(rig: Rig, resting: str) -> None:
    with find_container(resting) as found:
        rig.sh(
            resting,
            "mkdir /w; cd /w; echo a > a.py; echo b > b.bin; dd if=/dev/zero of=m bs=1k count=900; echo z > z.py",
        )
        read = list(found.read_folder("/w", lambda path, _size: path.endswith(".py"), 4 << 20))
        assert sorted(file.path for file in read) == ["/w/a.py", "/w/z.py"]
        assert isinstance(read[0], Inside)
        cut = list(found.read_folder("/w", lambda _path, _size: False, 1000))
        assert [type(file) for file in cut] == [LeftOut]


def test_a_path_in_memory_is_refused_instead_of_read_wrongly(rig: Rig) -> None:
    with rig.container(tmpfs={"/scratch": ""}) as name, find_container(name) as found:
        rig.sh(name, "echo 4 > /scratch/opt.txt")
        with pytest.raises(UnreachableError):
            found.read("/scratch/opt.txt")


def test_a_bind_mounted_path_is_told_with_its_place_on_the_host(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "opt.txt").write_text("4\n", encoding="utf-8")
    with rig.container(binds=[f"{tmp_path}:/work:ro"]) as name, find_container(name) as found:
        rig.sh(name, "ln -s /work/opt.txt /app/link")
        path = found.resolve("/app/link")
        assert path == "/work/opt.txt"
        assert found.placed(path).on_host == str(tmp_path / "opt.txt")
        assert found.placed("/app/config.yaml").on_host == ""


def test_two_ids_with_the_same_beginning_are_ambiguous(rig: Rig) -> None:
    from keepfed.engine.picking import Listed, pick

    listed = [Listed(f"ab{digit}" + "0" * 61, (f"n{digit}",), "i", "running", "web") for digit in "12"]
    with pytest.raises(UsageError, match="several"):
        pick("ab", listed)
    with pytest.raises(UnreachableError, match="n1, n2"):
        pick("web", listed)
