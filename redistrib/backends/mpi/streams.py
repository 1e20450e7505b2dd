"""What goes from one rank to another, cut into messages of bounded size.

Sender and receiver cut a stream of overlaps into the same chunks. Where runs are long, or few, a
chunk travels straight from tile to tile under a strided datatype; where they are short it is packed
into a reused buffer and unpacked from one. MPI keeps the messages of a pair in order. Half of each
row of `f64[1024, 1024]` is a run of 4 KiB, and goes from tile to tile; half of each row of
`f64[16384, 6]` is one of 24 bytes, below SHORT_RUN, and is packed.

Between two ranks of a node Open MPI reads contiguous bytes from the memory of the other at once,
and moves strided ones through many small pieces of shared memory. Where each rank has a processor
(`packs`), long runs are packed too, if there is enough of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import islice, product
from math import prod
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.mpi.datatypes import Datatypes, Tile
from redistrib.backends.mpi.overlaps import Overlap, view
from redistrib.backends.mpi.requests import Message

SHORT_RUN = 512
"""Bytes of a contiguous run below which packing beats a strided datatype."""

FEW_RUNS = 256 if MPI.get_vendor()[0] == "MPICH" else 4096
"""Runs up to which a strided datatype takes less time than a buffer does."""

PACKED = 1 << 20
"""Bytes to a rank from which packing long runs pays, where it does."""

LEAST_PACKED = 1 << 17
"""Bytes of a chunk below which it does not: each is a message that ranks wait for."""

SLAB_RUNS = 1024 if MPI.get_vendor()[0] == "MPICH" else None
"""Runs per message beyond which the MPI slows down several times; None where it does not."""

LARGEST = 1 << 30
"""Bytes of a message: well below 2^31, where counts overflow in some MPIs."""

LEAST_CHUNK = 4096
DEPTH = 2
"""Packed chunks in flight, at least: one is packed while the other travels."""
DEPTH_DIRECT = 64
"""Chunks of a stream under a datatype in flight: nearly always all of them."""

Buffer = NDArray[np.uint8]
Bounds = tuple[slice, ...]


def cut(shape: Sequence[int], limit: int) -> Iterator[Bounds]:
    """An overlap in parts of at most `limit` elements, in order; of one at least.

    >>> [[(s.start, s.stop) for s in part] for part in cut((2, 3), 4)]
    [[(0, 1), (0, 3)], [(1, 2), (0, 3)]]
    """
    axis = next((a for a in range(len(shape)) if prod(shape[a + 1 :]) <= limit), 0)
    if not shape:
        yield ()
        return
    step = max(1, limit // prod(shape[axis + 1 :]))
    inner = tuple(slice(0, n) for n in shape[axis + 1 :])
    for outer in product(*map(range, shape[:axis])):
        front = tuple(slice(place, place + 1) for place in outer)
        for low in range(0, shape[axis], step):
            yield (*front, slice(low, min(low + step, shape[axis])), *inner)


def _part(overlap: Tile, part: Bounds) -> Tile:
    """A part of an overlap as a view, of a scalar too."""
    index: Any = (*part, ...)
    piece: Tile = overlap[index]
    return piece


class Stream:
    """The overlaps from one rank to another, seen from one of them; `regions` are on its own side.

    `merges`: its chunks leave from buffers and come into some, as many parts as have room together;
    else each part is a message. `packs`: whether long runs are packed too. `bounded`: bytes of a
    chunk where it does not merge; None where such messages may be large. `direct`: none has a
    buffer, and all are under way at once. `buffered`: on this side its chunks are in buffers.
    """

    def __init__(
        self,
        peer: int,
        overlaps: Sequence[Overlap],
        side: str,
        itemsize: int,
        chunk: int,
        bounded: int | None,
        packs: bool = False,
    ) -> None:
        self.peer, self.overlaps = peer, overlaps
        self.regions = [getattr(overlap, side) for overlap in overlaps]
        self.bytes = sum(overlap.size for overlap in overlaps) * itemsize
        runs = sum(overlap.size // overlap.contiguous for overlap in overlaps)
        # Both ends see the same figures, so they choose and cut alike.
        few = runs <= FEW_RUNS and len(overlaps) <= DEPTH_DIRECT
        short = self.bytes < SHORT_RUN * runs and not few
        long = runs > len(overlaps) and self.bytes >= PACKED and chunk >= LEAST_PACKED
        self.merges = short or (packs and long)
        self.packed = self.merges or bounded is not None
        self.buffered = self.merges or (bounded is not None and side == "put")
        if bounded is not None and not self.merges:
            chunk = bounded
        self.chunk = max(1, min(chunk, self.bytes) // itemsize)
        self.limits = []
        for overlap in overlaps:
            limit = LARGEST // itemsize
            if self.packed:
                limit = min(limit, self.chunk)
            if SLAB_RUNS is not None and overlap.contiguous < overlap.size:
                limit = min(limit, SLAB_RUNS * overlap.contiguous)
            self.limits.append(limit)
        parts = (
            part
            for number, overlap in enumerate(overlaps)
            for part in self._cut(number, overlap.shape)
        )
        self.direct = not self.packed and next(islice(parts, DEPTH_DIRECT, None), None) is None
        self.chunk_bytes = self.chunk * itemsize

    def views(self, tiles: Iterable[Tile | None]) -> list[Tile]:
        """The overlaps in each of these tiles, one tile after the other."""
        return [
            view(tile, place, overlap.shape)
            for tile in tiles
            if tile is not None
            for place, overlap in zip(self.regions, self.overlaps, strict=True)
        ]

    def messages(self, tiles: Iterable[Tile | None], datatypes: Datatypes) -> Iterator[Message]:
        """The chunks that travel from tile to tile. They hold addresses and no tiles."""
        return (datatypes.message(part) for [part] in self.chunks(self.views(tiles)))

    def _cut(self, number: int, shape: Sequence[int]) -> Iterator[Bounds]:
        """The parts of an overlap that are a message each."""
        return cut(shape, self.limits[number % len(self.limits)])

    def chunks(self, views: Sequence[Tile]) -> Iterator[list[Tile]]:
        """The parts of the overlaps that travel in one message each."""
        if not self.merges:
            for number, overlap in enumerate(views):
                for part in self._cut(number, overlap.shape):
                    yield [_part(overlap, part)]
            return
        parts: list[Tile] = []
        room = self.chunk
        for overlap in views:
            for part in cut(overlap.shape, self.chunk):
                taken = _part(overlap, part)
                if taken.size > room:
                    yield parts
                    parts, room = [], self.chunk
                parts.append(taken)
                room -= taken.size
        if parts:
            yield parts


def buffers_for(streams: Sequence[Stream], room: int, least: int = DEPTH) -> list[Buffer]:
    """Buffers that the chunks of these streams take in turn, in so many bytes; at least so many.

    They are kept for all calls: fresh memory costs more than the copy.
    """
    sizes = [stream.chunk_bytes for stream in streams if stream.buffered]
    if not sizes:
        return []
    chunks = sum(-(-stream.bytes // stream.chunk_bytes) for stream in streams if stream.buffered)
    number = max(least, min(chunks, room // max(sizes), DEPTH_DIRECT))
    return [np.empty(max(sizes), np.uint8) for _ in range(number)]


def streams_of(
    overlaps: Sequence[Overlap],
    comm: MPI.Intracomm,
    itemsize: int,
    chunk: int,
    bounded: int | None = None,
    packs: Container[int] = (),
) -> tuple[list[Stream], list[Stream]]:
    """What this rank sends and receives, by peer, in chunks of so many bytes on every rank.

    chunk: where they are packed; bounded: where runs are long, if that has a bound. packs: the
    ranks with which long runs are packed too.
    """
    chunk = max(LEAST_CHUNK, chunk)
    bounded = None if bounded is None else max(LEAST_CHUNK, bounded)
    sends: dict[int, list[Overlap]] = {}
    receives: dict[int, list[Overlap]] = {}
    for overlap in overlaps:
        if overlap.sender == comm.rank:
            sends.setdefault(overlap.receiver, []).append(overlap)
        else:
            receives.setdefault(overlap.sender, []).append(overlap)
    # In rotation, so that not all ranks begin with the same one.
    return (
        [
            Stream(peer, sends[peer], "take", itemsize, chunk, bounded, peer in packs)
            for peer in sorted(sends, key=lambda peer: (peer - comm.rank) % comm.size)
        ],
        [
            Stream(peer, receives[peer], "put", itemsize, chunk, bounded, peer in packs)
            for peer in sorted(receives, key=lambda peer: (comm.rank - peer) % comm.size)
        ],
    )
