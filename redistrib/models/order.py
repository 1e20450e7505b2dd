"""In which order the arrays of a model move, and how much memory that takes.

A source is released whole after its last use, a target is allocated whole before its first. Two
arrays of source and target bytes (8 -> 2) and (2 -> 8) that move in this order hold
10, 12, 4, 12 bytes; in the other order 10, 18 at the worst.

Law: where each source feeds one target, first those that shrink, by ascending target + scratch,
then those that grow, by descending source + scratch, is the order with the least peak on one class
of devices. Where sources are shared, or classes of devices differ, that order is the start of a
bounded search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.int64]
"""By class of devices."""

MAX_TRIED = 4000
"""Orders that the search tries, each one exchange away from the best so far."""
MAX_SEARCHED = 64
"""Arrays that are searched; more are ordered by the law alone."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one array needs: bytes of its target and its scratch, and the numbers of its sources."""

    target: Bytes
    scratch: Bytes
    sources: tuple[int, ...]


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


def order_of(demands: Sequence[Demand], sources: Sequence[Bytes], *, keep: bool) -> list[int]:
    """An order of small peak; see the law above."""
    if not demands or keep:
        return list(range(len(demands)))
    users = np.zeros(len(sources), np.int64)
    for demand in demands:
        for source in demand.sources:
            users[source] += 1
    classes = len(demands[0].target)

    def key(item: int) -> tuple[int, int, int]:
        demand = demands[item]
        freed = sum((sources[s] // users[s] for s in demand.sources), np.zeros(classes, np.int64))
        worst = int(np.argmax(demand.target + freed))
        target, scratch = int(demand.target[worst]), int(demand.scratch[worst])
        if target <= freed[worst]:
            return 0, target + scratch, item
        return 1, -int(freed[worst]) - scratch, item

    order = sorted(range(len(demands)), key=key)
    if len(demands) <= MAX_SEARCHED and (classes > 1 or (users > 1).any()):
        order = _improved(demands, sources, order)
    return order


def _improved(demands: Sequence[Demand], sources: Sequence[Bytes], order: list[int]) -> list[int]:
    """The best order that moving one array at a time leads to, of a bounded number."""

    def peak(candidate: list[int]) -> tuple[int, int]:
        alive = alive_bytes(demands, sources, candidate, keep=False)
        rows = (alive + [demands[n].scratch for n in candidate]).max(axis=1)
        return int(rows.max()), int((rows == rows.max()).sum())

    best, tried = peak(order), 0
    improved = True
    while improved and tried < MAX_TRIED:
        improved = False
        for n in range(len(order)):
            for m in range(len(order)):
                if n == m or tried >= MAX_TRIED:
                    continue
                candidate = [*order[:n], *order[n + 1 :]]
                candidate.insert(m, order[n])
                tried += 1
                if (found := peak(candidate)) < best:
                    best, order, improved = found, candidate, True
    return order
