"""The words of what would lift the limit, and what they are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from keepfed.cli.tune.table import report
from keepfed.events import Event, Settled, Surveyed
from keepfed.plan import Plan
from keepfed.policy.lift import Remedy
from keepfed.text import choose_language
from keepfed.tuning import whatif
from keepfed.tuning.results import LoaderResult
from keepfed.tuning.whatif import WhatIf, what_if
from tests.tuning import recorded
from tests.tuning.recorded import TRAIN
from tests.tuning.test_phases import breakdown
from tests.tuning.test_summary import fold

PROBE: dict[str, Any] = {
    "samples": 20,
    "sample_s": 0.010,
    "decode_s": 0.0071,
    "decoder": "PIL",
    "transform_s": 0.002,
    "draft_samples": 20,
    "draft_from_s": 0.010,
    "draft_s": 0.004,
    "cold_samples": 0,
    "cold_from_s": 0.0,
    "cold_s": 0.0,
    "files": 20,
    "read_bytes_per_s": 140e6,
}
STARVED = Settled(TRAIN, Plan(5, 2), 20.0, 0.6, Plan(1, 2), 6.0, 0.9, "cores", "All cores are busy.", None, 21.5)


def surveyed(ready: int = 32, ready_s: float = 0.64, probe: dict[str, Any] | None = None) -> Surveyed:
    return Surveyed(TRAIN, Plan(5, 2), ready, ready_s, 0.001, 4.0, probe)


def told(*found: Event) -> LoaderResult:
    events = recorded.tuned()
    (result,) = fold([*events[:-1], breakdown(5), *found, STARVED])
    return result


def keys(result: LoaderResult) -> dict[str, WhatIf]:
    return {sentence.key: sentence for sentence in result.what_if}


def test_a_replay_is_the_ceiling_of_everything_else() -> None:
    found = keys(told(surveyed(probe=PROBE)))
    assert found["ceiling_replay"].factor == pytest.approx(50 / 20)
    assert all(one.factor is None or one.factor <= 2.5 for one in found.values())
    assert next(iter(found)) == "ceiling_replay"


def test_without_a_replay_the_time_outside_of_waits_is_the_ceiling() -> None:
    found = keys(told(surveyed(ready=0, ready_s=0.0)))
    assert found["ceiling_steps"].factor == pytest.approx(1 / 0.4)
    assert keys(told())["ceiling_steps"].factor == pytest.approx(1 / 0.4)


def test_the_sentences_name_what_was_measured() -> None:
    choose_language("en")
    found = keys(told(surveyed(probe=PROBE)))
    assert "71%" in found["draft"].text
    assert "10.0 ms" in found["draft"].text
    assert "4.00 ms" in found["draft"].text
    assert "With 6 more cores: up to 2.50×" in found["cores"].text
    assert found["cores"].derived
    assert not found["draft"].derived
    choose_language(None)


def test_where_the_step_is_the_limit_one_sentence_says_so() -> None:
    choose_language("en")
    found = keys(told(surveyed(ready=32, ready_s=1.6, probe=PROBE)))
    assert list(found) == ["step_replay"]
    assert "More workers or faster samples change nothing" in found["step_replay"].text
    choose_language(None)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ("cached", {"from_s": 0.01, "to_s": 0.002, "samples": 12}),
        ("ceiling_steps", {"rate": 10.0, "ceiling": 25.0, "batches": 0}),
        ("collate", {"share": 0.4, "seconds": 0.1}),
        ("copy", {"share": 0.4, "seconds": 0.1}),
        ("cores", {"more": 1, "cores": 2.0, "cpu_s": 0.05, "used": 1.9}),
        ("crowded", {"cores": 2.0, "cpu_s": 0.05, "used": 0.4}),
        ("decode", {"share": 0.4, "decoder": "cv2.imdecode"}),
        ("loading", {"rate": 10.0, "ceiling": 1e4, "batches": 0, "share": 0.001}),
        ("step_steps", {"rate": 10.0, "ceiling": 10.1, "batches": 0}),
        ("storage", {"bytes_per_s": 140e6}),
        ("transform", {"share": 0.4}),
        ("workers", {"workers": 8, "more": 16}),
        ("waiting", {"share": 0.9, "fetch_s": 0.4}),
    ],
)
def test_every_remedy_has_its_sentence_in_every_language(language: str, key: str, facts: dict[str, float]) -> None:
    choose_language(language)
    said = whatif._said(Remedy(key, 1.5, facts)).text
    choose_language(None)
    assert not said.startswith("lift.")
    assert "{" not in said


def test_the_storage_is_given_in_the_units_of_its_data_sheet() -> None:
    assert whatif._written("bytes_per_s", 140e6) == "140 MB/s"
    assert whatif._written("bytes_per_s", 2.13e9) == "2.13 GB/s"


def test_a_probe_of_another_version_is_no_probe() -> None:
    assert what_if(STARVED, surveyed(probe={"samples": 3}), None)[0].key == "ceiling_replay"
    assert whatif._sample({"sample_s": "long"}) is None


def test_the_document_has_the_factors_and_the_words() -> None:
    found = told(surveyed(probe=PROBE)).to_json()
    first = found["what_if"][0]
    assert (first["key"], first["factor"], first["derived"]) == ("ceiling_replay", 2.5, False)
    assert first["text"]
    assert found["phases"]["decode_s"] == pytest.approx(0.14 * 0.71, abs=1e-6)
    assert found["phases"]["transform_s"] == pytest.approx(0.14 * 0.2, abs=1e-6)
    assert found["phases"]["fetch_s"] == pytest.approx(0.14 * 0.8, abs=1e-6), "all but the transform"


def test_the_table_shows_them_below_what_limits_the_loader() -> None:
    choose_language("en")
    result = told(surveyed(probe=PROBE))
    out = Console(width=80, record=True)
    with out.capture() as shown:
        out.print(report([result]))
    text = " ".join(shown.get().split())
    choose_language(None)
    assert text.index("All cores are busy.") < text.index("what if") < text.index("With 6 more cores")


def test_an_unsettled_loader_promises_nothing() -> None:
    (result,) = fold(recorded.half_tuned())
    assert result.what_if == ()
    assert "what_if" not in replace(result).to_json()
