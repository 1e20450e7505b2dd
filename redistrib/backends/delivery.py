"""What a step delivers to every device, as a view of what the devices held before it.

The tiles of all devices are one array `[device, *tile]`. Seen digit by digit, it has an axis for
every device digit and for every local index digit, and a collective only renames these axes: a
gathered device digit is read as a local one, a slice walks a device and a local digit together. So
the new tiles are the old ones under other strides. Tables and exchanges look up the sender of every
element instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd
from typing import Any, assert_never

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Exchange,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.pieces import exchange_senders
from redistrib.synth.plan.tables import table_senders
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, digit_values
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.reduction import UFUNCS, identity

Array = NDArray[Any]
_Strides = dict[DeviceDigit | IndexDigit, int]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Elements by receiver: `view` has axes for devices, for the new tile, and for pieces.

    The first `devices` axes are the receivers, row-major; the last `pieces` are to be reduced.
    """

    view: Array
    devices: int
    pieces: int = 0

    def reduced(self, reduction: str | None) -> Array:
        """The view with its pieces reduced."""
        if not self.pieces or reduction is None:
            return self.view
        kept = self.view.ndim - self.pieces
        # An axis of stride 0 repeats the same elements: they are reduced once.
        once = self.view[tuple(slice(0, 1 if s == 0 else None) for s in self.view.strides)]
        axes = tuple(range(kept, self.view.ndim))
        result = UFUNCS[reduction].reduce(
            once,
            axis=axes,
            dtype=self.view.dtype,
            initial=identity(self.view.dtype, reduction),
        )
        return np.broadcast_to(result, self.view.shape[:kept])


def deliver(
    step: Collective, before: ArrayType, after: ArrayType, tiles: Array, fill: Any
) -> Delivery:
    """What `step` makes of `tiles` [device, *tile of before], laid out as tiles of `after`.

    `fill`, a value or an array that broadcasts to the new tiles, is what a conversion to partial
    puts where a device has no data. Raises BackendError where a device is asked for what it lacks.
    """
    if isinstance(step, Exchange):
        return _exchange(step, before, after, tiles)
    if isinstance(step, CollectivePermute) and step.table is not None:
        return Delivery(_take(tiles, before, table_senders(step.table, before.mesh)), 1)
    named = _named_indices(step)
    devices = device_digits(before.mesh, step.axes)
    cuts = [index for t in (before, after) for _, index in t.placements] + named
    old, new = local_digits(before, cuts), local_digits(after, cuts)
    source = _strides(devices, old, tiles)
    result = dict(source)
    pieces: list[DeviceDigit] = []
    match step:
        case DynamicSlice():
            for device, index in step.placements:
                result[device] = source[device] + source[index]
        case AllGather():
            for device, index in step.placements:
                result[device] = 0
                result[index] = source[device]
        case AllToAll():
            for move in step.moves:
                result[move.device] = source[move.target]
                result[move.source] = source[move.device]
        case CollectivePermute():
            for old_digit, new_digit in step.routes:
                result[new_digit] = source[old_digit]
        case ReduceScatter():
            for device, index in step.placements:
                result[device] = source[index]
            pieces += step.axes
        case AllReduce():
            for device in step.axes:
                result[device] = 0
            pieces += step.axes
        case ReplicatedToPartial():
            first = first_of(before.mesh, step.axes).reshape(-1, *(1 for _ in before.shape))
            return Delivery(np.where(first, tiles, np.asarray(fill, tiles.dtype)), 1)
        case ShardedToPartial():
            # The transpose of a slice: the strided view is written instead of read.
            whole = np.empty((len(tiles), *after.tile_shape), tiles.dtype)
            whole[...] = fill
            target = _strides(devices, new, whole)
            for device, index in step.placements:
                target[device] += target[index]
            _view(whole, [*devices, *old], target, True)[...] = _view(
                tiles, [*devices, *old], source
            )
            return Delivery(whole, 1)
        case _:
            assert_never(step)
    view = _view(tiles, [*devices, *new], result, extra=[(d.size, source[d]) for d in pieces])
    return Delivery(view, len(devices), len(pieces))


