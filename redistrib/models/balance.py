"""Who serves first, so that replicas share the sending of a whole model evenly.

Every copy is served by the replicas of its source in turn. Where it has more pieces than replicas
all give the same; what is left over falls on those at its beginning. Take 4 replicas of three
arrays, of 4, 2 and 2 MiB, each in one piece: the first is served by replica 0, the second by
replica 1, the third by 2. So it is with replicas of a target that pass pieces on to the others.

Where replicas have given more than one such array moves, for arrays that fewer devices have, the
others serve: those that have given least are dealt the numbers of replicas with most to give.

Law: copies with fewest replicas first, and of these the largest pieces; each begins where the least
has been given so far. Every rank derives the same, from the plan alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from typing import NamedTuple

import numpy as np

from redistrib.models.loads import Counts, load_of, replicas_of
from redistrib.models.schedule import Route, Turn, narrowest
from redistrib.models.tiles import Tiles
from redistrib.types.dtypes import itemsize

UNEVEN = 32
"""Replicas of which some have given more by this part of the most take other than equal shares."""
MAX_TURNS = 8
"""Turns that are tried for one array where some devices are on both sides."""


class Crossing(NamedTuple):
    """A route between the tiles of a source and of a target, and whose turn it is."""

    route: Route
    source: Tiles
    target: Tiles
    turn: Turn


def balanced(routes: Sequence[tuple[Route, Tiles, Tiles]]) -> list[Crossing]:
    """The routes, each with its turn."""
    account = _Account(routes)
    turns = [Turn()] * len(routes)
    order = [(source.replicas, -route.part_bytes) for route, source, _ in routes]
    for n in sorted(range(len(routes)), key=order.__getitem__):
        turns[n] = account.turn(*routes[n])
    unique: dict[object, Crossing] = {}  # one object for those that are equal: layers share them
    return [
        unique.setdefault((*map(id, route), turn), Crossing(*route, turn))
        for route, turn in zip(routes, turns, strict=True)
    ]


class _Side:
    """What one side of a route gives at turn 0: bytes by replica [row] and tile [column].

    `positions` are those of the replicas; of the tiles, those that give something. `most` is by
    replica; `extra`, of the first of them, is how many give most, where the others give one part
    less.
    """

    def __init__(self, tiles: Tiles, counts: Counts) -> None:
        numbers = np.arange(len(tiles.ids))
        first = numbers[replicas_of(tiles, numbers) == 0]
        positions = first[None, :] + np.array(tiles.offsets)[:, None]
        giving = counts[positions].any(axis=0)
        self.replicas = tiles.replicas
        self.positions = positions[:, giving]
        self.bytes = counts[self.positions]
        self.most = self.bytes.max(axis=1, initial=0)
        self.extra = int((self.most > self.most.min()).sum())


class _Account:
    """Bytes that each device has given so far."""

    def __init__(self, routes: Sequence[tuple[Route, Tiles, Tiles]]) -> None:
        sides = {id(tiles): tiles for _, *ends in routes for tiles in ends}
        ids = {device for tiles in sides.values() for device in tiles.ids}
        self._place = {device: n for n, device in enumerate(sorted(ids))}
        self._given = np.zeros(len(ids), np.int64)
        self._sides: dict[int, tuple[_Side, _Side]] = {}
        self._devices: dict[tuple[int, int], Counts] = {}

    def turn(self, route: Route, source: Tiles, target: Tiles) -> Turn:
        """The turn of a route; the bytes that its devices send are added to their account."""
        if id(route) not in self._sides:
            load, width = load_of(route), itemsize(narrowest(route.copy.dtypes))
            self._sides[id(route)] = (
                _Side(source, load.sent * width),
                _Side(target, load.relayed * width),
            )
        source_side, target_side = self._sides[id(route)]
        turn = self._begun(source_side, self._of(source_side, source), route.apart)
        relaying = self._begun(
            target_side, self._of(target_side, target), True, deals=False
        ).serving
        return turn._replace(relaying=relaying)

    def _of(self, side: _Side, tiles: Tiles) -> Counts:
        """The numbers of the devices of a side, by replica and tile."""
        key = id(side), id(tiles)
        if key not in self._devices:
            ids = np.array([self._place[device] for device in tiles.ids])
            self._devices[key] = ids[side.positions]
        return self._devices[key]

    def _begun(self, side: _Side, devices: Counts, greedy: bool, *, deals: bool = True) -> Turn:
        """The replica that serves first, or the order in which they serve: least for the worst."""
        if not devices.size:
            return Turn()
        loads, begun = self._given[devices], Turn()
        if side.replicas > 1:
            so_far = loads.max(axis=1)
            most, least = int(so_far.max()), int(so_far.min())
            if deals and most - least > max(int(side.most.max()), most // UNEVEN):
                begun = Turn(deal=_dealt(so_far, side.most))
            elif side.extra:
                begun = Turn(self._first(side, loads, so_far, greedy))
        for n, replica in enumerate(begun.deal):
            loads[replica] += side.bytes[n]
        if not begun.deal:
            _add_turned(loads, side.bytes, begun.serving)
        self._given[devices] = loads
        return begun

    def _first(self, side: _Side, loads: Counts, so_far: Counts, greedy: bool) -> int:
        """The replica that serves first: the first of a run of replicas that have sent least."""
        if side.extra == 1:
            least = int(so_far.argmin())
        else:
            sums = np.concatenate(([0], so_far, so_far[: side.extra - 1])).cumsum()
            least = int((sums[side.extra :] - sums[: -side.extra]).argmin())
        if greedy:
            return least
        step = max(1, side.replicas // MAX_TURNS)
        tried = []
        for n in range(min(MAX_TURNS, side.replicas)):
            first = (least + n * step) % side.replicas
            after = loads.copy()
            _add_turned(after, side.bytes, first)
            tried.append((int(after.max()), int((after == after.max()).sum()), n, first))
        return min(tried)[-1]


def _add_turned(loads: Counts, bytes_: Counts, first: int) -> None:
    """Add the bytes that replicas send where the replica `first` serves first."""
    loads[first:] += bytes_[: len(bytes_) - first]
    loads[:first] += bytes_[len(bytes_) - first :]


def _dealt(loads: Counts, most: Counts) -> tuple[int, ...]:
    """For each replica's share, the largest first, the replica with least so far.

    >>> _dealt(np.array([9, 0, 1]), np.array([4, 4, 4]))
    (1, 2, 1)
    """
    deal = [0] * len(most)
    heap = [(so_far, n) for n, so_far in enumerate(loads.tolist())]
    heapify(heap)
    for n in sorted(range(len(most)), key=lambda n: -int(most[n])):
        so_far, deal[n] = heap[0]
        heapreplace(heap, (so_far + int(most[n]), deal[n]))
    return tuple(deal)
