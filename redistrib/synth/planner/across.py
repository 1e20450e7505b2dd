"""Between two meshes: reduce on the source mesh, exchange across, gather on the target mesh.

Every element crosses once to each group of target replicas, which gather it among themselves. The
source needs no slice: its replicas take turns in the exchange.
"""

from __future__ import annotations

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
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, piece_of, split_off


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
    gathered = list(parts)
    for device, _ in end.placements:  # what becomes partial keeps its part until then
        for at, part in enumerate(gathered):
            if piece_of(part, device) is not None:
                gathered[at : at + 1] = split_off(part, device)
                break
    gather = [AllGather(tuple(gathered))] if gathered else []
    return [*opening, exchange_traffic(start, middle).exchange, *gather, *closing]


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
