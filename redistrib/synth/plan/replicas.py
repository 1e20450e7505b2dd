"""Which replica serves whom, where no digits say it: misaligned components, and two meshes.

Example: x=3,y=2, `f32[6{y}] -> f32[6{x}]`. Tiles of 3 elements, each on three devices, become tiles
of 2. The receiver x=1,y=0 needs elements 2 and 3: it keeps its own 2 and gets 3 from one of the
three devices with y=1. x=1,y=1 likewise misses element 2; x=0,y=1 and x=2,y=0 miss two. Each is
served by the replica that gave least so far, the largest piece first, so no device sends more than
two elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heapreplace
from math import prod

import numpy as np

from redistrib.errors import LayoutError
from redistrib.synth.plan.tables import RoutingTable
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Positions,
    complement,
    digit_values,
    inside,
    weight,
)
from redistrib.types.mesh import home_positions, whole_axes
from redistrib.types.overlap import Meetings, held_and_needed, meetings, run_meetings
from redistrib.types.refinement import Component

MAX_ROUTED = 1 << 13
"""Pieces of a component that a table routes one by one, so that its replicas are evenly loaded."""
MAX_PIECES = 1 << 21
"""Pieces of a component that are counted."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What each sender gives in all, and keeps, in elements; the most senders of one receiver.

    `table` says who sends, where that is not said by digits.
    """

    table: RoutingTable | None
    served: Positions
    kept: Positions
    peers: int

    def loads(self) -> list[tuple[int, int]]:
        """Each amount that a sender gives in all, with the least that one of them keeps of it."""
        order = np.argsort(self.kept, kind="stable")
        order = order[np.argsort(self.served[order], kind="stable")]
        served = self.served[order]
        first = np.append(True, served[1:] != served[:-1])
        return [*zip(served[first].tolist(), self.kept[order[first]].tolist(), strict=True)]


@lru_cache(maxsize=16)  # asked where the exchange is proposed, and where its plan is made
def route_component(component: Component) -> Routed:
    """Routing of a misaligned component; elements are counted within the component.

    Of replicas the receiver itself serves, then the least loaded one. Where there are too many
    pieces for that, the one whose other digits are those of the receiver.
    """
    by_run = meetings(component)
    owners = tuple(device for device, _ in component.src)
    coordinates = np.arange(prod(axis.size for axis in component.axes))
    kept = held_and_needed(component, by_run)
    peers = senders_of(component, by_run)
    tiles = prod(owner.size for owner in owners)
    if tiles == len(coordinates):
        wanted = len(coordinates) // prod(device.size for device, _ in component.dst)
        tile = prod(run.size for run in component.dims) // tiles
        return Routed(None, np.full(len(coordinates), tile * wanted), kept, int(peers.max()))
    if peers.sum() <= MAX_ROUTED:
        targets = [digit_values(met.targets, coordinates, component.axes) for met in by_run]
        pieces = _pieces(by_run, targets, owners)
        held = digit_values(owners, coordinates, component.axes)
        return _route(pieces, held, coordinates, component.axes, owners)
    return Routed(None, _served_alike(component, by_run, owners), kept, int(peers.max()))


def senders_of(component: Component, by_run: Sequence[Meetings]) -> Positions:
    """How many source tiles each target tile meets, per coordinate over the axes."""
    coordinates = np.arange(prod(axis.size for axis in component.axes))
    count = np.ones_like(coordinates)
    for met in by_run:
        count *= np.bincount(met.needed)[digit_values(met.targets, coordinates, component.axes)]
    return count


def _served_alike(
    component: Component, by_run: Sequence[Meetings], owners: tuple[DeviceDigit, ...]
) -> Positions:
    """What each sender gives where it serves the receivers that are like it in its free digits.

    Where the targets of two runs share no axis, what a receiver needs in the one says nothing of
    the other: pieces are counted for such groups of runs apart, and what is given is their product.
    """
    coordinates = np.arange(prod(axis.size for axis in component.axes))
    served = np.ones_like(coordinates)
    remaining = list(component.axes)
    for axes, runs in _apart(component.axes, by_run):
        mine = [[d for d in owners if inside(d, axis)] for axis in axes]
        free = [d for used, axis in zip(mine, axes, strict=True) for d in complement(used, axis)]
        held = tuple(digit for met in runs for digit in met.owners)
        tiles = prod(digit.size for digit in held)
        receivers = np.arange(prod(axis.size for axis in axes))
        of_receiver = [
            digit_values(digits, receivers, axes)
            for digits in (free, *(met.targets for met in runs))
        ]
        (alike, *targets), counts = np.unique(of_receiver, axis=1, return_counts=True)
        row, values, sizes = _pieces(runs, targets, held)
        sent = np.zeros(prod(digit.size for digit in free) * tiles, np.int64)
        np.add.at(sent, alike[row] * tiles + values, sizes * counts[row])
        served *= sent[digit_values((*free, *held), coordinates, component.axes)]
        remaining = [axis for axis in remaining if axis not in axes]
    return served * prod(d.size for d in owners if any(inside(d, axis) for axis in remaining))


def _apart(
    axes: Sequence[DeviceDigit], by_run: Sequence[Meetings]
) -> list[tuple[list[DeviceDigit], list[Meetings]]]:
    """The runs in groups that share no axis of their targets, each with these axes."""
    groups: list[tuple[list[DeviceDigit], list[Meetings]]] = []
    for met in by_run:
        mine, runs = {axis for axis in axes for d in met.targets if inside(d, axis)}, [met]
        for group in groups[:]:
            if mine.intersection(group[0]):
                groups.remove(group)
                mine, runs = mine.union(group[0]), group[1] + runs
        groups.append(([axis for axis in axes if axis in mine], runs))
    return groups


_Pieces = tuple[Positions, Positions, Positions]
"""Per piece the receiver that needs it, the value of the owners of its tile, and its elements."""


def _pieces(
    by_run: Sequence[Meetings], targets: Sequence[Positions], owners: tuple[DeviceDigit, ...]
) -> _Pieces:
    """What receivers need, by receiver and tile; `targets` are their target tiles in each run.

    Raises LayoutError for more than MAX_PIECES.
    """
    receiver = np.arange(len(targets[0]))
    values, sizes = np.zeros_like(receiver), np.ones_like(receiver)
    for met, codes in zip(by_run, targets, strict=True):
        ends = np.cumsum(np.bincount(met.needed))
        counts = np.diff(ends, prepend=0)[codes[receiver]]
        total = int(counts.sum())
        if total > MAX_PIECES:
            raise LayoutError(
                f"where no digits match, an exchange has at most {MAX_PIECES} pieces; got {total}",
                pieces=total,
            )
        entry = np.arange(total) + np.repeat(ends[codes[receiver]] - np.cumsum(counts), counts)
        remainder, number = met.held, np.zeros_like(met.held)
        for device in reversed(met.owners):
            number += remainder % device.size * weight(device, owners)
            remainder = remainder // device.size
        receiver, values, sizes = (np.repeat(x, counts) for x in (receiver, values, sizes))
        values, sizes = values + number[entry], sizes * met.sizes[entry]
    order = np.lexsort((values, receiver))
    return receiver[order], values[order], sizes[order]


def _route(
    pieces: _Pieces,
    held: Positions,
    senders: Positions,
    axes: tuple[DeviceDigit, ...],
    owners: tuple[DeviceDigit, ...],
) -> Routed:
    """Own piece first, then the least loaded replica, the largest piece first.

    `held` gives the value that each sender holds, `senders` which sender each receiver is, -1 for
    none. Ties go to the lowest coordinate.
    """
    receiver, values, sizes = pieces
    home = senders[receiver]
    mine = (home >= 0) & (held[home] == values)
    rows: list[dict[int, int]] = [{} for _ in senders]
    for a, value, b in np.stack([receiver, values, home])[:, mine].T.tolist():
        rows[a][value] = b
    kept = np.zeros(len(held), np.int64)
    kept[home[mine]] = sizes[mine]
    receiver, values, sizes = (x[~mine] for x in pieces)
    largest = np.argsort(-sizes, kind="stable")
    # A sender holds one value, so what it gave changes in the heap of that value alone, and of no
    # more replicas than there are pieces. The least loaded first, which is a heap.
    order = np.lexsort((kept, held))
    wanted, counts = np.unique(values, return_counts=True)
    starts = np.searchsorted(held[order], wanted)
    ends = np.searchsorted(held[order], wanted, side="right")
    heaps: dict[int, list[tuple[int, int]]] = {}
    for value, start, end in zip(
        wanted.tolist(), starts, np.minimum(ends, starts + counts), strict=True
    ):
        same = order[start:end]
        heaps[value] = list(zip(kept[same].tolist(), same.tolist(), strict=True))
    for a, value, size in np.stack([receiver, values, sizes])[:, largest].T.tolist():
        load, sender = heaps[value][0]
        rows[a][value] = sender
        heapreplace(heaps[value], (load + size, sender))
    loads = {b: load for heap in heaps.values() for load, b in heap}
    served = kept.astype(object if max(loads.values(), default=0) >= 1 << 62 else np.int64)
    served[list(loads)] = list(loads.values())
    table = RoutingTable(axes, owners, tuple(tuple(sorted(row.items())) for row in rows))
    most = max(len(row) for row in rows)
    return Routed(table, served, kept, most)


def route_across(src: ArrayType, dst: ArrayType) -> Routed:
    """Routing from a type to one on another mesh, over all positions of both."""
    owners = src.owners
    axes = whole_axes(src.mesh)
    held = digit_values(owners, np.arange(src.mesh.num_devices), axes)
    receivers = np.arange(dst.mesh.num_devices)
    by_run = [
        run_meetings(IndexDigit(dim, 1, n), src.placements, dst.placements)
        for dim, n in enumerate(src.shape)
    ] or [run_meetings(IndexDigit(0, 1, 1), (), ())]
    targets = [digit_values(met.targets, receivers, whole_axes(dst.mesh)) for met in by_run]
    homes = home_positions(src.mesh, dst.mesh)
    return _route(_pieces(by_run, targets, owners), held, homes, axes, owners)
