"""Who sends what to whom in an exchange: decided here, for every backend.

An exchange names no devices: it says by digits who sends an element. `exchange_senders` reads that
for any elements at once; `pieces_of` groups the elements of all tiles by sender and receiver. Sizes
and places are in blocks: per dimension, the largest run of elements that no tile of the two types
cuts. On 2 devices, rows become columns in pieces of one block of 2 x 4 elements:

>>> from redistrib.synth.plan.routing import exchange_traffic
>>> from redistrib.types.mesh import Mesh, home_positions
>>> mesh = Mesh(x=2)
>>> rows, columns = (ArrayType.parse(text, mesh) for text in ("f32[4{x}, 8]", "f32[4, 8{x}]"))
>>> exchanged = pieces_of(exchange_traffic(rows, columns).exchange, rows, columns)
>>> exchanged.block, exchanged.before, exchanged.after
((2, 4), (1, 2), (2, 1))
>>> for piece in exchanged.pieces:
...     take, put = ([blocks.tolist() for blocks in end] for end in (piece.take, piece.put))
...     print(piece.sender, "->", piece.receiver, take, "->", put)
0 -> 0 [[0], [0]] -> [[0], [0]]
1 -> 0 [[0], [0]] -> [[1], [0]]
0 -> 1 [[0], [1]] -> [[0], [0]]
1 -> 1 [[0], [1]] -> [[1], [0]]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import gcd, prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import BackendError
from redistrib.synth.plan.collectives import Exchange
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import Positions, digit_values, with_digits
from redistrib.types.mesh import home_positions, whole_axes

Blocks = tuple[Positions, ...]
"""Per dimension the places of blocks in a tile, ascending."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Blocks per dimension of the sender's tile, and where they go in the receiver's tile.

    A piece is a product of sets of blocks, ascending on both sides, so the two ends agree on the
    order of its elements. Sender and receiver are positions, each on its own mesh.
    """

    sender: int
    receiver: int
    take: Blocks
    put: Blocks

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of blocks per dimension."""
        return tuple(len(blocks) for blocks in self.take)


@dataclass(frozen=True, slots=True)
class Pieces:
    """All pieces of an exchange, by receiver; `block` is the shape of a block in elements.

    `before` and `after` are the shapes of the two tiles in blocks.
    """

    block: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def block_size(self) -> int:
        """Elements of a block."""
        return prod(self.block)

    def received(self, num_devices: int) -> list[int]:
        """Elements that each device receives from others."""
        total = [0] * num_devices
        for piece in self.pieces:
            if piece.sender != piece.receiver:
                total[piece.receiver] += prod(piece.shape) * self.block_size
        return total


def exchange_senders(
    step: Exchange,
    before: ArrayType,
    receivers: Positions,
    wanted: Sequence[Positions],
    counts: Sequence[int],
) -> Positions:
    """The position that sends each element of `before` to each receiver.

    Per dimension, of `counts` elements in all, `wanted` holds indices; with the receivers, which
    are positions of the mesh after the exchange, they broadcast to the shape of the result. Raises
    BackendError where the sender does not hold the element.
    """
    axes = whole_axes(before.mesh)
    axes_after = axes if step.mesh is None else whole_axes(step.mesh)
    senders = receivers if step.mesh is None else np.zeros_like(receivers)
    owned = []
    for device, index in before.placements:
        value = wanted[index.dim] // (counts[index.dim] // index.end) % index.size
        senders = with_digits(senders, [device], value, axes)
        owned.append((device, value))
    for theirs, mine in step.replicas:
        senders = with_digits(senders, [theirs], digit_values([mine], receivers, axes_after), axes)
    if step.mesh is not None and not step.tables:
        home = home_positions(before.mesh, step.mesh)[receivers]
        holds = home >= 0
        for device, value in owned:
            holds = holds & (digit_values([device], home, axes) == value)
        senders = np.where(holds, home, senders)
    for table in step.tables:
        rows = np.full((len(table.rows), prod(owner.size for owner in table.owners)), -1, np.intp)
        for number, row in enumerate(table.rows):
            for owned_value, coordinate in row:
                rows[number, owned_value] = coordinate
        row_numbers = (
            receivers if step.mesh is not None else digit_values(table.axes, receivers, axes)
        )
        coordinates = rows[row_numbers, digit_values(table.owners, senders, axes)]
        _check_held(coordinates >= 0, before)
        senders = with_digits(senders, table.axes, coordinates, axes)
    if step.replicas or step.tables:
        for device, value in owned:
            _check_held(digit_values([device], senders, axes) == value, before)
    return senders


