"""Questions to the syntax tree of a shell script: whose words these are, who sees a variable, what a here-document holds."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from keepfed.knobs.commands.program import is_foreign, is_silent

ARGUMENTS = {
    "word", "string", "raw_string", "number", "concatenation", "simple_expansion", "expansion", "command_substitution",
    "arithmetic_expansion", "ansi_c_string", "translated_string", "process_substitution", "brace_expression", "command_name",
}  # fmt: skip
"""Nodes that are words of a command."""

INTERPRETERS = re.compile(r"(?:.*/)?(?:python[\d.]*|\$\{?PYTHON\w*\}?)")
"""Programs that read Python from `-c` or from a here-document."""

RUN_TEXT = {
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
"""Commands whose text arguments and here-documents are commands, whatever they begin with."""

_EXPORTS = {"export", "setenv"}
_SCRIPTS = (".sh", ".bash", ".slurm", ".sbatch")


def behind_redirects(statement: Node) -> Iterator[Node]:
    """Words of the command that stand behind a redirection, which the grammar counts to it.

    Of `--data <your data> --workers 8` too, which a shell would refuse, and a reader of the script fills in.
    """
    for redirect in statement.children:
        if redirect.type == "file_redirect":
            words = [child for child in redirect.children if child.type in ARGUMENTS]
            yield from words if words and (words[0].text or b"").startswith(b"--") else words[1:]


def is_exported(assignment: Node) -> bool:
    """Whether programs that are started see the variable: `export N=8`, `declare -x N=8`, `N=8 python ...`."""
    parent = assignment.parent
    if parent is None or parent.type == "command":
        return parent is not None
    first = parent.children[0]
    return first.type in _EXPORTS or b"-x" in (parent.text or b"")[:16].split()


def use_of(node: Node) -> tuple[bool, bool]:
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
            return _is_of_option(outer, inner), is_silent(name_of(outer))
        inner, outer = outer, outer.parent
    return False, False


def _is_of_option(command: Node, argument: Node) -> bool:
    before = argument.prev_sibling
    texts = [(node.text or b"").lstrip(b"\"'") for node in (argument, before) if node is not None]
    return any(text.startswith(b"-") for text in texts) or is_foreign(name_of(command))


def name_of(command: Node) -> str:
    """The program of a command, as it is written."""
    name = command.child_by_field_name("name")
    return (name.text or b"").decode("utf-8", "replace") if name is not None else ""


def file_in(heredoc: Node) -> str:
    """A name for the file that a here-document holds, by which a reader is chosen; "" where it is only printed.

    It is named by where it is written to (`cat > conf.yaml <<EOF`), or by who reads it (`python - <<EOF`, `cat <<EOF | sbatch`).
    """
    statement = heredoc.parent
    if statement is None:
        return ""
    around = [*statement.children, *_behind_pipe(heredoc)]
    programs = [name_of(command).rpartition("/")[2] for command in around if command.type == "command"]
    if any(INTERPRETERS.fullmatch(program) for program in programs):
        return "inline.py"
    if any(program in RUN_TEXT for program in programs):
        return "commands.sh"
    return next((name for target in _targets(heredoc, around) if (name := _file_name(target))), "")


def _targets(heredoc: Node, around: list[Node]) -> Iterator[str]:
    """Words that may name the file that is written."""
    for node in [*around, *heredoc.children]:
        if node.type == "file_redirect":
            yield (node.children[-1].text or b"").decode("utf-8", "replace")
        elif node.type == "command" and name_of(node) == "tee":
            yield from ((word.text or b"").decode("utf-8", "replace") for word in node.children[1:])


def _file_name(target: str) -> str:
    name = target.strip("\"'").rpartition("/")[2]
    if name.endswith(_SCRIPTS):
        return "commands.sh"
    return name if "." in name or "file" in name.lower() else ""


def _behind_pipe(heredoc: Node) -> Iterator[Node]:
    """Commands that get the text through a pipe, which stands behind `<<EOF` or behind the whole statement."""
    waiting = [child for child in heredoc.children if child.type != "heredoc_body"]
    if heredoc.parent is not None and heredoc.parent.parent is not None and heredoc.parent.parent.type == "pipeline":
        waiting += heredoc.parent.parent.children
    while waiting:
        node = waiting.pop()
        if node.type == "command":
            yield node
        elif node.type in {"pipeline", "redirected_statement"}:
            waiting += node.children


def errors(root: Node) -> Iterator[Node]:
    """The outermost nodes of which the grammar can make nothing."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type == "ERROR" or node.is_missing:
            yield node
        elif node.has_error:
            waiting.extend(node.children)
