"""Plans as jitted programs: on global arrays between NamedShardings, and on lists of tiles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from numpy.typing import NDArray

from redistrib.backends import simulator
from redistrib.backends.jax import shardings
from redistrib.backends.jax.choices import choices
from redistrib.backends.jax.host_copies import Array
from redistrib.backends.jax.lowering import tile_program
from redistrib.backends.jax.moves import Move
from redistrib.backends.jax.planning import Options, Planned
from redistrib.backends.jax.union_program import AXIS, union_program
from redistrib.errors import BackendError, LayoutError
from redistrib.models.figures import CHUNK
from redistrib.models.model_plan import plan_model
from redistrib.synth.plan.data import Plan, check_even
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.tile import same_bits, tile_of

# jax.sharding and jax.config are typed in parts only.
PartitionSpec: Any = jax.sharding.PartitionSpec
config: Any = jax.config


def compile(plan: Plan, jax_mesh: jax.sharding.Mesh) -> Any:  # noqa: A001 - the public name
    """A jax.jit function from a global array of the plan's source to one of its target.

    `jax_mesh` has the axes of the plan's mesh. The arrays have NamedShardings on it, or, for types
    with sub-axes, on its refinement. It is differentiable, and its transpose is planned.

    Raises LayoutError where the axes differ, a type has no PartitionSpec (`run` and
    `compile_stacked` take such types) or has partial sums and the mesh no Explicit axes, and where
    the plan goes to other devices, which `reshard` does.
    """
    shardings.check_mesh(plan.src.mesh, jax_mesh)
    check_even(plan, "jax")
    _check_one_mesh(plan)
    end = plan.types[-1]
    axes = shardings.common_axes(plan)
    mesh = shardings.refined_mesh(plan.src.mesh, jax_mesh, axes)
    specs = [shardings.partition_spec(t, axes) for t in (plan.src, end)]
    ends = [named_sharding(t, jax_mesh, mesh, axes) for t in (plan.src, end)]
    move = Move(Planned(plan), Options(memory_limit=plan.memory_limit), mesh, axes, *specs)
    return jax.jit(move, in_shardings=ends[0], out_shardings=ends[1])


def _check_one_mesh(plan: Plan) -> None:
    """Raise LayoutError for a plan to other devices."""
    if plan.types[-1].mesh != plan.src.mesh:
        raise LayoutError(
            f"a program has one list of devices; got a plan from {plan.src.mesh!r} to "
            f"{plan.dst.mesh!r}",
            plan=plan,
        )


def named_sharding(
    t: ArrayType,
    jax_mesh: jax.sharding.Mesh,
    refinement: jax.sharding.Mesh,
    axes: Sequence[DeviceDigit],
) -> NamedSharding:
    """The sharding of a type on the user's mesh, or on the refined one if it has sub-axes."""
    try:
        spec, mesh = shardings.partition_spec(t), jax_mesh
    except LayoutError:
        spec, mesh = shardings.partition_spec(t, axes), refinement
    return shardings.named(mesh, spec)


def compile_stacked(plan: Plan, devices: Sequence[Any] | None = None) -> Any:
    """A jax.jit function between stacked tiles, `[device, *tile]` over all devices.

    Every type runs. Devices are taken in mesh position order, by default as `virtual_devices`
    finds them. Raises LayoutError where the plan goes to other devices.
    """
    check_even(plan, "jax")
    _check_one_mesh(plan)
    count = plan.src.mesh.num_devices
    mesh_devices = virtual_devices(count) if devices is None else list(devices)
    names = [name for name, _ in plan.src.mesh.axes]
    sizes = [size for _, size in plan.src.mesh.axes]
    mesh = jax.sharding.Mesh(np.array(mesh_devices).reshape(sizes), names)
    spec = PartitionSpec(tuple(names))
    program = tile_program(plan)
    mapped = jax.shard_map(
        lambda stacked: program(stacked[0])[None],
        mesh=mesh,
        in_specs=spec,
        out_specs=spec,
        check_vma=False,
    )
    sharding = NamedSharding(mesh, spec)
    return jax.jit(mapped, in_shardings=sharding, out_shardings=sharding)


def virtual_devices(count: int) -> list[Any]:
    """The first `count` devices of the default platform, or else of the CPU.

    If jax has not started yet, the CPU is given that many. Raises BackendError if there are fewer.
    """
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        try:
            if config.jax_num_cpu_devices < count:
                config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            pass  # jax has started; what there is must do
    for devices in (jax.devices(), jax.devices("cpu")):
        if len(devices) >= count:
            return list(devices[:count])
    raise BackendError(
        f"the plan needs {count} devices; jax has {len(devices)}; before jax starts, set "
        f"XLA_FLAGS=--xla_force_host_platform_device_count={count} for virtual CPU devices",
        needed=count,
        found=len(devices),
    )


