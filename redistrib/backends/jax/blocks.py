"""The pieces of an exchange as blocks of a tile: cut out in one device's program, and put together.

A tile is seen as `[*blocks, *block]`, so that a piece is picked by leading indices like those of
numpy.ix_. In a round the pieces are padded to one shape; what a device does not send it takes from
block 0, and what it does not receive goes out of bounds, where it is dropped. The tables of indices
have a row for each device, of which a program reads its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from redistrib.backends.jax.colouring import padded_shape
from redistrib.synth.plan.pieces import Blocks, Piece, Pieces

Tile = Any  # a traced array
Rounds = Sequence[Sequence[Piece]]


def cut(pieces: Pieces, turns: Rounds, devices: int, position: Any, tile: Tile) -> list[Tile]:
    """What the device at a position sends in each round, `[*blocks, *block]`."""
    rank = len(pieces.block)
    split = [size for pair in zip(pieces.before, pieces.block, strict=True) for size in pair]
    blocks = tile.reshape(split).transpose([*range(0, 2 * rank, 2), *range(1, 2 * rank, 2)])
    return [
        blocks[_index([(p.sender, p.take) for p in turn], padded_shape(turn), devices, position, 0)]
        for turn in turns
    ]


def join(
    pieces: Pieces, turns: Rounds, devices: int, position: Any, arrived: Sequence[Tile]
) -> Tile:
    """The tile of the device at a position, of what came in each round."""
    rank = len(pieces.block)
    nowhere = max(pieces.after, default=0)
    blocks = jnp.zeros((*pieces.after, *pieces.block), arrived[0].dtype)
    for turn, buffer in zip(turns, arrived, strict=True):
        put = [(piece.receiver, piece.put) for piece in turn]
        index = _index(put, padded_shape(turn), devices, position, nowhere)
        blocks = blocks.at[index].set(buffer, mode="drop")
    tile = blocks.transpose([axis for dim in range(rank) for axis in (dim, rank + dim)])
    return tile.reshape([n * size for n, size in zip(pieces.after, pieces.block, strict=True)])


def _index(
    chosen: Sequence[tuple[int, Blocks]],
    shape: Sequence[int],
    devices: int,
    position: Any,
    padding: int,
) -> tuple[Tile, ...]:
    """The blocks chosen for the device at a position, padded to a shape, like numpy.ix_."""
    index = []
    for dim, length in enumerate(shape):
        table = np.full((devices, length), padding, np.int32)
        for device, blocks in chosen:
            table[device, : len(blocks[dim])] = blocks[dim]
        expand = tuple(slice(None) if d == dim else None for d in range(len(shape)))
        index.append(jnp.asarray(table)[position][expand])
    return tuple(index)
