"""Other libraries' redistributions of the same tiles, where they are here and can do the job.

Set REDISTRIB_MPI_PEERS to directories of packages (pip install --target DIR mpi4py-fft heat),
and REDISTRIB_SCALAPACK to one with the libraries of the Debian packages libscalapack-mpich2.2 and
libscalapack-openmpi2.2, libblas3, liblapack3 and libgfortran5 (also in LD_LIBRARY_PATH), and a link
libmpich.so.12 to the libmpi.so.12 of the mpich wheel, which has the same ABI.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mpi4py import MPI

from bench.mpi_job import CannotError, Job

PACKAGES = os.environ.get("REDISTRIB_MPI_PEERS")
SCALAPACK = os.environ.get("REDISTRIB_SCALAPACK")
if PACKAGES:
    sys.path.extend(PACKAGES.split(os.pathsep))


def mpi4py_fft(job: Job) -> Callable[[], None]:
    """Transfer between two pencils; one communicator per transfer, so (x,-)->(-,x) only."""
    try:
        from mpi4py_fft.pencil import Pencil, Subcomm
    except ImportError as error:
        raise CannotError(str(error)) from None
    if len(job.src.mesh.axes) > 1:
        raise CannotError("a transfer between two axes of one array")
    before = Pencil(Subcomm(job.comm, [0, 1]), job.src.shape, axis=1)
    transfer = before.transfer(before.pencil(0), job.src.numpy_dtype)
    return lambda: transfer.forward(job.tile, job.out)


def heat(job: Job) -> Callable[[], None]:
    """`resplit`, which makes a new array; it is compared by time only."""
    try:
        import heat as ht
        import torch
    except (ImportError, RuntimeError) as error:  # torch and torchvision that do not match
        raise CannotError(str(error)) from None
    if len(job.src.mesh.axes) > 1:
        raise CannotError("two dimensions that are split")
    torch.set_num_threads(1)
    array = ht.array(torch.from_numpy(job.tile), is_split=0)

    def run() -> None:
        result = ht.resplit(array, 1)
        run.result = result.larray  # type: ignore[attr-defined]

    run.own_result = True  # type: ignore[attr-defined]
    return run


def scalapack(job: Job) -> Callable[[], None]:
    """Cpdgemr2d or Cpsgemr2d; C-ordered tiles are its column-major tiles of the transpose."""
    if SCALAPACK is None:
        raise CannotError("REDISTRIB_SCALAPACK is not set")
    mpi = "mpich" if MPI.get_vendor()[0] == "MPICH" else "openmpi"
    name = f"libscalapack-{mpi}.so.2.2"
    try:
        for needed in ("libgfortran.so.5", "libblas.so.3", "liblapack.so.3"):
            ctypes.CDLL(str(Path(SCALAPACK) / needed), ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(str(Path(SCALAPACK) / name), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise CannotError(str(error)) from None
    integer = ctypes.c_int
    redistribute = library.Cpsgemr2d if job.src.itemsize == 4 else library.Cpdgemr2d

    def context(rows: int, columns: int, ranks: np.ndarray) -> int:
        handle = integer()
        library.Cblacs_get(0, 0, ctypes.byref(handle))
        # The map is column-major: ranks[row, column] of the grid.
        order = np.asfortranarray(ranks.reshape(rows, columns), np.int32)
        library.Cblacs_gridmap(
            ctypes.byref(handle), order.ctypes.data_as(ctypes.c_void_p), rows, rows, columns
        )
        return handle.value

    n, m = job.src.shape  # the transpose has m rows and n columns
    size = job.comm.size
    all_ranks = context(1, size, np.arange(size))
    ends = []
    for t, tile in ((job.src, job.tile), (job.dst, job.out)):
        firsts = [[t.index_runs(dim, rank)[0] for dim in (0, 1)] for rank in range(size)]
        wide, high = (int(stop - start) for start, stop in firsts[0])
        places = [(int(low[0]) // high, int(first[0]) // wide) for first, low in firsts]
        rows, columns = (1 + max(column) for column in zip(*places, strict=True))
        grid = np.empty((rows, columns), int)
        for position, place in enumerate(places):
            grid[place] = position
        blacs = context(rows, columns, grid)
        descriptor = (integer * 9)(1, blacs, m, n, high, wide, 0, 0, tile.shape[1])
        ends.append((tile.ctypes.data_as(ctypes.c_void_p), descriptor))
    (a, from_), (b, to) = ends
    return lambda: redistribute(m, n, a, 1, 1, from_, b, 1, 1, to, all_ranks)


METHODS = {"mpi4py-fft": mpi4py_fft, "heat": heat, "pdgemr2d": scalapack}
