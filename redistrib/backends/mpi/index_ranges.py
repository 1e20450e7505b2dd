"""Index sets of one dimension as runs, and what two of them share as strided segments.

A tile holds, per dimension, ascending runs of global indices. Where two such sets overlap, both
sides find the common indices at places that are nearly always evenly spaced, on several levels; so
what two tiles share is a few strided views of each, of equal shape.

On x=2 position 1 of `f32[12{_2,x}]` holds 3 to 5 and 9 to 11, and position 0 of `f32[12{x}]` holds
0 to 5; both have 3, 4 and 5, at the places 0 to 2 of the one tile and 3 to 5 of the other:

>>> cyclic, blocks = IndexRanges.packed([3, 9], [3, 3]), IndexRanges.packed([0], [6])
>>> [(s.counts, s.take, s.put) for s in segments(*common(cyclic, blocks))]
[((3,), 0, 3)]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class IndexRanges:
    """Ascending disjoint ranges `[start, stop)` of indices; `places`: where each is in the tile.

    Compared by identity: a layout hands out one object per set.
    """

    starts: Integers
    stops: Integers
    places: Integers

    @classmethod
    def packed(
        cls, starts: Sequence[int] | Integers, lengths: Sequence[int] | Integers
    ) -> IndexRanges:
        """Ranges that lie one after the other in the tile.

        >>> IndexRanges.packed([0, 10], [2, 3]).places.tolist()
        [0, 2]
        """
        begin, size = (np.asarray(x, np.int64) for x in (starts, lengths))
        kept = size > 0
        begin, size = begin[kept], size[kept]
        return cls(begin, begin + size, np.cumsum(size) - size)

    @property
    def size(self) -> int:
        """Number of indices."""
        return int((self.stops - self.starts).sum())

    def narrow(self, low: int, high: int) -> IndexRanges:
        """The part at the places `[low, high)`, which stays where it is.

        >>> IndexRanges.packed([0, 10], [4, 4]).narrow(3, 6).starts.tolist()
        [3, 10]
        """
        return self._cut(
            np.maximum(low - self.places, 0),
            np.maximum(self.places + self.stops - self.starts - high, 0),
        )

    def placed(self, tile: IndexRanges) -> IndexRanges:
        """The same indices at their places in another tile, which has all of them.

        >>> part = IndexRanges.packed([8], [4]).placed(IndexRanges.packed([0, 8], [4, 6]))
        >>> part.starts.tolist(), part.stops.tolist(), part.places.tolist()
        ([8], [12], [4])
        """
        lengths, places, new_places = common(self, tile)
        run = np.searchsorted(self.places, places, "right") - 1
        starts = self.starts[run] + places - self.places[run]
        return IndexRanges(starts, starts + lengths, new_places)

    def within(self, low: int, high: int) -> IndexRanges:
        """The indices in `[low, high)`, counted from `low`; they stay where they are in the tile.

        >>> part = IndexRanges.packed([0, 10], [4, 4]).within(2, 12)
        >>> part.starts.tolist(), part.stops.tolist(), part.places.tolist()
        ([0, 8], [2, 10], [2, 4])
        """
        part = self._cut(np.maximum(low - self.starts, 0), np.maximum(self.stops - high, 0))
        return IndexRanges(part.starts - low, part.stops - low, part.places)

    def _cut(self, first: Integers, last: Integers) -> IndexRanges:
        """Without so many indices at the begin and at the end of each range."""
        starts, stops = self.starts + first, self.stops - last
        kept = starts < stops
        return IndexRanges(starts[kept], stops[kept], (self.places + first)[kept])


@dataclass(frozen=True, slots=True)
class Segment:
    """Indices that two tiles share: a mixed-radix number, `counts` major to minor.

    A value lies at `take + sum(i * step)` in the one tile and likewise at `put` in the other.
    """

    counts: tuple[int, ...]
    take: int
    take_steps: tuple[int, ...]
    put: int
    put_steps: tuple[int, ...]


def common(a: IndexRanges, b: IndexRanges) -> tuple[Integers, Integers, Integers]:
    """The lengths of the runs that two sets share, and their places in either tile, ascending.

    >>> a, b = IndexRanges.packed([0, 8], [4, 4]), IndexRanges.packed([2], [8])
    >>> lengths, in_a, in_b = common(a, b)
    >>> lengths.tolist(), in_a.tolist(), in_b.tolist()
    ([2, 2], [2, 4], [0, 6])
    """
    first = np.searchsorted(b.stops, a.starts, "right")
    counts = np.maximum(np.searchsorted(b.starts, a.stops, "left") - first, 0)
    at_a = np.repeat(np.arange(len(counts)), counts)
    at_b = np.arange(len(at_a)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    starts = np.maximum(a.starts[at_a], b.starts[at_b])
    lengths = np.minimum(a.stops[at_a], b.stops[at_b]) - starts
    places = [x.places[index] + starts - x.starts[index] for x, index in ((a, at_a), (b, at_b))]
    return lengths, places[0], places[1]


def segments(lengths: Integers, take: Integers, put: Integers) -> Iterator[Segment]:
    """Runs at places of two tiles as strided segments: one where they are regular.

    Ranges of one length are taken together, wherever they are: those of block-cyclic layouts come
    in a few lengths, and those of each are regular.

    >>> places = np.array([0, 4, 20, 24])
    >>> [s.counts for s in segments(np.full(4, 2), places, places // 2)]
    [(2, 2, 2)]
    >>> [s.counts for s in segments(np.full(4, 2), places // 2, places // 2)]
    [(2, 4)]
    >>> lengths, take = np.array([3, 1, 3, 1]), np.array([0, 5, 9, 14])
    >>> [(s.counts, s.take) for s in segments(lengths, take, places)]
    [((2,), 5), ((2, 3), 0)]
    """
    joined = (np.diff(take) == lengths[:-1]) & (np.diff(put) == lengths[:-1])
    head = np.flatnonzero(np.concatenate([[True], ~joined]))
    lengths = np.add.reduceat(lengths, head)
    take, put = take[head], put[head]
    for length in np.unique(lengths).tolist():
        alike = lengths == length
        for first, other_first, levels in _regular(take[alike], put[alike]):
            levels.append((length, 1, 1))
            merged = [levels[0]]
            for count, step, other in levels[1:]:
                outer, by, by_other = merged[-1]
                if by == count * step and by_other == count * other:
                    merged[-1] = outer * count, step, other
                else:
                    merged.append((count, step, other))
            kept = [level for level in merged if level[0] > 1]
            counts, steps, others = zip(*kept, strict=True) if kept else ((), (), ())
            yield Segment(counts, first, steps, other_first, others)


Level = tuple[int, int, int]
"""A count and the steps from one to the next in the two tiles."""


def _regular(take: Integers, put: Integers) -> Iterator[tuple[int, int, list[Level]]]:
    """The places as nested progressions: first places and levels, major to minor."""
    while len(take):
        levels: list[Level] = []
        a, b = take, put
        while len(a) > 1:
            width = _progression(a, b)
            rows, remainder = divmod(len(a), width)
            if remainder or not all(
                (x.reshape(rows, width) - x[::width, None] == x[:width] - x[0]).all()
                for x in (a, b)
            ):
                # Not nested: the first progression by itself, then what is behind it.
                a, b = a[:width], b[:width]
            levels.append((width, int(a[1] - a[0]), int(b[1] - b[0])))
            a, b = a[::width], b[::width]
        yield int(take[0]), int(put[0]), levels[::-1]
        done = prod(count for count, _, _ in levels)
        take, put = take[done:], put[done:]


def _progression(a: Integers, b: Integers) -> int:
    """How many of the first places are evenly spaced in both tiles, at least two."""
    uneven = (np.diff(a) != a[1] - a[0]) | (np.diff(b) != b[1] - b[0])
    return int(np.argmax(uneven)) + 1 if uneven.any() else len(a)
