"""Program: the child as tune uses it, from inside one process."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from keepfed.errors import UsageError
from keepfed.feed import RunConfig, RunFolder
from keepfed.launch.arming import SITE_FOLDER, armed_environment
from keepfed.launch.program import CommandError, Program
from tests.launch.scratch import PROGRAMS, environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and signals")
PATIENCE_S = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder."""
    return RunFolder.create(tmp_path, RunConfig())


def python(*words: str) -> list[str]:
    return [sys.executable, *words]


def wait_until_ready(file: Path) -> list[int]:
    """The numbers that a program wrote behind "ready" into the file that is its stdout."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        text = file.read_text() if file.exists() else ""
        if text.startswith("ready") and text.endswith("\n"):
            return [int(word) for word in text.split()[1:]]
        threading.Event().wait(0.01)
    raise AssertionError(f"{file} never said ready")


def test_wait_gives_none_until_the_end_and_then_the_code(folder: RunFolder) -> None:
    with Program(python("-c", "import sys; sys.stdin.read(); sys.exit(3)"), folder) as program:
        program.start()
        assert program.exit_code is None
        while (code := program.wait(0.05)) is None:
            assert program.pid == program.pgid == os.getpgid(program.pid)
            assert program.pgid != os.getpgrp()
        assert [code, program.exit_code, program.wait(None), program.stop()] == [3, 3, 3, 3]


def test_waiting_ends_with_the_program_and_not_with_the_timeout(folder: RunFolder) -> None:
    with Program(["true"], folder) as program:
        program.start()
        started_s = time.monotonic()
        assert program.wait(20.0) == 0
        assert time.monotonic() - started_s < 10.0


def test_signal_handlers_are_given_back(folder: RunFolder) -> None:
    watched = ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGTTOU", "SIGCONT", "SIGTSTP", "SIGWINCH", "SIGUSR1")
    before = [signal.getsignal(getattr(signal, name)) for name in watched]
    with Program(["true"], folder) as program:
        program.start()
        assert [signal.getsignal(getattr(signal, name)) for name in watched] != before
        program.wait(None)
    assert [signal.getsignal(getattr(signal, name)) for name in watched] == before
    with Program(["no-such-command"], folder) as program, pytest.raises(CommandError):
        program.start()
    assert [signal.getsignal(getattr(signal, name)) for name in watched] == before


def test_a_command_error_is_a_usage_error_with_the_shells_code(folder: RunFolder) -> None:
    with Program(["no-such-command"], folder) as program, pytest.raises(UsageError) as caught:
        program.start()
    assert isinstance(caught.value, CommandError)
    assert caught.value.exit_code == 127
    with Program(["echo", "nul\0byte"], folder) as program, pytest.raises(CommandError) as caught:
        program.start()
    assert caught.value.exit_code == 126


def test_stop_interrupts_as_ctrl_c_does(folder: RunFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A trainer that tears down on KeyboardInterrupt gets the time to do so, and its own exit code counts."""
    code = (
        "import sys, time, pathlib\ntry:\n    pathlib.Path(sys.argv[1]).write_text('ready\\n')\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    print('saved')\n    sys.exit(1)"
    )
    with Program(python("-c", code, str(tmp_path / "said")), folder) as program:
        program.start()
        wait_until_ready(tmp_path / "said")
        assert program.stop() == 1
    assert capfd.readouterr().out == "saved\n"


def test_stop_ends_what_does_not_want_to_end_and_all_that_it_started(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepfed.launch.program._LEFTOVERS_S", (0.1, 0.2))
    said = tmp_path / "said"
    command = f'exec "{sys.executable}" "{PROGRAMS / "does_not_want_to_end.py"}" > "{said}"'
    with Program(["sh", "-c", command], folder) as program:
        program.start()
        children = wait_until_ready(said)
        assert len(children) == 2
        assert program.stop(grace_s=(0.2, 0.2)) == 128 + signal.SIGKILL
        assert not any(psutil.pid_exists(pid) and _alive(pid) for pid in [program.pid, *children])


def test_the_context_manager_leaves_no_process(folder: RunFolder) -> None:
    def fails() -> None:
        program.start()
        raise ValueError("ours")

    program = Program(["sleep", "600"], folder)
    with pytest.raises(ValueError, match="ours"), program:
        fails()
    assert program.exit_code == 128 + signal.SIGINT
    assert not psutil.pid_exists(program.pid)


def test_stop_wakes_a_program_that_stands_still(folder: RunFolder) -> None:
    with Program(["sleep", "600"], folder) as program:
        program.start()
        os.kill(program.pid, signal.SIGSTOP)
        assert program.wait(0.1) is None
        assert program.stop(grace_s=(10.0, 10.0)) == 128 + signal.SIGINT


def test_an_interrupt_that_the_launcher_was_told_is_known(folder: RunFolder) -> None:
    with Program(["sh", "-c", "trap 'exit 4' INT; kill -INT $PPID; while :; do sleep 0.01; done"], folder) as program:
        program.start()
        assert program.wait(PATIENCE_S) == 4
        assert program.interrupted


def test_it_works_outside_the_main_thread(folder: RunFolder) -> None:
    codes: list[int | None] = []

    def use() -> None:
        with Program(["sh", "-c", "exit 6"], folder) as program:
            program.start()
            codes.append(program.wait(PATIENCE_S))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(PATIENCE_S)
    assert codes == [6]


def test_the_environment_names_the_run_and_keeps_the_path_letter_for_letter(folder: RunFolder) -> None:
    for before, after in (
        (None, f"{SITE_FOLDER}"),
        ("", f"{SITE_FOLDER}"),
        ("src:", f"{SITE_FOLDER}:src:"),
        (f"a:{SITE_FOLDER}:b", f"a:{SITE_FOLDER}:b"),
    ):
        environ = {"KEEPFED_WORKER": "1", "HOME": "/h"} | ({} if before is None else {"PYTHONPATH": before})
        armed = armed_environment(folder, environ)
        assert armed == {"HOME": "/h", "KEEPFED_RUN": str(folder.path), "PYTHONPATH": after}
        assert environ["KEEPFED_WORKER"] == "1"


def test_the_switch_leaves_the_environment_alone(folder: RunFolder) -> None:
    environ = environment(KEEPFED_DISABLE="1", PYTHONPATH="x")
    assert armed_environment(folder, environ) == environ


def test_our_own_site_packages_never_reach_the_program(folder: RunFolder) -> None:
    entries = armed_environment(folder, {})["PYTHONPATH"].split(os.pathsep)
    assert [sorted(path.name for path in Path(entry).iterdir() if path.suffix == ".py") for entry in entries] == [
        ["sitecustomize.py"]
    ]


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def test_output_that_was_asked_for_takes_all_that_it_writes_and_it_reads_nothing(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        asks = "import sys; print(repr(sys.stdin.read()), flush=True); print('err', file=sys.stderr)"
        with Program(python("-c", asks), None, output=file.fileno()) as program:
            program.start()
            assert program.wait(PATIENCE_S) == 0
            assert program.told is None
    assert (tmp_path / "out").read_text() == "''\nerr\n"


def test_without_a_run_folder_it_is_not_armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEEPFED_RUN", raising=False)
    with (tmp_path / "out").open("wb") as file:
        asks = "import os; print('KEEPFED_RUN' in os.environ, os.environ.get('PYTHONPATH', ''))"
        with Program(python("-c", asks), None, {"PYTHONPATH": "mine", "PATH": ""}, file.fileno()) as program:
            program.start()
            assert program.wait(PATIENCE_S) == 0
    assert (tmp_path / "out").read_text() == "False mine\n"
