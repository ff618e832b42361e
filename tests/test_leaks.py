"""The fixture that counts what tests leave behind is itself shown to fail, once for each kind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are counted through /proc")

LEAKING = """
import os, subprocess, sys, threading, mmap, time
import pytest

KEEP = []

def test_clean(tmp_path):
    with open(tmp_path / "x", "w") as file:
        file.write("x")
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

def test_process_on_its_way_out():
    KEEP.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.1)"]))
    KEEP.append(threading.Thread(target=KEEP[-1].wait))
    KEEP[-1].start()

def test_child():
    KEEP.append(subprocess.Popen(["sleep", "60"]))

def test_orphan_of_a_program():
    subprocess.run(["sh", "-c", "sleep 60 </dev/null >/dev/null 2>&1 &"], check=True)

def test_orphan_of_a_fork():
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    os.waitpid(pid, 0)

def test_zombie():
    if os.fork() == 0:
        os._exit(0)

def test_descriptor():
    KEEP.append(os.pipe())

def test_memory():
    number = os.memfd_create("leaked")
    os.truncate(number, 4096)
    KEEP.append(mmap.mmap(number, 4096))
    os.close(number)

def test_thread():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()

@pytest.mark.leaves("descriptors", reason="shown to be possible")
def test_allowed():
    KEEP.append(os.pipe())
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says about LEAKING, run once for all tests of this file."""
    folder = tmp_path_factory.mktemp("leaking")
    file = folder / "test_leaking.py"
    file.write_text(LEAKING, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.leaks", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["--rootdir", str(folder), "--leak-wait-s", "0.8", "-v", "--tb=short", "-ra", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=50, env=environment
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("test_child", r"processes: \d+ \(parent \d+\): sleep 60"),
        ("test_orphan_of_a_program", r"processes: \d+ \(parent \d+\): sleep 60"),
        ("test_orphan_of_a_fork", r"processes: \d+ \(parent \d+\): .*pytest"),
        ("test_zombie", r"processes: \d+ \(parent \d+\): a zombie"),
        ("test_descriptor", r"descriptors: \d+ -> pipe:\[\d+\]"),
        ("test_memory", r"memory: /memfd:leaked"),
        ("test_thread", r"threads: Thread-\d+"),
    ],
)
def test_what_is_left_behind_fails_the_test_and_is_named(outcome: str, test: str, message: str) -> None:
    section = re.search(rf"_+ ERROR at teardown of {test} _+\n(.*?)(?=\n_____|\n=====)", outcome, re.DOTALL)
    assert section is not None, outcome
    assert re.search(message, section.group(1)), section.group(1)


@pytest.mark.parametrize("test", ["test_clean", "test_process_on_its_way_out", "test_allowed"])
def test_a_test_that_leaves_nothing_passes(outcome: str, test: str) -> None:
    assert f"::{test} PASSED" in outcome
    assert f"::{test} ERROR" not in outcome
