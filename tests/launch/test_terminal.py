"""keepfed in a real terminal (a pty): who has the keyboard, Ctrl-C, Ctrl-Z, and what a shell above sees."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.launch.scratch import HERE, PATIENCE_S, PROGRAMS, environment, launcher

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups and no job control")
CTRL_C, CTRL_Z = b"\x03", b"\x1a"


class Window:
    """A terminal window in which a command runs."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.keyboard, end = os.openpty()
        try:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "take_terminal.py"), *command],
                cwd=cwd,
                env=environment(TERM="dumb", PS1="$ "),
                stdin=end,
                stdout=end,
                stderr=end,
                start_new_session=True,
            )
        finally:
            os.close(end)
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    def expect(self, text: str) -> str:
        """What is shown up to and with `text`; it is then forgotten."""
        deadline_s = time.monotonic() + PATIENCE_S
        while text.encode() not in self.seen:
            left_s = deadline_s - time.monotonic()
            assert left_s > 0, f"{text!r} never came, but: {self.seen!r}"
            if select.select([self.keyboard], [], [], left_s)[0]:
                try:
                    data = os.read(self.keyboard, 4096)
                except OSError:  # Linux: the last process with the other end has gone
                    data = b""
                assert data, f"the terminal closed before {text!r}: {self.seen!r}"
                self.seen += data
        shown, _, self.seen = self.seen.partition(text.encode())
        return shown.decode() + text

    def ended(self) -> int:
        """The exit code."""
        return self.process.wait(PATIENCE_S)

    def foreground(self) -> int:
        return os.tcgetpgrp(self.keyboard)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.keyboard)


@pytest.fixture
def windows() -> Iterator[list[Window]]:
    """Closed at the end of the test."""
    opened: list[Window] = []
    yield opened
    for window in opened:
        window.close()


def python(name: str) -> list[str]:
    return [sys.executable, str(PROGRAMS / name)]


def test_the_program_has_the_keyboard_from_its_first_instruction(tmp_path: Path, windows: list[Window]) -> None:
    window = Window(launcher("run", "--", *python("reads_the_keyboard.py")), tmp_path)
    windows.append(window)
    window.expect("foreground: True")
    window.expect("question? ")
    window.type(b"forty-two\n")
    window.expect("answer: forty-two")
    assert window.ended() == 0


def test_ctrl_c_goes_to_the_program_alone(tmp_path: Path, windows: list[Window]) -> None:
    window = Window(launcher("run", "--", *python("waits.py")), tmp_path)
    windows.append(window)
    window.expect("ready")
    assert window.foreground() != window.process.pid
    window.type(CTRL_C)
    shown = window.expect("KeyboardInterrupt")
    assert shown.count("Traceback") == 1
    assert window.ended() == 130


@pytest.fixture
def shell(tmp_path: Path, windows: list[Window]) -> Window:
    """An interactive shell with job control, at its first prompt."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    window = Window([bash, "--norc", "--noprofile", "--noediting", "-i"], tmp_path)
    windows.append(window)
    window.expect("$ ")
    return window


def test_the_terminal_is_given_back_to_the_shell(shell: Window) -> None:
    shell.type(f"{shlex.join(launcher('run', '--', *python('reads_the_keyboard.py')))}\n".encode())
    shell.expect("question? ")
    shell.type(b"one\n")
    shell.expect("answer: one")
    shell.expect("$ ")
    assert shell.foreground() == shell.process.pid
    shell.type(b"echo code:$?\n")
    shell.expect("code:0")
    shell.type(b"exit 0\n")
    assert shell.ended() == 0


def test_ctrl_z_stops_the_job_and_fg_gives_the_keyboard_back(shell: Window) -> None:
    shell.type(f"{shlex.join(launcher('run', '--', *python('reads_the_keyboard.py')))}\n".encode())
    shell.expect("question? ")
    shell.type(CTRL_Z)
    shell.expect("Stopped")
    shell.expect("$ ")
    assert shell.foreground() == shell.process.pid
    shell.type(b"fg\n")
    shell.expect("reads_the_keyboard.py")
    shell.type(b"two\n")
    shell.expect("answer: two")
    shell.expect("$ ")
    shell.type(b"exit 0\n")
    assert shell.ended() == 0


def test_a_job_in_the_background_does_not_take_the_keyboard(shell: Window) -> None:
    """It is stopped when it reads, as any other; fg then gives it what it wants."""
    shell.type(f"{shlex.join(launcher('run', '--', *python('reads_the_keyboard.py')))} &\n".encode())
    shell.expect("foreground: False")
    shell.expect("question? ")
    shell.type(b"\n")
    shell.expect("$ ")
    while "Stopped" not in _jobs(shell):
        pass
    shell.type(b"fg\n")
    shell.expect("reads_the_keyboard.py")
    shell.type(b"three\n")
    shell.expect("answer: three")
    shell.expect("$ ")
    shell.type(b"exit 0\n")
    assert shell.ended() == 0


def _jobs(shell: Window) -> str:
    shell.type(b"jobs; echo that is all\n")
    shell.expect("echo that is all")
    return shell.expect("that is all")


def test_a_pipeline_keeps_the_keyboard_for_its_other_end_until_the_program_asks(shell: Window) -> None:
    """`… | less` needs it; a program that reads gets it when it does, and Ctrl-C reaches it before that too."""
    shell.type(f"{shlex.join(launcher('run', '--', *python('reads_the_keyboard.py')))} | cat\n".encode())
    shell.expect("foreground: False")
    shell.type(b"four\n")
    shell.expect("answer: four")
    shell.expect("$ ")
    shell.type(f"{shlex.join(launcher('run', '--', *python('waits.py')))} | cat\n".encode())
    shell.expect("ready")
    shell.type(CTRL_C)
    shell.expect("KeyboardInterrupt")
    shell.type(b"\nexit 0\n")
    assert shell.ended() == 0


def test_without_a_shell_above_ctrl_z_does_not_stop_it_for_ever(tmp_path: Path, windows: list[Window]) -> None:
    """As the first process of a container: nobody could continue it, so the kernel does not stop it either."""
    window = Window(launcher("run", "--", *python("reads_the_keyboard.py")), tmp_path)
    windows.append(window)
    window.expect("question? ")
    window.type(CTRL_Z)
    window.type(b"five\n")
    window.expect("answer: five")
    assert window.ended() == 0
