"""The tiles of all devices as one strided view, on which an operation only renames axes.

All tiles lie in one array `[device, *tile]`. Seen digit by digit it has an axis for every digit of
a device's number and for every digit of an index in a tile; where each starts to repeat is a
stride. A gather reads a device digit as an index digit, a swap exchanges the strides of two, a
slice walks a device and an index digit together. So the new tiles are the old ones under other
strides, and nothing is copied before a step is at its end.

On 2 devices with tiles of 2 int64, a gather puts the device's stride in front of the tile, and each
device repeats what the other has:

>>> mesh = Mesh(x=2)
>>> tiles = Tiles.stacked(np.array([[1, 2], [3, 4]]), mesh)
>>> tiles.devices, tiles.dims
(((DeviceDigit(axis='x', pre=1, size=2), 16),), (((2, 8),),))
>>> gathered = Views().gather(tiles, Groups(mesh, (DeviceDigit("x", 1, 2),)))
>>> gathered.devices, gathered.dims
(((DeviceDigit(axis='x', pre=1, size=2), 0),), (((2, 16),), ((2, 8),)))
>>> gathered.view().tolist()
[[[1, 2], [3, 4]], [[1, 2], [3, 4]]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.backends.simulator.blocks import fetch_blocks
from redistrib.synth.plan.pieces import exchange_senders
from redistrib.synth.plan.tile_program import Fetch, Groups, Send
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    complement,
    cut,
    digit_values,
    regrouped,
)
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.reduction import UFUNCS, identity

Array = NDArray[Any]
Axis = tuple[int, int]
"""A size above 1 and a stride in bytes; 0 where an element repeats."""
Devices = tuple[tuple[DeviceDigit, int], ...]
"""The digits of a position, major to minor, each with its stride in bytes."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """A view of a contiguous array: the axes of the devices, of each dimension, and of addends.

    The axes of addends are those that a reduction is yet to be taken over.
    """

    data: Array
    mesh: Mesh
    devices: Devices
    dims: tuple[tuple[Axis, ...], ...]
    addends: tuple[Axis, ...] = ()

    @classmethod
    def stacked(cls, data: Array, mesh: Mesh, shape: Sequence[int] | None = None) -> Tiles:
        """Tiles that lie one after the other, `[device, *tile]`.

        With `shape`, that of a tile, a dimension of which the data has one element repeats it.
        """
        shape = data.shape[1:] if shape is None else shape
        stride, *strides = data.strides
        dims = tuple(
            ((size, stride if length > 1 else 0),) if size != 1 else ()
            for size, length, stride in zip(shape, data.shape[1:], strides, strict=True)
        )
        devices = []
        for axis in reversed(whole_axes(mesh)):
            devices.append((axis, stride))
            stride *= axis.size
        return cls(data, mesh, tuple(reversed(devices)), dims)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a tile."""
        return tuple(prod(size for size, _ in axes) for axes in self.dims)

    def view(self) -> Array:
        """The elements, with an axis for every digit."""
        axes = [(digit.size, stride) for digit, stride in self.devices]
        axes += [axis for dim in self.dims for axis in dim]
        axes += self.addends
        shape = [size for size, _ in axes]
        if 0 in shape:
            return np.empty(shape, self.data.dtype)
        # Numpy has no buffers of the small floats of ml_dtypes.
        small = self.data.itemsize < 8
        raw = self.data.view(f"u{self.data.itemsize}") if small else self.data
        strides = [stride for _, stride in axes]
        return np.ndarray(shape, raw.dtype, raw, 0, strides).view(self.data.dtype)

    def once(self) -> Array:
        """The tiles as `[device, *tile]`, of a dimension that repeats an element only one."""
        kept = tuple(axes if any(stride for _, stride in axes) else () for axes in self.dims)
        tiles = replace(self, dims=kept)
        return tiles.view().reshape(self.mesh.num_devices, *tiles.shape)

    def settled(self) -> Tiles:
        """The same tiles one after the other: copied, unless they lie so."""
        data = np.ascontiguousarray(self.view()).reshape(self.mesh.num_devices, *self.shape)
        return Tiles.stacked(data, self.mesh)

    def reduced(self, reduction: str) -> Tiles:
        """The tiles with their addends combined."""
        kept = len(self.devices) + sum(map(len, self.dims))
        view = self.view()
        # An axis of stride 0 repeats the same elements: they are reduced once.
        once = view[tuple(slice(0, 1 if stride == 0 else None) for stride in view.strides)]
        result = UFUNCS[reduction].reduce(
            once,
            axis=tuple(range(kept, view.ndim)),
            dtype=view.dtype,
            initial=identity(view.dtype, reduction),
        )
        result = np.asarray(result, order="C")
        strides = iter(s if n > 1 else 0 for n, s in zip(result.shape, result.strides, strict=True))
        devices = tuple((digit, next(strides)) for digit, _ in self.devices)
        dims = tuple(tuple((size, next(strides)) for size, _ in axes) for axes in self.dims)
        return Tiles(result, self.mesh, devices, dims)


