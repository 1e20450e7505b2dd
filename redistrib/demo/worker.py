"""What the demo runs in processes of its own: `python -m redistrib.demo.worker KIND FILE`.

FILE holds a JSON list of {"workload", "plan"}; for each, one JSON object goes to stdout as soon as
it is known, so that a crash loses one workload only.

    jax   the plan's program on virtual CPU devices, every tile verified
    xla   XLA's own resharding of the same arrays, compiled only
    torch the plan over torch.distributed, on a forked process per device, every tile verified
    mpi   the plan under MPI, started by mpiexec with one rank per device, every tile verified
"""

from __future__ import annotations

import faulthandler
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from redistrib.demo.workloads import array_of, source_tile
from redistrib.errors import LayoutError
from redistrib.interop.hlo_traffic import hlo_traffic
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import is_small_float
from redistrib.types.tile import same_bits, tile_of

Figures = dict[str, Any]


def _program_figures(compiled: Any) -> Figures:
    """The figures of a compiled program, from its HLO and its memory analysis."""
    traffic = hlo_traffic(compiled.as_text())
    return {
        "received_bytes": traffic.received_bytes,
        "temp_bytes": int(compiled.memory_analysis().temp_size_in_bytes),
        "largest_buffer_bytes": traffic.largest_buffer_bytes,
        "num_collectives": traffic.num_collectives,
        "collectives": traffic.counts,
    }


def run_jax(plan: Plan) -> Figures:
    """Compile and run a plan between NamedShardings, or on stacked tiles where there are none."""
    from redistrib.backends import jax as rjax

    array = array_of(plan.src)
    positions = range(plan.src.mesh.num_devices)
    tiles = [source_tile(array, plan.src, position) for position in positions]
    with rjax.dtypes_of(plan.src):
        try:
            compiled, results = _between_shardings(plan, tiles)
        except LayoutError:
            compiled, results = _on_stacked_tiles(plan, tiles)
    verified = all(
        same_bits(tile, tile_of(array, plan.dst, position))
        for position, tile in zip(positions, results, strict=True)
    )
    return {"verified": verified, **_program_figures(compiled)}


def _between_shardings(plan: Plan, tiles: list[Any]) -> tuple[Any, list[Any]]:
    import jax

    from redistrib.backends import jax as rjax

    mesh = _jax_mesh(plan.src)
    program = rjax.compile(plan, mesh)
    source = jax.sharding.NamedSharding(mesh, _spec(plan.src))
    devices = mesh.devices.flat
    x = jax.make_array_from_single_device_arrays(
        plan.src.shape,
        source,
        [jax.device_put(tile, device) for tile, device in zip(tiles, devices, strict=True)],
    )
    compiled = program.lower(x).compile()
    y = compiled(x)
    shards = {shard.device: shard.data for shard in y.addressable_shards}
    return compiled, [np.asarray(shards[device]) for device in mesh.devices.flat]


def _on_stacked_tiles(plan: Plan, tiles: list[Any]) -> tuple[Any, list[Any]]:
    from redistrib.backends import jax as rjax

    shape = (len(tiles), *plan.src.tile_shape)
    lowered = rjax.compile_stacked(plan).lower(_abstract(shape, plan.src.numpy_dtype))
    return lowered.compile(), rjax.run(plan, tiles)


def run_xla(plan: Plan) -> Figures:
    """Compile XLA's own resharding; `None` figures where no PartitionSpec says the layouts."""
    import jax

    from redistrib.backends import jax as rjax
    from redistrib.backends.jax.shardings import named

    try:
        mesh = _jax_mesh(plan.src)
        ends = [named(mesh, _spec(t)) for t in (plan.src, plan.dst)]
    except LayoutError:
        return {"expressible": False}
    dtype = plan.src.numpy_dtype
    if is_small_float(plan.src.dtype):
        # XLA on CPU widens these in collectives, which says nothing about how it reshards.
        dtype = np.dtype(f"uint{8 * plan.src.itemsize}")
    with rjax.dtypes_of(plan.src):
        resharding = jax.jit(lambda x: x, in_shardings=ends[0], out_shardings=ends[1])
        compiled = resharding.lower(_abstract(plan.src.shape, dtype)).compile()
    return {"expressible": True, **_program_figures(compiled)}


def _jax_mesh(t: ArrayType) -> Any:
    import jax

    from redistrib.backends import jax as rjax

    names, sizes = zip(*t.mesh.axes, strict=True)
    return jax.sharding.Mesh(
        np.array(rjax.virtual_devices(t.mesh.num_devices)).reshape(sizes), names
    )


def _abstract(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    import jax

    struct: Any = jax.ShapeDtypeStruct  # untyped in jax
    return struct(shape, dtype)


def _spec(t: ArrayType) -> Any:
    from redistrib.backends.jax.shardings import partition_spec

    return partition_spec(t)


def run_mpi(plan: Plan) -> Figures:
    """Run a plan on all ranks and verify each rank's tile; figures are those of the worst rank."""
    from mpi4py import MPI

    from redistrib.backends import mpi as rmpi

    comm = MPI.COMM_WORLD
    array = array_of(plan.src)
    redistribution = rmpi.Redistribution.from_plan(plan, comm)
    result = redistribution(source_tile(array, plan.src, comm.rank))
    verified = same_bits(result, tile_of(array, plan.dst, comm.rank))
    told = np.array([redistribution.received_bytes, not verified], np.int64)
    heard = np.empty_like(told)
    comm.Allreduce(told, heard, MPI.MAX)
    collectives = redistribution.num_collectives
    redistribution.free()
    return {
        "verified": not heard[1],
        "received_bytes": int(heard[0]),
        "num_collectives": collectives,
    }


def run_torch(plan: Plan) -> Figures:
    """Run a plan on a forked process per device and verify every tile."""
    from redistrib.backends import torch as rtorch

    array = array_of(plan.src)
    positions = range(plan.src.mesh.num_devices)
    results = rtorch.run(plan, [source_tile(array, plan.src, position) for position in positions])
    right = (
        same_bits(tile, tile_of(array, plan.dst, position)) for position, tile in enumerate(results)
    )
    return {"verified": all(right), "num_collectives": plan.num_collectives}


KINDS: dict[str, Callable[[Plan], Figures]] = {
    "jax": run_jax,
    "xla": run_xla,
    "mpi": run_mpi,
    "torch": run_torch,
}


def results(kind: str, path: Path) -> Iterator[Figures]:
    """The figures of every workload in a file, as they come."""
    for item in json.loads(path.read_text(encoding="utf-8")):
        plan = Plan.from_json(item["plan"])
        yield {"workload": item["workload"], **KINDS[kind](plan)}


LATE = 75.0
"""Seconds after which a process says where it hangs and ends, which ends its whole job."""


def main(kind: str, path: str) -> None:
    """Write one line of JSON per workload; under MPI, on rank 0 only."""
    faulthandler.dump_traceback_later(LATE, exit=True)
    for result in results(kind, Path(path)):
        if kind == "mpi":
            from mpi4py import MPI

            if MPI.COMM_WORLD.rank:
                continue
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
