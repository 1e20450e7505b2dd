"""In which order the arrays of a model move, and how much memory that takes.

A source is released whole after its last use, a target is allocated whole before its first. Two
arrays of source and target bytes (8 -> 2) and (2 -> 8) that move in this order hold
10, 12, 4, 12 bytes; in the other order 10, 18 at the worst.

Law: where each source feeds one target, first those that shrink, by ascending target + scratch,
then those that grow, by descending source + scratch, is the order with the least peak on one class
of devices. Where sources are shared, or classes of devices differ, a bounded search of the sets of
arrays that can have moved finds the order with the least peak, or what no order is below. Of orders
as good the one in which the targets were given is taken.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.int64]
"""By class of devices."""

MAX_SETS = 4096
"""Sets of arrays that the search looks at: all, of 12 arrays."""
MAX_SEARCHED = 64
"""Arrays that are searched; more are ordered by the law alone, on each class of devices."""
MAX_TRIED = 4000
"""Orders that are tried where it is cut off, each one exchange away from the best so far."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one array needs: bytes of its target and its scratch, and the numbers of its sources."""

    target: Bytes
    scratch: Bytes
    sources: tuple[int, ...]


class Order(NamedTuple):
    """Numbers of arrays, the most bytes on any class of devices, and what no order is below."""

    items: list[int]
    peak: int
    least: int


def alive_bytes(
    demands: Sequence[Demand], sources: Sequence[Bytes], order: Sequence[int], *, keep: bool
) -> Bytes:
    """Bytes alive while each array moves, without scratch, in that order: [array, class].

    All sources are there at first; `keep`: none is released.
    """
    last = {source: n for n, item in enumerate(order) for source in demands[item].sources}
    live = sum(sources, np.zeros_like(sources[0]) if len(sources) else 0)
    rows = []
    for n, item in enumerate(order):
        live = live + demands[item].target
        rows.append(live)
        for source in demands[item].sources:
            if last[source] == n and not keep:
                live = live - sources[source]
    return np.array(rows, np.int64).reshape(len(order), len(demands[0].target) if demands else 0)


def order_of(demands: Sequence[Demand], sources: Sequence[Bytes], *, keep: bool) -> Order:
    """An order of the least peak, so far as it was searched; see the law above."""
    if not demands:
        return Order([], 0, 0)
    board = _Board.of(demands, sources, keep=keep)
    original = best = list(range(len(demands)))
    least, peak = board.floor(), board.peak(original)
    for on in range(len(board.first)):
        if peak > least:
            best = min(best, board.by_law(on), key=board.peak)
            peak = board.peak(best)
    if board.law_holds:
        least = peak
    elif peak > least and len(demands) <= MAX_SEARCHED:
        order, below = _searched(board)
        least, best = max(least, below), min(best, order, key=board.peak)
        if board.peak(best) > least:
            best = _improved(board, best)
        peak = board.peak(best)
    return Order(original if board.peak(original) == peak else best, peak, least)


