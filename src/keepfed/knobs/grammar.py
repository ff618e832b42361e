"""The tree-sitter grammars, loaded when the first file needs one: every reader gets its trees here.

tree-sitter reads what a language's own parser refuses (a half-written script, a template, the Python of ten years ago) and
keeps the byte offsets of every token, which serialisers throw away. Loading all grammars costs more than reading a small
project, so each is loaded once, when its first file comes.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module

from tree_sitter import Language, Node, Parser, Tree

LANGUAGES = ("bash", "json", "python", "toml", "yaml")
"""What can be parsed: the names that `parse` takes."""


def parse(language: str, utf8: bytes) -> Tree:
    """The syntax tree of a text; offsets count bytes of `utf8`. Never fails on bad syntax: the tree has error nodes then."""
    return _parser(language).parse(utf8)


def text_of(node: Node) -> str:
    """The text of a node."""
    return (node.text or b"").decode("utf-8", "surrogatepass")


@cache
def _parser(language: str) -> Parser:
    grammar = import_module(f"tree_sitter_{language}").language()
    with warnings.catch_warnings():
        # Older wheels hand over their grammar as a number instead of a capsule, which tree-sitter takes, and warns of.
        warnings.simplefilter("ignore", DeprecationWarning)
        return Parser(Language(grammar))
