"""A matrix of prices, and the plans behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from redistrib.display import to_html, to_text
from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.detours.closure import Smalls
from redistrib.synth.planner.detours.through import path
from redistrib.synth.planner.problem import Strategy
from redistrib.types.array_type import ArrayType

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CostMatrix:
    """Seconds from every source (rows) to every target (columns), and the plans behind them.

    `seconds` is infinite where nothing fits the memory limit. Where a way through other `types` of
    the question is cheaper than the planner's own plan, the plan is the one through them.
    """

    seconds: Floats
    types: tuple[ArrayType, ...]
    _strategy: Strategy
    _plan_through: Callable[[Sequence[ArrayType], Sequence[Strategy]], Plan]
    _rows: Ints
    _columns: Ints
    _via: Smalls
    _exchanged: Bools

    @property
    def sources(self) -> tuple[ArrayType, ...]:
        """The types of the rows."""
        return tuple(self.types[n] for n in self._rows)

    @property
    def targets(self) -> tuple[ArrayType, ...]:
        """The types of the columns."""
        return tuple(self.types[n] for n in self._columns)

    def __str__(self) -> str:
        return to_text(self)

    def _repr_html_(self) -> str:
        return to_html(self)

    def hops(self, row: int, column: int) -> tuple[ArrayType, ...]:
        """The types between source and target that the plan stops at."""
        return tuple(self.types[n] for n in self._path(row, column)[1:-1])

    def plan(self, row: int, column: int) -> Plan:
        """The plan that was priced: its `seconds` is that entry, to the last bit.

        Raises InfeasibleError where the entry is infinite.
        """
        path = self._path(row, column)
        path = path if len(path) > 1 else 2 * path  # of a type to itself
        types = [self.types[n] for n in path]
        ways = ["direct" if self._exchanged[leg] else self._strategy for leg in pairwise(path)]
        return self._plan_through(types, ways)

    def _path(self, row: int, column: int) -> list[int]:
        """The types from source to target, as numbers."""
        return path(self._via, int(self._rows[row]), int(self._columns[column]))
