"""From a mesh to another: the same devices in another shape or order, or other devices.

Where the axes of one mesh are digits of those of the other (x=8 and a=2,b=4; x=4,y=2 and its
transpose), the plan runs on the mesh of the source; the array enters and leaves as other views of
the same buffers. Otherwise, between orders of one set of devices as the rings of
`create_device_mesh`, and to other devices, it is a model of one array: partial sums are reduced on
their own mesh, and each element crosses once to each group of replicas (`between`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from redistrib.backends.jax import internals, shardings
from redistrib.backends.jax.between import Result, between
from redistrib.backends.jax.host_copies import Array
from redistrib.backends.jax.moves import Move
from redistrib.backends.jax.planning import Options, Planned
from redistrib.models.model_plan import plan_model
from redistrib.synth.plan.collectives import Exchange
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only
Program = Callable[..., Any]


def crosses(plan: Plan) -> bool:
    """Whether a plan goes to other devices, or to an order of the same that digits cannot say."""
    return any(isinstance(step, Exchange) and step.mesh is not None for step in plan.steps)


def on_same_buffers(planned: Planned, source: NamedSharding, target: NamedSharding) -> Program:
    """A function of concrete arrays that runs a plan on the mesh of the source."""
    return _on_one_mesh(planned, planned.plan.types[-1], source.mesh, target)


def to_other_devices(
    plan: Plan, source: NamedSharding, target: NamedSharding, dtype: Any, weak_type: bool
) -> Program:
    """A function of concrete arrays that takes them to other devices, or another order of them."""
    model = plan_model({"x": plan.src}, {"x": plan.dst})
    read, result = Array("x", is_target=False), {"x": Result(target, dtype, weak_type)}
    if (reduction := model.reductions.get("x")) is None:
        move = between(model, model.moves, {read: source}, result)
        return lambda x: move({read: x})[0]
    first, sharding = reduced(reduction, source)
    last = between(model, model.moves, {read: sharding}, result)
    return lambda x: last({read: first(x)})[0]


def reduced(reduction: Plan, source: NamedSharding) -> tuple[Program, NamedSharding]:
    """A program that adds up the partial sums of an array, and how its result is laid out."""
    sharding = _sharding(reduction.dst, reduction, source.mesh)
    return _on_one_mesh(Planned(reduction), reduction.dst, source.mesh, sharding), sharding


def within(program: Program, mesh: Any) -> Program:
    """The program, for arrays on this mesh whatever mesh is in context."""

    def run(*arrays: jax.Array) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return program(*arrays)

    return run


def viewed(x: jax.Array, sharding: NamedSharding, dtype: Any = None) -> jax.Array:
    """The same buffers as an array with another sharding, an equivalent one.

    With another dtype of the same size, which is for arrays in the memory of the process.
    """
    dtype = dtype or x.dtype
    if x.sharding == sharding and x.dtype == dtype:
        return x
    held = {next(iter(shard.devices())): shard for shard in internals.shards(x)}
    tiles = [held[device] for device in sharding.mesh.devices.flat if device in held]
    if dtype != x.dtype:
        tiles = [np.asarray(tile).view(dtype) for tile in tiles]
    same: jax.Array = internals.global_array(x.shape, dtype, x.weak_type, sharding, tiles)
    return same


def _sharding(t: ArrayType, plan: Plan, jax_mesh: Any) -> NamedSharding:
    axes = shardings.common_axes(plan)
    mesh = shardings.refined_mesh(plan.src.mesh, jax_mesh, axes)
    return NamedSharding(mesh, shardings.partition_spec(t, axes))


def _on_one_mesh(planned: Planned, end: ArrayType, jax_mesh: Any, target: NamedSharding) -> Program:
    """The plan on its source's mesh, where its target is `end`."""
    plan = planned.plan
    if not plan.steps:
        return lambda x: viewed(x, target)
    enter, leave = _sharding(plan.src, plan, jax_mesh), _sharding(end, plan, jax_mesh)
    mesh: Any = enter.mesh
    move = Move(planned, Options(), mesh, shardings.common_axes(plan), enter.spec, leave.spec)
    run = within(jax.jit(move, out_shardings=leave), mesh)
    return lambda x: viewed(run(viewed(x, enter)), target)
