"""Flows: chunks on their way, a few in flight per peer and direction, in slots used in turn.

Of five chunks that go to one peer by way of two buffers, 0 and 1 are packed into slots 0 and 1 and
sent. Where the send from slot 1 completes first, chunk 2 is packed into that one, and so on; the
receiver unpacks each slot as it fills.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mpi4py import MPI

from redistrib.backends.mpi.adding import Adding
from redistrib.backends.mpi.copying import copy
from redistrib.backends.mpi.datatypes import Datatypes, Tile
from redistrib.backends.mpi.requests import Message, Outstanding, Owner, Transfer
from redistrib.backends.mpi.streams import DEPTH_DIRECT, Buffer, Stream


@dataclass(slots=True)
class Channel:
    """What the phases of a redistribution share.

    packs: the ranks with which bytes travel faster if they are packed. tag: that of the call under
    way.
    """

    comm: MPI.Intracomm
    datatypes: Datatypes
    packs: Container[int] = ()
    adding: Adding = Adding()  # noqa: RUF009 - frozen
    tag: int = 0

    def outstanding(self, *arrays: object) -> Outstanding:
        """No requests yet; the arrays are what they will read and write."""
        return Outstanding(self.comm, self.tag, *arrays)


class Flow(Protocol):
    """Chunks that go one way, in slots that are used again when what was in them is done."""

    slots: int

    def post(self, outstanding: Outstanding, owner: Owner) -> int:
        """Start the next chunk in a slot: how many requests, 0 where no chunk is left."""

    def finish(self, slot: int) -> None:
        """What is done when all requests of a slot are complete."""


class _Line:
    """Streams in one direction, one after the other, bound to tiles."""

    def __init__(
        self,
        streams: Sequence[Stream],
        tiles: Sequence[Tile | None],
        datatypes: Datatypes,
        buffers: Sequence[Buffer] = (),
    ) -> None:
        self.slots = len(buffers) or DEPTH_DIRECT
        self.datatypes, self.buffers = datatypes, buffers
        self.chunks: Iterator[tuple[int, list[Tile]]] = iter(())
        self.messages: Iterator[tuple[int, Message]] = iter(())
        if buffers:
            self.chunks = ((s.peer, parts) for s in streams for parts in s.chunks(s.views(tiles)))
        else:
            self.messages = (
                (s.peer, message) for s in streams for message in s.messages(tiles, datatypes)
            )
        self.packed: dict[int, list[Tile]] = {}

    def _next(self, slot: int) -> tuple[int, list[Tile], Message] | None:
        """A peer, the next chunk, if it is to be packed, and its message; None after the last."""
        entry = next(self.messages, None)
        if entry is not None:
            return entry[0], [], entry[1]
        chunk = next(self.chunks, None)
        if chunk is None:
            return None
        peer, parts = chunk
        if len(parts) == 1 and parts[0].flags.c_contiguous:
            return peer, [], self.datatypes.message(parts[0])
        size = sum(part.nbytes for part in parts)
        return peer, parts, [self.buffers[slot], size, MPI.BYTE]


class Outgoing(_Line):
    """Chunks to a peer, straight from the tiles or packed."""

    def post(self, outstanding: Outstanding, owner: Owner) -> int:
        """Send the next chunk."""
        slot = owner[1]
        chunk = self._next(slot)
        if chunk is None:
            return 0
        peer, parts, message = chunk
        if parts:
            for part, packed in zip(parts, unpacked(self.buffers[slot], parts), strict=True):
                copy(packed, part)
        outstanding.send(message, peer, owner)
        return 1

    def finish(self, slot: int) -> None:
        """The buffer may be used again."""


class Incoming(_Line):
    """Chunks from a peer, straight into the tiles or unpacked."""

    def post(self, outstanding: Outstanding, owner: Owner) -> int:
        """Receive the next chunk."""
        slot = owner[1]
        chunk = self._next(slot)
        if chunk is None:
            return 0
        peer, self.packed[slot], message = chunk
        outstanding.receive(message, peer, owner)
        return 1

    def finish(self, slot: int) -> None:
        """Unpack the chunk."""
        parts = self.packed.pop(slot)
        if parts:
            for part, packed in zip(parts, unpacked(self.buffers[slot], parts), strict=True):
                copy(part, packed)


def unpacked(buffer: Buffer, parts: Sequence[Tile]) -> Iterator[Tile]:
    """The parts of a chunk in the buffer, in their shapes and dtype."""
    begin = 0
    for part in parts:
        yield buffer[begin : begin + part.nbytes].view(part.dtype).reshape(part.shape)
        begin += part.nbytes


def transfer(
    flows: Sequence[Flow], outstanding: Outstanding, meanwhile: Callable[[], None]
) -> Transfer:
    """Run flows to their ends; `meanwhile` is done once the first chunks are on their way.

    What is outstanding already, and what that starts, is waited for, and no more.
    """
    pending: dict[Owner, int] = {}
    more = set(range(len(flows)))

    def post(number: int, slot: int) -> bool:
        started = flows[number].post(outstanding, (number, slot))
        if not started:
            more.discard(number)
        pending[number, slot] = started
        return bool(started)

    for number, flow in enumerate(flows):
        all(post(number, slot) for slot in range(flow.slots))
    meanwhile()
    while outstanding.requests:
        outstanding.last = not more
        for number, slot in outstanding.remove((yield outstanding)):
            pending[number, slot] -= 1
            if not pending[number, slot]:
                flows[number].finish(slot)
                if number in more:
                    post(number, slot)
