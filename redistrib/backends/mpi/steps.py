"""A plan step by step: each step is a phase of its own, within the groups that the plan names.

Traffic and memory are then those that the plan states. On 4 ranks, all_gather over x of

    f32[8{x,y}]  ->  f32[8{x}]    mesh x=2,y=2, gathered over y

is an exchange within the groups {0, 1} and {2, 3}: rank 0 receives 2 elements from rank 1, and
nobody else sends to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import Any, assert_never

import numpy as np

from redistrib.backends.mpi.exchange import End, Phase, TileExchange, exchange, permute
from redistrib.backends.mpi.flows import Channel
from redistrib.backends.mpi.index_ranges import segments
from redistrib.backends.mpi.overlaps import Overlap, overlap_of
from redistrib.backends.mpi.phases import ToPartial
from redistrib.backends.mpi.reduction import Reduction
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
from redistrib.synth.plan.pieces import pieces_of
from redistrib.types.digits import DeviceDigit
from redistrib.types.tile import groups


def steps_of(
    plan: Plan, src: End, dst: End, channel: Channel, dtype: np.dtype[Any], scratch: int
) -> list[Phase]:
    """A phase for each step of a plan; each may use its part of the scratch."""
    ends = [End(t, (src if t.mesh == plan.src.mesh else dst).positions) for t in plan.types]
    share = max(1, scratch // max(1, len(plan.steps)))
    return [
        _phase(step, before, after, channel, dtype, share)
        for step, (before, after) in zip(plan.steps, pairwise(ends), strict=True)
    ]


def _phase(
    step: Collective, before: End, after: End, channel: Channel, dtype: np.dtype[Any], scratch: int
) -> Phase:
    match step:
        case ReplicatedToPartial() | ShardedToPartial():
            return ToPartial(step, before, after, channel.comm.rank)
        case CollectivePermute():
            return permute(step, before, after, channel, dtype.itemsize, scratch)
        case Exchange():
            routed = list(_routed(step, before, after, channel.comm.rank))
            return TileExchange(before, after, routed, channel, dtype.itemsize, scratch)
        case ReduceScatter() | AllReduce():
            within = _group_of(before, step.axes)
            return Reduction(before, after, channel, dtype, scratch, within)
        case DynamicSlice() | AllGather() | AllToAll():
            within = _group_of(before, step.axes)
            return exchange(before, after, channel, dtype.itemsize, scratch, within)
        case _:
            assert_never(step)


def _group_of(end: End, digits: Sequence[DeviceDigit]) -> list[int]:
    """The number of each rank's group, of the devices that differ in these digits only."""
    members = groups(end.type.mesh, digits)
    group = {int(position): number for number, row in enumerate(members) for position in row}
    return [-1 if position is None else group[position] for position in end.positions]


def _routed(step: Exchange, before: End, after: End, rank: int) -> Iterator[Overlap]:
    """What this rank sends, receives or keeps, as the plan routes it."""
    senders, receivers = (
        {position: number for number, position in enumerate(end.positions)}
        for end in (before, after)
    )
    pieces = pieces_of(step, before.type, after.type)
    for piece in pieces.pieces:
        sender, receiver = senders[piece.sender], receivers[piece.receiver]
        if rank not in (sender, receiver):
            continue
        shared = [
            list(segments(np.full(len(take), size), take * size, put * size))
            for take, put, size in zip(piece.take, piece.put, pieces.block, strict=True)
        ]
        for chosen in product(*shared):
            yield overlap_of(
                sender, receiver, chosen, before.type.tile_shape, after.type.tile_shape
            )
