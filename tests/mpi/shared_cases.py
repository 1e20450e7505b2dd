"""What must hold of results in shared memory, on all ranks of a communicator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi import exchange, requests, streams
from redistrib.backends.mpi.communicators import private
from redistrib.backends.mpi.memory import peak_extra
from redistrib.types.tile import same_bits, tile_of
from tests.mpi.cases import case, direct, example, mesh_for
from tests.random_plans import expected_tiles, random_plans, random_tiles


@case
def random_plans_end_in_shared_tiles(comm: MPI.Intracomm) -> None:
    for number, plan in enumerate(random_plans(comm.size + 100, comm.size, 10)):
        expected = expected_tiles(plan, number)[comm.rank]
        tile = random_tiles(plan, number)[comm.rank]
        with rmpi.Redistribution.from_plan(plan, comm, shared=True) as redistribution:
            for out in (None, redistribution.out):
                result = redistribution(tile, out)
                assert result is redistribution.out
                assert same_bits(result, expected), (str(plan.src), str(plan.dst))
                result[...] = np.zeros((), result.dtype)
        result[...] = tile.ravel()[0] if tile.size else 0  # it outlives the redistribution


@case
def what_is_near_is_not_sent(comm: MPI.Intracomm) -> None:
    """On one node nothing is; on several, only what crosses. The bytes moved are the same."""
    plan = direct(mesh_for(comm), "i32[48{x}, 48{y}]", "i32[48{y}, 48{x}]")
    near = set(private(comm).node_ranks)
    peers: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        messages = streams.Stream.messages

        def watched(self: streams.Stream, *given: Any) -> Iterator[requests.Message]:
            peers.append(self.peer)
            return messages(self, *given)

        patch.setattr(streams.Stream, "messages", watched)
        patch.setattr(streams, "SHORT_RUN", 0)
        plain, shared = (
            rmpi.Redistribution.from_plan(plan, comm, shared=shared) for shared in (False, True)
        )
        assert (plain.sent_bytes, plain.received_bytes) == (
            shared.sent_bytes,
            shared.received_bytes,
        )
        tile = tile_of(example(plan.src), plan.src, comm.rank)
        for redistribution in (plain, shared):
            peers.clear()
            result = redistribution(tile)
            assert same_bits(result, tile_of(example(plan.src), plan.dst, comm.rank))
        assert not near & set(peers)
    far = comm.allreduce(len(peers))
    assert (far > 0) == (len(near) < comm.size and comm.size > 2), far


@case
def a_call_into_shared_tiles_takes_no_memory(comm: MPI.Intracomm) -> None:
    """Beside the two tiles, and those of the source; on one node: what crosses is sent in parts."""
    if len(private(comm).node_ranks) < comm.size:
        return
    row = (16 << 20) // comm.size
    problem = (
        f"u8[{comm.size}{{x}}, {comm.size}, {row}]",
        f"u8[{comm.size}, {comm.size}{{x}}, {row}]",
    )
    mesh = rd.Mesh(x=comm.size)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in problem)
    with rmpi.Redistribution(src, dst, comm, shared=True) as redistribution:
        tile = np.full(src.tile_shape, comm.rank, np.uint8)
        redistribution(tile)  # what MPI takes once in a process
        extra = peak_extra(lambda: redistribution(tile))
        assert extra <= 1 << 18, extra  # a thread, and what Python takes for the call
        assert (redistribution.out[:, 0, 0] == np.arange(comm.size)).all()


@case
def a_call_waits_for_slow_ranks_at_both_ends(comm: MPI.Intracomm) -> None:
    plan = direct(mesh_for(comm), "i32[48{x}, 48{y}]", "i32[48{y}, 48]")
    with rmpi.Redistribution.from_plan(plan, comm, shared=True) as redistribution:
        slow = comm.size - 1
        with pytest.MonkeyPatch.context() as patch:
            if comm.rank == slow:
                copy = exchange._copy

                def late(*given: object) -> None:
                    time.sleep(0.1)
                    copy(*given)  # type: ignore[arg-type]

                patch.setattr(exchange, "_copy", late)
            for factor in (1, 2, 3):
                array = factor * example(plan.src)
                expected = tile_of(array, plan.dst, comm.rank)
                result = redistribution(tile_of(array, plan.src, comm.rank))
                assert same_bits(result, expected), "nobody returns before all have written"
                if comm.rank == 0:
                    time.sleep(0.1)
                    assert same_bits(result, expected), "nobody writes before all are in the call"


@case
def shared_results_between_two_sets_of_ranks(comm: MPI.Intracomm) -> None:
    if comm.size < 3:
        return
    mesh, line = rd.Mesh(x=comm.size), rd.Mesh(u=comm.size - 1)
    size = comm.size * (comm.size - 1)
    src, dst = (
        rd.ArrayType(mesh, "f64", (size, 3), [("x",), ()]),
        rd.ArrayType(line, "f64", (size, 3), [("u",), ()]),
    )
    array = example(src)
    for backwards in (False, True):
        a, b = (dst, src) if backwards else (src, dst)
        tile, expected = (
            tile_of(array, t, comm.rank) if comm.rank < t.mesh.num_devices else None for t in (a, b)
        )
        with rmpi.Redistribution(a, b, comm, shared=True) as redistribution:
            result = redistribution(tile)
        assert result is redistribution.out
        assert (result is None) == (expected is None)
        assert expected is None or same_bits(result, expected)
    uneven = rd.ArrayType.parse(f"f32[{comm.size + 1}{{x}}:ceil, 5]", mesh)
    whole = rd.ArrayType(mesh, "f32", (comm.size + 1, 5))
    array = example(whole)
    with rmpi.Redistribution(whole, uneven, comm, shared=True) as redistribution:
        result = redistribution(array)
        assert same_bits(result, np.ascontiguousarray(array[uneven.tile(comm.rank)[0]]))


@case
def shared_results_start_and_end_apart(comm: MPI.Intracomm) -> None:
    plan = direct(mesh_for(comm), "f32[480{x}, 480{y}]", "f32[480{y}, 480{x}]")
    for options in ({}, {"timeout": 60.0}):
        with rmpi.Redistribution.from_plan(plan, comm, shared=True, **options) as redistribution:
            redistribution(tile_of(example(plan.src), plan.src, comm.rank))
            running = redistribution.start(tile_of(example(plan.src), plan.src, comm.rank))
            with pytest.raises(rd.BackendError, match="overwrites the shared result of another"):
                redistribution.start(tile_of(example(plan.src), plan.src, comm.rank))
            while not running.test():
                pass
            [result] = running.wait()
            assert same_bits(result, tile_of(example(plan.src), plan.dst, comm.rank))


@case
def shared_results_are_used_as_such(comm: MPI.Intracomm) -> None:
    plan = direct(mesh_for(comm), "i32[24{x}, 24{y}]", "i32[24{y}, 24{x}]")
    tile = tile_of(example(plan.src), plan.src, comm.rank)
    with rmpi.Redistribution.from_plan(plan, comm, shared=True) as redistribution:
        kept = redistribution(tile).copy()
        with pytest.raises(rd.BackendError, match="one, and no other is given"):
            redistribution(tile, out=np.empty_like(kept))
        with pytest.raises(rd.BackendError, match="one, and no other is given"):
            redistribution.batch([tile, tile])
        if kept.shape == tile.shape:
            with pytest.raises(rd.BackendError, match="shares no memory with a tile"):
                redistribution(redistribution.out)
        assert same_bits(redistribution(tile), kept)
    with pytest.raises(rd.BackendError, match=r"different problems: rank 0: .*into shared tiles"):
        rmpi.Redistribution.from_plan(plan, comm, shared=comm.rank == 0)
    huge = direct(
        mesh_for(comm),
        f"f64[{2**30 * comm.size}{{x}}, 24{{y}}]",
        f"f64[{2**30 * comm.size}, 24{{y}}]",
    )
    with pytest.raises(rd.BackendError, match=r"rank 0: a shared tile takes \d+ bytes of /dev/shm"):
        rmpi.Redistribution.from_plan(huge, comm, shared=True)


@case
def shared_results_under_way_at_once_are_kept_apart(comm: MPI.Intracomm) -> None:
    """Rank 1 comes to the end of the second call first, the others to that of the first."""
    a, b = (rd.ArrayType.parse(t, rd.Mesh(x=comm.size)) for t in ("i32[840] sum{x}", "i32[840]"))
    made = [rmpi.Redistribution(a, b, comm, shared=True) for _ in range(2)]
    addends = [np.full(a.tile_shape, number, np.int32) for number in (1, 2)]
    running = [one.start(addend) for one, addend in zip(made, addends, strict=True)]
    if comm.rank == 1:
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            running[1].test()
    left = {1: running[0], 2: running[1]}
    while left:
        for number in [number for number, call in left.items() if call.test()]:
            [result] = left.pop(number).wait()
            assert (result == number * comm.size).all(), "nobody returns before all have written"
    for one in made:
        one.free()
