"""Symmetries of a list: permutations of its entries, and the orbits of the entries under them.

Four layouts of which the first three differ in the names of axes alone: a permutation that takes
each of the three to the next has the orbits {0, 1, 2} and {3}. What is known of layout 0 is then
known of 1 and 2, by way of a permutation of all four that leads there from 0 (`orbits`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Smalls = NDArray[np.int32]


def places(rows: Ints, images: Ints) -> Ints | None:
    """Per row of `images` the number of the equal one of `rows`; None if one has none.

    >>> places(np.array([[1, 2], [2, 1]]), np.array([[2, 1], [1, 2]])).tolist()
    [1, 0]
    """
    number = {row.tobytes(): n for n, row in enumerate(rows)}
    numbers = [number.get(row.tobytes(), -1) for row in images]
    return None if -1 in numbers else np.array(numbers)


def orbits(generators: Sequence[Ints], count: int) -> tuple[Ints, Smalls]:
    """Per entry the first of its orbit, and a permutation of all entries that leads from it here.

    >>> origin, images = orbits([np.array([1, 2, 0, 3])], 4)
    >>> origin.tolist(), images[:, 0].tolist()
    ([0, 0, 0, 3], [0, 1, 2, 0])
    """
    origin = np.full(count, -1)
    images = np.empty((count, count), dtype=np.int32)
    for start in range(count):
        if origin[start] >= 0:
            continue
        origin[start], images[start] = start, np.arange(count)
        reached = [start]
        for entry in reached:
            for generator in generators:
                to = int(generator[entry])
                if origin[to] < 0:
                    origin[to], images[to] = start, generator[images[entry]]
                    reached.append(to)
    return origin, images
