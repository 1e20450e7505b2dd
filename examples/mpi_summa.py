"""A matrix product of block-cyclic matrices, as ScaLAPACK has them, by SUMMA on plain blocks.

    mpiexec -n 4 python examples/mpi_summa.py

The inputs are dealt out in small blocks round a grid of ranks. SUMMA wants one block a rank: step
by step the owners of a panel of A send it along their row, those of B along their column. So A and
B are redistributed, multiplied, and the product goes back to where ScaLAPACK expects it.
"""

import numpy as np
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi

N = 48
CYCLES = 3  # blocks of N / (p * CYCLES) rows


def summa(a: np.ndarray, b: np.ndarray, comm: MPI.Comm, mesh: rd.Mesh) -> np.ndarray:
    """The block of the product that this rank has; grids are square here."""
    coordinates = mesh.coordinates(comm.rank)
    row, column = (
        comm.Split(coordinates["p"], coordinates["q"]),
        comm.Split(coordinates["q"], coordinates["p"]),
    )
    c = np.zeros((a.shape[0], b.shape[1]))
    for panel in range(row.size):
        left = np.ascontiguousarray(a) if coordinates["q"] == panel else np.empty_like(a)
        top = np.ascontiguousarray(b) if coordinates["p"] == panel else np.empty_like(b)
        row.Bcast(left, root=panel)
        column.Bcast(top, root=panel)
        c += left @ top
    row.Free()
    column.Free()
    return c


def main() -> None:
    comm = MPI.COMM_WORLD
    side = round(comm.size**0.5)
    if side * side != comm.size:
        raise SystemExit("SUMMA runs on a square grid here: 1, 4, 9, ... ranks")
    mesh = rd.Mesh(p=side, q=side)
    cyclic = rd.ArrayType.parse(f"f64[{N}{{_{CYCLES},p}}, {N}{{_{CYCLES},q}}]", mesh)
    blocks = rd.ArrayType.parse(f"f64[{N}{{p}}, {N}{{q}}]", mesh)
    rng = np.random.default_rng(0)
    a, b = rng.random((N, N)), rng.random((N, N))
    mine = np.ix_(*cyclic.tile(comm.rank))

    with (
        rmpi.Redistribution(cyclic, blocks, comm) as to_blocks,
        rmpi.Redistribution(blocks, cyclic, comm) as to_cyclic,
    ):
        left, right = to_blocks.batch([a[mine], b[mine]])
        product = to_cyclic(summa(left, right, comm, mesh))

    agrees = comm.allreduce(np.allclose(product, (a @ b)[mine]), MPI.LAND)
    if comm.rank == 0:
        print(f"{side} x {side} ranks, {cyclic}; as numpy's product: {agrees}")


if __name__ == "__main__":
    main()
