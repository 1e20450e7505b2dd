"""The exchange as pieces: which device sends which box of its tile to which other device.

Sizes and places are in blocks: per dimension, the largest run of elements that no tile of the two
types cuts. A piece is a product of sets of blocks, ascending on both sides, so the two ends agree
on the order of its elements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod

import numpy as np

from redistrib.errors import BackendError
from redistrib.synth.plan.collectives import Exchange
from redistrib.synth.plan.tables import RoutingTable
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, piece_of
from redistrib.types.positions import Positions, digit_values, weight, whole_axes, with_digits

ROUND_BYTES = 100_000
"""What the latency of a round costs, in bytes: 1 us at 100 GB/s, as in the default profile."""

Blocks = tuple[Positions, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Blocks per dimension of the sender's tile, and where they go in the receiver's tile.

    Both are positions on their own mesh.
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
class Boxes:
    """All pieces of an exchange; `block` is the shape of a block in elements.

    `before` and `after` are the shapes of the two tiles in blocks.
    """

    block: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def elements(self) -> int:
        """Elements of a block."""
        return prod(self.block)

    def received(self, num_devices: int) -> list[int]:
        """Elements that each device receives from others."""
        total = [0] * num_devices
        for piece in self.pieces:
            if piece.sender != piece.receiver:
                total[piece.receiver] += prod(piece.shape) * self.elements
        return total


def boxes(
    step: Exchange, before: ArrayType, after: ArrayType, held: ArrayType | None = None
) -> Boxes:
    """The pieces of an exchange between two types.

    `held` is what devices really have where `before` is a slice of it: nothing is sliced first.
    """
    held = held or before
    block = tuple(
        gcd(*sizes) for sizes in zip(*(t.block_shape for t in (held, before, after)), strict=True)
    )
    if 0 in block:
        return Boxes(block, held.tile_shape, after.tile_shape, ())
    shape = [n // size for n, size in zip(before.shape, block, strict=True)]
    # The same layouts of an array with one element per block.
    source, target, tiles = (
        ArrayType(t.mesh, t.dtype, shape, t.dims, t.partial, t.reduction)
        for t in (before, after, held)
    )
    pieces = []
    has = [tiles.tile(position) for position in range(tiles.mesh.num_devices)]
    for receiver in range(target.mesh.num_devices):
        for sender, wanted, put in _pieces_of(step, source, target, receiver):
            take = tuple(
                _places(indices, dim) for indices, dim in zip(has[sender], wanted, strict=True)
            )
            pieces.append(Piece(sender, receiver, take, put))
    return Boxes(block, tiles.tile_shape, target.tile_shape, tuple(pieces))


def _places(held: Positions, wanted: Positions) -> Positions:
    """Where the wanted indices are among those that a sender holds; both ascend."""
    places = np.searchsorted(held, wanted)
    if not np.array_equal(held.take(places, mode="clip"), wanted):
        raise BackendError("an exchange asks a device for elements that it does not hold")
    return places


def _pieces_of(
    step: Exchange, source: ArrayType, target: ArrayType, receiver: int
) -> Iterator[tuple[int, Blocks, Blocks]]:
    """Per piece of a receiver: its sender, its indices, and their places in the receiver's tile."""
    axes = whole_axes(source.mesh)
    per_dim: list[list[tuple[dict[DeviceDigit, int], Positions, Positions]]] = []
    for dim, indices in enumerate(target.tile(receiver)):
        owners = [(d, i) for d, i in source.placements if i.dim == dim]
        values = np.zeros((len(indices), len(owners)), np.intp)
        for column, (_, index) in enumerate(owners):
            values[:, column] = indices // (source.shape[dim] // index.end) % index.size
        found, which = np.unique(values, axis=0, return_inverse=True)
        parts = []
        for row, digits in enumerate(found):
            put = np.flatnonzero(which.reshape(-1) == row)
            owned = {device: int(v) for (device, _), v in zip(owners, digits, strict=True)}
            parts.append((owned, indices[put], put))
        per_dim.append(parts)
    here = np.array(receiver)
    fixed = {digit: int(digit_values([other], here, axes)) for digit, other in step.replicas}
    # A table to another mesh is of the receivers' positions, and of all the sender's digits.
    across = step.mesh is not None
    tables = [
        (table, receiver if across else int(digit_values(table.axes, here, axes)))
        for table in step.tables
    ]
    for chosen in product(*per_dim):
        owned = {device: value for values, _, _ in chosen for device, value in values.items()}
        sender = 0 if across else receiver
        for digit, value in (fixed | owned).items():
            stride = weight(digit, axes)
            sender += (value - sender // stride % digit.size) * stride
        for table, at in tables:
            sender = _by_table(table, at, owned, source, sender)
        yield sender, tuple(part[1] for part in chosen), tuple(part[2] for part in chosen)


def _by_table(
    table: RoutingTable,
    at: int,
    owned: dict[DeviceDigit, int],
    source: ArrayType,
    sender: int,
) -> int:
    """The sender with the digits of a table's axes set as the table says."""
    value = 0
    for owner in table.owners:
        for placement in source.placements:
            if piece_of(placement, owner) is not None:
                whole = placement[0]
                part = owned[whole] // (whole.end // owner.end) % owner.size
                value = value * owner.size + part
    coordinate = dict(table.rows[at])[value]
    at_sender, axes = np.array(sender), whole_axes(source.mesh)
    return int(with_digits(at_sender, table.axes, np.array(coordinate), axes))


def rounds(pieces: Sequence[Piece], block_bytes: int) -> list[list[Piece]]:
    """The pieces in rounds in which each device sends at most one and receives at most one.

    The pieces of a round are padded to one shape. Rounds of pieces of one shape need no padding,
    and take the least number per shape: the most that a device sends or receives. Where shapes are
    many, fewer rounds of unlike pieces can be cheaper; the cheaper of the two is taken.
    """
    by_shape: defaultdict[tuple[int, ...], list[Piece]] = defaultdict(list)
    for piece in sorted(pieces, key=lambda p: (-prod(p.shape), p.shape, p.receiver, p.sender)):
        by_shape[piece.shape].append(piece)
    exact = [found for same in by_shape.values() for found in edge_colouring(same)]
    mixed = _first_fit([piece for same in by_shape.values() for piece in same])
    return min(exact, mixed, key=lambda found: _cost(found, block_bytes))


def padded_shape(pieces: Iterable[Piece]) -> tuple[int, ...]:
    """The shape of a round: the largest number of blocks per dimension."""
    return tuple(max(sizes) for sizes in zip(*(piece.shape for piece in pieces), strict=True))


def _cost(found: Sequence[Sequence[Piece]], block_bytes: int) -> int:
    """Bytes that the worst device receives, padding included, and the latencies in bytes."""
    received: defaultdict[int, int] = defaultdict(int)
    for pieces in found:
        size = prod(padded_shape(pieces)) * block_bytes
        for piece in pieces:
            received[piece.receiver] += size
    return max(received.values(), default=0) + len(found) * ROUND_BYTES


def edge_colouring(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Rounds of pieces of one shape: colours of the edges from senders to receivers (Koenig)."""
    ends = [(("sends", p.sender), ("receives", p.receiver)) for p in pieces]
    taken: defaultdict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for edge, (a, b) in enumerate(ends):
        free, other = _free(taken[a]), _free(taken[b])
        # Swapping the two colours along the path from b that begins with `free` makes it free at
        # b. The path does not end in a: it enters senders by edges of colour `free`, which a lacks.
        path = []
        node, colour = b, free
        while colour in taken[node]:
            path.append((taken[node][colour], colour))
            one, another = ends[path[-1][0]]
            node = another if node == one else one
            colour = free + other - colour
        for found, old in path:
            for end in ends[found]:
                del taken[end][old]
        for found, old in path:
            for end in ends[found]:
                taken[end][free + other - old] = found
        taken[a][free] = taken[b][free] = edge
    result: defaultdict[int, list[Piece]] = defaultdict(list)
    for edge, (a, _) in enumerate(ends):
        colour = next(c for c, found in taken[a].items() if found == edge)
        result[colour].append(pieces[edge])
    return [result[colour] for colour in sorted(result)]


def _free(used: dict[int, int]) -> int:
    return next(colour for colour in range(len(used) + 1) if colour not in used)


def _first_fit(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Each piece in the first round with room: largest first, so that rounds hold like sizes."""
    result: list[list[Piece]] = []
    for piece in pieces:
        for found in result:
            if all(p.sender != piece.sender and p.receiver != piece.receiver for p in found):
                found.append(piece)
                break
        else:
            result.append([piece])
    return result
