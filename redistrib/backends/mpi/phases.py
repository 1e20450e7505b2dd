"""A plan as phases: exchanges, reductions, and local conversions to partial.

A run of steps that only move data is one exchange, and a run that also reduces is one reduction,
however many collectives the plan has on accelerators: on MPI one step beats several. So a plan of
dynamic_slice, all_to_all and all_gather is one exchange, and all_to_all with reduce_scatter one
reduction; a sharded_to_partial, which makes addends, is a phase of its own between two of them.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import prod
from typing import Any, assert_never

import numpy as np

from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.exchange import End, Phase, Tiles, exchange, permute
from redistrib.backends.mpi.flows import Channel
from redistrib.backends.mpi.reduction import Reduction
from redistrib.backends.mpi.requests import Transfer
from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Exchange,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.uneven import block_steps
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import inside
from redistrib.types.reduction import identity
from redistrib.types.tile import numbers, split


def phases_of(
    plan: Plan,
    source: End,
    channel: Channel,
    dtype: np.dtype[Any],
    scratch: int,
) -> list[Phase]:
    """The phases of a plan on one mesh, from the end that is its source.

    Messages need no equal parts, so tiles are never padded.
    """
    steps, types = plan.steps, plan.types
    if plan.padded_shape is not None:
        steps = tuple(block_steps(plan.src, plan.dst))
        types = tuple(accumulate(steps, lambda t, step: step.apply(t), initial=plan.src))
    phases: list[Phase] = []
    start = source

    def end(t: ArrayType) -> End:
        return End(t, source.positions, reverse=source.reverse)

    def move(to: End) -> None:
        if to.type != start.type:
            phases.append(between(start, to, channel, dtype, scratch))

    for step, (before, after) in zip(steps, pairwise(types), strict=True):
        if not _apart(step, before):
            continue
        start_end, stop_end = end(before), end(after)
        move(start_end)
        match step:
            case ReplicatedToPartial() | ShardedToPartial():
                phases.append(ToPartial(step, start_end, stop_end, channel.comm.rank))
            case CollectivePermute():
                phases.append(permute(step, start_end, stop_end, channel, dtype.itemsize, scratch))
            case _:
                raise AssertionError("_apart knows which steps are phases of their own")
        start = stop_end
    move(end(plan.dst))
    return phases


def between(before: End, after: End, channel: Channel, dtype: np.dtype[Any], scratch: int) -> Phase:
    """The exchange or reduction between two ends; the source has all partial axes of the target."""
    if before.type.partial != after.type.partial:
        return Reduction(before, after, channel, dtype, scratch)
    return exchange(before, after, channel, dtype.itemsize, scratch)


def _apart(step: Collective, before: ArrayType) -> bool:
    """Whether a step is a phase of its own: it makes addends, or moves them between groups."""
    match step:
        case ReplicatedToPartial() | ShardedToPartial():
            return True
        case CollectivePermute(routes):
            return any(inside(old, digit) for old, _ in routes for digit in before.partial)
        case DynamicSlice() | AllGather() | AllToAll() | Exchange() | ReduceScatter() | AllReduce():
            return False
        case _:
            assert_never(step)


class ToPartial(Phase):
    """A local conversion: ranks that have nothing to add hold the identity of the reduction."""

    name = "the conversion to partial"

    def __init__(
        self, step: ReplicatedToPartial | ShardedToPartial, before: End, after: End, rank: int
    ) -> None:
        super().__init__(before, after)
        self.step = step
        position = before.positions[rank]
        self.number = -1
        if position is not None:
            self.number = int(numbers(before.type.mesh, step.axes)[position])

    def run(self, sources: Tiles, targets: Tiles) -> Transfer:
        """Fill the targets; nothing is sent."""
        for source, target in zip(sources, targets, strict=True):
            if source is not None and target is not None:
                self._fill(*((source.T, target.T) if self.after.reverse else (source, target)))
        yield from ()

    def _fill(self, tile: Tile, out: Tile) -> None:
        after = self.after.type
        match self.step:
            case ReplicatedToPartial(_, reduction):
                out[...] = identity(out.dtype, reduction) if self.number else tile
            case ShardedToPartial(placements, reduction):
                target = split(after, [index for _, index in placements])
                shape = (prod(d.size for d, _ in placements), *target.piece_shape)
                pieces = np.full(shape, identity(out.dtype, reduction), out.dtype)
                pieces[self.number] = tile.reshape(target.piece_shape)
                out[...] = target.tile(pieces)
