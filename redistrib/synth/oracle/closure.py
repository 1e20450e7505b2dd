"""Min-plus closure: the cheapest way through the types given (DESIGN: section 5).

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


def close(prices: Floats, tiles: Ints, limit: int | None) -> Ints:
    """Per pair the type to pass through, -1 where the direct way is the cheapest.

    `prices` is square and becomes the closure, up to rounding; `tiles` are bytes per device.
    Floyd-Warshall with the types in order of their tiles.
    """
    count = len(tiles)
    order = np.argsort(tiles, kind="stable")
    best = prices[np.ix_(order, order)]
    sizes = tiles[order]
    via = np.full(best.shape, -1)
    bound = best * (1 - GAIN)
    through = np.empty_like(best)
    for k in range(count):
        if limit is None:
            low = int(np.searchsorted(sizes, sizes[k]))  # two smaller tiles do not pass through k
        elif sizes[k] > limit:
            break
        else:
            low = 0
        for rows, columns in ((slice(0, low), slice(low, None)), (slice(low, None), slice(None))):
            found = np.add(best[rows, k, None], best[k, columns], out=through[rows, columns])
            cheaper = found < bound[rows, columns]
            if cheaper.any():
                best[rows, columns][cheaper] = found[cheaper]
                bound[rows, columns][cheaper] = found[cheaper] * (1 - GAIN)
                via[rows, columns][cheaper] = k
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
