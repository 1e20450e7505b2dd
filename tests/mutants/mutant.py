"""What a mutant is, where it stands in the code, and the table of all."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.mutants.syntax import Match, definitions, global_names, matches, parsed, unknown


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: `old`, which stands exactly once in the definition `scope`, becomes `new`.

    `name` says in plain words what is wrong then. `scope` is the qualified name of a function, a
    method (`Class.method`), a class or a constant; `file`, relative to the root of the tree, is
    where to look for it first. Has the definition moved, it is found in any other module below the
    same folder of the root. `old` and `new` are both an expression or both statements, compared as
    in `tests.mutants.syntax`: neither layout nor the names of local variables count.
    """

    name: str
    file: str
    scope: str
    old: str
    new: str

    def place(self, root: Path) -> str:
        """The file that has the snippet, relative to the root. Raises ValueError unless it stands
        once."""
        return self._find(root)[0]

    def changed(self, root: Path) -> tuple[str, ast.stmt]:
        """That file, and its statement with the snippet, a class or a function mostly, with the
        bug in it.

        Raises ValueError unless `old` is there once, and where `new` uses names that are not known
        there.
        """
        file, number = self._find(root)
        lines, first, end = _lines(root / file, number)
        (alone,) = ast.parse("\n".join(lines[first:end])).body
        (match,) = self._matches(alone)
        new = parsed(self.old, self.new)[1]
        if missing := unknown(new, match, _names(root / file, _state(root / file))):
            raise ValueError(f"what replaces it names {', '.join(sorted(missing))}")
        match.put(new)
        return file, ast.fix_missing_locations(alone)

    def source(self, root: Path) -> str:
        """The text of that file with the bug in it. Raises ValueError as `changed` does."""
        file, number = self._find(root)
        lines, first, end = _lines(root / file, number)
        lines[first:end] = [ast.unparse(self.changed(root)[1])]
        return "\n".join(lines) + "\n"

    def _find(self, root: Path) -> tuple[str, int]:
        """The file with the snippet, and the number of its statement that has it."""
        counts = {}
        for file in self._files(root):
            module = _module(root / file, _state(root / file))
            found = [
                number
                for number, statement in enumerate(module.body)
                for _ in self._matches(statement)
            ]
            if len(found) == 1:
                return file, found[0]
            if found or file == self.file:
                counts[file] = len(found)
        stands = ", ".join(f"{count} times in {file}" for file, count in counts.items())
        raise ValueError(f"{self.scope} has the snippet {stands or 'nowhere'}, not once")

    def _matches(self, statement: ast.stmt) -> list[Match]:
        """Where the snippet stands in a statement of a module."""
        old = parsed(self.old, self.new)[0]
        return [
            match
            for definition, local in definitions(ast.Module([statement], []), self.scope)
            for match in matches(definition, old, local)
        ]

    def _files(self, root: Path) -> Iterator[str]:
        """The modules to look in, the one it should be in first."""
        if (root / self.file).exists():
            yield self.file
        word = self.scope.rpartition(".")[2]
        for path in sorted((root / Path(self.file).parts[0]).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            if file != self.file and word in _text(path, _state(path)):
                yield file


@cache
def _text(path: Path, state: tuple[int, ...]) -> str:
    """The text of a file in a state."""
    return path.read_text(encoding="utf-8")


@cache
def _module(path: Path, state: tuple[int, ...]) -> ast.Module:
    """The tree of a file in a state; nobody changes it."""
    return ast.parse(_text(path, state))


@cache
def _names(path: Path, state: tuple[int, ...]) -> set[str]:
    """The names that a module in a state defines or imports."""
    return global_names(_module(path, state))


def _lines(path: Path, number: int) -> tuple[list[str], int, int]:
    """The lines of a module, and where a statement of it begins and ends."""
    statement = _module(path, _state(path)).body[number]
    starts = [node.lineno for node in (statement, *getattr(statement, "decorator_list", []))]
    assert statement.end_lineno is not None
    return _text(path, _state(path)).splitlines(), min(starts) - 1, statement.end_lineno


def _state(path: Path) -> tuple[int, ...]:
    """What tells two texts of a file apart: two writes can have one time."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def load() -> tuple[Mutant, ...]:
    """All mutants, in the order of the layers."""
    from tests.mutants import (
        of_checks,
        of_jax,
        of_models,
        of_mpi,
        of_oracle,
        of_paper,
        of_planner,
        of_proofs,
        of_rules,
        of_torch,
        of_types,
        of_uneven,
    )

    modules = (
        of_types,
        of_uneven,
        of_rules,
        of_planner,
        of_oracle,
        of_paper,
        of_mpi,
        of_jax,
        of_torch,
        of_models,
        of_checks,
        of_proofs,
    )
    return tuple(mutant for module in modules for mutant in module.MUTANTS)


def faults(mutants: Iterable[Mutant], root: Path) -> list[str]:
    """What is wrong with a table: a snippet that does not match once, an edit that does not parse
    or changes nothing, a name given twice."""
    found = []
    names = Counter(mutant.name for mutant in mutants)
    found += [
        f"{name}: {count} mutants have this name" for name, count in names.items() if count > 1
    ]
    for mutant in mutants:
        try:
            compile(mutant.source(root), mutant.file, "exec")
        except (OSError, ValueError, SyntaxError) as error:
            found.append(f"{mutant.name}: {error}")
        if mutant.old == mutant.new:
            found.append(f"{mutant.name}: changes nothing")
    return found
