"""What runs for a concrete array: a jitted plan, a program between two meshes, or `device_put`.

The array has a sharding, so the plan is made at once, and its program is kept for all arrays of
that shape, dtype and sharding. f32[16, 16] on x=4, y=2 from P("x", "y"):

    to P("y", "x")                   one jitted program
    to P("x", "y")                   jax.device_put, which then copies nothing
    to a mesh of other devices       copies in memory, or one program over both sides (`between`)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial, reduce
from itertools import count
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import NamedSharding, SingleDeviceSharding

from redistrib.backends.jax import meshes
from redistrib.backends.jax.between import in_memory
from redistrib.backends.jax.carriers import carrier, decoded, encoded
from redistrib.backends.jax.deferred import deferred_p, resolved
from redistrib.backends.jax.moves import Move, find_move, jitted, move_p
from redistrib.backends.jax.planning import Options, Planned, find_plan
from redistrib.errors import BackendError, InfeasibleError, LayoutError
from redistrib.synth.plan.data import Plan
from redistrib.types.named_sharding import entries_of, type_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only
Program = Callable[[Any], Any]

MAX_PROGRAMS = 1024
PUT = 1 << 23
"""Bytes of an array up to which `jax.device_put` copies it fastest from CPU devices to others.

It goes by way of one array of the whole, ours by a numpy copy for each piece, which takes as long
however small: 16 KiB from eight devices to eight take 1.2 to 2.1 times as long, 4 MiB 1.2 to 1.7.
"""
# XLA's CPU client deadlocks when more than 32 programs of several devices are in flight.
MAX_IN_FLIGHT = 16
_calls = count()


def program_of(x: jax.Array, target: NamedSharding, options: Options, donate: bool) -> Program:
    """The program of arrays like this one. Raises LayoutError, InfeasibleError and BackendError."""
    program: Program = array_program(
        x.shape, x.dtype, x.weak_type, x.sharding, target, options, donate
    )
    return program


@lru_cache(maxsize=MAX_PROGRAMS)
def array_program(
    shape: tuple[int, ...],
    dtype: Any,
    weak_type: bool,
    source: Any,
    target: NamedSharding,
    options: Options,
    donate: bool,
) -> Program:
    """From a concrete array of one sharding to one of another."""
    put = partial(jax.device_put, device=target, donate=donate)
    if isinstance(source, SingleDeviceSharding):
        if not target.is_fully_addressable:
            return put  # every process has a copy
        source = NamedSharding(jax.sharding.Mesh([*source.device_set], "device"), PartitionSpec())
    try:
        check_ends(source, target)
        if source.mesh != target.mesh:
            src, dst = (type_of(shape, carrier(dtype), end) for end in (source, target))
            planned = find_plan(src, dst, options)
            if meshes.crosses(planned.plan):
                if _is_put(planned.plan, source, target):
                    return _finished(partial(jax.device_put, device=target), target, delete=donate)
                between = meshes.to_other_devices(planned.plan, source, target, dtype, weak_type)
            else:
                between = _on_same_buffers(planned, source, target, dtype, weak_type)
            # Without steps the result has the same buffers.
            return _finished(between, target, delete=donate and bool(planned.plan.steps))
        move = find_move(shape, dtype, source, target, options)
    except (LayoutError, InfeasibleError, BackendError):
        if options.fallback == "xla":
            return _by_jax(target, donate)
        raise
    if not move.plan.steps:
        return put  # moves and copies nothing
    # An array can take the place of another of its size only.
    reused = donate and move.plan.src.tile_bytes == move.plan.dst.tile_bytes
    program = jax.jit(move, out_shardings=target, donate_argnums=(0,) if reused else ())
    return _finished(meshes.within(program, move.mesh), target, delete=donate and not reused)


def _is_put(plan: Plan, source: NamedSharding, target: NamedSharding) -> bool:
    """Whether an array is small, and copied in memory from some devices to others.

    On one set of devices the result might have the buffers of the source, which is given up.
    """
    local = all(in_memory(device) for end in (source, target) for device in end.mesh.devices.flat)
    apart = source.device_set.isdisjoint(target.device_set)
    sums = plan.src.partial or target.spec.unreduced or target.spec.reduced
    return local and apart and not sums and plan.src.size * plan.src.itemsize <= PUT


def _on_same_buffers(
    planned: Planned, source: NamedSharding, target: NamedSharding, dtype: Any, weak_type: bool
) -> Program:
    between = meshes.on_same_buffers(planned, source, target)
    if carrier(dtype) != dtype:
        encode, decode = jax.jit(encoded), jax.jit(partial(decoded, dtype=dtype))
        between = _chain(
            meshes.within(encode, source.mesh), between, meshes.within(decode, target.mesh)
        )
    if weak_type:
        weakened = jax.jit(weak_p.bind, out_shardings=target)
        between = _chain(between, meshes.within(weakened, target.mesh))
    return between


def _by_jax(target: NamedSharding, donate: bool) -> Program:
    if PartitionSpec.UNCONSTRAINED in entries_of(target.spec):
        return lambda x: jax.lax.with_sharding_constraint(x, target)
    return partial(jax.device_put, device=target, donate=donate)


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


def _chain(*programs: Program) -> Program:
    return lambda x: reduce(lambda moved, program: program(moved), programs, x)


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


def _run_deferred(x: jax.Array, *, target: Any, options: Options, **_: Any) -> Any:
    """A deferred redistribution, now that its source is here."""
    if not isinstance(target, NamedSharding):
        return jax.device_put(x, target)
    return program_of(x, resolved(x, target), options, donate=False)(x)


def _run_move(x: jax.Array, *, move: Move, **_: Any) -> Any:
    """A move that was planned for the sharding in a type, which says nothing of the devices."""
    if isinstance(move.mesh, jax.sharding.Mesh) and getattr(x.sharding, "mesh", None) != move.mesh:
        return program_of(x, NamedSharding(move.mesh, move.target), move.options, donate=False)(x)
    return jitted(move)(x)


deferred_p.def_impl(_run_deferred)
move_p.def_impl(_run_move)

weak_p: Any = Primitive("weak_type")
weak_p.def_abstract_eval(lambda x: x.update(weak_type=True))
mlir.register_lowering(weak_p, lambda _, x: [x])
