"""The values, and the command with one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepfed.errors import UsageError
from keepfed.tuning.sweep.rounds import output_file, turns
from keepfed.tuning.sweep.values import check_placeholder, parse_values, with_value


def test_any_words_are_values() -> None:
    assert parse_values("0,2, 4") == ("0", "2", "4")
    assert parse_values("fork,spawn") == ("fork", "spawn")
    assert parse_values("/opt/a b/python") == ("/opt/a b/python",)


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ("0,,2", "empty"), ("2,", "empty"), ("2,4,2", "2 stands in it twice")]
)
def test_lists_that_mean_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_values(text)


def test_the_value_goes_wherever_the_placeholder_stands() -> None:
    command = ("env", "N={}", "python", "train.py", "--workers={}", "{}", "a{}b{}")
    assert with_value(command, "4") == ("env", "N=4", "python", "train.py", "--workers=4", "4", "a4b4")
    assert with_value(("{}", "train.py"), "python3.8") == ("python3.8", "train.py")


def test_a_value_is_never_read_by_a_shell_and_never_filled_in_twice() -> None:
    assert with_value(("p", "{}"), "$(rm x); {}") == ("p", "$(rm x); {}")


def test_a_command_without_a_place_for_the_value_is_refused() -> None:
    check_placeholder(("python", "--n={}"))
    with pytest.raises(UsageError, match=r"no word of the command contains \{\}"):
        check_placeholder(("python", "train.py"))


def test_every_other_round_goes_backwards() -> None:
    assert [turn.value for turn in turns("abc", 3)] == list("abccbaabc")
    assert [turn.number for turn in turns("ab", 2)] == [1, 2, 3, 4]


def test_outputs_have_names_of_their_own_that_stay_in_the_folder(tmp_path: Path) -> None:
    files = [output_file(tmp_path, turn) for turn in turns(["../../etc/x", "a/b", "a b", "x" * 300], 2)]
    assert len(set(files)) == 8
    assert {file.parent for file in files} == {tmp_path}
    assert all(len(file.name) < 70 for file in files)
