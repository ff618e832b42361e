from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.knobs.mentions import mentions_a_setting
from keepfed.knobs.spelling import _AROUND, _NUMBER, _WORKER, THREAD_VARIABLES, spelled

WORDS = sorted(
    {*_WORKER, *_NUMBER, *_AROUND, "threads", "thread", "nthreads", "prefetch", "factor", "pin", "memory", "mem"}
    | {"persistent", "persist", "shm", "shared", "size", "cpus", "task", "jobs", "procs", "nw", "readers", "limit"}
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True), st.sampled_from(["_", "-", ""]))
def test_whatever_is_a_spelling_is_mentioned(words: list[str], joint: str) -> None:
    name = joint.join(words) if joint else words[0] + "".join(word.title() for word in words[1:])
    if spelled(name) and words not in (["j"], ["c"]):
        assert mentions_a_setting(f" {name} = 4".encode())


@pytest.mark.parametrize("name", sorted(THREAD_VARIABLES))
def test_every_variable_is_mentioned_in_every_encoding(name: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"):
        assert mentions_a_setting(f"# 线程\nexport {name}=1".encode(encoding))


@pytest.mark.parametrize(
    "line", ["#SBATCH -c 8", "srun -c8 python x.py", 'add_argument("-j", "--jobs")', "docker run --shm-size 2g"]
)
def test_short_options_are_mentioned(line: str) -> None:
    assert mentions_a_setting(line.encode())


def test_most_files_mention_none() -> None:
    assert not mentions_a_setting(b"model = Net().cpu()\nloss.backward()\nmemory = 4\nnumber of classes\n")


def test_a_call_of_a_loader_without_names_is_a_mention() -> None:
    assert mentions_a_setting(b"DataLoader(data, 32, True, None, None, 6)")
