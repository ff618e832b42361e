"""One walk over a syntax tree, without recursion, that hands each node to the form it belongs to.

Each node comes with the scope it stands in, with where its value goes (`to`), and with the path of names round it (`path`:
`data.train_dataloader` inside `data = dict(train_dataloader=dict(…))`). Nothing is visited twice, and statements on lines
that cannot matter are not visited at all: a large file costs as much as its few lines about loading.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping

from keepfed.knobs.python.facts import ELSEWHERE, Facts, Key, Place, Scope
from keepfed.knobs.python.interest import Interest
from keepfed.knobs.python.names import dotted
from keepfed.knobs.site import Role
from keepfed.knobs.spelling import THREAD_VARIABLES, Spelled, spelled

Handler = Callable[["Walk", ast.AST, Scope, Key, str], None]


class Walk:
    """The walk, and what the forms need while it goes on."""

    def __init__(self, tree: ast.Module, interest: Interest, handlers: Mapping[type[ast.AST], Handler]) -> None:
        self.facts = Facts()
        self.interest = interest
        self._handlers = handlers
        self._stack: list[tuple[ast.AST, Scope, Key, str]] = []
        self.body(tree.body, self.facts.module)

    def run(self) -> Facts:
        """Visit everything that matters."""
        stack, handlers = self._stack, self._handlers
        while stack:
            node, scope, to, path = stack.pop()
            handler = handlers.get(type(node))
            if handler is None:
                self.children(node, scope)
            else:
                handler(self, node, scope, to, path)
        return self.facts

    def push(self, node: ast.AST | None, scope: Scope, to: Key = ELSEWHERE, path: str = "") -> None:
        """Visit `node` later; its value goes to `to`."""
        if node is not None:
            self._stack.append((node, scope, to, path))

    def body(self, statements: Iterable[ast.stmt], scope: Scope) -> None:
        """Visit those statements later that stand on lines of interest."""
        for statement in statements:
            first = statement.lineno
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                first = min([first, *(decorator.lineno for decorator in statement.decorator_list)])
            if self.interest.touches(first, statement.end_lineno or first):
                self._stack.append((statement, scope, ELSEWHERE, ""))

    def children(self, node: ast.AST, scope: Scope, to: Key = ELSEWHERE) -> None:
        """Visit what stands in a node that means nothing by itself."""
        for name in node._fields:
            child = getattr(node, name, None)
            if isinstance(child, list):
                if child and isinstance(child[0], ast.stmt):
                    self.body(child, scope)
                else:
                    for each in child:
                        if isinstance(each, ast.AST):
                            self._stack.append((each, scope, to, ""))
            elif isinstance(child, ast.AST) and not isinstance(child, (ast.expr_context, ast.operator, ast.cmpop)):
                self._stack.append((child, scope, to, ""))

    def named(self, name: str) -> Spelled | None:
        """What a name of this file means: a setting, or (not sure) one that a setting takes its value from."""
        found = spelled(name)
        if found is not None:
            return found
        if name.upper() in THREAD_VARIABLES:
            return Spelled("threads_env", sure=False)
        return Spelled("num_workers", sure=False) if name in self.interest.hops else None

    def place(
        self,
        spelling: str,
        value: ast.expr,
        role: Role,
        key: Key,
        scope: Scope,
        *,
        owner: str = "",
        setting: str = "",
        reasoned: bool = False,
        denied: bool = False,
        meaning: Spelled | None = None,
        positional: bool = False,
    ) -> None:
        """Note a place that may set something, where its name (or `meaning`) says so."""
        known = meaning or self.named(spelling)
        hop = known is not None and known.knob == "num_workers" and not known.sure and not positional
        hop = hop and spelled(spelling) is None and spelled(setting) is None
        if known is not None:
            self.facts.places.append(
                Place(
                    known.knob,
                    known.sure,
                    spelling,
                    value,
                    role,
                    key,
                    owner=owner,
                    setting=setting,
                    reasoned=reasoned,
                    denied=denied,
                    hop=hop,
                    scope=scope,
                    positional=positional,
                )
            )


def key_of(node: ast.expr, scope: Scope) -> Key | None:
    """The named thing that an expression stands for: a name, an attribute, an item with a fixed key."""
    if isinstance(node, ast.Name):
        if scope.kind == "class":
            return ("field", node.id)
        return ("name", scope.label, node.id)
    path = dotted(node)
    root, _, last = path.rpartition(".")
    return ("attr", root, last) if root else None


def read_keys(node: ast.expr, scope: Scope) -> list[Key]:
    """All named things whose value an expression may read: `args.workers` reads that attribute, and the option behind it."""
    if isinstance(node, ast.Name):
        return [("name", scope.label, node.id)]
    path = dotted(node)
    root, _, last = path.rpartition(".")
    if not root:
        return [("option", node.attr), ("field", node.attr)] if isinstance(node, ast.Attribute) else []
    keys: list[Key] = [("attr", root, last), ("field", last)]
    if root != "self":
        keys.append(("option", last))
    return keys
