"""What one device holds, as digits: a tile cut into pieces, and who else has the other pieces.

A tile is a mixed-radix number per dimension: its local index digits, major to minor. Bringing some
of them to the front turns the tile into pieces, one per value of these digits; a collective moves
pieces between the devices of a group, and the pieces that arrive are put back at the digits that
they stand for. Only `reshape` and `transpose` are used, so numpy and jax arrays serve alike.

On 2 devices, `f32[12{x}]` has tiles of 6 elements. The local digit `0:(2)3` cuts each into 3 pieces
of 2, and the devices that differ in x alone are one group:

>>> mesh = Mesh(x=2)
>>> t = ArrayType.parse("f32[12{x}]", mesh)
>>> array = np.arange(12, dtype=np.float32)
>>> tile = tile_of(array, t, 1)
>>> split(t, [IndexDigit(0, 2, 3)]).pieces(tile).tolist()
[[6.0, 7.0], [8.0, 9.0], [10.0, 11.0]]
>>> groups(mesh, [DeviceDigit("x", 1, 2)]).tolist()
[[0, 1]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import BackendError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Positions,
    cut,
    digit_values,
    inside,
    is_chain,
    with_digits,
)
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.reduction import identity


@dataclass(frozen=True, slots=True)
class Split:
    """How a tile falls into pieces: `[*tile] <-> [piece, *piece_shape]`.

    `digits` are the sizes of the tile's local digits, `order` brings those of the pieces to the
    front.
    """

    tile_shape: tuple[int, ...]
    digits: tuple[int, ...]
    order: tuple[int, ...]
    count: int
    piece_shape: tuple[int, ...]

    def pieces(self, tile: Any) -> Any:
        """The pieces of a tile, `[count, *piece_shape]`."""
        moved = tile.reshape(self.digits).transpose(self.order)
        return moved.reshape(self.count, *self.piece_shape)

    def tile(self, pieces: Any) -> Any:
        """The tile of these pieces; the inverse of `pieces`."""
        moved = pieces.reshape([self.digits[axis] for axis in self.order])
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return moved.transpose(inverse).reshape(self.tile_shape)


def split(t: ArrayType, digits: Sequence[IndexDigit]) -> Split:
    """The split of a tile of `t` at local index digits: piece number = their row-major value.

    Raises BackendError if a digit is not local in `t` or not nested with what is owned.

    >>> t = ArrayType.parse("f32[12{x}]", Mesh(x=2))
    >>> split(t, [IndexDigit(0, 2, 3)]).pieces(np.arange(6)).tolist()
    [[0, 1], [2, 3], [4, 5]]
    """
    sizes: list[int] = []
    axis_of: dict[IndexDigit, int] = {}
    piece_shape = []
    inner: list[int] = []
    for dim, n in enumerate(t.shape):
        owned = [index for _, index in t.placements if index.dim == dim]
        wanted = [index for index in digits if index.dim == dim]
        cuts = sorted({1, n, *(c for i in (*owned, *wanted) for c in (i.pre, i.end))} - {0})
        kept = 1 if n else 0
        if n and not is_chain(cuts):
            raise BackendError(f"digits {[str(d) for d in wanted]} do not split a tile of {t}")
        for digit in cut(IndexDigit(dim, 1, n), cuts) if n > 1 else ():
            if any(inside(digit, index) for index in owned):
                continue
            if digit in wanted:
                axis_of[digit] = len(sizes)
            else:
                inner.append(len(sizes))
                kept *= digit.size
            sizes.append(digit.size)
        if not n:
            inner.append(len(sizes))
            sizes.append(0)
        piece_shape.append(kept)
    if missing := [str(d) for d in digits if d.size > 1 and d not in axis_of]:
        raise BackendError(f"digits {missing} are not local in {t}")
    front = [axis_of[d] for d in digits if d.size > 1]
    count = prod(d.size for d in digits)
    return Split(t.tile_shape, tuple(sizes), (*front, *inner), count, tuple(piece_shape))


def numbers(mesh: Mesh, digits: Sequence[DeviceDigit]) -> Positions:
    """The row-major value of several device digits at every position: the place in its group.

    >>> numbers(Mesh(x=2, y=2), [DeviceDigit("y", 1, 2), DeviceDigit("x", 1, 2)]).tolist()
    [0, 2, 1, 3]
    """
    return digit_values(digits, np.arange(mesh.num_devices), whole_axes(mesh))


def groups(mesh: Mesh, digits: Sequence[DeviceDigit]) -> Positions:
    """The groups of devices that differ in these digits only, `[group, place]`.

    >>> groups(Mesh(x=2, y=2), [DeviceDigit("x", 1, 2)]).tolist()
    [[0, 2], [1, 3]]
    """
    positions = np.arange(mesh.num_devices)
    first = with_digits(positions, digits, np.zeros_like(positions), whole_axes(mesh))
    size = prod(digit.size for digit in digits)
    order = np.lexsort((numbers(mesh, digits), first))
    return order.reshape(-1, size)


def check_array_of(array: NDArray[Any], t: ArrayType) -> None:
    """Raise BackendError unless an array has the shape and dtype of a type."""
    if array.shape != t.shape or array.dtype != t.numpy_dtype:
        raise BackendError(
            f"an array of type {t} has shape {list(t.shape)} and dtype {t.numpy_dtype}; "
            f"got shape {list(array.shape)} and dtype {array.dtype}",
            shape=array.shape,
            dtype=array.dtype,
        )


def tile_of(array: NDArray[Any], t: ArrayType, position: int) -> NDArray[Any]:
    """What the device at a position holds of an array, a new contiguous array.

    Over partial axes, coordinate 0 holds the data and the others the identity of the reduction.
    Raises BackendError if the array is not one of type `t`.
    """
    check_array_of(array, t)
    shape = t.tile_shape_at(position)
    if any(t.digit_coordinate(digit, position) for digit in t.partial):
        return np.full(shape, identity(array.dtype, t.reduction), array.dtype)
    return np.ascontiguousarray(array[np.ix_(*t.tile(position))]).reshape(shape)


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether two arrays agree in shape, dtype and every bit, so that a NaN equals itself."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    bytes_a, bytes_b = (np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in (a, b))
    return bool(np.array_equal(bytes_a, bytes_b))
