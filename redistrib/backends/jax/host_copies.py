"""Copies of a model plan between CPU devices of this process: numpy, from tile to tile.

The memory of such devices is that of the process, so a tile can be read where it lies, and one that
numpy has written is given to its device as it is. Of `w: f32[8{x}]` on devices 0 and 1 to f32[8{y}]
on devices 2, 3, 4 and 5, device 2 has one copy to make:

    from w on device 0, 8 bytes from byte 0 on      ->      to byte 0 of its own new tile

Nothing is packed, nothing lies between source and target, and every byte is copied once; but those
that are cast are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.backends.model_tiles import fill, packed, put
from redistrib.models.moves import ModelMoves, Move
from redistrib.models.transfers import Transfer
from redistrib.types.dtypes import numpy_dtype

Tile = NDArray[Any]
ALIGNMENT = 64
"""Bytes to which XLA aligns its buffers on CPU; it copies an array that lies otherwise."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array of a plan: of its sources, or of the targets that are made."""

    name: str
    is_target: bool


Key = tuple[Array, int]
"""An array and the id of a device: one tile."""


@dataclass(frozen=True, slots=True)
class Strided:
    """Elements of a tile: where the first is, and the strides between them, in bytes."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, tile: Tile) -> Tile:
        """These elements of a contiguous tile; a view."""
        return np.ndarray(self.shape, tile.dtype, tile, self.offset, self.strides)


@dataclass(frozen=True, slots=True)
class HostCopies:
    """The copies of some moves in order; `targets` are the tiles that they make, `[key, shape]`."""

    copies: tuple[tuple[Key, Strided, Key, Strided] | Transfer, ...]
    targets: tuple[tuple[Key, tuple[int, ...], Any], ...]

    def run(self, held: Mapping[Key, Tile]) -> dict[Key, Tile]:
        """The tiles of the targets, from those of sources and of earlier targets."""
        written = {key: _aligned(shape, dtype) for key, shape, dtype in self.targets}
        raw = {key: _bits(tile) for key, tile in (*held.items(), *written.items())}
        for copy in self.copies:
            if isinstance(copy, Transfer):
                _run(copy, held, written)
            else:
                source, take, target, place = copy
                place.of(raw[target])[...] = take.of(raw[source])
        return written


def host_copies(plan: ModelMoves, moves: Sequence[Move]) -> HostCopies:
    """What all devices together copy for some moves of a plan."""
    copies: list[Any] = []
    targets = []
    for move in moves:
        t = plan.dst[move.target]
        kind = numpy_dtype(t.dtype)
        target = Array(move.target, is_target=True)
        targets += [((target, device), t.tile_shape, kind) for device in t.mesh.ids]
        copies += map(_copy, transfers_to(plan, move))
    return HostCopies(tuple(copies), tuple(targets))


def transfers_to(plan: ModelMoves, move: Move) -> Iterator[Transfer]:
    """What all devices of a target take in and keep, phase by phase."""
    received = (
        transfer
        for device in plan.dst[move.target].mesh.ids
        for transfer in plan.transfers(move, device)
        if transfer.receiver == device
    )
    return iter(sorted(received, key=lambda transfer: transfer.phase))


def _copy(transfer: Transfer) -> tuple[Key, Strided, Key, Strided] | Transfer:
    """A transfer without casts as two views of the same shape."""
    if transfer.sender is None or len(set(transfer.dtypes)) > 1:
        return transfer
    view, size = transfer.view, numpy_dtype(transfer.dtypes[0]).itemsize
    shape = tuple(count for count, _, _ in view.runs)
    take = Strided(view.source_offset * size, shape, tuple(s * size for _, _, s in view.runs))
    place = Strided(view.target_offset * size, shape, tuple(t * size for _, t, _ in view.runs))
    return _source(transfer), take, _target(transfer), place


def _source(transfer: Transfer) -> Key:
    assert transfer.source is not None
    assert transfer.sender is not None
    return Array(transfer.source, is_target=transfer.phase > 0), transfer.sender


def _target(transfer: Transfer) -> Key:
    return Array(transfer.target, is_target=True), transfer.receiver


def _run(transfer: Transfer, held: Mapping[Key, Tile], written: Mapping[Key, Tile]) -> None:
    target = written[_target(transfer)]
    if transfer.sender is None:
        fill(transfer, target)
        return
    key = _source(transfer)
    put(transfer, target, packed(transfer, written[key] if key in written else held[key]))


def _bits(tile: Tile) -> Tile:
    """The elements as integers: numpy gives no buffers of dtypes that are not its own."""
    return tile.view(f"u{tile.dtype.itemsize}") if tile.dtype.itemsize <= 8 else tile


def _aligned(shape: tuple[int, ...], dtype: Any) -> Tile:
    size = prod(shape) * dtype.itemsize
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    tile: Tile = block[start : start + size].view(dtype).reshape(shape)
    return tile
