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
from redistrib.backends.jax.planning import Options, find_plan
from redistrib.errors import InfeasibleError, LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.equivalence import on_mesh
from redistrib.types.mesh import Mesh

free_p: Any = Primitive("redistribute_free")


def free(x: Any, options: Options) -> Any:
    """The array itself, in whatever layout its users want."""
    return free_p.bind(x, **free_params(x.shape, x.dtype, options))


def constrain(x: Any, sharding: Any, options: Options) -> Any:
    """`jax.lax.with_sharding_constraint` by our plans."""
    return jax.lax.with_sharding_constraint(free(x, options), sharding)


def free_params(shape: tuple[int, ...], dtype: Any, options: Options) -> dict[str, Any]:
    """The parameters of `redistribute_free`.

    `call` is one of them because jax looks there for custom_partitioning before it lowers.
    """
    return {"call": _call(shape, dtype, options), "options": options}


@lru_cache(maxsize=1024)
def _call(shape: tuple[int, ...], dtype: Any, options: Options) -> Any:
    return jax.make_jaxpr(_identity(len(shape), options))(jax.ShapeDtypeStruct(shape, dtype))


def _transpose(cotangent: Any, _: Any, *, options: Options, **__: Any) -> Any:
    return [free(cotangent, options)]


def _batch(args: Any, dims: Any, *, options: Options, **_: Any) -> Any:
    return free(args[0], options), dims[0]


free_p.def_impl(lambda x, **_: x)
free_p.def_abstract_eval(lambda x, **_: x)
ad.deflinear2(free_p, _transpose)
batching.primitive_batchers[free_p] = _batch
mlir.register_lowering(
    free_p,
    mlir.lower_fun(lambda x, *, call, **_: jaxpr_as_fun(call)(x)[0], multiple_results=False),
)


@lru_cache(maxsize=1024)
def _identity(rank: int, options: Options) -> Any:
    operator: Any = custom_partitioning(lambda x: x)

    def partition(mesh: Any, args: Any, result: Any) -> tuple[Any, ...]:
        (source,), target = args, result
        try:
            names, sizes, program = _program(source, target, options)
        except (LayoutError, InfeasibleError) as error:
            if options.fallback == "error":
                raise
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


def _program(source: Any, target: Any, options: Options) -> Any:
    src, dst = (
        type_of_hlo(
            end.shape,
            end.dtype,
            end.sharding._to_xla_hlo_sharding(len(end.shape)),  # noqa: SLF001
            len(end.sharding.device_set),
        )
        for end in (source, target)
    )
    found = find_plan(src, dst, options)
    axes = shardings.common_axes(found.plan)
    names = shardings.axis_names(src.mesh, axes)
    platform = next(iter(source.sharding.device_set)).platform
    return names, tuple(axis.size for axis in axes), found.tile_program(axes, platform)


def type_of_hlo(shape: Sequence[int], dtype: object, sharding: Any, num_devices: int) -> ArrayType:
    """The type of an array with an HloSharding of jaxlib, on one axis `d` over all its devices.

    Raises LayoutError for uneven tiles, for subgroups that are not replicas, and where the devices
    are no iota, reshaped and transposed.
    """
    line = Mesh(d=num_devices)
    if sharding.is_replicated():
        return ArrayType(line, dtype, shape)
    replicas = all("REPLICATED" in str(kind) for kind in sharding.subgroup_types())
    if sharding.is_tiled() and replicas:
        # A mesh with an axis per dimension; what is left of them are replicas.
        sizes = sharding.tile_assignment_dimensions()
        axes = [f"t{dim}" for dim in range(len(sizes))]
        mesh = Mesh(zip(axes, sizes, strict=True), devices=sharding.tile_assignment_devices())
        tiled = ArrayType(mesh, dtype, shape, [(axis,) for axis in axes[: len(shape)]])
        found = on_mesh(tiled, line)
        if found is not None:
            return found
    raise LayoutError(f"a sharding tiles an iota of devices; got {sharding}", sharding=sharding)
