"""The links of the parts of a mesh axis: inside which level they are, and on which ring of it.

Example: a level of 16x16 devices, ids 0 to 15 on a ring along the minor side. On `x=8,y=32` the
minor 16 positions of y are that ring; its major 2 are neighbours on the other ring, 16 ids apart,
and x, 32 ids apart, has the rest of it. So y has the links of `y:(1)2` and `y:(2)16`.

Law: device ids say where a digit lies, so an axis costs what its parts cost as axes of their own,
whatever the mesh calls them and in whatever order it has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd, lcm, prod

import numpy as np

from redistrib.synth.plan.links import Level, Link
from redistrib.types.digits import DeviceDigit, cut, divisors, weight
from redistrib.types.mesh import Mesh, whole_axes

Part = tuple[DeviceDigit, Link]


def links_by_level(
    levels: tuple[Level, ...], outside: Link, mesh: Mesh, axis: DeviceDigit
) -> list[tuple[str, Link]]:
    """The links along an axis, part by part: on 4 nodes of 8 devices, x=32 is 4 beside 8.

    Each by the name of its part, or of the axis where one link holds all of it.
    """
    links: list[Part] = []
    end, below = axis.size, 1
    for level in levels:
        start = axis.size // _inner(mesh, axis, level.devices)
        if start < end and end % start == 0:
            part = DeviceDigit(axis.axis, start, end // start)
            links += reversed([*_in_level(level, below, mesh, part)])
            end = start
        below = level.devices
    if end > 1:
        links.append((DeviceDigit(axis.axis, 1, end), outside))
    return [(axis.axis if part == axis else str(part), link) for part, link in reversed(links)]


def gaps(device: DeviceDigit, known: Iterable[Part], outside: Link) -> Iterator[Part]:
    """What lies beside the parts of an axis that have links, as far as one of its digits does."""
    start = 1
    for part, _ in sorted(known, key=lambda entry: entry[0].pre):
        if part.pre > start:
            yield DeviceDigit(device.axis, start, part.pre // start), outside
        start = part.end
    if device.end > start:
        yield DeviceDigit(device.axis, start, lcm(start, device.end) // start), outside


def _inner(mesh: Mesh, axis: DeviceDigit, group: int) -> int:
    """How many positions of an axis, its minor ones, are in one group of consecutive ids."""
    number = [name for name, _ in mesh.axes].index(axis.axis)
    stride = prod(size for _, size in mesh.axes[number + 1 :])
    if mesh.devices is None:
        # Each block of so many ids holds the lines that start in it from end to end. Where blocks
        # do not fit into groups, the first block that a group ends in has a line across that end.
        if mesh.num_devices <= group:
            return axis.size
        return gcd(axis.size, group // stride) if group % stride == 0 else 1
    groups = np.array(mesh.devices) // group
    for inner in reversed(divisors(axis.size)):
        lines = groups.reshape(-1, inner, stride)
        if (lines == lines[:, :1]).all():
            return inner
    return 1


def _in_level(level: Level, below: int, mesh: Mesh, part: DeviceDigit) -> Iterator[Part]:
    """The links of a part of an axis that is inside a level, major first.

    `below` are the devices of a group of the level below.
    """
    if not level.torus:
        yield part, level.anywhere
        return
    for digit, step in _straight(mesh, part):
        links = _on_rings(level, below, mesh, digit, step) if step else None
        yield from links or [(digit, level.aside(_passes(level, below, mesh, digit)))]


def _straight(mesh: Mesh, part: DeviceDigit) -> list[tuple[DeviceDigit, int]]:
    """A part of an axis as digits, major first, each with how many ids further its next value is.

    0 where that is not the same everywhere, as for devices in any order.
    """
    if mesh.devices is None:
        return [(part, weight(part, whole_axes(mesh)))]
    digits: list[tuple[DeviceDigit, int]] = []
    end = part.end
    while end > part.pre:
        for size in reversed(divisors(end // part.pre)):
            digit = DeviceDigit(part.axis, end // size, size)
            step = _step(mesh, digit)
            if step or size == 1:
                break
        if size == 1:  # no digit of ids, however small
            digits.append((DeviceDigit(part.axis, part.pre, end // part.pre), 0))
            break
        digits.append((digit, step))
        end = digit.pre
    return digits[::-1]


def _step(mesh: Mesh, digit: DeviceDigit) -> int:
    """How many ids further the next value of a digit is; 0 if that differs, or carries over."""
    inner = weight(digit, whole_axes(mesh))
    lines = np.array(mesh.devices).reshape(-1, digit.size, inner)
    steps = np.diff(lines, axis=1)
    step = int(steps.flat[0]) if steps.size else 0
    if step < 0:  # from the end of a ring to its start is as far
        lines, steps, step = lines[:, ::-1], -steps, -step
    if not step or (steps != step).any() or (lines[:, 0] // step % digit.size).any():
        return 0
    return step


def _on_rings(
    level: Level, below: int, mesh: Mesh, digit: DeviceDigit, step: int
) -> list[Part] | None:
    """A digit whose values are so many ids apart, cut where rings end; None if it does not fit."""
    starts = [below * prod(level.torus[n + 1 :]) for n in range(len(level.torus))]
    inside = [start for start in starts if step < start < step * digit.size]
    if any(start % step or step * digit.size % start for start in inside):
        return None
    links: list[Part] = []
    for part in cut(digit, [digit.end // (start // step) for start in inside]):
        first = step * (digit.end // part.end)
        ring = next((n for n, start in enumerate(starts) if start <= first), None)
        if ring is None or first % starts[ring]:
            return None
        ids, reach = starts[ring] * level.torus[ring], first * part.size // starts[ring]
        if ids % (first * part.size) and not _within(mesh, part, ids):
            return None
        links.append((part, level.along(ring, reach)))
    return links


def _passes(level: Level, below: int, mesh: Mesh, digit: DeviceDigit) -> int:
    """How many links a message along a digit passes at most, from how far its lines go."""
    # In order, ids beyond a group of the level are as those in it.
    count = min(mesh.num_devices, level.devices)
    ids = np.arange(count) if mesh.devices is None else np.array(mesh.devices)
    lines = ids.reshape(-1, digit.size, weight(digit, whole_axes(mesh))) // below
    spans = []
    for side in reversed(level.torus):
        spans.append(int(np.ptp(lines % side, axis=1).max(initial=0)))
        lines = lines // side
    return level.passes(reversed(spans))


def _within(mesh: Mesh, digit: DeviceDigit, group: int) -> bool:
    """Whether each line along a digit is in one group of so many consecutive ids.

    The digit does not divide the group, so of ids in order the first line that is not ends there.
    """
    if mesh.devices is None:
        return mesh.num_devices <= group
    inner = weight(digit, whole_axes(mesh))
    groups = np.array(mesh.devices).reshape(-1, digit.size, inner) // group
    return bool((groups == groups[:, :1]).all())


def link_between(levels: tuple[Level, ...], outside: Link, mesh: Mesh, other: Mesh) -> Link:
    """The link from one mesh to another: that of the first level that holds all their devices."""
    ids = [(0, m.num_devices - 1) if m.devices is None else m.devices for m in (mesh, other)]
    first, last = min(map(min, ids)), max(map(max, ids))
    held = (level.anywhere for level in levels if first // level.devices == last // level.devices)
    return next(held, outside)
