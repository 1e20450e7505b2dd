"""Routing device by device, for the parts of a layout whose digits do not match.

On x=2,y=3 `f32[6{x,y}]` is cut into 2, then 3, and `f32[6{y,x}]` into 3, then 2: no digits are
common, but the tiles are the same, on other devices. A table says from which coordinate over x and
y each one receives: 1, which is x=0,y=1, wants element 2, and 2 has it.

>>> src, dst = (ArrayType.parse(t, Mesh(x=2, y=3)) for t in ("f32[6{x,y}]", "f32[6{y,x}]"))
>>> permute_table(src, dst).sources
(0, 2, 4, 1, 3, 5)

A table grows with the axes that it names and not with the rest of the mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    Placement,
    Positions,
    apart,
    digit_values,
    inside,
    with_digits,
)
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.refinement import check_pair


@dataclass(frozen=True, slots=True)
class PermuteTable:
    """A permutation of the devices along axes, or parts of axes.

    `sources[a]` is the row-major coordinate over `axes` from which coordinate `a` receives;
    `placements` says what the axes own afterwards.
    """

    axes: tuple[DeviceDigit, ...]
    sources: tuple[int, ...]
    placements: tuple[Placement, ...]

    def apply(self, t: ArrayType) -> ArrayType:
        """The type after the permute. Raises LayoutError unless every tile arrives whole."""
        if sorted(self.sources) != list(range(prod(axis.size for axis in self.axes))):
            raise LayoutError("the sources of a permute are a permutation of its coordinates")
        before = [p for p in t.placements if _touches(p[0], self.axes)]
        others = [p for p in t.placements if not _touches(p[0], self.axes)]
        inside = all(_inside_one(p[0], self.axes) for p in (*before, *self.placements))
        if not inside or any(_touches(d, self.axes) for d in t.partial):
            raise LayoutError(
                f"a table permutes all that its axes own, and no partial axis; got "
                f"{[str(axis) for axis in self.axes]} for {t}"
            )
        if owned_runs(before) != owned_runs(self.placements):
            raise LayoutError(f"a permute keeps the tiles of {t}; got other tiles")
        numbers_before = tile_numbers(before, self.axes)
        numbers_after = tile_numbers(self.placements, self.axes)
        if not np.array_equal(numbers_after, numbers_before[list(self.sources)]):
            raise LayoutError(f"a permute moves the tiles of {t} whole; got a wrong source")
        return t.replace(placements=(*others, *self.placements))

    def inverse(self, before: ArrayType) -> PermuteTable:
        """The table that undoes this one, which starts from `before`."""
        old = tuple(p for p in before.placements if _touches(p[0], self.axes))
        return PermuteTable(self.axes, tuple(np.argsort(self.sources).tolist()), old)


def permute_table(src: ArrayType, dst: ArrayType) -> PermuteTable:
    """The table that turns `src` into `dst`, two types with the same tiles on other devices.

    A device that already holds its tile keeps it. Raises LayoutError if the tiles or the partial
    sets differ, and for equal types, which no table needs to turn into each other.
    """
    check_pair(src, dst)
    if (src.partial, src.reduction) != (dst.partial, dst.reduction):
        raise LayoutError(f"a permute by table keeps the partial set; got {src} and {dst}")
    if src == dst:
        raise LayoutError(f"a table permutes between two types that differ; got {src} twice")
    changed = {device.axis for device, _ in set(src.placements) ^ set(dst.placements)}
    axes = tuple(
        part
        for name, size in src.mesh.axes
        if name in changed
        for part in _between_partial(name, size, src.partial)
        if any(_touches(device, [part]) for device, _ in (*src.placements, *dst.placements))
    )
    old = [p for p in src.placements if p[0].axis in changed]
    new = [p for p in dst.placements if p[0].axis in changed]
    if owned_runs(old) != owned_runs(new):
        raise LayoutError(f"no permute turns {src} into {dst}: their tiles differ")
    holds, wants = tile_numbers(old, axes), tile_numbers(new, axes)
    keeps = holds == wants
    sources = np.arange(len(holds))
    # Of several holders of a tile the first serves the first that wants it.
    holders, seekers = (np.flatnonzero(~keeps) for _ in range(2))
    holders = holders[np.argsort(holds[holders], kind="stable")]
    seekers = seekers[np.argsort(wants[seekers], kind="stable")]
    sources[seekers] = holders
    return PermuteTable(axes, tuple(sources.tolist()), tuple(new))


def _between_partial(name: str, size: int, partial: Sequence[DeviceDigit]) -> list[DeviceDigit]:
    """The parts of an axis that no partial digit covers."""
    parts = []
    end = 1
    for digit in sorted(d for d in partial if d.axis == name):
        parts.append(DeviceDigit(name, end, digit.pre // end))
        end = digit.end
    parts.append(DeviceDigit(name, end, size // end))
    return [part for part in parts if part.size > 1]


def _touches(device: DeviceDigit, axes: Sequence[DeviceDigit]) -> bool:
    return any(not apart(device, axis) for axis in axes)


def _inside_one(device: DeviceDigit, axes: Sequence[DeviceDigit]) -> bool:
    return any(inside(device, axis) for axis in axes)


def tile_numbers(placements: Sequence[Placement], axes: Sequence[DeviceDigit]) -> Positions:
    """Which tile each row-major coordinate over `axes` has: their row-major number.

    Equal for placements that own the same runs, by whatever digits.

    >>> from redistrib.types.digits import IndexDigit
    >>> x, y = DeviceDigit("x", 1, 2), DeviceDigit("y", 1, 3)
    >>> tile_numbers([(x, IndexDigit(0, 3, 2)), (y, IndexDigit(0, 1, 3))], [x, y]).tolist()
    [0, 2, 4, 1, 3, 5]
    """
    coordinates = np.arange(prod(axis.size for axis in axes))
    numbers = np.zeros_like(coordinates)
    for dim, low, high in owned_runs(placements):
        numbers *= high // low
        for device, index in placements:
            if index.dim == dim and low <= index.pre < high:
                numbers += digit_values([device], coordinates, axes) * (high // index.end)
    return numbers


def owned_runs(placements: Sequence[Placement]) -> list[tuple[int, int, int]]:
    """What is owned, whoever owns it: maximal runs (dim, lo, hi) of owned index digits."""
    runs: list[tuple[int, int, int]] = []
    for index in sorted(index for _, index in placements):
        if runs and runs[-1][0] == index.dim and runs[-1][2] == index.pre:
            runs[-1] = (index.dim, runs[-1][1], index.end)
        else:
            runs.append((index.dim, index.pre, index.end))
    return runs


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Which replica sends, for a component of an exchange that has no common digits.

    `axes` are the device digits of the component, `owners` the digits of them that own something
    in the source. `rows[a]` maps, for the receiver at row-major coordinate `a` over `axes`, the
    values of `owners` (one row-major number) to the sender's coordinate over `axes`. Between two
    meshes, `a` is the receiver's position on its mesh.

    A component needs no table where the source has no replicas of it: who owns an element is
    arithmetic on its index. Without a table the digits of the sender that own nothing are those of
    the receiver.
    """

    axes: tuple[DeviceDigit, ...]
    owners: tuple[DeviceDigit, ...]
    rows: tuple[tuple[tuple[int, int], ...], ...]


def table_senders(table: PermuteTable, mesh: Mesh) -> Positions:
    """Who sends to each position under a table."""
    positions, axes = np.arange(mesh.num_devices), whole_axes(mesh)
    wanted = np.array(table.sources, np.intp)[digit_values(table.axes, positions, axes)]
    return with_digits(positions, table.axes, wanted, axes)
