"""What one rank does between two types of a plan: one fused exchange, or one reduction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, assert_never

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.boxes import Blocks, Boxes, boxes
from redistrib.backends.delivery import identity
from redistrib.backends.local import groups, numbers, split
from redistrib.synth.collectives import (
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
from redistrib.synth.plan import Plan
from redistrib.synth.routing import exchange_traffic
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit

Tile = NDArray[Any]
Reduction = ReduceScatter | AllReduce | ReplicatedToPartial | ShardedToPartial

_UFUNCS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def phases_of(plan: Plan, comm: MPI.Intracomm) -> list[Phase]:
    """The steps of a plan with every run of data-moving steps fused into one exchange."""
    found: list[Phase] = []
    start = plan.src

    def move(to: ArrayType) -> None:
        if to != start:
            found.append(Move(exchange_traffic(start, to).exchange, start, to, comm))

    for step, (before, after) in zip(plan.steps, pairwise(plan.types), strict=True):
        reduction = _as_reduction(step)
        if reduction is not None:
            move(before)
            found.append(Reduce(reduction, before, after, comm))
            start = after
    move(plan.dst)
    return found


def _as_reduction(step: Collective) -> Reduction | None:
    """The step if it changes the partial set, None if it only moves data."""
    match step:
        case ReduceScatter() | AllReduce() | ReplicatedToPartial() | ShardedToPartial():
            return step
        case DynamicSlice() | AllGather() | AllToAll() | CollectivePermute() | Exchange():
            return None
        case _:
            assert_never(step)


class Phase:
    """What one rank does between two types."""

    received_bytes = 0
    calls = 0

    def __init__(self, before: ArrayType, after: ArrayType) -> None:
        self.before, self.after = before, after

    def run(self, tile: Tile, out: Tile) -> None:
        """Fill the tile of `after` from the tile of `before`; collective if it communicates."""
        raise NotImplementedError

    def free(self) -> None:
        """Release what MPI holds for this phase."""


class Move(Phase):
    """One exchange: remote pieces by Alltoallw, the own piece by a copy."""

    def __init__(
        self, step: Exchange, before: ArrayType, after: ArrayType, comm: MPI.Intracomm
    ) -> None:
        super().__init__(before, after)
        self.comm = comm
        self.boxes = boxes(step, before, after)
        itemsize = before.itemsize
        self.sends = _Messages(comm.size, before.tile_shape, self.boxes.block, itemsize)
        self.receives = _Messages(comm.size, after.tile_shape, self.boxes.block, itemsize)
        self.own: tuple[Blocks, Blocks] | None = None
        remote = False
        for piece in self.boxes.pieces:
            if piece.sender == piece.receiver:
                if piece.sender == comm.rank:
                    self.own = piece.take, piece.put
                continue
            remote = True
            if piece.sender == comm.rank:
                self.sends.add(piece.receiver, piece.take)
            if piece.receiver == comm.rank:
                self.receives.add(piece.sender, piece.put)
        self.calls = int(remote)
        self.received_bytes = self.receives.bytes

    def run(self, tile: Tile, out: Tile) -> None:
        """Copy the own piece, then exchange the others."""
        if self.own is not None:
            _copy(tile, out, self.boxes, *self.own)
        if self.calls:
            self.comm.Alltoallw(self.sends.message(tile), self.receives.message(out))

    def free(self) -> None:
        """Release the datatypes."""
        self.sends.free()
        self.receives.free()


class _Messages:
    """One side of an Alltoallw: per peer a datatype that picks its piece out of the tile."""

    def __init__(
        self, size: int, tile_shape: Sequence[int], block: Sequence[int], itemsize: int
    ) -> None:
        self.tile_shape, self.block, self.itemsize = tile_shape, block, itemsize
        self.counts = [0] * size
        self.types = [MPI.BYTE] * size
        self.bytes = 0

    def add(self, peer: int, blocks: Blocks) -> None:
        """A piece to or from a peer."""
        self.counts[peer] = 1
        self.types[peer] = _datatype(blocks, self.tile_shape, self.block, self.itemsize)
        self.bytes += self.types[peer].Get_size()

    def message(self, tile: Tile) -> list[Any]:
        """The argument of Alltoallw; the displacements are in the datatypes."""
        return [as_bytes(tile), self.counts, [0] * len(self.counts), self.types]

    def free(self) -> None:
        """Release the datatypes."""
        for datatype, count in zip(self.types, self.counts, strict=True):
            if count:
                datatype.Free()


def as_bytes(tile: Tile) -> NDArray[np.uint8]:
    """The memory of a contiguous array: mpi4py knows no bfloat16 and needs to know none."""
    return tile.reshape(-1).view(np.uint8)


def _datatype(
    blocks: Blocks, tile_shape: Sequence[int], block: Sequence[int], itemsize: int
) -> MPI.Datatype:
    """A committed datatype of these blocks of a C-ordered tile."""
    runs = [_runs(b, size) for b, size in zip(blocks, block, strict=True)]
    if tile_shape and all(len(starts) == 1 for starts, _ in runs):
        # A plain box; the last dimension is counted in bytes.
        scale = [1] * (len(tile_shape) - 1) + [itemsize]
        box = MPI.BYTE.Create_subarray(
            [n * k for n, k in zip(tile_shape, scale, strict=True)],
            [lengths[0] * k for (_, lengths), k in zip(runs, scale, strict=True)],
            [starts[0] * k for (starts, _), k in zip(runs, scale, strict=True)],
        )
        return box.Commit()
    made = [MPI.BYTE.Create_contiguous(itemsize)]
    extent = itemsize
    for (starts, lengths), n in zip(reversed(runs), reversed(tile_shape), strict=True):
        # `made[-1]` is one row of what lies inside; its extent is the distance to the next row.
        extent *= n
        made.append(made[-1].Create_indexed(lengths, starts))
        made.append(made[-1].Create_resized(0, extent))
    for intermediate in made[:-1]:
        intermediate.Free()
    return made[-1].Commit()


def _runs(blocks: NDArray[np.intp], size: int) -> tuple[list[int], list[int]]:
    """Starts and lengths, in elements, of the runs of consecutive blocks."""
    breaks = np.flatnonzero(np.diff(blocks) != 1) + 1
    starts = np.concatenate([[0], breaks])
    ends = np.concatenate([breaks, [len(blocks)]])
    return (blocks[starts] * size).tolist(), ((ends - starts) * size).tolist()


def _copy(tile: Tile, out: Tile, found: Boxes, take: Blocks, put: Blocks) -> None:
    """Copy a device's own piece from tile to tile."""
    rank = len(found.block)
    # Blocks in front and their elements behind: views, so that an assignment writes through.
    front = [2 * dim for dim in range(rank)] + [2 * dim + 1 for dim in range(rank)]
    views = []
    for array, shape in ((tile, found.before), (out, found.after)):
        digits = [size for pair in zip(shape, found.block, strict=True) for size in pair]
        views.append(array.reshape(digits).transpose(front))
    source, target = (_index(blocks) for blocks in (take, put))
    views[1][target] = views[0][source]


