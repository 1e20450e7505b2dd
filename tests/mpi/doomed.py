"""A job whose last rank dies, stops or raises while the others exchange with it, again and again.

python -m mpi4py -m tests.mpi.doomed HOW TIMEOUT INTO

HOW: kill, stop, raise, or "die making" (its shared tile)
TIMEOUT: seconds or 0; INTO: private or shared tiles
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi.shared import SharedTiles


def main(how: str, timeout: str, into: str) -> None:
    comm = MPI.COMM_WORLD
    mesh = rd.Mesh(x=comm.size)
    n = 1024
    src, dst = (rd.ArrayType.parse(t, mesh) for t in (f"f32[{n}{{x}}, {n}]", f"f32[{n}, {n}{{x}}]"))
    shared = into == "shared"
    last = comm.rank == comm.size - 1
    # Nobody dies in what MPI makes for itself, and no time limit counts how long a start takes.
    rmpi.Redistribution(src, dst, comm, shared=shared).free()
    if how == "die making":
        if comm.rank == 0:
            print("exchanging", flush=True)
        comm.Barrier()
        if last:
            time.sleep(0.5)  # until what rank 0 wrote has gone through mpiexec
            SharedTiles.connect = lambda self: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    redistribution = rmpi.Redistribution(
        src, dst, comm, timeout=float(timeout) or None, shared=shared
    )
    tile = np.zeros(src.tile_shape, np.float32)
    out = None if shared else np.empty(dst.tile_shape, np.float32)
    if last:
        end = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}.get(how)
        if end is not None:
            # From a thread, so that it strikes wherever the exchange is.
            threading.Timer(0.5, os.kill, (os.getpid(), end)).start()
    calls = 0
    while True:
        redistribution(tile, out)
        calls += 1
        if calls == 3 and how == "raise" and last:
            raise RuntimeError("one rank raises")
        if calls == 1 and comm.rank == 0:
            print("exchanging", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