def _check_held(held: NDArray[np.bool_], before: ArrayType) -> None:
    """Raise BackendError unless every sender holds what it is asked for."""
    if not held.all():
        raise BackendError(
            f"a sender of an exchange holds what it sends; the routing asks a device for an "
            f"element of {before} that is not in its tile",
            type=before,
        )


def pieces_of(
    step: Exchange,
    before: ArrayType,
    after: ArrayType,
    held: ArrayType | None = None,
    receivers: Iterable[int] | None = None,
) -> Pieces:
    """The pieces of an exchange between two types, of all receivers or of some.

    `held` is what devices really have where `before` is a slice of it: nothing is sliced first.
    Raises BackendError where a sender does not hold what it is asked for.
    """
    held = held or before
    block = tuple(
        gcd(*sizes) for sizes in zip(*(t.block_shape for t in (held, before, after)), strict=True)
    )
    if 0 in block:
        return Pieces(block, held.tile_shape, after.tile_shape, ())
    counts = [n // size for n, size in zip(before.shape, block, strict=True)]
    # The same layouts of an array with one element per block.
    source, target, tiles = (
        ArrayType(t.mesh, t.dtype, counts, t.dims, t.partial, t.reduction)
        for t in (before, after, held)
    )
    tile = cache(tiles.tile)
    result = []
    for receiver in range(target.mesh.num_devices) if receivers is None else receivers:
        for sender, indices, put in _of_receiver(step, source, target, receiver):
            take = tuple(_places(*ends) for ends in zip(tile(sender), indices, strict=True))
            result.append(Piece(sender, receiver, take, put))
    return Pieces(block, tiles.tile_shape, target.tile_shape, tuple(result))


def _places(held: Positions, wanted: Positions) -> Positions:
    """Where the wanted indices are among those that a sender holds; both ascend."""
    places = np.searchsorted(held, wanted)
    if not np.array_equal(held.take(places, mode="clip"), wanted):
        raise BackendError("an exchange asks a device for elements that it does not hold")
    return places


def _of_receiver(
    step: Exchange, source: ArrayType, target: ArrayType, receiver: int
) -> Iterator[tuple[int, Blocks, Blocks]]:
    """Per piece of a receiver: its sender, its indices, and their places in the receiver's tile."""
    rank = len(source.shape)
    # Per dimension, the indices of a tile fall into parts, by the values of their owners.
    parts: list[list[tuple[Positions, Positions]]] = []
    firsts = []
    for dim, indices in enumerate(target.tile(receiver)):
        owners = np.zeros_like(indices)
        for _, index in source.placements:
            if index.dim == dim:
                value = indices // (source.shape[dim] // index.end) % index.size
                owners = owners * index.size + value
        values, first, part_of = np.unique(owners, return_index=True, return_inverse=True)
        places = [np.flatnonzero(part_of == number) for number in range(len(values))]
        parts.append([(indices[put], put) for put in places])
        firsts.append(indices[first].reshape(-1, *(1 for _ in range(dim + 1, rank))))
    senders = exchange_senders(step, source, np.array(receiver), firsts, source.shape)
    shape = [len(of_dim) for of_dim in parts]
    for sender, chosen in zip(
        np.broadcast_to(senders, shape).reshape(-1).tolist(), product(*parts), strict=True
    ):
        yield sender, tuple(part[0] for part in chosen), tuple(part[1] for part in chosen)
