"""Our plans under MPI:  mpiexec -n RANKS python -m mpi4py -m bench.workers.mpi

Rank 0 talks to the harness. While it waits, the others sleep: a rank inside an MPI call would keep
a core busy and spoil the times of whoever runs meanwhile.
"""

from __future__ import annotations

import time

import numpy as np
from mpi4py import MPI

import redistrib as rd
from bench.workers.protocol import (
    Figures,
    Run,
    WrongError,
    limit_memory,
    serve_ranks,
    speaker,
)
from bench.workloads import array_of, parse_types
from redistrib.backends import mpi as rmpi
from redistrib.demo.workloads import source_tile
from redistrib.types.tile import same_bits, tile_of

IDLE = 0.005
comm = MPI.COMM_WORLD


def prepare(workload: Figures) -> tuple[Figures, Run]:
    """Plan, run and verify on all ranks."""
    src, dst = parse_types(workload)
    start = time.perf_counter()
    plan = rd.plan(src, dst)
    planning = time.perf_counter() - start
    array = array_of(src)
    redistribution = rmpi.Redistribution.from_plan(plan, comm)
    tile = source_tile(array, src, comm.rank)
    out = redistribution(tile)
    wrong = not same_bits(out, tile_of(array, dst, comm.rank))
    told = np.array([redistribution.received_bytes, wrong], np.int64)
    heard = np.empty_like(told)
    comm.Allreduce(told, heard, MPI.MAX)
    if heard[1]:
        raise WrongError("a rank holds other data than its tile of the target")
    return {
        "planning_seconds": planning,
        "planned_received_bytes": plan.received_bytes,
        "received_bytes": int(heard[0]),
        "num_collectives": redistribution.num_collectives,
    }, lambda: redistribution(tile, out=out)


def share(request: Figures | None) -> Figures | None:
    """Rank 0's request on every rank."""
    if not comm.rank:
        for rank in range(1, comm.size):
            comm.send(request, rank)
        return request
    while not comm.iprobe(source=0):
        time.sleep(IDLE)
    received: Figures | None = comm.recv(source=0)
    return received


def main() -> None:
    limit_memory()
    serve_ranks(prepare, comm.rank, share, comm.Barrier, speaker())


if __name__ == "__main__":
    main()
