"""The script: that every word arrives as it is, and that it says no secret. What it does is tried with real containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.recreate.environment import for_run
from keepfed.recreate.script import Health, script
from keepfed.recreate.spec import ContainerSpec, read_spec
from tests.recreate.described import answer, docker_like

# An engine that writes down what it is told to do, and says that everything is well.
FAKE = """#!/bin/sh
{{ for word; do printf '%s\\0' "$word"; done; printf '\\n\\0'; }} >> {log}
case "$*" in
  *State.Running*) echo true;;
  *ShmSize*) echo 67108864;;
  *Health.Status*) echo healthy;;
  *"{{{{.Id}}}}"*) {identity};;
  inspect*keepfed-old*) {aside};;
esac
"""


def run(spec: ContainerSpec, folder: Path, *, identity: str = "", aside: str = "exit 1") -> tuple[int, list[list[str]]]:
    """Run a spec's script with the fake; its exit code and the commands that the fake got."""
    log, fake, file = folder / "log", folder / "fake", folder / "again.sh"
    log.unlink(missing_ok=True)
    known = f"echo {identity or spec.identity}"
    fake.write_text(FAKE.format(log=log, identity=known, aside=aside), encoding="utf-8")
    fake.chmod(0o700)
    environment = for_run(spec.environment)
    for text, suffix in ((environment.env_file, "env"), (environment.exports, "exports")):
        (folder / f"again.{suffix}").write_text(text, encoding="utf-8")
    file.write_text(script(spec, environment, "again", Health(timeout_s=3)), encoding="utf-8")
    done = subprocess.run(
        ["sh", str(file)], env={**os.environ, "DOCKER": str(fake)}, capture_output=True, text=True, check=False
    )
    told = log.read_bytes().decode(errors="surrogateescape").split("\n\0") if log.exists() else []
    return done.returncode, [command.split("\0")[:-1] for command in told if command]


def checked(**changes: object) -> ContainerSpec:
    return read_spec(docker_like(Config__Healthcheck={"Test": ["CMD", "true"]}, **changes), {})


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0\n"), min_size=1, max_size=12)


@settings(max_examples=25, deadline=None)
@given(words=st.lists(WORD, min_size=1, max_size=4), label=WORD)
def test_every_word_arrives_as_it_was(tmp_path_factory: pytest.TempPathFactory, words: list[str], label: str) -> None:
    spec = checked(Config__Cmd=words, Config__Labels={"odd": label})
    code, commands = run(spec, tmp_path_factory.mktemp("quoting"))
    made = next(command for command in commands if command[0] == "run")
    assert code == 0
    assert made[-len(words) :] == words
    assert f"odd={label}" in made


def test_the_new_one_takes_the_name_only_when_the_old_one_lies_aside(tmp_path: Path) -> None:
    code, commands = run(checked(), tmp_path)
    verbs = [command[0] for command in commands if command[0] != "inspect"]
    assert verbs == ["stop", "rename", "run", "rm", "ps", "exec"]
    assert code == 0


def test_another_container_of_that_name_is_not_touched(tmp_path: Path) -> None:
    code, commands = run(checked(), tmp_path, identity="another")
    assert code == 2
    assert {command[0] for command in commands} == {"inspect"}


def test_what_an_earlier_attempt_left_aside_stops_the_script(tmp_path: Path) -> None:
    code, commands = run(checked(), tmp_path, aside="exit 0")
    assert code == 2
    assert {command[0] for command in commands} == {"inspect"}


@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "busybox"])
def test_every_posix_shell_can_read_it(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    spec = read_spec(answer("docker"), answer("docker_image"))
    file = tmp_path / "again.sh"
    text = script(spec, for_run(spec.environment), "again", Health("http://localhost:1/", '{"a": 1}', 9), "kept:1")
    file.write_text(text, encoding="utf-8")
    words = ["busybox", "sh"] if shell == "busybox" else [shell]
    done = subprocess.run([*words, "-n", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_json_cannot_be_compared_nothing_is_begun(tmp_path: Path) -> None:
    spec, file = checked(), tmp_path / "again.sh"
    file.write_text(script(spec, for_run(()), "again", Health("http://localhost:1/", "{}", 9)), encoding="utf-8")
    empty = {"PATH": str(tmp_path), "DOCKER": "false"}
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")
    done = subprocess.run(["/bin/sh", str(file)], env=empty, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "python3" in done.stderr


def test_no_secret_stands_in_the_script() -> None:
    spec = read_spec(answer("docker"), answer("docker_image"))
    environment = for_run(spec.environment)
    text = script(spec, environment, "again", Health(), "kept:1")
    assert "s3cr3t" not in text
    assert "BEGIN" not in text
    assert "TOKEN=s3cr3t\n" in environment.env_file
    assert "BEGIN" in environment.exports


@settings(max_examples=50, deadline=None)
@given(
    part=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=6,
    ),
    whole=st.dictionaries(st.text(max_size=2), st.integers(0, 1) | st.booleans(), max_size=3),
)
def test_the_scripts_comparison_is_the_same_as_ours(part: object, whole: object) -> None:
    from keepfed.recreate.health import within
    from keepfed.recreate.script import SUBSET

    scope: dict[str, object] = {}
    exec(SUBSET.split("try:")[0], scope)  # the program itself reads stdin and exits
    assert scope["within"](part, whole) == within(part, whole)  # type: ignore[operator]  # a function, made by exec
    assert scope["within"](part, part)  # type: ignore[operator]  # the same


def test_the_comparison_runs_in_this_python() -> None:
    from keepfed.recreate.script import SUBSET

    for body, code in (('{"ok": true, "n": 1}', 0), ('{"ok": false}', 1), ("no json", 1)):
        done = subprocess.run([sys.executable, "-c", SUBSET, '{"ok": true}'], input=body, text=True, check=False)
        assert done.returncode == code
