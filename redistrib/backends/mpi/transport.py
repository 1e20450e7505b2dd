"""Moving pieces between ranks: messages of bounded size, a few in flight per peer and direction.

Sender and receiver cut a stream of pieces into the same chunks. Where runs are long, a chunk
travels straight from tile to tile under a strided datatype; where they are short, it is packed into
a reused buffer and unpacked from one. MPI keeps the messages of a pair in order.

A transfer is a generator: it yields the requests that it waits for and is sent the indices of those
that are complete, so that the same code serves blocking calls, polling and time limits.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from math import prod
from typing import Any, Protocol

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.mpi.pieces import Piece, view

SHORT_RUN = 512
"""Bytes of a contiguous run below which packing beats a strided datatype."""

SLAB_RUNS = 1024 if MPI.get_vendor()[0] == "MPICH" else None
"""Runs per message beyond which the MPI slows down several times; None where it does not."""

LARGEST = 1 << 30
"""Bytes of a message: well below 2^31, where counts overflow in some MPIs."""

LEAST_CHUNK = 4096
DEPTH = 2
"""Packed chunks of a stream in flight: one is packed while the other travels."""
DEPTH_DIRECT = 64
"""Chunks of a stream under a datatype in flight: nearly always all of them."""

Message = list[Any]
"""What a send or receive takes: buffer, count and datatype."""
Started = tuple[MPI.Request, int]
"""A request, and the rank that it waits for."""
Tile = NDArray[Any]
Buffer = NDArray[np.uint8]
Bounds = tuple[slice, ...]


def opaque(tiles: Iterable[Tile | None]) -> list[Tile | None]:
    """Arrays whose elements are opaque bytes of the same size, whatever their strides."""
    sizes = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}
    return [
        None if tile is None else tile.view(sizes.get(tile.itemsize, f"V{tile.itemsize}"))
        for tile in tiles
    ]


def cut(shape: Sequence[int], limit: int) -> Iterator[Bounds]:
    """A piece in parts of at most `limit` elements, in order; of one at least.

    >>> [[(s.start, s.stop) for s in part] for part in cut((2, 3), 4)]
    [[(0, 1), (0, 3)], [(1, 2), (0, 3)]]
    """
    axis = next((a for a in range(len(shape)) if prod(shape[a + 1 :]) <= limit), 0)
    if not shape:
        yield ()
        return
    step = max(1, limit // prod(shape[axis + 1 :]))
    whole = tuple(slice(0, n) for n in shape[axis + 1 :])
    for outer in product(*map(range, shape[:axis])):
        front = tuple(slice(at, at + 1) for at in outer)
        for low in range(0, shape[axis], step):
            yield (*front, slice(low, min(low + step, shape[axis])), *whole)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a transfer waits for: requests, and the rank that each waits for, -1 for all of them.

    `last`: nothing is to be done before all of them are complete.
    """

    requests: list[MPI.Request]
    peers: list[int]
    last: bool = True


Transfer = Generator[Waiting, list[int], None]


@dataclass(frozen=True, slots=True)
class Link:
    """What the messages of a redistribution share."""

    comm: MPI.Intracomm
    tag: int
    datatypes: Datatypes


def address_of(tile: Tile) -> int:
    """Where the first element of a tile lies."""
    found: int = tile.__array_interface__["data"][0]
    return found


def places_of(tiles: Iterable[Tile | None]) -> list[Any]:
    """Where tiles lie: addresses and strides."""
    return [None if tile is None else (address_of(tile), tile.strides) for tile in tiles]


def _part(piece: Tile, part: Bounds) -> Tile:
    """A part of a piece as a view, of a scalar too."""
    index: Any = (*part, ...)
    found: Tile = piece[index]
    return found


