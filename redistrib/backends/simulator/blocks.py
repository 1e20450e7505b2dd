"""An exchange of blocks on the tiles of all devices, which may be of different shapes.

All tiles lie in one array, each in the corner of the largest shape. Along every dimension an index
has an owner and a place in the owner's tile. For x=2 and `f32[5{x}:ceil]`, blocks of 3 and 2:

>>> from redistrib.types.mesh import Mesh
>>> t = ArrayType.parse("f32[5{x}:ceil]", Mesh(x=2))
>>> [numbers.tolist() for numbers in _places(t, 0)]
[[0, 0, 0, 1, 1], [0, 1, 2, 0, 1]]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.synth.plan.blocks import cells_of, owners_of, senders_of_blocks
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import Positions, digit_values
from redistrib.types.mesh import whole_axes

Array = NDArray[Any]


def in_corner(tile: Array, shape: tuple[int, ...]) -> Array:
    """The part of a tile of the largest shape that one of this shape is."""
    corner: tuple[Any, ...] = (*map(slice, shape), ...)
    part: Array = tile[corner]
    return part


def fetch_blocks(held: Array, before: ArrayType, after: ArrayType) -> Array:
    """The tiles after an exchange, `[device, *largest tile]`, from those before it."""
    count = after.mesh.num_devices
    result = np.zeros((count, *after.tile_shape), held.dtype)
    places = [_places(before, dim) for dim in range(len(before.shape))]
    for receiver in range(count):
        wanted = [np.asarray(indices) for indices in after.tile(receiver)]
        lead = [_along(dim, len(wanted)) for dim in range(len(wanted))]
        owners = [places[dim][0][indices].reshape(lead[dim]) for dim, indices in enumerate(wanted)]
        spots = [places[dim][1][indices].reshape(lead[dim]) for dim, indices in enumerate(wanted)]
        senders = senders_of_blocks(before, after, np.array(receiver), owners)
        in_corner(result[receiver, ...], after.tile_shape_at(receiver))[...] = held[
            (senders, *spots)
        ]
    return result


def count_blocks(before: ArrayType, after: ArrayType) -> tuple[int, int]:
    """Elements that the worst device receives and sends, cell by cell: each has one sender."""
    if not before.size:
        return 0, 0
    ids, ids_after = np.array(before.mesh.ids), np.array(after.mesh.ids)
    axes, rank = whole_axes(after.mesh), len(before.shape)
    cells = [cells_of(before, after, dim) for dim in range(rank)]
    received, sent = np.zeros(len(ids_after), np.int64), np.zeros(len(ids), np.int64)
    for receiver in range(len(ids_after)):
        owners, sizes = [], np.ones((1,) * rank, np.int64)
        for dim, of_dim in enumerate(cells):
            value = digit_values(owners_of(after, dim), np.array(receiver), axes)
            mine = of_dim.after == value
            owners.append(of_dim.before[mine].reshape(_along(dim, rank)))
            sizes = sizes * of_dim.lengths[mine].reshape(_along(dim, rank))
        senders = senders_of_blocks(before, after, np.array(receiver), owners)
        away = ids[senders] != ids_after[receiver]
        sizes = np.broadcast_to(sizes, senders.shape)[away]
        received[receiver] += sizes.sum()
        np.add.at(sent, senders[away], sizes)
    return int(received.max()), int(sent.max())


def _along(dim: int, rank: int) -> tuple[int, ...]:
    """The shape in which one dimension of `rank` broadcasts against the others."""
    return (*(1 for _ in range(dim)), -1, *(1 for _ in range(rank - dim - 1)))


def _places(t: ArrayType, dim: int) -> tuple[Positions, Positions]:
    """Per index of a dimension its owner, and its place in a tile of that one."""
    values = digit_values(owners_of(t, dim), np.arange(t.mesh.num_devices), whole_axes(t.mesh))
    owner, place = np.zeros((2, t.shape[dim]), np.intp)
    for value, position in zip(*np.unique(values, return_index=True), strict=True):
        indices = t.tile(int(position))[dim]
        owner[indices], place[indices] = value, np.arange(len(indices))
    return owner, place
