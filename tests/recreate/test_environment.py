"""Files of variables, read back by those who will read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.recreate.environment import for_compose, for_run

VALUE = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15)


@settings(max_examples=40, deadline=None)
@given(values=st.lists(VALUE, min_size=1, max_size=4))
def test_no_value_is_lost_on_the_way_to_docker_run(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    environment = tuple(f"V{number}={value}" for number, value in enumerate(values))
    found = for_run(environment)
    file: Path = tmp_path_factory.mktemp("exports") / "exports"
    file.write_bytes(found.exports.encode())
    names = " ".join(f'"${name}"' for name in found.exported)
    done = subprocess.run(["sh", "-c", f'. "{file}"; printf "%s\\0" {names}'], capture_output=True, check=True)
    exported = dict(zip(found.exported, done.stdout.decode().split("\0"), strict=False))
    lines = dict(line.split("=", 1) for line in found.env_file.split("\n")[1:-1])
    assert [{**lines, **exported}[f"V{number}"] for number in range(len(values))] == values
    assert found.uncarried == ()


def test_what_neither_a_line_nor_a_shell_can_hold_is_named() -> None:
    found = for_run(("a.b=1", "a.b=two\nlines", "GONE", "=x"))
    assert found.env_file.endswith("a.b=1\n")
    assert [one.field for one in found.uncarried] == ["Config.Env.a.b", "Config.Env.GONE", "Config.Env."]


def test_values_are_quoted_as_compose_reads_them() -> None:
    text, left = for_compose(
        ("A=plain-1.0", "B=two words", "C=$HOME # no", "D=it's", "E=l1\nl2", "F=it's $5", "G=end\\")
    )
    assert text.splitlines()[1:] == [
        "A=plain-1.0",
        "B='two words'",
        "C='$HOME # no'",
        'D="it\'s"',
        "E='l1",
        "l2'",
        'G="end\\\\"',
    ]
    assert [one.field for one in left] == ["Config.Env.F"]


def test_no_value_is_shown_where_it_is_named() -> None:
    _, left = for_compose(("PASSWORD=it's $5",))
    assert "5" not in left[0].value