def dtypes_of(t: ArrayType) -> AbstractContextManager[Any]:
    """A context with 64-bit dtypes where the array has one, whatever the process is set to."""
    wide = t.dtype in {"i64", "u64", "f64", "c128"} or config.jax_enable_x64
    context: AbstractContextManager[Any] = jax.enable_x64(wide)
    return context


def run(plan: Plan, tiles: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The tiles of the plan's target from those of its source, by mesh position, in one program.

    Numpy arrays in and out, one for each device, which are those of `virtual_devices`. Where the
    plan goes to other devices, partial sums are reduced by a program of their own first.
    Raises BackendError unless there is one tile of the right shape and dtype per device.
    """
    check_even(plan, "jax")
    count, t = plan.src.mesh.num_devices, plan.src
    if len(tiles) != count or any(
        tile.shape != t.tile_shape or tile.dtype != t.numpy_dtype for tile in tiles
    ):
        shapes = sorted({f"{list(tile.shape)} {tile.dtype}" for tile in tiles})
        raise BackendError(
            f"{t} has {count} tiles of shape {list(t.tile_shape)} and dtype {t.numpy_dtype}; "
            f"got {len(tiles)} of {', '.join(shapes)}"
        )
    if plan.types[-1].mesh != plan.src.mesh:
        return _run_to_others(plan, tiles)
    devices = virtual_devices(count)
    with dtypes_of(t):
        program = compile_stacked(plan, devices)
        moved = program(_stacked(tiles, devices))
        place = {device: position for position, device in enumerate(devices)}
        shards = sorted(moved.addressable_shards, key=lambda shard: place[shard.device])
        results = [np.asarray(shard.data)[0] for shard in shards]
    # The target may name the same devices in another order.
    position_of = {device: position for position, device in enumerate(plan.types[-1].mesh.ids)}
    return [results[position_of[device]] for device in plan.dst.mesh.ids]


def _run_to_others(plan: Plan, tiles: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """As `run`, where source and target are on different devices."""
    model = plan_model({"x": plan.src}, {"x": plan.dst})
    reductions = [*model.reductions.values()]
    for reduction in reductions:
        tiles = run(reduction, tiles)
    ids, held = model.devices, dict(zip(plan.src.mesh.ids, tiles, strict=True))
    devices = virtual_devices(len(ids))
    (move,), x = model.moves, Array("x", is_target=False)
    with dtypes_of(plan.src):
        program = union_program(model, move, [x], ids, CHUNK)
        choose = choices(devices[0].platform)
        mapped = jax.shard_map(
            lambda tile: program.run([[tile.reshape(-1)]], choose)[0][None],
            mesh=jax.sharding.Mesh(np.array(devices), AXIS),
            in_specs=PartitionSpec(AXIS),
            out_specs=PartitionSpec(AXIS),
            check_vma=False,
        )
        nothing = np.zeros_like(tiles[0])
        stacked = _stacked([held.get(device, nothing) for device in ids], devices, AXIS)
        moved = np.asarray(jax.jit(mapped)(stacked))
    return [moved[ids.index(device)].reshape(plan.dst.tile_shape) for device in plan.dst.mesh.ids]


def _stacked(tiles: Sequence[NDArray[Any]], devices: Sequence[Any], axis: str = "position") -> Any:
    """`[device, *tile]`, a tile on each device."""
    sharding = NamedSharding(jax.sharding.Mesh(np.array(devices), axis), PartitionSpec(axis))
    shards = [
        jax.device_put(tile[None], device) for tile, device in zip(tiles, devices, strict=True)
    ]
    return jax.make_array_from_single_device_arrays(
        (len(devices), *tiles[0].shape), sharding, shards
    )


def run_array(plan: Plan, array: NDArray[Any]) -> NDArray[Any]:
    """The array after the plan: scattered, redistributed, every tile verified, gathered.

    Raises BackendError if a tile is not bit for bit what the target type says.
    """
    count = plan.src.mesh.num_devices
    tiles = run(plan, [tile_of(array, plan.src, position) for position in range(count)])
    if not plan.dst.partial:
        for position, tile in enumerate(tiles):
            if not same_bits(tile, tile_of(array, plan.dst, position)):
                raise BackendError(
                    f"device {position} holds other data than its tile of {plan.dst}",
                    position=position,
                )
    return simulator.gather(tiles, plan.dst)
