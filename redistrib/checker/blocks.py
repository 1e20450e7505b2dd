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
from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np

from redistrib.checker.claims import Effort, require
from redistrib.checker.parts import size_of
from redistrib.checker.shared import Numbers
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Local, digit_values, merged
from redistrib.types.mesh import home_positions, whole_axes
from redistrib.types.uneven import Ceil, block_ends, padded_size


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


class _Requests(NamedTuple):
    """What each receiver asks for: per dimension its owner after and the table that tells whom.

    `home` is where it is on the mesh before, or -1; `wanted` are the elements of its tile, `kept`
    those that it has already, `most` the most senders of one.
    """

    wants: list[Numbers]
    tables: list[_Table]
    home: Numbers
    wanted: Numbers
    kept: Numbers
    most: int


def _requests(src: ArrayType, dst: ArrayType, effort: Effort) -> _Requests:
    after = np.arange(dst.mesh.num_devices)
    effort.spend(src.mesh.num_devices + len(after))
    home = home_positions(src.mesh, dst.mesh)
    large = min(src.tile_size, dst.tile_size) * len(after) >= 1 << 62
    wanted, kept = np.ones((2, len(after)), object if large else np.int64)
    kept[home < 0] = 0
    most, wants, tables = np.ones(len(after), np.int64), [], []
    for dim in range(len(src.shape)):
        table = _table(src, dst, dim, effort)
        want = digit_values(_digits(dst, dim), after, whole_axes(dst.mesh))
        owner = digit_values(_digits(src, dim), np.maximum(home, 0), whole_axes(src.mesh))
        wanted, kept = wanted * table.sizes[want], kept * table.between(owner, want)
        most = most * (table.starts[want + 1] - table.starts[want])
        tables.append(table)
        wants.append(want)
    return _Requests(wants, tables, home, wanted, kept, int(most.max()))


def block_loads(src: ArrayType, dst: ArrayType, effort: Effort) -> tuple[int, int, int]:
    """Elements that the worst device receives and sends, and the most senders of one.

    What a device sends is found dimension by dimension. Receivers are counted as one, each time,
    that ask the same owners of the dimensions before and want the same of those that are left.
    """
    if not src.size:
        return 0, 0, 0
    requests = _requests(src, dst, effort)
    before, axes = np.arange(src.mesh.num_devices), whole_axes(src.mesh)
    receiver = np.arange(dst.mesh.num_devices)
    # A sender is known by what its digits that own nothing are, and its owners, dimension by
    # dimension. A stranger is like one copy, with the first addend of each sum.
    others = [*src.free_digits, *src.partial]
    copies, addends = size_of(src.free_digits), size_of(src.partial)
    other = digit_values(others, before, axes)
    sender = np.where(requests.home >= 0, other[requests.home], receiver % copies * addends)
    elements = np.ones(len(receiver), requests.wanted.dtype)
    ratios = [
        Fraction(size_of(_digits(src, dim)), size_of(_digits(dst, dim)))
        for dim in range(len(src.shape))
    ]
    order = sorted(range(len(ratios)), key=ratios.__getitem__)  # most of them fall together early
    for done, dim in enumerate(order):
        remaining = [digit for later in order[done:] for digit in _digits(dst, later)]
        wish = digit_values(remaining, receiver, whole_axes(dst.mesh))
        _, first, alike = np.unique(
            sender * size_of(remaining) + wish, return_index=True, return_inverse=True
        )
        elements = _sums(alike, elements, len(first))
        sender, receiver, table = sender[first], receiver[first], requests.tables[dim]
        start, end = (table.starts[requests.wants[dim][receiver] + more] for more in (0, 1))
        effort.spend(len(first) + int((end - start).sum()))
        number = np.repeat(np.arange(len(first)), end - start)
        entry = np.arange(len(number)) - np.repeat(np.cumsum(end - start) - end, end - start)
        sender = sender[number] * size_of(_digits(src, dim)) + table.before[entry]
        receiver, elements = receiver[number], elements[number] * table.common[entry]
    owners = [digit for dim in order for digit in _digits(src, dim)]
    served = _sums(sender, elements, len(before))[digit_values([*others, *owners], before, axes)]
    np.subtract.at(served, requests.home[requests.home >= 0], requests.kept[requests.home >= 0])
    return int((requests.wanted - requests.kept).max()), int(served.max()), requests.most


