"""One array on every device in one process, with numpy: the reference semantics of plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from redistrib.backends.simulator.tiles import Array, Tiles, Views, tiles_of
from redistrib.errors import BackendError
from redistrib.synth.plan.collectives import AllReduce
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.tile_program import interpret, tile_program
from redistrib.types.array_type import ArrayType
from redistrib.types.reduction import identity
from redistrib.types.tile import check_array_of, numbers


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
    check_array_of(data, type)
    tiles = np.array(
        tiles_of(np.ascontiguousarray(data).reshape(data.shape), type).view(), order="C"
    ).reshape(type.mesh.num_devices, *type.tile_shape)
    if type.partial:
        empty = identity(data.dtype, type.reduction)
        tiles[numbers(type.mesh, type.partial) > 0] = empty
    return list(tiles)


def run(plan: Plan, tiles: Sequence[ArrayLike]) -> list[Array]:
    """The tiles of the plan's target from those of its source, by position of their meshes.

    Raises BackendError unless there is one tile per device, of the tile shape and dtype of
    `plan.src`, and if an exchange asks a device for an element that it does not hold.
    """
    current = Tiles.stacked(_stack(tiles, plan.src), plan.src.mesh)
    views = Views()
    for part in tile_program(plan.steps, plan.types):
        current = interpret(part.operations, views, current).settled()
    return list(_by_device(current.data, plan))


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
        whole = type.replace(partial=())
        program = tile_program((AllReduce(type.partial),), (type, whole))
        partial = Tiles.stacked(current, type.mesh)
        current = interpret(program[0].operations, Views(), partial).settled().data
        type = whole  # noqa: A001
    result = np.empty(type.shape, current.dtype)
    view = tiles_of(result, type).view()
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


def run_array(plan: Plan, array: ArrayLike) -> Array:
    """The array after the plan: scattered, redistributed, gathered.

    Raises BackendError where the array is not one of the plan's source.
    """
    return gather(run(plan, scatter(array, plan.src)), plan.dst)


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
