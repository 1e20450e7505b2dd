"""The primitive operations on one rank's tile, over torch.distributed.

Reshapes, transposes and picks are views: nothing is copied before a message needs it in one run of
memory. What communicates is posted, and gives what is on its way; whoever walks the program waits
for it before the next operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from redistrib.backends.torch.blocks import pieces_of_blocks
from redistrib.backends.torch.choices import Choices
from redistrib.backends.torch.dtypes import identity, torch_dtype
from redistrib.backends.torch.messages import Posted, Traffic, post
from redistrib.backends.torch.reductions import reduced
from redistrib.backends.torch.regions import Part, Regions, regions_of
from redistrib.synth.plan.tile_program import (
    Fetch,
    Gather,
    Groups,
    Operation,
    Reduce,
    Scatter,
    Send,
    Shape,
    Swap,
)
from redistrib.types.mesh import Mesh

Tensor = Any
Value = Any
"""A tile, or what is `Posted` and will make one."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The ranks that have the positions of a plan's meshes, and where this one is.

    device: where its tiles are. groups: process groups that exist already, by their ranks.
    """

    rank: int
    ranks: Mapping[Mesh, tuple[int, ...]]
    device: Any = "cpu"
    groups: Mapping[tuple[int, ...], Any] = field(default_factory=dict)

    def position(self, mesh: Mesh) -> int | None:
        """This rank's position in a mesh, if it has one."""
        ranks = self.ranks[mesh]
        return ranks.index(self.rank) if self.rank in ranks else None


