"""One fused exchange between two ends: each rank sends what the others want of its tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from mpi4py import MPI

from redistrib.backends.mpi.datatypes import Tile, address_of, places_of
from redistrib.backends.mpi.flows import Channel, Flow, Incoming, Outgoing, transfer
from redistrib.backends.mpi.layouts import Box, boxes_of
from redistrib.backends.mpi.overlaps import Overlap, OverlapSearch, view
from redistrib.backends.mpi.requests import Message, Outstanding, Transfer
from redistrib.backends.mpi.shared import SharedTiles
from redistrib.backends.mpi.streams import Stream, opaque, streams_of
from redistrib.synth.plan.collectives import CollectivePermute
from redistrib.synth.plan.routing import permute_sources
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.tile import numbers

SMALL = 1 << 20
"""Bytes of source and target tile below which one Alltoallw beats messages per peer."""

EMPTY: Message = [None, 0, MPI.BYTE]
"""The message which says that something was copied into a tile.

It goes by the tag of its redistribution, so that calls under way at once keep theirs apart, in
whatever order each rank comes to their ends.
"""

T = TypeVar("T")
Shape = tuple[int, ...]
Tiles = Sequence[Tile | None]
"""Arrays of one type; None on ranks that have no tile of it."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a redistribution: per rank of the communicator its position, if it has one.

    reverse: whether tiles are seen with their dimensions in reverse, F-ordered ones as C-ordered.
    """

    type: ArrayType
    positions: tuple[int | None, ...]
    reverse: bool = False

    @classmethod
    def on(cls, t: ArrayType, ranks: Sequence[int], size: int, reverse: bool = False) -> End:
        """The end whose positions are on these ranks, of `size` in all."""
        position_of = {rank: position for position, rank in enumerate(ranks)}
        return cls(t, tuple(position_of.get(rank) for rank in range(size)), reverse)

    def shape(self, rank: int) -> Shape | None:
        """The shape of a rank's tile, if it has one."""
        position = self.positions[rank]
        if position is None:
            return None
        shape = self.type.tile_shape_at(position)
        return shape[::-1] if self.reverse else shape

    def boxes(self) -> list[Box | None]:
        """What each rank holds."""
        found = boxes_of(self.type)
        if self.reverse:
            found = [box[::-1] for box in found]
        return [None if p is None else found[p] for p in self.positions]

    def shapes(self) -> list[Shape]:
        """The shape of each rank's tile; that of no elements for ranks without."""
        return [self.shape(rank) or () for rank in range(len(self.positions))]

    def groups(self, digits: Sequence[DeviceDigit]) -> list[int]:
        """The value of some digits on each rank."""
        values = numbers(self.type.mesh, digits)
        return [-1 if p is None else int(values[p]) for p in self.positions]


class Phase:
    """What one rank does between two ends; its bytes are those of one array, on this rank."""

    name: ClassVar[str]
    sent_bytes = 0
    received_bytes = 0
    scratch_bytes = 0
    communicates = False
    """Whether any rank sends anything. Only the ranks together know."""

    def __init__(self, before: End, after: End) -> None:
        self.before, self.after = before, after

    def run(self, sources: Tiles, targets: Tiles, *, blocking: bool) -> Transfer:
        """Fill target tiles from source tiles. `blocking`: the caller waits for the end."""
        raise NotImplementedError

    def share(self, shared: SharedTiles) -> None:
        """From now on the targets are these tiles: what can be copied to one of them is."""


