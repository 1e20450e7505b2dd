"""DTensor's uneven shards: one mesh axis after the other cuts what is left, as torch.chunk does.

Of 10 elements over x=2, then y=2: x leaves 5 and 5, y cuts each into 3 and 2.

>>> t = UnevenType(Mesh(x=2, y=2), "f32", (10,), (("x", "y"),))
>>> [t.tile(position)[0].tolist() for position in range(4)]
[[0, 1, 2], [3, 4], [5, 6, 7], [8, 9]]

A move between such types is reduced where it is partial, then exchanged: every rank receives what
it lacks of its tile, from the rank that has the same coordinates where nothing is owned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from redistrib.synth.plan.collectives import Exchange
from redistrib.synth.plan.pieces import Piece, Pieces
from redistrib.synth.plan.tile_program import Fetch, Groups, KeepFirst, Operation, Reduce
from redistrib.types.digits import DeviceDigit, Positions
from redistrib.types.dtypes import itemsize
from redistrib.types.mesh import Mesh


@dataclass(frozen=True, slots=True)
class UnevenType:
    """The axes that cut each dimension, first to last, and those that the array is partial over."""

    mesh: Mesh
    dtype: str
    shape: tuple[int, ...]
    shards: tuple[tuple[str, ...], ...]
    partial: tuple[str, ...] = ()
    reduction: str | None = None

    @property
    def even(self) -> bool:
        """Whether the axes of every dimension divide it."""
        axes = zip(self.shape, self.shards, strict=True)
        return all(n % prod(map(self.mesh.axis_size, by)) == 0 for n, by in axes)

    def indices(self, dim: int, coordinates: dict[str, int]) -> Positions:
        """The indices of a dimension that the device with these coordinates has."""
        left = np.arange(self.shape[dim])
        for axis in self.shards[dim]:
            block = -(-len(left) // self.mesh.axis_size(axis))
            left = left[coordinates[axis] * block :][:block]
        return left

    def tile(self, position: int) -> tuple[Positions, ...]:
        """The indices per dimension that the device at a position has."""
        coordinates = self.mesh.coordinates(position)
        return tuple(self.indices(dim, coordinates) for dim in range(len(self.shape)))

    def tile_shape_at(self, position: int) -> tuple[int, ...]:
        """The shape of the tile at a position."""
        return tuple(len(indices) for indices in self.tile(position))

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """The shape of the largest tile, that of position 0."""
        return self.tile_shape_at(0)

    @property
    def tile_bytes(self) -> int:
        """Bytes of the largest tile."""
        return prod(self.tile_shape) * itemsize(self.dtype)

    def groups(self) -> Groups:
        """The groups over which it is partial."""
        sizes = self.mesh.sizes
        digits = (DeviceDigit(axis, 1, sizes[axis]) for axis in self.partial if sizes[axis] > 1)
        return Groups(self.mesh, tuple(digits))


@dataclass(frozen=True, slots=True)
class UnevenFetch(Fetch):
    """An exchange between types of which one at least is uneven."""

    def pieces(self) -> Pieces:
        """Who sends what to whom, in elements."""
        ends = _as_uneven(self.before), _as_uneven(self.after)
        rank = len(self.before.shape)
        return Pieces((1,) * rank, (), (), tuple(_pieces(*ends)))


def _as_uneven(t: object) -> UnevenType:
    assert isinstance(t, UnevenType)
    return t


def uneven_steps(
    src: UnevenType, dst: UnevenType
) -> Iterator[tuple[UnevenType, UnevenType, Operation]]:
    """What leads from one type to the other: the types before and after it, and the operation."""
    kept = _shared(src, dst)
    whole, end = replace(src, partial=kept), replace(dst, partial=kept)
    reduced = replace(src, partial=tuple(axis for axis in src.partial if axis not in kept))
    if reduced.groups().size > 1:
        yield src, whole, Reduce(reduced.groups(), src.reduction or "sum")
    if whole != end:
        yield whole, end, UnevenFetch(Exchange(()), whole, end)  # type: ignore[arg-type]
    made = replace(dst, partial=tuple(axis for axis in dst.partial if axis not in kept))
    if made.groups().size > 1:
        yield end, dst, KeepFirst(made.groups(), dst.reduction or "sum")


def _shared(src: UnevenType, dst: UnevenType) -> tuple[str, ...]:
    """The axes over which both are partial, so that their addends need not be reduced."""
    if src.mesh != dst.mesh or src.reduction != dst.reduction:
        return ()
    return tuple(axis for axis in src.partial if axis in dst.partial)


def _pieces(src: UnevenType, dst: UnevenType) -> Iterator[Piece]:
    for receiver in range(dst.mesh.num_devices):
        wanted = dst.tile(receiver)
        for sender in _senders(src, dst, receiver):
            shared = [
                np.intersect1d(has, wants, assume_unique=True, return_indices=True)[1:]
                for has, wants in zip(src.tile(sender), wanted, strict=True)
            ]
            if all(len(take) for take, _ in shared):
                yield Piece(
                    sender,
                    receiver,
                    tuple(take for take, _ in shared),
                    tuple(put for _, put in shared),
                )


def _senders(src: UnevenType, dst: UnevenType, receiver: int) -> Iterator[int]:
    """One device for each tile of the source: the one whose free coordinates are the receiver's.

    On another mesh, replicas of a tile take turns.
    """
    axes = src.mesh.axes
    owned = {axis for dim in src.shards for axis in dim}
    if src.mesh == dst.mesh:
        own = src.mesh.coordinates(receiver)
    else:
        place = receiver % src.mesh.num_devices
        own = {
            axis: 0 if axis in src.partial else n for axis, n in src.mesh.coordinates(place).items()
        }
    values = [range(size) if axis in owned else [own[axis]] for axis, size in axes]
    for coordinates in product(*values):
        position = 0
        for (_, size), value in zip(axes, coordinates, strict=True):
            position = position * size + value
        yield position
