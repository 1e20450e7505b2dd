"""Ranks that do not come: the others say so, and their memory is safe. Each case takes seconds.

The rank that is late stays away until the others are done, so no case depends on who is fast.
"""

from __future__ import annotations

import gc
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi import exchange
from redistrib.types.tile import same_bits, tile_of
from tests.mpi.cases import case, direct, example
from tests.mpi.fault_cases import direct_and_packed, error_of
from tests.mpi.safety_cases import PATTERN, large_problem

LIMIT = 3.0
"""Seconds without progress: on a busy machine a rank may not run for a second or two."""


@contextmanager
def absent(comm: MPI.Intracomm, rank: int) -> Iterator[Callable[[], None]]:
    """Gives what keeps `rank` outside MPI until all others have left the block."""
    path = Path(comm.bcast(tempfile.mktemp(prefix="absent-")))
    others = comm.Split(int(comm.rank == rank))

    def stay_away() -> None:
        end = time.monotonic() + 60
        while comm.rank == rank and not path.exists() and time.monotonic() < end:
            time.sleep(0.01)

    try:
        yield stay_away
    finally:
        if comm.rank != rank:
            others.Barrier()
            path.touch()
        comm.Barrier()
        path.unlink(missing_ok=True)
        others.Free()


@case
def memory_is_safe_after_a_timeout(comm: MPI.Intracomm) -> None:
    """What the program makes of the memory afterwards is not overwritten by late messages."""
    own, late = comm.Dup(), comm.size - 1
    plan = large_problem(comm)
    redistribution = rmpi.Redistribution.from_plan(plan, own, timeout=LIMIT)
    tile = np.ones(plan.src.tile_shape, np.float32)
    redistribution(tile)  # all meet in the first call
    patterns = []
    with absent(comm, late) as stay_away:
        with pytest.MonkeyPatch.context() as patch:
            if comm.rank != late:  # which is outside MPI when they begin to send
                begin = exchange.TileExchange._direct

                def begin_later(*given: Any) -> Any:
                    time.sleep(0.5)
                    return begin(*given)

                patch.setattr(exchange.TileExchange, "_direct", begin_later)
            call = redistribution.start(tile)
        stay_away()
        if comm.rank != late:
            with pytest.raises(rd.BackendError, match="made no progress") as caught:
                call.wait()
            assert caught.value.ranks == (late,)
            del caught, tile, redistribution, call
            gc.collect()
            patterns = [np.full(plan.dst.tile_shape, PATTERN, np.float32) for _ in range(8)]
    if comm.rank == late:
        with pytest.raises(rd.BackendError, match="made no progress"):
            call.wait()
    for _ in range(20):  # whatever is on its way arrives
        comm.Barrier()
        time.sleep(0.01)
    assert all((pattern == PATTERN).all() for pattern in patterns)


@case
def the_first_redistribution_has_a_time_limit_too(comm: MPI.Intracomm) -> None:
    own, late = comm.Dup(), comm.size - 1
    plan = direct(rd.Mesh(x=comm.size), "f32[840{x}]", "f32[840]")
    with absent(comm, late) as stay_away:
        stay_away()
        if comm.rank != late:
            with pytest.raises(rd.BackendError, match="not all ranks came") as caught:
                rmpi.Redistribution.from_plan(plan, own, timeout=LIMIT)
            assert caught.value.step == "the first redistribution on a communicator"
            with pytest.raises(rd.BackendError, match="failed before"):
                rmpi.Redistribution.from_plan(plan, own)
    if comm.rank == late:
        with pytest.raises(rd.BackendError, match="not all ranks came"):
            rmpi.Redistribution.from_plan(plan, own, timeout=LIMIT)
    comm.Barrier()


@case
def a_late_rank_is_named(comm: MPI.Intracomm) -> None:
    """On a communicator of its own: one that has timed out is of no use."""
    own, late = comm.Dup(), comm.size - 1
    mesh = rd.Mesh(x=comm.size)  # all need what the last rank has
    a, b = (rd.ArrayType.parse(t, mesh) for t in ("f32[24{x}, 24]", "f32[24, 24]"))
    redistribution = rmpi.Redistribution(a, b, own, timeout=LIMIT)
    tile = tile_of(example(a), a, own.rank)
    assert same_bits(redistribution(tile), example(a))
    with absent(comm, late) as stay_away:
        stay_away()
        if comm.rank != late:
            with pytest.raises(rd.BackendError) as found:
                redistribution(tile)
            assert found.value.ranks == (late,)
            message = f"the exchange (1 of 1) made no progress for {LIMIT:g} s"
            assert message in str(found.value)
            with pytest.raises(rd.BackendError, match="made no progress"):
                redistribution(tile)


@case
def a_call_after_one_that_timed_out_is_left_too(comm: MPI.Intracomm) -> None:
    """What a late rank sends for the first comes for it, begun or not: that is never its result."""
    late = comm.size - 1
    for plan, at_once in direct_and_packed(comm):
        own = comm.Dup()
        made = rmpi.Redistribution.from_plan(plan, own, timeout=LIMIT)
        tile = tile_of(example(plan.src), plan.src, own.rank)
        made(tile)  # all meet in the first call
        assert made._at_once() == at_once
        with absent(comm, late) as stay_away:
            stay_away()
            first, second = (made.start(tile + number) for number in range(2))
            if comm.rank != late:
                with pytest.raises(rd.BackendError, match="made no progress"):
                    first.wait()
        error = error_of(second) if comm.rank != late else ""  # the late rank has sent both
        comm.Barrier()
        error = error_of(first) if comm.rank == late else error
        assert re.search("made no progress|a call before this one was given up", error), error
