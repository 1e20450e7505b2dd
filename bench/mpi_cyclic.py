"""Block-cyclic matrices beside pdgemr2d:  mpiexec -n 4 python -m mpi4py -m bench.mpi_cyclic [N]

N x N float64 on 2x2 processes; bench/mpi_peers.py says what ScaLAPACK needs. Printed are ratios of
medians to pdgemr2d, seconds of the slowest rank and CPU seconds of all, and CPU seconds of making.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from mpi4py import MPI

import redistrib as rd
from bench.mpi_job import Job, timed
from bench.mpi_peers import scalapack
from redistrib.backends import mpi as rmpi
from redistrib.interop.scalapack import parse_scalapack

BLOCKS = ((64, 32), (48, 64), (2, 8))


def main() -> int:
    comm, n = MPI.COMM_WORLD, int(sys.argv[1]) if len(sys.argv) > 1 else 2048
    mesh = rd.Mesh(p=2, q=2)
    for blocks in BLOCKS:
        src, dst = (
            parse_scalapack(f"[1, 0, {n}, {n}, {b}, {b}, 0, 0, {n}]", mesh, None, "f64")
            for b in blocks
        )
        tile = np.random.default_rng(comm.rank).random(src.tile_shape_at(comm.rank))
        out = np.empty(dst.tile_shape_at(comm.rank))
        calls: dict[str, Callable[[], object]] = {
            "pdgemr2d": scalapack(Job(comm, src, dst, tile, out))
        }
        making, outs = time.process_time(), {}
        for order in "CF":
            redistribution = rmpi.Redistribution(src, dst, comm, strategy="direct")
            outs[order] = np.asarray(np.empty_like(out), order=order)  # type: ignore[call-overload]
            ordered = np.asarray(tile, order=order)  # type: ignore[call-overload]
            calls[order] = partial(redistribution, ordered, outs[order])
        making = (time.process_time() - making) / 2
        times = timed(comm, calls)
        assert all(np.array_equal(out, other) for other in outs.values())
        for order in "CF" if comm.rank == 0 else "":
            ratios = [a / b for a, b in zip(times[order], times["pdgemr2d"], strict=True)]
            print(
                f"{blocks[0]} -> {blocks[1]}, {order}: {ratios[0]:.2f}, of CPU {ratios[1]:.2f}",
                end="",
            )
            print(f"; made in {making * 1e3:.0f} ms", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
