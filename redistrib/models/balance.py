"""Who serves first, so that replicas share the sending of a whole model evenly.

Every copy is served by the replicas of its source in turn. Where it has more pieces than replicas
all give the same; what is left over falls on those at its beginning. Take 4 replicas of three
arrays, of 4, 2 and 2 MiB, each in one piece: the first is served by replica 0, the second by
replica 1, the third by 2. So it is with replicas of a target that pass pieces on to the others.

Law: largest pieces first, each begins where the least has been given so far. Every rank derives the
same, from the plan alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from redistrib.models.schedule import Route, Turn
from redistrib.models.tiles import Tiles


class Crossing(NamedTuple):
    """A route between the tiles of a source and of a target, and whose turn it is."""

    route: Route
    source: Tiles
    target: Tiles
    turn: Turn


def balanced(routes: Sequence[tuple[Route, Tiles, Tiles]]) -> list[Crossing]:
    """The routes, each with its turn."""
    shares = _Shares()
    sizes = [route.part_bytes for route, _, _ in routes]
    turns = [Turn()] * len(routes)
    for n in sorted(range(len(routes)), key=sizes.__getitem__, reverse=True):
        route, source, target = routes[n]
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
