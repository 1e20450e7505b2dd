"""What is used of jax beyond its public names, in one place; tried on the versions of docs/jax.md.

A partitioner of custom calls: XLA's partitioner asks it for the program of one device where the
operand and the result of such a call are laid out differently. `jax.experimental` has
`custom_partitioning` for this, but names a call by the address of a Python object, so that no two
processes share a compiled program, and allows one mesh per program. Here a call carries a text that
says all there is to know, and nothing else is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
from jax._src import compiler, core, lib, xla_bridge
from jax._src import config as _config
from jax._src import custom_partitioning_sharding_rule as sharding_rule
from jax._src.interpreters import mlir, pxla
from jax.interpreters.mlir import SPMDAxisContext, ir, module_to_bytecode

Partition = Callable[[Sequence[Any], Sequence[Any], Sequence[Any], str], tuple[bytes, list[Any]]]
"""Shapes of xla_client, source and target HloShardings, text -> program, operands' shardings."""

WIDE = ("int64", "uint64", "float64", "complex128")
"""Element types that jax narrows where x64 is not enabled."""
config: Any = jax.config
_lib: Any = lib  # typed in parts only
_pxla: Any = pxla


def register_partitioner(name: str, partition: Partition) -> None:
    """Have XLA ask `partition` about custom calls of this name, on every platform."""

    def asked(
        shapes: Any, sources: Any, results: Any, target: Any, text: bytes | str
    ) -> tuple[bytes, list[Any], Any]:
        decoded = text.decode() if isinstance(text, bytes) else text
        targets = target.tuple_elements() if results.is_tuple() else [target]
        program, operand_shardings = partition(shapes, sources, targets, decoded)
        return program, operand_shardings, target

    register = partial(
        _lib.xla_client.register_custom_call_partitioner,
        name=name,
        prop_user_sharding=lambda sharding, _, __: sharding,
        partition=asked,
        infer_sharding_from_operands=lambda _, shardings, __, ___: shardings[0],
        can_side_effecting_have_replicated_sharding=True,
    )
    register()
    xla_bridge.register_plugin_callbacks(register)


def identity_call(name: str, context: Any, operands: Sequence[Any], text: str) -> list[Any]:
    """A custom call that gives its operands back, in other layouts where propagation says so.

    On one device, and where every axis is Manual, the operands themselves. XLA's own propagation,
    where it is chosen, is at home with calls of one operand only.
    """
    axes = context.module_context.axis_context
    if isinstance(axes, SPMDAxisContext):
        alone = set(axes.manual_axes) == set(axes.mesh.axis_names)
    else:
        alone = getattr(axes, "num_devices", 1) == 1
    if alone:
        return list(operands)
    if not config.jax_use_shardy_partitioner:
        return [
            mlir.custom_call(name, result_types=[x.type], operands=[x], backend_config=text).result
            for x in operands
        ]
    types = [x.type for x in operands]
    call = mlir.custom_call(name, result_types=types, operands=operands, backend_config=text)
    dims = ", ".join(
        " ".join(f"i{n}_{dim}" for dim in range(ir.RankedTensorType(kind).rank))
        for n, kind in enumerate(types)
    )
    rule = sharding_rule.str_to_sdy_sharding_rule(f"{dims} -> {dims}")
    call.attributes["sdy.sharding_rule"] = sharding_rule.sdy_sharding_rule_to_mlir(
        rule, types, types
    )
    return list(call.results)


def platform_of(context: Any) -> str:
    """The platform that is lowered for."""
    platforms = context.platforms or context.module_context.platforms
    return str(platforms[0])


def program_bytes(
    program: Callable[..., Any], tiles: Sequence[Any], axes: Mapping[str, int], platform: str
) -> bytes:
    """A function of a device's tiles, on a mesh of these axes, as XLA takes it of a partitioner.

    `tiles` have a shape and a dtype.
    """
    mesh: Any = jax.sharding.AbstractMesh(tuple(axes.values()), tuple(axes))
    # The program is compiled inside another, whose mesh may be in context; a tile is on none.
    nowhere: Any = jax.sharding.AbstractMesh((), ())
    # XLA may ask from a thread that knows nothing of the `jax.enable_x64` around the call.
    wide = any(tile.dtype in WIDE for tile in tiles)
    with (
        jax.enable_x64(wide),
        jax.sharding.use_abstract_mesh(nowhere),
        core.extend_axis_env_nd(axes.items()),
    ):
        closed = jax.make_jaxpr(program)(*tiles)
        module = mlir.build_mlir_module_helper(
            closed,
            name="redistribute",
            platforms=(platform,),
            backend=None,
            axis_context=SPMDAxisContext(mesh, frozenset(axes)),
        )
    return module_to_bytecode(module)


def on_compile_error(restore: Callable[[str], Exception | None]) -> None:
    """Have errors of XLA's compiler replaced by what `restore` gives for their text."""
    compiler.register_xla_runtime_error_handler(lambda error: restore(str(error)))


def tracing() -> bool:
    """Whether a function is being traced, so that what is done with arrays becomes part of it."""
    return not core.trace_ctx.is_top_level()


def shards(x: Any) -> list[Any]:
    """What an array has on the devices of this process, in the order of its sharding."""
    return list(x._arrays)  # noqa: SLF001


def global_array(
    shape: Sequence[int], dtype: Any, weak_type: bool, sharding: Any, tiles: Sequence[Any]
) -> Any:
    """The array with these tiles, of numpy or on their devices, on the devices of this process.

    `jax.make_array_from_single_device_arrays` for tiles that are not on their devices, and, as here
    nothing is checked, for replicas that differ, if they are on them.
    """
    aval = core.ShapedArray(tuple(shape), dtype, weak_type=weak_type)
    if not is_here(sharding.mesh):
        return jax.make_array_from_single_device_arrays(tuple(shape), sharding, [], dtype=dtype)
    # Asked for, as in `jax.device_put`: what `jax.transfer_guard` forbids are other transfers.
    with _config.explicit_device_put_scope():
        return _pxla.batched_device_put(
            core.update_aval_with_sharding(aval, sharding),
            sharding,
            tiles,
            [d for d in sharding.mesh.devices.flat if d.process_index == jax.process_index()],
        )


def is_here(mesh: Any) -> bool:
    """Whether a mesh has a device of this process."""
    return any(d.process_index == jax.process_index() for d in mesh.devices.flat)
