"""`keepfed run -- …` around real programs: what they print, what they return, and which of their processes are armed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import pytest

from keepfed.events import Joined, LoaderSeen
from tests.launch.scratch import (
    PATIENCE_S,
    PROGRAMS,
    SOURCE,
    Interpreter,
    environment,
    events_of,
    keepfed_run,
    launcher,
    run,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs are shell scripts")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the programs, as their user has it."""
    return copytree(PROGRAMS, tmp_path / "project")


def works(**changes: str | None) -> dict[str, str]:
    return environment(KEEPFED_TEST_ARM="works", **changes)


def sites(folder: Path) -> list[str]:
    return [event.loader.site for _, event in events_of(folder) if isinstance(event, LoaderSeen)]


@pytest.mark.parametrize(
    ("program", "site", "out"),
    [
        (["{python}", "trains.py", "--lr", "1"], "trains.py:7", "[101, 102, 103] ['--lr', '1']\n"),
        (["{python}", "-m", "package"], "package/__main__.py:5", "[101, 102, 103]\n"),
        (["{python}", "-I", "trains.py"], "trains.py:7", "[101, 102, 103] []\n"),
        (["sh", "train.sh", "x"], "trains.py:7", "[101, 102, 103] ['x']\ndone\n"),
        (["./train_exec.sh", "x"], "trains.py:7", "[101, 102, 103] ['x']\n"),
        (["./replaces_pythonpath.sh"], "trains.py:7", "[101, 102, 103] []\n"),
        (["env", "-u", "PYTHONPATH", "{python}", "trains.py"], "trains.py:7", "[101, 102, 103] []\n"),
    ],
    ids=["plain", "package", "isolated", "shell", "exec", "replaced-path", "no-path"],
)
def test_the_trainer_is_armed_wherever_it_stands(
    equipped: Interpreter, here: Path, program: list[str], site: str, out: str
) -> None:
    command = [word.format(python=equipped.python) for word in program]
    ended = keepfed_run(command, here, works(PYTHON=equipped.python))
    assert (ended.returncode, ended.stdout) == (0, out)
    assert ended.stderr == (
        f"keepfed: {site} list: asks for {'num_workers=0' if 'package' in site else 'num_workers=1, prefetch_factor=2'}; "
        "uses num_workers=3, prefetch_factor=2 (first guess, then by measurement)\n"
    )
    assert sites(here) == [site]


def test_keepfed_that_is_only_on_the_path_arms_through_sitecustomize(bare: Interpreter, here: Path) -> None:
    path = os.pathsep.join([str(SOURCE), str(Path(__file__).parent / "fake_armed")])
    (here / "sitecustomize.py").write_text("import keepfed_fake_armed\n", encoding="utf-8")
    ended = keepfed_run([bare.python, "trains.py"], here, works(PYTHONPATH=f"{path}{os.pathsep}{here}"))
    assert (ended.returncode, ended.stdout) == (0, "[101, 102, 103] []\n")


def test_ranks_are_armed_and_their_agent_is_not(equipped: Interpreter, here: Path) -> None:
    """Each rank joins under its own number; what they say alike is told once."""
    ended = keepfed_run([equipped.python, "starts_ranks.py"], here, works())
    assert (ended.returncode, ended.stdout) == (0, "[101, 102, 103] []\n" * 2)
    assert ended.stderr.count("\n") == 1
    assert sorted(event.rank for _, event in events_of(here) if isinstance(event, Joined)) == [0, 1]


def test_output_input_arguments_and_exit_code_are_the_programs_own(equipped: Interpreter, here: Path) -> None:
    program = [equipped.python, "talks_and_fails.py", "--a", "b c", "--", "--exact", ""]

    def outcome(argv: list[str]) -> tuple[int, bytes, bytes]:
        ended = subprocess.run(
            argv, cwd=here, env=works(), input=b"from stdin", capture_output=True, timeout=PATIENCE_S, check=False
        )
        return ended.returncode, ended.stdout, ended.stderr

    assert outcome(launcher("run", "--", *program)) == outcome(program)
    assert outcome(program)[0] == 7


