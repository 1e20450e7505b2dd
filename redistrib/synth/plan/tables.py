"""Routing device by device, for the parts of a layout whose digits do not match.

A table grows with the axes that it names and not with the rest of the mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    Placement,
    Positions,
    apart,
    digit_values,
    inside,
    weight,
    with_digits,
)
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.overlap import needed
from redistrib.types.refinement import Component, check_pair


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
        offsets_before = tile_offsets(t.shape, before, self.axes)
        offsets_after = tile_offsets(t.shape, self.placements, self.axes)
        if not np.array_equal(offsets_after, offsets_before[list(self.sources)]):
            raise LayoutError(f"a permute moves the tiles of {t} whole; got a wrong source")
        return t.replace(placements=(*others, *self.placements))

    def inverse(self, before: ArrayType) -> PermuteTable:
        """The table that undoes this one, which starts from `before`."""
        old = tuple(p for p in before.placements if _touches(p[0], self.axes))
        sources = tuple(self.sources.index(a) for a in range(len(self.sources)))
        return PermuteTable(self.axes, sources, old)


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
    holders: dict[tuple[int, ...], list[int]] = {}
    for a, key in enumerate(map(tuple, tile_offsets(src.shape, old, axes).tolist())):
        holders.setdefault(key, []).append(a)
    wanted = [tuple(key) for key in tile_offsets(src.shape, new, axes).tolist()]
    sources = [-1] * len(wanted)
    for a, key in enumerate(wanted):
        if a in holders.get(key, ()):
            sources[a] = a
            holders[key].remove(a)
    for a, key in enumerate(wanted):
        if sources[a] < 0:
            sources[a] = holders[key].pop(0)
    return PermuteTable(axes, tuple(sources), tuple(new))


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


def tile_offsets(
    shape: Sequence[int], placements: Sequence[Placement], axes: Sequence[DeviceDigit]
) -> NDArray[np.int64]:
    """Where the tile at each row-major coordinate over `axes` starts: one row per coordinate."""
    sizes = [axis.size for axis in axes]
    at = np.indices(sizes, dtype=np.int64).reshape(len(sizes), -1)
    offsets = np.zeros((prod(sizes), len(shape)), dtype=np.int64)
    for device, index in placements:
        for axis, values in zip(axes, at, strict=True):
            if inside(device, axis):
                digit = values // (axis.end // device.end) % device.size
                offsets[:, index.dim] += digit * (shape[index.dim] // index.end)
    return offsets


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
    """

    axes: tuple[DeviceDigit, ...]
    owners: tuple[DeviceDigit, ...]
    rows: tuple[tuple[tuple[int, int], ...], ...]


@dataclass(frozen=True, slots=True)
class TableTraffic:
    """A routing table, and elements that each sender gives in all, and keeps."""

    table: RoutingTable
    served: tuple[int, ...]
    kept: tuple[int, ...]


def route_component(component: Component) -> TableTraffic:
    """Routing of a misaligned component; elements are counted within the component."""
    owners = tuple(device for device, _ in component.src)
    count = prod(axis.size for axis in component.axes)
    held = digit_values(owners, np.arange(count), component.axes).tolist()
    pieces: list[_Piece] = []
    parts = _owner_parts(component, owners)
    for a in range(count):
        values = np.zeros(1, dtype=np.intp)
        for part in parts:
            values = (values[:, None] + part[a]).reshape(-1)
        found, sizes = np.unique(values, return_counts=True)
        pieces += zip(sizes.tolist(), [a] * len(found), found.tolist(), strict=True)
    return _route(pieces, held, range(count), component.axes, owners)


_Piece = tuple[int, int, int]
"""Elements, the receiver that needs them, and the value of the owners of the tile they are in."""


def _route(
    pieces: Sequence[_Piece],
    held: Sequence[int],
    senders: Sequence[int | None],
    axes: tuple[DeviceDigit, ...],
    owners: tuple[DeviceDigit, ...],
) -> TableTraffic:
    """Own piece first, then the least loaded replica, the largest piece first.

    `held` gives the value that each sender holds, `senders` which sender each receiver is. Ties go
    to the lowest coordinate.
    """
    replicas: dict[int, list[int]] = {}
    for b, value in enumerate(held):
        replicas.setdefault(value, []).append(b)
    served, kept = [0] * len(held), [0] * len(held)
    rows: list[dict[int, int]] = [{} for _ in senders]
    for size, a, value in pieces:
        own = senders[a]
        if own is not None and held[own] == value:
            rows[a][value] = own
            served[own] = kept[own] = size
    for size, a, value in sorted(pieces, key=lambda piece: -piece[0]):
        if value not in rows[a]:
            sender = min(replicas[value], key=lambda b: (served[b], b))
            rows[a][value] = sender
            served[sender] += size
    table = RoutingTable(axes, owners, tuple(tuple(sorted(row.items())) for row in rows))
    return TableTraffic(table, tuple(served), tuple(kept))


def route_across(src: ArrayType, dst: ArrayType) -> TableTraffic:
    """Routing from a type to one on another mesh, over all positions of both."""
    owners = tuple(device for device, _ in src.placements)
    axes = whole_axes(src.mesh)
    held = digit_values(owners, np.arange(src.mesh.num_devices), axes).tolist()
    # What is local and minor on both sides stays together: it is counted in blocks.
    block = [gcd(a, b) for a, b in zip(src.block_shape, dst.block_shape, strict=True)]
    blocks = [n // size for n, size in zip(dst.shape, block, strict=True)]
    coarse = ArrayType(dst.mesh, dst.dtype, blocks, dst.dims)
    pieces: list[_Piece] = []
    for a in range(dst.mesh.num_devices):
        values, sizes = np.zeros(1, np.intp), np.full(1, prod(block))
        for dim, indices in enumerate(coarse.tile(a)):
            part = np.zeros_like(indices)
            for device, index in src.placements:
                if index.dim == dim:
                    digit = indices // (blocks[dim] // index.end) % index.size
                    part += digit * weight(device, owners)
            found, counts = np.unique(part, return_counts=True)
            values = (values[:, None] + found).reshape(-1)
            sizes = (sizes[:, None] * counts).reshape(-1)
        pieces += zip(sizes.tolist(), [a] * len(values), values.tolist(), strict=True)
    place = {device: b for b, device in enumerate(src.mesh.ids)}
    return _route(pieces, held, [place.get(device) for device in dst.mesh.ids], axes, owners)


def _owner_parts(component: Component, owners: Sequence[DeviceDigit]) -> list[Positions]:
    """Per dimension run and receiver, what each needed value adds to the number of its owners."""
    parts = []
    for run, (values, _) in zip(component.dims, needed(component), strict=True):
        part = np.zeros_like(values)
        for device, index in component.src:
            if inside(index, run):
                part += values // (run.end // index.end) % index.size * weight(device, owners)
        parts.append(part)
    return parts


def table_senders(table: PermuteTable, mesh: Mesh) -> NDArray[np.intp]:
    """Who sends to each position under a table."""
    here, axes = np.arange(mesh.num_devices), whole_axes(mesh)
    wanted = np.array(table.sources, np.intp)[digit_values(table.axes, here, axes)]
    return with_digits(here, table.axes, wanted, axes)