@dataclass(frozen=True, slots=True)
class _Board:
    """Demands as tables: [array, class], of the sources that several arrays use [source, class]."""

    first: Bytes  # alive before anything moves
    targets: Bytes
    scratch: Bytes
    released: Bytes  # with each array
    shared: Bytes
    uses: NDArray[np.int64]  # of shared sources, 1 where an array uses one: [array, source]
    kinds: list[int]  # arrays of one kind may change places in any order
    law_holds: bool

    @classmethod
    def of(cls, demands: Sequence[Demand], sources: Sequence[Bytes], *, keep: bool) -> _Board:
        classes = len(demands[0].target)
        users: dict[int, list[int]] = {}
        for n, demand in enumerate(demands):
            for source in dict.fromkeys(() if keep else demand.sources):
                users.setdefault(source, []).append(n)
        released = np.zeros((len(demands), classes), np.int64)
        together: dict[tuple[int, ...], Bytes] = {}  # what the same arrays use is released as one
        for source, arrays in users.items():
            if len(arrays) == 1:
                released[arrays[0]] += sources[source]
            else:
                key = tuple(arrays)
                together[key] = together.get(key, 0 * released[0]) + sources[source]
        uses = np.zeros((len(demands), len(together)), np.int64)
        for k, key in enumerate(together):
            uses[list(key), k] = 1
        targets = np.array([demand.target for demand in demands])
        scratch = np.array([demand.scratch for demand in demands])
        rows = np.concatenate([targets, scratch, released, uses], axis=1)
        number: dict[bytes, int] = {}
        return cls(
            sum(sources, 0 * released[0]),
            targets,
            scratch,
            released,
            np.array(list(together.values()), np.int64).reshape(-1, classes),
            uses,
            [number.setdefault(row.tobytes(), len(number)) for row in rows],
            classes == 1 and not together,
        )

    def by_law(self, on: int) -> list[int]:
        """The order of the law on one class, with a share of shared sources for each array."""
        users = np.maximum(self.uses.sum(axis=0), 1)
        freed = (self.released[:, on] + self.uses @ (self.shared[:, on] // users)).tolist()
        targets, scratch = self.targets[:, on].tolist(), self.scratch[:, on].tolist()

        def key(item: int) -> tuple[int, int, int]:
            if targets[item] <= freed[item]:
                return 0, targets[item] + scratch[item], item
            return 1, -freed[item] - scratch[item], item

        return sorted(range(len(targets)), key=key)

    def peak(self, order: Sequence[int]) -> int:
        """The most bytes alive on any class while arrays move in that order."""
        return int(self.levels(order).max())

    def levels(self, order: Sequence[int]) -> Bytes:
        """Bytes alive on the worst class while each array moves."""
        steps = len(order)
        place = np.empty(steps, np.int64)
        place[order] = np.arange(steps)
        freed = self.released[order]
        last = (self.uses * (place + 1)[:, None]).max(axis=0, initial=0) - 1
        np.add.at(freed, last, self.shared)
        live = (
            self.first + np.cumsum(self.targets[order], axis=0) - np.cumsum(freed, axis=0) + freed
        )
        levels: Bytes = (live + self.scratch[order]).max(axis=1)
        return levels

    def floor(self) -> int:
        """Bytes that are alive in any order: while its first array moves, or its last."""
        added = self.targets + self.scratch
        end = (
            self.first
            + self.targets.sum(axis=0)
            - self.released.sum(axis=0)
            - self.shared.sum(axis=0)
        )
        first = (self.first + added).max(axis=1).min()
        last = (end + self.released + self.uses @ self.shared + self.scratch).max(axis=1).min()
        return int(max(first, last))


@dataclass(slots=True)
class _Set:
    """Arrays that have moved, in an order of the least peak, and bytes alive after them."""

    items: list[int]
    moved: NDArray[np.bool_]
    live: Bytes
    peak: int


def _searched(board: _Board) -> tuple[list[int], int]:
    """An order of all arrays, and a peak that no order is below.

    Sets of arrays in the order of their peaks: the first that has all of them has the least.
    """
    none = np.zeros(len(board.targets), bool)
    start = _Set([], none, board.first, 0)
    queue = [(0, 0, 0, start, -1)]
    seen: set[bytes] = set()
    pushed = 0
    while queue:
        peak, _, _, before, item = heapq.heappop(queue)
        state = before if item < 0 else _with(board, before, item, peak)
        if len(state.items) == len(none):
            return state.items, peak
        if len(seen) >= MAX_SETS:
            return _completed(board, state).items, peak
        if (key := state.moved.tobytes()) in seen:
            continue
        seen.add(key)
        for higher, item in _next(board, state):
            pushed += 1
            heapq.heappush(queue, (higher, -len(state.items), pushed, state, item))
    raise AssertionError("some set has all arrays")


def _with(board: _Board, before: _Set, item: int, peak: int) -> _Set:
    moved = before.moved.copy()
    moved[item] = True
    remaining = ~moved @ board.uses
    freed = board.released[item] + (board.uses[item] * (remaining == 0)) @ board.shared
    live = before.live + board.targets[item] - freed
    return _Set([*before.items, item], moved, live, peak)


def _next(board: _Board, state: _Set) -> Iterator[tuple[int, int]]:
    """Which arrays may move next, one of each kind, and the peak until then.

    One that raises neither the peak nor what is alive after it may as well move at once.
    """
    items = {board.kinds[n]: n for n in np.flatnonzero(~state.moved)[::-1].tolist()}
    candidates = list(items.values())
    last = (~state.moved @ board.uses) == 1
    freed = board.released[candidates] + (board.uses[candidates] * last) @ board.shared
    peaks = (state.live + board.targets[candidates] + board.scratch[candidates]).max(axis=1)
    peaks = np.maximum(peaks, state.peak)
    free = (peaks == state.peak) & (board.targets[candidates] <= freed).all(axis=1)
    if free.any():
        candidates, peaks = [candidates[int(np.argmax(free))]], np.array([state.peak])
    yield from zip(peaks.tolist(), candidates, strict=True)


def _completed(board: _Board, state: _Set) -> _Set:
    """The set with all other arrays, each time one that raises the peak least."""
    while len(state.items) < len(board.targets):
        peak, item = min(_next(board, state))
        state = _with(board, state, item, peak)
    return state


def _improved(board: _Board, order: list[int]) -> list[int]:
    """The best order that moving one array at a time leads to, of a bounded number."""

    def height(order: Sequence[int]) -> tuple[int, int]:
        levels = board.levels(order)
        return int(levels.max()), int((levels == levels.max()).sum())

    best, tried, improved = height(order), 0, True
    while improved and tried < MAX_TRIED:
        improved = False
        for n, m in permutations(range(len(order)), 2):
            candidate = [*order[:n], *order[n + 1 :]]
            candidate.insert(m, order[n])
            tried += 1
            if (reached := height(candidate)) < best:
                best, order, improved = reached, candidate, True
            if tried == MAX_TRIED:
                break
    return order
