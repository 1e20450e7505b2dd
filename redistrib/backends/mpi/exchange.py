"""One fused exchange between two ends: each rank sends what the others want of its tile.

On 2 ranks, from `f32[4{x}, 6]` to `f32[4, 6{x}]`, rank 0 holds rows 0 and 1 and wants columns 0 to
2. It copies its 2 x 3 elements of these columns into place, sends the other 2 x 3 to rank 1, and
receives as many of rows 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mpi4py import MPI

from redistrib.backends.mpi.copying import by_runs, copy, opaque
from redistrib.backends.mpi.datatypes import Datatypes, Tile, places_of
from redistrib.backends.mpi.flows import Channel, Flow, Incoming, Outgoing, transfer
from redistrib.backends.mpi.layouts import Box, Subarray, boxes_of
from redistrib.backends.mpi.overlaps import Holders, Overlap, OverlapSearch, view
from redistrib.backends.mpi.requests import Message, Outstanding, Owner, Repeated, Transfer
from redistrib.backends.mpi.shared import SharedTiles
from redistrib.backends.mpi.streams import DEPTH, Buffer, Stream, buffers_for, streams_of
from redistrib.synth.plan.collectives import CollectivePermute
from redistrib.synth.plan.routing import permute_sources
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.tile import numbers

EMPTY: Message = [None, 0, MPI.BYTE]
"""The message which says that a tile may be written, or that something was copied into it.

