"""Whole arrays in and out of ranks: for the command line, and for what fits on one rank."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends import simulator
from redistrib.backends.mpi.agreement import Watch, private
from redistrib.backends.mpi.memory import anonymous_bytes, peak_extra
from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.backends.mpi.transport import Tile
from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType
from redistrib.types.tile import same_bits, tile_of


@dataclass(frozen=True, slots=True)
class Measured:
    """Calls of a redistribution: the array on rank 0, and figures of the slowest or worst rank.

    seconds: of each call.
    received_bytes: from other ranks, a call.
    peak_bytes: anonymous memory of the process during a call; None where it is not known.
    extra_bytes: what of it is beside source and target tile.
    """

    array: NDArray[Any] | None
    seconds: tuple[float, ...]
    received_bytes: int
    peak_bytes: int | None
    extra_bytes: int | None


def run_array(
    plan: Plan, array: NDArray[Any], comm: MPI.Intracomm | None = None
) -> NDArray[Any] | None:
    """Run a plan on an array that every rank holds whole; verify every tile; gather on rank 0.

    Collective over `comm`, by default all ranks. Returns the array on rank 0 and None elsewhere.
    Raises BackendError on every rank if a tile is not bit for bit what the target type says.
    """
    return measure_array(plan, array, comm).array


def measure_array(
    plan: Plan, array: NDArray[Any], comm: MPI.Intracomm | None = None, repeat: int = 1
) -> Measured:
    """As run_array, `repeat` times, with figures. The first call also makes the result."""
    comm = comm or MPI.COMM_WORLD
    watch = Watch(private(comm), None)
    seconds = []
    with Redistribution.from_plan(plan, comm) as redistribution:
        error: Exception | None = None
        tile = result = np.empty(0)
        try:
            tile = tile_of(np.asarray(array), plan.src, comm.rank)
            result = np.empty(plan.dst.tile_shape, plan.dst.numpy_dtype)
            result.fill(0)  # so that its memory is there, and not counted as extra
        except Exception as raised:  # noqa: BLE001
            error = raised
        watch.agree(error, "", "the agreement on the array")
        peak = extra = 0
        for _ in range(repeat):
            comm.Barrier()
            start = time.perf_counter()
            call = partial(redistribution, tile, result)
            extra = max(extra, peak_extra(call))
            seconds.append(comm.allreduce(time.perf_counter() - start, MPI.MAX))
        received = comm.allreduce(redistribution.received_bytes, MPI.MAX)
    known = anonymous_bytes()
    peak = comm.allreduce((known or 0) + extra, MPI.MAX)
    extra = comm.allreduce(extra, MPI.MAX)
    if not plan.dst.partial and not same_bits(result, tile_of(array, plan.dst, comm.rank)):
        error = BackendError(
            f"rank {comm.rank} holds other data than its tile of {plan.dst}", rank=comm.rank
        )
    watch.agree(error, "", "the agreement on the result")
    whole = gather(result, plan.dst, comm)
    if known is None:
        return Measured(whole, tuple(seconds), received, None, None)
    return Measured(whole, tuple(seconds), received, peak, extra)


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
    Watch(private(comm), None).agree(error, "", "the agreement on the array")
    return array


def _bytes(tile: Tile) -> NDArray[np.uint8]:
    return tile.reshape(-1).view(np.uint8)
