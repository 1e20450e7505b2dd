"""Which devices hold which block of an array: a grid of any rank on any number of devices.

The last dimension that is split runs across the grid and the others down, outer before inner; if
one alone is split, it runs across if it is the last of the array, else down. Along
an edge stand the factors that split it, as brackets: on x=2,y=2 the rows of f32[8{x}, 6{y}] are cut
by x and its columns by y.

>>> from redistrib.types.mesh import Mesh
>>> t = ArrayType.parse("f32[8{x}, 6{y}]", Mesh(x=2, y=2))
>>> drawn = grid(t)
>>> drawn.down.labels, [place.indices for place in drawn.down.places]
(('x',), ['0:4', '4:8'])
>>> [[cell.text for cell in row] for row in drawn.cells]
[['0', '1'], ['2', '3']]

Where an edge has more than MAX_PLACES places, a large factor shows its first two values and its
last, with a gap between them: a place that has no value of this factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from redistrib.report.figures import format_positions
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor, Local, Positions, digit_values
from redistrib.types.mesh import whole_axes
from redistrib.types.notation import format_factor
from redistrib.types.uneven import Ceil, block_ends, padded_size

MAX_PLACES = 8
"""Places along an edge that are drawn without gaps."""
MAX_LISTED = 1 << 16
"""Devices up to which those of a cell are listed; beyond, they are counted."""
MAX_NAMED = 12
"""Characters that the devices of a cell may take to be named in it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place along an edge: the value of each factor, outermost first, and its index ranges.

    A gap has the values of the factors outside it only, and "..." for its indices.
    """

    values: tuple[int, ...]
    indices: str
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """The factors that split some dimensions, outer first, and the places that are drawn."""

    dims: tuple[int, ...]
    factors: tuple[Factor, ...]
    labels: tuple[str, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A block of the array: how many devices hold it, and which, unless they are too many."""

    count: int
    devices: tuple[int, ...]

    @property
    def text(self) -> str:
        """The devices in short."""
        named = format_positions(list(self.devices))
        return named if self.devices and len(named) <= MAX_NAMED else f"{self.count} devices"


@dataclass(frozen=True, slots=True)
class Grid:
    """The blocks of a type, row by row; a cell is None in a gap."""

    down: Edge
    across: Edge
    cells: tuple[tuple[Cell | None, ...], ...]


def grid(t: ArrayType) -> Grid:
    """The blocks of a type; those of a dimension in one block are not told apart."""
    split = [dim for dim, factors in enumerate(t.dims) if factors and t.shape[dim]]
    alone = len(split) == 1 and split[0] < len(t.shape) - 1
    down, across = (_edge(t, dims) for dims in ((split, []) if alone else (split[:-1], split[-1:])))
    holders = _Holders(t)
    cells = tuple(
        tuple(
            None if row.gap or column.gap else holders.of(down, row, across, column)
            for column in across.places
        )
        for row in down.places
    )
    return Grid(down, across, cells)


def _edge(t: ArrayType, dims: Sequence[int]) -> Edge:
    factors = tuple(factor for dim in dims for factor in _cutting(t, dim))
    places = tuple(
        Place(values, _indices(t, dims, values))
        if len(values) == len(factors)
        else Place(values, "...", gap=True)
        for values in _values([factor.size for factor in factors], MAX_PLACES)
    )
    return Edge(
        tuple(dims), factors, tuple(format_factor(factor, t.mesh) for factor in factors), places
    )


def _values(sizes: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    """The values of factors at about `most` places, in order; those of a gap are fewer.

    >>> list(_values([9], 4)), list(_values([2, 2], 4))
    ([(0,), (1,), (), (8,)], [(0, 0), (0, 1), (1, 0), (1, 1)])
    """
    if prod(sizes) <= most:
        yield from product(*map(range, sizes))
    elif most < 4:
        yield tuple(0 for _ in sizes)
        yield ()
        yield tuple(size - 1 for size in sizes)
    else:
        size, *inner = sizes
        shown: list[int | None] = [0, 1, None, size - 1] if size > 4 else list(range(size))
        for value in shown:
            if value is None:
                yield ()
            else:
                for values in _values(inner, most // len(shown)):
                    yield (value, *values)


def _indices(t: ArrayType, dims: Sequence[int], values: tuple[int, ...]) -> str:
    """The indices of a block, `:` for a dimension in one block between others that are cut."""
    ranges, coordinates = [], list(values)
    for dim in dims:
        number, count = 0, 1
        for factor in _cutting(t, dim):
            number, count = number * factor.size + coordinates.pop(0), count * factor.size
        start, end = _block(t, dim, number, count)
        ranges.append(f"{start}:{end}")
    return ", ".join(ranges)


def _cutting(t: ArrayType, dim: int) -> tuple[Factor, ...]:
    """The factors that cut a dimension: under `ceil` the last local one is the size of a block."""
    factors = t.dims[dim]
    return factors[:-1] if factors and isinstance(factors[-1], Local) else factors


def _block(t: ArrayType, dim: int, number: int, count: int) -> tuple[int, int]:
    """Where one of the blocks of a dimension begins and ends."""
    n, rule = t.shape[dim], dict(t.uneven).get(dim)
    if rule is None or isinstance(rule, Ceil):
        block = padded_size(n, t.dims[dim]) // count if rule else n // count
        return min(number * block, n), min((number + 1) * block, n)
    ends = block_ends(n, tuple(factor.size for factor in t.dims[dim]), rule)
    return ends[number], ends[number + 1]


class _Holders:
    """The devices of each block: those whose digits have the values of its place."""

    def __init__(self, t: ArrayType) -> None:
        self._mesh = t.mesh
        self._listed = t.mesh.num_devices <= MAX_LISTED
        self._values: dict[DeviceDigit, Positions] = {}
        self._count = prod(digit.size for digit in (*t.free_digits, *t.partial))

    def of(self, down: Edge, row: Place, across: Edge, column: Place) -> Cell:
        if not self._listed:
            return Cell(self._count, ())
        mask = np.ones(self._mesh.num_devices, bool)
        for edge, place in ((down, row), (across, column)):
            for factor, value in zip(edge.factors, place.values, strict=True):
                if isinstance(factor, DeviceDigit):
                    mask &= self._value(factor) == value
        ids = self._mesh.ids
        devices = tuple(sorted(ids[position] for position in np.flatnonzero(mask)))
        return Cell(len(devices), devices)

    def _value(self, digit: DeviceDigit) -> Positions:
        if digit not in self._values:
            positions = np.arange(self._mesh.num_devices)
            self._values[digit] = digit_values([digit], positions, whole_axes(self._mesh))
        return self._values[digit]


def picture(t: ArrayType) -> str:
    """Which devices hold which block, as text: the grid of the type.

    >>> from redistrib.types.mesh import Mesh
    >>> print(picture(ArrayType.parse("f32[8{x}, 6{y}]", Mesh(x=2, y=2))))
    f32[8{x}, 6{y}]
           0:3  3:6
      0:4    0    1
      4:8    2    3
    """
    drawn = grid(t)
    table = [["", *(place.indices for place in drawn.across.places)]]
    for place, row in zip(drawn.down.places, drawn.cells, strict=True):
        cells = (cell.text if cell else "..." for cell in row)
        table.append([place.indices, *cells])
    columns = [column for column in zip(*table, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  " + "  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
        if any(row)
    ]
    if t.partial:
        lines.append(f"  {partial_note(t)}")
    return "\n".join([str(t), *lines])


def partial_note(t: ArrayType) -> str:
    """The note that the blocks of a partial array are addends."""
    return f"each block is a partial {t.reduction} on its devices"