def _sums(positions: Numbers, elements: Numbers, count: int) -> Numbers:
    sums = np.zeros(count, elements.dtype)
    np.add.at(sums, positions, elements)
    return sums


def block_bound(src: ArrayType, dst: ArrayType, effort: Effort) -> int:
    """Elements that the worst device must receive where a type is uneven."""
    addends, rows = (size_of(t.partial) for t in (src, dst))
    if not src.size or (addends > 1 and rows > 1):
        return 0
    if rows > 1:
        return 0 if {*src.mesh.ids} & {*dst.mesh.ids} else -(-dst.tile_size // rows)
    if addends > 1:
        return dst.tile_size
    requests = _requests(src, dst, effort)
    return int((requests.wanted - requests.kept).max())


def _digits(t: ArrayType, dim: int) -> list[DeviceDigit]:
    return [factor for factor in t.dims[dim] if isinstance(factor, DeviceDigit)]


class _Table(NamedTuple):
    """The owners of a dimension that have indices in common, and how many; how many one wants.

    By the owner after, whose entries begin at its place in `starts`, then the one before.
    """

    before: Numbers
    starts: Numbers
    keys: Numbers
    common: Numbers
    sizes: Numbers
    base: int

    def between(self, before: Numbers, after: Numbers) -> Numbers:
        """What an owner before and one after have in common, elementwise."""
        key = after * self.base + before
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return np.where(self.keys[place] == key, self.common[place], 0)


def _table(src: ArrayType, dst: ArrayType, dim: int, effort: Effort) -> _Table:
    """The table of a dimension: between two places where an owner begins or ends there is one."""
    base, count = (size_of(_digits(t, dim)) for t in (src, dst))
    sides = [_runs(t, dim, effort) for t in (src, dst)]
    cuts = merged(*(start for start, _ in sides))
    before, after = (owner[np.searchsorted(start, cuts, "right") - 1] for start, owner in sides)
    lengths = np.diff(np.append(cuts, src.shape[dim]))
    keys, place = np.unique(after * base + before, return_inverse=True)
    common = _sums(place, lengths, len(keys))
    starts = np.searchsorted(keys, np.arange(count + 1) * base)
    return _Table(keys % base, starts, keys, common, _sums(after, lengths, count), base)


def _runs(t: ArrayType, dim: int, effort: Effort) -> tuple[Numbers, Numbers]:
    """Where indices of another owner begin, ascending from 0, and the value of that owner."""
    n, factors, rule = t.shape[dim], t.dims[dim], dict(t.uneven).get(dim)
    if rule is not None and not isinstance(rule, Ceil):
        ends = np.array(block_ends(n, tuple(factor.size for factor in factors), rule))
        effort.spend(len(ends))
        held = np.flatnonzero(ends[1:] > ends[:-1])
        return ends[held], held
    # Minor factors first: how many indices it takes until a digit has its next value.
    step = padded_size(n, factors) // prod(factor.size for factor in factors)
    if factors and isinstance(factors[-1], Local):
        step *= factors[-1].size
        factors = factors[:-1]
    effort.spend(-(-n // step))
    starts = np.arange(0, n, step)
    owner, weight = np.zeros_like(starts), 1
    for factor in reversed(factors):
        if isinstance(factor, DeviceDigit):
            owner += starts // min(step, n) % factor.size * weight
            weight *= factor.size
        step *= factor.size
    return starts, owner
