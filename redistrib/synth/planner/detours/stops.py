"""Stops: where two plans in a row are cheaper than one (docs/oracle.md).

The layouts that give whole axes to dimensions are the stops. Bounds from below say whether a stop
can pay at all, and in which order to try them, so that few are priced.

>>> len(stops(Mesh(x=2, y=2), (8, 8), ("x", "y")))  # on a dimension or on none, in either order
11

Law: data crosses links of every kind. Take the axes whose links are no faster than some bandwidth:
devices that agree on all of these are a group, and what a group wants of the target and has not in
the source crosses them, shared by its devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, permutations, product
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.synth.plan.profile import Profile
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement
from redistrib.types.mesh import Mesh, whole_axes

ENOUGH = 1.05
"""A plan that is no more than so many times the bound is taken as it is."""
MAX_STOPS = 500
"""With more layouts of whole axes than these there are no stops: four axes on rank 3 have 685."""
NEAR = 1.02
"""The best stop may be cheaper than the one found by so much."""
GAIN = 1 + 1e-9
"""What is cheaper is so by more than rounding."""

FIRST = np.zeros(1, dtype=np.int64)
"""The only one of a list."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Held = tuple[Placement, ...]
"""What is owned of one dimension, major first."""
Layout = tuple[Held, ...]
Axes = frozenset[str]
Price = Callable[[ArrayType, ArrayType], float]
"""Seconds of the plan alone; infinite where nothing fits the memory limit."""


def layout_of(t: ArrayType) -> Layout:
    """What the mesh owns of each dimension."""
    dims: list[list[Placement]] = [[] for _ in t.shape]
    for device, index in t.placements:
        dims[index.dim].append((device, index))
    return tuple(tuple(sorted(held, key=lambda p: p[1])) for held in dims)


@lru_cache(maxsize=64)
def stops(mesh: Mesh, shape: tuple[int, ...], axes: tuple[str, ...]) -> tuple[Layout, ...]:
    """Every layout of these axes, each of them whole; none where they are more than MAX_STOPS."""
    layouts: list[Layout] = []
    for layout in _layouts(mesh, shape, axes):
        if len(layouts) == MAX_STOPS:
            return ()
        layouts.append(layout)
    return tuple(layouts)


def axes_of_stops(src: ArrayType, dst: ArrayType) -> tuple[str, ...]:
    """The axes that stops between two types may use: all of the mesh, or those that the types use.

    With an idle axis there may be too many layouts of all.
    """
    every = tuple(name for name, _ in src.mesh.axes)
    if stops(src.mesh, src.shape, every):
        return every
    used = {device.axis for t in (src, dst) for device, _ in t.placements}
    return tuple(name for name in every if name in used)


def _layouts(mesh: Mesh, shape: tuple[int, ...], names: Sequence[str]) -> Iterator[Layout]:
    axes = [(name, size) for name, size in mesh.axes if size > 1 and name in names]
    if (len(shape) + 1) ** len(axes) > 16 * MAX_STOPS:
        yield from [()] * (MAX_STOPS + 1)
        return
    for places in product(range(-1, len(shape)), repeat=len(axes)):
        groups = [
            [a for a, p in zip(axes, places, strict=True) if p == d] for d in range(len(shape))
        ]
        if all(n % prod(size for _, size in g) == 0 for n, g in zip(shape, groups, strict=True)):
            for orders in product(*(permutations(group) for group in groups)):
                yield tuple(_held(dim, order) for dim, order in enumerate(orders))


def _held(dim: int, axes: Sequence[tuple[str, int]]) -> Held:
    pre, placements = 1, []
    for name, size in axes:
        placements.append((DeviceDigit(name, 1, size), IndexDigit(dim, pre, size)))
        pre *= size
    return tuple(placements)


@lru_cache(maxsize=1 << 16)
def _crossing(src: Held, dst: Held, axes: Axes) -> tuple[int, float]:
    """Of a dimension: in how many parts these axes cut the target, what a group keeps of its part.

    The group that keeps least; everything where digits do not match, since this is a bound.
    """
    parts = prod(device.size for device, _ in dst if device.axis in axes)
    cuts = sorted({1, *(c for _, i in (*src, *dst) for c in (i.pre, i.end))})
    if any(b % a for a, b in pairwise(cuts)):
        return parts, 1.0
    kept = 1.0
    for a, b in pairwise(cuts):
        before, after = _owner(src, a, axes), _owner(dst, a, axes)
        if before is not None and before != after:
            kept = kept * a / b if after is None else 0.0
    return parts, kept