def test_keepfed_disable_switches_everything_off(equipped: Interpreter, here: Path) -> None:
    code = "import os; print(sorted(name for name in os.environ if 'KEEPFED_RUN' in name or 'PYTHONPATH' in name))"
    ended = keepfed_run([equipped.python, "-c", code], here, works(KEEPFED_DISABLE="1"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[]\n", "")


def test_a_failing_arm_leaves_torchs_own_loader_and_exactly_one_line(equipped: Interpreter, here: Path) -> None:
    ended = keepfed_run([equipped.python, "trains.py"], here, environment(KEEPFED_TEST_ARM="fails"))
    assert (ended.returncode, ended.stdout) == (0, "[1, 2, 3] []\n")
    assert ended.stderr.count("\n") == 1
    assert "RuntimeError: no such thing" in ended.stderr


@pytest.mark.parametrize(
    ("program", "code", "line"),
    [
        (["no-such-command-here"], 127, "keepfed: no-such-command-here: command not found\n"),
        (["./no/such/file"], 127, "keepfed: ./no/such/file: command not found\n"),
        (
            ["trains.py"],
            127,
            "keepfed: trains.py: command not found (a Python file is started with: python trains.py)\n",
        ),
        (["A=1", "python"], 127, "keepfed: A=1: command not found (variables are set with: env A=1 ...)\n"),
        (["./package"], 126, "keepfed: ./package: Is a directory\n"),
        (
            ["./trains.py"],
            126,
            "keepfed: ./trains.py: Permission denied (a Python file is started with: python ./trains.py)\n",
        ),
        (
            ["./bad_interpreter"],
            126,
            (
                "keepfed: ./bad_interpreter: cannot execute: its first line names an interpreter that does not exist "
                "(#!/no/such/python)\n"
            ),
        ),
    ],
    ids=["unknown", "missing", "python-file", "assignment", "folder", "not-executable", "interpreter"],
)
def test_a_command_that_cannot_be_started_gets_one_line_and_the_shells_code(
    here: Path, program: list[str], code: int, line: str
) -> None:
    (here / "bad_interpreter").write_text("#!/no/such/python\n", encoding="utf-8")
    (here / "bad_interpreter").chmod(0o755)
    ended = keepfed_run(program, here)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", line)


def test_a_script_without_a_first_line_is_run_by_sh(here: Path) -> None:
    (here / "plain_script").write_text('echo "$0 $1"\nexit 3\n', encoding="utf-8")
    (here / "plain_script").chmod(0o755)
    ended = keepfed_run(["./plain_script", "one"], here)
    assert (ended.returncode, ended.stdout) == (3, "./plain_script one\n")


def test_a_program_that_a_signal_ends_returns_128_plus_its_number(here: Path) -> None:
    for name, code in (("TERM", 143), ("KILL", 137)):
        ended = keepfed_run(["sh", "-c", f"kill -{name} $$; sleep 60"], here)
        assert ended.returncode == code


def test_a_program_that_fails_by_itself_is_not_commented_upon(
    bare: Interpreter, equipped: Interpreter, here: Path
) -> None:
    code = "raise SystemExit('its own message')"
    ended = keepfed_run([equipped.python, "-c", code], here)
    assert (ended.returncode, ended.stderr) == (1, "its own message\n")


def test_descriptors_that_we_were_given_reach_the_program(here: Path) -> None:
    """A make jobserver, or a socket of systemd's."""
    read_end, write_end = os.pipe()
    try:
        ended = keepfed_run(["sh", "-c", f"echo through > /dev/fd/{write_end}"], here, pass_fds=(write_end,))
        assert ended.returncode == 0
        assert os.read(read_end, 100) == b"through\n"
    finally:
        os.close(read_end)
        os.close(write_end)


class Running:
    """`keepfed run -- PROGRAM` that has said "ready"."""

    def __init__(self, program: list[str], here: Path, **options: object) -> None:
        self.keepfed = subprocess.Popen(
            launcher("run", "--", *program),
            cwd=here,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]  # passed on to Popen as they are
        )
        assert self.keepfed.stdout is not None
        self.ready = self.keepfed.stdout.readline()

    def ended(self) -> tuple[int, str]:
        out, err = self.keepfed.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err or "KeyboardInterrupt" in err
        return self.keepfed.returncode, out


@pytest.mark.parametrize(
    ("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129), ("SIGUSR1", 138), ("SIGQUIT", 131)]
)
def test_signals_that_keepfed_gets_reach_the_program(bare: Interpreter, here: Path, name: str, code: int) -> None:
    running = Running([bare.python, "waits.py"], here)
    running.keepfed.send_signal(getattr(signal, name))
    assert running.ended() == (code, "")


def test_sigterm_leaves_the_workers_to_the_trainer(bare: Interpreter, here: Path) -> None:
    """Sent to the whole group, it would kill the worker that the checkpoint of a preempted job still needs."""
    running = Running([bare.python, "saves_on_sigterm.py"], here)
    running.keepfed.send_signal(signal.SIGTERM)
    assert running.ended() == (5, "saved, worker alive: True\n")


def test_sigterm_ends_a_shell_together_with_the_training_it_waits_for(bare: Interpreter, here: Path) -> None:
    running = Running(["sh", "-c", f"{bare.python} waits.py; echo not reached"], here)
    running.keepfed.send_signal(signal.SIGTERM)
    assert running.ended() == (143, "")  # communicate() waits for the last process that holds stdout


def test_ctrl_c_reaches_every_process_of_the_program(bare: Interpreter, here: Path) -> None:
    running = Running(["sh", "-c", f"{bare.python} waits.py; exit 9"], here)
    running.keepfed.send_signal(signal.SIGINT)
    code, out = running.ended()
    assert (code, out) == (130, "")


def test_signals_that_were_ignored_stay_ignored(bare: Interpreter, here: Path) -> None:
    """As under nohup: neither keepfed nor the program ends."""
    code = (
        "import signal\nprint('ready', flush=True)\n"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, signal.getsignal(signal.SIGTTOU) is signal.SIG_DFL)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: exit(0))\nprint('set', flush=True)\nsignal.pause()"
    )
    running = Running(["nohup", bare.python, "-c", code], here)
    assert running.keepfed.stdout is not None
    lines = [running.ready, running.keepfed.stdout.readline(), running.keepfed.stdout.readline()]
    assert lines[-3:] == ["ready\n", "True True\n", "set\n"]
    running.keepfed.send_signal(signal.SIGUSR1)
    assert running.ended()[0] == 0