class Stream:
    """The pieces from one rank to another, seen from one of them; `places` are on its own side.

    `packed`: its chunks go through buffers. `direct`: none does, and all are under way at once.
    """

    def __init__(
        self, peer: int, pieces: Sequence[Piece], side: str, itemsize: int, chunk: int, packed: bool
    ) -> None:
        self.peer, self.pieces = peer, pieces
        self.places = [getattr(piece, side) for piece in pieces]
        self.bytes = sum(piece.size for piece in pieces) * itemsize
        runs = sum(piece.size // piece.contiguous for piece in pieces)
        # Both ends see the same figures, so they choose and cut alike.
        self.packed = packed or self.bytes < SHORT_RUN * runs
        self.chunk = max(1, min(chunk, self.bytes) // itemsize)
        self.limits = []
        for piece in pieces:
            limit = LARGEST // itemsize
            if SLAB_RUNS is not None and piece.contiguous < piece.size:
                limit = min(limit, SLAB_RUNS * piece.contiguous)
            self.limits.append(limit)
        parts = (part for at, piece in enumerate(pieces) for part in self._cut(at, piece.shape))
        self.direct = not self.packed and next(islice(parts, DEPTH_DIRECT, None), None) is None
        # Kept for all calls: fresh memory costs more than the copy.
        self.buffers = [
            np.empty(self.chunk * itemsize, np.uint8) for _ in range(DEPTH if self.packed else 0)
        ]

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)

    def views(self, tiles: Iterable[Tile | None]) -> list[Tile]:
        """The pieces in each of these tiles, one tile after the other."""
        return [
            view(tile, place, piece.shape)
            for tile in tiles
            if tile is not None
            for place, piece in zip(self.places, self.pieces, strict=True)
        ]

    def messages(self, tiles: Iterable[Tile | None], datatypes: Datatypes) -> Iterator[Message]:
        """The chunks that travel from tile to tile. They hold addresses and no tiles."""
        return (datatypes.message(part) for [part] in self.chunks(self.views(tiles)))

    def _cut(self, number: int, shape: Sequence[int]) -> Iterator[Bounds]:
        """The parts of a piece that are a message each."""
        return cut(shape, self.limits[number % len(self.limits)])

    def chunks(self, views: Sequence[Tile]) -> Iterator[list[Tile]]:
        """The parts of the pieces that travel in one message each."""
        if not self.packed:
            for number, piece in enumerate(views):
                for part in self._cut(number, piece.shape):
                    yield [_part(piece, part)]
            return
        parts: list[Tile] = []
        left = self.chunk
        for piece in views:
            for part in cut(piece.shape, self.chunk):
                taken = _part(piece, part)
                if taken.size > left:
                    yield parts
                    parts, left = [], self.chunk
                parts.append(taken)
                left -= taken.size
        if parts:
            yield parts


def streams_of(
    pieces: Sequence[Piece], comm: MPI.Intracomm, itemsize: int, scratch: int, *, packed: bool
) -> tuple[list[Stream], list[Stream]]:
    """What this rank sends and receives, by peer."""
    # All buffers of a rank fit into the scratch; the chunk is the same on every rank.
    chunk = max(LEAST_CHUNK, scratch // (2 * DEPTH * max(1, comm.size - 1)))
    sends: dict[int, list[Piece]] = {}
    receives: dict[int, list[Piece]] = {}
    for piece in pieces:
        if piece.sender == comm.rank:
            sends.setdefault(piece.receiver, []).append(piece)
        else:
            receives.setdefault(piece.sender, []).append(piece)
    # In rotation, so that not all ranks begin with the same one.
    return (
        [
            Stream(peer, sends[peer], "take", itemsize, chunk, packed)
            for peer in sorted(sends, key=lambda peer: (peer - comm.rank) % comm.size)
        ],
        [
            Stream(peer, receives[peer], "put", itemsize, chunk, packed)
            for peer in sorted(receives, key=lambda peer: (comm.rank - peer) % comm.size)
        ],
    )


class Datatypes:
    """Committed strided datatypes, made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], MPI.Datatype] = {}
        self.open = True

    def message(self, part: Tile) -> Message:
        """What a send or receive takes for the elements of a strided array."""
        address = address_of(part)
        if part.flags.c_contiguous:
            return [MPI.buffer.fromaddress(address, part.nbytes), part.nbytes, MPI.BYTE]
        datatype = self.strided(part)
        # The size only passes a check: what is read and written is up to the datatype.
        return [MPI.buffer.fromaddress(address, datatype.extent), 1, datatype]

    def strided(self, part: Tile) -> MPI.Datatype:
        """The datatype of a strided array, relative to its first element."""
        key = part.shape, part.strides, part.itemsize
        if key not in self._made:
            self._made[key] = _strided(*key).Commit()
        return self._made[key]

    def together(self, base: int, views: Sequence[Tile]) -> MPI.Datatype:
        """The datatype of several strided arrays, relative to an address."""
        offsets = [address_of(piece) - base for piece in views]
        key = (*offsets, *((piece.shape, piece.strides) for piece in views), views[0].itemsize)
        if key not in self._made:
            types = [self.strided(piece) for piece in views]
            self._made[key] = MPI.Datatype.Create_struct([1] * len(types), offsets, types).Commit()
        return self._made[key]

    def free(self) -> None:
        """Release them."""
        for datatype in self._made.values():
            datatype.Free()
        self._made.clear()
        self.open = False


def _strided(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> MPI.Datatype:
    run = itemsize
    levels = [(n, s) for n, s in zip(shape, strides, strict=True) if n > 1]
    while levels and levels[-1][1] == run:
        run *= levels.pop()[0]
    if not levels:
        return MPI.BYTE.Create_contiguous(run)
    count, stride = levels.pop()
    made = MPI.BYTE.Create_hvector(count, run, stride)
    for count, stride in reversed(levels):
        inner, made = made, made.Create_hvector(count, 1, stride)
        inner.Free()
    return made


class Flow(Protocol):
    """Chunks that go one way, in slots that are used again when what was in them is done."""

    slots: int

    def post(self, slot: int) -> list[Started]:
        """Start the next chunk in a slot: its requests, none where none is left."""

    def finish(self, slot: int) -> None:
        """What is done when all requests of a slot are complete."""


class _Line:
    """A stream in one direction, bound to tiles."""

    def __init__(self, stream: Stream, tiles: Sequence[Tile | None], link: Link) -> None:
        self.peer = stream.peer
        self.slots = DEPTH if stream.packed else DEPTH_DIRECT
        self.link, self.buffers = link, stream.buffers
        self.chunks: Iterator[list[Tile]] = iter(())
        self.messages: Iterator[Message] = iter(())
        if stream.packed:
            self.chunks = stream.chunks(stream.views(tiles))
        else:
            self.messages = stream.messages(tiles, link.datatypes)
        self.packed: dict[int, list[Tile]] = {}

    def _next(self, slot: int) -> tuple[list[Tile], Message] | None:
        """The next chunk, if it is to be packed, and its message; None where there is none left."""
        message = next(self.messages, None)
        if message is not None:
            return [], message
        parts = next(self.chunks, None)
        if parts is None:
            return None
        if len(parts) == 1 and parts[0].flags.c_contiguous:
            return [], self.link.datatypes.message(parts[0])
        size = sum(part.nbytes for part in parts)
        return parts, [self.buffers[slot], size, MPI.BYTE]


class Outgoing(_Line):
    """Chunks to a peer, straight from the tiles or packed."""

    def post(self, slot: int) -> list[Started]:
        """Send the next chunk."""
        chunk = self._next(slot)
        if chunk is None:
            return []
        parts, message = chunk
        if parts:
            for part, packed in zip(parts, unpacked(self.buffers[slot], parts), strict=True):
                packed[...] = part
        return [(self.link.comm.Isend(message, self.peer, self.link.tag), self.peer)]

    def finish(self, slot: int) -> None:
        """The buffer may be used again."""


class Incoming(_Line):
    """Chunks from a peer, straight into the tiles or unpacked."""

    def post(self, slot: int) -> list[Started]:
        """Receive the next chunk."""
        chunk = self._next(slot)
        if chunk is None:
            return []
        self.packed[slot], message = chunk
        return [(self.link.comm.Irecv(message, self.peer, self.link.tag), self.peer)]

    def finish(self, slot: int) -> None:
        """Unpack the chunk."""
        parts = self.packed.pop(slot)
        if parts:
            for part, packed in zip(parts, unpacked(self.buffers[slot], parts), strict=True):
                part[...] = packed


def unpacked(buffer: Buffer, parts: Sequence[Tile]) -> Iterator[Tile]:
    """The parts of a chunk in the buffer, in their shapes and dtype."""
    at = 0
    for part in parts:
        yield buffer[at : at + part.nbytes].view(part.dtype).reshape(part.shape)
        at += part.nbytes


def transfer(flows: Sequence[Flow], meanwhile: Callable[[], Iterable[Started]]) -> Transfer:
    """Run flows to their ends; `meanwhile` is done once the first chunks are on their way.

    What it has started is waited for, and no more.
    """
    requests: list[MPI.Request] = []
    peers: list[int] = []
    owners: list[tuple[int, int] | None] = []
    left: dict[tuple[int, int], int] = {}
    more = set(range(len(flows)))

    def wait_for(started: Iterable[Started], owner: tuple[int, int] | None) -> None:
        for request, peer in started:
            requests.append(request)
            peers.append(peer)
            owners.append(owner)

    def post(number: int, slot: int) -> bool:
        started = flows[number].post(slot)
        if not started:
            more.discard(number)
        left[number, slot] = len(started)
        wait_for(started, (number, slot))
        return bool(started)

    for number, flow in enumerate(flows):
        all(post(number, slot) for slot in range(flow.slots))
    wait_for(meanwhile(), None)
    while requests:
        done = yield Waiting(requests, peers, last=not more)
        finished = [owner for at in done if (owner := owners[at]) is not None]
        for at in sorted(done, reverse=True):
            for column in (requests, peers, owners):
                del column[at]
        for number, slot in finished:
            left[number, slot] -= 1
            if not left[number, slot]:
                flows[number].finish(slot)
                if number in more:
                    post(number, slot)
