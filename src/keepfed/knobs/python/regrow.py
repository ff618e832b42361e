"""Python that today's Python refuses, as a tree in ast's terms: `print "done"`, `.cuda(async=True)`, half-written lines, templates.

tree-sitter goes on after every mistake. Its nodes are turned into ast's, as far as settings can stand in them; what has no
counterpart keeps its children, so that a call inside a broken statement is still a call.

    ERROR ──→ if …: each child as a statement of its own
    print_statement ──→ left out
    call, assignment, dictionary, … ──→ ast.Call, ast.Assign, ast.Dict with the same bytes
"""

from __future__ import annotations

import ast
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from keepfed.knobs.grammar import parse, text_of

if TYPE_CHECKING:
    from tree_sitter import Node

_Placed = TypeVar("_Placed", ast.stmt, ast.expr, ast.keyword)
_DEEPEST = 120
_EXTRAS = {"comment", "line_continuation"}
_LEFT_OUT = {
    "print_statement",
    "exec_statement",
    "comment",
    "import_statement",
    "import_from_statement",
    "future_import_statement",
}
_OPERATORS: dict[str, type[ast.operator]] = {
    "/": ast.Div,
    "//": ast.FloorDiv,
    "*": ast.Mult,
    "-": ast.Sub,
    "%": ast.Mod,
}
_COMPARES: dict[str, type[ast.cmpop]] = {
    "==": ast.Eq,
    "!=": ast.NotEq,
    "<>": ast.NotEq,
    "is": ast.Is,
    "is not": ast.IsNot,
    ">": ast.Gt,
    "<=": ast.LtE,
    "<": ast.Lt,
}


def regrown(utf8: bytes, line_starts: list[int]) -> ast.Module:
    """The tree of `utf8`, whatever is wrong with it; lines and columns count as ast's do."""
    return ast.Module(body=_Growth(line_starts).statements(parse("python", utf8).root_node), type_ignores=[])


