r"""Shell scripts: the flags on their command lines, the variables that those come from, what a batch job asks for.

    NUM_WORKERS=${NUM_WORKERS:-8}             ← a definition: its default is what an edit changes
    export OMP_NUM_THREADS=4                  ← for every program that follows
    CMD="python train.py --workers 8"         ← a command inside a string, read like any other
    torchrun train.py --num_workers $NUM_WORKERS \
    cat > conf.yaml <<EOF                     ← a file inside the script, for the reader of such files

Comments, texts of `echo` and usage texts are not read: only words that a command gets. Where the grammar gives up on a line
(a placeholder, a quote too many), the line is cut into words by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from tree_sitter import Node

from keepfed.knobs.commands.command_line import sites_of_words
from keepfed.knobs.commands.embedded import sites_within
from keepfed.knobs.commands.program import is_foreign, is_silent, program_like
from keepfed.knobs.commands.shell_tree import (
    ARGUMENTS,
    INTERPRETERS,
    RUN_TEXT,
    behind_redirects,
    errors,
    file_in,
    is_exported,
    use_of,
)
from keepfed.knobs.commands.shell_variables import Assignment, Use, definitions, without_effect
from keepfed.knobs.commands.shell_words import commands_in, words_in
from keepfed.knobs.commands.slurm import sites_of_directives
from keepfed.knobs.commands.words import Word, behind, unquoted
from keepfed.knobs.grammar import parse
from keepfed.knobs.site import Form, KnobSite
from keepfed.knobs.source import Source
from keepfed.knobs.spelling import words_of

_DASH_C = re.compile(r"-[a-z]*c")
_FIRST_WORD = re.compile(r"\s*(?:\w+=\S*\s+)*(\S+)(?=(\s)?)")


def read(source: Source) -> list[KnobSite]:
    """The settings of a shell script."""
    # Directives inside a here-document come twice; those that the script in it is given are found first.
    whole = sites_of_script(source, 0, len(source.utf8), Form.SHELL)
    return [*whole, *sites_of_directives(source, 0, len(source.utf8))]


def sites_of_script(source: Source, start: int, end: int, form: Form, text: bytes | None = None) -> list[KnobSite]:
    """The settings in a stretch of shell: a script, a recipe, a RUN line, a string that a shell is given.

    `text` is read in place of `source.utf8`, and has to have everything at the same offsets.
    """
    script = _Script(source, form, source.utf8 if text is None else text)
    script.walk(start, end)
    defined = definitions(source, script.assignments, script.uses, script.sites, form)
    return without_effect([*script.sites, *defined])


class _Script:
    """What is collected on one way through a script's tree."""

    def __init__(self, source: Source, form: Form, text: bytes) -> None:
        self.source = source
        self.text = text
        self.form = form
        self.sites: list[KnobSite] = []
        self.assignments: list[Assignment] = []
        self.uses: list[Use] = []

    def walk(self, start: int, end: int) -> None:
        """Read a stretch of the text; strings with commands in them lead back here."""
        root = parse("bash", self.text[start:end]).root_node
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if node.type == "comment" or (node.type == "ERROR" and node.parent is not None and not node.children):
                continue
            self._take(node, start)
            if node.type not in {"heredoc_body", "raw_string"}:
                waiting.extend(reversed(node.children))
        if root.has_error:
            self._lines(root, start)

    def _take(self, node: Node, base: int) -> None:
        if node.type == "command":
            self._command(node, base)
        elif node.type == "variable_assignment":
            self._assignment(node, base)
        elif node.type == "variable_name":
            self._use(node, base)
        elif node.type == "heredoc_redirect":
            self._heredoc(node, base)

    # ------------------------------------------------------------------------------------------------------- commands

    def _command(self, node: Node, base: int) -> None:
        words = self._words(node, base)
        if not words:
            return
        assigned = _assigned_in_csh(words)
        if assigned is not None:
            self.assignments.append(assigned)
            return
        if words[0].text == "set":  # set -- "$@" --workers 8
            self._fragment("@", [word for word in words[1:] if word.text != "--"])
            return
        self.sites += sites_of_words(self.source, words, self.form)
        if is_silent(words[0].text):
            return
        program = words[0].text
        for before, word in pairwise(words):
            if INTERPRETERS.fullmatch(program) and before.text == "-c" and word.quoted:
                self.sites += sites_within(self.source, word.start, word.end, "inline.py")
            else:
                self._text(word, runs=program.rpartition("/")[2] in RUN_TEXT or bool(_DASH_C.fullmatch(before.text)))

    def _words(self, node: Node, base: int) -> list[Word]:
        nodes = [child for child in node.children if child.type in ARGUMENTS]
        if node.parent is not None and node.parent.type == "redirected_statement":
            nodes += behind_redirects(node.parent)
        return self._placeholders_joined([self._word(child, base) for child in nodes])

    def _placeholders_joined(self, words: list[Word]) -> list[Word]:
        """`{{ workers }}` of a template is three words for a shell, and one value for whoever fills it in."""
        joined: list[Word] = []
        for word in words:
            if joined and joined[-1].text.count("{{") > joined[-1].text.count("}}"):
                start = joined.pop().start
                joined.append(Word(self._slice(start, word.end), start, word.end))
            else:
                joined.append(word)
        return joined

    def _word(self, node: Node, base: int) -> Word:
        start, end = base + node.start_byte, base + node.end_byte
        return unquoted(Word(self._slice(start, end), start, end))

    def _text(self, word: Word, *, runs: bool) -> None:
        """Read a word with blanks in it as a command, if it is one: `--wrap="python train.py"`, `bash -c '...'`."""
        if option := re.match(r"--?\w[\w-]*=", word.text):
            word = behind(word, option.end())
        first = _FIRST_WORD.match(word.text)
        if first is None or not first[2] or not word.quoted:
            return
        if first[1].startswith("-"):  # --train_args "--workers 8 --epochs 3"
            self._fragment("", words_in(self.text, word.start, word.end))
        elif runs or program_like(first[1]):
            self.walk(word.start, word.end)

    # ------------------------------------------------------------------------------------------------------ variables

    def _assignment(self, node: Node, base: int) -> None:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None or value is None:
            return
        named = self._slice(base + name.start_byte, base + name.end_byte)
        if value.type == "array":
            words = [self._word(child, base) for child in value.children if child.type in ARGUMENTS]
            self._fragment(named, words)
            return
        word = self._word(value, base)
        if word.quoted and re.search(r"\s", word.text.strip()):
            self._string(named, word)
            return
        span = base + node.start_byte, base + node.end_byte
        self.assignments.append(Assignment(named, word, is_exported(node), *span))

    def _fragment(self, name: str, words: Sequence[Word]) -> None:
        """Words that a variable holds for a command line; GUNICORN_CMD_ARGS says whose."""
        if any(is_foreign(word) for word in words_of(name)):
            return
        if name and words and words[0].text.startswith((f"${name}", f"${{{name}")):
            words = words[1:]
        if words:
            self.sites += sites_of_words(self.source, words, self.form)

    def _string(self, name: str, word: Word) -> None:
        first = _FIRST_WORD.match(word.text)
        if first and (program_like(first[1]) or first[1].startswith("$")):
            self.walk(word.start, word.end)
        elif first and first[1].startswith("-"):
            self._fragment(name, words_in(self.text, word.start, word.end))

    def _use(self, node: Node, base: int) -> None:
        """A variable that is used, and by whom: what else depends on it decides whether its name may mean a loader's."""
        parent = node.parent
        if parent is None or parent.type in {"variable_assignment", "declaration_command", "unset_command"}:
            return
        option, silent = use_of(node)
        start = base + node.start_byte
        self.uses.append(Use(self._slice(start, base + node.end_byte), start, silent=silent, option=option))
        if parent.type == "expansion" and b":=" in (parent.text or b""):
            self._default(parent, base)

    def _default(self, node: Node, base: int) -> None:
        """`: ${NUM_WORKERS:=8}` assigns, if nothing was assigned before."""
        start, end = base + node.start_byte, base + node.end_byte
        name = re.match(r"\$\{(\w+)", self._slice(start, end))
        if name:
            self.assignments.append(Assignment(name[1], Word(self._slice(start, end), start, end), True, start, end))

    # ------------------------------------------------------------------------------------------- files in a script

    def _heredoc(self, node: Node, base: int) -> None:
        body = next((child for child in node.children if child.type == "heredoc_body"), None)
        if body is None:
            return
        start, end = base + body.start_byte, base + body.end_byte
        self.sites += sites_of_directives(self.source, start, end)
        name = file_in(node)
        if name == "commands.sh":
            self.walk(start, end)
        elif name:
            self.sites += sites_within(self.source, start, end, name)

    # ------------------------------------------------------------------------------------------------ what is broken

    def _lines(self, root: Node, base: int) -> None:
        """Cut the lines in which the grammar found errors into words, one by one."""
        for broken in errors(root):
            for words in commands_in(
                self.text[: base + root.end_byte], base + broken.start_byte, base + broken.end_byte
            ):
                self.sites += sites_of_words(self.source, words, self.form)

    def _slice(self, start: int, end: int) -> str:
        return self.text[start:end].decode("utf-8", "surrogatepass")


def _assigned_in_csh(words: Sequence[Word]) -> Assignment | None:
    """`set n = 8`, `set n=8` and `setenv N 8` of the C shell; fish has `set -gx N 8`."""
    program, rest = words[0].text, [word for word in words[1:] if word.text != "="]
    rest = rest[1:] if rest and re.fullmatch(r"-[gxUl]+", rest[0].text) else rest
    if program not in {"set", "setenv"} or not rest:
        return None
    joined = re.match(r"([A-Za-z_]\w*)=(?=.)", rest[0].text)
    name = joined[1] if joined else rest[0].text
    value = behind(rest[0], joined.end()) if joined else rest[1] if len(rest) == 2 else None
    if value is None or not name.isidentifier():
        return None
    return Assignment(name, value, program == "setenv" or len(rest) < len(words) - 1, rest[0].start, value.end)
