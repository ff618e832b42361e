"""`keepfed shm` inside a container that has 64 MB: what somebody types who is in there, and has a hung training before them.

make test-containers
"""

from __future__ import annotations

import json

import pytest

from tests.containers.engine import Engine

pytestmark = [pytest.mark.containers, pytest.mark.timeout(120)]


def test_the_default_of_a_container_is_found_from_within(engine: Engine) -> None:
    program = "import sys; from keepfed.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = engine.run("-c", program, "shm", "--json", "--num-workers", "4", options=("--shm-size=64m",))
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["verdict"], answer["size_bytes"]) == (1, "too_small", 64 << 20)
    assert answer["subject"]["runs_in"] == "container"
    assert "On the machine that runs this container: keepfed recreate" in answer["ways"][0]["text"]
