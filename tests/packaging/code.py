"""Facts of source: modules and what they import, the size and the branches of functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DECISIONS = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.While,
    ast.ExceptHandler,
    ast.match_case,
    ast.comprehension,
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parsed(folder: str) -> Mapping[str, ast.Module]:
    """The modules below a folder of the root, by their path from the root; nobody changes them."""
    files = sorted((ROOT / folder).rglob("*.py"))
    return {
        file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
        for file in files
    }


def functions(module: ast.Module) -> Iterator[tuple[str, Function]]:
    """All functions and methods, with their qualified names."""

    def below(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, Function]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.ClassDef):
                here = (*path, child.name)
                if isinstance(child, Function):
                    yield ".".join(here), child
                yield from below(child, here)
            else:
                yield from below(child, path)

    yield from below(module, ())


def length(function: Function) -> int:
    """Lines of a function without those of its docstring."""
    docstring = function.body[0] if ast.get_docstring(function, clean=False) is not None else None
    lines = (function.end_lineno or 0) - function.lineno + 1
    if docstring is None:
        return lines
    return lines - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def branches(function: Function) -> int:
    """Decisions: conditions, loops, cases, handlers, comprehensions and their conditions, and each
    `and` and `or`; those of a function inside count as its own, too."""
    count = 0
    for node in ast.walk(function):
        count += isinstance(node, DECISIONS)
        if isinstance(node, ast.comprehension):
            count += len(node.ifs)
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def imports(module: ast.Module) -> set[str]:
    """Every name that a module imports, also inside functions, `from a import b` as a.b."""
    names: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative import; use the absolute name"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def import_graph(modules: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Which of these modules each imports, by their paths."""
    by_name = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in modules
    }
    graph: dict[str, set[str]] = {path: set() for path in modules}
    for path, module in modules.items():
        for name in imports(module):
            # `from package import thing`: of a module of that name, or of the package.
            known = name if name in by_name else name.rpartition(".")[0]
            if known in by_name and by_name[known] != path:
                graph[path].add(by_name[known])
    return graph


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of two or more nodes that reach each other."""
    reach = {node: _reached(graph, node) for node in graph}
    groups = {
        tuple(sorted(other for other in reach[node] if node in reach[other])) for node in graph
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def _reached(graph: Mapping[str, set[str]], node: str) -> set[str]:
    """A node and those that arrows lead to from it."""
    found, left = {node}, [node]
    while left:
        new = graph[left.pop()] - found
        found |= new
        left += new
    return found
