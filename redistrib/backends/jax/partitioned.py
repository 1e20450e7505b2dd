"""An identity that may change its layout: the partitioner says from what to what, we say how.

Inside jit, without explicit sharding, nobody knows the layout of a value before XLA's partitioner
has propagated those of its neighbours. `free` is an identity whose operand and result may be laid
out differently: propagation passes through it, and where the two ends then differ, the partitioner
asks for the program of one device, which is our plan. `constrain` puts it before a sharding
constraint. The transpose of `free` is itself, so a backward pass is planned in the same way.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from redistrib.backends.jax import shardings
from redistrib.backends.jax.lowering import tile_program
from redistrib.errors import LayoutError, RedistribError
from redistrib.synth.planner import plan
from redistrib.types.array_type import ArrayType
from redistrib.types.equivalence import on_mesh
from redistrib.types.mesh import Mesh

free_p: Any = Primitive("redistribute_free")


def free(x: Any, strategy: str, memory_limit: int | None) -> Any:
    """The array itself, in whatever layout its users want."""
    call = free_call(x.shape, x.dtype, strategy, memory_limit)
    return free_p.bind(x, call=call, strategy=strategy, memory_limit=memory_limit)


def constrain(x: Any, sharding: Any, strategy: str, memory_limit: int | None) -> Any:
    """`jax.lax.with_sharding_constraint` by our plans."""
    return jax.lax.with_sharding_constraint(free(x, strategy, memory_limit), sharding)


def _transpose(
    cotangent: Any, _: Any, *, strategy: str, memory_limit: int | None, **__: Any
) -> Any:
    return [free(cotangent, strategy, memory_limit)]


def _batch(args: Any, dims: Any, *, strategy: str, memory_limit: int | None, **_: Any) -> Any:
    return free(args[0], strategy, memory_limit), dims[0]


# `call` is a parameter because jax looks for custom_partitioning there before it lowers.
_lowering = mlir.lower_fun(lambda x, call, **_: jaxpr_as_fun(call)(x)[0], multiple_results=False)
free_p.def_impl(lambda x, **_: x)
free_p.def_abstract_eval(lambda x, **_: x)
ad.deflinear2(free_p, _transpose)
batching.primitive_batchers[free_p] = _batch
mlir.register_lowering(free_p, _lowering)


@lru_cache(maxsize=1024)
def free_call(shape: tuple[int, ...], dtype: Any, strategy: str, memory_limit: int | None) -> Any:
    """The parameter `call` of `redistribute_free`."""
    identity = _identity(len(shape), strategy, memory_limit)
    return jax.make_jaxpr(identity)(jax.ShapeDtypeStruct(shape, dtype))


@lru_cache
def _identity(rank: int, strategy: str, memory_limit: int | None) -> Any:
    operator: Any = custom_partitioning(lambda x: x)

    def partition(mesh: Any, args: Any, result: Any) -> tuple[Any, ...]:
        (source,), target = args, result
        try:
            names, sizes, program = _program(source, target, strategy, memory_limit)
        except RedistribError as error:
            # What our types cannot say, padded tiles for example, stays with XLA.
            warnings.warn(f"XLA redistributes this one: {error}", stacklevel=1)
            return mesh, lambda tile: tile, target.sharding, (target.sharding,)
        line = jax.sharding.AbstractMesh(sizes, names)
        return line, program, target.sharding, (source.sharding,)

    dims = " ".join(f"i{dim}" for dim in range(rank))
    operator.def_partition(
        partition,
        infer_sharding_from_operands=lambda _, args, __: args[0].sharding,
        propagate_user_sharding=lambda _, user: user.sharding,
        decode_shardings=False,
        sharding_rule=f"{dims} -> {dims}",
    )
    return operator


def _program(source: Any, target: Any, strategy: str, memory_limit: int | None) -> Any:
    src, dst = (
        type_of_hlo(s.shape, s.dtype, s.sharding._to_xla_hlo_sharding(len(s.shape)))  # noqa: SLF001
        for s in (source, target)
    )
    found = plan(src, dst, strategy=strategy, memory_limit=memory_limit)
    axes = shardings.common_axes(found)
    names = shardings.axis_names(src.mesh, axes)
    return names, tuple(axis.size for axis in axes), tile_program(found, axes)


def type_of_hlo(shape: Sequence[int], dtype: object, sharding: Any) -> ArrayType:
    """The type of an array with an HloSharding of jaxlib, on one axis `d` over all its devices.

    Raises LayoutError for uneven tiles, for subgroups that are not replicas, and where the devices
    are no iota, reshaped and transposed.
    """
    if sharding.is_replicated():
        return ArrayType(Mesh(d=sharding.num_devices()), dtype, shape)
    replicas = all("REPLICATED" in str(kind) for kind in sharding.subgroup_types())
    if sharding.is_tiled() and replicas:
        # A mesh with an axis per dimension; what is left of them are replicas.
        sizes = sharding.tile_assignment_dimensions()
        axes = [f"t{dim}" for dim in range(len(sizes))]
        mesh = Mesh(zip(axes, sizes, strict=True), devices=sharding.tile_assignment_devices())
        tiled = ArrayType(mesh, dtype, shape, [(axis,) for axis in axes[: len(shape)]])
        found = on_mesh(tiled, Mesh(d=mesh.num_devices))
        if found is not None:
            return found
    raise LayoutError(f"a sharding tiles an iota of devices; got {sharding}", sharding=sharding)