It goes by the tag of its redistribution, so that calls under way at once keep theirs apart, in
whatever order each rank comes to their ends.
"""

Shape = tuple[int, ...]
Tiles = Sequence[Tile | None]
"""Arrays of one type; None on ranks that have no tile of it."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a redistribution: per rank of the communicator its position, if it has one.

    part: the sub-array that is moved, None for all of it.
    reverse: whether tiles are seen with their dimensions in reverse, F-ordered ones as C-ordered.
    """

    type: ArrayType
    positions: tuple[int | None, ...]
    part: Subarray | None = None
    reverse: bool = False

    @classmethod
    def on(
        cls, t: ArrayType, ranks: Sequence[int], size: int, part: Subarray | None, reverse: bool
    ) -> End:
        """The end whose positions are on these ranks, of `size` in all."""
        position_of = {rank: position for position, rank in enumerate(ranks)}
        return cls(t, tuple(position_of.get(rank) for rank in range(size)), part, reverse)

    def shape(self, rank: int) -> Shape | None:
        """The shape of a rank's tile, if it has one."""
        position = self.positions[rank]
        if position is None:
            return None
        shape = self.type.tile_shape_at(position)
        return shape[::-1] if self.reverse else shape

    def boxes(self) -> list[Box | None]:
        """What each rank holds."""
        boxes = boxes_of(self.type, self.part)
        if self.reverse:
            boxes = [box[::-1] for box in boxes]
        return [None if p is None else boxes[p] for p in self.positions]

    def tile_shape(self, rank: int) -> Shape:
        """The same, of a rank that has a tile."""
        return self.shape(rank) or ()

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
    at_once = False
    """Whether all that it sends and receives is so from its begin, from tile to tile."""
    communicates = False
    """Whether any rank sends anything. Only the ranks together know."""

    def __init__(self, before: End, after: End) -> None:
        self.before, self.after = before, after

    def run(self, sources: Tiles, targets: Tiles) -> Transfer:
        """Fill target tiles from source tiles."""
        raise NotImplementedError

    def share(self, shared: SharedTiles) -> None:
        """From now on the targets are these tiles: what can be copied to one of them is."""

    def free(self) -> None:
        """Release what is kept between calls."""


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
        # Two chunks are under way in each direction, whatever the number of peers: each message
        # costs its ranks a wait for one another.
        chunk = scratch // (2 * DEPTH)
        self.sends, self.receives = streams_of(
            remote, channel.comm, itemsize, chunk, packs=channel.packs
        )
        self.sent_bytes = sum(stream.bytes for stream in self.sends)
        self.received_bytes = sum(stream.bytes for stream in self.receives)
        self._scratch = scratch
        self._latest: Outstanding | None = None
        self._take_buffers()
        # With shared memory: what is copied to ranks of this node, and who copies to this one.
        self.shared_sends: list[tuple[Stream, Tile | None]] = []
        self.writers: list[int] = []
        self.at_once = all(stream.direct for stream in (*self.sends, *self.receives))
        self._kept: list[tuple[list[Any], Repeated]] = []

    def share(self, shared: SharedTiles) -> None:
        """From now on what goes to one of these tiles is copied there."""
        self.at_once = False
        tiles = dict(zip(shared.tiles, opaque(shared.tiles.values()), strict=True))
        self.shared_sends = [(s, tiles[s.peer]) for s in self.sends if s.peer in tiles]
        self.writers = [s.peer for s in self.receives if s.peer in shared.ranks]
        self.sends = [stream for stream in self.sends if stream.peer not in tiles]
        self.receives = [stream for stream in self.receives if stream.peer not in shared.ranks]
        self._take_buffers()

    def _take_buffers(self) -> None:
        self._buffers = tuple(
            buffers_for(streams, self._scratch // 2) for streams in (self.sends, self.receives)
        )
        self.scratch_bytes = sum(buffer.nbytes for side in self._buffers for buffer in side)

    def run(self, sources: Tiles, targets: Tiles) -> Transfer:
        """Send, receive, and copy meanwhile what does not travel."""
        sources, targets = opaque(sources), opaque(targets)
        if not (self.sends or self.receives or self.shared_sends or self.writers):
            self._copy_own(sources, targets)
            return
        if self._latest is not None and self._latest.given_up:
            self._take_buffers()  # MPI may still read and write the others
        with self.channel.outstanding(sources, targets, self._buffers) as outstanding:
            self._latest = outstanding
            datatypes = self.channel.datatypes
            flows: list[Flow] = [
                *(
                    _SharedSend(stream, sources[0], tile, outstanding)
                    for stream, tile in self.shared_sends
                ),
                *_lines(Incoming, self.receives, targets, datatypes, self._buffers[1]),
                *_lines(Outgoing, self.sends, sources, datatypes, self._buffers[0]),
            ]

            def meanwhile() -> None:
                for peer in self.writers:
                    outstanding.receive(EMPTY, peer)
                self._copy_own(sources, targets)

            for peer in self.writers:  # which may write into our tile from now on
                outstanding.send(EMPTY, peer)
            outstanding.repeat(self._direct(sources, targets))
            yield from transfer(flows, outstanding, meanwhile)

    def prepared(
        self, source: Tile | None, target: Tile | None
    ) -> tuple[Repeated, list[tuple[Tile, Tile]]]:
        """The messages of a call on these tiles, and its copies: pairs of target and source."""
        [source], [target] = opaque([source]), opaque([target])
        copies = [
            by_runs(
                view(target, overlap.put, overlap.shape), view(source, overlap.take, overlap.shape)
            )
            for overlap in self.own
            if source is not None and target is not None
        ]
        return self._direct([source], [target]), copies

    def _copy_own(self, sources: Tiles, targets: Tiles) -> None:
        for source, target in zip(sources, targets, strict=True):
            if source is not None and target is not None:
                _copy(self.own, source, target)

    def _direct(self, sources: Tiles, targets: Tiles) -> Repeated:
        """What travels straight from tile to tile: programs reuse their tiles, so it is kept."""
        channel = self.channel
        places = [channel.tag, *places_of((*sources, *targets))]
        for bound, kept in self._kept:
            if bound == places and not kept.under_way:
                return kept
        self.free()
        repeated = Repeated(channel.comm, channel.tag)
        for streams, tiles, receives in (
            (self.receives, targets, True),
            (self.sends, sources, False),
        ):
            for stream in (stream for stream in streams if stream.direct):
                for message in stream.messages(tiles, channel.datatypes):
                    repeated.add(message, stream.peer, receives=receives)
        self._kept.append((places, repeated))
        return repeated

    def free(self) -> None:
        """Release the messages that are kept, but those of a call that is under way."""
        for _, kept in self._kept:
            if not kept.under_way:
                kept.free()
        self._kept = [(bound, kept) for bound, kept in self._kept if kept.under_way]


def _lines(
    line: type[Incoming | Outgoing],
    streams: Sequence[Stream],
    tiles: Tiles,
    datatypes: Datatypes,
    buffers: Sequence[Buffer],
) -> Iterator[Flow]:
    """The flows of streams that are not direct; those with buffers share these.

    They take turns in the order of the streams, by the distance of the ranks, so no rank waits for
    one that waits for it: what is to go to ranks that are nearer is on its way everywhere.
    """
    if buffered := [stream for stream in streams if stream.buffered]:
        yield line(buffered, tiles, datatypes, buffers)
    for stream in streams:
        if not (stream.buffered or stream.direct):
            yield line([stream], tiles, datatypes)


class _SharedSend:
    """What is copied to a rank of this node, once that has said that its tile may be written."""

    slots = 1

    def __init__(
        self, stream: Stream, source: Tile | None, target: Tile | None, outstanding: Outstanding
    ) -> None:
        self.stream, self.source, self.target = stream, source, target
        self.outstanding = outstanding
        self.posted = False

    def post(self, outstanding: Outstanding, owner: Owner) -> int:
        """Wait for the word of the rank, once."""
        if self.posted:
            return 0
        self.posted = True
        outstanding.receive(EMPTY, self.stream.peer, owner)
        return 1

    def finish(self, slot: int) -> None:  # noqa: ARG002
        """Copy, and say so."""
        _copy(self.stream.overlaps, self.source, self.target)
        self.outstanding.send(EMPTY, self.stream.peer)


def _copy(overlaps: Sequence[Overlap], source: Tile | None, target: Tile | None) -> None:
    """Copy overlaps from tile to tile."""
    assert source is not None
    assert target is not None
    for overlap in overlaps:
        put, take = overlap.put, overlap.take
        copy(view(target, put, overlap.shape), view(source, take, overlap.shape))


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
    rank = channel.comm.rank
    search = OverlapSearch(rank, channel.comm.size)
    of_source, of_target = within, within
    if of_source is None or of_target is None:
        of_source, of_target = before.groups(after.type.partial), after.groups(after.type.partial)
    sources, targets = before.boxes(), after.boxes()
    overlaps: list[Overlap] = []
    for group in sorted({of_source[rank], of_target[rank]} - {-1}):
        held, wanted = (
            Holders(members(boxes, numbers_of, group))
            for boxes, numbers_of in ((sources, of_source), (targets, of_target))
        )
        overlaps += search.overlaps(held, wanted, before.tile_shape, after.tile_shape)
    return TileExchange(before, after, overlaps, channel, itemsize, scratch)


def members(
    boxes: Sequence[Box | None], groups: Sequence[int], group: int
) -> Iterator[tuple[int, Box]]:
    """The ranks of a group that have a box."""
    for rank, (box, number) in enumerate(zip(boxes, groups, strict=True)):
        if box is not None and number == group:
            yield rank, box


def permute(
    step: CollectivePermute, before: End, after: End, channel: Channel, itemsize: int, scratch: int
) -> TileExchange:
    """A permute that hands whole tiles on, for one that moves the addends of a partial array."""
    rank, boxes = channel.comm.rank, before.boxes()
    search = OverlapSearch(rank, channel.comm.size)
    rank_of = {position: rank for rank, position in enumerate(before.positions)}
    overlaps: list[Overlap] = []
    for position, source in enumerate(permute_sources(before.type.mesh, step).tolist()):
        sender, receiver = rank_of[source], rank_of[position]
        box = boxes[sender]
        if rank in (sender, receiver) and box is not None:
            held, wanted = (Holders([(end, box)]) for end in (sender, receiver))
            overlaps += search.overlaps(held, wanted, before.tile_shape, before.tile_shape)
    return TileExchange(before, after, overlaps, channel, itemsize, scratch)
