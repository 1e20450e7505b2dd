"""A redistribution to a known target of a value whose layout is known only when it runs.

Where the array is at hand, under `jax.vjp`, `jax.vmap` and `jax.checkpoint` outside jit, it runs as
for any array, to other meshes too (`arrays`). Inside jit it is the identity of `partitioned` and a
sharding constraint. Linear: cotangents go back to the source's sharding where that is known, and
otherwise where their users want them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding

from redistrib.backends.jax import shardings
from redistrib.backends.jax.moves import cotangent_spec, with_entry
from redistrib.backends.jax.partitioned import constrain, free
from redistrib.backends.jax.planning import Options
from redistrib.errors import LayoutError
from redistrib.types.named_sharding import entries_of

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only


def deferred(x: Any, target: Any, source: Any, options: Options) -> Any:
    """The value in the target's layout; `source` is its sharding, None where that is not known."""
    call = _call(jax.typeof(x), shardings.context_mesh(), target, options)
    return deferred_p.bind(x, target=target, source=source, options=options, call=call)


@lru_cache(maxsize=1024)
def _call(aval: Any, mesh: Any, target: Any, options: Options) -> Any:
    """What runs inside jit. It is a parameter because jax looks there for devices of a program."""

    def inside(x: Any) -> Any:
        typed = shardings.has_explicit(aval.sharding.mesh)
        if isinstance(target, NamedSharding) and not (typed or _explicit(target)):
            return constrain(x, target, options)
        if typed and _explicit(target):
            (freed,) = free([x], options, target.mesh)
            return jax.sharding.reshard(freed, target)
        return jax.device_put(x, target)

    like = jax.ShapeDtypeStruct(
        aval.shape, aval.dtype, weak_type=aval.weak_type, sharding=aval.sharding
    )
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.make_jaxpr(inside)(like)


def _explicit(end: Any) -> bool:
    return isinstance(end, NamedSharding) and shardings.has_explicit(shardings.abstract(end.mesh))


def resolved(x: jax.Array, target: NamedSharding) -> NamedSharding:
    """The target with what it leaves open laid out as it is, where no axis stands in the way."""
    entries = list(entries_of(target.spec))
    if PartitionSpec.UNCONSTRAINED not in entries:
        return target
    named = {name for entry in entries if isinstance(entry, (str, tuple)) for name in _axes(entry)}
    current: list[Any] = [None] * x.ndim
    if isinstance(x.sharding, NamedSharding) and x.sharding.mesh == target.mesh:
        held = entries_of(x.sharding.spec)
        current[: len(held)] = held
    for dim, entry in enumerate(entries):
        if entry is PartitionSpec.UNCONSTRAINED:
            entries[dim] = None if named & {*_axes(current[dim])} else current[dim]
    spec = PartitionSpec(*entries, unreduced=target.spec.unreduced, reduced=target.spec.reduced)
    return NamedSharding(target.mesh, spec)


def _axes(entry: Any) -> tuple[str, ...]:
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def _abstract(_: Any, *, call: Any, **__: Any) -> Any:
    return call.out_avals[0]


def _transpose(
    cotangent: Any, x: Any, *, target: Any, source: Any, options: Options, **_: Any
) -> Any:
    typed = shardings.has_explicit(x.aval.sharding.mesh)
    if source is None and not typed:
        return free([deferred(cotangent, _cotangent(target), None, options)], options, target.mesh)
    # The type of an array with Explicit axes is that of its cotangent, too.
    end = _cotangent(source or x.aval.sharding)
    return [deferred(cotangent, end, _cotangent(target), options)]


def _cotangent(end: Any) -> Any:
    return end.update(spec=cotangent_spec(end.spec)) if isinstance(end, NamedSharding) else end


def _batch(args: Any, dims: Any, *, target: Any, source: Any, options: Options, **_: Any) -> Any:
    (x,), (dim,) = args, dims
    typed = shardings.has_explicit(jax.typeof(x).sharding.mesh)

    def batched(end: Any) -> Any:
        if not isinstance(end, NamedSharding):
            return end
        entry = None if typed or _explicit(end) else PartitionSpec.UNCONSTRAINED
        return end.update(spec=with_entry(end.spec, dim, entry))

    return deferred(x, batched(target), batched(source), options), dim


def _lower(context: Any, x: Any, *, target: Any, call: Any, options: Options, **_: Any) -> Any:
    mesh = context.avals_in[0].sharding.mesh
    if options.fallback == "error" and shardings.has_explicit(mesh) and not _explicit(target):
        raise LayoutError(
            f"inside jit a mesh with Explicit axes leads to another such mesh; got {mesh} and "
            f"{target}",
            dst=target,
        )
    return mlir.lower_fun(jaxpr_as_fun(call), multiple_results=True)(context, x)


deferred_p: Any = Primitive("redistribute_to")
deferred_p.def_abstract_eval(_abstract)
ad.deflinear2(deferred_p, _transpose)
batching.primitive_batchers[deferred_p] = _batch
mlir.register_lowering(deferred_p, _lower)
