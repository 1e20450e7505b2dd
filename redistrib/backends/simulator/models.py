"""Plans of whole models, run in one process with numpy, device by device.

Every device runs its own schedule, in batches and messages as ranks do: what it sends to another is
what that one expects, and both have derived it alone. What is left over, or missing, is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.backends.model_messages import (
    BATCH,
    Batch,
    Pace,
    Progress,
    batches,
    messages,
    phases,
)
from redistrib.backends.model_tiles import fill, packed, put
from redistrib.backends.simulator.arrays import run, scatter
from redistrib.backends.wire import wire_of
from redistrib.errors import BackendError
from redistrib.models.figures import ModelFigures
from redistrib.models.segments import AnyType
from redistrib.models.transfers import Transfer
from redistrib.text import brief, is_kind
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import numpy_dtype

Array = NDArray[Any]
Tiles = dict[int, dict[str, Array]]
"""Tiles by device id and name of an array."""


def run_model(
    plan: ModelFigures, tiles: Mapping[int, Mapping[str, Any]], *, wire_dtype: str | None = None
) -> Tiles:
    """The tiles of all targets, from those of all sources, by device id and name.

    `wire_dtype`: "bf16" or "int8", to which floats are rounded on their way to another device, as
    redistrib.backends.wire says. Raises BackendError unless every device has a tile of each source
    on it, of its shape and dtype, and if what one device sends is not what another expects.
    """
    run = ModelRun(plan, tiles, wire_dtype=wire_dtype)
    for _ in run.chunks():
        pass
    return run.targets


class ModelRun:
    """A run of a model plan on tiles by device id and name, as `run_model` takes them.

    Every device holds its sources until their last use, or to the end where the plan keeps them,
    its targets from their batch on, and one message to and one from another device.
    """

    targets: Tiles
    """The tiles of the targets that there are so far."""
    live_bytes: dict[int, int]
    """By device, the most that it has held at a time."""

    def __init__(
        self,
        plan: ModelFigures,
        tiles: Mapping[int, Mapping[str, Any]],
        *,
        wire_dtype: str | None = None,
        batch_bytes: int = BATCH,
    ) -> None:
        if not is_kind(plan, ModelFigures) or not isinstance(tiles, Mapping):
            raise BackendError(
                f"a model plan runs on tiles by device id and name; got {brief(plan)} and "
                f"{brief(tiles)}"
            )
        self.plan, self._wire = plan, wire_of(wire_dtype)
        self._batches = list(batches(plan, batch_bytes))
        self._sources = _checked(plan, tiles)
        self.targets = {device: {} for device in plan.devices}
        self.live_bytes = dict.fromkeys(plan.devices, 0)
        _reduce(plan, self._sources)

    def chunks(self) -> Iterator[Progress]:
        """Runs the plan, message by message; after each, how far it is."""
        arrays, received, pace = 0, 0, Pace(self.plan)
        for batch in self._batches:
            for bytes_ in self._moved(batch):
                received += bytes_
                yield pace.progress(arrays, received)
            arrays += len(batch.moves)
            for tiles in self._sources.values():
                for name in batch.released:
                    tiles.pop(name, None)
            yield pace.progress(arrays, received)

    def _moved(self, batch: Batch) -> Iterator[int]:
        plan = self.plan
        for move in batch.moves:
            t = plan.dst[move.target]
            for position, device in enumerate(t.mesh.ids):
                tile = np.empty(t.tile_shape_at(position), numpy_dtype(t.dtype))
                self.targets[device][move.target] = tile
        by_device = [phases(plan, batch.moves, device) for device in plan.devices]
        for of_devices in zip(*by_device, strict=True):
            phase = dict(zip(plan.devices, of_devices, strict=True))
            passed_on = any(of_device.passed_on for of_device in of_devices)
            held = self.targets if passed_on else self._sources
            staged: Counter[tuple[int, str]] = Counter()
            for device, of_device in phase.items():
                for transfer in of_device.local:
                    self._put(transfer, held)
                for receiver, views in of_device.sends.items():
                    if views != phase[receiver].receives.pop(device, []):
                        raise _unexpected(device, receiver, batch)
                    for message in messages(views, batch.message_bytes):
                        bytes_ = sum(self._put(piece, held) for piece in message)
                        for side in ((device, "sent"), (receiver, "received")):
                            staged[side] = max(staged[side], bytes_)
                        yield bytes_
            for receiver, of_device in phase.items():
                for sender, views in of_device.receives.items():
                    if views:
                        raise _unexpected(sender, receiver, batch)
            self._count(staged)

    def _put(self, transfer: Transfer, held: Tiles) -> int:
        """Do one transfer; gives its bytes on the wire."""
        target = self.targets[transfer.receiver][transfer.target]
        if transfer.sender is None:
            fill(transfer, target)
            return 0
        values = packed(transfer, held[transfer.sender][str(transfer.source)])
        if transfer.sender == transfer.receiver:
            put(transfer, target, values)
            return 0
        sent = self._wire.encoded(values)
        put(transfer, target, self._wire.decoded(sent, values.size, values.dtype))
        return sent.nbytes

    def _count(self, staged: Mapping[tuple[int, str], int]) -> None:
        for device in self.plan.devices:
            tiles = (*self._sources[device].values(), *self.targets[device].values())
            messages_ = staged.get((device, "sent"), 0) + staged.get((device, "received"), 0)
            live = sum(tile.nbytes for tile in tiles) + messages_
            self.live_bytes[device] = max(self.live_bytes[device], live)


def _unexpected(sender: int, receiver: int, batch: Batch) -> BackendError:
    return BackendError(
        f"device {receiver} does not expect what device {sender} sends it of "
        f"{batch.moves[0].target} and the {len(batch.moves) - 1} arrays after it"
    )


def scatter_model(arrays: Mapping[str, Any], types: Mapping[str, AnyType]) -> Tiles:
    """The tiles of arrays, by device id and name, as `run_model` takes them.

    Raises BackendError where an array is missing or is not of its type.
    """
    tiles: Tiles = {}
    for by_name in (arrays, types):
        if not isinstance(by_name, Mapping):
            raise BackendError(f"arrays and types are given by name; got {brief(by_name)}")
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


def _checked(plan: ModelFigures, tiles: Mapping[int, Mapping[str, Any]]) -> Tiles:
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


def _reduce(plan: ModelFigures, sources: Tiles) -> None:
    for name, reduction in plan.reductions.items():
        ids = reduction.src.mesh.ids
        reduced = run(reduction, [sources[device][name] for device in ids])
        for device, tile in zip(ids, reduced, strict=True):
            sources[device][name] = tile
