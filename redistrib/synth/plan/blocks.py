"""An exchange where digits do not tell who has what: uneven types, block by block.

Per dimension the indices fall into *cells*: runs with one owner before and one after. On x=4, of
`f32[10{x}:ceil] -> f32[10{x}:balanced]`, blocks 3, 3, 3, 1 and 3, 3, 2, 2, there are five:

    0 to 3    3 to 6    6 to 8    8 to 9    9 to 10
    0 -> 0    1 -> 1    2 -> 2    2 -> 3    3 -> 3

>>> from redistrib.types.mesh import Mesh
>>> mesh = Mesh(x=4)
>>> src, dst = (ArrayType.parse(f"f32[10{{x}}:{rule}]", mesh) for rule in ("ceil", "balanced"))
>>> cells = cells_of(src, dst, 0)
>>> cells.lengths.tolist(), cells.before.tolist(), cells.after.tolist()
([3, 3, 2, 1, 1], [0, 1, 2, 2, 3], [0, 1, 2, 3, 3])
>>> traffic = block_traffic(src, dst)
>>> traffic.received, traffic.sent, traffic.peers
(1, 1, 2)

Law (senders): an element comes from the device that has its owners' coordinates and, on all other
digits, those of the receiver itself; a receiver that is not on the mesh of the source stands for
the replica whose number is its position, modulo their count. So a device keeps what it holds, and
receives the bound: its target tile minus what of it is in its source tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Local, Positions, digit_values, with_digits
from redistrib.types.mesh import check_enumerable, whole_axes
from redistrib.types.uneven import Ceil, block_ends, padded_size


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a dimension, ascending: their lengths, and the owners before and after.

    An owner is the row-major value of the digits that own the dimension.
    """

    starts: Positions
    lengths: Positions
    before: Positions
    after: Positions


@dataclass(frozen=True, slots=True)
class BlockTraffic:
    """Elements that the worst device receives and sends, and the most senders of one."""

    received: int
    sent: int
    peers: int


@dataclass(frozen=True, slots=True)
class Messages:
    """Who sends what to whom: positions of the two meshes, and elements; also to itself."""

    sender: Positions
    receiver: Positions
    elements: Positions


def owners_of(t: ArrayType, dim: int) -> list[DeviceDigit]:
    """The digits that own a dimension, major to minor."""
    return [factor for factor in t.dims[dim] if isinstance(factor, DeviceDigit)]


def cells_of(src: ArrayType, dst: ArrayType, dim: int) -> Cells:
    """The cells of a dimension between two types of one array."""
    sides = [_runs(t, dim) for t in (src, dst)]
    starts = np.unique(np.concatenate([side[0] for side in sides]))
    lengths = np.diff(np.append(starts, src.shape[dim]))
    before, after = (
        owner[np.searchsorted(begin, starts, "right") - 1] if len(begin) else starts
        for begin, owner in sides
    )
    return Cells(starts, lengths, before, after)


