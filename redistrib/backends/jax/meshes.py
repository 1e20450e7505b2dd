"""From a mesh to another: the same devices in another shape or order, or other devices.

On the same devices the plan runs on the mesh of the source, cut into digits; the array enters and
leaves as other views of the same buffers. Otherwise the array is reduced on the source mesh, its
pieces are copied from device to device, and it is gathered on the target mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from redistrib.backends.boxes import Boxes, Piece, boxes
from redistrib.backends.jax import shardings
from redistrib.backends.jax.moves import Move
from redistrib.errors import BackendError
from redistrib.synth.collectives import Collective, Exchange
from redistrib.synth.plan import Plan, make_plan
from redistrib.types.array_type import ArrayType

Program = Callable[[Any], Any]


def program_between(plan: Plan, source: NamedSharding, target: NamedSharding) -> Program:
    """A function of concrete arrays that runs a plan between two meshes.

    Raises BackendError where pieces would be copied between devices of which this process has not
    all.
    """
    at = next((n for n, step in enumerate(plan.steps) if _crosses(step)), None)
    if at is None:
        return _on_one_mesh(plan, plan.types[-1], source.mesh, target)
    step, before, after = plan.steps[at], plan.types[at], plan.types[at + 1]
    assert isinstance(step, Exchange)
    meshes = source.mesh, target.mesh
    reduce = make_plan(plan.src, before, plan.strategy, plan.steps[:at])
    gather = make_plan(after, plan.dst, plan.strategy, plan.steps[at + 1 :])
    enter = _sharding(before, reduce, meshes[0])
    crossed = _sharding(after, gather, meshes[1])
    first = _on_one_mesh(reduce, before, meshes[0], enter)
    cross = _crossing(boxes(step, before, after), after, enter, crossed)
    last = _on_one_mesh(gather, plan.dst, meshes[1], target)
    return lambda x: last(cross(first(x)))


def viewed(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """The same buffers as an array with an equivalent sharding on another mesh."""
    if x.sharding == sharding:
        return x
    shards = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, shards)


def _crosses(step: Collective) -> bool:
    return isinstance(step, Exchange) and step.mesh is not None


def _sharding(t: ArrayType, plan: Plan, jax_mesh: Any) -> NamedSharding:
    axes = shardings.common_axes(plan)
    mesh = shardings.refined_mesh(plan.src.mesh, jax_mesh, axes)
    return NamedSharding(mesh, shardings.partition_spec(t, axes))


def _on_one_mesh(plan: Plan, end: ArrayType, jax_mesh: Any, target: NamedSharding) -> Program:
    """The plan on its source's mesh, where its target is `end`."""
    if not plan.steps:
        return lambda x: viewed(x, target)
    enter, leave = _sharding(plan.src, plan, jax_mesh), _sharding(end, plan, jax_mesh)
    mesh: Any = enter.mesh
    move = Move(plan, mesh, shardings.common_axes(plan), enter.spec, leave.spec)
    jitted = jax.jit(move, out_shardings=leave)

    def run(x: jax.Array) -> jax.Array:
        with jax.set_mesh(mesh):
            moved = jitted(viewed(x, enter))
        return viewed(moved, target)

    return run


def _crossing(
    found: Boxes, after: ArrayType, source: NamedSharding, target: NamedSharding
) -> Program:
    """Pieces cut on their senders, copied to their receivers, and put together there."""
    mesh_before, mesh_after = source.mesh, target.mesh
    senders, receivers = (list(mesh.devices.flat) for mesh in (mesh_before, mesh_after))
    process = jax.process_index()
    if others := {d.process_index for d in (*senders, *receivers)} - {process}:
        raise BackendError(
            f"pieces are copied between devices of this process, {process}; the meshes have "
            f"devices of {sorted(others)} too; on one set of devices, reshard over one mesh",
            meshes=(mesh_before, mesh_after),
        )
    wanted: list[list[Piece]] = [[] for _ in receivers]
    for piece in found.pieces:
        wanted[piece.receiver].append(piece)

    def receive(tiles: dict[Any, jax.Array], position: int) -> jax.Array:
        device = receivers[position]
        tile = jnp.zeros(after.tile_shape, after.numpy_dtype, device=device)
        for piece in wanted[position]:
            sent = _take(tiles[senders[piece.sender]], _elements(piece.take, found.block))
            tile = _put(tile, jax.device_put(sent, device), _elements(piece.put, found.block))
        return tile

    def run(x: jax.Array) -> jax.Array:
        tiles = {shard.device: shard.data for shard in viewed(x, source).addressable_shards}
        received = [receive(tiles, position) for position in range(len(receivers))]
        return jax.make_array_from_single_device_arrays(after.shape, target, received)

    return run


def _elements(blocks: Sequence[Any], size: Sequence[int]) -> tuple[Any, ...]:
    """Per dimension, the elements of these blocks, as an index like numpy.ix_."""
    index = [
        (places[:, None] * length + np.arange(length)).reshape(-1)
        for places, length in zip(blocks, size, strict=True)
    ]
    return np.ix_(*index)


@jax.jit
def _take(tile: jax.Array, index: tuple[Any, ...]) -> jax.Array:
    return tile[index]


def _put_in(tile: jax.Array, piece: jax.Array, index: tuple[Any, ...]) -> jax.Array:
    return tile.at[index].set(piece)


_put = jax.jit(_put_in, donate_argnums=0)
