"""What each rank holds of an array: the tiles of a type as runs of indices."""

from __future__ import annotations

from redistrib.backends.mpi.index_ranges import IndexRanges
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.tile import numbers

Box = tuple[IndexRanges, ...]
"""What a rank holds: per dimension the indices, with their places in the tile."""


Subarray = tuple[tuple[int, int], ...]
"""A part of an array: per dimension its first index and the one after its last."""


def boxes_of(t: ArrayType, part: Subarray | None = None) -> list[Box]:
    """What every position of the mesh holds; equal index sets are one object.

    Of a part of the array, whose indices then count from its own first one.
    """
    columns = []
    for dim, factors in enumerate(t.dims):
        numbers_of = numbers(t.mesh, [f for f in factors if isinstance(f, DeviceDigit)]).tolist()
        known: dict[int, IndexRanges] = {}
        for position, number in enumerate(numbers_of):
            if number not in known:
                starts, stops = t.index_runs(dim, position).T
                ranges = IndexRanges.packed(starts, stops - starts)
                known[number] = ranges if part is None else ranges.within(*part[dim])
        columns.append([known[number] for number in numbers_of])
    return list(zip(*columns, strict=True)) if columns else [()] * t.mesh.num_devices
