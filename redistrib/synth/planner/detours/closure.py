"""Min-plus closure: the cheapest way through the types given (docs/oracle.md).

Three types of one tile, with 1 second from the first to the second and from there to the third, and
5 from the first to the third: that pair passes through type 1, at 2.

>>> prices = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 1.0], [5.0, 1.0, 0.0]])
>>> via = close(prices, np.zeros(3, np.int64), None)
>>> via[0].tolist(), prices[0].tolist()
([-1, -1, 1], [0.0, 1.0, 2.0])
>>> paths(via, np.array([0]), np.array([2])).tolist()
[[0, 1, 2]]

Law: with prices D and the closure C, C <= D and C(a, c) <= C(a, b) + C(b, c) for every b that the
pair may pass through: one whose tile fits the memory limit, or without a limit, whose tile is no
larger than that of a or c. Both are closed under composition, so every hop is legal on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from redistrib.synth.planner.detours.threads import in_threads

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Smalls = NDArray[np.int32]
Progress = Callable[[str, float], None]
"""Told what is done, "signatures", "prices" or "closing", and which part of it, from 0 to 1."""

GAIN = 1e-12  # a hop pays if it is cheaper by more than rounding
BLOCK = 48  # rows at a time
MANY = 8 * BLOCK  # so many rows are worth a thread


def no_progress(stage: str, part: float) -> None:
    """Tell nobody."""


def close(
    prices: Floats, tiles: Ints, limit: int | None, progress: Progress = no_progress
) -> Smalls:
    """Per pair the type to pass through, -1 where the direct way is the cheapest.

    `prices` is square and becomes the closure, up to rounding; `tiles` are ranks by size, and the
    types are in their order. Floyd-Warshall by blocks that stay in the cache, in several threads;
    beside `prices` it holds four bytes a pair.
    """
    via = np.full(prices.shape, -1, dtype=np.int32)
    count = len(tiles) if limit is None else int(np.searchsorted(tiles, limit, side="right"))
    # Without a limit a pair whose tiles are both smaller than that of k does not pass through k.
    first = np.searchsorted(tiles, tiles) if limit is None else np.zeros(len(tiles), np.int64)

    def relax(start: int, end: int, through: range) -> None:
        """Let the pairs with a row from start to end pass through some types."""
        bound = prices[start:end] * (1 - GAIN)
        for k in through:
            low = int(first[k])
            split = min(max(low, start), end)
            for a, b, column in ((start, split, low), (split, end, 0)):
                if a == b:
                    continue
                by_k = prices[a:b, k, None] + prices[k, column:]
                cheaper = by_k < bound[a - start : b - start, column:]
                if cheaper.any():
                    gained = by_k[cheaper]
                    prices[a:b, column:][cheaper] = gained
                    bound[a - start : b - start, column:][cheaper] = gained * (1 - GAIN)
                    via[a:b, column:][cheaper] = k

    def relax_block(through: range, start: int) -> None:
        relax(start, min(start + BLOCK, len(tiles)), through)

    with in_threads(len(tiles) // MANY) as each:
        for block in range(0, count, BLOCK):
            progress("closing", block / count)
            through = range(block, min(block + BLOCK, count))
            relax(through.start, through.stop, through)
            others = (start for start in range(0, len(tiles), BLOCK) if start != block)
            for _ in each(partial(relax_block, through), others):
                pass
    return via


def paths(via: Smalls, rows: Ints, columns: Ints) -> Ints:
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