def _owner(held: Held, cut: int, axes: Axes) -> tuple[str, int] | None:
    """Who of these axes owns the digit at a cut of the dimension."""
    for device, index in held:
        if index.pre <= cut < index.end and device.axis in axes:
            return device.axis, device.pre * (cut // index.pre)
    return None


class Layouts:
    """Some layouts of one shape; per dimension the ways to own it that they have, numbered."""

    def __init__(self, layouts: Sequence[Layout]) -> None:
        self.ways: list[list[Held]] = []
        self.number: list[Ints] = []
        for dim in zip(*layouts, strict=True):
            known = {held: n for n, held in enumerate(dict.fromkeys(dim))}
            self.ways.append(list(known))
            self.number.append(np.array([known[held] for held in dim]))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds from below on the seconds of redistributions of one array, of `size` bytes in all.

    `by_bandwidth`: the axes that are no faster than a bandwidth, slowest first, each with it and
    the devices of a group; `by_latency`: those with at least a latency, the largest first.
    """

    size: int
    by_bandwidth: tuple[tuple[Axes, float, int], ...]
    by_latency: tuple[tuple[Axes, float], ...]

    @classmethod
    def of(cls, t: ArrayType, profile: Profile) -> Bounds:
        """The bounds for an array under a profile that is resolved for its mesh."""
        links = {axis.axis: profile.fastest_over(axis, t.mesh) for axis in whole_axes(t.mesh)}
        sizes = t.mesh.sizes
        by_bandwidth = []
        for bandwidth in sorted({link.bandwidth for link in links.values()}):
            axes = frozenset(a for a, link in links.items() if link.bandwidth <= bandwidth)
            group = t.mesh.num_devices // prod(sizes[a] for a in axes)
            by_bandwidth.append((axes, bandwidth, group))
        latencies = sorted({link.latency for link in links.values()}, reverse=True)
        by_latency = [
            (frozenset(a for a, link in links.items() if link.latency >= latency), latency)
            for latency in latencies
        ]
        return cls(t.size * t.itemsize, tuple(by_bandwidth), tuple(by_latency))

    def between(self, src: ArrayType, dst: ArrayType) -> float:
        """`seconds` of one pair."""
        start, end = Layouts([layout_of(src)]), Layouts([layout_of(dst)])
        return float(self.seconds(start, end, FIRST, FIRST)[0])

    def seconds(self, srcs: Layouts, dsts: Layouts, rows: Ints, columns: Ints) -> Floats:
        """Per pair of a row of `srcs` and a column of `dsts` what no sequence of collectives beats.

        Rows and columns broadcast.
        """
        dims = []
        for dim, (befores, afters) in enumerate(zip(srcs.ways, dsts.ways, strict=True)):
            pair = srcs.number[dim][rows] * len(afters) + dsts.number[dim][columns]
            met, which = np.unique(pair, return_inverse=True)
            ways = [(befores[n // len(afters)], afters[n % len(afters)]) for n in met.tolist()]
            dims.append((ways, which.reshape(pair.shape)))
        seconds: Floats = np.zeros(np.broadcast(rows, columns).shape)
        crossed, latency = seconds, seconds
        all_axes = {axes for axes, _, _ in self.by_bandwidth} | {
            axes for axes, _ in self.by_latency
        }
        received = {axes: self._bytes(dims, axes) for axes in all_axes}
        for axes, bandwidth, group in self.by_bandwidth:
            crossing = received[axes] / group
            more = crossing > crossed
            seconds = seconds + np.where(more, (crossing - crossed) / bandwidth, 0.0)
            crossed = np.where(more, crossing, crossed)
        for axes, least in reversed(self.by_latency):
            latency = np.where(received[axes] != 0, least, latency)
        return np.where(crossed != 0, (seconds + latency) / GAIN, 0.0)

    def _bytes(self, dims: Sequence[tuple[list[tuple[Held, Held]], Ints]], axes: Axes) -> Floats:
        """Per pair what a group of devices that agree on these axes gets from others."""
        parts, kept = np.ones(1, dtype=np.int64), np.ones(1)
        for ways, which in dims:
            of_ways = [_crossing(before, after, axes) for before, after in ways]
            parts = parts * np.array([cut for cut, _ in of_ways])[which]
            kept = kept * np.array([part for _, part in of_ways])[which]
        return np.asarray(self.size * (1 - kept) / parts)


@lru_cache(maxsize=1 << 14)
def _stop(
    mesh: Mesh, shape: tuple[int, ...], axes: tuple[str, ...], dtype: str, number: int
) -> ArrayType:
    """A layout of whole axes as a type."""
    placements = [p for held in stops(mesh, shape, axes)[number] for p in held]
    return ArrayType.from_placements(mesh, dtype, shape, placements)


@lru_cache(maxsize=64)
def _layouts_of_stops(mesh: Mesh, shape: tuple[int, ...], axes: tuple[str, ...]) -> Layouts:
    return Layouts(stops(mesh, shape, axes))


def stop_types(
    mesh: Mesh, shape: tuple[int, ...], axes: tuple[str, ...], dtype: str
) -> tuple[ArrayType, ...]:
    """The stops of an array."""
    count = len(stops(mesh, shape, axes))
    return tuple(_stop(mesh, shape, axes, dtype, n) for n in range(count))


def find_stop(
    src: ArrayType, dst: ArrayType, seconds: float, bounds: Bounds, most: int, price: Price
) -> tuple[ArrayType, ...]:
    """A layout to stop at where that takes less than `seconds`: but for NEAR the cheapest one.

    A stop has tiles of at most `most` bytes.
    """
    mesh, shape, axes = src.mesh, src.shape, axes_of_stops(src, dst)
    start, end = layout_of(src), layout_of(dst)
    layouts = stops(mesh, shape, axes)
    if not layouts:
        return ()
    between, each = _layouts_of_stops(mesh, shape, axes), np.arange(len(layouts))
    first = bounds.seconds(Layouts([start]), between, FIRST, each)
    second = bounds.seconds(between, Layouts([end]), each, FIRST)
    total = first + second
    order = np.lexsort((second, total))
    best = seconds
    chosen: tuple[ArrayType, ...] = ()
    for n in order[total[order] * NEAR < seconds].tolist():
        if layouts[n] in (start, end):
            continue
        if float(total[n]) * NEAR * GAIN >= best:
            break
        stop, onwards = _stop(mesh, shape, axes, src.dtype, n), float(second[n])
        if stop.tile_bytes > most or ((to := price(src, stop)) + onwards) * NEAR * GAIN >= best:
            continue
        through = to + price(stop, dst)
        if through * GAIN < best:
            best, chosen = through, (stop,)
    return chosen
