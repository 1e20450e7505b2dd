"""One array on every device in one process, with numpy: the reference semantics of plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from redistrib.backends.simulator.blocks import in_corner
from redistrib.backends.simulator.tiles import Array, Tiles, Views, tiles_of
from redistrib.errors import BackendError
from redistrib.synth.plan.collectives import AllReduce
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.tile_program import interpret, tile_program
from redistrib.types.array_type import ArrayType
from redistrib.types.reduction import identity
from redistrib.types.tile import check_array_of, numbers, same_bits, tile_of


def scatter(array: ArrayLike, type: ArrayType) -> list[Array]:  # noqa: A002
    """The tiles of an array, by position of the mesh, each of the shape of its position.

    Over partial axes, the devices with coordinate 0 hold the data and the others the identity of
    the reduction. Raises BackendError if the shape or dtype of the array is not that of the type.

    >>> from redistrib.types.mesh import Mesh
    >>> t = ArrayType.parse("i64[4{x}] sum{y}", Mesh(x=2, y=2))
    >>> [tile.tolist() for tile in scatter(np.arange(4), t)]
    [[0, 1], [0, 0], [2, 3], [0, 0]]
    """
    data = np.asarray(array)
    check_array_of(data, type)
    if type.uneven:
        return [tile_of(data, type, position) for position in range(type.mesh.num_devices)]
    tiles = np.array(
        tiles_of(np.ascontiguousarray(data).reshape(data.shape), type).view(), order="C"
    ).reshape(type.mesh.num_devices, *type.tile_shape)
    if type.partial:
        empty = identity(data.dtype, type.reduction)
        tiles[numbers(type.mesh, type.partial) > 0] = empty
    return list(tiles)


def run(plan: Plan, tiles: Sequence[ArrayLike]) -> list[Array]:
    """The tiles of the plan's target from those of its source, by position of their meshes.

    Raises BackendError unless there is one tile per device, of the shape of its position and the
    dtype of `plan.src`, and if an exchange asks a device for an element that it does not hold.
    """
    stacked = _stack(tiles, plan.src, plan.types[0].tile_shape)
    current = Tiles.stacked(stacked, plan.src.mesh)
    views = Views()
    for part in tile_program(plan.steps, plan.types):
        current = interpret(part.operations, views, current).settled()
    return _by_device(current.data, plan)


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
    current = _stack(tiles, type, type.tile_shape)
    if type.partial:
        summed = type.replace(partial=())
        program = tile_program((AllReduce(type.partial),), (type, summed))
        partial = Tiles.stacked(current, type.mesh)
        current = interpret(program[0].operations, Views(), partial).settled().data
        type = summed  # noqa: A001
    if type.uneven:
        return _put_together(current, type)
    result = np.empty(type.shape, current.dtype)
    view = tiles_of(result, type).view()
    view[...] = current.reshape(view.shape)
    # Of replicas the last one written stays. Compared as bytes, a NaN agrees with itself.
    kept = np.array(view, order="C").reshape(len(current), -1).view(np.uint8)
    differ = (kept != current.reshape(len(current), -1).view(np.uint8)).any(axis=1)
    if differ.any():
        raise _disagree(type, int(differ.argmax()))
    return result


def _put_together(tiles: Array, t: ArrayType) -> Array:
    """The array of uneven tiles, each in the corner of the largest shape."""
    result = np.zeros(t.shape, tiles.dtype)
    places = [np.ix_(*t.tile(position)) for position in range(len(tiles))]
    corners = [in_corner(tile, t.tile_shape_at(position)) for position, tile in enumerate(tiles)]
    for place, tile in zip(places, corners, strict=True):
        result[place] = tile
    for device, (place, tile) in enumerate(zip(places, corners, strict=True)):
        if not same_bits(result[place], tile):
            raise _disagree(t, device)
    return result


def _disagree(t: ArrayType, device: int) -> BackendError:
    return BackendError(
        f"replicas of {t} agree bit by bit; those of device {device} do not", device=device, type=t
    )


def run_array(plan: Plan, array: ArrayLike) -> Array:
    """The array after the plan: scattered, redistributed, gathered.

    Raises BackendError where the array is not one of the plan's source.
    """
    return gather(run(plan, scatter(array, plan.src)), plan.dst)


def _by_device(tiles: Array, plan: Plan) -> list[Array]:
    """Tiles of the last type of a plan, in the order of the devices of its target."""
    place = {device: position for position, device in enumerate(plan.types[-1].mesh.ids)}
    ordered = tiles[[place[device] for device in plan.dst.mesh.ids]]
    if not plan.dst.uneven and plan.padded_shape is None:
        return list(ordered)
    return [
        np.ascontiguousarray(in_corner(tile, plan.dst.tile_shape_at(position)))
        for position, tile in enumerate(ordered)
    ]


def _stack(tiles: Sequence[ArrayLike], t: ArrayType, largest: tuple[int, ...]) -> Array:
    """The tiles as one array `[device, *largest]`, each in a corner, checked against their type."""
    devices, dtype = t.mesh.num_devices, t.numpy_dtype
    if len(tiles) != devices:
        raise BackendError(
            f"{t} has one tile for each of the {devices} devices of its mesh; got {len(tiles)}",
            tiles=len(tiles),
        )
    stacked = np.zeros((devices, *largest), dtype)
    for device, item in enumerate(tiles):
        tile = np.asarray(item)
        shape = t.tile_shape_at(device)
        if tile.shape != shape or tile.dtype != dtype:
            raise BackendError(
                f"a tile of {t} has shape {list(shape)} and dtype {dtype}; device {device} was "
                f"given shape {list(tile.shape)} and dtype {tile.dtype}",
                device=device,
                shape=tile.shape,
                dtype=tile.dtype,
            )
        in_corner(stacked[device, ...], shape)[...] = tile
    return stacked
