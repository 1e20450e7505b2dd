"""Who serves first, so that replicas share the sending of a whole model evenly.

Every copy is served by the replicas of its source in turn. Where it has more pieces than replicas
all give the same; what is left over falls on those at its beginning. Take 4 replicas of three
arrays, of 4, 2 and 2 MiB, each in one piece: the first is served by replica 0, the second by
replica 1, the third by 2. So it is with replicas of a target that pass pieces on to the others.

Where some devices are on both sides, those that hold a piece take none, and what replicas give
depends on which they are: of the first few turns that with the least for the worst device is taken.

Law: largest pieces first, each begins where the least has been given so far. Every rank derives the
same, from the plan alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from redistrib.models.loads import Counts, Load, load_of
from redistrib.models.schedule import Route, Turn, narrowest
from redistrib.models.tiles import Tiles
from redistrib.types.dtypes import itemsize

MAX_TURNS = 8
"""Turns that are tried for one array."""
MAX_SHIFTS = 4
"""How often the next array of the same route tries others."""


class Crossing(NamedTuple):
    """A route between the tiles of a source and of a target, and whose turn it is."""

    route: Route
    source: Tiles
    target: Tiles
    turn: Turn


def balanced(routes: Sequence[tuple[Route, Tiles, Tiles]]) -> list[Crossing]:
    """The routes, each with its turn."""
    shares, given = _Shares(), _Given()
    sizes = [route.part_bytes for route, _, _ in routes]
    turns = [Turn()] * len(routes)
    for n in sorted(range(len(routes)), key=sizes.__getitem__, reverse=True):
        route, source, target = routes[n]
        if not route.apart:
            turns[n] = given.turn(route)
            continue
        serving, relaying = route.served % source.replicas, route.relayed % target.replicas
        if serving or relaying:
            turns[n] = Turn(
                _next(shares.of(source), serving, sizes[n]) if serving else 0,
                _next(shares.of(target), relaying, sizes[n]) if relaying else 0,
            )
    made: dict[object, Crossing] = {}  # one object for those that are equal: layers share them
    return [
        made.setdefault((*map(id, route), turn), Crossing(*route, turn))
        for route, turn in zip(routes, turns, strict=True)
    ]


class _Shares:
    """Bytes that each replica of a tile has given so far, by mesh and what the tile leaves free."""

    def __init__(self) -> None:
        self._by_layout: dict[object, list[int]] = {}
        self._by_tiles: dict[int, list[int]] = {}

    def of(self, tiles: Tiles) -> list[int]:
        """The bytes by replica, to be added to."""
        share = self._by_tiles.get(id(tiles))
        if share is None:
            key = tiles.type.mesh, tiles.free
            share = self._by_layout.setdefault(key, [0] * tiles.replicas)
            self._by_tiles[id(tiles)] = share
        return share


class _Given:
    """Bytes that each device has given so far, of routes whose two ends share devices."""

    def __init__(self) -> None:
        self._bytes: dict[frozenset[int], Counts] = {}  # by set of devices, ascending
        self._places: dict[tuple[int, ...], Counts] = {}
        self._turned: dict[tuple[int, int], Counts] = {}
        self._loads: dict[int, tuple[Load, int]] = {}

    def turn(self, route: Route) -> Turn:
        """The turn of a few with which the worst device of the source gives least."""
        ids = route.source.ids
        load, number = self._loads.get(id(route)) or (load_of(route), 0)
        self._loads[id(route)] = load, number + 1
        given = self._bytes.setdefault(frozenset(ids), np.zeros(len(ids), np.int64))
        place = self._places.setdefault(ids, np.argsort(np.argsort(ids)))
        tried = []
        for turn in self._turns(route, load, number):
            after = given[place] + self._sent(route, load, turn)
            tried.append((int(after.max()), int((after == after.max()).sum()), turn))
        turn = min(tried)[2]
        given[place] += self._sent(route, load, turn)
        return Turn(turn)

    def _turns(self, route: Route, load: Load, number: int) -> list[int]:
        """Turns to try for the array of that number on a route: the first, where all are alike."""
        replicas = route.source.replicas
        if np.array_equal(self._sent(route, load, 1), self._sent(route, load, 0)):
            return [0]
        step = max(1, replicas // MAX_TURNS)
        return [
            (number % MAX_SHIFTS + n * step) % replicas for n in range(min(MAX_TURNS, replicas))
        ]

    def _sent(self, route: Route, load: Load, turn: int) -> Counts:
        key = id(route), turn
        if key not in self._turned:
            width = itemsize(narrowest(route.copy.dtypes))
            self._turned[key] = load.turned(route, Turn(turn)).sent * width
        return self._turned[key]


def _next(share: list[int], count: int, bytes_: int) -> int:
    """The first of so many replicas in a row that have given least, who now give these bytes."""
    if count == 1:
        first = share.index(min(share))
        share[first] += bytes_
        return first
    around = [*share, *share[: count - 1]]
    sums, total = [], sum(around[:count])
    for n in range(len(share)):
        sums.append(total)
        total += (around[n + count] if n + count < len(around) else 0) - around[n]
    first = sums.index(min(sums))
    for n in range(count):
        share[(first + n) % len(share)] += bytes_
    return first
