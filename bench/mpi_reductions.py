"""Reductions beside those of MPI:  mpiexec -n 4 python -m mpi4py -m bench.mpi_reductions [MIB]

Methods take turns. Printed are medians: seconds on the slowest rank, and CPU seconds of all ranks
together, which other work on the machine changes least.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from mpi4py import MPI

import redistrib as rd
from bench.mpi_job import timed
from redistrib.backends import mpi as rmpi


def methods(comm: MPI.Intracomm, mib: int) -> dict[str, Callable[[], object]]:
    """A reduce_scatter and an all-reduce of that many MiB of float32 on each rank."""
    mesh, rows = rd.Mesh(r=comm.size), mib * 256
    src, part, summed = (
        rd.ArrayType.parse(f"f32[{rows}{text}", mesh)
        for text in (", 1024] sum{r}", "{r}, 1024]", ", 1024]")
    )
    tile = np.random.default_rng(comm.rank).random(src.tile_shape, np.float32)
    out, total = np.empty(part.tile_shape, np.float32), np.empty_like(tile)
    addends = np.empty((comm.size, *out.shape), np.float32)

    def in_order() -> None:
        comm.Alltoall(tile, addends)
        out[...] = addends[0]
        for addend in addends[1:]:
            np.add(out, addend, out=out)

    return {
        "reduce_scatter": partial(rmpi.Redistribution(src, part, comm), tile, out),
        "MPI_Reduce_scatter_block": lambda: comm.Reduce_scatter_block(tile, out),
        "Alltoall, ordered adds": in_order,
        "all_reduce": partial(rmpi.Redistribution(src, summed, comm), tile, total),
        "MPI_Allreduce": lambda: comm.Allreduce(tile, total),
    }


def main() -> int:
    comm = MPI.COMM_WORLD
    calls = methods(comm, int(sys.argv[1]) if len(sys.argv) > 1 else 32)
    times = timed(comm, calls)  # on all ranks
    for name, (slowest, together) in times.items() if comm.rank == 0 else ():
        print(f"{name:26} {slowest:8.4f} s {together:8.4f} s of all processors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
