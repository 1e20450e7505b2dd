"""Every device in one process, with numpy: the reference semantics of plans, and their traffic.

`measure` runs the same code as `run` on tiles that hold the id of their own device: every
element that arrives then says who sent it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import ArrayLike, NDArray

from redistrib.backends.delivery import Array, Delivery, deliver, first_of, tiles_of
from redistrib.errors import BackendError
from redistrib.synth.plan.collectives import (
    AllReduce,
    Collective,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh
from redistrib.types.reduction import identity


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a plan moves and holds, in bytes per device, counted from the data that moved.

    Per step, received and sent are those of the step's worst device; the totals are their sums.
    Live is the source, the input of a step unless it is the source, and the output of the step.
    """

    received_bytes: int
    sent_bytes: int
    live_bytes: int
    peak_tile_bytes: int
    received_bytes_per_step: tuple[int, ...]
    sent_bytes_per_step: tuple[int, ...]
    live_bytes_per_step: tuple[int, ...]


def scatter(array: ArrayLike, type: ArrayType) -> list[Array]:  # noqa: A002
    """The tiles of an array, by position of the mesh, each of shape `type.tile_shape`.

    Over partial axes, the devices with coordinate 0 hold the data and the others the identity of
    the reduction. Raises BackendError if the shape or dtype of the array is not that of the type.

    >>> from redistrib.types.mesh import Mesh
    >>> t = ArrayType.parse("i64[4{x}] sum{y}", Mesh(x=2, y=2))
    >>> [tile.tolist() for tile in scatter(np.arange(4), t)]
    [[0, 1], [0, 0], [2, 3], [0, 0]]
    """
    data = np.asarray(array)
    if data.shape != type.shape or data.dtype != type.numpy_dtype:
        raise BackendError(
            f"an array of type {type} has shape {list(type.shape)} and dtype {type.numpy_dtype}; "
            f"got shape {list(data.shape)} and dtype {data.dtype}",
            shape=data.shape,
            dtype=data.dtype,
        )
    tiles = np.array(tiles_of(data, type), order="C")
    tiles = tiles.reshape(type.mesh.num_devices, *type.tile_shape)
    if type.partial:
        tiles[~first_of(type.mesh, type.partial)] = identity(data.dtype, type.reduction)
    return list(tiles)


def run(plan: Plan, tiles: Sequence[ArrayLike]) -> list[Array]:
    """The tiles of the plan's target from those of its source, by position of their meshes.

    Raises BackendError unless there is one tile per device, of the tile shape and dtype of
    `plan.src`, and if an exchange asks a device for an element that it does not hold.
    """
    current = _stack(tiles, plan.src)
    for step, before, after in zip(plan.steps, plan.types, plan.types[1:], strict=False):
        current = _run_step(step, before, after, current)
    return list(_by_device(current, plan))


def gather(tiles: Sequence[ArrayLike], type: ArrayType) -> Array:  # noqa: A002
    """The global array of these tiles, reduced over partial axes; the inverse of `scatter`.

    Raises BackendError unless there is one tile per device, of the tile shape and dtype of the
    type, and all replicas of an element agree bit by bit.

    >>> from redistrib.types.mesh import Mesh
    >>> t = ArrayType.parse("i64[4{x}]", Mesh(x=2, y=2))
    >>> gather([np.arange(2), np.arange(2), np.arange(2), np.arange(1, 3)], t)
    Traceback (most recent call last):
      ...
    redistrib.errors.BackendError: replicas of i64[4{x}] agree bit by bit; those of device 2 do not
    """
    current = _stack(tiles, type)
    if type.partial:
        whole = type.with_partial(())
        current = _run_step(AllReduce(type.partial), type, whole, current)
        type = whole  # noqa: A001
    result = np.empty(type.shape, current.dtype)
    view = tiles_of(result, type)
    view[...] = current.reshape(view.shape)
    # Of replicas the last one written stays. Compared as bytes, a NaN agrees with itself.
    kept = np.array(view, order="C").reshape(len(current), -1).view(np.uint8)
    differ = (kept != current.reshape(len(current), -1).view(np.uint8)).any(axis=1)
    if differ.any():
        device = int(differ.argmax())
        raise BackendError(
            f"replicas of {type} agree bit by bit; those of device {device} do not",
            device=device,
            type=type,
        )
    return result


