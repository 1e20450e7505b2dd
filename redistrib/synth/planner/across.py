"""Between two meshes: reduce on the source mesh, exchange across, gather on the target mesh.

Every element crosses once to each group of target replicas, which gather it among themselves. The
source needs no slice: its replicas take turns in the exchange.

Example: `f32[16{x}, 8] sum{y}` on x=2,y=4 to `f32[16, 8{z}]` on eight other devices, w=2,z=4. The
sum is scattered into `f32[16{x,y}, 8]`. Both values of w want each element, so the exchange makes
`f32[16{w}, 8{z}]`, and an all_gather over w the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import gcd

from redistrib.synth.plan.collectives import AllGather, Collective, DynamicSlice
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.synth.planner.reductions import (
    local_runs,
    make_partial,
    partial_roles,
    reduce_partial,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, split_off


def plan_across(src: ArrayType, dst: ArrayType, *, spread: bool) -> list[Collective]:
    """Steps between types on two meshes, all tiles within the larger of both ends.

    With `spread`, each of the target's replicas receives a part, where sizes divide, and gathers
    the others; without, each receives its tile.
    """
    unreduced = src.replace(partial=())
    opening, start = reduce_partial(src, unreduced, partial_roles(src, unreduced))
    whole = dst.replace(partial=())
    parts = _parts(whole) if spread else ()
    middle = DynamicSlice(parts).apply(whole)
    end, closing = make_partial(middle, dst, partial_roles(whole, dst))
    gathered = _without(parts, [device for device, _ in end.placements])
    if not gathered:
        return [*opening, exchange_traffic(start, end).exchange, *closing]
    crossed = DynamicSlice(gathered).apply(end)
    return [*opening, exchange_traffic(start, crossed).exchange, AllGather(gathered), *closing]


def _without(parts: Sequence[Placement], kept: Sequence[DeviceDigit]) -> tuple[Placement, ...]:
    """What is left of the parts when digits are taken out; what becomes partial keeps its part."""
    left = list(parts)
    for digit in kept:
        left = [rest for part in left for rest in _outside(part, digit)]
    return tuple(left)


def _outside(part: Placement, digit: DeviceDigit) -> Iterable[Placement]:
    low, high = max(digit.pre, part[0].pre), min(digit.end, part[0].end)
    if digit.axis != part[0].axis or low >= high:
        return (part,)
    return split_off(part, DeviceDigit(digit.axis, low, high // low))


def _parts(t: ArrayType) -> tuple[Placement, ...]:
    """What the replicas of a type can own: parts of its free digits, with local digits of it."""
    parts: list[Placement] = []
    for device in t.free_digits:
        rest = device
        for run in local_runs(DynamicSlice(tuple(parts)).apply(t)):
            size = gcd(rest.size, run.size)
            if size > 1:
                part = DeviceDigit(rest.axis, rest.pre, size)
                parts.append((part, IndexDigit(run.dim, run.pre, size)))
                rest = DeviceDigit(rest.axis, part.end, rest.size // size)
    return tuple(parts)
