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
from collections.abc import Iterator, Sequence

from tree_sitter import Node

from keepfed.knobs.command_line import sites_of_words
from keepfed.knobs.embedded import sites_within
from keepfed.knobs.grammar import parse
from keepfed.knobs.program import is_foreign, is_silent, program_like
from keepfed.knobs.shell_variables import Assignment, Use, definitions, without_effect
from keepfed.knobs.site import Form, KnobSite
from keepfed.knobs.slurm import sites_of_directives
from keepfed.knobs.source import Source
from keepfed.knobs.words import Word, unquoted

_ARGUMENTS = {
    "word", "string", "raw_string", "number", "concatenation", "simple_expansion", "expansion", "command_substitution",
    "arithmetic_expansion", "ansi_c_string", "translated_string", "process_substitution", "brace_expression", "command_name",
}  # fmt: skip
_EXPORTS = {"export", "setenv"}
# Their text arguments are commands whatever they begin with.
_RUN_TEXT = {
    "bash",
    "sh",
    "zsh",
    "eval",
    "ssh",
    "tmux",
    "screen",
    "su",
    "srun",
    "sbatch",
    "bsub",
    "qsub",
    "run",
    "nohup",
    "watch",
}
_INTERPRETERS = re.compile(r"(?:.*/)?(?:python[\d.]*|\$\{?PYTHON\w*\}?)")
_DASH_C = re.compile(r"-[a-z]*c")
_TOKEN = re.compile(
    rb"(?:\\.|'[^'\n]*'|\"(?:\\.|[^\"\\])*\"|\$\([^()\n]*\)|\$\{[^}\n]*\}|<[\w -]+>|[^\s;|&<>()\"'\\])+", re.DOTALL
)
_ENDS_COMMAND = re.compile(rb"[;|&()<>]|(?<!\\)\n")
_LINE = re.compile(rb"(?:\\\r?\n|[^\n])*\n?")
_COMMENT_LINE = re.compile(rb"[ \t]*#")


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
        self.sites += sites_of_words(self.source, words, self.form)
        if is_silent(words[0].text):
            return
        for at, word in enumerate(words):
            if _INTERPRETERS.fullmatch(words[0].text) and at and words[at - 1].text == "-c" and word.quoted:
                self.sites += sites_within(self.source, word.start, word.end, "inline.py")
            else:
                runs = words[0].text.rpartition("/")[2] in _RUN_TEXT or bool(
                    at and _DASH_C.fullmatch(words[at - 1].text)
                )
                self._text(word, runs=runs)

    def _words(self, node: Node, base: int) -> list[Word]:
        nodes = [child for child in node.children if child.type in _ARGUMENTS]
        if node.parent is not None and node.parent.type == "redirected_statement":
            nodes += _behind_redirects(node.parent)
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
        prefix = re.match(r"--?\w[\w-]*=", word.text)
        if prefix:
            word = unquoted(Word(word.text[prefix.end() :], word.start + prefix.end(), word.end))
        first = re.match(r"\s*(?:\w+=\S*\s+)*(\S+)\s", word.text)
        if first and word.quoted and (runs or program_like(first[1])):
            self.walk(word.start, word.end)

    # ------------------------------------------------------------------------------------------------------ variables

    def _assignment(self, node: Node, base: int) -> None:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None or value is None:
            return
        named = self._slice(base + name.start_byte, base + name.end_byte)
        if value.type == "array":
            words = [self._word(child, base) for child in value.children if child.type in _ARGUMENTS]
            self._fragment(named, words)
            return
        word = self._word(value, base)
        if word.quoted and re.search(r"\s", word.text.strip()):
            self._string(named, word)
            return
        exported = _declares(node)
        self.assignments.append(Assignment(named, word, exported, base + node.start_byte, base + node.end_byte))

    def _fragment(self, name: str, words: Sequence[Word]) -> None:
        """Words that a variable holds for a command line."""
        if words and words[0].text.startswith((f"${name}", f"${{{name}")):
            words = words[1:]
        if words:
            self.sites += sites_of_words(self.source, words, self.form)

    def _string(self, name: str, word: Word) -> None:
        first = re.match(r"\s*(?:\w+=\S*\s+)*(\S+)", word.text)
        if first and (program_like(first[1]) or first[1].startswith("$")):
            self.walk(word.start, word.end)
        elif first and first[1].startswith("-"):
            self._fragment(name, _cut(self.text, word.start, word.end))

    def _use(self, node: Node, base: int) -> None:
        """A variable that is used, and by whom: what else depends on it decides whether its name may mean a loader's."""
        parent = node.parent
        if parent is None or parent.type in {"variable_assignment", "declaration_command", "unset_command"}:
            return
        option, silent = _around(node)
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
        name = _heredoc_name(node)
        if body is None:
            return
        start, end = base + body.start_byte, base + body.end_byte
        self.sites += sites_of_directives(self.source, start, end)
        if not name:
            return
        if name == "commands.sh":
            self.walk(start, end)
        else:
            self.sites += sites_within(self.source, start, end, name)

    # ------------------------------------------------------------------------------------------------ what is broken

    def _lines(self, root: Node, base: int) -> None:
        """Cut the lines in which the grammar found errors into words, one by one."""
        text = self.text
        for broken in _errors(root):
            start = text.rfind(b"\n", 0, base + broken.start_byte) + 1
            for line in _LINE.finditer(text, start, base + root.end_byte):
                if line.start() >= base + broken.end_byte or not line[0]:
                    break
                if not _COMMENT_LINE.match(line[0]):
                    for words in _commands(text, line.start(), line.end()):
                        self.sites += sites_of_words(self.source, words, self.form)

    def _slice(self, start: int, end: int) -> str:
        return self.text[start:end].decode("utf-8", "surrogatepass")


