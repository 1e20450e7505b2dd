"""Which rank sends what to whom: the intersections of what ranks hold with what they want.

Every rank derives the same answer alone. A rank takes from itself what it holds; anything else
comes from one of the ranks that hold it, the one that has least to send so far. From `f32[4]`,
which ranks 0 and 1 hold whole, to `f32[4{x}]` on ranks 2 and 3, rank 0 sends rank 2 its half and
rank 1 sends rank 3 the other: two `Overlap`s of two elements.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from redistrib.backends.mpi.index_ranges import IndexRanges, Integers, Segment, common, segments
from redistrib.backends.mpi.layouts import Box

ShapeOf = Callable[[int], tuple[int, ...]]
"""The shape of each rank's tile."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where an overlap lies in a tile: its first element, and per axis of the overlap a step.

    A step goes along one dimension of the tile, so a region does not depend on the tile's strides.
    """

    first: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]

    def strides(self, strides: Sequence[int]) -> tuple[int, ...]:
        """Distances between neighbours along each axis of the overlap, for strides of the tile."""
        return tuple(strides[dim] * step for dim, step in self.steps)

    def offset(self, strides: Sequence[int]) -> int:
        """Distance of the first element from the start of the tile."""
        return sum(place * stride for place, stride in zip(self.first, strides, strict=True))


@dataclass(frozen=True, slots=True)
class Overlap:
    """Elements that go from one rank's tile to another's: strided there and here, of one shape.

    `contiguous`: elements of the runs that are contiguous on both sides in C-ordered tiles.
    """

    sender: int
    receiver: int
    shape: tuple[int, ...]
    take: Region
    put: Region
    contiguous: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def view(tile: NDArray[np.generic], region: Region, shape: Sequence[int]) -> NDArray[np.generic]:
    """The elements of an overlap in a tile, writeable if the tile is."""
    strides = region.strides(tile.strides)
    if tile.flags.forc and tile.size:  # nearly always, and ten times as quick
        return np.ndarray(shape, tile.dtype, tile, region.offset(tile.strides), strides)
    start = tile[tuple(slice(place, None) for place in region.first)]
    return as_strided(start, shape, strides, writeable=tile.flags.writeable)


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a C-ordered array, in elements."""
    return tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))


class Holders:
    """Which of some ranks hold which box.

    Looked through by the index sets of each dimension, of which there are few, as a box overlaps
    another where their sets do in every dimension.
    """

    def __init__(self, boxes: Iterable[tuple[int, Box]]) -> None:
        self.box_of = dict(boxes)
        self.ranks_of: dict[Box, list[int]] = {}
        for rank, box in self.box_of.items():
            self.ranks_of.setdefault(box, []).append(rank)
        self._sets = [
            tuple(s for s in dict.fromkeys(column) if s.size)
            for column in zip(*self.ranks_of, strict=True)
        ]
        self._ends = [
            np.array([(s.starts[0], s.stops[-1]) for s in sets], np.int64).reshape(-1, 2).T
            for sets in self._sets
        ]

    def near(self, dim: int, indices: IndexRanges) -> Iterator[IndexRanges]:
        """The index sets of a dimension whose bounds overlap those of another."""
        if indices.size and self.box_of:
            low, high = self._ends[dim]
            near = (low < indices.stops[-1]) & (indices.starts[0] < high)
            yield from (self._sets[dim][number] for number in np.flatnonzero(near))


