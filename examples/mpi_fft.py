"""A 3-D FFT on pencils: transform the dimension that is local, turn the array, and go on.

    mpiexec -n 4 python examples/mpi_fft.py

On a p x q grid of ranks each has a pencil, whole along one dimension. Two redistributions turn the
array between three one-dimensional transforms; the result is compared with numpy.fft.fftn.
"""

import numpy as np
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi

SHAPE = (16, 12, 8)


def main() -> None:
    comm = MPI.COMM_WORLD
    p, q = MPI.Compute_dims(comm.size, 2)
    mesh = rd.Mesh(p=p, q=q)
    n, m, k = SHAPE
    pencils = [  # whole along dimension 0, then 1, then 2
        rd.ArrayType.parse(text, mesh)
        for text in (
            f"c128[{n}, {m}{{p}}, {k}{{q}}]",
            f"c128[{n}{{p}}, {m}, {k}{{q}}]",
            f"c128[{n}{{p}}, {m}{{q}}, {k}]",
        )
    ]
    array = np.random.default_rng(0).random(SHAPE) + 0j
    tile = array[np.ix_(*pencils[0].tile(comm.rank))]

    with (
        rmpi.Redistribution(pencils[0], pencils[1], comm) as first_turn,
        rmpi.Redistribution(pencils[1], pencils[2], comm) as second_turn,
    ):
        tile = first_turn(np.fft.fft(tile, axis=0))
        tile = second_turn(np.fft.fft(tile, axis=1))
        tile = np.fft.fft(tile, axis=2)

    expected = np.fft.fftn(array)[np.ix_(*pencils[2].tile(comm.rank))]
    right = comm.allreduce(np.allclose(tile, expected), MPI.LAND)
    if comm.rank == 0:
        received = first_turn.received_bytes + second_turn.received_bytes
        print(f"{p} x {q} ranks, {received} bytes received a rank; as numpy.fft.fftn: {right}")


if __name__ == "__main__":
    main()