class Views:
    """The primitive operations on the tiles of all devices."""

    def reshape(self, tiles: Tiles, shape: tuple[int, ...]) -> Tiles:
        """The axes of the dimensions, cut where the new ones end."""
        if 0 in shape:
            return replace(tiles, dims=tuple(((n, 0),) for n in shape))
        axes = [axis for dim in tiles.dims for axis in dim]
        dims = regrouped(axes, shape)
        if dims is None:  # a new dimension begins inside an axis, where it does not divide it
            return self.reshape(_flat(tiles), shape)
        return replace(tiles, dims=tuple(map(tuple, dims)))

    def transpose(self, tiles: Tiles, order: tuple[int, ...]) -> Tiles:
        """The dimensions in another order."""
        return replace(tiles, dims=tuple(tiles.dims[dim] for dim in order))

    def pick(self, pieces: Tiles, groups: Groups) -> Tiles:
        """A device walks the number of the pieces with its own place."""
        devices, pairs = _matched(pieces, groups)
        walked = {digit: stride + number for digit, stride, number in pairs}
        return replace(pieces, devices=_with_strides(devices, walked), dims=pieces.dims[1:])

    def place(self, piece: Tiles, groups: Groups, reduction: str) -> Tiles:
        """Written into new tiles."""
        held = piece.once()
        result = np.empty((len(held), groups.size, *held.shape[1:]), held.dtype)
        result[...] = self.fill(piece, reduction)[..., None]
        result[np.arange(len(held)), groups.places()] = held
        return Tiles.stacked(result, piece.mesh, (groups.size, *piece.shape))

    def gather(self, tiles: Tiles, groups: Groups) -> Tiles:
        """The device's stride in front; the device repeats what it reads."""
        devices = _cut(tiles.devices, groups.digits)
        gathered = _parts_of(devices, groups.digits)
        lead = tuple((digit.size, stride) for digit, stride in gathered)
        repeated = _with_strides(devices, {digit: 0 for digit, _ in gathered})
        return replace(tiles, devices=repeated, dims=(lead, *tiles.dims))

    def swap(self, pieces: Tiles, groups: Groups) -> Tiles:
        """The stride of the device and that of the number of the pieces, exchanged."""
        devices, pairs = _matched(pieces, groups)
        lead = tuple((digit.size, stride) for digit, stride, _ in pairs)
        owners = _with_strides(devices, {digit: number for digit, _, number in pairs})
        return replace(pieces, devices=owners, dims=(lead, *pieces.dims[1:]))

    def scatter(self, pieces: Tiles, groups: Groups, reduction: str) -> Tiles:
        """A swap, of which the pieces that arrive are addends."""
        swapped = self.swap(pieces, groups)
        lead, *dims = swapped.dims
        return self.combine(replace(swapped, dims=tuple(dims), addends=lead), reduction)

    def reduce(self, tiles: Tiles, groups: Groups, reduction: str) -> Tiles:
        """A gather, of which the tiles that arrive are addends."""
        gathered = self.gather(tiles, groups)
        lead, *dims = gathered.dims
        return self.combine(replace(gathered, dims=tuple(dims), addends=lead), reduction)

    def keep_first(self, tiles: Tiles, groups: Groups, reduction: str) -> Tiles:
        """Copied, and filled at the other places."""
        held = tiles.once()
        first = (groups.places() == 0).reshape(-1, *(1 for _ in tiles.dims))
        kept = np.where(first, held, self.fill(tiles, reduction).astype(held.dtype))
        return Tiles.stacked(kept, tiles.mesh, tiles.shape)

    def send(self, tiles: Tiles, operation: Send) -> Tiles:
        """The strides of the digits that lose a tile go to those that get it; by table, a copy."""
        if operation.step.table is None:
            devices = _cut(tiles.devices, [old for old, _ in operation.step.routes])
            before = dict(devices)
            strides = {new: before[old] for old, new in operation.step.routes if old.size > 1}
            return replace(tiles, devices=_with_strides(devices, strides))
        return Tiles.stacked(tiles.once()[operation.sources()], tiles.mesh, tiles.shape)

    def fetch(self, tiles: Tiles, operation: Fetch) -> Tiles:
        """Copied from the senders, block by block."""
        return _fetched(tiles, operation)

    def fill(self, tiles: Tiles, reduction: str) -> Array:
        """What a device holds that has nothing to add; it broadcasts to `[device, *tile]`."""
        value: Array = np.asarray(identity(tiles.data.dtype, reduction), tiles.data.dtype)
        return value.reshape((1,) * (1 + len(tiles.dims)))

    def combine(self, tiles: Tiles, reduction: str) -> Tiles:
        """The tiles with their addends reduced."""
        return tiles.reduced(reduction)


