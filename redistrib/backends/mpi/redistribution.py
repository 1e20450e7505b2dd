"""Plans under MPI: one rank per mesh position, buffers only, and all ranks raise together.

Steps that only move data are fused into one exchange: each rank sends the intersections of its tile
with the others' target tiles in one Alltoallw, straight from the source tile into the target tile,
and copies what it keeps itself. Data travels as opaque bytes. Reductions exchange pieces and reduce
them locally in rank order, so the result does not depend on the MPI, and every dtype works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends import simulator
from redistrib.backends.local import same_bits, tile_of
from redistrib.backends.mpi.phases import Phase, Tile, as_bytes, phases_of
from redistrib.errors import BackendError, RedistribError
from redistrib.synth.plan import Plan
from redistrib.types.array_type import ArrayType


class Redistribution:
    """The redistribution of tiles from one type to another; made once, called often.

    Collective over `comm`, whose size is that of the mesh and whose ranks are mesh positions.
    Raises on every rank if it fails on one, or if the ranks were given different problems.
    """

    def __init__(
        self,
        src: ArrayType,
        dst: ArrayType,
        comm: MPI.Intracomm,
        strategy: str = "auto",
        *,
        memory_limit: int | None = None,
    ) -> None:
        from redistrib.synth.planner import plan

        self._start(comm, lambda: plan(src, dst, strategy=strategy, memory_limit=memory_limit))

    @classmethod
    def from_plan(cls, plan: Plan, comm: MPI.Intracomm) -> Redistribution:
        """The redistribution that runs a plan. Collective."""
        self = cls.__new__(cls)
        self._start(comm, lambda: plan)
        return self

    def _start(self, comm: MPI.Intracomm, make: Callable[[], Plan]) -> None:
        self.comm = comm
        self._phases: list[Phase] = []
        error: Exception | None = None
        text = ""
        try:
            self.plan = make()
            text = self.plan.to_json()
            positions = self.plan.src.mesh.num_devices
            if comm.size != positions:
                raise BackendError(
                    f"the mesh {self.plan.src.mesh} has {positions} positions, one for each rank; "
                    f"the communicator has {comm.size} ranks",
                    size=comm.size,
                )
        except Exception as raised:  # noqa: BLE001 - the other ranks must hear of it
            error = raised
        _agree(comm, error, text)
        try:
            self._phases = phases_of(self.plan, comm)
        except Exception as raised:  # noqa: BLE001
            error = raised
        _agree(comm, error)

    @property
    def received_bytes(self) -> int:
        """What this rank receives from others in a call, in bytes, counted from its messages."""
        return sum(phase.received_bytes for phase in self._phases)

    @property
    def num_collectives(self) -> int:
        """Communicating phases of a call."""
        return sum(phase.calls for phase in self._phases)

    def __call__(self, tile: Tile, out: Tile | None = None) -> Tile:
        """This rank's tile of the target from its tile of the source. Collective.

        `out` receives the result and is returned. Both are C-contiguous, of the types' tile shapes
        and dtype, and share no memory. Raises BackendError on every rank if one was given something
        else; nothing has been sent then.
        """
        src, dst = self.plan.src, self.plan.dst
        error: Exception | None = None
        buffers: list[Tile] = []
        try:
            _check(tile, src, "tile")
            if out is not None:
                _check(out, dst, "out")
                if not out.flags.writeable or np.may_share_memory(out, tile):
                    raise BackendError("out is writeable and shares no memory with the tile")
            # All memory is taken before anything is sent.
            buffers = [np.empty(p.after.tile_shape, dst.numpy_dtype) for p in self._phases[:-1]]
            result = np.empty(dst.tile_shape, dst.numpy_dtype) if out is None else out
        except Exception as raised:  # noqa: BLE001
            error = raised
        _agree(self.comm, error)
        if not self._phases:
            result[...] = tile
            return result
        for phase, target in zip(self._phases, [*buffers, result], strict=True):
            phase.run(tile, target)
            tile = target
        return result

    def free(self) -> None:
        """Release the datatypes and communicators. Collective."""
        for phase in self._phases:
            phase.free()
        self._phases = []


def _check(tile: Any, t: ArrayType, name: str) -> None:
    """Raise BackendError unless a buffer is a C-contiguous tile of a type."""
    if not isinstance(tile, np.ndarray):
        raise BackendError(f"{name} is a numpy array; got {type(tile).__name__}")
    if tile.shape != t.tile_shape or tile.dtype != t.numpy_dtype:
        raise BackendError(
            f"{name} is a tile of {t}, of shape {list(t.tile_shape)} and dtype {t.numpy_dtype}; "
            f"got shape {list(tile.shape)} and dtype {tile.dtype}",
            shape=tile.shape,
            dtype=tile.dtype,
        )
    if not tile.flags.c_contiguous:
        raise BackendError(
            f"{name} is C-contiguous; got strides {tile.strides} for shape {list(tile.shape)}: "
            f"pass numpy.ascontiguousarray({name})",
            strides=tile.strides,
        )


def _agree(comm: MPI.Intracomm, error: Exception | None, token: str = "") -> None:
    """Raise on every rank if one has an error, or if the tokens differ. Collective."""
    digest = hashlib.sha256(token.encode()).digest()
    number = int.from_bytes(digest[:8], "big") >> 2
    # The least of x and of -x tell whether all are equal; the last is the first rank that failed.
    told = np.array([number, -number, comm.size if error is None else comm.rank], np.int64)
    heard = np.empty_like(told)
    comm.Allreduce(told, heard, MPI.MIN)
    least, most, failed = int(heard[0]), -int(heard[1]), int(heard[2])
    if failed < comm.size:
        reason = comm.bcast(f"{type(error).__name__}: {error}", root=failed)
        if isinstance(error, RedistribError):
            raise error
        raise BackendError(f"rank {failed}: {reason}", rank=failed) from error
    if least != most:
        raise BackendError(
            "the ranks were given different problems: their plans, shapes or dtypes differ"
        )


def run_array(
    plan: Plan, array: NDArray[Any], comm: MPI.Intracomm | None = None
) -> NDArray[Any] | None:
    """Run a plan on an array that every rank holds whole; verify every tile; gather on rank 0.

    Collective over `comm`, by default all ranks. Returns the array on rank 0 and None elsewhere.
    Raises BackendError on every rank if a tile is not bit for bit what the target type says.
    """
    comm = comm or MPI.COMM_WORLD
    redistribution = Redistribution.from_plan(plan, comm)
    error: Exception | None = None
    tile = result = np.empty(0)
    try:
        tile = tile_of(np.asarray(array), plan.src, comm.rank)
    except Exception as raised:  # noqa: BLE001
        error = raised
    _agree(comm, error)
    try:
        result = redistribution(tile)
    finally:
        redistribution.free()
    if not plan.dst.partial and not same_bits(result, tile_of(array, plan.dst, comm.rank)):
        error = BackendError(
            f"rank {comm.rank} holds other data than its tile of {plan.dst}", rank=comm.rank
        )
    _agree(comm, error)
    return gather(result, plan.dst, comm)


def gather(tile: Tile, t: ArrayType, comm: MPI.Intracomm) -> NDArray[Any] | None:
    """The global array of these tiles on rank 0, None elsewhere. Collective."""
    everything = np.empty((comm.size, *t.tile_shape), t.numpy_dtype) if comm.rank == 0 else None
    received = None if everything is None else [as_bytes(everything), MPI.BYTE]
    comm.Gather([as_bytes(tile), MPI.BYTE], received, root=0)
    error: Exception | None = None
    array = None
    if everything is not None:
        try:
            array = simulator.gather(list(everything), t)
        except BackendError as raised:
            error = raised
    _agree(comm, error)
    return array
