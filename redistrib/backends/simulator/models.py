"""Plans of whole models, run in one process with numpy, device by device.

Every device runs its own schedule: what it sends is put under its name and the receiver's, and what
it receives is taken from there; both sides have derived it alone. What is left over, or missing, is
an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.backends.model_tiles import fill, packed, put
from redistrib.backends.simulator.arrays import run, scatter
from redistrib.errors import BackendError
from redistrib.models.moves import PHASES, ModelMoves
from redistrib.models.segments import AnyType
from redistrib.models.transfers import Transfer
from redistrib.text import brief, is_kind
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import numpy_dtype

Array = NDArray[Any]
Tiles = dict[int, dict[str, Array]]
"""Tiles by device id and name of an array."""


def run_model(plan: ModelMoves, tiles: Mapping[int, Mapping[str, Any]]) -> Tiles:
    """The tiles of all targets, from those of all sources, by device id and name.

    Raises BackendError unless every device has a tile of each source on it, of its shape and dtype,
    and if what one device sends is not what another expects.
    """
    if not is_kind(plan, ModelMoves) or not isinstance(tiles, Mapping):
        raise BackendError(
            f"a model plan runs on tiles by device id and name; got {brief(plan)} and "
            f"{brief(tiles)}"
        )
    sources = _checked(plan, tiles)
    _reduce(plan, sources)
    targets: Tiles = {device: {} for device in plan.devices}
    for name, t in plan.dst.items():
        for position, device in enumerate(t.mesh.ids):
            shape = t.tile_shape_at(position)
            targets[device][name] = np.empty(shape, numpy_dtype(t.dtype))
    for move in plan.moves:
        schedules = {device: list(plan.transfers(move, device)) for device in plan.devices}
        for phase in range(PHASES):
            wires: dict[Transfer, Array] = {}
            for device, transfers in schedules.items():
                for transfer in transfers:
                    if transfer.sender == device and transfer.phase == phase:
                        assert transfer.source is not None
                        held = (targets if phase else sources)[device][transfer.source]
                        wires[transfer] = packed(transfer, held)
            for device, transfers in schedules.items():
                for transfer in transfers:
                    if transfer.receiver == device and transfer.phase == phase:
                        _take(targets[device][transfer.target], transfer, wires)
            if wires:
                raise BackendError(
                    f"device {next(iter(wires)).receiver} does not expect what device "
                    f"{next(iter(wires)).sender} sends it of {move.target}"
                )
    return targets


def scatter_model(arrays: Mapping[str, Any], types: Mapping[str, AnyType]) -> Tiles:
    """The tiles of arrays, by device id and name."""
    tiles: Tiles = {}
    for given in (arrays, types):
        if not isinstance(given, Mapping):
            raise BackendError(f"arrays and types are given by name; got {brief(given)}")
    if missing := types.keys() - arrays.keys():
        raise BackendError(f"no array is given for {min(missing)}")
    for name, t in types.items():
        array = np.asarray(arrays[name])
        parts: list[list[Array]]
        if isinstance(t, ArrayType):
            parts = [scatter(array, t)]
        else:
            ends = np.cumsum([part.shape[t.dim] for part in t.parts])[:-1]
            pieces = np.split(array, ends, axis=t.dim)
            parts = [scatter(piece, p) for piece, p in zip(pieces, t.parts, strict=True)]
        dim = 0 if isinstance(t, ArrayType) else t.dim
        for position, device in enumerate(t.mesh.ids):
            mine = [part[position] for part in parts]
            tile = mine[0] if len(mine) == 1 else np.concatenate(mine, axis=dim)
            tiles.setdefault(device, {})[name] = tile
    return tiles


def _checked(plan: ModelMoves, tiles: Mapping[int, Mapping[str, Any]]) -> Tiles:
    checked: Tiles = {device: {} for device in plan.devices}
    for name, t in plan.src.items():
        for position, device in enumerate(t.mesh.ids):
            mine = tiles.get(device, {})
            if not is_kind(mine, Mapping) or name not in mine:
                raise BackendError(f"device {device} has a tile of {name}; none was given")
            try:
                tile = np.asarray(mine[name])
            except (TypeError, ValueError) as error:
                raise BackendError(f"a tile of {name} is an array: {error}") from error
            shape = t.tile_shape_at(position)
            if tile.shape != shape or tile.dtype != numpy_dtype(t.dtype):
                raise BackendError(
                    f"a tile of {name} has shape {list(shape)} and dtype {t.dtype}; device "
                    f"{device} was given shape {list(tile.shape)} and dtype {tile.dtype}",
                    device=device,
                )
            checked[device][name] = np.ascontiguousarray(tile).reshape(tile.shape)
    return checked


def _reduce(plan: ModelMoves, sources: Tiles) -> None:
    for name, reduction in plan.reductions.items():
        ids = reduction.src.mesh.ids
        made = run(reduction, [sources[device][name] for device in ids])
        for device, tile in zip(ids, made, strict=True):
            sources[device][name] = tile


def _take(tile: Array, transfer: Transfer, wires: dict[Transfer, Array]) -> None:
    if transfer.sender is None:
        fill(transfer, tile)
        return
    if transfer not in wires:
        raise BackendError(
            f"device {transfer.receiver} expects part of {transfer.target} from device "
            f"{transfer.sender}, which does not send it",
            transfer=transfer,
        )
    put(transfer, tile, wires.pop(transfer))
