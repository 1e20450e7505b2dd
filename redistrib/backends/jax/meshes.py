"""From a mesh to another: the same devices in another shape or order, or other devices.

Where the axes of one mesh are digits of those of the other (x=8 and a=2,b=4; x=4,y=2 and its
transpose), the plan runs on the mesh of the source; the array enters and leaves as other views of
the same buffers. Otherwise the array is reduced on the source mesh, its pieces go from device to
device, and it is gathered on the target mesh. Between orders of one set of devices, as the rings of
`create_device_mesh`, pieces go in rounds of permutes, in one program that may be of many processes;
to other devices they are copied one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from redistrib.backends.jax import blocks, shardings
from redistrib.backends.jax.choices import Choices, as_bits, choices, from_bits
from redistrib.backends.jax.colouring import rounds
from redistrib.backends.jax.moves import Move
from redistrib.backends.jax.planning import Options, Planned
from redistrib.errors import BackendError
from redistrib.synth.plan.collectives import Collective, Exchange
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.pieces import Piece, Pieces, pieces_of
from redistrib.types.array_type import ArrayType

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only
Program = Callable[..., Any]
Rounds = Sequence[Sequence[Piece]]


def program_between(found: Planned, source: NamedSharding, target: NamedSharding) -> Program:
    """A function of concrete arrays that runs a plan between two meshes.

    Raises BackendError where pieces would be copied between devices of which this process has not
    all.
    """
    plan = found.plan
    at = next((n for n, step in enumerate(plan.steps) if _crosses(step)), None)
    if at is None:
        return _on_one_mesh(found, plan.types[-1], source.mesh, target)
    step, before, after = plan.steps[at], plan.types[at], plan.types[at + 1]
    assert isinstance(step, Exchange)
    reduce = make_plan(plan.src, before, plan.strategy, plan.steps[:at])
    gather = make_plan(after, plan.dst, plan.strategy, plan.steps[at + 1 :])
    enter = _sharding(before, reduce, source.mesh)
    crossed = _sharding(after, gather, target.mesh)
    first = _on_one_mesh(Planned(reduce), before, source.mesh, enter)
    pieces = _with_dimensions(pieces_of(step, before, after))
    same = set(source.mesh.devices.flat) == set(target.mesh.devices.flat)
    cross = (_permuting if same else _crossing)(pieces, after, enter, crossed)
    last = _on_one_mesh(Planned(gather), plan.dst, target.mesh, target)
    return lambda x: last(cross(first(x)))


def within(program: Program, mesh: Any) -> Program:
    """The program, for arrays on this mesh whatever mesh is in context."""

    def run(*given: jax.Array) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return program(*given)

    return run


def viewed(x: jax.Array, sharding: NamedSharding, shape: Sequence[int] | None = None) -> jax.Array:
    """The same buffers as an array with another sharding, by default an equivalent one."""
    if x.sharding == sharding:
        return x
    shards = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(tuple(shape or x.shape), sharding, shards)


def _crosses(step: Collective) -> bool:
    return isinstance(step, Exchange) and step.mesh is not None


def _sharding(t: ArrayType, plan: Plan, jax_mesh: Any) -> NamedSharding:
    axes = shardings.common_axes(plan)
    mesh = shardings.refined_mesh(plan.src.mesh, jax_mesh, axes)
    return NamedSharding(mesh, shardings.partition_spec(t, axes))


def _on_one_mesh(found: Planned, end: ArrayType, jax_mesh: Any, target: NamedSharding) -> Program:
    """The plan on its source's mesh, where its target is `end`."""
    plan = found.plan
    if not plan.steps:
        return lambda x: viewed(x, target)
    enter, leave = _sharding(plan.src, plan, jax_mesh), _sharding(end, plan, jax_mesh)
    mesh: Any = enter.mesh
    move = Move(found, Options(), mesh, shardings.common_axes(plan), enter.spec, leave.spec)
    run = within(jax.jit(move, out_shardings=leave), mesh)
    return lambda x: viewed(run(viewed(x, enter)), target)