class OverlapSearch:
    """Finds the overlaps of one rank of `size`, and remembers what pairs of index sets share.

    What it does is of the order of this rank's peers, not of all pairs of ranks.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._shared: dict[tuple[IndexRanges, IndexRanges], tuple[int, tuple[Segment, ...]]] = {}
        self._wanted: dict[tuple[Box, Holders], tuple[Integers, Integers]] = {}

    def overlaps(
        self, sources: Holders, targets: Holders, source_shape: ShapeOf, target_shape: ShapeOf
    ) -> Iterator[Overlap]:
        """The overlaps that this rank sends, receives or keeps; both of a pair in one order.

        The shapes are those of the tiles in which the boxes lie, by rank. What two ranks hold is
        the same or disjoint.
        """
        touched: dict[Box, None] = {}
        if (held := sources.box_of.get(self.rank)) is not None:
            touched[held] = None
        if (wanted := targets.box_of.get(self.rank)) is not None:
            touched |= dict.fromkeys(self._overlapping(wanted, sources))
        for box in touched:
            for receiver, sender in self._routes(box, sources.ranks_of[box], targets):
                if self.rank not in (sender, receiver):
                    continue
                target = targets.box_of[receiver]
                shared = [self._common(a, b)[1] for a, b in zip(box, target, strict=True)]
                shapes = source_shape(sender), target_shape(receiver)
                for chosen in product(*shared):
                    yield overlap_of(sender, receiver, chosen, *shapes)

    def _routes(
        self, box: Box, ranks: Sequence[int], targets: Holders
    ) -> Iterator[tuple[int, int]]:
        """Who receives of a box that these ranks hold, and from which of them."""
        if len(ranks) == 1 and self.rank not in ranks:
            yield self.rank, ranks[0]
            return
        receivers, sizes = self._wanting(box, targets)
        if self.rank in ranks and self.rank in receivers:
            yield self.rank, self.rank
        others = ~np.isin(receivers, ranks)
        receivers, sizes = receivers[others], sizes[others]
        order = np.lexsort((receivers, -sizes))
        for place, receiver in zip(_turns(sizes[order], len(ranks)), receivers[order], strict=True):
            if self.rank in (ranks[place], receiver):
                yield int(receiver), ranks[place]

    def _wanting(self, box: Box, targets: Holders) -> tuple[Integers, Integers]:
        """The ranks that want something of a box, and how many elements."""
        known = self._wanted.get((box, targets))
        if known is None:
            boxes = list(self._overlapping(box, targets))
            sizes = [
                prod(self._common(a, b)[0] for a, b in zip(box, t, strict=True)) for t in boxes
            ]
            ranks = [targets.ranks_of[target] for target in boxes]
            receivers = np.array(list(chain.from_iterable(ranks)), np.int64)
            known = receivers, np.repeat(np.array(sizes, np.int64), [len(r) for r in ranks])
            self._wanted[box, targets] = known
        return known

    def _overlapping(self, box: Box, others: Holders) -> Iterator[Box]:
        """The boxes of others that share an element with one."""
        near = [
            [other for other in others.near(dim, indices) if self._common(indices, other)[0]]
            for dim, indices in enumerate(box)
        ]
        return (other for other in product(*near) if other in others.ranks_of)

    def _common(self, a: IndexRanges, b: IndexRanges) -> tuple[int, tuple[Segment, ...]]:
        """What two index sets share: how many indices, and where, from the one to the other."""
        shared = self._shared.get((a, b))
        if shared is None:
            lengths, take, put = common(a, b)
            parts = tuple(segments(lengths, take, put)) if len(lengths) else ()
            shared = self._shared[a, b] = int(lengths.sum()), parts
        return shared


def _turns(sizes: Integers, count: int) -> Iterable[int]:
    """Which of so many senders takes each load, the largest first: the one with least so far.

    >>> list(_turns(np.array([2, 2, 2]), 2)), list(_turns(np.array([4, 1, 1, 1]), 2))
    ([0, 1, 0], [0, 1, 1, 1])
    """
    if not len(sizes) or sizes[0] == sizes[-1]:
        return (np.arange(len(sizes)) % count).tolist()
    loads = [(0, place) for place in range(count)]
    turns = []
    for size in sizes.tolist():
        load, place = loads[0]
        heapq.heapreplace(loads, (load + size, place))
        turns.append(place)
    return turns


def overlap_of(
    sender: int,
    receiver: int,
    chosen: Sequence[Segment],
    source_shape: Sequence[int],
    target_shape: Sequence[int],
) -> Overlap:
    """The overlap of a segment per dimension, between tiles of these shapes."""
    shape = tuple(count for segment in chosen for count in segment.counts)
    take = Region(
        tuple(segment.take for segment in chosen),
        tuple((dim, step) for dim, segment in enumerate(chosen) for step in segment.take_steps),
    )
    put = Region(
        tuple(segment.put for segment in chosen),
        tuple((dim, step) for dim, segment in enumerate(chosen) for step in segment.put_steps),
    )
    run = prod(shape)
    for region, tile in ((take, source_shape), (put, target_shape)):
        run = min(run, _run(shape, region.strides(c_strides(tile))))
    return Overlap(sender, receiver, shape, take, put, run)


def _run(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Elements of the trailing axes that are contiguous."""
    run = 1
    for count, stride in zip(reversed(shape), reversed(strides), strict=True):
        if stride != run:
            break
        run *= count
    return run