def _index(blocks: Blocks) -> tuple[Any, ...]:
    """An index of these blocks: slices where they are evenly spaced, so that no copy is made."""
    slices = []
    for chosen in blocks:
        steps = np.unique(np.diff(chosen))
        if len(steps) > 1:
            return np.ix_(*blocks)
        step = int(steps[0]) if len(steps) else 1
        slices.append(slice(int(chosen[0]), int(chosen[-1]) + 1, step))
    return tuple(slices)


class Reduce(Phase):
    """A step that changes the partial set: pieces are exchanged and reduced in rank order."""

    def __init__(
        self, step: Reduction, before: ArrayType, after: ArrayType, comm: MPI.Intracomm
    ) -> None:
        super().__init__(before, after)
        self.step = step
        self.number = int(numbers(before.mesh, step.axes)[comm.rank])
        self.size = prod(digit.size for digit in step.axes)
        self.group: MPI.Comm | None = None
        if isinstance(step, ReduceScatter | AllReduce):
            self.group = _group(comm, before, step.axes)
            self.calls = 1
        self.chunks = [
            before.tile_size // self.size + (k < before.tile_size % self.size)
            for k in range(self.size)
        ]
        itemsize = before.itemsize
        match step:
            case ReduceScatter():
                self.received_bytes = after.tile_size * itemsize * (self.size - 1)
            case AllReduce():
                own = self.chunks[self.number]
                self.received_bytes = (own * (self.size - 2) + before.tile_size) * itemsize
            case ReplicatedToPartial() | ShardedToPartial():
                pass

    def run(self, tile: Tile, out: Tile) -> None:
        """Reduce, or fill with the identity of the reduction."""
        match self.step:
            case ReduceScatter(placements):
                pieces = split(self.before, [i for _, i in placements]).pieces(tile)
                sent = np.ascontiguousarray(pieces)
                arrived = np.empty_like(sent)
                self._comm.Alltoall([as_bytes(sent), MPI.BYTE], [as_bytes(arrived), MPI.BYTE])
                self._combine(arrived, out.reshape(arrived.shape[1:]))
            case AllReduce():
                self._all_reduce(tile, out)
            case ReplicatedToPartial(_, reduction):
                out[...] = identity(out.dtype, reduction) if self.number else tile
            case ShardedToPartial(placements, reduction):
                target = split(self.after, [i for _, i in placements])
                shape = (target.count, *target.piece_shape)
                pieces = np.full(shape, identity(out.dtype, reduction), out.dtype)
                pieces[self.number] = tile.reshape(target.piece_shape)
                out[...] = target.tile(pieces)
            case _:
                assert_never(self.step)

    @property
    def _comm(self) -> MPI.Comm:
        assert self.group is not None
        return self.group

    def _combine(self, pieces: Tile, out: Tile) -> None:
        """Reduce pieces in the order of their senders."""
        ufunc = _UFUNCS[self.before.reduction or "sum"]
        out[...] = pieces[0]
        for piece in pieces[1:]:
            ufunc(out, piece, out=out)

    def _all_reduce(self, tile: Tile, out: Tile) -> None:
        """Each member reduces one chunk and sends it around."""
        itemsize = tile.dtype.itemsize
        counts = [chunk * itemsize for chunk in self.chunks]
        offsets = [sum(counts[:k]) for k in range(self.size)]
        own = self.chunks[self.number]
        arrived = np.empty((self.size, own), tile.dtype)
        everywhere = [own * itemsize] * self.size
        rows = [own * itemsize * k for k in range(self.size)]
        self._comm.Alltoallv(
            [as_bytes(tile), counts, offsets, MPI.BYTE],
            [as_bytes(arrived), everywhere, rows, MPI.BYTE],
        )
        mine = np.empty(own, tile.dtype)
        self._combine(arrived, mine)
        self._comm.Allgatherv(
            [as_bytes(mine), MPI.BYTE], [as_bytes(out), counts, offsets, MPI.BYTE]
        )

    def free(self) -> None:
        """Release the communicator."""
        if self.group is not None:
            self.group.Free()


def _group(comm: MPI.Intracomm, t: ArrayType, digits: Sequence[DeviceDigit]) -> MPI.Comm:
    """The ranks that differ from this one in these digits only, in the order of their values."""
    # The key orders the members; the first member's rank tells the groups apart.
    place = int(numbers(t.mesh, digits)[comm.rank])
    members = next(group for group in groups(t.mesh, digits) if comm.rank in group)
    return comm.Split(int(members[0]), place)
