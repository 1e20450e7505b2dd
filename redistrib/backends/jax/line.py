"""Layouts over the line of devices: one axis `d`, the positions of a device list.

Law: a mesh whose devices are an iota, reshaped and transposed, gives each of its axes digits of the
line, so every type on it is a type on the line; so is every HloSharding of that form. Two meshes
over the same devices, in any such orders, have their types on one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor
from redistrib.types.mesh import Mesh

AXIS = "d"
Digits = tuple[DeviceDigit, ...]


def digits_of(places: NDArray[np.intp]) -> list[Digits] | None:
    """The digits of the line, major first, that each dimension of an array of positions stands for.

    None where the positions are no iota, reshaped and transposed.

    >>> [[str(digit) for digit in dim] for dim in digits_of(np.arange(8).reshape(4, 2).T)]
    [['d:(4)2'], ['d:(1)4']]
    >>> digits_of(np.array([0, 1, 3, 2])) is None
    True
    """
    found = []
    whole = np.full_like(places, 0)
    for dim in range(places.ndim):
        at = tuple(slice(None) if d == dim else 0 for d in range(places.ndim))
        line = places[at]
        digits = _runs(line, places.size)
        if digits is None:
            return None
        found.append(digits)
        whole += np.expand_dims(line, [d for d in range(places.ndim) if d != dim])
    return found if np.array_equal(whole, places) else None


def _runs(steps: NDArray[np.intp], total: int) -> Digits | None:
    """The digits of a mixed-radix sequence that starts at 0, major first."""
    digits: list[DeviceDigit] = []
    while len(steps) > 1:
        stride = int(steps[1])
        even = np.arange(len(steps)) * stride
        length = int(np.argmin([*(steps == even), False]))
        if stride <= 0 or len(steps) % length or total % (stride * length):
            return None
        rows = steps.reshape(-1, length)
        if not np.array_equal(rows - rows[:, :1], np.broadcast_to(even[:length], rows.shape)):
            return None
        digits.append(DeviceDigit(AXIS, total // (stride * length), length))
        steps = rows[:, 0]
    return tuple(reversed(digits)) if steps[0] == 0 else None


def type_on_line(t: ArrayType, line: Mapping[str, Sequence[DeviceDigit]]) -> ArrayType:
    """A type whose mesh axes are these digits of the line, as a type on the line."""
    count = t.mesh.num_devices

    def renamed(factor: Factor) -> list[Factor]:
        if not isinstance(factor, DeviceDigit):
            return [factor]
        return list(_part(line[factor.axis], factor.pre, factor.size))

    dims = [[part for factor in factors for part in renamed(factor)] for factors in t.dims]
    partial = [
        part for digit in t.partial for part in _part(line[digit.axis], digit.pre, digit.size)
    ]
    return ArrayType(Mesh({AXIS: count}), t.dtype, t.shape, dims, partial, t.reduction)


def _part(digits: Sequence[DeviceDigit], pre: int, size: int) -> Digits:
    """The part of `size` with `pre` positions before it, of digits taken as one number."""
    found = []
    low = 1
    for digit in digits:
        high = low * digit.size
        start, end = max(pre, low), min(pre * size, high)
        if start < end:
            if start % low or high % end or end % start:
                raise LayoutError(f"a sub-axis and the digits {list(map(str, digits))} nest")
            found.append(DeviceDigit(AXIS, digit.pre * (start // low), end // start))
        low = high
    return tuple(found)


def type_of_hlo(shape: Sequence[int], dtype: object, sharding: Any) -> ArrayType:
    """The type on the line of an array with an HloSharding of jaxlib.

    Raises LayoutError for shardings that are no tiling by an iota, reshaped and transposed, with
    replication, and where tiles are uneven.
    """
    if sharding.is_replicated():
        return ArrayType(Mesh({AXIS: sharding.num_devices()}), dtype, shape)
    dims: list[Digits] | None = None
    if sharding.is_tiled() and not _other_subgroups(sharding):
        places = np.array(sharding.tile_assignment_devices(), np.intp)
        dims = digits_of(places.reshape(sharding.tile_assignment_dimensions()))
    if dims is None:
        raise LayoutError(f"a sharding tiles an iota of devices; got {sharding}", sharding=sharding)
    return ArrayType(
        Mesh({AXIS: prod(sharding.tile_assignment_dimensions())}), dtype, shape, dims[: len(shape)]
    )


def _other_subgroups(sharding: Any) -> bool:
    return any("REPLICATED" not in str(kind).upper() for kind in sharding.subgroup_types())
