"""The pieces of an exchange between uneven types, element by element of each dimension.

On x=4, of `f32[10{x}:ceil] -> f32[10{x}:balanced]`, blocks 3, 3, 3, 1 and 3, 3, 2, 2, the last
device takes index 8 from its neighbour and keeps index 9:

>>> from redistrib.types.mesh import Mesh
>>> ends = (ArrayType.parse(f"f32[10{{x}}:{rule}]", Mesh(x=4)) for rule in ("ceil", "balanced"))
>>> for piece in pieces_of_blocks(*ends).pieces[-2:]:
...     take, put = piece.take[0].tolist(), piece.put[0].tolist()
...     print(piece.sender, "->", piece.receiver, take, "->", put)
2 -> 3 [2] -> [0]
3 -> 3 [0] -> [1]
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from redistrib.synth.plan.blocks import Cells, cells_of, owners_of, senders_of_blocks
from redistrib.synth.plan.pieces import Piece, Pieces
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import Positions, digit_values
from redistrib.types.mesh import whole_axes


def pieces_of_blocks(before: ArrayType, after: ArrayType) -> Pieces:
    """Who sends what to whom between two types of one array; blocks are of one element."""
    rank = len(before.shape)
    cells = [cells_of(before, after, dim) for dim in range(rank)]
    pieces = tuple(_pieces(before, after, cells)) if before.size else ()
    return Pieces((1,) * rank, before.tile_shape, after.tile_shape, pieces)


def _pieces(before: ArrayType, after: ArrayType, cells: list[Cells]) -> Iterator[Piece]:
    axes = whole_axes(after.mesh)
    for receiver in range(after.mesh.num_devices):
        position = np.array(receiver)
        wanted = after.tile(receiver)
        parts = [
            list(_by_owner(of_dim, int(digit_values(owners_of(after, dim), position, axes))))
            for dim, of_dim in enumerate(cells)
        ]
        for chosen in product(*parts):
            owners = [np.array(owner) for owner, _ in chosen]
            sender = int(senders_of_blocks(before, after, position, owners))
            held = before.tile(sender)
            take, put = (
                tuple(
                    np.searchsorted(indices, part)
                    for indices, (_, part) in zip(tile, chosen, strict=True)
                )
                for tile in (held, wanted)
            )
            yield Piece(sender, receiver, take, put)


def _by_owner(cells: Cells, after: int) -> Iterator[tuple[int, Positions]]:
    """The indices of a dimension that one owner gets, by their owners before."""
    mine = np.flatnonzero((cells.after == after) & (cells.lengths > 0))
    for owner in np.unique(cells.before[mine]).tolist():
        runs = [n for n in mine.tolist() if cells.before[n] == owner]
        indices = [np.arange(cells.starts[n], cells.starts[n] + cells.lengths[n]) for n in runs]
        yield owner, np.concatenate(indices)
