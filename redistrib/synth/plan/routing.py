"""The exchange between two types: who sends what to whom, and how much.

Law: receiving from itself what it already holds, the device with the least own overlap receives the
lower bound, target tile minus own part (docs/theory.md, section 4), and on aligned pairs every
device sends as much as it receives.

Example: on x=2,y=4, `f32[8{x}, 8] -> f32[8, 8{x}]`. A device keeps the 16 elements of its rows that
are in its columns, and receives the other 16 from the device with the other x and its own y.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from redistrib.synth.plan.collectives import CollectivePermute, Exchange
from redistrib.synth.plan.crossing import crossing
from redistrib.synth.plan.replicas import (
    MAX_ROUTED,
    Routed,
    route_across,
    route_component,
    senders_of,
)
from redistrib.synth.plan.tables import table_senders
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Positions, digit_values, with_digits
from redistrib.types.mesh import Mesh, home_positions, whole_axes
from redistrib.types.overlap import held_and_needed, least_overlap, meetings, min_overlap
from redistrib.types.refinement import Component, Refinement, refine


@dataclass(frozen=True, slots=True)
class Traffic:
    """An exchange with the elements that the worst device receives and sends, and its peers."""

    exchange: Exchange
    received: int
    sent: int
    peers: int


def lower_bound(src: ArrayType, dst: ArrayType, refinement: Refinement | None = None) -> int:
    """Elements that the worst device must receive, without partial axes to reduce.

    Target tile minus the product over components of the least own overlap.

    >>> from redistrib.types.mesh import Mesh
    >>> mesh = Mesh(x=4)
    >>> lower_bound(ArrayType.parse("f32[8{x}]", mesh), ArrayType.parse("f32[8]", mesh))
    6
    """
    refinement = refinement or refine(src, dst)
    if refinement.aligned:
        return exchange_size(dst, refinement)[0]
    return dst.tile_size - least_overlap(dst, refinement.components())


def exchange_traffic(
    src: ArrayType, dst: ArrayType, refinement: Refinement | None = None
) -> Traffic:
    """The exchange that turns `src` into `dst`, on one mesh with the same partial set, or on two.

    Between two meshes the arrays are not partial.
    """
    if src.mesh != dst.mesh:
        return _traffic_across(src, dst)
    if not dst.size:  # nobody asks anybody for anything
        return Traffic(Exchange(dst.placements), 0, 0, 0)
    refinement = refinement or refine(src, dst)
    components = refinement.components()
    replicas: list[tuple[DeviceDigit, DeviceDigit]] = []
    tables: list[Routed] = []
    peers = 1
    for component in components:
        if component.aligned:
            pairs, senders = _route_digits(component)
            replicas += pairs
            peers *= senders
        else:
            tables.append(route_component(component))
            peers *= tables[-1].peers
    routing_tables = tuple(routed.table for routed in tables if routed.table is not None)
    exchange = Exchange(dst.placements, tuple(replicas), routing_tables)
    overlap = least_overlap(dst, components)
    # Aligned components serve every device alike, so only the misaligned ones are enumerated.
    kept = 1
    for component in components:
        if component.aligned:
            kept *= min_overlap(component)
    aligned_size = prod(
        prod(run.size for run in c.dims) // prod(i.size for _, i in c.dst)
        for c in components
        if c.aligned
    )
    outside = dst.size // prod(run.size for c in components for run in c.dims) if dst.size else 0
    loads = {(aligned_size * outside, kept * outside)}
    for routed in tables:
        loads = {(a * s, b * k) for a, b in loads for s, k in routed.loads()}
    sent = max(a - b for a, b in loads)
    return Traffic(exchange, dst.tile_size - overlap, sent, peers)


def exchange_size(dst: ArrayType, refinement: Refinement) -> tuple[int, int]:
    """Elements that the worst device receives in the exchange of a pair on one mesh, and its peers.

    What `exchange_traffic` says of it, without saying who serves whom.
    """
    if not refinement.aligned:
        overlap = dst.size // prod(r.size for c in refinement.components() for r in c.dims)
        peers = 1
        for component in refinement.components():
            if component.aligned:
                overlap *= min_overlap(component)
                peers *= _route_digits(component)[1]
            else:
                by_run = meetings(component)
                overlap *= int(held_and_needed(component, by_run).min())
                peers *= int(senders_of(component, by_run).max())
        return dst.tile_size - overlap, peers
    owner = {index: device for device, index in refinement.dst.items()}
    gathered, swapped = 1, False
    for device, index in refinement.src.items():
        now = owner.get(index)
        if now is None:
            gathered *= index.size
        elif now != device:  # some device has nothing of what it needs
            swapped = True
    return dst.tile_size - (0 if swapped else dst.tile_size // gathered), gathered


@lru_cache(maxsize=16)
def _traffic_across(src: ArrayType, dst: ArrayType) -> Traffic:
    """By digits; by a table where that shares the sending better, and there is little of it."""
    if not src.size:
        return Traffic(Exchange(dst.placements, mesh=dst.mesh), 0, 0, 0)
    summary = crossing(src, dst)
    uneven = not summary.shared or src.mesh.shares_devices(dst.mesh)
    if uneven and dst.mesh.num_devices * summary.peers <= MAX_ROUTED:
        return _traffic_by_table(src, dst)
    exchange = Exchange(dst.placements, summary.replicas, (), dst.mesh)
    return Traffic(exchange, summary.received, summary.sent, summary.peers)


def _traffic_by_table(src: ArrayType, dst: ArrayType) -> Traffic:
    routed = route_across(src, dst)
    assert routed.table is not None
    homes = home_positions(src.mesh, dst.mesh)
    received = dst.tile_size - int(np.where(homes >= 0, routed.kept[homes], 0).min())
    sent = int((routed.served - routed.kept).max())
    return Traffic(
        Exchange(dst.placements, (), (routed.table,), dst.mesh), received, sent, routed.peers
    )


def _route_digits(component: Component) -> tuple[list[tuple[DeviceDigit, DeviceDigit]], int]:
    """Replica choice of an aligned component, and the number of senders per receiver.

    The receiver's value of digit d is the index digit that d owns in the target. Following "owner
    in the source of the index digit that d owns in the target" from digit to digit makes chains; a
    chain that starts at a digit free in the source ends at a digit whose value nobody asks for, and
    taking that value makes the routing a bijection: every replica serves the same amount.
    """
    owner = {index: device for device, index in component.src}
    owned_before = dict(component.src)
    owned_after = dict(component.dst)
    pairs = []
    for first in owned_after:
        if first in owned_before:
            continue
        last = first
        while (index := owned_after.get(last)) is not None and index in owner:
            last = owner[index]
        if last != first:
            pairs.append((first, last))
    gathered: list[IndexDigit] = [i for i in owner if i not in owned_after.values()]
    return pairs, prod(index.size for index in gathered)


def permute_sources(mesh: Mesh, step: CollectivePermute) -> Positions:
    """For every position, the position that it receives its tile from."""
    if step.table is not None:
        return table_senders(step.table, mesh)
    positions, axes = np.arange(mesh.num_devices), whole_axes(mesh)
    # Where `new` has a value now, `old` had it before.
    values = digit_values([new for _, new in step.routes], positions, axes)
    return with_digits(positions, [old for old, _ in step.routes], values, axes)
