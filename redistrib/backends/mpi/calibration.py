"""A profile of the machine that these ranks are on, from redistributions between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
from mpi4py import MPI

from redistrib.backends.calibration import MOVES, ROUNDS, TILES, calibrated, moves, timed
from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import Execution, Profile
from redistrib.types.mesh import Mesh

EXCHANGE: Execution = "call"
"""How an exchange runs here, in the words of a profile."""


def calibrate(
    mesh: Mesh,
    comm: MPI.Intracomm,
    name: str = "calibrated",
    *,
    tiles: Sequence[int] = TILES,
    count: int = MOVES,
    rounds: int = ROUNDS,
) -> Profile:
    """The profile of this machine, from random moves over ranks as the positions of a mesh.

    An axis of nodes beside one of the ranks in a node (`node=4,rank=64`) tells their links apart.
    `count` moves, of tiles of about so many bytes, take turns for so many rounds; a time is that of
    the slowest rank. A rank needs memory for two tiles. Collective; the same profile on every rank.

    Raises BackendError unless there is one rank for each position, and more than one: a rank alone
    has no link to measure.
    """
    if mesh.num_devices != comm.size or comm.size < 2:
        raise BackendError(
            "a link is measured between two ranks or more, one for each position; got a mesh of "
            f"{mesh.num_devices} and {comm.size} ranks: mpiexec -n 8 redistrib calibrate ...",
            ranks=comm.size,
        )
    plans = moves(mesh, EXCHANGE, tiles, count)
    with prepared(plans, comm) as runs:
        return calibrated(plans, timed(runs, rounds), EXCHANGE, name)


@contextmanager
def prepared(plans: Sequence[Plan], comm: MPI.Intracomm) -> Iterator[list[Callable[[], float]]]:
    """A run of each plan, on one pair of buffers: it gives the seconds of the slowest rank."""
    source = np.zeros(max(plan.src.tile_bytes for plan in plans), np.uint8)
    target = np.zeros(max(plan.dst.tile_bytes for plan in plans), np.uint8)
    with ExitStack() as stack:
        runs: list[Callable[[], float]] = []
        for plan in plans:
            tile, out = (
                buffer[: t.tile_bytes].view(t.numpy_dtype).reshape(t.tile_shape)
                for t, buffer in ((plan.src, source), (plan.dst, target))
            )
            move = stack.enter_context(Redistribution.from_plan(plan, comm))
            runs.append(partial(_seconds, partial(move, tile, out), comm))
        yield runs


def _seconds(run: Callable[[], object], comm: MPI.Intracomm) -> float:
    comm.Barrier()
    start = time.perf_counter()
    run()
    seconds: float = comm.allreduce(time.perf_counter() - start, MPI.MAX)
    return seconds
