"""What each rank holds of an array: the tiles of a type as runs of indices."""

from __future__ import annotations

from typing import Any

from redistrib.backends.mpi.index_ranges import IndexRanges
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit

Box = tuple[IndexRanges, ...]
"""What a rank holds: per dimension the indices, with their places in the tile."""


Subarray = tuple[tuple[int, int], ...]
"""A part of an array: per dimension its first index and the one after its last."""


def boxes_of(t: ArrayType, part: Subarray | None = None) -> list[Box]:
    """What every position of the mesh holds; equal index sets are one object.

    Of a part of the array, whose indices then count from its own first one.
    """
    known: dict[tuple[Any, ...], IndexRanges] = {}
    found = []
    owners = [[f for f in factors if isinstance(f, DeviceDigit)] for factors in t.dims]
    for position in range(t.mesh.num_devices):
        runs = []
        for dim, digits in enumerate(owners):
            key = dim, *(t.digit_coordinate(digit, position) for digit in digits)
            if key not in known:
                starts, stops = t.index_runs(dim, position).T
                ranges = IndexRanges.packed(starts, stops - starts)
                known[key] = ranges if part is None else ranges.within(*part[dim])
            runs.append(known[key])
        found.append(tuple(runs))
    return found
