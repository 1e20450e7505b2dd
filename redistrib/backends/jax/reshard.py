"""`reshard`: arrays, and trees of them, from the shardings they have to those asked for.

What the source is decides who plans, and when:

- concrete arrays, and tracers of them under `jax.grad`, have a sharding: planned at once;
- values inside jit on a mesh with Explicit axes have one in their type: planned while tracing;
- other values inside jit have one once XLA has propagated layouts: planned while XLA compiles, for
  the two layouts that its partitioner names (`partitioned`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, partial
from itertools import count
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding

from redistrib.backends.jax import meshes
from redistrib.backends.jax.moves import find_move, is_explicit
from redistrib.backends.jax.partitioned import constrain
from redistrib.errors import BackendError, InfeasibleError, LayoutError, RedistribError
from redistrib.types.named_sharding import type_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only
Program = Callable[[Any], Any]

FALLBACKS = ("error", "xla")
MAX_PROGRAMS = 1024


def reshard(
    tree: Any,
    shardings: Any,
    *,
    donate: bool = False,
    memory_limit: int | None = None,
    strategy: str = "auto",
    fallback: str = "error",
) -> Any:
    """Every array of a tree in another layout, by our plans; outside and inside jit, differentiable.

    `shardings` is one for all arrays or a tree of them (a prefix of `tree` suffices): NamedShardings,
    or PartitionSpecs on the mesh of `jax.set_mesh`, else on the array's own. All is planned before
    anything is compiled. Each layout to be changed is one program, which serves all its arrays and is
    kept; `donate` gives the arrays up; `memory_limit` is in bytes per device, for every tile.

    `fallback="xla"` leaves to XLA what cannot be planned. Otherwise LayoutError is raised for
    shardings that types cannot say (uneven tiles, unconstrained axes) and for meshes that cannot be
    related, InfeasibleError where the limit is too low, BackendError for what is no jax array.
    """
    if fallback not in FALLBACKS:
        raise RedistribError(
            f"a fallback is one of {', '.join(FALLBACKS)}; got {fallback!r}", fallback=fallback
        )
    options = (strategy, memory_limit, fallback, donate)
    if isinstance(tree, jax.Array):  # one array: no tree to walk
        return _program(tree, shardings, options)(tree)
    leaves, structure = jax.tree.flatten(tree)
    targets = jax.tree.leaves(
        jax.tree.map(
            lambda target, below: jax.tree.map(lambda _: target, below),
            shardings,
            tree,
            is_leaf=_is_sharding,
        ),
        is_leaf=_is_sharding,
    )
    programs = [_program(x, s, options) for x, s in zip(leaves, targets, strict=True)]
    return structure.unflatten([run(x) for run, x in zip(programs, leaves, strict=True)])


def cache_info() -> Any:
    """How often `reshard` found the program of an array, and how many it has made."""
    return _array_program.cache_info()


def _is_sharding(x: Any) -> bool:
    return isinstance(x, (NamedSharding, PartitionSpec))


def _program(x: Any, target: Any, options: tuple[Any, ...]) -> Program:
    if isinstance(x, jax.core.Tracer):
        return _tracer_program(x, _resolved(x, target), *options)
    if not isinstance(x, jax.Array):
        raise BackendError(
            f"reshard takes jax arrays; got {type(x).__name__}; jax.device_put places other arrays"
        )
    if not isinstance(target, NamedSharding):
        target = _resolved(x, target)
    program: Program = _array_program(x.shape, x.dtype, x.sharding, target, *options)
    return program


def _resolved(x: Any, target: Any) -> NamedSharding:
    """The NamedSharding that is asked for."""
    if isinstance(target, NamedSharding):
        return target
    if not isinstance(target, PartitionSpec):
        raise LayoutError(
            f"a target is a NamedSharding or a PartitionSpec; got {type(target).__name__}",
            dst=target,
        )
    if not jax.sharding.get_abstract_mesh().empty:
        tracing = isinstance(x, jax.core.Tracer)
        mesh: Any = jax.sharding.get_abstract_mesh() if tracing else jax.sharding.get_mesh()
    else:
        mesh = getattr(jax.typeof(x).sharding, "mesh", None)
        if not isinstance(x, jax.core.Tracer):
            mesh = getattr(x.sharding, "mesh", None)
        if mesh is None or mesh.empty:
            raise LayoutError(
                f"a PartitionSpec needs a mesh: that of jax.set_mesh, or of the array; got {target}",
                dst=target,
            )
    return _named(mesh, target)


def _named(mesh: Any, spec: Any) -> NamedSharding:
    try:
        return NamedSharding(mesh, spec)
    except ValueError as error:
        raise LayoutError(f"a spec names axes of its mesh, {mesh}; got {spec}", dst=spec) from error


@lru_cache(maxsize=MAX_PROGRAMS)
def _array_program(
    shape: tuple[int, ...],
    dtype: Any,
    source: Any,
    target: NamedSharding,
    strategy: str,
    memory_limit: int | None,
    fallback: str,
    donate: bool,
) -> Program:
    """From a concrete array of one sharding to one of another."""
    try:
        ends = meshes.common_ends(shape, dtype, source, target)
        move = find_move(shape, dtype, *ends, strategy, memory_limit)
    except (LayoutError, InfeasibleError):
        if fallback == "xla":
            return partial(jax.device_put, device=target, donate=donate)
        raise
    if not move.plan.steps:
        return partial(jax.device_put, device=target, donate=donate)  # moves and copies nothing
    # An array can take the place of another of its size only.
    reused = donate and move.plan.src.tile_bytes == move.plan.dst.tile_bytes
    jitted = jax.jit(move, out_shardings=ends[1], donate_argnums=(0,) if reused else ())
    related = ends[0] is not source
    devices = move.mesh.devices.flat
    in_order = devices[0].platform == "cpu" and len(devices) > 1

    def run(x: jax.Array) -> jax.Array:
        context: Any = jax.sharding.get_abstract_mesh()
        with nullcontext() if context.empty else jax.set_mesh(move.mesh):
            moved: jax.Array = jitted(meshes.viewed(x, ends[0]) if related else x)
        if related:
            moved = meshes.viewed(moved, target)
        if donate and not reused:
            x.delete()
        if in_order and next(_calls) % MAX_IN_FLIGHT == 0:
            moved.block_until_ready()
        return moved

    return jitted if not (related or donate or in_order) else run


# XLA's CPU client deadlocks when more than 32 programs of several devices are in flight.
MAX_IN_FLIGHT = 16
_calls = count()


def _tracer_program(
    x: Any,
    target: NamedSharding,
    strategy: str,
    memory_limit: int | None,
    fallback: str,
    donate: bool,
) -> Program:
    """What a traced value runs through; `donate` is for concrete arrays."""
    if donate:
        raise BackendError("inside jit nothing is donated; the outer jit has donate_argnums")
    mesh = jax.typeof(x).sharding.mesh
    if any(kind == AxisType.Manual for kind in mesh.axis_types):
        raise BackendError("inside shard_map a value is a tile; tile_program redistributes tiles")
    try:
        if is_explicit(mesh):
            source = jax.typeof(x).sharding
            check_same(source, target)
            return find_move(
                x.shape, x.dtype, source, NamedSharding(mesh, target.spec), strategy, memory_limit
            )
        source = getattr(x.to_concrete_value(), "sharding", None)
        if source is not None:
            ends = meshes.common_ends(x.shape, x.dtype, source, target)
            if ends[0] is source:
                return find_move(x.shape, x.dtype, *ends, strategy, memory_limit)
        type_of(x.shape, x.dtype, target)  # where the source is unknown, at least the target is legal
    except (LayoutError, InfeasibleError):
        if fallback == "xla":
            put = jax.sharding.reshard if is_explicit(mesh) else jax.lax.with_sharding_constraint
            return lambda x: put(x, target)
        raise
    return _constrain(target, strategy, memory_limit)


@lru_cache(maxsize=MAX_PROGRAMS)
def _constrain(target: NamedSharding, strategy: str, memory_limit: int | None) -> Program:
    # One program, so that the partitioner sees both ends also where nothing else is jitted.
    return jax.jit(
        lambda x: constrain(x, target, strategy=strategy, memory_limit=memory_limit), inline=True
    )
