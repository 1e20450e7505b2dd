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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal, NamedTuple

import numpy as np

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Local, Positions, digit_values, merged, with_digits
from redistrib.types.mesh import check_enumerable, home_positions, whole_axes
from redistrib.types.uneven import Ceil, block_ends, padded_size

MAX_COUNTED = 1 << 21
"""Of an exchange of blocks: receivers, cells twice, and pieces that receivers ask for, in all.

A checker enumerates at most four times as much and as many devices as send: below its own limit.
"""


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
    starts = merged(*(side[0] for side in sides))
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
    home = home_positions(before.mesh, after.mesh)
    free = before.free_digits
    turn = np.arange(len(home)) % prod(digit.size for digit in free)
    spread = with_digits(np.zeros_like(home), free, turn, whole_axes(before.mesh))
    return np.where(home >= 0, home, spread)


def messages_of(src: ArrayType, dst: ArrayType) -> Messages:
    """All messages of the exchange, in the order of receivers."""
    positions = np.arange(dst.mesh.num_devices)
    axes = whole_axes(dst.mesh)
    receiver, elements = positions, _ones(src, dst)
    owners: list[Positions] = []
    for dim in range(len(src.shape)):
        shares = _shares_of(cells_of(src, dst, dim))
        # Of each receiver so far, one message for each owner of what it wants of this dimension.
        wanted = digit_values(owners_of(dst, dim), positions, axes)[receiver]
        number, entry = shares.entries(wanted)
        receiver, elements = receiver[number], elements[number] * shares.common[entry]
        owners = [*(values[number] for values in owners), shares.before[entry]]
    sender = senders_of_blocks(src, dst, receiver, owners)
    return Messages(sender, receiver, elements)


def _ones(src: ArrayType, dst: ArrayType) -> Positions:
    """A 1 for each receiver, a Python integer where counts may exceed those of numpy."""
    count = dst.mesh.num_devices
    large = min(src.tile_size, dst.tile_size) * count >= 1 << 62
    return np.ones(count, object if large else np.int64)


class _Shares(NamedTuple):
    """The owners of a dimension that have indices in common, by the one after; and how many."""

    before: Positions
    after: Positions
    common: Positions

    def entries(self, wanted: Positions, counted: int = 0) -> tuple[Positions, Positions]:
        """The rows of each wanted owner after: its number in `wanted`, and the row.

        `counted` is what the exchange has counted before.
        """
        first, last = (np.searchsorted(self.after, wanted, side) for side in _SIDES)
        count = last - first
        total = int(count.sum())
        _check_counted(counted + total)
        number = np.repeat(np.arange(len(wanted)), count)
        return number, np.arange(total) + np.repeat(first - np.cumsum(count) + count, count)

    def of(self, held: Positions, wanted: Positions) -> Positions:
        """What an owner before and one after have in common, elementwise."""
        count = int(self.before.max()) + 1
        key = self.after * count + self.before
        pair = np.where(held < count, wanted * count + held, -1)
        place = np.minimum(np.searchsorted(key, pair), len(key) - 1)
        return np.where(key[place] == pair, self.common[place], 0)


def _check_counted(count: int) -> None:
    if count > MAX_COUNTED:
        raise LayoutError(
            f"of an exchange of blocks are counted the receivers, the runs of indices with one "
            f"owner before and one after (twice), and the pieces that receivers ask for, at most "
            f"{MAX_COUNTED} in all; got {count}",
            counted=count,
        )


_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def _shares_of(cells: Cells) -> _Shares:
    count = int(cells.before.max(initial=0)) + 1
    keys, place = np.unique(cells.after * count + cells.before, return_inverse=True)
    common = np.zeros(len(keys), np.int64)
    np.add.at(common, place, cells.lengths)
    return _Shares(keys % count, keys // count, common)


@lru_cache(maxsize=16)  # asked for a price, and again by the bound and for the plan
def block_traffic(src: ArrayType, dst: ArrayType) -> BlockTraffic:
    """What the exchange between two types with the same partial set, or on two meshes, moves.

    A tile is a product over dimensions, and so is what two devices have in common. What a device
    sends is a sum over receivers: those that want the same of the dimensions that are left, from
    senders with the same owners of the others, are counted as one.
    """
    if not src.size:
        return BlockTraffic(0, 0, 0)
    src_axes, dst_axes = whole_axes(src.mesh), whole_axes(dst.mesh)
    receivers = np.arange(dst.mesh.num_devices)
    home = homes(src, dst)
    stays = np.array(src.mesh.ids)[home] == np.array(dst.mesh.ids)
    wanted, peers = _ones(src, dst), np.ones_like(receivers)
    kept = wanted * stays
    cells = [cells_of(src, dst, dim) for dim in range(len(src.shape))]
    counted = len(receivers) + 2 * sum(len(of_dim.starts) for of_dim in cells)
    _check_counted(counted)
    shares = [*map(_shares_of, cells)]
    for dim, shared in enumerate(shares):
        want = digit_values(owners_of(dst, dim), receivers, dst_axes)
        count = int(shared.after.max()) + 2
        entries = np.bincount(shared.after, minlength=count)
        sizes = np.zeros(count, np.int64)
        np.add.at(sizes, shared.after, shared.common)
        want_or_none = np.minimum(want, count - 1)
        peers, wanted = peers * entries[want_or_none], wanted * sizes[want_or_none]
        kept = kept * shared.of(digit_values(owners_of(src, dim), home, src_axes), want)
    served = _served(src, dst, home, shares, counted)
    np.subtract.at(served, home, kept)
    return BlockTraffic(int((wanted - kept).max()), int(served.max()), int(peers.max()))


def _served(
    src: ArrayType, dst: ArrayType, home: Positions, shares: Sequence[_Shares], counted: int
) -> Positions:
    """What each device of the source gives, itself included."""
    src_axes, dst_axes = whole_axes(src.mesh), whole_axes(dst.mesh)
    count, dims = dst.mesh.num_devices, range(len(src.shape))
    every = [owner for dim in dims for owner in owners_of(src, dim)]
    sender = with_digits(home, every, np.zeros_like(home), src_axes)
    receiver = with_digits(np.arange(count), dst.free_digits, np.zeros_like(home), dst_axes)
    elements = _ones(src, dst)

    def growth(dim: int) -> float:
        before, after = (prod(d.size for d in owners_of(t, dim)) for t in (src, dst))
        return before / after

    for dim in sorted(dims, key=growth):
        keys, place = np.unique(sender * count + receiver, return_inverse=True)
        sums = np.zeros(len(keys), elements.dtype)
        np.add.at(sums, place, elements)
        sender, receiver = keys // count, keys % count
        mine = owners_of(dst, dim)
        number, entry = shares[dim].entries(digit_values(mine, receiver, dst_axes), counted)
        counted += len(number)
        receiver = with_digits(receiver, mine, np.zeros_like(receiver), dst_axes)[number]
        steps = with_digits(
            np.zeros_like(entry), owners_of(src, dim), shares[dim].before[entry], src_axes
        )
        sender, elements = sender[number] + steps, sums[number] * shares[dim].common[entry]
    served = np.zeros(src.mesh.num_devices, elements.dtype)
    np.add.at(served, sender, elements)
    return served


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