def _behind_redirects(statement: Node) -> Iterator[Node]:
    """Words of the command that stand behind a redirection, which the grammar counts to it.

    Of `--data <your data> --workers 8` too, which a shell would refuse, and a reader of the script fills in.
    """
    for redirect in statement.children:
        if redirect.type == "file_redirect":
            words = [child for child in redirect.children if child.type in _ARGUMENTS]
            yield from words if words and (words[0].text or b"").startswith(b"--") else words[1:]


def _declares(assignment: Node) -> bool:
    """Whether programs that are started see the variable: `export N=8`, `declare -x N=8`, `N=8 python ...`."""
    parent = assignment.parent
    if parent is None or parent.type == "command":
        return parent is not None
    first = parent.children[0]
    return first.type in _EXPORTS or b"-x" in (parent.text or b"")[:16].split()


def _around(node: Node) -> tuple[bool, bool]:
    """Whether a variable is the value of an option (or a count of something), and whether it is only printed or tested."""
    inner, outer = node, node.parent
    while outer is not None:
        if outer.type == "test_command":
            return False, True
        if outer.type in {"c_style_for_statement", "arithmetic_expansion", "for_statement"}:
            return True, False
        if outer.type == "variable_assignment" and (outer.text or b"").startswith(b"TF_VAR_"):
            return True, False  # Terraform: a number of machines
        if outer.type == "command":
            return _is_of_option(outer, inner), is_silent(_name_of(outer))
        inner, outer = outer, outer.parent
    return False, False


def _is_of_option(command: Node, argument: Node) -> bool:
    before = argument.prev_sibling
    texts = [(node.text or b"").lstrip(b"\"'") for node in (argument, before) if node is not None]
    return any(text.startswith(b"-") for text in texts) or is_foreign(_name_of(command))


def _name_of(command: Node) -> str:
    name = command.child_by_field_name("name")
    return (name.text or b"").decode("utf-8", "replace") if name is not None else ""


def _heredoc_name(node: Node) -> str:
    """What kind of file a here-document is: where it is written to, or who reads it."""
    statement = node.parent
    command = next((child for child in statement.children if child.type == "command"), None) if statement else None
    if statement is None or command is None:
        return ""
    program = _name_of(command).rpartition("/")[2]
    if _INTERPRETERS.fullmatch(program):
        return "inline.py"
    if program in _RUN_TEXT:
        return "commands.sh"
    redirects = [child for parent in (statement, node) for child in parent.children if child.type == "file_redirect"]
    targets = [(redirect.children[-1].text or b"").decode("utf-8", "replace") for redirect in redirects]
    if program == "tee":
        targets += [(child.text or b"").decode("utf-8", "replace") for child in command.children[1:]]
    name = next((target.strip("\"'").rpartition("/")[2] for target in targets if "." in target or "file" in target), "")
    return "commands.sh" if name.endswith((".sh", ".slurm", ".sbatch")) else name


def _errors(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type == "ERROR" or node.is_missing:
            yield node
        elif node.has_error:
            waiting.extend(node.children)


def _commands(text: bytes, start: int, end: int) -> Iterator[list[Word]]:
    """The commands of a line, cut at what ends one."""
    begin = start
    for stop in _ENDS_COMMAND.finditer(text, start, end):
        yield _cut(text, begin, stop.start())
        begin = stop.end()
    yield _cut(text, begin, end)


def _cut(text: bytes, start: int, end: int) -> list[Word]:
    words = []
    for token in _TOKEN.finditer(text, start, end):
        if token[0].startswith(b"#"):
            break
        if token[0].strip(b"\\\r\n"):
            words.append(unquoted(Word(token[0].decode("utf-8", "surrogatepass"), token.start(), token.end())))
    return words
