"""What a device holds on both sides of a pair of types, from which bounds on traffic follow.

A device need not receive what its source tile already has. Components of a refinement are
independent, so the overlap of the two tiles is a product over components, and the least of it over
devices too. On x=2,y=2, `f32[4{x,y}] -> f32[4{y,x}]` exchanges the digits of x and y: the devices
(0, 0) and (1, 1) keep their element, the two others need another one, so no element is sure:

>>> from redistrib.types.mesh import Mesh
>>> from redistrib.types.refinement import refine
>>> mesh = Mesh(x=2, y=2)
>>> src, dst = (ArrayType.parse(text, mesh) for text in ("f32[4{x,y}]", "f32[4{y,x}]"))
>>> (component,) = refine(src, dst).components()
>>> min_overlap(component), held_fraction(component)
(0, Fraction(1, 2))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

import numpy as np

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    Positions,
    digit_values,
    inside,
    merged,
)
from redistrib.types.mesh import check_enumerable
from redistrib.types.refinement import Component


def least_overlap(dst: ArrayType, components: list[Component]) -> int:
    """Elements that every device both holds and needs: the least over devices."""
    in_components = prod(run.size for c in components for run in c.dims)
    outside = dst.size // in_components if dst.size else 0
    return outside * prod(min_overlap(component) for component in components)


def min_overlap(component: Component) -> int:
    """Elements of a component that every device is sure to hold and need: the worst device's.

    Counted within the component: over the part of the index space that its dimension runs span.
    """
    if component.aligned:
        owner = {index: device for device, index in component.src}
        return int(all(owner.get(index, device) == device for device, index in component.dst))
    return int(held_and_needed(component, meetings(component)).min())


def held_fraction(component: Component) -> Fraction:
    """The fraction of a component's elements that some device holds and needs."""
    if component.aligned:  # a digit that owns on both sides asks for equal values of two runs
        return Fraction(1, prod(run.size for run in component.dims[1:]))
    positions = _coordinates(component)
    cells = [met.cells(positions, component.axes) for met in meetings(component)]
    kept = np.unique(np.array(cells).T[np.all([cell >= 0 for cell in cells], axis=0)], axis=0)
    sizes = [met.sizes.tolist() for met in meetings(component)]
    held = sum(prod(size[n] for size, n in zip(sizes, row, strict=True)) for row in kept.tolist())
    return Fraction(held, prod(run.size for run in component.dims))


MAX_BLOCKS = 1 << 20
"""Blocks of one run of a dimension: what no tile of either side cuts."""


@dataclass(frozen=True, slots=True)
class Meetings:
    """The pairs of a source tile and a target tile of a run that have elements in common.

    A tile is known by the row-major value of the device digits that own it, `owners` and
    `targets`. Pairs ascend by target tile, then by source tile. On x=2,y=3, `f32[6{x}]` has tiles
    of 3 elements and `f32[6{y}]` tiles of 2:

    >>> from redistrib.types.mesh import Mesh
    >>> from redistrib.types.refinement import refine
    >>> mesh = Mesh(x=2, y=3)
    >>> src, dst = (ArrayType.parse(text, mesh) for text in ("f32[6{x}]", "f32[6{y}]"))
    >>> (met,) = meetings(refine(src, dst).components()[0])
    >>> met.held.tolist(), met.needed.tolist(), met.sizes.tolist()
    ([0, 0, 1, 1], [0, 1, 1, 2], [2, 1, 1, 2])
    """

    owners: tuple[DeviceDigit, ...]
    targets: tuple[DeviceDigit, ...]
    held: Positions
    needed: Positions
    sizes: Positions

    def cells(self, positions: Positions, axes: Sequence[DeviceDigit]) -> Positions:
        """Per position over `axes` the pair of its own two tiles; -1 where they do not meet."""
        count = prod(digit.size for digit in self.owners)
        key = self.needed * count + self.held
        pairs = digit_values(self.targets, positions, axes) * count + digit_values(
            self.owners, positions, axes
        )
        index = np.minimum(np.searchsorted(key, pairs), len(key) - 1)
        return np.where(key[index] == pairs, index, -1)


@lru_cache(maxsize=4)  # asked for the bound, prices, routes and a plan of one problem
def meetings(component: Component) -> list[Meetings]:
    """Per dimension run of a misaligned component which tiles of both sides meet.

    Raises LayoutError for too many positions or blocks.
    """
    check_enumerable(prod(axis.size for axis in component.axes))
    return [run_meetings(run, component.src, component.dst) for run in component.dims]


def run_meetings(run: IndexDigit, src: Iterable[Placement], dst: Iterable[Placement]) -> Meetings:
    """Which tiles of both sides meet in a run of a dimension; of all placements those inside it."""
    sides = [
        sorted((p for p in side if inside(p[1], run)), key=lambda p: p[1]) for side in (src, dst)
    ]
    blocks = [side[-1][1].end // run.pre if side else 1 for side in sides]
    if sum(blocks) > MAX_BLOCKS or run.size >= 1 << 62:
        raise LayoutError(
            f"where no digits match, the blocks that no tile cuts are enumerated: at most "
            f"{MAX_BLOCKS} of a dimension with less than 2**62 elements; got {sum(blocks)} of "
            f"{run.size}",
            blocks=sum(blocks),
        )
    starts = merged(*(np.arange(count) * (run.size // count) for count in blocks))
    sizes = np.diff(np.append(starts, run.size))
    values = []
    for side in sides:
        value = np.zeros_like(starts)
        for _, index in side:
            value = value * index.size + starts // (run.end // index.end) % index.size
        values.append(value)
    owners, targets = (tuple(device for device, _ in side) for side in sides)
    order = np.lexsort(values)
    held, needed = (value[order] for value in values)
    new = np.append(True, (np.diff(held) != 0) | (np.diff(needed) != 0))
    first = np.flatnonzero(new)
    return Meetings(
        owners, targets, held[first], needed[first], np.add.reduceat(sizes[order], first)
    )


def _coordinates(component: Component) -> Positions:
    return np.arange(prod(axis.size for axis in component.axes))


def held_and_needed(component: Component, runs: Sequence[Meetings]) -> Positions:
    """Elements that a device has on both sides, per row-major coordinate over the axes."""
    positions = _coordinates(component)
    total = np.ones(len(positions), dtype=np.int64)
    for met in runs:
        cells = met.cells(positions, component.axes)
        total *= np.where(cells >= 0, met.sizes[cells], 0)
    return total
