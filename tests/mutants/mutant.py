"""What a mutant is, where it stands in the code, and the table of all."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.mutants.syntax import Match, definitions, matches, parsed, unknown


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

    def source(self, root: Path) -> str:
        """The text of that file with the bug in it. Raises ValueError unless `old` is there once,
        and where `new` uses names that are not known there."""
        _, module, match = self._find(root)
        new = parsed(self.old, self.new)[1]
        if missing := unknown(new, match, module):
            raise ValueError(f"what replaces it names {', '.join(sorted(missing))}")
        match.put(new)
        return ast.unparse(ast.fix_missing_locations(module)) + "\n"

    def _find(self, root: Path) -> tuple[str, ast.Module, Match]:
        old = parsed(self.old, self.new)[0]
        counts = {}
        for file in self._files(root):
            module = ast.parse(_text(root / file, _state(root / file)))
            found = [
                match
                for definition, local in definitions(module, self.scope)
                for match in matches(definition, old, local)
            ]
            if len(found) == 1:
                return file, module, found[0]
            if found or file == self.file:
                counts[file] = len(found)
        stands = ", ".join(f"{count} times in {file}" for file, count in counts.items())
        raise ValueError(f"{self.scope} has the snippet {stands or 'nowhere'}, not once")

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
        of_types,
    )

    modules = (
        of_types,
        of_rules,
        of_planner,
        of_oracle,
        of_paper,
        of_mpi,
        of_jax,
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
