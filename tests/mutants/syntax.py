"""Finds a snippet in a function as a syntax tree, whatever the function calls its variables.

Snippets are compared as trees: layout, comments and quotes do not count. A name that the function
binds (a parameter, a target of an assignment or a loop, a capture) matches a name of the snippet up
to one renaming that is the same throughout and maps no two names to one. All other names, of
globals, attributes and keyword arguments, have to agree. In

    def widest(rows):
        for row in rows:
            yield max(len(cell) for cell in row)

the snippet `max(len(x) for x in r)` stands once, with x for `cell` and r for `row`. A block `...`
stands for any statements: `for a in b: ...` matches the loop, and `for a in b[1:]: ...` as what
replaces it keeps the statements of the loop. A `match` need not list all cases; those that it does
not list stay.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TypeGuard, TypeVar

# The field of a node that holds a name which a function may choose.
CHOSEN = {
    ast.Name: "id",
    ast.arg: "arg",
    ast.ExceptHandler: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.MatchMapping: "rest",
    ast.FunctionDef: "name",
}
BLOCKS = ("body", "orelse", "finalbody")
Snippet = ast.expr | list[ast.stmt]
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
T = TypeVar("T")


@dataclass(slots=True)
class Match:
    """Where a snippet stands, `holder.name` (or its elements from `start` to `stop`), with the
    name here for each name of the snippet, the statements for each block `...`, and for each
    `match` all its cases, with the numbers of those that the snippet lists."""

    holder: ast.AST
    name: str
    start: int | None
    stop: int
    names: dict[str, str] = field(default_factory=dict)
    blocks: list[list[ast.stmt]] = field(default_factory=list)
    cases: list[tuple[list[ast.match_case], list[int]]] = field(default_factory=list)

    def put(self, snippet: Snippet) -> None:
        """Replace what stands here, in place; names, blocks and cases are those of the match.

        Raises ValueError if the snippet has a block `...` or a case more than what it replaces.
        """
        fitted = _Fitting(self).fit(deepcopy(snippet))
        if isinstance(fitted, list):
            run = getattr(self.holder, self.name)
            run[self.start : self.stop] = fitted
            if not run and self.name == "body":
                run.append(ast.Pass())
        elif self.start is None:
            setattr(self.holder, self.name, fitted)
        else:
            getattr(self.holder, self.name)[self.start] = fitted


def parsed(old: str, new: str) -> tuple[Snippet, Snippet]:
    """Both as expressions where both are, else both as statements. Raises SyntaxError."""
    try:
        return _expression(old), _expression(new)
    except SyntaxError:
        return ast.parse(old).body, ast.parse(new).body


def definitions(module: ast.Module, name: str) -> Iterator[tuple[Definition, set[str]]]:
    """The functions, classes and constants with this qualified name, such as `Class.method`, and
    the names that each of them may choose."""
    yield from _definitions(module.body, name.split("."), set())


def matches(where: ast.AST, snippet: Snippet, local: set[str]) -> Iterator[Match]:
    """All places in a definition where a snippet stands."""
    for node in ast.walk(where):
        for name, value in ast.iter_fields(node):
            if isinstance(snippet, ast.expr):
                values = value if isinstance(value, list) else [value]
                for start, element in enumerate(values):
                    at = start if isinstance(value, list) else None
                    match = Match(node, name, at, start + 1)
                    if _same(snippet, element, match, local):
                        yield match
            elif _is_block(value) and snippet:
                for start in range(len(value) - len(snippet) + 1):
                    match = Match(node, name, start, start + len(snippet))
                    run = value[start : match.stop]
                    if all(_same(p, s, match, local) for p, s in zip(snippet, run, strict=True)):
                        yield match


def unknown(snippet: Snippet, match: Match, names: set[str]) -> set[str]:
    """The names of a replacement that are none of those of the module: errors of their own."""
    nodes = [node for top in _list(snippet) for node in ast.walk(top)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    known = _bound(nodes) | {*match.names} | names | {*dir(builtins)}
    return used - known


def global_names(module: ast.Module) -> set[str]:
    """The names that a module defines or imports, anywhere in it."""
    names = set()
    for node in ast.walk(module):
        match node:
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {(a.asname or a.name).partition(".")[0] for a in aliases}
            case ast.ClassDef(name=name):
                names.add(name)
            case _:
                pass
    top = [n for n in module.body if not isinstance(n, ast.ClassDef)]
    for statement in top:
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
        else:
            names |= _bound(ast.walk(statement))
    return names


def _expression(text: str) -> ast.expr:
    if not text.strip():
        raise SyntaxError("no expression")
    return ast.parse(f"(\n{text}\n)", mode="eval").body


def _list(snippet: Snippet) -> list[ast.expr] | list[ast.stmt]:
    return snippet if isinstance(snippet, list) else [snippet]


def _is_block(value: object) -> TypeGuard[list[ast.stmt]]:
    return isinstance(value, list) and bool(value) and isinstance(value[0], ast.stmt)


def _is_any(value: object) -> bool:
    """Whether this is a block `...`."""
    match value:
        case [ast.Expr(value=ast.Constant(value=content))]:
            return content is ...
        case _:
            return False


def _same(ours: object, theirs: object, match: Match, local: set[str]) -> bool:
    """Whether the snippet `ours` is `theirs`; adds to the names and blocks of the match."""
    if isinstance(ours, list):
        if _is_any(ours) and isinstance(theirs, list):
            match.blocks.append(theirs)
            return True
        return (
            isinstance(theirs, list)
            and len(ours) == len(theirs)
            and all(_same(a, b, match, local) for a, b in zip(ours, theirs, strict=True))
        )
    if not isinstance(ours, ast.AST):
        return type(ours) is type(theirs) and ours == theirs
    if type(ours) is not type(theirs):
        return False
    chosen = CHOSEN.get(type(ours))
    for name, value in ast.iter_fields(ours):
        other = getattr(theirs, name)
        if name in ("ctx", "type_comment", "kind"):
            continue
        if name == "cases":
            if not _same_cases(value, other, match, local):
                return False
        elif name == chosen and isinstance(value, str) and isinstance(other, str):
            if not _same_name(value, other, match.names, local):
                return False
        elif not _same(value, other, match, local):
            return False
    return True


def _same_name(ours: str, theirs: str, names: dict[str, str], local: set[str]) -> bool:
    if ours not in names:
        renamed = theirs in local and not hasattr(builtins, ours)
        if theirs in names.values() or not (renamed or ours == theirs):
            return False
        names[ours] = theirs
    return names[ours] == theirs


def _same_cases(
    ours: list[ast.match_case], theirs: list[ast.match_case], match: Match, local: set[str]
) -> bool:
    """Whether the cases of the snippet are among those here, in their order."""
    listed: list[int] = []
    match.cases.append((theirs, listed))
    for case in ours:
        for number in range(listed[-1] + 1 if listed else 0, len(theirs)):
            names, blocks = dict(match.names), len(match.blocks)
            if _same(case, theirs[number], match, local):
                listed.append(number)
                break
            match.names = names
            del match.blocks[blocks:]
        else:
            return False
    return True


class _Fitting:
    """Puts a replacement into the words of a match."""

    def __init__(self, match: Match) -> None:
        self.names = match.names
        self.blocks = iter(match.blocks)
        self.cases = iter(match.cases)

    def fit(self, node: T) -> T:
        """The node, changed in place."""
        if isinstance(node, list):
            for element in node:
                self.fit(element)
        elif isinstance(node, ast.AST):
            chosen = CHOSEN.get(type(node))
            for name, value in ast.iter_fields(node):
                if name == chosen and isinstance(value, str):
                    setattr(node, name, self.names.get(value, value))
                elif name in BLOCKS and _is_any(value):
                    setattr(node, name, self._next(self.blocks))
                else:
                    self.fit(value)
                if name == "cases":
                    setattr(node, name, self._merged(value))
        return node

    def _merged(self, listed: list[ast.match_case]) -> list[ast.match_case]:
        cases, numbers = self._next(self.cases)
        merged = [*cases]
        for number, case in zip(numbers, listed, strict=True):
            merged[number] = case
        return merged

    def _next(self, found: Iterator[T]) -> T:
        for element in found:
            return element
        raise ValueError("the replacement has a block ... or a match that it does not replace")


def _definitions(
    body: list[ast.stmt], path: list[str], local: set[str]
) -> Iterator[tuple[Definition, set[str]]]:
    """The definitions below some statements; `local` are the names of the functions around."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) if name == path[0]:
                inside = isinstance(statement, ast.FunctionDef)
                names = local | (_bound(ast.walk(statement)) - {name} if inside else set())
                if len(path) > 1:
                    yield from _definitions(statement.body, path[1:], names)
                else:
                    yield statement, names
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if path == [name]:
                    yield statement, local | _bound(ast.walk(statement)) - {name}
            case ast.FunctionDef() | ast.ClassDef():
                pass
            case _:
                for block in BLOCKS:
                    yield from _definitions(getattr(statement, block, []), path, local)


def _bound(nodes: Iterator[ast.AST] | list[ast.AST]) -> set[str]:
    """The names that these nodes bind."""
    names = set()
    for node in nodes:
        chosen = CHOSEN.get(type(node))
        if chosen and not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)):
            names.add(getattr(node, chosen))
    return names - {None}
