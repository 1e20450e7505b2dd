"""The pieces of an exchange as views of one rank's tiles.

A piece is, per dimension, a set of blocks of a tile. Where the blocks of each dimension lie at
equal distances, as they mostly do, the piece is a strided view, read and written in place. Blocks
1 and 3 of 4, of 2 elements each:

>>> tile = torch.arange(8)
>>> region = Region.of([np.array([1, 3])], (2,), (8,))
>>> region.view(tile).tolist()
[[2, 3], [6, 7]]
>>> Region.of([np.array([0, 1, 3])], (2,), (8,)).read(tile).tolist()
[[0, 1], [2, 3], [6, 7]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch

from redistrib.backends.torch.dtypes import as_bits
from redistrib.synth.plan.pieces import Blocks, Piece, Pieces

Tensor = Any


@dataclass(frozen=True, slots=True)
class Region:
    """Blocks of a tile: their places per dimension, each a slice or, if irregular, a list.

    `split` is the shape of the tile seen as (blocks, elements of a block) per dimension.
    """

    split: tuple[int, ...]
    places: tuple[slice | tuple[int, ...], ...]

    @classmethod
    def of(
        cls, blocks: Blocks | Sequence[Any], block: Sequence[int], tile: Sequence[int]
    ) -> Region:
        """The region of these blocks, of `block` elements, of a tile of `tile` elements."""
        split = [
            n for size, length in zip(block, tile, strict=True) for n in (length // size, size)
        ]
        return cls(tuple(split), tuple(_steps(places) for places in blocks))

    @property
    def strided(self) -> bool:
        """Whether it is a view of the tile."""
        return all(isinstance(places, slice) for places in self.places)

    def view(self, tile: Tensor) -> Tensor:
        """The region of a contiguous tile as a view of it: (blocks, elements) per dimension."""
        return tile.view(self.split)[self._index()]

    def read(self, tile: Tensor) -> Tensor:
        """Its elements: a view where it is one."""
        if self.strided:
            return self.view(tile)
        elements = tile.view(self.split)
        for dim, places in enumerate(self.places):
            if isinstance(places, slice):
                elements = elements[(slice(None),) * (2 * dim) + (places,)]
            else:
                elements = elements.index_select(2 * dim, torch.tensor(places, device=tile.device))
        return elements

    def write(self, tile: Tensor, elements: Tensor) -> None:
        """Put elements into the region of a contiguous tile."""
        if self.strided:
            view = self.view(tile)
            view.copy_(elements.view(view.shape))
            return
        as_bits(tile.view(self.split))[self._grid(tile.device)] = as_bits(elements)

    def _index(self) -> tuple[Any, ...]:
        return tuple(part for places in self.places for part in (places, slice(None)))

    def _grid(self, device: Any) -> tuple[Any, ...]:
        """One list of places per axis of `split`, each along an axis of its own."""
        axes = len(self.split)
        result = []
        for axis, size in enumerate(self.split):
            places = self.places[axis // 2] if axis % 2 == 0 else slice(None)
            listed = range(size)[places] if isinstance(places, slice) else places
            shape = [-1 if n == axis else 1 for n in range(axes)]
            result.append(torch.tensor(list(listed), device=device).view(shape))
        return tuple(result)


def _steps(places: Any) -> slice | tuple[int, ...]:
    """Ascending places as a slice, if they are at equal distances."""
    first, last = int(places[0]), int(places[-1])
    step = int(places[1]) - first if len(places) > 1 else 1
    if step > 0 and np.array_equal(places, np.arange(first, first + step * len(places), step)):
        return slice(first, last + 1, step)
    return tuple(int(place) for place in places)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece from one rank's point of view: where it is in its tile, and its shape there."""

    region: Region
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Regions:
    """What one rank sends, keeps and receives in an exchange, by the position of the other."""

    sends: dict[int, Part]
    keeps: list[tuple[Part, Part]]
    receives: dict[int, Part]


def regions_of(
    pieces: Pieces,
    before: Sequence[int],
    after: Sequence[int],
    sender: int | None,
    receiver: int | None,
) -> Regions:
    """The pieces that a rank has a part in, as position `sender` before and `receiver` after it.

    `before` and `after` are the shapes of its tiles.
    """
    sends: dict[int, Part] = {}
    keeps: list[tuple[Part, Part]] = []
    receives: dict[int, Part] = {}

    def part(blocks: Blocks, tile: Sequence[int]) -> Part:
        region = Region.of(blocks, pieces.block, tile)
        counts = [
            n
            for size, places in zip(pieces.block, blocks, strict=True)
            for n in (len(places), size)
        ]
        return Part(region, tuple(counts))

    mine = [p for p in pieces.pieces if sender == p.sender or receiver == p.receiver]
    for piece in merged(mine):
        gives, takes = piece.sender == sender, piece.receiver == receiver
        if gives and takes:
            keeps.append((part(piece.take, before), part(piece.put, after)))
            continue
        if gives:
            # Law: what is served from one tile into another by one rank is a product of blocks.
            assert piece.receiver not in sends, "one message of one part between two ranks"
            sends[piece.receiver] = part(piece.take, before)
        if takes:
            receives[piece.sender] = part(piece.put, after)
    return Regions(sends, keeps, receives)


def merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces between the same two, joined where they differ along one dimension only.

    Both ends of a message join the same pieces, so they agree on the order of its elements.
    """

    def key(piece: Piece) -> tuple[int, int]:
        return piece.sender, piece.receiver

    result = []
    for _, group in groupby(sorted(pieces, key=key), key):
        pending = list(group)
        for dim in range(len(pending[0].take)):
            joined: dict[object, list[Piece]] = {}
            for piece in pending:
                others = [
                    (n, tuple(take.tolist()), tuple(put.tolist()))
                    for n, (take, put) in enumerate(zip(piece.take, piece.put, strict=True))
                    if n != dim
                ]
                joined.setdefault(tuple(others), []).append(piece)
            pending = [_joined(same, dim) for same in joined.values()]
        result += pending
    return result


def _joined(pieces: Sequence[Piece], dim: int) -> Piece:
    """Pieces that differ along one dimension, as one, in the order of the places they are put."""
    if len(pieces) == 1:
        return pieces[0]
    ends = []
    puts = np.concatenate([piece.put[dim] for piece in pieces])
    order = np.argsort(puts)
    for end in ("take", "put"):
        blocks = list(getattr(pieces[0], end))
        blocks[dim] = np.concatenate([getattr(piece, end)[dim] for piece in pieces])[order]
        ends.append(tuple(blocks))
    return replace(pieces[0], take=ends[0], put=ends[1])
