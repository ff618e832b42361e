"""The user's program as a child: started armed, waited for, stopped. `docs/design/launch.md` draws it.

A launcher that replaces itself by the program (exec) would be simpler, but then nobody could read the events, say why
nothing was armed, or stop the program when tuning has settled. So keepfed stays the parent and does what a shell does for
its jobs: process group, terminal, stop and continue, exit code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Self

import psutil

from keepfed.launch.arming import armed_environment
from keepfed.launch.command import CommandError, start_command
from keepfed.launch.signals import TO_PROCESS, SignalRelay
from keepfed.launch.terminal import Terminal

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Mapping, Sequence

    from keepfed.feed import RunFolder

__all__ = ["CommandError", "Program"]

_ENDING = frozenset({"SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK"})

_LEFTOVERS_S = (2.0, 3.0)
"""After the first process has ended: seconds for the others to end by themselves, then after SIGTERM. wandb and the like
finish an upload in that time."""


class Program:
    """One run of the user's command. A context manager: whatever still runs at its end is stopped.

    Use it from the main thread: only there can signals be passed on.
    """

    def __init__(
        self,
        argv: Sequence[str],
        run: RunFolder | None,
        environ: Mapping[str, str] | None = None,
        output: int | None = None,
    ) -> None:
        """Without `run` it is not armed: nothing of ours enters it.

        With `output`, a descriptor, it writes there, reads nothing, and the keyboard stays ours.
        """
        self._argv = list(argv)
        environ = os.environ if environ is None else environ
        self._environ = dict(environ) if run is None else armed_environment(run, environ)
        self._output = output
        self._terminal = Terminal.attached()
        self._handed_over = False
        self._relay = SignalRelay(self._pass_on)
        self._child: subprocess.Popen[bytes] | None = None
        self._exit_code: int | None = None
        self._passed_on: list[int] = []
        self._continued = False

    def start(self) -> None:
        """Start it. Raises CommandError, with the shell's exit code, when the command cannot be started."""
        terminal = self._terminal
        hand_over = self._handed_over = terminal is not None and self._output is None and terminal.is_ours_alone

        def in_child() -> None:
            if terminal is not None and hand_over:  # here and not in the parent: before it can read
                terminal.hand_to(os.getpgrp())
            self._relay.in_child()

        self._relay.__enter__()
        try:
            self._child = start_command(self._argv, self._environ, in_child, self._output)
        except BaseException:
            if terminal is not None and hand_over:
                terminal.take_back(-1)
            self._relay.__exit__()
            raise
        early, self._passed_on = self._passed_on, []
        for signum in early:
            self._pass_on(signum)

    @property
    def pid(self) -> int:
        """The first process of the program."""
        if self._child is None:
            raise RuntimeError("the program was not started")
        return self._child.pid

    @property
    def pgid(self) -> int:
        """Its process group."""
        return self.pid

    @property
    def exit_code(self) -> int | None:
        """As a shell reports it: 128 + n when signal n ended it; None while it runs."""
        return self._exit_code

    @property
    def interrupted(self) -> bool:
        """Whether somebody pressed Ctrl-C, as far as the launcher can know: it was told itself, or the program died of it."""
        return signal.SIGINT in self._passed_on or self._exit_code == 128 + signal.SIGINT

    @property
    def told(self) -> int | None:
        """The first signal by which somebody asked the launcher to end; the program was told too."""
        return next((signum for signum in self._passed_on if signal.Signals(signum).name in _ENDING), None)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """The exit code, or None when it still runs after `timeout_s` seconds. Passes signals on meanwhile."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (code := self._look()) is None:
            left_s = 1.0 if deadline_s is None else deadline_s - time.monotonic()
            if left_s <= 0:
                return None
            self._relay.wait(min(left_s, 1.0))
        return code

    def stop(self, grace_s: tuple[float, float] = (20.0, 10.0), others: Iterable[psutil.Process] = ()) -> int:
        """End the program and everything below it; return its exit code.

        SIGINT first, as Ctrl-C: trainers save and tear down on it. After `grace_s[0]` seconds SIGTERM, after `grace_s[1]` more SIGKILL. Then
        what is left of its group, of the processes that were below it (torchrun gives each rank a session of its own), and
        of `others`, which the caller has seen below it before.
        """
        family = self._family() | set(others)
        for name, patience_s in (("SIGINT", grace_s[0]), ("SIGTERM", grace_s[1]), ("SIGKILL", 10.0)):
            if self._exit_code is not None:
                break
            self._signal_all(name)
            self.wait(patience_s)
            family |= self._family()
        _clear(family | self._group())
        if self._exit_code is None:  # not even SIGKILL: it hangs in the kernel, and so would we
            self._ended(-getattr(signal, "SIGKILL", 9))
        return self._exit_code or 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None and self._exit_code is None:
            self.stop()

    # ------------------------------------------------------------------------------------------------------------- waiting

    def _look(self) -> int | None:
        """The exit code if it has ended by now; follows it where it was stopped by job control."""
        if self._exit_code is not None or self._child is None:
            return self._exit_code
        if os.name != "posix":
            code = self._child.poll()
            return None if code is None else self._ended(code)
        try:
            while True:
                pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
                if pid == 0:
                    return None
                if not os.WIFSTOPPED(status):
                    return self._ended(os.waitstatus_to_exitcode(status))
                self._follow_stop(os.WSTOPSIG(status))
        except ChildProcessError:  # somebody else in this process waited for it
            return self._ended(self._child.returncode or 0)

    def _ended(self, code: int) -> int:
        """Note the end, and give terminal and signals back."""
        if self._child is not None:
            self._child.returncode = code
        self._exit_code = code if code >= 0 else 128 - code
        if -code in self._passed_on:  # `kill` on a shell that waits for the training: the training is meant too
            with contextlib.suppress(OSError):
                os.killpg(self.pgid, -code)
        if self._terminal is not None:
            self._terminal.take_back(self.pgid)
        self._relay.__exit__()
        return self._exit_code

    # --------------------------------------------------------------------------------------------------------- job control

    def _follow_stop(self, signum: int) -> None:
        """The program was stopped. By Ctrl-Z: stop our own job too, so that the shell above notices, and go on with it."""
        terminal = self._terminal
        if terminal is None or signum == signal.SIGSTOP:  # somebody's `kill -STOP` is meant for the program alone
            return
        if signum in {signal.SIGTTIN, signal.SIGTTOU} and terminal.is_ours:
            self._handed_over = True  # it asks for the terminal, and we have it
            self._continue()
            return
        terminal.take_back(self.pgid)
        self._continued = False
        with self._relay.default(signum):
            os.killpg(os.getpgrp(), signum)
            # Here the whole job stands still, until SIGCONT.
        if not self._continued:  # no shell above us (container, ssh -t): the kernel does not stop such a group
            self._relay.wait(1.0)
            self._continue()

    def _continue(self) -> None:
        self._continued = True
        if self._terminal is not None and self._handed_over and self._terminal.is_ours:
            self._terminal.hand_to(self.pgid)
        with contextlib.suppress(OSError):
            os.killpg(self.pgid, signal.SIGCONT)

    # ------------------------------------------------------------------------------------------------------------- signals

    def _pass_on(self, signum: int) -> None:
        """Hand a signal that we got to the program; before it exists, keep it."""
        self._passed_on.append(signum)
        if self._child is None or self._exit_code is not None:
            return
        name = signal.Signals(signum).name
        with contextlib.suppress(OSError):
            if os.name != "posix":
                self._child.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signum))
            elif name == "SIGCONT":
                self._continue()
            elif name in TO_PROCESS:
                os.kill(self.pid, signum)
            else:
                os.killpg(self.pgid, signum)

    def _signal_all(self, name: str) -> None:
        """Signal the whole group, and wake it where it stands still."""
        if self._child is None:
            return
        with contextlib.suppress(OSError):
            if os.name != "posix":
                if name == "SIGINT":
                    self._child.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
                else:
                    self._child.terminate()
                return
            os.killpg(self.pgid, getattr(signal, name))
            os.killpg(self.pgid, signal.SIGCONT)

    # ----------------------------------------------------------------------------------------------------------- leftovers

    def _family(self) -> set[psutil.Process]:
        """Everything below the program now; a pid that is used again later is told apart by its start time (psutil)."""
        with contextlib.suppress(psutil.Error):
            if self._child is not None and self._exit_code is None:
                return set(psutil.Process(self.pid).children(recursive=True))
        return set()

    def _group(self) -> set[psutil.Process]:
        """Members of the program's process group."""
        members: set[psutil.Process] = set()
        if self._child is None or os.name != "posix":
            return members
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != self.pid and os.getpgid(process.pid) == self.pgid:
                    members.add(process)
        return members


def _clear(processes: set[psutil.Process]) -> None:
    """End what is left: patience, SIGTERM, SIGKILL."""
    for patience_s, act in zip((*_LEFTOVERS_S, 5.0), ("wait", "terminate", "kill"), strict=True):
        alive = [process for process in processes if _runs(process)]
        if not alive:
            return
        for process in alive:
            with contextlib.suppress(psutil.Error):
                if act != "wait":
                    getattr(process, act)()
        psutil.wait_procs(alive, timeout=patience_s)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
