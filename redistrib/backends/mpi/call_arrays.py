"""The arrays of a call on one rank: what it is given, checked, and what it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from redistrib.backends.mpi.calls import forwards
from redistrib.backends.mpi.checks import C_ORDER, F_ORDER, check_given
from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.exchange import Phase, Shape, Tiles
from redistrib.backends.mpi.problem import Problem
from redistrib.errors import BackendError


@dataclass(slots=True)
class CallArrays:
    """What the calls of a redistribution are given and make on this rank.

    shapes: of its tiles of source and target, None where it has none.
    shared: whether the result is always `out`, which is None on ranks without a target.
    """

    problem: Problem
    rank: int
    shapes: tuple[Shape | None, Shape | None]
    shared: bool = False
    out: Tile | None = None

    def checked(self, tiles: Tiles, outs: Tiles) -> Tiles:
        """What the results go into, if anything. Raises BackendError for what is no tile."""
        if len(outs) != len(tiles):
            raise BackendError(f"each tile has its out; got {len(tiles)} and {len(outs)}")
        if self.shared:
            if len(outs) != 1 or not (outs[0] is None or outs[0] is self.out):
                raise BackendError("a shared result is the array `out`: one, and no other is given")
            outs = [self.out]
        problem = self.problem
        if problem.options.check != "none":
            ends = (problem.src, self.shapes[0]), (problem.dst, self.shapes[1])
            check_given(tiles, outs, ends, problem.dtype, in_place=problem.in_place)
        return outs

    def result(self, out: Tile | None, order: int = C_ORDER) -> Tile | None:
        """What the call returns, made where no `out` is given, in the order of the tile."""
        shape = self.shapes[1]
        if out is not None or shape is None:
            return out
        if self.problem.subarrays[1] is not None:
            raise BackendError("with a dst_index the tile that is written into is given, as out")
        return np.empty(shape, self.problem.dtype, "F" if order == F_ORDER else "C")

    def levels(
        self, phases: Sequence[Phase], tiles: Tiles, results: Tiles, order: int
    ) -> list[list[Tile | None]]:
        """The arrays before, between and after the phases."""
        letter: Any = "F" if order == F_ORDER else "C"
        levels = [[forwards(tile) for tile in tiles]]
        for phase in phases[:-1]:
            shape = phase.after.tile_shape(self.rank)[:: -1 if phase.after.reverse else 1]
            levels.append([np.empty(shape, self.problem.dtype, letter) for _ in tiles])
        return [*levels, [forwards(result) for result in results]]

    def tiles_after(self, results: Tiles, phase: Phase | None) -> list[Tile | None]:
        """The tiles that a step fills, made; None stands for the last step."""
        if phase is None:
            return [self.result(out) for out in results]
        shape = phase.after.tile_shape(self.rank)
        return [np.empty(shape, self.problem.dtype) for _ in results]
