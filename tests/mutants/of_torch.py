"""Bugs in the torch backend: what is sent, where it is put, in what order ranks begin."""

from tests.mutants.mutant import Mutant

PRIMITIVES = "redistrib/backends/torch/primitives.py"
PROGRAMS = "redistrib/backends/torch/programs.py"
REDISTRIBUTE = "redistrib/backends/torch/redistribute.py"
REDUCTIONS = "redistrib/backends/torch/reductions.py"

MUTANTS = (
    Mutant(
        "unsigned numbers are compared by their first bit as a sign",
        REDUCTIONS,
        "_unsigned",
        "_OPERATIONS[reduction](a ^ flip, b ^ flip) ^ flip",
        "_OPERATIONS[reduction](a, b)",
    ),
    Mutant(
        "a rank that is not first keeps its addend",
        PRIMITIVES,
        "TilePrimitives.keep_first",
        "self._members_of(groups)[1] == 0",
        "self._members_of(groups)[1] >= 0",
    ),
    Mutant(
        "a result is a view of the tile that was given",
        PROGRAMS,
        "Program._walk",
        "given is not None and _share(tile, given)",
        "given is None",
    ),
    Mutant(
        "an average is a sum",
        REDISTRIBUTE,
        "Move.scaled",
        "tile is None or self.times == self.over",
        "tile is None or self.times <= self.over",
    ),
)
