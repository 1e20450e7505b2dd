"""What a mutant is, and the table of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: `old`, which stands exactly once in `file`, becomes `new`.

    `name` says in plain words what is wrong then; `file` is relative to the root of the tree.
    """

    name: str
    file: str
    old: str
    new: str

    def source(self, root: Path) -> str:
        """The text of the file with the bug in it. Raises ValueError unless `old` is there once."""
        text = (root / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.file} has the snippet {count} times, not once")
        return text.replace(self.old, self.new)


def load() -> tuple[Mutant, ...]:
    """All mutants, in the order of the layers."""
    from tests.mutants import (
        of_checks,
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