def test_what_a_finished_program_left_running_is_its_own_affair(here: Path) -> None:
    """A tensorboard started with `&` in train.sh is meant to stay."""
    code = f"{sys.executable} -c 'import time; time.sleep(600)' >/dev/null 2>&1 & echo $!"
    ended = keepfed_run(["sh", "-c", code], here)
    pid = int(ended.stdout)
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)


def test_the_same_without_keepfed_for_comparison(bare: Interpreter, here: Path) -> None:
    assert run([bare.python, "trains.py"], here).stdout == "[1, 2, 3] []\n"


def test_with_real_torch_a_failing_arm_costs_one_line_and_nothing_else(here: Path) -> None:
    """Workers, order and content are torch's own."""
    program = (
        "import keepfed_fake_armed\nfrom torch.utils.data import DataLoader\n"
        "print([batch.tolist() for batch in DataLoader(list(range(4)), batch_size=2, num_workers=1)])\n"
    )
    (here / "program.py").write_text(program, encoding="utf-8")
    path = os.pathsep.join([str(SOURCE), str(Path(__file__).parent / "fake_armed")])
    environ = environment(PYTHONPATH=path, KEEPFED_TEST_ARM="fails")
    ended = keepfed_run([sys.executable, "program.py"], here, environ)
    assert (ended.returncode, ended.stdout) == (0, "[[0, 1], [2, 3]]\n")
    assert ended.stderr == (
        "keepfed: not active in this process, torch's own DataLoader is used (RuntimeError: no such thing)\n"
    )