class TilePrimitives:
    """The operations on the tile of a rank, which has a position in the mesh of each operation."""

    def __init__(self, placed: Placed, choose: Choices) -> None:
        self.placed, self.choose, self.traffic = placed, choose, Traffic()
        self._members: dict[Groups, tuple[tuple[int, ...], int]] = {}
        self._regions: dict[Fetch, Regions] = {}

    # --- on this rank alone --------------------------------------------------------------------

    def reshape(self, tile: Tensor, shape: Shape) -> Tensor:
        """A view where the elements lie so, else a copy."""
        return tile.reshape(shape)

    def transpose(self, tile: Tensor, order: tuple[int, ...]) -> Tensor:
        """A view."""
        return tile.permute(order)

    def pick(self, pieces: Tensor, groups: Groups) -> Tensor:
        """A view."""
        return pieces[self._members_of(groups)[1]]

    def place(self, piece: Tensor, groups: Groups, reduction: str) -> Tensor:
        """Written into a tile that holds the identity."""
        result = piece.new_empty((groups.size, *piece.shape))
        result.fill_(identity(piece.dtype, reduction))
        result[self._members_of(groups)[1]] = piece
        return result

    def keep_first(self, tile: Tensor, groups: Groups, reduction: str) -> Tensor:
        """The tile itself at the first place, one that holds the identity at the others."""
        if self._members_of(groups)[1] == 0:
            return tile
        return torch.empty_like(tile).fill_(identity(tile.dtype, reduction))

    # --- with others ---------------------------------------------------------------------------

    def gather(self, tile: Tensor, groups: Groups) -> Value:
        """The tile to each member, theirs into one tensor by place."""
        ranks, place = self._members_of(groups)
        tile = tile.contiguous()
        stacked = tile.new_empty((len(ranks), *tile.shape))
        if (group := self._group(Gather, ranks, tile)) is not None:
            work = dist.all_gather_into_tensor(
                stacked.view(-1), tile.view(-1), group, async_op=True
            )
            return self._posted([work], stacked, ranks, tile.nbytes * (len(ranks) - 1))
        stacked[place] = tile
        others = [(n, rank) for n, rank in enumerate(ranks) if n != place]
        return post(
            {rank: tile for _, rank in others},
            {rank: stacked[n] for n, rank in others},
            lambda: stacked,
            self.traffic,
        )

    def swap(self, pieces: Tensor, groups: Groups) -> Value:
        """Piece n to member n, theirs into one tensor by place."""
        ranks, place = self._members_of(groups)
        arrived = torch.empty(pieces.shape, dtype=pieces.dtype, device=pieces.device)
        if (group := self._group(Swap, ranks, pieces)) is not None:
            pieces = pieces.contiguous()
            work = dist.all_to_all_single(arrived, pieces, group=group, async_op=True)
            return self._posted([work], arrived, ranks, pieces[0].nbytes * (len(ranks) - 1))
        arrived[place] = pieces[place]
        others = [(n, rank) for n, rank in enumerate(ranks) if n != place]
        return post(
            {rank: pieces[n].contiguous() for n, rank in others},
            {rank: arrived[n] for n, rank in others},
            lambda: arrived,
            self.traffic,
        )

    def scatter(self, pieces: Tensor, groups: Groups, reduction: str) -> Value:
        """Piece n to member n; those that arrive are reduced in order of place."""
        ranks, place = self._members_of(groups)
        group = self._group(Scatter, ranks, pieces)
        if group is not None:
            result = pieces.new_empty(pieces.shape[1:])
            work = dist.reduce_scatter_tensor(
                result.view(-1),
                pieces.contiguous().view(-1),
                _operator(reduction),
                group,
                async_op=True,
            )
            return self._posted([work], result, ranks, result.nbytes * (len(ranks) - 1))
        others = [(n, rank) for n, rank in enumerate(ranks) if n != place]
        arrived = pieces.new_empty((len(others), *pieces.shape[1:]))
        addends = {n: arrived[row] for row, (n, _) in enumerate(others)} | {place: pieces[place]}
        return post(
            {rank: pieces[n].contiguous() for n, rank in others},
            {rank: addends[n] for n, rank in others},
            lambda: reduced([addends[n] for n in range(len(ranks))], reduction),
            self.traffic,
        )

    def reduce(self, tile: Tensor, groups: Groups, reduction: str) -> Value:
        """A scatter of equal chunks, which are then gathered: no more bytes than a reduction."""
        ranks, place = self._members_of(groups)
        group = self._group(Reduce, ranks, tile)
        if group is not None:
            result = tile.contiguous().clone()
            work = dist.all_reduce(result, _operator(reduction), group, async_op=True)
            return self._posted(
                [work], result, ranks, 2 * (tile.nbytes - tile.nbytes // len(ranks))
            )
        flat = tile.reshape(-1)
        # Chunks differ by one element at most.
        cuts = [flat.numel() * n // len(ranks) for n in range(len(ranks) + 1)]
        chunks = [flat[a:b] for a, b in pairwise(cuts)]
        others = [(n, rank) for n, rank in enumerate(ranks) if n != place]
        arrived = flat.new_empty((len(others), chunks[place].numel()))
        addends = {n: arrived[row] for row, (n, _) in enumerate(others)} | {place: chunks[place]}

        def gather() -> Value:
            result = torch.empty_like(flat)
            parts = [result[a:b] for a, b in pairwise(cuts)]
            reduced([addends[n] for n in range(len(ranks))], reduction, parts[place])
            return post(
                {rank: parts[place] for _, rank in others},
                {rank: parts[n] for n, rank in others},
                lambda: result.view(tile.shape),
                self.traffic,
            )

        return post(
            {rank: chunks[n] for n, rank in others},
            {rank: addends[n] for n, rank in others},
            gather,
            self.traffic,
        )

    def send(self, tile: Tensor, operation: Send) -> Value:
        """The tile to whoever is to have it, another's in its place."""
        ranks = self.placed.ranks[operation.mesh]
        position = self.placed.position(operation.mesh)
        sources = operation.sources().tolist()
        tile = tile.contiguous()
        arrived = tile if sources[position] == position else torch.empty_like(tile)
        receives = {ranks[sources[position]]: arrived} if sources[position] != position else {}
        targets = [ranks[to] for to, source in enumerate(sources) if source == position != to]
        return post(dict.fromkeys(targets, tile), receives, lambda: arrived, self.traffic)

    def fetch(self, tile: Tensor | None, operation: Fetch) -> Value:
        """The pieces that others need out of the tile, those that it needs into a new one."""
        before, after = operation.before, operation.after
        sender, receiver = (self.placed.position(t.mesh) for t in (before, after))
        regions = self._regions_of(operation, sender, receiver)
        sends: dict[int, Tensor] = {}
        target: Tensor | None = None
        if tile is not None:
            tile = tile.contiguous()
            theirs = self.placed.ranks[after.mesh]
            sends = {theirs[to]: _message(part, tile) for to, part in regions.sends.items()}
        staged: list[tuple[Part, Tensor]] = []
        receives: dict[int, Tensor] = {}
        if receiver is not None:
            target = torch.empty(
                after.tile_shape_at(receiver),
                dtype=torch_dtype(after.dtype),
                device=self.placed.device,
            )
            ranks = self.placed.ranks[before.mesh]
            for position, part in regions.receives.items():
                if (run := _run(part, target)) is not None:
                    receives[ranks[position]] = run
                    continue
                receives[ranks[position]] = message = target.new_empty(part.shape)
                staged.append((part, message))
            for source, place in regions.keeps:
                place.region.write(target, source.region.read(tile).reshape(place.shape))

        def unpack() -> Tensor | None:
            for part, message in staged:
                part.region.write(target, message)
            return target

        return post(sends, receives, unpack, self.traffic)

    def _members_of(self, groups: Groups) -> tuple[tuple[int, ...], int]:
        """The ranks of this rank's group, by place, and its own place."""
        members = self._members.get(groups)
        if members is None:
            position = self.placed.position(groups.mesh)
            ranks = self.placed.ranks[groups.mesh]
            rows = groups.members()
            row, place = (int(n[0]) for n in np.nonzero(rows == position))
            members = tuple(ranks[p] for p in rows[row].tolist()), place
            self._members[groups] = members
        return members

    def _regions_of(self, operation: Fetch, sender: int | None, receiver: int | None) -> Regions:
        regions = self._regions.get(operation)
        if regions is None:
            before = (
                operation.before.tile_shape
                if sender is None
                else operation.before.tile_shape_at(sender)
            )
            after = (
                operation.after.tile_shape
                if receiver is None
                else operation.after.tile_shape_at(receiver)
            )
            pieces = (
                pieces_of_blocks(operation.before, operation.after)
                if operation.step.blocks is not None
                else operation.pieces()
            )
            regions = regions_of(pieces, before, after, sender, receiver)
            self._regions[operation] = regions
        return regions

    def _group(self, kind: type[Operation], ranks: tuple[int, ...], tile: Tensor) -> Any:
        """The process group of these ranks, if the operation is to be its collective."""
        if kind not in self.choose.collectives or tile.dtype not in _COLLECTIVE or not tile.numel():
            return None
        return self.placed.groups.get(ranks)

    def _posted(
        self, works: list[Any], result: Tensor, ranks: tuple[int, ...], moved: int
    ) -> Posted:
        """A collective on its way, which brings this rank so many bytes at least."""
        self.traffic.received += moved
        self.traffic.sent += moved
        return Posted(works, lambda: result, ranks)


_COLLECTIVE = frozenset(
    {torch.int8, torch.uint8, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)
"""The dtypes in which every backend has collectives."""


def _operator(reduction: str) -> Any:
    """The reduction as collectives have it."""
    names = {"sum": "SUM", "prod": "PRODUCT", "max": "MAX", "min": "MIN"}
    return getattr(dist.ReduceOp, names[reduction])


def _run(part: Part, tile: Tensor) -> Tensor | None:
    """The part as one run of the tile's memory, which a message can be read or written in."""
    if not part.region.strided:
        return None
    view = part.region.view(tile)
    return view if view.is_contiguous() else None


def _message(part: Part, tile: Tensor) -> Tensor:
    """The part of a tile; in place where it is one run of memory."""
    return part.region.read(tile).contiguous()
