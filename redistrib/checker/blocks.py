"""Exchanges of uneven types, derived without the planner: who has how much of what others want.

Per dimension a table says how many indices each pair of owners, before and after, has in common; on
x=4, for `f32[10{x}:ceil] -> f32[10{x}:balanced]`,

    before  after: 0  1  2  3
       0             3
       1                3
       2                   2  1
       3                      1

An element comes from the device with its owner's coordinates, and otherwise those of the receiver;
of a receiver on another mesh alone, those of the replica whose number is its position, modulo their
count.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal, NamedTuple

import numpy as np

from redistrib.checker.claims import Effort, require
from redistrib.checker.shared import Numbers
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Local, digit_values
from redistrib.types.mesh import whole_axes

_PER_RECEIVER = 16
"""What a receiver or an owner costs by itself, in things enumerated."""


def padded_ends(src: ArrayType, dst: ArrayType, shape: Sequence[int]) -> list[ArrayType]:
    """Both types of the padded array; cut off at the real sizes they are the real types."""
    require(bool(src.uneven or dst.uneven), "what is padded is uneven")
    require(len(shape) == len(src.shape), "padded_shape has a size for each dimension")
    padded = []
    for t in (src, dst):
        even = ArrayType(t.mesh, t.dtype, shape, t.dims, t.partial, t.reduction or "sum")
        wide = {
            dim for dim, factors in enumerate(even.dims) if factors and shape[dim] != t.shape[dim]
        }
        dims = [
            (*factors, Local(even.block_shape[dim])) if dim in wide else factors
            for dim, factors in enumerate(even.dims)
        ]
        layout = even.partial, even.reduction, dict.fromkeys(wide, "ceil")
        cut = ArrayType(t.mesh, t.dtype, t.shape, dims, *layout)
        require(cut == t, "{} is {}, padded and cut off", t, cut)
        padded.append(even)
    right = all(n <= size for n, size in zip(src.shape, shape, strict=True))
    require(right, "a padded size is not below the size")
    return padded


def block_loads(src: ArrayType, dst: ArrayType, effort: Effort) -> tuple[int, int, int]:
    """Elements that the worst device receives and sends, and the most senders of one."""
    if not src.size:
        return 0, 0, 0
    before, after = np.arange(src.mesh.num_devices), np.arange(dst.mesh.num_devices)
    axes, axes_after = whole_axes(src.mesh), whole_axes(dst.mesh)
    effort.spend(len(before) + _PER_RECEIVER * len(after))
    ids, ids_after = np.array(src.mesh.ids), np.array(dst.mesh.ids)
    place = {device: position for position, device in enumerate(src.mesh.ids)}
    home = np.array([place.get(device, -1) for device in dst.mesh.ids])
    kind = object if src.size * max(len(before), len(after)) >= 1 << 62 else np.int64
    # A sender is known by what its digits that own nothing are, and its owners, dimension by
    # dimension. A stranger is like one copy, with the first addend of each sum.
    others = [*src.free_digits, *src.partial]
    copies, addends = (prod(d.size for d in of) for of in (src.free_digits, src.partial))
    unowned = digit_values(others, before, axes)
    sender = np.where(home >= 0, unowned[home], after % copies * addends)
    receiver = after
    elements, wanted = (np.ones(len(after), np.int64).astype(kind) for _ in range(2))
    for dim in range(len(src.shape)):
        table = _table(src, dst, dim, effort)
        want = digit_values(_digits(dst, dim), after, axes_after)
        wanted = wanted * table.sizes[want]
        first, last = (np.searchsorted(table.after, want[receiver], side) for side in _SIDES)
        count = last - first
        effort.spend(int(count.sum()))
        row = np.repeat(np.arange(len(receiver)), count)
        entry = np.arange(len(row)) - np.repeat(np.cumsum(count) - last, count)
        tiles = prod(digit.size for digit in _digits(src, dim))
        sender = sender[row] * tiles + table.before[entry]
        receiver, elements = receiver[row], elements[row] * table.common[entry]
    owners = [digit for dim in range(len(src.shape)) for digit in _digits(src, dim)]
    sender = np.argsort(digit_values([*others, *owners], before, axes))[sender]
    came = _sums(receiver, elements, len(after))
    require(bool((came == wanted).all()), "each element comes from one device")
    away = ids[sender] != ids_after[receiver]
    received = _sums(receiver[away], elements[away], len(after))
    sent = _sums(sender[away], elements[away], len(before))
    return int(received.max()), int(sent.max()), int(np.bincount(receiver).max())


_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def _sums(positions: Numbers, elements: Numbers, count: int) -> Numbers:
    sums = np.zeros(count, elements.dtype)
    np.add.at(sums, positions, elements)
    return sums


def block_bound(src: ArrayType, dst: ArrayType, effort: Effort) -> int:
    """Elements that the worst device must receive where a type is uneven."""
    addends, rows = (prod(digit.size for digit in t.partial) for t in (src, dst))
    if not src.size or (addends > 1 and rows > 1):
        return 0
    if rows > 1:
        return 0 if {*src.mesh.ids} & {*dst.mesh.ids} else -(-dst.tile_size // rows)
    return dst.tile_size if addends > 1 else block_loads(src, dst, effort)[0]


def _digits(t: ArrayType, dim: int) -> list[DeviceDigit]:
    return [factor for factor in t.dims[dim] if isinstance(factor, DeviceDigit)]


def _owners(t: ArrayType, dim: int) -> Numbers:
    """The value of the owners of a dimension at each position."""
    return digit_values(_digits(t, dim), np.arange(t.mesh.num_devices), whole_axes(t.mesh))


def _num_runs(t: ArrayType, dim: int) -> int:
    """The runs of a dimension, over all owners, at most."""
    n, factors = t.shape[dim], t.dims[dim]
    if factors and isinstance(factors[-1], Local):
        return -(-n // factors[-1].size)
    return min(n, prod(factor.size for factor in factors))


class _Table(NamedTuple):
    """The owners of a dimension that have indices in common, and how many; how many one wants.

    By the owner after, then the one before.
    """

    before: Numbers
    after: Numbers
    common: Numbers
    sizes: Numbers


def _table(src: ArrayType, dst: ArrayType, dim: int, effort: Effort) -> _Table:
    """The table of a dimension: between two places where an owner begins or ends there is one."""
    sides: list[tuple[Numbers, Numbers]] = []
    for t in (src, dst):
        effort.spend(_PER_RECEIVER * prod(digit.size for digit in _digits(t, dim)))
        effort.spend(_num_runs(t, dim))
        first = np.unique(_owners(t, dim), return_index=True)[1].tolist()
        held = [t.index_runs(dim, position) for position in first]
        runs, owner = np.concatenate(held), np.repeat(np.arange(len(held)), [*map(len, held)])
        order = np.argsort(runs[:, 0])
        runs, owner = runs[order], owner[order]
        ends = [0, *runs[:, 1].tolist()], [*runs[:, 0].tolist(), t.shape[dim]]
        require(ends[0] == ends[1], "each index of a dimension has one owner")
        sides.append((runs, owner))
    cuts = np.unique(np.concatenate([runs.reshape(-1) for runs, _ in sides]))
    before, after = (
        owner[np.searchsorted(runs[:, 0], cuts[:-1], "right") - 1] for runs, owner in sides
    )
    pairs, place = np.unique(np.stack([after, before]), axis=1, return_inverse=True)
    common = _sums(place.reshape(-1), np.diff(cuts), pairs.shape[1])
    runs, owner = sides[1]
    sizes = _sums(owner, runs[:, 1] - runs[:, 0], prod(d.size for d in _digits(dst, dim)))
    return _Table(pairs[1], pairs[0], common, sizes)
