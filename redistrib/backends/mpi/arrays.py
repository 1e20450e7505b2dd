"""Whole arrays in and out of ranks: for the command line, and for what fits on one rank."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.memory import anonymous_bytes, peak_extra
from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh
from redistrib.types.tile import same_bits, tile_of


@dataclass(frozen=True, slots=True)
class Measured:
    """Calls of a redistribution: the array on rank 0, and figures of the slowest or worst rank.

    seconds: of each call.
    received_bytes: from other ranks, a call.
    peak_bytes: anonymous memory of the process during a call; None where it is not known.
    extra_bytes: what of it is beside source and target tile.
    phases: what the steps of the plan were fused into, the communicating ones.
    """

    array: NDArray[Any] | None
    seconds: tuple[float, ...]
    received_bytes: int
    peak_bytes: int | None
    extra_bytes: int | None
    phases: int


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
    seconds = []
    with Redistribution.from_plan(plan, comm) as redistribution:
        watch = redistribution.watch
        src_position, dst_position = redistribution.src_position, redistribution.dst_position
        tile = result = None

        def split() -> None:
            nonlocal tile, result
            if src_position is not None:
                tile = tile_of(_checked(array), plan.src, src_position)
            if dst_position is not None:
                result = np.empty(plan.dst.tile_shape_at(dst_position), plan.dst.numpy_dtype)
                result.fill(0)  # so that its memory is there, and not counted as extra

        def verify() -> None:
            if result is not None and not _verified(result, array, plan.dst, dst_position):
                raise BackendError(
                    f"rank {comm.rank} holds other data than its tile of {plan.dst}", rank=comm.rank
                )

        watch.attempt(split, "the agreement on the array")
        extra = 0
        for _ in range(repeat):
            comm.Barrier()
            start = time.perf_counter()
            extra = max(extra, peak_extra(partial(redistribution, tile, result)))
            seconds.append(comm.allreduce(time.perf_counter() - start, MPI.MAX))
        received = comm.allreduce(redistribution.received_bytes, MPI.MAX)
        known = anonymous_bytes()
        peak = comm.allreduce((known or 0) + extra, MPI.MAX)
        extra = comm.allreduce(extra, MPI.MAX)
        watch.attempt(verify, "the agreement on the result")
    gathered = gather(result, plan.dst, comm)
    phases = redistribution.num_collectives
    if known is None:
        return Measured(gathered, tuple(seconds), received, None, None, phases)
    return Measured(gathered, tuple(seconds), received, peak, extra, phases)


def _verified(result: Tile, array: NDArray[Any], t: ArrayType, position: int | None) -> bool:
    """Whether a tile is bit for bit that of an array. Of addends there is none such."""
    return bool(t.partial) or position is None or same_bits(result, tile_of(array, t, position))


def gather(
    tile: Tile | None, t: ArrayType, comm: MPI.Intracomm, root: int = 0
) -> NDArray[Any] | None:
    """The global array of these tiles on the rank `root`, None elsewhere. Collective.

    Each rank gives its tile, None if it has none; the device ids of the mesh are ranks. Addends are
    reduced in rank order. Beside the array, the root needs no memory but scratch. Raises on every
    rank if one gives something else: BackendError with the attribute `rank`.
    """
    with Redistribution(t, _whole(t), comm, dst_ranks=[root]) as redistribution:
        array: NDArray[Any] | None = redistribution(tile)
    return array


def scatter(
    array: NDArray[Any] | None, t: ArrayType, comm: MPI.Intracomm, root: int = 0
) -> Tile | None:
    """This rank's tile of the array that the rank `root` has; None if it has none. Collective.

    The others give None. Raises on every rank if one gives something else (BackendError with the
    attribute `rank`), and LayoutError if the type is partial.
    """
    with Redistribution(_whole(t), t, comm, src_ranks=[root]) as redistribution:
        tile: Tile | None = redistribution(array)
    return tile


def _whole(t: ArrayType) -> ArrayType:
    """The array of a type on one device."""
    return ArrayType(Mesh(), t.dtype, t.shape)


def _checked(array: Any) -> NDArray[Any]:
    """The array that a rank was given. Raises BackendError for what is more than data."""
    if type(array) not in (np.ndarray, np.memmap):
        raise BackendError(f"the array is a numpy array; got {type(array).__name__}")
    checked: NDArray[Any] = array
    return checked
