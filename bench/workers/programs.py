"""Programs on jax:  python -m bench.workers.programs PROGRAM

    xla                          jit of the identity between two shardings: XLA's own resharding
    auto collectives direct paper   our plan under that strategy, compiled by our jax backend
    shardy                       the steps of Shardy's reshard-to-collectives pass, lowered by us

Figures are those of the compiled program (its HLO and its memory analysis), bytes per device. The
program runs once on virtual CPU devices and every tile is compared before anything is timed.
"""

from __future__ import annotations

import sys
import time
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import NamedSharding

import redistrib as rd
from bench.planners import forget
from bench.workers.protocol import Figures, Run, UnsupportedError, WrongError, serve
from bench.workers.shardy import shardy_plan
from bench.workloads import array_of, parse_types
from redistrib.backends import jax as rjax
from redistrib.backends.jax import shardings
from redistrib.demo.workloads import source_tile
from redistrib.interop.hlo_traffic import hlo_traffic
from redistrib.synth.plan.data import Plan
from redistrib.synth.planner.problem import Strategy
from redistrib.types.array_type import ArrayType
from redistrib.types.tile import same_bits, tile_of


def prepare(program: str, workload: Figures) -> tuple[Figures, Run]:
    """Compile, run and verify a program."""
    src, dst = parse_types(workload)
    sizes = [size for _, size in src.mesh.axes]
    names = [name for name, _ in src.mesh.axes]
    mesh = jax.sharding.Mesh(
        np.array(rjax.virtual_devices(src.mesh.num_devices)).reshape(sizes), names
    )
    figures: Figures = {}
    ends = global_shardings(src, dst, mesh)
    stacked = ends is None
    if ends is None:
        if program in {"xla", "shardy"}:
            raise UnsupportedError("no in_shardings and out_shardings say these layouts")
        ends = [NamedSharding(mesh, jax.sharding.PartitionSpec(tuple(names)))] * 2
    with rjax.dtypes_of(src):
        if program == "xla":
            jitted = jax.jit(lambda x: x, in_shardings=ends[0], out_shardings=ends[1])
        else:
            plan, figures["planning_seconds"] = planned(program, src, dst)
            figures["planned_received_bytes"] = plan.received_bytes
            jitted = rjax.compile_stacked(plan) if stacked else rjax.compile(plan, mesh)
        array = array_of(src)
        x = put(array, src, ends[0], stacked)
        start = time.perf_counter()
        compiled = jitted.lower(x).compile()
        figures["compile_seconds"] = time.perf_counter() - start
        verify(array, compiled(x), dst, mesh)
        del array

        def run() -> None:
            compiled(x).block_until_ready()

    traffic, memory = hlo_traffic(compiled.as_text() or ""), compiled.memory_analysis()
    assert memory is not None
    figures |= {
        "received_bytes": traffic.received_bytes,
        "temp_bytes": int(memory.temp_size_in_bytes),
        "largest_buffer_bytes": traffic.largest_buffer_bytes,
        "num_collectives": traffic.num_collectives,
    }
    return figures, run


def global_shardings(
    src: ArrayType, dst: ArrayType, mesh: jax.sharding.Mesh
) -> list[NamedSharding] | None:
    """What jit takes as the two ends; it takes no partial sums."""
    if src.partial or dst.partial:
        return None
    try:
        return [NamedSharding(mesh, shardings.partition_spec(t)) for t in (src, dst)]
    except rd.LayoutError:
        return None


def planned(program: str, src: ArrayType, dst: ArrayType) -> tuple[Plan, float]:
    """The plan, and the wall-clock seconds that planning took with nothing remembered."""
    if program == "shardy":
        return shardy_plan(src, dst)
    forget()
    start = time.perf_counter()
    try:
        plan = rd.plan(src, dst, strategy=cast("Strategy", program))
    except (rd.InfeasibleError, rd.LayoutError) as error:
        raise UnsupportedError(str(error)) from error
    return plan, time.perf_counter() - start


def put(array: Any, t: ArrayType, sharding: NamedSharding, stacked: bool) -> jax.Array:
    """The array sharded, or its tiles stacked along a new first dimension."""
    devices = list(sharding.mesh.devices.flat)
    tiles = [source_tile(array, t, position) for position in range(len(devices))]
    if stacked:
        tiles = [tile[None] for tile in tiles]
    shape = (len(devices), *t.tile_shape) if stacked else t.shape
    shards = [jax.device_put(tile, device) for tile, device in zip(tiles, devices, strict=True)]
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def verify(array: Any, y: jax.Array, dst: ArrayType, mesh: jax.sharding.Mesh) -> None:
    """Compare every tile bit for bit. Raises WrongError."""
    shards = {shard.device: shard.data for shard in y.addressable_shards}
    for position, device in enumerate(mesh.devices.flat):
        tile = np.asarray(shards[device]).reshape(dst.tile_shape)
        if not same_bits(tile, tile_of(array, dst, position)):
            raise WrongError(f"device {position} holds other data than its tile of {dst}")


if __name__ == "__main__":
    serve(lambda workload: prepare(sys.argv[1], workload))
