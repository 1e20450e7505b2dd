"""Bytes that every device takes in and gives away in a copy, for all devices at once.

The counts are those of the deliveries of `redistrib.models.schedule`, without making them: digits
give each position of the target's mesh its elements, its own part, and the senders of the rest.
From w: f32[8{x}] on 2 devices to f32[8] on 2 others, each target receives 8 elements; where it may
pass on, each source sends 4 once and each target relays the 4 that it got to the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.models.copies import Copy
from redistrib.models.schedule import Route, Turn
from redistrib.models.tiles import Tiles
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import home_positions

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Load:
    """Elements by position: received on the target's mesh, sent on the source's, relayed."""

    received: Counts
    sent: Counts
    relayed: Counts

    def turned(self, route: Route, turn: Turn) -> Load:
        """The load where other replicas begin: the same, given by those so many further."""
        return Load(
            self.received,
            _turned(route.source, self.sent, turn),
            _turned(route.target, self.relayed, Turn(turn.relaying)),
        )


def routed(copy: Copy, source: Tiles, target: Tiles, least_part: int, *, apart: bool) -> Route:
    """The route of a copy: where some that want a piece hold it, cut for those that take it."""
    route = Route(copy, source, target, least_part, apart=apart)
    if not apart and source.replicas > 1:
        counted = [np.bincount(base[takes]).max(initial=0) for base, takes in _pieces(route)]
        takers = int(max(counted, default=0))
        if 0 < takers < route.served // route.parts:
            return Route(copy, source, target, least_part, apart=apart, takers=takers)
    return route


def load_of(route: Route) -> Load:
    """What the deliveries of a route add up to, where the first replicas begin."""
    source, target = route.source, route.target
    positions = np.arange(len(target.ids))
    known, _ = solved(route, positions)
    home = home_positions(source.type.mesh, target.type.mesh)
    of_own = replicas_of(source, np.maximum(home, 0))
    received = np.zeros(len(positions), np.int64)
    sent = np.zeros(len(source.ids), np.int64)
    relayed = np.zeros(len(positions), np.int64)
    piece = prod(d.size for d in route.inside if d.source.stride)
    share = piece // route.parts
    replica = replicas_of(target, positions)
    offsets = np.array(source.offsets)
    fan = np.zeros(len(positions), np.int64)
    for digit in route.fans:
        fan = fan * digit.size + known[id(digit)]
    servers = []  # by part, how far from the first holder of a piece whoever gives it is
    for part in range(route.parts):
        item = (fan * route.receivers + replica % route.receivers) * route.parts + part
        item = np.where(home >= 0, of_own + part * route.part_step, item)
        servers.append(offsets[item % source.replicas])
    for number, (base, takes) in enumerate(_pieces(route)):
        received += piece * takes
        for part, server in enumerate(servers):
            crossing = takes
            if route.relays:
                relay = (part + number * route.parts) % target.replicas
                crossing = takes & (replica == relay)
                relayed += share * (target.replicas - 1) * crossing
            sender = base + server
            sent += share * np.bincount(sender[crossing], minlength=len(sent))
    return Load(received, sent, relayed)


def _pieces(route: Route) -> Iterator[tuple[Counts, NDArray[np.bool_]]]:
    """For each piece and position of the target: its first holder, and whether it has to come."""
    source, target = route.source, route.target
    positions = np.arange(len(target.ids))
    home = home_positions(source.type.mesh, target.type.mesh)
    known, part_of = solved(route, positions)
    wanted = part_of & holds_value(target, positions)
    owners = [
        (owner, first, coordinate(source, owner, np.maximum(home, 0)), source.weight(owner))
        for owner, first in route.copy.source.coordinates
    ]
    for values in product(*(range(d.size) for d in route.pieces)):
        base, kept = np.zeros(len(positions), np.int64), home >= 0
        for owner, first, at_home, weight in owners:
            value = first + walked(route, known, values, owner)
            base += value * weight
            kept &= at_home == value
        yield base, wanted & ~kept


def solved(route: Route, positions: Counts) -> tuple[dict[int, Counts], NDArray[np.bool_]]:
    """The counts of the digits that walk the target's coordinates, and where there are any."""
    known: dict[int, Counts] = {}
    possible = np.ones(len(positions), bool)
    for owner, first in route.copy.target.coordinates:
        remainder = coordinate(route.target, owner, positions) - first
        possible &= remainder >= 0
        digits = [d for d in (*route.fans, *route.ranks) if d.target.owner == owner]
        for digit in sorted(digits, key=lambda d: -d.target.stride):
            count = np.minimum(np.maximum(remainder, 0) // digit.target.stride, digit.size - 1)
            known[id(digit)] = count
            remainder = remainder - count * digit.target.stride
        possible &= remainder == 0
    return known, possible


def walked(
    route: Route, known: dict[int, Counts], values: tuple[int, ...], owner: DeviceDigit
) -> Counts | int:
    """How far the digits walk a coordinate of the source."""
    walked: Counts | int = 0
    for digit in route.ranks:
        if digit.source.owner == owner:
            walked = walked + known[id(digit)] * digit.source.stride
    for digit, value in zip(route.pieces, values, strict=True):
        if digit.source.owner == owner:
            walked = walked + value * digit.source.stride
    return walked


def coordinate(tiles: Tiles, digit: DeviceDigit, positions: Counts) -> Counts:
    """The values of a digit at positions."""
    return positions // tiles.weight(digit) % digit.size


def holds_value(tiles: Tiles, positions: Counts) -> NDArray[np.bool_]:
    """Whether positions hold the value of a partial type, and not the identity."""
    holds = np.ones(len(positions), bool)
    for digit in tiles.partial:
        holds &= coordinate(tiles, digit, positions) == 0
    return holds


def replicas_of(tiles: Tiles, positions: Counts) -> Counts:
    """The numbers of positions among those that hold the same tile."""
    number = np.zeros_like(positions)
    for digit in tiles.free:
        number = number * digit.size + coordinate(tiles, digit, positions)
    return number


def _turned(tiles: Tiles, counts: Counts, turn: Turn) -> Counts:
    """What replicas send at turn 0, sent by the replicas of another turn."""
    if not (turn.serving or turn.deal):
        return counts
    positions = np.arange(len(tiles.ids))
    replica, offsets = replicas_of(tiles, positions), np.array(tiles.offsets)
    server = np.array([turn.server(n, tiles.replicas) for n in range(tiles.replicas)])
    result = np.zeros_like(counts)
    np.add.at(result, positions - offsets[replica] + offsets[server[replica]], counts)
    return result
