"""Columns of numbers as one number for each row: equal where the rows are.

>>> join(np.array([0, 0, 1]), np.array([5, 7, 5])).tolist()
[5, 7, 13]
>>> dense(np.array([40, 7, 40])).tolist()
[1, 0, 1]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MAX_BITS = 62  # cuts in a mask, and bits in a code
MAX_TABLE = 1 << 16  # codes in a smaller range are numbered by a table, without sorting


def dense(values: Ints) -> Ints:
    """Numbers from 0 for the distinct values of an array, in their order."""
    if not values.size:
        return values
    low, high = int(values.min()), int(values.max())
    if high - low < MAX_TABLE:
        seen = np.zeros(high - low + 1, dtype=np.int64)
        seen[values - low] = 1
        return (np.cumsum(seen) - 1)[values - low]
    return np.unique(values, return_inverse=True)[1].reshape(values.shape)


def times(codes: Ints, base: int) -> Ints:
    """Codes times a base, numbered anew where they would not fit."""
    if int(codes.max(initial=0)) >= (1 << MAX_BITS) // base:
        codes = dense(codes)
    return codes * base


def join(key: Ints, column: Ints) -> Ints:
    """One number for both: equal where both are."""
    base = int(column.max(initial=0)) + 1
    if base > 1 << (MAX_BITS // 2):
        column = dense(column)
        base = int(column.max(initial=0)) + 1
    return times(key, base) + column