def measure(plan: Plan) -> Measurement:
    """Bytes that the plan moves and holds, counted on tiles that name the device they are on.

    >>> import redistrib as rd
    >>> mesh = rd.Mesh(x=4)
    >>> src, dst = (rd.ArrayType.parse(text, mesh) for text in ("f32[8{x}]", "f32[8]"))
    >>> m = measure(rd.plan(src, dst))
    >>> m.received_bytes, m.sent_bytes, m.live_bytes, m.peak_tile_bytes
    (24, 24, 40, 32)
    """
    itemsize = plan.src.numpy_dtype.itemsize
    source = held = plan.src.tile_size * itemsize
    peak = source
    received: list[int] = []
    sent: list[int] = []
    live: list[int] = []
    for step, before, after in zip(plan.steps, plan.types, plan.types[1:], strict=False):
        delivery = _deliver_origins(step, before, after)
        most_received, most_sent = _traffic(delivery, after.mesh, isinstance(step, AllReduce))
        received.append(most_received * itemsize)
        sent.append(most_sent * itemsize)
        made = _tile_size(delivery) * itemsize
        live.append(source + (held if live else 0) + made)
        held, peak = made, max(peak, made)
    return Measurement(
        received_bytes=sum(received),
        sent_bytes=sum(sent),
        live_bytes=max(live, default=source),
        peak_tile_bytes=peak,
        received_bytes_per_step=tuple(received),
        sent_bytes_per_step=tuple(sent),
        live_bytes_per_step=tuple(live),
    )


def _by_device(tiles: Array, plan: Plan) -> Array:
    """Tiles of the last type of a plan, in the order of the devices of its target."""
    place = {device: position for position, device in enumerate(plan.types[-1].mesh.ids)}
    return tiles[[place[device] for device in plan.dst.mesh.ids]]


def _stack(tiles: Sequence[ArrayLike], t: ArrayType) -> Array:
    """The tiles as one array `[device, *tile]`, checked against their type."""
    devices, shape, dtype = t.mesh.num_devices, t.tile_shape, t.numpy_dtype
    if len(tiles) != devices:
        raise BackendError(
            f"{t} has one tile for each of the {devices} devices of its mesh; got {len(tiles)}",
            tiles=len(tiles),
        )
    stacked = np.empty((devices, *shape), dtype)
    for device, item in enumerate(tiles):
        tile = np.asarray(item)
        if tile.shape != shape or tile.dtype != dtype:
            raise BackendError(
                f"a tile of {t} has shape {list(shape)} and dtype {dtype}; device {device} was "
                f"given shape {list(tile.shape)} and dtype {tile.dtype}",
                device=device,
                shape=tile.shape,
                dtype=tile.dtype,
            )
        stacked[device] = tile
    return stacked


def _run_step(step: Collective, before: ArrayType, after: ArrayType, tiles: Array) -> Array:
    fill = None
    if isinstance(step, ReplicatedToPartial | ShardedToPartial):
        fill = identity(tiles.dtype, step.reduction)
    delivered = deliver(step, before, after, tiles, fill).reduced(before.reduction)
    return np.array(delivered, order="C").reshape(after.mesh.num_devices, *after.tile_shape)


def _deliver_origins(step: Collective, before: ArrayType, after: ArrayType) -> Delivery:
    """The step on tiles filled with the id of their device; a tile axis has stride 0."""
    ids = np.array(before.mesh.ids)
    tiles = as_strided(
        ids,
        (len(ids), *before.tile_shape),
        (ids.itemsize, *(0 for _ in before.shape)),
        writeable=False,
    )
    # What a conversion to partial fills in was never sent: it comes from the device itself.
    fill = ids.reshape(-1, *(1 for _ in after.shape))
    return deliver(step, before, after, tiles, fill)


def _tile_size(delivery: Delivery) -> int:
    """Elements of one new tile."""
    shape = delivery.view.shape[delivery.devices : delivery.view.ndim - delivery.pieces]
    return int(np.prod(shape, dtype=np.int64))


def _traffic(delivery: Delivery, mesh: Mesh, chunked: bool) -> tuple[int, int]:
    """Elements that the worst device receives and sends; the delivery holds the ids they are from.

    `chunked` is an all_reduce: every member of a group reduces one chunk of the tile, then sends it
    to the others. Chunks differ by one element at most.
    """
    view = delivery.view
    # Along a tile axis of stride 0 all elements come from one device: one of them stands for all.
    cut = [slice(0, 1 if s == 0 else None) for s in view.strides[delivery.devices :]]
    few = view[(slice(None),) * delivery.devices + tuple(cut)]
    if not view.size:
        return 0, 0
    receivers = np.array(mesh.ids)[:, None]
    origins = few.reshape(len(receivers), -1)
    weights: NDArray[np.int64] = np.full_like(origins, view.size // origins.size)
    if chunked:
        tile, group = _tile_size(delivery), origins.shape[1]
        chunk = np.array([tile // group + (c < tile % group) for c in range(group)])
        own = chunk[np.argmax(origins == receivers, axis=1)]
        weights = np.hstack(
            [np.broadcast_to(part, origins.shape) for part in (own[:, None], chunk)]
        )
        origins = np.hstack([origins, origins])
    away = origins != receivers
    received = (weights * away).sum(axis=1)
    sent = np.bincount(origins[away], weights[away], minlength=1)
    return int(received.max()), int(sent.max())
