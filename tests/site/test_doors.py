"""The two ways in: keepfed.pth where keepfed is installed, sitecustomize elsewhere, in every Python of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.launch.scratch import SITE_FOLDER, SOURCE, Interpreter, environment, run

VERSIONS = ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
COUNT = "import sys\nprint([type(finder).__name__ for finder in sys.meta_path].count('TorchWatch'))"


@cache
def interpreters() -> dict[str, str]:
    """Pythons of this machine by version: KEEPFED_TEST_PYTHONS (paths), pyenv's folder, PATH."""
    found: dict[str, str] = {}
    candidates = [word for word in os.environ.get("KEEPFED_TEST_PYTHONS", "").split(os.pathsep) if word]
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(root.glob("*/bin/python"))]
    candidates += [path for version in VERSIONS if (path := shutil.which(f"python{version}"))]
    for candidate in candidates:
        code = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"
        try:
            told = subprocess.run(
                [candidate, "-E", "-c", code], capture_output=True, text=True, timeout=20, check=False
            )
        except OSError:
            continue
        if told.returncode == 0:
            found.setdefault(told.stdout, candidate)
    return found


@pytest.fixture(params=VERSIONS)
def other_python(request: pytest.FixtureRequest) -> str:
    """A Python in which keepfed is not installed."""
    if request.param not in interpreters():
        pytest.skip(f"no Python {request.param} on this machine (KEEPFED_TEST_PYTHONS names others)")
    return interpreters()[request.param]


@pytest.fixture(params=("2.7", "3.6", "3.11", "3.13"))
def corner_python(request: pytest.FixtureRequest) -> str:
    """The oldest, the oldest that is promised, the floor and a new one."""
    if request.param not in interpreters():
        pytest.skip(f"no Python {request.param} on this machine (KEEPFED_TEST_PYTHONS names others)")
    return interpreters()[request.param]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run folder."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return folder


def environ_with(run_folder: Path, *path: Path | str, **changes: str) -> dict[str, str]:
    return environment(PYTHONPATH=os.pathsep.join(map(str, path)), KEEPFED_RUN=str(run_folder), **changes)


