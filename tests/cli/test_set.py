"""`keepfed set` and `keepfed undo` from the command line, on files as people have them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keepfed
from keepfed.cli.main import main

TRAIN = b"""\
from torch.utils.data import DataLoader

loader = DataLoader(data, batch_size=4, num_workers=4, pin_memory=True, prefetch_factor=2)  # 4 were too few
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (folder / "train.py").write_bytes(TRAIN)
    return folder


def called(capfdbinary: pytest.CaptureFixture[bytes], *words: str) -> tuple[int, bytes, str]:
    """Exit code, stdout, stderr."""
    code = main(list(words))
    out, err = capfdbinary.readouterr()
    return code, out, err.decode()


def test_a_value_is_changed_and_nothing_else_and_taken_back(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code, out, err = called(capfdbinary, "set", "num_workers=16", "--write")
    assert code == 0
    assert (project / "train.py").read_bytes() == TRAIN.replace(b"num_workers=4", b"num_workers=16")
    assert out.startswith(b"--- a/train.py\n+++ b/train.py\n")
    assert "keepfed undo" in err
    assert "started again" in err
    assert called(capfdbinary, "undo")[0] == 0
    assert (project / "train.py").read_bytes() == TRAIN
    assert called(capfdbinary, "undo")[0] == 3


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs patch(1)")
def test_stdout_is_a_patch(project: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, out, err = called(capfdbinary, "set", "num_workers=16", "prefetch_factor=4")
    assert code == 2
    assert "--write" in err
    assert (project / "train.py").read_bytes() == TRAIN
    subprocess.run(["patch", "-p1"], input=out, check=True, capture_output=True)
    assert b"num_workers=16, pin_memory=True, prefetch_factor=4" in (project / "train.py").read_bytes()


def test_the_same_value_again_is_said_and_nothing_is_written(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code, out, err = called(capfdbinary, "set", "num_workers=4", "--write")
    assert (code, out) == (0, b"")
    assert "already" in err
    assert os.listdir(project) == ["train.py"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["num_workers=-1"], 2, "from 0 to 1024"),
        (["num_workers=abc"], 2, "from 0 to 1024"),
        (["num_workers=1000000000"], 2, "from 0 to 1024"),
        (["num_wokers=1"], 2, "Did you mean num_workers?"),
        (["shm_size=lots"], 2, "no size"),
        (["pin_memory=maybe"], 2, "true or false"),
        ([], 2, "nothing to set"),
        (["num_workers=1", "--plan", "keepfed.toml"], 2, "cannot be combined"),
        (["num_workers=1", "num_workers=2"], 2, "twice"),
        (["num_workers=1", "--write", "--script", "x.sh"], 2, "cannot be combined"),
        (["num_workers=1", "--site", "train.py"], 2, "FILE:LINE"),
        (["num_workers=1", "absent.py"], 3, "absent.py"),
        (["cpus_per_task=2"], 3, "--insert"),
        (["--workers=2"], 3, "It is written as num_workers"),
        (["dataloader_workers=2"], 3, "num_workers"),
        (["threads_env=2"], 2, "OMP_NUM_THREADS=4"),
        (["num_workers=2", "--site", "train.py:1"], 3, "train.py:3"),
        (["dataloader_workers=2"], 3, "It is written as num_workers"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes], words: list[str], code: int, said: str
) -> None:
    (project / "keepfed.toml").write_text("")
    found, out, err = called(capfdbinary, "set", *words, "--write")
    assert (found, out) == (code, b"")
    assert said in err
    assert (project / "train.py").read_bytes() == TRAIN


def test_a_file_outside_the_folder_is_shown_from_the_root(
    project: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    other = tmp_path / "other.py"
    other.write_bytes(TRAIN)
    code, out, _ = called(capfdbinary, "set", "num_workers=1", str(other), "--write")
    assert code == 0
    assert out.startswith(b"--- a" + str(other).encode() + b"\n")
    assert called(capfdbinary, "undo", str(other))[0] == 0
    assert other.read_bytes() == TRAIN


@pytest.mark.parametrize("answer", ["y\n", "n\n", "\n", ""])
def test_on_a_terminal_it_asks(project: Path, answer: str) -> None:
    ours, theirs = pty.openpty()
    try:
        program = subprocess.Popen(
            [sys.executable, "-m", "keepfed", "set", "num_workers=7"],
            env=os.environ | {"PYTHONPATH": str(Path(keepfed.__file__).parents[1])},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            close_fds=True,
        )
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 4096)
        os.write(ours, answer.encode() or b"\x04")
        out, _ = program.communicate()
        with contextlib.suppress(OSError):  # Linux says EIO where nobody has the other end any more
            while os.read(ours, 4096):
                pass
    finally:
        os.close(ours)
    assert b"+loader" in out
    assert program.returncode == (0 if answer == "y\n" else 1)
    assert (b"num_workers=7" in (project / "train.py").read_bytes()) is (answer == "y\n")


def test_a_script_is_made_instead_and_never_over_a_file_of_others(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert called(capfdbinary, "set", "num_workers=16", "--script", "fix.sh")[0] == 0
    assert (project / "train.py").read_bytes() == TRAIN
    assert called(capfdbinary, "set", "num_workers=3", "--script", "fix.sh")[0] == 0, "one of ours is made anew"
    subprocess.run(["sh", "fix.sh"], check=True, capture_output=True)
    assert b"num_workers=3" in (project / "train.py").read_bytes()
    (project / "mine.sh").write_text("#!/bin/sh\necho mine\n")
    assert called(capfdbinary, "set", "num_workers=8", "--script", "mine.sh")[0] == 2
    assert (project / "mine.sh").read_text() == "#!/bin/sh\necho mine\n"


def test_undo_shows_what_changed_since_and_leaves_it(project: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert called(capfdbinary, "set", "num_workers=16", "--write")[0] == 0
    with (project / "train.py").open("ab") as file:
        file.write(b"# mine\n")
    code, out, err = called(capfdbinary, "undo")
    assert code == 1
    assert b"+# mine" in out
    assert "nothing was taken back" in err
    assert (project / "train.py").read_bytes().endswith(b"# mine\n")


def test_undo_by_id_and_of_what_is_not_known(project: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert called(capfdbinary, "set", "num_workers=16", "--write")[0] == 0
    line = json.loads((project / ".keepfed" / "journal.jsonl").read_text())
    assert called(capfdbinary, "undo", "abcdef")[0] == 3
    assert called(capfdbinary, "undo", line["set"])[0] == 0
    code, _, err = called(capfdbinary, "undo", line["set"])
    assert code == 3
    assert "already" in err


def test_no_workers_beside_prefetching_is_warned_of(project: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    _, _, err = called(capfdbinary, "set", "num_workers=0", "--write")
    assert "ValueError" in err
    assert "prefetch_factor=2" in err


def test_a_read_only_file_is_left_alone(project: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (project / "train.py").chmod(0o444)
    code, _, err = called(capfdbinary, "set", "num_workers=0", "--write")
    assert code == 1
    assert "chmod u+w" in err
    assert (project / "train.py").read_bytes() == TRAIN


def test_a_quoted_size_of_a_windows_file_keeps_quotes_unit_and_line_ends(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = b'services:\r\n  train:\r\n    image: x\r\n    shm_size: "16gb"\r\n    environment:\r\n      - OMP_NUM_THREADS=4'
    (project / "compose.yaml").write_bytes(text)
    code, _, err = called(capfdbinary, "set", "shm_size=2g", "OMP_NUM_THREADS=1", "compose.yaml", "--write")
    assert code == 0
    expected = text.replace(b"16gb", b"2gb").replace(b"THREADS=4", b"THREADS=1")
    assert (project / "compose.yaml").read_bytes() == expected
    assert "docker compose up -d" in err


def test_a_missing_setting_is_added_and_taken_out_again(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code, out, err = called(capfdbinary, "set", "persistent_workers=true", "--insert", "--write")
    assert code == 0
    assert b"persistent_workers=True, prefetch_factor=2" in out or b"persistent_workers=True, num_workers=4" in out
    assert "started again" in err
    assert called(capfdbinary, "undo")[0] == 0
    assert (project / "train.py").read_bytes() == TRAIN


def test_where_nothing_fits_nothing_is_added(project: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, _, err = called(capfdbinary, "set", "shm_size=2g", "--insert", "--write")
    assert code == 3
    assert "beside which" in err


PRINTED = (
    "----------------- Options ---------------\n"
    "               batch_size: 4                             \t[default: 1]\n"
    "           cv_num_threads: 4                             \n"
    "              num_threads: 4                             \n"
    "----------------- End -------------------\n"
)


def test_a_printout_is_changed_when_it_is_named_and_taken_back(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (project / "opt.txt").write_text(PRINTED * 2)
    code, _, err = called(capfdbinary, "set", "num_workers=0", "opt.txt", "--write")
    assert code == 0
    assert "opt.txt:9" in err
    first, second = (project / "opt.txt").read_text().split("End -------------------\n")[:2]
    assert f"{first}End -------------------\n" == PRINTED
    assert f"{second}End -------------------\n" == PRINTED.replace("  num_threads: 4", "  num_threads: 0")
    assert called(capfdbinary, "undo", "opt.txt")[0] == 0
    assert (project / "opt.txt").read_text() == PRINTED * 2


def test_the_default_that_counts_is_shown_where_a_printout_is_changed(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (project / ".git").mkdir()
    (project / "options.py").write_text(
        "import argparse\nfrom torch.utils.data import DataLoader\nparser = argparse.ArgumentParser()\n"
        'parser.add_argument("--num_threads", type=int, default=4)\nopt = parser.parse_args()\n'
        "loader = DataLoader(data, num_workers=opt.num_threads)\n"
    )
    (project / "checkpoints").mkdir()
    (project / "checkpoints" / "opt.txt").write_text(PRINTED)
    code, _, err = called(capfdbinary, "set", "num_workers=0", "checkpoints/opt.txt", "--write")
    assert code == 0
    assert "next start overwrites" in err
    assert "options.py:4" in err
    assert "started again" not in err


PLAN = """\
schema = "keepfed.profile/1"

[host]
fingerprint = "x"

[[loader]]
dataset = "Data"
site = "train.py:3"
num_workers = 6
prefetch_factor = 4
"""


def test_a_plan_file_is_set_in_the_call_that_was_measured(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (project / "keepfed.toml").write_text(PLAN)
    code, _, _ = called(capfdbinary, "set", "--plan", "keepfed.toml", "--write")
    assert code == 0
    expected = TRAIN.replace(b"num_workers=4", b"num_workers=6").replace(b"factor=2", b"factor=4")
    assert (project / "train.py").read_bytes() == expected
    assert (project / "keepfed.toml").read_text() == PLAN
    assert called(capfdbinary, "undo")[0] == 0
    assert (project / "train.py").read_bytes() == TRAIN


def test_what_a_plan_needs_and_a_call_lacks_is_said_and_added_on_request(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (project / "keepfed.toml").write_text(PLAN)
    bare = TRAIN.replace(b", prefetch_factor=2", b"")
    (project / "train.py").write_bytes(bare)
    code, _, err = called(capfdbinary, "set", "--plan", "keepfed.toml", "--write")
    assert code == 0
    assert "--insert" in err
    assert called(capfdbinary, "set", "--plan", "keepfed.toml", "--insert", "--write")[0] == 0
    assert b"prefetch_factor=4" in (project / "train.py").read_bytes()


@pytest.mark.parametrize(("text", "code"), [(None, 2), ("schema = 1", 2), (PLAN.partition("[[")[0], 3)])
def test_a_plan_that_says_nothing_is_refused(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes], text: str | None, code: int
) -> None:
    if text is not None:
        (project / "keepfed.toml").write_text(text)
    assert called(capfdbinary, "set", "--plan", "keepfed.toml", "--write")[0] == code
    assert (project / "train.py").read_bytes() == TRAIN


ON_A_FULL_DISK = """
mount -t tmpfs -o size=64k tmpfs "$1" || exit 77
cp train.py "$1/train.py"
cd "$1"
head -c 200000 /dev/zero > filler 2> /dev/null
"$2" -m keepfed set num_workers=16 --write
code=$?
cmp train.py "$3/train.py" || exit 78
exit $code
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare(1)")
@pytest.mark.parametrize("state", ["disk", "elsewhere"])
def test_a_full_disk_leaves_everything_as_it_is(project: Path, tmp_path: Path, state: str) -> None:
    (tmp_path / "disk").mkdir()
    source = str(Path(keepfed.__file__).parents[1])
    environ = os.environ | {
        "PYTHONPATH": source,
        "XDG_STATE_HOME": str(tmp_path / state),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command: list[str | Path] = [
        "unshare",
        "-m",
        "sh",
        "-c",
        ON_A_FULL_DISK,
        "sh",
        tmp_path / "disk",
        sys.executable,
        project,
    ]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mount namespace may be made here")
    assert done.returncode == 1, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_with_dashes_narrows_to_flags_and_options(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (project / "run.sh").write_text("python train.py --workers 8\n")
    assert called(capfdbinary, "set", "--write", "--", "--workers=2")[0] == 0
    assert (project / "run.sh").read_text() == "python train.py --workers 2\n"
    assert (project / "train.py").read_bytes() == TRAIN


def test_the_line_of_a_name_stands_for_its_value_below(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = (
        "import argparse\nfrom torch.utils.data import DataLoader\np = argparse.ArgumentParser()\n"
        'p.add_argument(\n    "--workers",\n    type=int,\n    default=4,\n)\nargs = p.parse_args()\n'
        "loader = DataLoader(data, num_workers=args.workers)\n"
    )
    (project / "options.py").write_text(text)
    assert called(capfdbinary, "set", "num_workers=2", "--site", "options.py:5", "--write")[0] == 0
    assert (project / "options.py").read_text() == text.replace("default=4", "default=2")
    assert called(capfdbinary, "set", "num_workers=3", "--site", "options.py:4", "--write")[0] == 3


def test_a_link_is_followed_and_undone_by_its_own_name(
    project: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    real = tmp_path / "shared.py"
    (project / "train.py").rename(real)
    (project / "train.py").symlink_to(real)
    code, _, err = called(capfdbinary, "set", "num_workers=16", "train.py", "--write")
    assert code == 0
    assert "symbolic link" in err
    assert b"num_workers=16" in real.read_bytes()
    assert (project / "train.py").is_symlink()
    assert called(capfdbinary, "undo", "train.py")[0] == 0
    assert real.read_bytes() == TRAIN


@pytest.mark.parametrize(
    ("name", "content"), [("bin.py", b"\x00\x01num_workers=4\xff" * 50), ("large.yaml", b"num_workers: 4\n" * 600_000)]
)
def test_what_is_no_file_of_settings_is_said_and_left(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes], name: str, content: bytes
) -> None:
    (project / name).write_bytes(content)
    code, out, err = called(capfdbinary, "set", "num_workers=8", name, "--write")
    assert (code, out) == (3, b"")
    assert name in err
    assert (project / name).read_bytes() == content


def test_a_file_that_cannot_be_parsed_is_read_line_by_line(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = b"{{ if .Values.gpu }}\nnum_workers: 4   # {{ .Values.x }\n\t- bad: [\n"
    (project / "broken.yaml").write_bytes(text)
    assert called(capfdbinary, "set", "num_workers=8", "broken.yaml", "--write")[0] == 0
    assert (project / "broken.yaml").read_bytes() == text.replace(b"num_workers: 4", b"num_workers: 8")


PROGRAM = """\
import argparse
from torch.utils.data import DataLoader
parser = argparse.ArgumentParser()
parser.add_argument("-j", "--workers", type=int, default=2)
args = parser.parse_args()
N = 4
loader = DataLoader(data, num_workers=args.workers)
other = DataLoader(data, num_workers=N)
"""


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("verb", ["set", "scan --expect"])
@pytest.mark.parametrize("spelling", ["--workers", "-j", "N", "--data.num_workers", "NUM_WORKERS"])
def test_every_name_that_scan_prints_can_be_set_and_expected(
    verb: str, spelling: str, language: str, project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (project / "train.py").write_text(PROGRAM)
    (project / "run.sh").write_text(
        "export NUM_WORKERS=4\npython train.py --workers 4\npython train.py -j 4\npython c.py --data.num_workers=4\n"
    )
    before = (project / "run.sh").read_text() + (project / "train.py").read_text()
    printed = json.loads(called(capfdbinary, "scan", "--json")[1])
    assert spelling in {site["spelling"] for site in printed["sites"]}
    if verb == "set":
        assert called(capfdbinary, "--lang", language, "set", f"{spelling}=6", "--write")[0] == 0
        after = (project / "run.sh").read_text() + (project / "train.py").read_text()
        assert [one for one, other in zip(after, before, strict=True) if one != other] == ["6"]
    else:
        assert called(capfdbinary, "--lang", language, *verb.split(), f"{spelling}=4")[0] == 0
        assert called(capfdbinary, "--lang", language, *verb.split(), f"{spelling}=6")[0] == 1


@pytest.mark.parametrize("typed", ["--wrte", "-x", "--wrte=1", "n_of_nothing=1"])
def test_an_option_that_does_not_exist_is_wrong_usage(
    typed: str, project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    code, out, err = called(capfdbinary, "set", "num_workers=6", typed)
    assert (code, out) == (2, b"")
    assert typed.partition("=")[0] in err


def test_a_script_beside_a_file_that_was_named_is_said_to_win(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (project / "train.py").write_text(PROGRAM)
    assert "run.sh" not in called(capfdbinary, "set", "--workers=0", "train.py")[2]
    (project / "run.sh").write_text("python train.py --workers 12\n")
    code, out, err = called(capfdbinary, "set", "--workers=0", "train.py", "--write")
    assert code == 0
    assert b"+parser.add_argument" in out
    assert "run.sh:1" in err


def test_undo_leaves_alone_what_was_changed_in_another_project(
    project: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = project.parent / "other"
    other.mkdir()
    (other / "train.py").write_bytes(TRAIN)
    (other / ".keepfed").write_text("no folder, so that the user's own journal is taken")
    monkeypatch.chdir(other)
    assert called(capfdbinary, "set", "num_workers=16", "--write")[0] == 0
    monkeypatch.chdir(project)
    code, _, err = called(capfdbinary, "undo")
    assert code == 3
    assert "nothing to take back" in err
    monkeypatch.chdir(other)
    assert called(capfdbinary, "undo")[0] == 0
    assert (other / "train.py").read_bytes() == TRAIN
