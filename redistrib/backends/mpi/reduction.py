"""Reductions over partial axes: each rank reduces a share, then the ranks exchange the shares.

The ranks that want a tile share its elements out among themselves. Each receives the addends of its
share, chunk by chunk, and reduces them in the order of their senders straight into its result; then
they exchange the shares. No device receives more than it must, no intermediate tile is made, and
the result depends on neither the MPI nor the order of arrival.

On 2 ranks, from `f32[6] sum{x}` to `f32[6]`, each has an addend of 6 elements and wants the sum.
The share of rank 0 is elements 0 to 2: it receives them of rank 1's addend, adds them to its own,
sends rank 1 the three sums, and receives the sums of elements 3 to 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from mpi4py import MPI

from redistrib.backends.mpi.copying import opaque
from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.exchange import End, Phase, Shape, TileExchange, Tiles, members
from redistrib.backends.mpi.flows import Channel, Flow, Outgoing, transfer, unpacked
from redistrib.backends.mpi.index_ranges import IndexRanges
from redistrib.backends.mpi.layouts import Box
from redistrib.backends.mpi.overlaps import Holders, Overlap, OverlapSearch, Region
from redistrib.backends.mpi.requests import Outstanding, Owner, Transfer
from redistrib.backends.mpi.shared import SharedTiles
from redistrib.backends.mpi.streams import DEPTH, Buffer, Stream, buffers_for, streams_of
from redistrib.synth.planner.reductions import PartialRoles


class Reduction(Phase):
    """From an end with partial axes to one where some or all of them are reduced.

    `within`: the number of each rank's group, where ranks reduce with those of their group only.
    `placed`: what comes straight into the result, and is reduced there.
    """

    name = "the reduction"

    def __init__(
        self,
        before: End,
        after: End,
        channel: Channel,
        dtype: np.dtype[Any],
        scratch: int,
        within: Sequence[int] | None = None,
    ) -> None:
        super().__init__(before, after)
        self.channel, self.dtype = channel, dtype
        self.reduction = before.type.reduction or "sum"
        kept = after.type.partial
        addends = before.groups(PartialRoles.without(before.type.partial, kept))
        of_source, of_target = before.groups(kept), after.groups(kept)
        if within is not None:
            of_source = of_target = list(within)
        rank = channel.comm.rank
        search = OverlapSearch(rank, channel.comm.size)
        groups = {of_source[rank], of_target[rank]} - {-1}
        targets, spread, alone = _shares(after, of_target, groups, search)
        half = scratch // 2
        self.spread = TileExchange(after, after, spread, channel, dtype.itemsize, half)
        with_role: dict[tuple[int, int], list[tuple[int, Box]]] = {}
        for other, (box, *role) in enumerate(zip(before.boxes(), of_source, addends, strict=True)):
            if box is not None and role[0] in groups:
                with_role.setdefault((role[0], role[1]), []).append((other, box))
        rows: dict[tuple[Region, Shape], list[Overlap]] = {}
        remote: list[Overlap] = []
        for (group, addend), holders in sorted(with_role.items()):
            # All addends of the own share; and the own addend, whoever wants it.
            if group != of_target[rank] and (group, addend) != (of_source[rank], addends[rank]):
                continue
            shapes = before.tile_shape, after.tile_shape
            for overlap in search.overlaps(Holders(holders), targets[group], *shapes):
                if overlap.receiver == rank:
                    rows.setdefault((overlap.put, overlap.shape), []).append(overlap)
                if overlap.sender != overlap.receiver:
                    remote.append(overlap)
        self._room = scratch if alone else half
        # What merges has buffers at both ends. What does not has some where it comes in, but for
        # the first addend of another rank, which goes into place; not where `out` may be the tile.
        peers = channel.comm.size - 1
        chunk = self._room // (2 * DEPTH * max(1, peers))
        bounded = self._room // (DEPTH * max(1, peers - alone))
        self.sends, receives = streams_of(remote, channel.comm, dtype.itemsize, chunk, bounded)
        self._streams = (*self.sends, *receives)
        self._latest: Outstanding | None = None
        self.lanes = _lanes(rows, receives, dtype.itemsize)
        firsts = (self.first_of_others(streams) for streams in self.lanes)
        self.placed = {first for first in firsts if alone and not first.merges}
        self.sent_bytes = sum(s.bytes for s in self.sends) + self.spread.sent_bytes
        self.received_bytes = sum(s.bytes for s in receives) + self.spread.received_bytes
        self.scratch_bytes = self._take_buffers() + self.spread.scratch_bytes

    def _take_buffers(self) -> int:
        """Buffers of their own for all streams; gives their bytes.

        A rank that merges what it sends, and not what it receives, has room for half as many.
        """
        buffered = [s for s in self._streams if s.buffered and s not in self.placed]
        depth = DEPTH if DEPTH * sum(s.chunk_bytes for s in buffered) <= self._room else 1
        self.buffers: dict[Stream, list[Buffer]] = {stream: [] for stream in self._streams}
        self.buffers |= {stream: buffers_for([stream], 0, depth) for stream in buffered}
        return sum(buffer.nbytes for buffers in self.buffers.values() for buffer in buffers)

    def first_of_others(self, streams: Sequence[Stream]) -> Stream:
        """The first of these that comes from another rank."""
        return next(stream for stream in streams if stream.peer != self.channel.comm.rank)

    def share(self, shared: SharedTiles) -> None:
        """From now on the shares are copied into these tiles."""
        self.scratch_bytes -= self.spread.scratch_bytes
        self.spread.share(shared)
        self.scratch_bytes += self.spread.scratch_bytes

    def free(self) -> None:
        """Release the messages that are kept."""
        self.spread.free()

    def run(self, sources: Tiles, targets: Tiles) -> Transfer:
        """Reduce the own share, then exchange the shares within the targets."""
        if self._latest is not None and self._latest.given_up:
            self._take_buffers()  # MPI may still read and write the others
        opaque_sources, opaque_targets = opaque(sources), opaque(targets)
        flows: list[Flow] = [
            _Lane(self, streams, opaque_sources, opaque_targets) for streams in self.lanes
        ]
        datatypes = self.channel.datatypes
        flows += [Outgoing([s], opaque_sources, datatypes, self.buffers[s]) for s in self.sends]
        with self.channel.outstanding(sources, targets, self.buffers) as outstanding:
            self._latest = outstanding
            yield from transfer(flows, outstanding, lambda: None)
        yield from self.spread.run(targets, targets)


class _Lane:
    """The addends of one part of the share: a chunk from each sender, reduced together."""

    def __init__(
        self,
        phase: Reduction,
        streams: Sequence[Stream],
        sources: Tiles,
        targets: Tiles,
    ) -> None:
        channel = phase.channel
        self.channel, self.dtype, self.reduction = channel, phase.dtype, phase.reduction
        self.streams, self.buffers, self.placed = streams, phase.buffers, phase.placed
        put = phase.first_of_others(streams)
        depths = [len(phase.buffers[s]) for s in streams if s.peer != channel.comm.rank]
        self.slots = max(depths) or DEPTH
        self.chunks = put.chunks(put.views(targets))
        self.own: Iterator[list[Tile]] = iter(())
        for stream in streams:
            if stream.peer == channel.comm.rank:
                stream.chunk, stream.limits = put.chunk, put.limits
                self.own = stream.chunks(stream.views(sources))
        self.waiting: dict[int, tuple[list[Tile], list[Tile]]] = {}

    def post(self, outstanding: Outstanding, owner: Owner) -> int:
        """Receive the next chunk of every other sender."""
        slot = owner[1]
        parts = next(self.chunks, None)
        if parts is None:
            return 0
        self.waiting[slot] = parts, next(self.own, [])
        size = sum(part.nbytes for part in parts)
        others = [stream for stream in self.streams if stream.peer != self.channel.comm.rank]
        for stream in others:
            if stream in self.placed:
                message = self.channel.datatypes.message(parts[0])
            else:
                message = [self.buffers[stream][slot], size, MPI.BYTE]
            outstanding.receive(message, stream.peer, owner)
        return len(others)

    def finish(self, slot: int) -> None:
        """Reduce, in the order of the senders."""
        parts, local = self.waiting.pop(slot)
        addends = [
            local
            if stream.peer == self.channel.comm.rank
            else parts
            if stream in self.placed
            else list(unpacked(self.buffers[stream][slot], parts))
            for stream in self.streams
        ]
        for part, *contributions in zip(parts, *addends, strict=True):
            values = [addend.view(self.dtype) for addend in contributions]
            if any(np.may_share_memory(part, value) for value in values[2:]):
                # In place: the own addends are where the first two go.
                values = [value.copy() for value in values]
            self.channel.adding.reduce(part.view(self.dtype), values, self.reduction)


def _shares(
    after: End, of_target: Sequence[int], groups: Iterable[int], search: OverlapSearch
) -> tuple[dict[int, Holders], list[Overlap], bool]:
    """Per group the part of its tile that each rank reduces; and how the parts reach the others.

    Also whether there are no others, as each tile is wanted by one rank only; so on all ranks.
    """
    shares: dict[int, Holders] = {}
    alone = True
    spread: list[Overlap] = []
    boxes = after.boxes()
    narrow = cache(IndexRanges.narrow)  # equal sets are one object
    for group in sorted(groups):
        wanting = Holders(members(boxes, of_target, group))
        alone &= all(len(ranks) == 1 for ranks in wanting.ranks_of.values())
        shares[group] = Holders(
            (rank, part)
            for box, ranks in wanting.ranks_of.items()
            for rank, part in zip(ranks, _parts(box, len(ranks), narrow), strict=True)
            if part is not None
        )
        box = wanting.box_of.get(search.rank)
        if box is not None:
            ranks, held = wanting.ranks_of[box], shares[group].box_of
            parts = Holders((rank, held[rank]) for rank in ranks if rank in held)
            same = Holders((rank, box) for rank in ranks)
            overlaps = search.overlaps(parts, same, after.tile_shape, after.tile_shape)
            # The own share is where it belongs.
            spread += [overlap for overlap in overlaps if overlap.sender != overlap.receiver]
    return shares, spread, alone


def _lanes(
    rows: Mapping[tuple[Region, Shape], list[Overlap]], receives: Sequence[Stream], itemsize: int
) -> list[list[Stream]]:
    """Per lane what each sender contributes, in the order of the addends."""
    by_peer = {stream.peer: stream for stream in receives}
    lanes: dict[tuple[int, ...], list[list[Overlap]]] = {}
    for overlaps in rows.values():
        lanes.setdefault(tuple(overlap.sender for overlap in overlaps), []).append(overlaps)
    return [
        [
            by_peer.get(sender) or Stream(sender, of_sender, "take", itemsize, 0, 0)
            for sender, of_sender in zip(senders, zip(*of_lane, strict=True), strict=True)
        ]
        for senders, of_lane in lanes.items()
    ]


def _parts(
    box: Box, count: int, narrow: Callable[[IndexRanges, int, int], IndexRanges]
) -> Iterator[Box | None]:
    """A box in parts of nearly one size, along the dimension that is cut most evenly."""
    if not box or count == 1:
        # A scalar: the first rank reduces it.
        yield from [box, *[None] * (count - 1)]
        return
    sizes = [runs.size for runs in box]
    dim = min(range(len(box)), key=lambda d: (-(-sizes[d] // count) * count / max(sizes[d], 1), d))
    first = min(box[dim].places.tolist(), default=0)  # a sub-array may begin inside the tile
    for part in range(count):
        low, high = (first + sizes[dim] * number // count for number in (part, part + 1))
        yield (*box[:dim], narrow(box[dim], low, high), *box[dim + 1 :])
