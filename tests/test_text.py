"""The words: every language says the same things, and every sentence that the code asks for exists."""

from __future__ import annotations

import ast
import json
import re
import string
from functools import cache
from pathlib import Path

import pytest

import keepfed
from keepfed import text

PACKAGE = Path(keepfed.__file__).parent
LOCALES = PACKAGE / "locales"
PAGES = sorted(page.relative_to(LOCALES / "en").name for page in (LOCALES / "en").glob("*.json"))


def page(language: str, name: str) -> dict[str, str]:
    """One file of words; refuses keys that stand in it twice, which JSON would let pass."""
    pairs = json.loads((LOCALES / language / name).read_text(encoding="utf-8"), object_pairs_hook=list)
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"{language}/{name} repeats a key"
    return dict(pairs)


def placeholders(sentence: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(sentence) if field is not None}


def literal(sentence: str) -> str:
    """The sentence without its placeholders."""
    return "".join(words for words, _, _, _ in string.Formatter().parse(sentence))


# ------------------------------------------------------------------------------------------------------------ the languages


def test_every_language_has_the_same_pages() -> None:
    assert PAGES
    for language in text.LANGUAGES:
        assert sorted(page.name for page in (LOCALES / language).iterdir()) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_same_keys_and_placeholders_in_every_language(name: str) -> None:
    english = page("en", name)
    for language in text.LANGUAGES:
        other = page(language, name)
        assert list(other) == list(english), "the same keys in the same order"
        for key, sentence in english.items():
            assert placeholders(other[key]) == placeholders(sentence), key


@pytest.mark.parametrize("name", PAGES)
def test_the_keys_of_a_page_carry_its_name(name: str) -> None:
    for key in page("en", name):
        assert re.fullmatch(rf"{name.removesuffix('.json')}\.[a-z0-9_-]+(\.[a-z0-9_-]+)*", key), key


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("language", text.LANGUAGES)
def test_no_sentence_is_empty_or_has_stray_spaces(language: str, name: str) -> None:
    for key, sentence in page(language, name).items():
        assert sentence, key
        if re.search(r"\w", sentence):  # what joins a list ends in a space
            assert sentence == sentence.strip(), key
        # Two spaces may set off what is to be copied: "write  {line}  instead".
        assert not re.search(r"[ \t]+\n|[^\s}] {2,}[^\s{]|\S {3,}\S|\t", sentence), key
        if language == "zh":
            assert not re.search(r" [，。；：！？、（）]|[，。；：！？、（）] ", sentence), key


@pytest.mark.parametrize("name", PAGES)
def test_placeholders_are_plain_names(name: str) -> None:
    """{0}, {} and {host.name} would tie a sentence to the code that fills it."""
    for key, sentence in page("en", name).items():
        assert all(field.isidentifier() for field in placeholders(sentence)), key


@pytest.mark.parametrize("name", PAGES)
def test_chinese_sentences_are_chinese(name: str) -> None:
    """Names of code may stand alone; three words in a row without a Chinese character were left in English."""
    for key, sentence in page("zh", name).items():
        if not re.search(r"[\u3000-\u9fff\uff00-\uffef]", sentence):
            assert len(re.findall(r"[A-Za-z_]{2,}", literal(sentence))) < 3, key


# ------------------------------------------------------------------------------------------------------ the words in the code


@cache
def _trees() -> dict[str, ast.Module]:
    return {
        str(file.relative_to(PACKAGE)): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(PACKAGE.rglob("*.py"))
    }


def _keys() -> set[str]:
    return set().union(*(page("en", name) for name in PAGES))


def _is_say(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name == "say"


def test_every_sentence_that_the_code_asks_for_exists_and_gets_its_facts() -> None:
    wrong = []
    for file, tree in _trees().items():
        for node in ast.walk(tree):
            if not (_is_say(node) and isinstance(node, ast.Call) and node.args):
                continue
            key = node.args[0]
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                continue
            facts = {keyword.arg for keyword in node.keywords}
            sentence = text.words("en").get(key.value)
            if sentence is None:
                wrong.append(f"{file}:{node.lineno}: {key.value} does not exist")
            elif None not in facts and not placeholders(sentence) <= facts:
                wrong.append(f"{file}:{node.lineno}: {key.value} takes {placeholders(sentence)}, gets {facts}")
    assert wrong == []


def test_every_sentence_is_used() -> None:
    """Keys stand in the code as whole strings; for a key put together at run time its beginning has to stand there."""
    whole, beginnings = set(), set()
    for tree in _trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
                beginnings.add(str(node.values[0].value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole.add(node.value)
    started = tuple(beginning for beginning in beginnings if re.fullmatch(r"[a-z_]+\.[a-z0-9_.]*", beginning))
    assert sorted(key for key in _keys() - whole if not key.startswith(started)) == []


# --------------------------------------------------------------------------------------------------------------------- say


@pytest.fixture
def _two_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {
        "en": {"a.both": "hello {name}", "a.english": "only here", "a.broken": "fine"},
        "zh": {"a.both": "你好 {name}", "a.broken": "{"},
    }
    monkeypatch.setattr(text, "words", pages.__getitem__)
    monkeypatch.setenv("KEEPFED_LANG", "zh")


@pytest.mark.usefixtures("_two_languages")
def test_say_fills_in_the_facts_in_the_readers_language() -> None:
    assert text.say("a.both", name="keepfed") == "你好 keepfed"


@pytest.mark.usefixtures("_two_languages")
@pytest.mark.parametrize(("key", "sentence"), [("a.english", "only here"), ("a.broken", "fine")])
def test_what_is_missing_or_broken_is_said_in_english(key: str, sentence: str) -> None:
    assert text.say(key) == sentence


@pytest.mark.usefixtures("_two_languages")
def test_what_exists_nowhere_is_said_as_its_key_and_facts() -> None:
    assert text.say("a.nowhere", file="x.py", line=3) == "a.nowhere file=x.py line=3"


@pytest.mark.usefixtures("_two_languages")
def test_a_fact_that_is_missing_does_not_raise() -> None:
    assert text.say("a.both") == "a.both"


def test_a_fact_that_cannot_be_shown_does_not_raise() -> None:
    class Nasty:
        def __format__(self, spec: str) -> str:
            raise RuntimeError("no")

        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert text.say("cli.unknown_language", lang=Nasty(), known="en").startswith("cli.unknown_language")


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "KEEPFED_LANG": "zh"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "", "LC_MESSAGES": "zh_TW"}, "zh"),
    ],
)
def test_the_language_is_that_of_the_locale(
    environment: dict[str, str], language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("KEEPFED_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert text.language() == language


def test_a_chosen_language_wins_until_it_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPFED_LANG", "en")
    text.choose_language("zh")
    try:
        assert text.language() == "zh"
    finally:
        text.choose_language(None)
    assert text.language() == "en"