def _flat(tiles: Tiles) -> Tiles:
    """A copy of the tiles, each of one dimension."""
    data = tiles.settled().data
    return Tiles.stacked(data.reshape(len(data), -1), tiles.mesh)


def _cut(devices: Devices, digits: Sequence[DeviceDigit]) -> Devices:
    """The digits of a position, cut where one of `digits` begins or ends."""
    result = []
    for digit, stride in devices:
        ends = [end for d in digits if d.axis == digit.axis for end in (d.pre, d.end)]
        result += [(part, stride * (digit.end // part.end)) for part in cut(digit, ends)]
    return tuple(result)


def _parts_of(devices: Devices, digits: Sequence[DeviceDigit]) -> Devices:
    """Those digits of a position that make up `digits`, in their order."""
    return tuple(
        (part, stride)
        for digit in digits
        for part, stride in devices
        if part.axis == digit.axis and digit.pre <= part.pre < digit.end
    )


def _with_strides(devices: Devices, strides: dict[DeviceDigit, int]) -> Devices:
    """The digits of a position with other strides for some."""
    return tuple((digit, strides.get(digit, stride)) for digit, stride in devices)


def _matched(pieces: Tiles, groups: Groups) -> tuple[Devices, list[tuple[DeviceDigit, int, int]]]:
    """The digits of a position, and those of the groups with their strides and the pieces'.

    A digit of the groups is cut as the number of the pieces is.
    """
    numbers = regrouped(pieces.dims[0], [digit.size for digit in groups.digits])
    assert numbers is not None  # pieces are numbered by these digits
    parts, strides = [], []
    for digit, axes in zip(groups.digits, numbers, strict=True):
        pre = digit.pre
        for size, stride in axes:
            parts.append(DeviceDigit(digit.axis, pre, size))
            strides.append(stride)
            pre *= size
    devices = _cut(pieces.devices, parts)
    stride_of = dict(devices)
    return devices, [(part, stride_of[part], s) for part, s in zip(parts, strides, strict=True)]


def tiles_of(array: Array, t: ArrayType) -> Tiles:
    """The tiles of `t` as a view of the global array, which is contiguous.

    The view can be written; replicas and partial addends share their elements.
    """
    strides = {
        device: array.strides[index.dim] * (t.shape[index.dim] // max(index.end, 1))
        for device, index in t.placements
    }
    axes = tuple((axis, 0) for axis in whole_axes(t.mesh))
    devices = tuple((digit, strides.get(digit, 0)) for digit, _ in _cut(axes, list(strides)))
    dims = tuple(
        tuple(
            (digit.size, array.strides[dim] * (t.shape[dim] // max(digit.end, 1)))
            for digit in digits
        )
        for dim, digits in enumerate(_local_digits(t))
    )
    return Tiles(array, t.mesh, devices, dims)


def _local_digits(t: ArrayType) -> list[list[IndexDigit]]:
    """Per dimension, what a tile of `t` spans: between the digits that are owned.

    >>> _local_digits(ArrayType.parse("f32[24{_2,x}]", Mesh(x=2)))
    [[IndexDigit(dim=0, pre=1, size=2), IndexDigit(dim=0, pre=4, size=6)]]
    """
    result: list[list[IndexDigit]] = []
    for dim, n in enumerate(t.shape):
        owned = [index for _, index in t.placements if index.dim == dim]
        whole = IndexDigit(dim, 1, n)
        result.append(complement(owned, whole) if n else [whole])
    return result


def _fetched(tiles: Tiles, operation: Fetch) -> Tiles:
    """The tiles of an exchange: the sender of every block of them is looked up, and its place."""
    before, after = operation.before, operation.after
    if operation.step.blocks is not None:
        held = tiles.settled().data
        return Tiles.stacked(fetch_blocks(held, before, after), after.mesh)
    shape, receivers = before.shape, after.mesh.num_devices
    if not before.size:
        return Tiles.stacked(np.empty((receivers, *after.tile_shape), tiles.data.dtype), after.mesh)
    # What is local and minor on both sides moves in one block.
    block = [gcd(a, b) for a, b in zip(before.block_shape, after.block_shape, strict=True)]
    counts = [n // size for n, size in zip(shape, block, strict=True)]
    wanted = [_blocks(after, dim, block[dim]) for dim in range(len(shape))]
    positions = np.arange(receivers).reshape(-1, *(1 for _ in shape))
    senders = exchange_senders(operation.step, before, positions, wanted, counts)
    spots = [_spots(before, dim, numbers, block[dim]) for dim, numbers in enumerate(wanted)]
    # [device, *blocks, *within a block]; of a tile that is one element repeated, one is looked up.
    held = tiles.once()
    rank = len(shape)
    within = [min(n, size) for n, size in zip(held.shape[1:], block, strict=True)]
    pairs = zip(held.shape[1:], within, strict=True)
    split = held.reshape(len(held), *(k for n, size in pairs for k in (n // size, size)))
    blocks = split.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2))
    places = tuple(spot % n for spot, n in zip(spots, blocks.shape[1:], strict=False))
    arrived = np.ascontiguousarray(blocks[(senders, *places)])
    strides = [s if n > 1 else 0 for n, s in zip(arrived.shape, arrived.strides, strict=True)]
    result = Tiles.stacked(arrived, after.mesh)
    dims = tuple(
        tuple(
            axis
            for axis in ((n // block[dim], strides[1 + dim]), (block[dim], strides[1 + rank + dim]))
            if axis[0] != 1
        )
        for dim, n in enumerate(after.tile_shape)
    )
    return replace(result, dims=dims)


def _blocks(t: ArrayType, dim: int, block: int) -> NDArray[np.intp]:
    """Which blocks of a dimension each device holds, in the order of its tile.

    Shape [device, 1, ..., blocks, ..., 1]: it broadcasts against other dimensions.
    """
    n = t.shape[dim]
    positions, axes = np.arange(t.mesh.num_devices), whole_axes(t.mesh)
    first = np.zeros_like(positions)
    pattern = np.zeros(1, np.intp)
    end = 1
    for device, index in sorted((p for p in t.placements if p[1].dim == dim), key=lambda p: p[1]):
        first += digit_values([device], positions, axes) * (n // index.end)
        if index.pre > end:
            steps = np.arange(index.pre // end) * (n // index.pre)
            pattern = (pattern[:, None] + steps).reshape(-1)
        end = index.end
    pattern = (pattern[:, None] + np.arange(0, n // end, block)).reshape(-1)
    numbers = (first[:, None] + pattern) // block
    return numbers.reshape(
        len(numbers), *(numbers.shape[1] if d == dim else 1 for d in range(len(t.shape)))
    )


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