def _crossing(
    found: Pieces, after: ArrayType, source: NamedSharding, target: NamedSharding
) -> Program:
    """Pieces cut on their senders, copied to their receivers, and put together there.

    In rounds, as collectives would run them: one program cuts for all rounds, one puts together.
    """
    senders, receivers = (list(end.mesh.devices.flat) for end in (source, target))
    process = jax.process_index()
    if others := {d.process_index for d in (*senders, *receivers)} - {process}:
        raise BackendError(
            f"pieces are copied between devices of this process, {process}; the meshes have "
            f"devices of {sorted(others)} too",
            meshes=(source.mesh, target.mesh),
        )
    turns = rounds(found.pieces, found.elements * after.itemsize)
    stacks = [
        NamedSharding(end.mesh, PartitionSpec(end.mesh.axis_names)) for end in (source, target)
    ]
    choose = choices(senders[0].platform)
    cut = _program(
        partial(_cut, found, turns, len(senders), choose), source, (stacks[0],) * len(turns)
    )
    join = _program(
        partial(_join, found, turns, len(receivers), after), (stacks[1],) * len(turns), target
    )

    def copied(sent: jax.Array, pieces: Sequence[Piece]) -> jax.Array:
        buffers = {shard.device: shard.data for shard in sent.addressable_shards}
        sender = {receivers[piece.receiver]: senders[piece.sender] for piece in pieces}
        empty = np.zeros((1, *sent.shape[1:]), sent.dtype)
        arrived = [
            jax.device_put(buffers[sender[device]] if device in sender else empty, device)
            for device in receivers
        ]
        shape = (len(receivers), *sent.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, stacks[1], arrived)

    def run(x: jax.Array) -> jax.Array:
        if not turns:  # no elements
            return jnp.zeros(after.shape, after.numpy_dtype, device=target)
        sent = cut(viewed(x, source))
        moved: jax.Array = join(*map(copied, sent, turns))
        return moved

    return run


def _permuting(
    found: Pieces, after: ArrayType, source: NamedSharding, target: NamedSharding
) -> Program:
    """Pieces cut, permuted and put together in one program on the source's mesh.

    It gives each device its tile of the target mesh, where that one has another position.
    """
    senders, receivers = (list(end.mesh.devices.flat) for end in (source, target))
    place = {device: position for position, device in enumerate(senders)}
    there = np.array([place[device] for device in receivers])  # target position -> source position
    own = [piece for piece in found.pieces if there[piece.receiver] == piece.sender]
    others = [piece for piece in found.pieces if there[piece.receiver] != piece.sender]
    size = found.elements * after.itemsize
    kept, turns = rounds(own, size), rounds(others, size)
    choose = choices(senders[0].platform)
    every = tuple(source.mesh.axis_names)

    def program(tile: Any) -> Any:
        position = jax.lax.axis_index(every)
        sent = _cut(found, [*kept, *turns], len(senders), choose, position, tile)
        pairs = [[(p.sender, int(there[p.receiver])) for p in pieces] for pieces in turns]
        arrived = [
            jax.lax.ppermute(part, every, to)
            for part, to in zip(sent[len(kept) :], pairs, strict=True)
        ]
        position = jnp.asarray(np.argsort(there))[position]
        arrived = [*sent[: len(kept)], *arrived]
        return _join(found, [*kept, *turns], len(receivers), after, position, *arrived)

    # What each device gives is its own; as replicas of one tile they have the shape of a tile.
    mapped = jax.shard_map(
        program, mesh=source.mesh, in_specs=source.spec, out_specs=PartitionSpec(), check_vma=False
    )
    run = within(jax.jit(mapped), source.mesh)

    def permuted(x: jax.Array) -> jax.Array:
        if not found.pieces:  # no elements
            return jnp.zeros(after.shape, after.numpy_dtype, device=target)
        return viewed(run(viewed(x, source)), target, after.shape)

    return permuted


def _with_dimensions(found: Pieces) -> Pieces:
    """The pieces of a scalar as those of an array with one element."""
    if found.block:
        return found
    only = (np.zeros(1, np.intp),)
    pieces = tuple(replace(piece, take=only, put=only) for piece in found.pieces)
    return Pieces((1,), (1,), (1,), pieces)


def _program(function: Callable[..., Any], ends_in: Any, ends_out: Any) -> Program:
    """A function of tiles as a program of global arrays."""
    mesh: Any = jax.tree.leaves((ends_in, ends_out))[0].mesh
    specs = [jax.tree.map(lambda end: end.spec, ends) for ends in (ends_in, ends_out)]
    every = tuple(mesh.axis_names)

    def tiles(*given: Any) -> Any:
        return function(jax.lax.axis_index(every), *given)

    in_specs = specs[0] if isinstance(ends_in, tuple) else (specs[0],)
    mapped = jax.shard_map(tiles, mesh=mesh, in_specs=in_specs, out_specs=specs[1], check_vma=False)
    return within(jax.jit(mapped), mesh)


def _cut(
    found: Pieces, turns: Rounds, devices: int, choose: Choices, position: Any, tile: Any
) -> tuple[Any, ...]:
    """What one of the devices of the source mesh sends, per round `[1, *blocks, *block]`."""
    parts = blocks.cut(found, turns, devices, position, as_bits(tile, choose))
    return tuple(part[None] for part in parts)


def _join(
    found: Pieces, turns: Rounds, devices: int, after: ArrayType, position: Any, *arrived: Any
) -> Any:
    """The tile of one of the devices of the target mesh, of what came in each round."""
    tile = blocks.join(found, turns, devices, position, [part[0] for part in arrived])
    return from_bits(tile.reshape(after.tile_shape), after.numpy_dtype)
