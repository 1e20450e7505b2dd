"""Replicas of a target on other ranks each receive a part, and gather the others' parts.

Where one rank has an array and all are to have it, that one sends two tiles in all, however many
ranks there are. The plan says whether, and which part each receives: its exchange leads to a type
from which an all_gather leads to the target. On 4 ranks, from rank 0 alone,

    f32[8]  ->  f32[8{x}]  ->  f32[8]

rank 0 sends elements 2 and 3 to rank 1, 4 and 5 to rank 2, 6 and 7 to rank 3, and at once its own
part, 0 and 1, to all of them. Then these send their two to each other; rank 0 has all already. Each
part goes straight into the tile of the target, where it lies in place: there is no tile in between.

A rank that holds some of what the others' parts are made of would receive that again, so where
there is one, each is sent what it lacks in one exchange.
"""

from __future__ import annotations

from functools import cache
from math import prod

from redistrib.backends.mpi.exchange import End, Phase, TileExchange, Tiles
from redistrib.backends.mpi.flows import Channel
from redistrib.backends.mpi.index_ranges import IndexRanges, common
from redistrib.backends.mpi.layouts import Box
from redistrib.backends.mpi.overlaps import Holders, OverlapSearch
from redistrib.backends.mpi.requests import Transfer
from redistrib.backends.mpi.shared import SharedTiles
from redistrib.synth.plan.collectives import AllGather, Exchange
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType


def parts_of(plan: Plan | None) -> ArrayType | None:
    """The type of the parts, if a plan is to move parts to another mesh and gather them there."""
    match plan.steps if plan is not None else ():
        case (Exchange(mesh=mesh), AllGather()) if plan is not None and mesh is not None:
            return plan.types[1]
        case _:
            return None


def receives_once(before: End, parts: End, after: End) -> bool:
    """Whether each rank holds all of its target, or nothing of it but in its own part."""
    boxes = zip(before.boxes(), parts.boxes(), after.boxes(), strict=True)
    return all(
        _shared(box, target) in (_shared(box, part), _size(target))
        for box, part, target in boxes
        if box is not None and part is not None and target is not None
    )


class Spread(Phase):
    """An exchange from the source to the parts, and one of the parts among the targets."""

    name = "the exchange and gather of parts"

    def __init__(
        self, before: End, parts: End, after: End, channel: Channel, itemsize: int, scratch: int
    ) -> None:
        super().__init__(before, after)
        placed = cache(IndexRanges.placed)  # equal sets are one object
        sources: list[tuple[int, Box]] = []
        first: list[tuple[int, Box]] = []
        known: list[tuple[int, Box]] = []
        held: list[tuple[int, Box]] = []
        second: list[tuple[int, Box]] = []
        boxes = zip(before.boxes(), parts.boxes(), after.boxes(), strict=True)
        for rank, (box, part, target) in enumerate(boxes):
            if box is not None:
                sources.append((rank, box))
            if part is None or target is None:
                continue
            if box is not None and _shared(box, target) == _size(target):
                first.append((rank, target))
                known.append((rank, tuple(placed(p, b) for p, b in zip(part, box, strict=True))))
                continue
            share = tuple(placed(p, w) for p, w in zip(part, target, strict=True))
            first.append((rank, share))
            held.append((rank, share))
            second.append((rank, target))
        search = OverlapSearch(channel.comm.rank, channel.comm.size)
        shapes = before.tile_shape, after.tile_shape
        crossing = list(search.overlaps(Holders(sources), Holders(first), *shapes))
        # What a rank with all of its tile sends to the others needs no wait.
        crossing += search.overlaps(Holders(known), Holders(second), *shapes)
        overlaps = search.overlaps(
            Holders(held), Holders(second), after.tile_shape, after.tile_shape
        )
        # The own part is where it belongs.
        gathered = [overlap for overlap in overlaps if overlap.sender != overlap.receiver]
        half = scratch // 2
        self.stages = (
            TileExchange(before, after, crossing, channel, itemsize, half),
            TileExchange(after, after, gathered, channel, itemsize, half),
        )
        self.sent_bytes = sum(stage.sent_bytes for stage in self.stages)
        self.received_bytes = sum(stage.received_bytes for stage in self.stages)
        self.scratch_bytes = sum(stage.scratch_bytes for stage in self.stages)

    def share(self, shared: SharedTiles) -> None:
        """From now on the targets are these tiles."""
        for stage in self.stages:
            stage.share(shared)
        self.scratch_bytes = sum(stage.scratch_bytes for stage in self.stages)

    def free(self) -> None:
        """Release the messages that are kept."""
        for stage in self.stages:
            stage.free()

    def run(self, sources: Tiles, targets: Tiles) -> Transfer:
        """Receive the own part, then exchange the parts."""
        crossing, gathering = self.stages
        yield from crossing.run(sources, targets)
        yield from gathering.run(targets, targets)


def _shared(box: Box, other: Box) -> int:
    """Elements that two boxes share."""
    return prod(int(common(a, b)[0].sum()) for a, b in zip(box, other, strict=True))


def _size(box: Box) -> int:
    return prod(ranges.size for ranges in box)
