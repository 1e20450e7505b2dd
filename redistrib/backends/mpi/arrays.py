"""Whole arrays in and out of ranks: for the command line, and for what fits on one rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends import simulator
from redistrib.backends.local import same_bits, tile_of
from redistrib.backends.mpi.agreement import Watch, private
from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.backends.mpi.transport import Tile
from redistrib.errors import BackendError
from redistrib.synth.plan import Plan
from redistrib.types.array_type import ArrayType


def run_array(
    plan: Plan, array: NDArray[Any], comm: MPI.Intracomm | None = None
) -> NDArray[Any] | None:
    """Run a plan on an array that every rank holds whole; verify every tile; gather on rank 0.

    Collective over `comm`, by default all ranks. Returns the array on rank 0 and None elsewhere.
    Raises BackendError on every rank if a tile is not bit for bit what the target type says.
    """
    comm = comm or MPI.COMM_WORLD
    watch = Watch(private(comm).comm, None)
    with Redistribution.from_plan(plan, comm) as redistribution:
        error: Exception | None = None
        tile = result = np.empty(0)
        try:
            tile = tile_of(np.asarray(array), plan.src, comm.rank)
        except Exception as raised:  # noqa: BLE001
            error = raised
        watch.agree(error, "", "the agreement on the array")
        result = redistribution(tile)
    if not plan.dst.partial and not same_bits(result, tile_of(array, plan.dst, comm.rank)):
        error = BackendError(
            f"rank {comm.rank} holds other data than its tile of {plan.dst}", rank=comm.rank
        )
    watch.agree(error, "", "the agreement on the result")
    return gather(result, plan.dst, comm)


def gather(tile: Tile, t: ArrayType, comm: MPI.Intracomm) -> NDArray[Any] | None:
    """The global array of these tiles on rank 0, None elsewhere. Collective."""
    everything = np.empty((comm.size, *t.tile_shape), t.numpy_dtype) if comm.rank == 0 else None
    received = None if everything is None else [_bytes(everything), MPI.BYTE]
    comm.Gather([_bytes(np.ascontiguousarray(tile)), MPI.BYTE], received, root=0)
    error: Exception | None = None
    array = None
    if everything is not None:
        try:
            array = simulator.gather(list(everything), t)
        except BackendError as raised:
            error = raised
    Watch(private(comm).comm, None).agree(error, "", "the agreement on the array")
    return array


def _bytes(tile: Tile) -> NDArray[np.uint8]:
    return tile.reshape(-1).view(np.uint8)