def _runs(t: ArrayType, dim: int) -> tuple[Positions, Positions]:
    """Where the runs of a dimension begin, ascending, and the owner of each."""
    n, factors = t.shape[dim], t.dims[dim]
    if not n:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    check_enumerable(prod(owner.size for owner in owners_of(t, dim)))
    rule = dict(t.uneven).get(dim)
    if not (rule is None or isinstance(rule, Ceil)):
        ends = np.array(block_ends(n, tuple([factor.size for factor in factors]), rule))
        owned = np.flatnonzero(np.diff(ends))
        return ends[owned], owned
    above = factors[:-1] if factors and isinstance(factors[-1], Local) else factors
    stride = padded_size(n, factors)
    run = stride // prod(factor.size for factor in above)
    check_enumerable(-(-n // run))
    starts = np.arange(0, n, run)
    owned = np.zeros_like(starts)
    for factor in above:
        stride //= factor.size
        if isinstance(factor, DeviceDigit):  # one that steps at n or later is 0
            owned = owned * factor.size + starts // min(stride, n) % factor.size
    return starts, owned


def senders_of_blocks(
    before: ArrayType, after: ArrayType, receivers: Positions, owners: list[Positions]
) -> Positions:
    """The position on the mesh before that sends to each receiver, a position on the mesh after.

    `owners` has, per dimension, the owner of an element before; all of them broadcast.
    """
    axes = whole_axes(before.mesh)
    senders = homes(before, after)[receivers]
    for dim, value in enumerate(owners):
        senders = with_digits(senders + 0 * value, owners_of(before, dim), value, axes)
    return senders


def homes(before: ArrayType, after: ArrayType) -> Positions:
    """Per position of the mesh after, the one before whose other digits its senders have."""
    if before.mesh == after.mesh:
        return np.arange(before.mesh.num_devices)
    place = {device: position for position, device in enumerate(before.mesh.ids)}
    own = np.array([place.get(device, -1) for device in after.mesh.ids])
    free = before.free_digits
    turn = np.arange(len(own)) % prod(digit.size for digit in free)
    spread = with_digits(np.zeros_like(own), free, turn, whole_axes(before.mesh))
    return np.where(own >= 0, own, spread)


def messages_of(src: ArrayType, dst: ArrayType) -> Messages:
    """All messages of the exchange, in the order of receivers."""
    positions = np.arange(dst.mesh.num_devices)
    axes = whole_axes(dst.mesh)
    large = src.size * max(src.mesh.num_devices, len(positions)) >= 1 << 62
    kind = object if large else np.int64
    receiver, elements = positions, np.ones(len(positions), np.int64).astype(kind)
    owners: list[Positions] = []
    for dim in range(len(src.shape)):
        cells = cells_of(src, dst, dim)
        pairs, place = np.unique(np.stack([cells.after, cells.before]), axis=1, return_inverse=True)
        sizes = np.zeros(pairs.shape[1], np.int64)
        np.add.at(sizes, place.reshape(-1), cells.lengths)
        # Of each receiver so far, one message for each owner of what it wants of this dimension.
        value = digit_values(owners_of(dst, dim), positions, axes)[receiver]
        first, last = (np.searchsorted(pairs[0], value, side) for side in ("left", "right"))
        count = last - first
        check_enumerable(int(count.sum()))
        number = np.repeat(np.arange(len(receiver)), count)
        entry = np.arange(len(number)) - np.repeat(np.cumsum(count) - count - first, count)
        receiver, elements = receiver[number], elements[number] * sizes[entry].astype(kind)
        owners = [*(values[number] for values in owners), pairs[1][entry]]
    sender = senders_of_blocks(src, dst, receiver, owners)
    return Messages(sender, receiver, elements)


def block_traffic(src: ArrayType, dst: ArrayType) -> BlockTraffic:
    """What the exchange between two types with the same partial set, or on two meshes, moves."""
    if not src.size:
        return BlockTraffic(0, 0, 0)
    found = messages_of(src, dst)
    here, there = np.array(src.mesh.ids), np.array(dst.mesh.ids)
    away = here[found.sender] != there[found.receiver]
    received = _sums(found.receiver[away], found.elements[away])
    sent = _sums(found.sender[away], found.elements[away])
    peers = np.bincount(found.receiver).max()
    return BlockTraffic(int(received.max(initial=0)), int(sent.max(initial=0)), int(peers))


def _sums(positions: Positions, elements: Positions) -> NDArray[np.int64]:
    sums = np.zeros(int(positions.max(initial=-1)) + 1, elements.dtype)
    np.add.at(sums, positions, elements)
    return sums


def block_bound(src: ArrayType, dst: ArrayType) -> int:
    """Elements that the worst device must receive where one of two types is uneven.

    Of a sum of several addends a device receives something of every element that it wants, as it
    has at most one of them. Of a sum that stays one, no more than 0 is claimed.
    """
    if not src.size:
        return 0
    if not (src.partial or dst.partial):
        return block_traffic(src, dst).received
    if dst.partial:
        rows = prod(digit.size for digit in dst.partial)
        return 0 if src.partial or {*src.mesh.ids} & {*dst.mesh.ids} else -(-dst.tile_size // rows)
    return dst.tile_size


def exchanged(before: ArrayType, after: ArrayType) -> ArrayType:
    """The type after an exchange of blocks. Raises LayoutError where none leads from the other."""
    same = (before.shape, before.dtype) == (after.shape, after.dtype)
    kept = (before.partial, before.reduction) == (after.partial, after.reduction)
    if not (same and kept) or (before.partial and before.mesh != after.mesh):
        raise LayoutError(
            f"an exchange of blocks keeps shape, dtype and partial axes, and to another mesh there "
            f"are none; got {before} and {after}",
            before=before,
            after=after,
        )
    return after
