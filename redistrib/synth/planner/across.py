"""Between two meshes: reduce on the source mesh, exchange across, gather on the target mesh.

Every element crosses once to each group of target replicas, which gather it among themselves. The
source needs no slice: its replicas take turns in the exchange.

Example: `f32[16{x}, 8] sum{y}` on x=2,y=4 to `f32[16, 8{z}]` on eight other devices, w=2,z=4. The
sum is scattered into `f32[16{x,y}, 8]`. Both values of w want each element, so the exchange makes
`f32[16{w}, 8{z}]`, and an all_gather over w the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redistrib.synth.plan.collectives import AllGather, Collective, DynamicSlice
from redistrib.synth.plan.profile import Profile
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.synth.planner.ordered import in_order
from redistrib.synth.planner.reductions import (
    fill_runs,
    local_runs,
    make_partial,
    partial_roles,
    reduce_partial,
)
from redistrib.synth.planner.relabel import relabelled
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, split_off


def plan_across(
    src: ArrayType, dst: ArrayType, links: tuple[Profile, Profile], *, spread: bool
) -> list[Collective]:
    """Steps between types on two meshes, all tiles within the larger of both ends.

    With `spread`, each of the target's replicas receives a part, where sizes divide, and gathers
    the others; without, each receives its tile. What is chosen does not depend on names and orders;
    `links` are those of the source mesh and of the target mesh.
    """
    (start, end), (of_src, of_dst) = in_order((src, dst), links)
    opening, crossed, closing = _beside_exchange(start, end, spread)
    opening = relabelled(src, opening, of_src)
    for step in opening:
        src = step.apply(src)
    received = dst.replace(placements=(), partial=())
    for step in relabelled(received, [DynamicSlice(crossed.placements)], of_dst):
        received = step.apply(received)
    exchange = exchange_traffic(src, received).exchange
    return [*opening, exchange, *relabelled(received, closing, of_dst)]


def _beside_exchange(
    src: ArrayType, dst: ArrayType, spread: bool
) -> tuple[Sequence[Collective], ArrayType, Sequence[Collective]]:
    """The steps before the exchange, the type that it makes, and the steps after it."""
    summed_src = src.replace(partial=())
    opening, start = reduce_partial(src, summed_src, partial_roles(src, summed_src))
    summed_dst = dst.replace(partial=())
    parts = _parts(summed_dst, start) if spread else ()
    middle = DynamicSlice(parts).apply(summed_dst)
    end, closing = make_partial(middle, dst, partial_roles(summed_dst, dst))
    gathered = _without(parts, end.owners)
    if not gathered:
        return opening, end, closing
    return opening, DynamicSlice(gathered).apply(end), [AllGather(gathered), *closing]


def _without(parts: Sequence[Placement], kept: Sequence[DeviceDigit]) -> tuple[Placement, ...]:
    """What is left of the parts when digits are taken out; what becomes partial keeps its part."""
    pieces = list(parts)
    for digit in kept:
        pieces = [piece for part in pieces for piece in _outside(part, digit)]
    return tuple(pieces)


def _outside(part: Placement, digit: DeviceDigit) -> Iterable[Placement]:
    low, high = max(digit.pre, part[0].pre), min(digit.end, part[0].end)
    if digit.axis != part[0].axis or low >= high:
        return (part,)
    return split_off(part, DeviceDigit(digit.axis, low, high // low))


def _parts(t: ArrayType, start: ArrayType) -> tuple[Placement, ...]:
    """What the replicas of a type can own: parts of its free digits, with local digits of it.

    First what somebody owns in `start`: such a part comes from few peers.
    """

    def apart_from_owners(run: IndexDigit) -> bool:
        return not any(
            run.dim == index.dim and run.pre < index.end and index.pre < run.end
            for _, index in start.placements
        )

    parts: list[Placement] = []

    def own(device: DeviceDigit, index: IndexDigit) -> bool:
        parts.append((device, index))
        return True

    for device in t.free_digits:
        runs = local_runs(DynamicSlice(tuple(parts)).apply(t))
        fill_runs(device, sorted(runs, key=apart_from_owners), own)
    return tuple(parts)