class TileExchange(Phase):
    """Each rank sends the intersections of its tile with the others' target tiles."""

    name = "the exchange"

    def __init__(
        self,
        before: End,
        after: End,
        overlaps: Sequence[Overlap],
        channel: Channel,
        itemsize: int,
        scratch: int,
    ) -> None:
        super().__init__(before, after)
        self.channel = channel
        self.own = [overlap for overlap in overlaps if overlap.sender == overlap.receiver]
        remote = [overlap for overlap in overlaps if overlap.sender != overlap.receiver]
        self.sends, self.receives = streams_of(
            remote, channel.comm, itemsize, scratch, packed=False
        )
        self.sent_bytes = sum(stream.bytes for stream in self.sends)
        self.received_bytes = sum(stream.bytes for stream in self.receives)
        self.scratch_bytes = sum(s.scratch_bytes for s in (*self.sends, *self.receives))
        total = before.type.tile_size + after.type.tile_size
        # Within one array a collective is no choice: equal addresses mean MPI_IN_PLACE to Open MPI.
        self.small = total * itemsize < SMALL and before is not after
        self.near: list[tuple[Stream, Tile | None]] = []
        self.awaited: list[int] = []
        self._bound: tuple[list[Any], Any] = [], None

    def share(self, shared: SharedTiles) -> None:
        """From now on what goes to one of these tiles is copied there."""
        self.small = False
        near = dict(zip(shared.tiles, opaque(shared.tiles.values()), strict=True))
        self.near = [(s, near[s.peer]) for s in self.sends if s.peer in near]
        self.awaited = [s.peer for s in self.receives if s.peer in shared.ranks]
        self.sends = [stream for stream in self.sends if stream.peer not in near]
        self.receives = [stream for stream in self.receives if stream.peer not in shared.ranks]
        self.scratch_bytes = sum(s.scratch_bytes for s in (*self.sends, *self.receives))

    def run(self, sources: Tiles, targets: Tiles, *, blocking: bool) -> Transfer:
        """Send, receive, and copy meanwhile what does not travel."""
        sources, targets = opaque(sources), opaque(targets)
        if not self.communicates:
            self._copy_own(sources, targets)
        elif self.small and blocking and len(sources) == 1:
            # Not a batch: its datatype would have the distances between the tiles of one call.
            self._copy_own(sources, targets)
            self._at_once(sources, targets)
        else:
            streams = (*self.sends, *self.receives)
            with self.channel.outstanding(sources, targets, streams) as outstanding:
                yield from self._by_messages(outstanding, sources, targets)

    def _by_messages(self, outstanding: Outstanding, sources: Tiles, targets: Tiles) -> Transfer:
        """Messages for each peer; what does not travel is copied meanwhile."""
        datatypes = self.channel.datatypes

        def copy() -> None:
            for stream, near in self.near:
                _copy(stream.overlaps, sources[0], near)
                outstanding.send(EMPTY, stream.peer)
            self._copy_own(sources, targets)

        self._start(outstanding, sources, targets)
        flows: list[Flow] = [
            *(Incoming(s, targets, datatypes) for s in self.receives if not s.direct),
            *(Outgoing(s, sources, datatypes) for s in self.sends if not s.direct),
        ]
        yield from transfer(flows, outstanding, copy)

    def _copy_own(self, sources: Tiles, targets: Tiles) -> None:
        for source, target in zip(sources, targets, strict=True):
            if source is not None and target is not None:
                _copy(self.own, source, target)

    def _start(self, outstanding: Outstanding, sources: Tiles, targets: Tiles) -> None:
        """Start all that travels straight from tile to tile, and await word of what is copied."""

        def addressed(streams: Sequence[Stream], tiles: Tiles) -> list[tuple[Message, int]]:
            return [
                (message, stream.peer)
                for stream in streams
                if stream.direct
                for message in stream.messages(tiles, self.channel.datatypes)
            ]

        receives, sends = self._kept(
            "messages",
            lambda: (addressed(self.receives, targets), addressed(self.sends, sources)),
            sources,
            targets,
        )
        for peer in self.awaited:
            outstanding.receive(EMPTY, peer)
        for message, peer in receives:
            outstanding.receive(message, peer)
        for message, peer in sends:
            outstanding.send(message, peer)

    def _at_once(self, sources: Tiles, targets: Tiles) -> None:
        """One Alltoallw: the quickest for small arrays.

        Only where the caller waits for it: ranks may end two calls that were started in different
        orders, and collectives have one order.
        """
        size = self.channel.comm.size

        def addressed(streams: Sequence[Stream], tiles: Tiles) -> Message:
            counts, types = [0] * size, [MPI.BYTE] * size
            base = 0 if tiles[0] is None else address_of(tiles[0])
            for stream in streams:
                counts[stream.peer] = 1
                types[stream.peer] = self.channel.datatypes.together(base, stream.views(tiles))
            return [MPI.buffer.fromaddress(base, 0), counts, [0] * size, types]

        messages = self._kept(
            "at once",
            lambda: (addressed(self.sends, sources), addressed(self.receives, targets)),
            sources,
            targets,
        )
        self.channel.comm.Alltoallw(*messages)

    def _kept(self, way: str, make: Callable[[], T], sources: Tiles, targets: Tiles) -> T:
        """What is made for these tiles, or was in the last call: programs reuse their tiles."""
        places = [way, *places_of((*sources, *targets))]
        if places != self._bound[0]:
            self._bound = places, make()
        found: T = self._bound[1]
        return found


def _copy(overlaps: Sequence[Overlap], source: Tile | None, target: Tile | None) -> None:
    """Copy overlaps from tile to tile."""
    assert source is not None
    assert target is not None
    for overlap in overlaps:
        view(target, overlap.put, overlap.shape)[...] = view(source, overlap.take, overlap.shape)


def exchange(
    before: End,
    after: End,
    channel: Channel,
    itemsize: int,
    scratch: int,
    within: Sequence[int] | None = None,
) -> TileExchange:
    """The exchange between two ends with the same partial axes.

    Ranks exchange with those of their group: by the number in `within` where there is one; else
    addends stay with their like.
    """
    search = OverlapSearch(channel.comm.rank)
    of_source, of_target = within, within
    if of_source is None or of_target is None:
        of_source, of_target = before.groups(after.type.partial), after.groups(after.type.partial)
    found = [
        overlap
        for sources, targets in _by_group(before, of_source, after, of_target)
        for overlap in search.overlaps(sources, targets, before.shapes(), after.shapes())
    ]
    return TileExchange(before, after, found, channel, itemsize, scratch)


def _by_group(
    before: End, of_source: Sequence[int], after: End, of_target: Sequence[int]
) -> Iterator[tuple[list[Box | None], list[Box | None]]]:
    """What ranks hold and want, for one value of a digit after the other."""
    sources, targets = before.boxes(), after.boxes()
    for value in sorted({value for value in of_source if value >= 0}):
        yield (
            [box if at == value else None for box, at in zip(sources, of_source, strict=True)],
            [box if at == value else None for box, at in zip(targets, of_target, strict=True)],
        )


def permute(
    step: CollectivePermute, before: End, after: End, channel: Channel, itemsize: int, scratch: int
) -> TileExchange:
    """A permute that hands whole tiles on, for one that moves the addends of a partial array."""
    search = OverlapSearch(channel.comm.rank)
    boxes, shapes = before.boxes(), before.shapes()
    rank_of = {position: rank for rank, position in enumerate(before.positions)}
    found: list[Overlap] = []
    for position, source in enumerate(permute_sources(before.type.mesh, step).tolist()):
        sender, receiver = rank_of[source], rank_of[position]
        box = boxes[sender]
        held = [box if rank == sender else None for rank in range(len(boxes))]
        wanted = [box if rank == receiver else None for rank in range(len(boxes))]
        found += search.overlaps(held, wanted, shapes, shapes)
    return TileExchange(before, after, found, channel, itemsize, scratch)