class _Growth:
    """Turns nodes of one tree."""

    def __init__(self, line_starts: list[int]) -> None:
        self._starts = line_starts
        self._depth = 0

    def statements(self, parent: Node) -> list[ast.stmt]:
        """Every child that is a statement, or contains some."""
        grown = [self.statement(child) for child in parent.named_children if child.type not in _LEFT_OUT]
        return [statement for statement in grown if statement is not None]

    def statement(self, node: Node) -> ast.stmt | None:
        """One statement; of an unknown kind, one that holds what is in it."""
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                return None
            grow = _STATEMENTS.get(node.type)
            if grow is not None:
                return self._at(grow(self, node), node)
            if node.type in _EXPRESSIONS:
                return self._at(ast.Expr(self.expression(node)), node)
            return self._at(ast.If(ast.Constant(value=True, lineno=1, col_offset=0), self.statements(node), []), node)
        finally:
            self._depth -= 1

    def expression(self, node: Node | None) -> ast.expr:
        """One expression; an unknown one becomes a tuple of what is in it."""
        if node is None:
            return ast.Tuple([], ast.Load(), lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                return self._at(ast.Tuple([], ast.Load()), node)
            grow = _EXPRESSIONS.get(node.type)
            if grow is None:
                return self._at(ast.Tuple(self._each(node), ast.Load()), node)
            grown = grow(self, node)
            return grown if hasattr(grown, "lineno") else self._at(grown, node)
        finally:
            self._depth -= 1

    def _each(self, node: Node) -> list[ast.expr]:
        return [self.expression(child) for child in node.named_children if child.type not in _EXTRAS]

    def _at(self, grown: _Placed, node: Node) -> _Placed:
        grown.lineno, grown.col_offset = self._place(node.start_byte)
        grown.end_lineno, grown.end_col_offset = self._place(node.end_byte)
        return grown

    def _place(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1]

    # ------------------------------------------------------------------------------------------------------ statements

    def _simple(self, node: Node) -> ast.stmt:
        child = next((each for each in node.named_children if each.type != "comment"), None)
        if child is not None and child.type in {"assignment", "augmented_assignment"}:
            return self._assignment(child)
        return ast.Expr(self.expression(child))

    def _assignment(self, node: Node) -> ast.stmt:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        value = self.expression(right) if right is not None else None
        if right is not None and right.type == "assignment":  # a = b = value
            inner = self._at(self._assignment(right), right)
            if isinstance(inner, ast.Assign):
                return ast.Assign([self._stored(left), *inner.targets], inner.value)
        if node.type == "augmented_assignment":
            return ast.Expr(value or self.expression(None))
        target = self._stored(left)
        if node.child_by_field_name("type") is not None and isinstance(
            target, (ast.Name, ast.Attribute, ast.Subscript)
        ):
            return ast.AnnAssign(target, self.expression(None), value, simple=1)
        return ast.Assign([target], value) if value is not None else ast.Expr(target)

    def _stored(self, node: Node | None) -> ast.expr:
        grown = self.expression(node)
        if isinstance(grown, (ast.Name, ast.Attribute, ast.Subscript, ast.Tuple)):
            grown.ctx = ast.Store()
        return grown

    def _function(self, node: Node) -> ast.stmt:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        arguments = self._parameters(node.child_by_field_name("parameters"))
        statements = self.statements(body) if body is not None else []
        return ast.FunctionDef(text_of(name) if name else "", arguments, statements, [])

    def _parameters(self, node: Node | None) -> ast.arguments:
        names: list[ast.arg] = []
        defaults: list[ast.expr] = []
        for child in node.named_children if node is not None else ():
            name = child if child.type == "identifier" else child.child_by_field_name("name")
            if name is None and child.type == "typed_parameter":
                name = child.named_children[0]
            value = child.child_by_field_name("value")
            if name is None or name.type != "identifier" or (defaults and value is None):
                continue
            names.append(ast.arg(text_of(name)))
            if value is not None:
                defaults.append(self.expression(value))
        return ast.arguments([], names, None, [], [], None, defaults)

    def _class(self, node: Node) -> ast.stmt:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        over = node.child_by_field_name("superclasses")
        bases = [self.expression(base) for base in over.named_children if base.type in _EXPRESSIONS] if over else []
        statements = self.statements(body) if body is not None else []
        return ast.ClassDef(text_of(name) if name else "", bases, [], statements, [])

    def _decorated(self, node: Node) -> ast.stmt:
        definition = node.child_by_field_name("definition")
        grown = self.statement(definition) if definition is not None else None
        decorators = [self.expression(child.named_children[0]) for child in node.named_children if _decorates(child)]
        if isinstance(grown, (ast.FunctionDef, ast.ClassDef)):
            grown.decorator_list = decorators
            return grown
        return ast.Expr(ast.Tuple(decorators, ast.Load(), lineno=1, col_offset=0))

    # ----------------------------------------------------------------------------------------------------- expressions

    def _call(self, node: Node) -> ast.expr:
        arguments = node.child_by_field_name("arguments")
        grown = ast.Call(self.expression(node.child_by_field_name("function")), [], [])
        for child in arguments.named_children if arguments is not None else ():
            if child.type == "keyword_argument":
                grown.keywords.append(self._keyword(child))
            elif child.type == "dictionary_splat":
                grown.keywords.append(self._at(ast.keyword(None, self.expression(child.named_children[0])), child))
            elif child.type not in _EXTRAS:
                grown.args.append(self.expression(child))
        return grown

    def _keyword(self, node: Node) -> ast.keyword:
        name = node.child_by_field_name("name")
        return self._at(
            ast.keyword(text_of(name) if name else None, self.expression(node.child_by_field_name("value"))), node
        )

    def _dictionary(self, node: Node) -> ast.expr:
        grown = ast.Dict([], [])
        for child in node.named_children:
            if child.type == "pair":
                grown.keys.append(self.expression(child.child_by_field_name("key")))
                grown.values.append(self.expression(child.child_by_field_name("value")))
            elif child.type == "dictionary_splat":
                grown.keys.append(None)
                grown.values.append(self.expression(child.named_children[0]))
        return grown

    def _attribute(self, node: Node) -> ast.expr:
        name = node.child_by_field_name("attribute")
        return ast.Attribute(
            self.expression(node.child_by_field_name("object")), text_of(name) if name else "", ast.Load()
        )

    def _subscript(self, node: Node) -> ast.expr:
        return ast.Subscript(
            self.expression(node.child_by_field_name("value")),
            self.expression(node.child_by_field_name("subscript")),
            ast.Load(),
        )

    def _identifier(self, node: Node) -> ast.expr:
        return ast.Name(text_of(node), ast.Load())

    def _integer(self, node: Node) -> ast.expr:
        try:
            return ast.Constant(int(text_of(node), 0))
        except ValueError:  # 0777 and 4L of Python 2
            return ast.Constant(0.0)

    def _string(self, node: Node) -> ast.expr:
        if any(child.type == "interpolation" for child in node.named_children):
            return ast.JoinedStr([])
        return ast.Constant("".join(text_of(child) for child in node.named_children if child.type == "string_content"))

    def _strings(self, node: Node) -> ast.expr:
        parts = [self.expression(child) for child in node.named_children]
        return ast.Constant("".join(str(part.value) for part in parts if isinstance(part, ast.Constant)))

    def _conditional(self, node: Node) -> ast.expr:
        body, test, orelse = (self._each(node) + [self.expression(None)] * 3)[:3]
        return ast.IfExp(test, body, orelse)

    def _binary(self, node: Node) -> ast.expr:
        sign = node.child_by_field_name("operator")
        operator = _OPERATORS.get(text_of(sign) if sign else "", ast.Add)()
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        return ast.BinOp(self.expression(left), operator, self.expression(right))

    def _boolean(self, node: Node) -> ast.expr:
        sign = node.child_by_field_name("operator")
        operator = ast.Or() if sign is not None and sign.type == "or" else ast.And()
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        return ast.BoolOp(operator, [self.expression(left), self.expression(right)])

    def _comparison(self, node: Node) -> ast.expr:
        sign = " ".join(child.type for child in node.children if not child.is_named)
        parts = self._each(node)
        return ast.Compare(parts[0], [_COMPARES.get(sign, ast.In)()], parts[1:2])

    def _negation(self, node: Node) -> ast.expr:
        return ast.UnaryOp(ast.Not(), self.expression(node.child_by_field_name("argument")))

    def _unary(self, node: Node) -> ast.expr:
        sign = ast.USub() if node.children[0].type == "-" else ast.UAdd()
        return ast.UnaryOp(sign, self.expression(node.child_by_field_name("argument")))

    def _inside(self, node: Node) -> ast.expr:
        parts = self._each(node)
        return parts[0] if parts else self.expression(None)

    def _list(self, node: Node) -> ast.expr:
        return ast.List(self._each(node), ast.Load())

    def _tuple(self, node: Node) -> ast.expr:
        return ast.Tuple(self._each(node), ast.Load())

    def _lambda(self, node: Node) -> ast.expr:
        return ast.Lambda(
            self._parameters(node.child_by_field_name("parameters")), self.expression(node.child_by_field_name("body"))
        )

    def _true(self, _node: Node) -> ast.expr:
        return ast.Constant(value=True)

    def _false(self, _node: Node) -> ast.expr:
        return ast.Constant(value=False)

    def _none(self, _node: Node) -> ast.expr:
        return ast.Constant(None)


def _decorates(node: Node) -> bool:
    return node.type == "decorator" and bool(node.named_children)


_STATEMENTS: dict[str, Callable[[_Growth, Node], ast.stmt]] = {
    "expression_statement": _Growth._simple,
    "assignment": _Growth._assignment,
    "augmented_assignment": _Growth._assignment,
    "function_definition": _Growth._function,
    "class_definition": _Growth._class,
    "decorated_definition": _Growth._decorated,
}
_EXPRESSIONS: dict[str, Callable[[_Growth, Node], ast.expr]] = {
    "call": _Growth._call,
    "dictionary": _Growth._dictionary,
    "attribute": _Growth._attribute,
    "subscript": _Growth._subscript,
    "identifier": _Growth._identifier,
    "integer": _Growth._integer,
    "string": _Growth._string,
    "concatenated_string": _Growth._strings,
    "conditional_expression": _Growth._conditional,
    "binary_operator": _Growth._binary,
    "boolean_operator": _Growth._boolean,
    "comparison_operator": _Growth._comparison,
    "not_operator": _Growth._negation,
    "unary_operator": _Growth._unary,
    "parenthesized_expression": _Growth._inside,
    "list": _Growth._list,
    "tuple": _Growth._tuple,
    "expression_list": _Growth._tuple,
    "pattern_list": _Growth._tuple,
    "lambda": _Growth._lambda,
    "true": _Growth._true,
    "false": _Growth._false,
    "none": _Growth._none,
}
