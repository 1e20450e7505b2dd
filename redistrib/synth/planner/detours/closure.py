"""Min-plus closure: the cheapest way through the types given (docs/oracle.md).

Law: with prices D and the closure C, C <= D and C(a, c) <= C(a, b) + C(b, c) for every b that the
pair may pass through: one whose tile fits the memory limit, or without a limit, whose tile is no
larger than that of a or c. Both are closed under composition, so every hop is legal on its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GAIN = 1e-12  # a hop pays if it is cheaper by more than rounding
BLOCK = 48  # rows at a time


def close(prices: Floats, tiles: Ints, limit: int | None) -> Ints:
    """Per pair the type to pass through, -1 where the direct way is the cheapest.

    `prices` is square and becomes the closure, up to rounding; `tiles` are their ranks by size.
    Floyd-Warshall with the types in order of their tiles, by blocks that stay in the cache.
    """
    order = np.argsort(tiles, kind="stable")
    sizes = tiles[order]
    best = prices[np.ix_(order, order)]
    bound = best * (1 - GAIN)
    via = np.full(best.shape, -1)
    count = len(order) if limit is None else int(np.searchsorted(sizes, limit, side="right"))
    # Without a limit a pair whose tiles are both smaller than that of k does not pass through k.
    first = np.searchsorted(sizes, sizes) if limit is None else np.zeros(len(order), np.int64)

    def relax(start: int, end: int, through: range) -> None:
        """Let the pairs with a row from start to end pass through some types."""
        for k in through:
            low = int(first[k])
            split = min(max(low, start), end)
            for a, b, column in ((start, split, low), (split, end, 0)):
                if a == b:
                    continue
                found = best[a:b, k, None] + best[k, column:]
                cheaper = found < bound[a:b, column:]
                if cheaper.any():
                    gained = found[cheaper]
                    best[a:b, column:][cheaper] = gained
                    bound[a:b, column:][cheaper] = gained * (1 - GAIN)
                    via[a:b, column:][cheaper] = k

    for block in range(0, count, BLOCK):
        through = range(block, min(block + BLOCK, count))
        relax(through.start, through.stop, through)
        for start in range(0, len(order), BLOCK):
            if start != block:
                relax(start, min(start + BLOCK, len(order)), through)
    back = np.ix_(order, order)
    prices[back] = best
    result = np.empty_like(via)
    result[back] = np.where(via < 0, -1, order[via])
    return result


def paths(via: Ints, rows: Ints, columns: Ints) -> Ints:
    """The types along the way of each pair, from row to column, as columns of an array.

    A type that repeats its left neighbour is no hop.
    """
    nodes = np.stack([rows, columns], axis=1)
    while True:
        middle = via[nodes[:, :-1], nodes[:, 1:]]
        if (middle < 0).all():
            return nodes
        longer = np.empty((len(nodes), 2 * nodes.shape[1] - 1), dtype=nodes.dtype)
        longer[:, ::2] = nodes
        longer[:, 1::2] = np.where(middle < 0, nodes[:, :-1], middle)
        nodes = longer
