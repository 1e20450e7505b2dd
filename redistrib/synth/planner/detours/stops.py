"""Stops: where two plans in a row are cheaper than one (docs/oracle.md).

The layouts that give whole axes to dimensions are the stops. Bounds from below say whether a stop
can pay at all, and in which order to try them, so that few are priced.

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
def stops(mesh: Mesh, shape: tuple[int, ...]) -> tuple[Layout, ...]:
    """Every layout of whole axes; none where there are more than MAX_STOPS."""
    found: list[Layout] = []
    for layout in _layouts(mesh, shape):
        if len(found) == MAX_STOPS:
            return ()
        found.append(layout)
    return tuple(found)


def _layouts(mesh: Mesh, shape: tuple[int, ...]) -> Iterator[Layout]:
    axes = [(name, size) for name, size in mesh.axes if size > 1]
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
    pre, found = 1, []
    for name, size in axes:
        found.append((DeviceDigit(name, 1, size), IndexDigit(dim, pre, size)))
        pre *= size
    return tuple(found)


@lru_cache(maxsize=1 << 16)
def _crossing(one: Held, other: Held, axes: Axes) -> tuple[int, float]:
    """Of a dimension: in how many parts these axes cut the target, what a group keeps of its part.

    The group that keeps least; everything where digits do not match, since this is a bound.
    """
    parts = prod(device.size for device, _ in other if device.axis in axes)
    cuts = sorted({1, *(c for _, i in (*one, *other) for c in (i.pre, i.end))})
    if any(b % a for a, b in pairwise(cuts)):
        return parts, 1.0
    kept = 1.0
    for a, b in pairwise(cuts):
        before, after = _owner(one, a, axes), _owner(other, a, axes)
        if before is not None and before != after:
            kept = kept * a / b if after is None else 0.0
    return parts, kept


def _owner(held: Held, cut: int, axes: Axes) -> tuple[str, int] | None:
    """Who of these axes owns the digit at a cut of the dimension."""
    for device, index in held:
        if index.pre <= cut < index.end and device.axis in axes:
            return device.axis, device.pre * (cut // index.pre)
    return None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds from below on moves of one array.

    `by_bandwidth`: the axes that are no faster than a bandwidth, slowest first, each with it and
    the devices of a group; `by_latency`: those with at least a latency, the largest first.
    """

    size: int
    by_bandwidth: tuple[tuple[Axes, float, int], ...]
    by_latency: tuple[tuple[Axes, float], ...]

    @classmethod
    def of(cls, t: ArrayType, profile: Profile) -> Bounds:
        """The bounds for an array under a profile that is resolved for its mesh."""
        links = {axis.axis: profile.link_of(axis) for axis in whole_axes(t.mesh)}
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

    def seconds(self, src: Layout, dst: Layout) -> float:
        """No sequence of collectives from one layout to the other takes less."""
        seconds = before = 0.0
        for axes, bandwidth, group in self.by_bandwidth:
            crossing = self._bytes(src, dst, axes) / group
            if crossing > before:
                seconds += (crossing - before) / bandwidth
                before = crossing
        if not before:
            return 0.0
        latency = next(s for axes, s in self.by_latency if self._bytes(src, dst, axes))
        return (seconds + latency) / GAIN

    def _bytes(self, src: Layout, dst: Layout, axes: Axes) -> float:
        """What a group of devices that agree on these axes gets from others."""
        parts, kept = 1, 1.0
        for one, other in zip(src, dst, strict=True):
            of_dim = _crossing(one, other, axes)
            parts *= of_dim[0]
            kept *= of_dim[1]
        return self.size * (1 - kept) / parts


def stop_types(like: ArrayType) -> Iterator[tuple[Layout, ArrayType]]:
    """The stops of an array, each as a layout and as a type."""
    for layout in stops(like.mesh, like.shape):
        placements = [p for held in layout for p in held]
        yield layout, like.replace(placements=placements, partial=())


def find_stop(
    src: ArrayType, dst: ArrayType, seconds: float, bounds: Bounds, most: int, price: Price
) -> tuple[ArrayType, ...]:
    """A layout to stop at where that takes less than `seconds`: but for NEAR the cheapest one.

    A stop has tiles of at most `most` bytes.
    """
    start, end = layout_of(src), layout_of(dst)
    order = []
    for layout, stop in stop_types(src):
        first, second = bounds.seconds(start, layout), bounds.seconds(layout, end)
        if (first + second) * NEAR < seconds and layout not in (start, end):
            order.append((first + second, second, stop))
    best = seconds
    found: tuple[ArrayType, ...] = ()
    for least, rest, stop in sorted(order, key=lambda entry: entry[:2]):
        if least * NEAR * GAIN >= best:
            break
        if stop.tile_bytes > most or ((to := price(src, stop)) + rest) * NEAR * GAIN >= best:
            continue
        through = to + price(stop, dst)
        if through * GAIN < best:
            best, found = through, (stop,)
    return found