def tiles_of(array: Array, t: ArrayType) -> Array:
    """The tiles of `t` as a view of the global array, axes [*device digits, *local digits].

    The view can be written; replicas and partial addends share their elements.
    """
    devices = device_digits(t.mesh, [device for device, _ in t.placements])
    local = local_digits(t, [index for _, index in t.placements])
    owned = dict(t.placements)
    strides: _Strides = {
        index: array.strides[index.dim] * (t.shape[index.dim] // max(index.end, 1))
        for index in (*owned.values(), *local)
    }
    strides |= {d: strides[owned[d]] if d in owned else 0 for d in devices}
    return _view(array, [*devices, *local], strides, True)


def device_digits(mesh: Mesh, digits: Iterable[DeviceDigit] = ()) -> list[DeviceDigit]:
    """The axes of a mesh in order, cut at the ends of `digits`; axes of size 1 are left out.

    >>> [str(d) for d in device_digits(Mesh(x=8, y=1, z=3), [DeviceDigit("x", 2, 2)])]
    ['x:(1)2', 'x:(2)2', 'x:(4)2', 'z:(1)3']
    """
    cuts = {name: {1, size} for name, size in mesh.axes}
    for digit in digits:
        cuts[digit.axis] |= {digit.pre, digit.end}
    return [DeviceDigit(name, a, b // a) for name in cuts for a, b in pairwise(sorted(cuts[name]))]


def local_digits(t: ArrayType, cuts: Iterable[IndexDigit]) -> list[IndexDigit]:
    """What a tile of `t` spans, major to minor, cut at the ends of `cuts`.

    >>> t = ArrayType.parse("f32[24{_2,x}]", Mesh(x=2))
    >>> [str(i) for i in local_digits(t, [IndexDigit(0, 2, 2), IndexDigit(0, 8, 3)])]
    ['0:(1)2', '0:(4)2', '0:(8)3']
    """
    ends = [{1, n} for n in t.shape]
    for index in cuts:
        ends[index.dim] |= {index.pre, index.end}
    owned = [index for _, index in t.placements]
    result = []
    for dim, n in enumerate(t.shape):
        if n == 0:
            result.append(IndexDigit(dim, 1, 0))
            continue
        result += [
            IndexDigit(dim, a, b // a)
            for a, b in pairwise(sorted(ends[dim]))
            if not any(i.dim == dim and i.pre <= a and b <= i.end for i in owned)
        ]
    return result


def first_of(mesh: Mesh, digits: Iterable[DeviceDigit]) -> NDArray[np.bool_]:
    """At which positions of the mesh all of these digits are 0."""
    result = np.ones(mesh.num_devices, bool)
    for digit in digits:
        result &= digit_values([digit], np.arange(mesh.num_devices), whole_axes(mesh)) == 0
    return result


def _named_indices(step: Collective) -> list[IndexDigit]:
    match step:
        case DynamicSlice() | AllGather() | ReduceScatter() | ShardedToPartial() | Exchange():
            return [index for _, index in step.placements]
        case AllToAll():
            return [index for move in step.moves for index in (move.source, move.target)]
        case CollectivePermute() | AllReduce() | ReplicatedToPartial():
            return []


def _strides(devices: Sequence[DeviceDigit], local: Sequence[IndexDigit], tiles: Array) -> _Strides:
    """Strides in bytes of the digits of tiles [device, *tile]; all digits are given, in order."""
    result: _Strides = {}
    stride = tiles.strides[0]
    for device in reversed(devices):
        result[device] = stride
        stride *= device.size
    strides = list(tiles.strides[1:])
    for index in reversed(local):
        result[index] = strides[index.dim]
        strides[index.dim] *= index.size
    return result


def _view(
    array: Array,
    digits: Sequence[DeviceDigit | IndexDigit],
    strides: _Strides,
    writeable: bool = False,
    extra: Sequence[tuple[int, int]] = (),
) -> Array:
    """The array under one axis per digit, then axes of (size, stride)."""
    return _strided(
        array,
        [digit.size for digit in digits] + [size for size, _ in extra],
        [strides[digit] for digit in digits] + [stride for _, stride in extra],
        writeable=writeable,
    )


def _strided(
    array: Array, shape: Sequence[int], strides: Sequence[int], *, writeable: bool
) -> Array:
    """`as_strided` for every dtype: numpy's own does not know the name of some small floats."""
    raw = array.view(f"u{array.itemsize}") if array.itemsize < 8 else array
    return as_strided(raw, shape, strides, writeable=writeable).view(array.dtype)


def _take(tiles: Array, t: ArrayType, senders: NDArray[np.intp]) -> Array:
    """The tiles of these senders; along a tile axis of stride 0 only one element is copied."""
    once = tiles[(slice(None), *(slice(0, 1 if s == 0 else None) for s in tiles.strides[1:]))]
    return np.broadcast_to(once[senders], (len(senders), *t.tile_shape))


def _exchange(step: Exchange, before: ArrayType, after: ArrayType, tiles: Array) -> Delivery:
    shape, receivers = before.shape, after.mesh.num_devices
    if not before.size:
        return Delivery(np.empty((receivers, *after.tile_shape), tiles.dtype), 1)
    # What is local and minor on both sides moves in one block: only blocks are looked up.
    block = [gcd(a, b) for a, b in zip(before.block_shape, after.block_shape, strict=True)]
    wanted = [_blocks(after, dim, block[dim]) for dim in range(len(shape))]
    here = np.arange(receivers).reshape(-1, *(1 for _ in shape))
    counts = [n // size for n, size in zip(shape, block, strict=True)]
    senders = exchange_senders(step, before, here, wanted, counts)
    spots = [_spots(before, dim, at, block[dim]) for dim, at in enumerate(wanted)]
    # [device, *blocks, *within a block]; where a block is one element repeated, one is looked up.
    strides = tiles.strides[1:]
    within = [1 if s == 0 else b for b, s in zip(block, strides, strict=True)]
    held = _strided(
        tiles,
        [len(tiles), *(n // b for n, b in zip(before.tile_shape, block, strict=True)), *within],
        [tiles.strides[0], *(s * b for b, s in zip(block, strides, strict=True)), *strides],
        writeable=False,
    )
    arrived = held[(senders, *spots)]
    rank = len(shape)
    arrived = np.broadcast_to(arrived, (*arrived.shape[: rank + 1], *block))
    paired = [axis for dim in range(rank) for axis in (1 + dim, 1 + rank + dim)]
    return Delivery(arrived.transpose(0, *paired), 1)


def _blocks(t: ArrayType, dim: int, block: int) -> NDArray[np.intp]:
    """Which blocks of a dimension each device holds, in the order of its tile.

    Shape [device, 1, ..., blocks, ..., 1]: it broadcasts against other dimensions.
    """
    n = t.shape[dim]
    here, axes = np.arange(t.mesh.num_devices), whole_axes(t.mesh)
    first = np.zeros_like(here)
    pattern = np.zeros(1, np.intp)
    end = 1
    for device, index in sorted((p for p in t.placements if p[1].dim == dim), key=lambda p: p[1]):
        first += digit_values([device], here, axes) * (n // index.end)
        if index.pre > end:
            steps = np.arange(index.pre // end) * (n // index.pre)
            pattern = (pattern[:, None] + steps).reshape(-1)
        end = index.end
    pattern = (pattern[:, None] + np.arange(0, n // end, block)).reshape(-1)
    at = (first[:, None] + pattern) // block
    return at.reshape(len(at), *(at.shape[1] if d == dim else 1 for d in range(len(t.shape))))


def _spots(t: ArrayType, dim: int, blocks: NDArray[np.intp], block: int) -> NDArray[np.intp]:
    """Where in a tile of `t`, counted in blocks, these blocks of a dimension lie."""
    n = t.shape[dim] // block
    result = np.zeros_like(blocks)
    end = 1
    for _, index in sorted((p for p in t.placements if p[1].dim == dim), key=lambda p: p[1]):
        gap = index.pre // end
        result = result * gap + blocks // (n // index.pre) % gap
        end = index.end
    return result * (n // end) + blocks % (n // end)
