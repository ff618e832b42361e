"""The page: valid, self-contained, safe, small, in both languages, whatever the document is."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepfed.text import LANGUAGES, choose_language, words
from keepfed.tuning.report import About, page
from keepfed.tuning.report.page import LARGEST
from tests.tuning import documents

ABOUT = About("python train.py --workers 1", "keepfed run -- python train.py --workers 1", "2026-01-31 09:30", "1.2.3")

# HTML Living Standard, "Void elements": those that a parser of HTML closes by itself.
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
SVG = {"svg", "circle", "line", "path", "polyline", "rect", "text"}

DOCUMENTS: dict[str, Any] = {
    "tuned": documents.tuned(),
    "old": documents.old(),
    "exhaustive": documents.exhaustive(),
    "swept": documents.swept(8.1, 15.5, None, 29.8),
    "two": documents.tuned(documents.loader(), documents.loader("train.py:47")),
    "one point": documents.tuned({**documents.loader(), "points": [documents.point(1)], "moves": []}),
    "unsettled": documents.tuned({**documents.loader(), "settled": False, "after": documents.plan(4)}),
    "zero workers": documents.tuned({**documents.loader(), "before": documents.plan(0)}),
    "offline": documents.tuned(documents.loader("mydata:make"), search="offline"),
    "equal": documents.swept(8.1, 15.5, 27.9, 31.2, 31.9, best="8", equal=["8", "16"]),
    "unchosen": documents.swept(None, None, best=None, equal=[]),
    "finals": documents.finals(),
    "nothing": {},
}


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    choose_language("en")
    yield
    choose_language(None)


def parsed(html: str) -> ET.Element:
    """The page as XML: every tag closed, every attribute quoted and said once, every & escaped, or ParseError."""
    return ET.fromstring(html.removeprefix("<!DOCTYPE html>\n"))


def text_of(html: str) -> str:
    root = parsed(html)
    for style in root.iter("style"):
        style.text = ""
    return " ".join(" ".join(root.itertext()).split())


# -------------------------------------------------------------------------------------------------------------- valid


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_well_formed_and_means_the_same_as_html(language: str, name: str) -> None:
    choose_language(language)
    html = page(DOCUMENTS[name], ABOUT)
    assert html.startswith("<!DOCTYPE html>\n<html lang=")
    root = parsed(html)
    for element in root.iter():
        inside = rf"<{element.tag}(\s[^>]*)?/>"
        # `<p/>` is an empty element to XML and an open one to HTML.
        assert element.tag in VOID | SVG or not re.search(inside, html), element.tag
        assert element.tag not in VOID or (not len(element) and not element.text)
    ids = Counter(element.get("id") for element in root.iter() if element.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    named = {word for element in root.iter() for word in (element.get("aria-labelledby") or "").split()}
    targets = {(element.get("href") or "").removeprefix("#") for element in root.iter("a")}
    assert named | targets <= set(ids)


def test_every_picture_has_words_and_its_numbers_in_a_table() -> None:
    root = parsed(page(documents.tuned(), ABOUT))
    figures = list(root.iter("figure"))
    assert [figure.get("id") for figure in figures] == [
        f"loader-1-{name}" for name in ("throughput", "timeline", "prediction", "phases", "moves")
    ]
    for figure in figures:
        assert figure.find("figcaption/h3") is not None
        assert figure.find(".//table/tbody/tr") is not None
    for picture in root.iter("svg"):
        if picture.get("role") == "img":
            assert len(picture.get("aria-label", "")) > 20


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_page_has_one_main_heading_and_never_skips_a_level(name: str) -> None:
    elements = parsed(page(DOCUMENTS[name], ABOUT)).iter()
    levels = [int(element.tag[1]) for element in elements if element.tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


# ------------------------------------------------------------------------------------------------- alone in the world


@pytest.mark.parametrize("name", DOCUMENTS)
def test_nothing_is_loaded_and_nothing_runs(name: str) -> None:
    html = page(DOCUMENTS[name], ABOUT)
    root = parsed(html)
    assert {element.tag for element in root.iter()}.isdisjoint(
        {"script", "link", "img", "image", "iframe", "object", "embed", "use", "form", "base"}
    )
    for element in root.iter():
        for attribute, value in element.attrib.items():
            assert not attribute.startswith("on")
            assert attribute not in {"src", "srcset", "xlink:href", "style", "background", "action"}
            assert attribute != "href" or value.startswith("#")
    style = next(root.iter("style")).text or ""
    assert "url(" not in style
    assert "@import" not in style
    assert "https:" not in html
    assert "http:" not in html


def test_the_page_forbids_itself_scripts_and_the_network() -> None:
    policy = next(one for one in parsed(page({}, ABOUT)).iter("meta") if one.get("http-equiv"))
    assert policy.get("content", "").startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_without_its_styles_every_mark_can_still_be_seen() -> None:
    """Some servers send files of others with a policy that forbids inline styles."""
    for element in parsed(page(documents.tuned(), ABOUT)).iter():
        if element.tag in {"line", "polyline"}:
            assert element.get("stroke") == "currentColor"
        assert element.tag != "polyline" or element.get("fill") == "none"


def test_the_page_is_read_in_light_dark_narrow_and_print() -> None:
    html = page(documents.tuned(), ABOUT)
    for needed in ("prefers-color-scheme: dark", "@media print", "max-width: 30rem", 'name="viewport"'):
        assert needed in html
    style = next(parsed(html).iter("style")).text or ""
    light, dark = (set(re.findall(r"(--[a-z]+):", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL))
    assert light == dark
    assert set(re.findall(r"var\((--[a-z]+)\)", style)) <= light


# --------------------------------------------------------------------------------------------------------------- safe

HOSTILE = "</style></title><script>alert(1)</script>\"'&lt;{{ 7*7 }}\ud800\x00\x1b[31m"


def _poisoned(value: Any) -> Any:
    """Every string of a document replaced by one that tries to break out."""
    if isinstance(value, dict):
        return {key: _poisoned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_poisoned(inner) for inner in value]
    return HOSTILE if isinstance(value, str) else value


@pytest.mark.parametrize("name", DOCUMENTS)
def test_strings_of_other_programs_stay_text(name: str) -> None:
    html = page(_poisoned(DOCUMENTS[name]), About(HOSTILE, HOSTILE, HOSTILE, HOSTILE))
    root = parsed(html)
    assert not list(root.iter("script"))
    assert "<script" not in html
    assert "alert(1)" in text_of(html)
    assert "{{ 7*7 }}" in text_of(html)
    assert html.encode("utf-8")


_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}), st.just([1])
)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_document_is_too_odd_to_be_shown(data: st.DataObject) -> None:
    """Any value may be missing or another: an older or a newer keepfed, or a hand, has written the file."""

    def mangled(value: Any) -> Any:
        if data.draw(st.integers(0, 24)) == 0:
            return data.draw(_LEAVES)
        if isinstance(value, dict):
            return {key: mangled(inner) for key, inner in value.items() if data.draw(st.integers(0, 19))}
        return [mangled(inner) for inner in value] if isinstance(value, list) else value

    name = data.draw(st.sampled_from(["tuned", "finals", "swept", "old"]))
    document = mangled(DOCUMENTS[name])
    parsed(page(document if isinstance(document, dict) else {}, ABOUT))


# -------------------------------------------------------------------------------------------------------------- small


def test_a_search_of_hours_stays_small_and_draws_every_part_of_it() -> None:
    html = page(documents.tuned(documents.loader(windows=8_000)), ABOUT)
    assert len(html.encode()) < 200_000
    assert re.search(r"mean of up to 5\d windows", text_of(html))


def test_two_hundred_loaders_stay_under_a_megabyte_and_none_is_lost() -> None:
    loaders = [documents.loader(f"train.py:{line}", windows=400) for line in range(1, 201)]
    html = page(documents.tuned(*loaders), ABOUT)
    assert len(html.encode()) < LARGEST == 1_000_000
    root = parsed(html)
    overview = next(root.iter("table"))
    assert len(overview.findall("tbody/tr")) == 200
    drawn = len([one for one in root.iter("section") if (one.get("id") or "").startswith("loader-")])
    assert f"to keep the page small: {200 - drawn} of 200 loaders" in text_of(html)
    assert drawn > 10


def test_strings_of_a_megabyte_are_cut() -> None:
    """Quotes, since escaping makes five characters of each."""
    long = '"' * 10**6
    one = documents.loader(long, long)
    one["moves"] = [{**move, "reason": long} for move in one["moves"]] * 100
    one["what_if"] = [{"text": long}] * 100
    values = [{"value": long, "batches_per_s": 1.0, "unit": long, "how": long}] * 1000
    document = {**documents.tuned(one, one), "sweep": {"values": values}}
    assert len(page(document, About(long, long, long, long)).encode()) < LARGEST


def test_a_thousand_plans_stay_small() -> None:
    one = {**documents.loader(), "points": [documents.point(workers) for workers in range(1, 1001)]}
    assert len(page(documents.tuned(one), ABOUT).encode()) < 500_000


# -------------------------------------------------------------------------------------------------------------- words


def test_chinese_pages_are_chinese() -> None:
    choose_language("zh")
    for document in DOCUMENTS.values():
        html = page(document, ABOUT)
        assert '<html lang="zh-Hans">' in html
        said = text_of(html)
        assert not re.search(r"\breport\.|\btune_report\.", said)
        ours = {
            value
            for key, value in words("en").items()
            if key.startswith("report.") and " " in value and "{" not in value
        }
        assert [sentence for sentence in ours if sentence in said] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tuned", "5 workers instead of 1 worker: 4.55 times the batches per second"),
        ("unsettled", "Not settled after 36 s; best so far: 4 workers instead of 1 worker: 4.00 times"),
        ("swept", "8 is the fastest of 4 values: 29.8 it/s, 3.68 times the rate of 0"),
        ("equal", "8: the cheapest of 2 values that are equally fast, 31.2 it/s, 3.85 times the rate of 0"),
        ("unchosen", "None of the 2 values gave a rate"),
        ("offline", "5 workers: the best that was found, 25.0 batches/s"),
        ("nothing", "Nothing was measured"),
    ],
)
def test_the_first_sentence_says_what_was_found(name: str, said: str) -> None:
    document = DOCUMENTS[name]
    heading = next(parsed(page(document, ABOUT)).iter("h1"))
    assert (heading.text or "").startswith(said)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ((5, 2), (5, 2), "5 workers, as the program asks for: the best that was found, 25.0 batches/s"),
        ((8, 2), (5, 2), "5 workers instead of 8 workers: the same speed with fewer processes"),
        ((5, 2), (5, 4), "5 workers, prefetch 4 instead of 5 workers, prefetch 2: about the same speed"),
        ((1, 2), (0, 2), "no workers instead of 1 worker: 0.836 times the batches per second"),
    ],
)
def test_the_first_sentence_does_not_flatter(before: tuple[int, int], after: tuple[int, int], said: str) -> None:
    one = {**documents.loader(), "before": documents.plan(*before), "after": documents.plan(*after)}
    heading = next(parsed(page(documents.tuned(one), ABOUT)).iter("h1"))
    assert heading.text == said


def test_the_command_that_uses_it_stands_at_the_top_and_only_if_there_is_one() -> None:
    first = next(parsed(page(documents.tuned(), ABOUT)).iter("code"))
    assert first.text == ABOUT.use
    without = text_of(page(documents.tuned(), About("python train.py", "", "", "")))
    assert "keepfed run" not in without


@pytest.mark.parametrize(("load", "said"), [(None, False), (1.25, False), (12.3, True)])
def test_a_machine_that_was_busy_before_is_named_at_the_top(load: float | None, said: bool) -> None:
    document = {**documents.tuned(), "host": {**documents.HOST, "load_1m": load}}
    assert ("12 processes wanted its 8 cores" in text_of(page(document, ABOUT))) is said


def test_numbers_without_a_step_are_called_the_loaders_own_maximum() -> None:
    assert words("en")["offline.alone"] in text_of(page(documents.finals(), ABOUT))
    assert words("en")["offline.alone"] not in text_of(page({**documents.finals(), "step": True}, ABOUT))


def test_the_page_says_what_the_what_if_sentences_say() -> None:
    assert "A faster decoder would save up to 1.9× of a worker's time." in text_of(page(documents.tuned(), ABOUT))


def test_importing_the_command_line_does_not_import_jinja() -> None:
    program = "import sys, keepfed.cli.tune.door; print(sorted(n for n in sys.modules if n.startswith('jinja')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
