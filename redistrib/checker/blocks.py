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

import numpy as np

from redistrib.checker.claims import Effort, require
from redistrib.checker.shared import Numbers
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Local, digit_values
from redistrib.types.mesh import whole_axes

_PER_RECEIVER = 16
"""What a receiver costs by itself, in things enumerated."""


def padded_ends(src: ArrayType, dst: ArrayType, shape: Sequence[int]) -> list[ArrayType]:
    """Both types of the padded array; cut off at the real sizes they are the real types."""
    require(bool(src.uneven or dst.uneven), "what is padded is uneven")
    require(len(shape) == len(src.shape), "padded_shape has a size for each dimension")
    found = []
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
        found.append(even)
    right = all(n <= size for n, size in zip(src.shape, shape, strict=True))
    require(right, "a padded size is not below the size")
    return found


def block_loads(src: ArrayType, dst: ArrayType, effort: Effort) -> tuple[int, int, int]:
    """Elements that the worst device receives and sends, and the most senders of one."""
    if not src.size:
        return 0, 0, 0
    before, after = src.mesh.num_devices, dst.mesh.num_devices
    effort.spend(before + after)
    here, there = np.array(src.mesh.ids), np.array(dst.mesh.ids)
    place = {device: position for position, device in enumerate(src.mesh.ids)}
    home = np.array([place.get(device, -1) for device in dst.mesh.ids])
    owned = [_owners(t, dim) for t in (src, dst) for dim in range(len(src.shape))]
    own, want = owned[: len(src.shape)], owned[len(src.shape) :]
    kind = object if src.size * max(before, after) >= 1 << 62 else np.int64
    tables = [_table(src, dst, dim, effort).astype(kind) for dim in range(len(src.shape))]
    # Devices alike in all that owns nothing are one class; a stranger is like one of a class.
    rest = digit_values([*src.free_digits, *src.partial], np.arange(before), whole_axes(src.mesh))
    copies = digit_values(src.free_digits, np.arange(before), whole_axes(src.mesh))
    strangers = np.arange(after) % prod(digit.size for digit in src.free_digits)
    addend = digit_values(src.partial, np.arange(before), whole_axes(src.mesh))
    alike, alone = _members(rest), _members(np.where(addend == 0, copies, -1))
    received, sent, peers = np.zeros(after, kind), np.zeros(before, kind), 0
    effort.spend(_PER_RECEIVER * after)
    for receiver in range(after):
        at_home = home[receiver] >= 0
        senders = alike[rest[home[receiver]]] if at_home else alone[strangers[receiver]]
        effort.spend(len(senders))
        elements = np.ones(len(senders), np.int64).astype(kind)
        for dim, table in enumerate(tables):
            elements = elements * table[own[dim][senders], want[dim][receiver]]
        require(int(elements.sum()) == _size(dst, receiver), "each element comes from one device")
        peers = max(peers, int((elements > 0).sum()))
        away = here[senders] != there[receiver]
        received[receiver] = elements[away].sum()
        sent[senders[away]] += elements[away]
    return int(received.max()), int(sent.max()), peers


def _members(classes: Numbers) -> dict[int, Numbers]:
    """The positions of each class, ascending."""
    order = np.argsort(classes, kind="stable")
    found, first = np.unique(classes[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, first[1:]), strict=True))


def block_bound(src: ArrayType, dst: ArrayType, effort: Effort) -> int:
    """Elements that the worst device must receive where a type is uneven."""
    addends, rows = (prod(digit.size for digit in t.partial) for t in (src, dst))
    if not src.size or (addends > 1 and rows > 1):
        return 0
    if rows > 1:
        return 0 if {*src.mesh.ids} & {*dst.mesh.ids} else -(-dst.tile_size // rows)
    return dst.tile_size if addends > 1 else block_loads(src, dst, effort)[0]


def _size(t: ArrayType, position: int) -> int:
    return prod(t.tile_shape_at(position))


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


def _table(src: ArrayType, dst: ArrayType, dim: int, effort: Effort) -> Numbers:
    """The indices that each pair of owners has in common."""
    sides = []
    for t in (src, dst):
        count = prod(digit.size for digit in _digits(t, dim))
        effort.spend(count)
        effort.spend(_num_runs(t, dim))
        first = np.unique(_owners(t, dim), return_index=True)[1].tolist()
        sides.append([t.index_runs(dim, position) for position in first])
    others = np.concatenate(sides[0])
    owner = np.repeat(np.arange(len(sides[0])), [len(runs) for runs in sides[0]])
    effort.spend(len(others) * len(sides[1]))
    # Indices of an owner below a place: those of the runs before, and what is inside the last one.
    table = np.zeros((len(sides[0]), len(sides[1])), np.int64)
    for after, runs in enumerate(sides[1]):
        if not len(runs):
            continue
        sizes = runs[:, 1] - runs[:, 0]
        at = np.maximum(np.searchsorted(runs[:, 0], others, "right") - 1, 0)
        inside = np.clip(others - runs[at, 0], 0, sizes[at])
        below = (np.cumsum(sizes) - sizes)[at] + inside
        np.add.at(table[:, after], owner, below[:, 1] - below[:, 0])
    return table
