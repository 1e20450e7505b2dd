"""Whether strided views cover a row-major tile: every element exactly once.

Of a tile of 7168 rows of 64, four views of 7168 rows (stride 64) of 16 elements, from 0, 16, 32 and
48 on: all have the digit of rows, so one row tells of all of them; and all numbers left are
multiples of 16, so 4 cells are looked at, not 458,752 elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

Digits = tuple[tuple[int, int], ...]
"""(count, stride) pairs, by descending stride, none of count 1."""
Strided = tuple[int, Digits]
"""The first element, and the digits that walk from it."""

MAX_CELLS = 1 << 24


class TooManyCellsError(Exception):
    """Views that have no regular structure, and more cells than are looked at one by one."""


def strided(offset: int, runs: Iterable[tuple[int, int]]) -> Strided:
    """A view with its digits in order, neighbours that are one run as one.

    >>> strided(3, [(4, 1), (1, 9), (2, 4)])
    (3, ((8, 1),))
    """
    digits: list[tuple[int, int]] = []
    for count, stride in sorted(runs, key=lambda run: -run[1]):
        if count == 1:
            continue
        if digits and digits[-1][1] == stride * count:
            digits[-1] = (digits[-1][0] * count, stride)
        else:
            digits.append((count, stride))
    return offset, tuple(digits)


def size_of(view: Strided) -> int:
    """Elements of a view, as often as it walks them."""
    return prod(count for count, _ in view[1])


def fault(views: Sequence[Strided], size: int) -> str | None:
    """What is wrong with views that should cover a tile of so many elements exactly once.

    Raises TooManyCellsError where that is not seen within 2^24 cells.

    >>> fault([(0, ((4, 2),)), (1, ((4, 2),))], 8), fault([(0, ((4, 2),))], 8)
    (None, 'get no value')
    """
    if any(first < 0 or first + _reach(digits) >= size for first, digits in views):
        return "outside"
    total = sum(map(size_of, views))
    cells, reduced = _reduced(list(views), size)
    if total > size:
        return "twice"
    if cells > MAX_CELLS:
        raise TooManyCellsError
    written = np.zeros(cells, np.int64)
    for view in reduced:
        np.add.at(written, numbers(view), 1)
    if (written > 1).any():
        return "twice"
    return "get no value" if total < size else None


def numbers(view: Strided) -> NDArray[np.int64]:
    """The elements of a view. Raises TooManyCellsError for more than 2^24."""
    if size_of(view) > MAX_CELLS:
        raise TooManyCellsError
    places = np.full(1, view[0], np.int64)
    for count, stride in view[1]:
        places = (places[:, None] + np.arange(count) * stride).reshape(-1)
    return places


def _reach(digits: Digits) -> int:
    return sum((count - 1) * stride for count, stride in digits)


def _reduced(views: list[Strided], size: int) -> tuple[int, list[Strided]]:
    """Fewer cells that are covered once if and only if the elements are."""
    for digit in _shared(views):
        count, stride = digit
        if size % (count * stride) == 0 and all(_apart(view, digit) for view in views):
            period = count * stride
            size //= count
            views = [
                (
                    first // period * stride + first % stride,
                    tuple(
                        (n, s // count if s > stride else s) for n, s in digits if (n, s) != digit
                    ),
                )
                for first, digits in views
            ]
            return _reduced(views, size)
    cell = gcd(size, *(_grain(view) for view in views))
    if cell <= 1:
        return size, views
    return size // cell, [
        (
            first // cell,
            tuple((n, s // cell) for n, s in digits if s > 1)
            + tuple((n // cell, 1) for n, s in digits if s == 1 and n > cell),
        )
        for first, digits in views
    ]


def _shared(views: Sequence[Strided]) -> Iterator[tuple[int, int]]:
    """The digits that all views have."""
    if views:
        yield from (d for d in views[0][1] if all(d in digits for _, digits in views))


def _apart(view: Strided, digit: tuple[int, int]) -> bool:
    """Whether a digit walks whole rows: those below it stay in one, those above step over all."""
    first, digits = view
    count, stride = digit
    below = first % stride + _reach(tuple((n, s) for n, s in digits if s < stride))
    above = [s for _, s in digits if s > stride]
    return (
        below < stride
        and first // stride % count == 0
        and all(s % (count * stride) == 0 for s in above)
    )


def _grain(view: Strided) -> int:
    """A number of neighbours that the view takes together, at multiples of it."""
    first, digits = view
    inner = digits[-1][0] if digits and digits[-1][1] == 1 else 1
    return gcd(first, inner, *(stride for _, stride in digits if stride > 1))


def all_written(read: Sequence[Strided], written: Sequence[Strided], size: int) -> bool:
    """Whether a tile of so many elements has been written wherever it is read.

    Raises TooManyCellsError where that is not seen within 2^24 cells.

    >>> all_written([(0, ((4, 2),))], [(0, ((3, 2),)), (6, ())], 8)
    True
    """
    known = set(written)
    read = [view for view in read if view not in known]
    if not read:
        return True
    cells, reduced = _reduced([*written, *read], size)
    if cells > MAX_CELLS:
        raise TooManyCellsError
    present = np.zeros(cells, bool)
    for view in reduced[: len(written)]:
        present[numbers(view)] = True
    return all(present[numbers(view)].all() for view in reduced[len(written) :])
