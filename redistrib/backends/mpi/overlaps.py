"""Which rank sends what to whom: the intersections of what ranks hold with what they want.

Every rank derives the same answer alone. A rank takes from itself what it holds; anything else
comes from one of the ranks that hold it, the one that has least to send so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from redistrib.backends.mpi.index_ranges import IndexRanges, Segment, common, segments
from redistrib.backends.mpi.layouts import Box


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
        return sum(at * stride for at, stride in zip(self.first, strides, strict=True))


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
    start = tile[tuple(slice(at, None) for at in region.first)]
    return as_strided(start, shape, strides, writeable=tile.flags.writeable)


def c_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a C-ordered array, in elements."""
    return tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))


class OverlapSearch:
    """Finds the overlaps of one rank, and remembers what pairs of index sets share."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._shared: dict[tuple[IndexRanges, IndexRanges], tuple[int, tuple[Segment, ...]]] = {}

    def overlaps(
        self,
        sources: Sequence[Box | None],
        targets: Sequence[Box | None],
        source_shapes: Sequence[Sequence[int]],
        target_shapes: Sequence[Sequence[int]],
    ) -> Iterator[Overlap]:
        """The overlaps that this rank sends, receives or keeps, in an order all ranks agree on.

        Per rank, what it holds and what it wants, None for nothing, and the shapes of the tiles
        in which these lie. What two ranks hold is the same or disjoint.
        """
        holders: dict[Box, list[int]] = {}
        for rank, box in enumerate(sources):
            if box is not None:
                holders.setdefault(box, []).append(rank)
        for box, ranks in holders.items():
            for receiver, sender in self._routes(box, ranks, targets):
                target = targets[receiver]
                if self.rank not in (sender, receiver) or target is None:
                    continue
                shared = [self._common(a, b)[1] for a, b in zip(box, target, strict=True)]
                for chosen in product(*shared):
                    yield overlap_of(
                        sender, receiver, chosen, source_shapes[sender], target_shapes[receiver]
                    )

    def _routes(
        self, box: Box, ranks: Sequence[int], targets: Sequence[Box | None]
    ) -> Iterator[tuple[int, int]]:
        """Who receives of a box that these ranks hold, and from which of them."""
        here = self.rank in ranks
        if len(ranks) == 1 and not here:
            if targets[self.rank] is not None:
                yield self.rank, ranks[0]
            return
        wanted = []
        for receiver, target in enumerate(targets):
            if target is None:
                continue
            size = prod(self._common(a, b)[0] for a, b in zip(box, target, strict=True))
            if size and receiver in ranks:
                yield receiver, receiver
            elif size:
                wanted.append((-size, receiver))
        load = dict.fromkeys(ranks, 0)
        for size, receiver in sorted(wanted):
            sender = min(ranks, key=lambda r: (load[r], (r - receiver) % len(targets)))
            load[sender] -= size
            yield receiver, sender

    def _common(self, a: IndexRanges, b: IndexRanges) -> tuple[int, tuple[Segment, ...]]:
        """What two index sets share: how many indices, and where."""
        found = self._shared.get((a, b))
        if found is None:
            lengths, take, put = common(a, b)
            parts = tuple(segments(lengths, take, put)) if len(lengths) else ()
            found = self._shared[a, b] = int(lengths.sum()), parts
        return found


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