def test_any_python_without_keepfed_stays_silent_and_leaves_a_line(other_python: str, run_folder: Path) -> None:
    ended = run([other_python, "-c", "print('hello')"], run_folder, environ_with(run_folder, SITE_FOLDER))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("hello\n", "", 0)
    (line,) = (run_folder / "unarmed.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert set(told) == {"pid", "executable", "version", "torch"}
    assert told["torch"] is False
    assert os.path.samefile(told["executable"], other_python)
    assert (run_folder / "unarmed.jsonl").stat().st_mode & 0o077 == 0


def test_a_python_below_the_floor_stays_silent_even_with_keepfed_on_its_path(
    other_python: str, run_folder: Path
) -> None:
    """The hook is newer than such a Python can parse; nothing may try to import it."""
    ended = run([other_python, "-c", "print('hello')"], run_folder, environ_with(run_folder, SITE_FOLDER, SOURCE))
    assert (ended.stdout, ended.stderr, ended.returncode) == ("hello\n", "", 0)


def test_a_sitecustomize_further_down_runs_as_if_it_were_the_first(other_python: str, run_folder: Path) -> None:
    """Under its own name and with its own __file__, whatever it prints, and with ours gone from sys.path."""
    theirs = run_folder / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import sys\nsys.stdout.write(__name__ + ' ' + __file__ + '\\n')\n")
    code = "import sys, sitecustomize; print(sys.path, sys.modules['sitecustomize'].__file__)"
    with_ours = run([other_python, "-c", code], run_folder, environ_with(run_folder, SITE_FOLDER, theirs))
    without = run([other_python, "-c", code], run_folder, environ_with(run_folder, theirs))
    assert (with_ours.stdout, with_ours.stderr) == (without.stdout, without.stderr)
    assert with_ours.stdout.startswith("sitecustomize ")
    assert (run_folder / "unarmed.jsonl").exists()


@pytest.mark.parametrize("code", ["raise ValueError('broken')", "import nothing_of_this_name", "1 +"])
def test_errors_of_a_chained_sitecustomize_look_the_same(corner_python: str, run_folder: Path, code: str) -> None:
    theirs = run_folder / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text(code)
    with_ours = run([corner_python, "-c", "1"], run_folder, environ_with(run_folder, SITE_FOLDER, theirs))
    without = run([corner_python, "-c", "1"], run_folder, environ_with(run_folder, theirs))
    assert (with_ours.stdout, with_ours.stderr, with_ours.returncode) == (
        without.stdout,
        without.stderr,
        without.returncode,
    )
    assert without.stderr or code.startswith("import")  # Python 2 passes over a failed import without a word


@pytest.mark.parametrize("variable", ["KEEPFED_WORKER", "KEEPFED_DISABLE"])
def test_a_disarmed_python_leaves_no_line(bare: Interpreter, run_folder: Path, variable: str) -> None:
    run([bare.python, "-c", "1"], run_folder, environ_with(run_folder, SITE_FOLDER, **{variable: "1"}))
    assert not (run_folder / "unarmed.jsonl").exists()


def test_the_line_tells_a_python_that_has_torch(bare: Interpreter, run_folder: Path) -> None:
    run([bare.python, "-c", "1"], run_folder, environ_with(run_folder, SITE_FOLDER))
    assert json.loads((run_folder / "unarmed.jsonl").read_text())["torch"] is True


def test_a_run_folder_that_is_gone_disturbs_nobody(bare: Interpreter, equipped: Interpreter, run_folder: Path) -> None:
    """A server that the program left running outlives the run, and so does its environment."""
    for python in (bare.python, equipped.python):
        environ = environ_with(run_folder / "gone", SITE_FOLDER)
        ended = run([python, "-c", "print(1)"], run_folder, environ)
        assert (ended.stdout, ended.stderr) == ("1\n", "")


def test_sitecustomize_arms_where_keepfed_can_be_imported(bare: Interpreter, run_folder: Path) -> None:
    ended = run([bare.python, "-c", COUNT], run_folder, environ_with(run_folder, SITE_FOLDER, SOURCE))
    assert (ended.stdout, ended.stderr) == ("1\n", "")
    assert not (run_folder / "unarmed.jsonl").exists()


def test_both_doors_and_one_of_them_twice_arm_once(equipped: Interpreter, run_folder: Path) -> None:
    code = f"import site\nsite.addsitedir({str(equipped.site_packages)!r})\n{COUNT}"
    ended = run([equipped.python, "-c", code], run_folder, environ_with(run_folder, SITE_FOLDER))
    assert (ended.stdout, ended.stderr) == ("1\n", "")


@pytest.mark.parametrize(("flag", "armed"), [("-I", "1"), ("-E", "1"), ("-s", "1"), ("-S", "0")])
def test_the_pth_survives_what_switches_pythonpath_off(
    equipped: Interpreter, run_folder: Path, flag: str, armed: str
) -> None:
    ended = run([equipped.python, flag, "-c", COUNT], run_folder, environ_with(run_folder, SITE_FOLDER))
    assert (ended.stdout, ended.stderr) == (f"{armed}\n", "")


def test_the_pth_survives_a_pythonpath_that_was_replaced(equipped: Interpreter, run_folder: Path) -> None:
    ended = run([equipped.python, "-c", COUNT], run_folder, environ_with(run_folder, "src"))
    assert (ended.stdout, ended.stderr) == ("1\n", "")


def test_the_pth_is_one_line_and_costs_microseconds_when_nothing_runs(tmp_path: Path) -> None:
    text = (SOURCE / "keepfed" / "_site" / "keepfed.pth").read_text(encoding="ascii")
    assert text.count("\n") == 1
    assert text.startswith("import os; ")
    code = f"import timeit\nline = {text!r}\nprint(min(timeit.repeat(lambda: exec(line), number=100, repeat=5)) / 100)"
    ended = run([sys.executable, "-c", code], tmp_path)
    assert float(ended.stdout) < 200e-6


def test_a_half_removed_keepfed_says_nothing(bare: Interpreter, run_folder: Path, tmp_path: Path) -> None:
    """The .pth is still there, the package is not: site would print a traceback in every Python."""
    sitedir = tmp_path / "sitedir"
    sitedir.mkdir()
    shutil.copy(SOURCE / "keepfed" / "_site" / "keepfed.pth", sitedir)
    code = f"import site\nsite.addsitedir({str(sitedir)!r})\nprint('fine')"
    ended = run([bare.python, "-c", code], run_folder, environment(KEEPFED_RUN=str(run_folder)))
    assert (ended.stdout, ended.stderr) == ("fine\n", "")


def test_the_folder_on_pythonpath_holds_nothing_else() -> None:
    """Any other module in it would hide one of the program's."""
    assert [path.name for path in SITE_FOLDER.iterdir() if path.name != "__pycache__" and path.suffix != ".pyc"] == [
        "sitecustomize.py"
    ]
