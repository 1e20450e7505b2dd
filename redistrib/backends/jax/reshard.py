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
from jax.sharding import AxisType, NamedSharding, SingleDeviceSharding

from redistrib.backends.jax import meshes
from redistrib.backends.jax.moves import find_move
from redistrib.backends.jax.partitioned import constrain
from redistrib.backends.jax.planning import Options, find_plan
from redistrib.backends.jax.shardings import abstract, is_explicit, named
from redistrib.errors import BackendError, InfeasibleError, LayoutError, RedistribError
from redistrib.synth.planner.problem import Strategy
from redistrib.types.named_sharding import type_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only
Program = Callable[[Any], Any]

FALLBACKS = ("error", "xla")
MAX_PROGRAMS = 1024
# XLA's CPU client deadlocks when more than 32 programs of several devices are in flight.
MAX_IN_FLIGHT = 16
_calls = count()


def reshard(
    tree: Any,
    shardings: Any,
    *,
    donate: bool = False,
    memory_limit: int | None = None,
    strategy: Strategy = "auto",
    fallback: str = "error",
) -> Any:
    """Every array of a tree in another layout, outside and inside jit; differentiable.

    `shardings` is one for all arrays or a tree of them (a prefix of `tree` suffices), of
    NamedShardings, or PartitionSpecs on the mesh of `jax.set_mesh`, else on the array's own.

    All is planned before anything is compiled. A change of layout is one program, kept for all
    arrays of that shape and dtype. `donate` gives the arrays up; `memory_limit` is in bytes per
    device and holds for every tile.

    `fallback="xla"` leaves to XLA what cannot be planned. Otherwise LayoutError is raised for
    shardings that types cannot say (uneven tiles, unconstrained axes) and for meshes that cannot be
    related, InfeasibleError where the limit is too low, BackendError for what is no jax array.
    """
    if fallback not in FALLBACKS:
        raise RedistribError(
            f"a fallback is one of {', '.join(FALLBACKS)}; got {fallback!r}", fallback=fallback
        )
    options = Options(strategy, memory_limit, fallback)
    if isinstance(tree, jax.Array):  # one array: no tree to walk
        return _program(tree, shardings, options, donate)(tree)
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
    programs = [_program(x, s, options, donate) for x, s in zip(leaves, targets, strict=True)]
    return jax.tree.unflatten(structure, [run(x) for run, x in zip(programs, leaves, strict=True)])


def cache_info() -> Any:
    """How often `reshard` found the program of an array, and how many it has made."""
    return _array_program.cache_info()


def _is_sharding(x: Any) -> bool:
    return isinstance(x, (NamedSharding, PartitionSpec))


def _program(x: Any, target: Any, options: Options, donate: bool) -> Program:
    if isinstance(x, jax.core.Tracer):
        return _tracer_program(x, _resolved(x, target), options, donate)
    if not isinstance(x, jax.Array):
        raise BackendError(
            f"reshard takes jax arrays; got {type(x).__name__}; jax.device_put places other arrays"
        )
    if not isinstance(target, NamedSharding):
        target = _resolved(x, target)
    program: Program = _array_program(x.shape, x.dtype, x.sharding, target, options, donate)
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
                f"a PartitionSpec needs a mesh, of jax.set_mesh or of the array; got {target}",
                dst=target,
            )
    return named(mesh, target)


def check_ends(source: Any, target: NamedSharding) -> None:
    """Raise LayoutError unless both are NamedShardings on devices and memory of one kind."""
    if not isinstance(source, NamedSharding):
        raise LayoutError(
            f"a sharding is a NamedSharding; got {type(source).__name__}", sharding=source
        )
    places = [_place(end) for end in (source, target)]
    if places[0] != places[1]:
        raise LayoutError(
            f"source and target are in the same memory of devices of one platform; got {places[0]} "
            f"and {places[1]}",
            src=source,
            dst=target,
        )


def _place(end: NamedSharding) -> str:
    device = end.mesh.devices.flat[0]
    return f"{end.memory_kind or device.default_memory().kind} of {device.platform}"


@lru_cache(maxsize=MAX_PROGRAMS)
def _array_program(
    shape: tuple[int, ...],
    dtype: Any,
    source: Any,
    target: NamedSharding,
    options: Options,
    donate: bool,
) -> Program:
    """From a concrete array of one sharding to one of another."""
    put = partial(jax.device_put, device=target, donate=donate)
    if isinstance(source, SingleDeviceSharding):  # a mesh of one device
        source = NamedSharding(jax.sharding.Mesh([*source.device_set], "device"), PartitionSpec())
    try:
        check_ends(source, target)
        if source.mesh != target.mesh:
            src, dst = (type_of(shape, dtype, end) for end in (source, target))
            found = find_plan(src, dst, options)
            between = meshes.program_between(found, source, target)
            # Without steps the result has the same buffers.
            return _finished(between, target, delete=donate and bool(found.plan.steps))
        move = find_move(shape, dtype, source, target, options)
    except (LayoutError, InfeasibleError, BackendError):
        if options.fallback == "xla":
            return put
        raise
    if not move.plan.steps:
        return put  # moves and copies nothing
    # An array can take the place of another of its size only.
    reused = donate and move.plan.src.tile_bytes == move.plan.dst.tile_bytes
    jitted = jax.jit(move, out_shardings=target, donate_argnums=(0,) if reused else ())

    def run(x: jax.Array) -> Any:
        context: Any = jax.sharding.get_abstract_mesh()
        with nullcontext() if context.empty else jax.set_mesh(move.mesh):
            return jitted(x)

    return _finished(run, target, delete=donate and not reused)


def _finished(run: Program, target: NamedSharding, *, delete: bool) -> Program:
    """The program, and what is to be done after it."""
    devices = target.mesh.devices.flat
    throttled = len(devices) > 1 and devices[0].platform == "cpu"
    if not (throttled or delete):
        return run

    def finished(x: jax.Array) -> Any:
        moved = run(x)
        if delete:
            x.delete()
        if throttled and next(_calls) % MAX_IN_FLIGHT == 0:
            moved.block_until_ready()
        return moved

    return finished


def _tracer_program(x: Any, target: NamedSharding, options: Options, donate: bool) -> Program:
    """What a traced value runs through; `donate` is for concrete arrays."""
    if donate:
        raise BackendError("inside jit nothing is donated; the outer jit has donate_argnums")
    mesh = jax.typeof(x).sharding.mesh
    if any(kind == AxisType.Manual for kind in mesh.axis_types):
        raise BackendError("inside shard_map a value is a tile; tile_program redistributes tiles")
    try:
        if is_explicit(mesh):
            source = jax.typeof(x).sharding
            end = NamedSharding(abstract(target.mesh), target.spec)
            return find_move(x.shape, x.dtype, source, end, options)
        source = getattr(x.to_concrete_value(), "sharding", None)
        if isinstance(source, NamedSharding) and source.mesh == target.mesh:
            return find_move(x.shape, x.dtype, source, target, options)
        type_of(x.shape, x.dtype, target)  # the target at least is legal, whatever the source
    except (LayoutError, InfeasibleError):
        if options.fallback == "xla":
            put = jax.sharding.reshard if is_explicit(mesh) else jax.lax.with_sharding_constraint
            return lambda x: put(x, target)
        raise
    return _constrain(target, options)


@lru_cache(maxsize=MAX_PROGRAMS)
def _constrain(target: NamedSharding, options: Options) -> Program:
    # One program, so that the partitioner sees both ends also where nothing else is jitted.
    return jax.jit(lambda x: constrain(x, target, options), inline=True)
