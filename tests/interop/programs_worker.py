"""The cases of test_programs.py, run in one process with 12 virtual devices.

Prints a JSON object: case -> "" if it holds, else what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=12"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from jax._src import compiler
from jax._src.interpreters import mlir
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxlib import _jax
from jaxlib.mlir import ir

import redistrib as rd
from redistrib.backends.jax import dtypes_of
from redistrib.interop.programs.jax import plan_to_jax
from redistrib.interop.programs.stablehlo import plan_to_stablehlo
from redistrib.synth.plan.collectives import Exchange
from redistrib.types.tile import same_bits, tile_of
from tests.random_plans import expected_tiles, random_plans, random_tiles
from tests.repetitions import repetitions

CASES: dict[str, Callable[[], None]] = {}


def case(function: Callable[[], None]) -> Callable[[], None]:
    CASES[function.__name__] = function
    return function


def plans() -> Iterator[tuple[int, rd.Plan]]:
    """Random plans of every collective but the exchange, on 8, 12 and 6 devices."""
    for devices in (8, 12, 6):
        for number, plan in enumerate(random_plans(100 + devices, devices, repetitions(12, 30))):
            if not any(isinstance(step, Exchange) for step in plan.steps):
                yield number, plan


def stacked(tiles: list[np.ndarray], mesh: jax.sharding.Mesh) -> jax.Array:
    """The tiles of all devices as one array, `[device, *tile]`."""
    return jax.device_put(np.stack(tiles), NamedSharding(mesh, P(mesh.axis_names)))


def mesh_of(plan: rd.Plan) -> jax.sharding.Mesh:
    names, sizes = zip(*plan.src.mesh.axes, strict=True)
    devices = jax.devices()[: plan.src.mesh.num_devices]
    return jax.sharding.Mesh(np.array(devices).reshape(sizes), names)


def tiles_of(array: jax.Array, mesh: jax.sharding.Mesh) -> list[np.ndarray]:
    place = {device: at for at, device in enumerate(mesh.devices.flat)}
    shards = sorted(array.addressable_shards, key=lambda shard: place[shard.device])
    return [np.asarray(shard.data) for shard in shards]


def compare(found: list[np.ndarray], expected: list[np.ndarray], plan: rd.Plan, text: str) -> None:
    for position, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if not same_bits(ours.reshape(theirs.shape), theirs):
            raise AssertionError(f"{plan.src} -> {plan.dst}, device {position}\n{text}")


@case
def stablehlo_runs_like_the_simulator() -> None:
    seen: Counter[str] = Counter()
    context = mlir.make_ir_context()
    backend: Any = jax.devices()[0].client
    for number, plan in plans():
        text = plan_to_stablehlo(plan)
        with context:
            module = ir.Module.parse(text)
            assert module.operation.verify()
        mesh = mesh_of(plan)
        devices = list(mesh.devices.flat)
        options = compiler.get_compile_options(
            num_replicas=len(devices),
            num_partitions=1,
            device_assignment=np.arange(len(devices)).reshape(-1, 1),
        )
        options.executable_build_options.use_spmd_partitioning = False
        program = backend.compile_and_load(
            module.operation.get_asm(), _jax.DeviceList(tuple(devices)), options
        )
        with dtypes_of(plan.src):
            buffers = [
                jax.device_put(tile, device)
                for tile, device in zip(random_tiles(plan, number), devices, strict=True)
            ]
            whole = jax.make_array_from_single_device_arrays(
                (len(devices) * max(plan.src.tile_shape[:1], default=1), *plan.src.tile_shape[1:]),
                NamedSharding(jax.sharding.Mesh(np.array(devices), "d"), P("d")),
                buffers,
            )
            (result,) = program.execute_sharded([whole]).disassemble_into_single_device_arrays()
            found = [np.asarray(tile) for tile in result]
        compare(found, expected_tiles(plan, number), plan, text)
        seen.update(step.collective for step in plan.steps)
    assert len(seen) == 8, seen


@case
def jax_programs_run_like_the_simulator() -> None:
    seen: Counter[str] = Counter()
    for number, plan in plans():
        text = plan_to_jax(plan)
        names: dict[str, Any] = {}
        exec(compile(text, "plan", "exec"), names)
        tile_program = names["redistribute"]
        mesh = mesh_of(plan)
        spec = P(mesh.axis_names)
        program = jax.shard_map(
            lambda tiles, run=tile_program: run(tiles[0])[None],
            mesh=mesh,
            in_specs=spec,
            out_specs=spec,
            check_vma=False,
        )
        with dtypes_of(plan.src):
            result = jax.jit(program)(stacked(random_tiles(plan, number), mesh))
            found = tiles_of(result, mesh)
        compare(found, expected_tiles(plan, number), plan, text)
        seen.update(step.collective for step in plan.steps)
    assert len(seen) == 8, seen


@case
def a_jax_program_compiles_on_global_arrays() -> None:
    mesh = rd.Mesh(x=2, y=3)
    src = rd.ArrayType.parse("f32[12{x}, 12{y}]", mesh)
    dst = rd.ArrayType.parse("f32[12{y}, 12{x}]", mesh)
    plan = rd.plan(src, dst, strategy="collectives")
    names: dict[str, Any] = {}
    exec(plan_to_jax(plan), names)
    jax_mesh = mesh_of(plan)
    array = np.arange(144, dtype=np.float32).reshape(12, 12)
    moved = names["compiled"](jax_mesh)(jax.device_put(array, NamedSharding(jax_mesh, P("x", "y"))))
    assert moved.sharding.spec == P("y", "x")
    for position, tile in enumerate(tiles_of(moved, jax_mesh)):
        assert same_bits(tile, tile_of(array, dst, position))


def main() -> None:
    outcome = {}
    for name, function in CASES.items():
        try:
            function()
            outcome[name] = ""
        except Exception:  # noqa: BLE001 - reported by the test of this name
            outcome[name] = traceback.format_exc()
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
