"""Memory that is never corrupted, and wrong use that is never silent, on all ranks."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends import simulator
from redistrib.backends.mpi import lifetime, streams
from redistrib.backends.mpi import problem as making
from redistrib.backends.mpi.memory import anonymous_bytes
from redistrib.backends.mpi.reduction import Reduction
from redistrib.types.tile import same_bits, tile_of
from tests.mpi.cases import case, direct, example, mesh_for

PATTERN = 77


def large_problem(comm: MPI.Intracomm) -> rd.Plan:
    """Tiles of some MiB: no message is done before its receiver takes part."""
    n = 840 * comm.size
    return direct(rd.Mesh(x=comm.size), f"f32[{n}{{x}}, 840]", f"f32[{n}, 840{{x}}]")


@case
def a_call_that_is_dropped_leaves_memory_alone(comm: MPI.Intracomm) -> None:
    plan = large_problem(comm)
    tile = tile_of(example(plan.src), plan.src, comm.rank)
    redistribution = rmpi.Redistribution.from_plan(plan, comm.Dup())
    call = redistribution.start(tile)
    if comm.rank == 0:
        del redistribution, call
        gc.collect()
    patterns = [np.full(plan.dst.tile_shape, PATTERN, np.float32) for _ in range(8)]
    comm.Barrier()
    if comm.rank:
        try:
            ended = any(call.test() for _ in range(20))  # rank 0 may have had all of it in time
        except rd.BackendError:  # another rank has given up
            ended = False
        redistribution.free()
        if not ended:
            with pytest.raises(rd.BackendError, match="given up before its end"):
                call.wait()
    comm.Barrier()
    assert all((pattern == PATTERN).all() for pattern in patterns)


@case
def buffers_of_a_call_that_was_given_up_are_not_used_again(comm: MPI.Intracomm) -> None:
    """MPI may still send from them and receive into them."""
    mesh = rd.Mesh(x=comm.size)
    for text in ("f64[1680{x}, 840]", "f64[1680, 840] sum{x}"):
        src, dst = (rd.ArrayType.parse(t, mesh) for t in (text, "f64[1680, 840{x}]"))
        tile = np.full(src.tile_shape, 1.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "SHORT_RUN", 1 << 30)
            made = rmpi.Redistribution(src, dst, comm, scratch=1 << 23)
        with made:
            right = made(tile)
            [phase] = made._phases
            before = buffers(phase)
            assert before
            if comm.rank != 1:
                made.start(tile).give_up()
            comm.Barrier()
            if comm.rank == 1:
                with pytest.raises(rd.BackendError, match="the call was given up"):
                    made(tile)
            with contextlib.suppress(rd.BackendError):  # of ranks that another told before
                made.check_calls()
            assert np.array_equal(made(tile), right)
            after = buffers(phase)
            assert comm.rank == 1 or not any(a is b for a, b in zip(before, after, strict=True))


@case
def tiles_of_a_call_that_was_given_up_live_on(comm: MPI.Intracomm) -> None:
    """Whoever else has forgotten them: MPI may still send from them."""
    plan = large_problem(comm)
    tile = np.array(tile_of(example(plan.src), plan.src, comm.rank))
    reference = weakref.ref(tile)
    before = len(lifetime._KEPT)
    with rmpi.Redistribution.from_plan(plan, comm) as made:
        made(tile)  # so that the next one starts at once
        if comm.rank == 1:
            comm.Barrier()
            with pytest.raises(rd.BackendError, match="the call was given up"):
                made(tile)
        else:
            made.start(tile).give_up()
            comm.Barrier()
        del tile
        with contextlib.suppress(rd.BackendError):  # of ranks that another told before
            made.check_calls()
    gc.collect()
    kept = len(lifetime._KEPT) > before
    assert comm.allreduce(kept), "nothing of it was under way"
    assert not kept or reference() is not None


def buffers(phase: Any) -> list[np.ndarray]:
    """Those that a phase packs into."""
    found = phase.buffers.values() if isinstance(phase, Reduction) else phase._buffers
    return [buffer for each in found for buffer in each]


@case
def an_exception_between_start_and_wait_ends_the_call(comm: MPI.Intracomm) -> None:
    plan = large_problem(comm)
    array = example(plan.src)
    tile, expected = (tile_of(array, t, comm.rank) for t in (plan.src, plan.dst))
    for raising in ({0}, set(range(comm.size))):
        if comm.rank in raising:
            with pytest.raises(ZeroDivisionError):
                leave_by_an_exception(rmpi.Redistribution.from_plan(plan, comm), tile)
        else:
            with rmpi.Redistribution.from_plan(plan, comm) as redistribution:
                [result] = redistribution.start(tile).wait()
                assert same_bits(result, expected)
    with rmpi.Redistribution.from_plan(plan, comm) as redistribution:
        out = np.zeros_like(expected)
        redistribution.start(tile, out)  # leaving ends it
    assert same_bits(out, expected)


def leave_by_an_exception(redistribution: rmpi.Redistribution, tile: np.ndarray) -> None:
    with redistribution:
        redistribution.start(tile)
        raise ZeroDivisionError


@case
def nothing_is_kept_after_del(comm: MPI.Intracomm) -> None:
    problems = [
        direct(mesh_for(comm), "f32[480{x}, 480{y}]", "f32[480{y}, 480{x}]"),
        direct(mesh_for(comm), "f32[24{x}, 48{y}]", "f32[24{y}, 48{x}]"),
    ]
    gc.collect()
    gc.disable()
    try:
        for plan in problems:
            for options in ({}, {"shared": True}, {"timeout": 60.0}):
                made: Any = rmpi.Redistribution.from_plan(plan, comm, **options)
                tile = tile_of(example(plan.src), plan.src, comm.rank)
                result = made(tile)
                call = made.start(tile)
                [second] = call.wait()
                seen = [weakref.ref(result), weakref.ref(second), weakref.ref(tile)]
                del call, result, second, tile
                kept = sum(ref() is not None for ref in seen)
                assert kept == (2 if "shared" in options else 0), "only the shared result"
                seen.append(weakref.ref(made))
                with pytest.raises(rd.BackendError):
                    made("no tile")
                del made
                assert [ref() for ref in seen] == [None] * 4
    finally:
        gc.enable()


@case
def objects_leave_nothing_behind(comm: MPI.Intracomm, count: int) -> None:
    """Made and dropped, freed or not: memory, descriptors and shared memory are as before."""
    mesh = mesh_for(comm)
    plans = [
        direct(mesh, "f32[240{x}, 240{y}]", "f32[240{y}, 240{x}]"),
        direct(mesh, "f32[840{x}, 840{y}]", "f32[840{y}, 840{x}]"),
        rd.plan(*(rd.ArrayType.parse(t, mesh) for t in ("i32[240, 24] sum{x}", "i32[240{x}, 24]"))),
    ]

    def make(first: int, last: int) -> None:
        for number in range(first, last):
            plan = plans[number % 3]
            options = {"shared": number % 4 == 1}
            redistribution = rmpi.Redistribution.from_plan(plan, comm, **options)
            tile = np.zeros(plan.src.tile_shape, plan.src.numpy_dtype)
            redistribution(tile)
            if number % 5 == 2:
                redistribution.start(tile).wait()
            if number % 2:
                redistribution.free()

    make(0, 60)
    before = figures()
    make(60, 60 + count)
    after = figures()
    assert after[1:] == before[1:], "descriptors and mappings of shared memory"
    assert after[0] <= before[0] + (4 << 20), f"memory grew from {before[0]} to {after[0]} bytes"


def figures() -> tuple[int, int, int]:
    """Bytes of memory of this process, its open files, and its mappings of shared tiles."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = sum("/dev/shm/#" in line or "redistrib-" in line for line in maps)
    return anonymous_bytes() or 0, len(list(Path("/proc/self/fd").iterdir())), mapped


@case
def gather_and_scatter_are_checked(comm: MPI.Intracomm) -> None:
    last = comm.size - 1
    mesh = mesh_for(comm)
    t = rd.ArrayType.parse("bf16[24{_2,x}, 24{y}]", mesh)
    line = rd.Mesh(x=comm.size)
    uneven = rd.ArrayType.parse(f"f32[{3 * comm.size + 1}{{x}}:ceil, 5]", line)
    whole = rd.ArrayType(rd.Mesh(), "f32", uneven.shape)
    for root in range(comm.size):
        array = example(t)
        tile = rmpi.scatter(array if comm.rank == root else None, t, comm, root)
        assert tile is not None
        assert same_bits(tile, tile_of(array, t, comm.rank))
        result = rmpi.gather(tile, t, comm, root)
        assert (result is None) == (comm.rank != root)
        assert result is None or same_bits(result, array)
        array = example(whole)
        tile = rmpi.scatter(array if comm.rank == root else None, uneven, comm, root)
        assert tile is not None
        assert np.array_equal(tile, array[uneven.tile(comm.rank)[0]])
        result = rmpi.gather(tile, uneven, comm, root)
        assert (result is None) == (comm.rank != root)
        assert result is None or same_bits(result, array)
    good = np.zeros(t.tile_shape, t.numpy_dtype)
    long = rd.ArrayType.parse(f"f32[{2 * comm.size}{{x}}, 3]", rd.Mesh(x=comm.size))
    for bad, of in (
        (np.zeros(t.tile_shape, np.uint16), t),
        (np.zeros((1, *t.tile_shape), t.numpy_dtype), t),
        (good[1:], t),
        (None, t),
        (np.zeros(long.tile_shape, np.float32).T, long),
    ):
        right = np.zeros(of.tile_shape, of.numpy_dtype)
        with pytest.raises(rd.BackendError, match=f"rank {last}: tile is a") as caught:
            rmpi.gather(bad if comm.rank == last else right, of, comm)
        assert caught.value.rank == last
    with pytest.raises(rd.BackendError, match="tile is None on a rank"):
        rmpi.scatter(np.zeros((24, 24), t.numpy_dtype), t, comm)
    with pytest.raises(rd.BackendError, match="those of the communicator"):
        rmpi.gather(good, t, comm, root=comm.size)
    summed = rd.ArrayType.parse("i32[24] sum{r}", rd.Mesh(r=comm.size))
    with pytest.raises(rd.LayoutError, match="the target is not partial"):
        rmpi.scatter(None if comm.rank else np.zeros(24, np.int32), summed, comm)
    result = rmpi.gather(np.full(24, 1 << comm.rank, np.int32), summed, comm)
    assert result is None or (result == (1 << comm.size) - 1).all()


@case
def only_intracommunicators_are_taken(comm: MPI.Intracomm) -> None:
    plan = direct(rd.Mesh(x=1), "f32[24]", "f32[24]")
    half = comm.Split(comm.rank % 2)
    between = half.Create_intercomm(0, comm, 1 - comm.rank % 2)
    for bad in (between, MPI.COMM_NULL, None, 3):
        with pytest.raises(rd.BackendError, match="one intracommunicator"):
            rmpi.Redistribution.from_plan(plan, bad)  # type: ignore[arg-type]
    with pytest.raises(rd.BackendError, match="one intracommunicator"):
        rmpi.gather(np.zeros(24, np.float32), plan.src, between)  # type: ignore[arg-type]
    between.Free()
    half.Free()


@case
def two_threads_on_one_communicator_are_refused(comm: MPI.Intracomm) -> None:
    """On all ranks, whichever comes first on each; afterwards either may go on alone."""
    own = comm.Dup()
    plan = direct(rd.Mesh(x=comm.size), "f32[840{x}]", "f32[840]")
    rmpi.Redistribution.from_plan(plan, own).free()
    inside, raised = threading.Event(), []

    def make(first: bool) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if first:

                def slow(*given: object) -> object:
                    inside.set()
                    time.sleep(0.3)
                    return made(*given)  # type: ignore[arg-type]

                made = making.ranks_of
                patch.setattr(making, "ranks_of", slow)
            else:
                inside.wait()
            try:
                rmpi.Redistribution.from_plan(plan, own)
            except rd.BackendError as error:
                raised.append(str(error))

    threads = [threading.Thread(target=make, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(raised) == 2
    assert all("two threads" in text for text in raised)
    with rmpi.Redistribution.from_plan(plan, own) as redistribution:
        assert same_bits(
            redistribution(tile_of(example(plan.src), plan.src, own.rank)), example(plan.src)
        )
    own.Free()


@case
def the_device_order_of_a_mesh_is_obeyed(comm: MPI.Intracomm) -> None:
    order = list(range(comm.size))[::-1]
    mesh, plain = rd.Mesh({"x": comm.size}, devices=order), rd.Mesh(x=comm.size)
    position = order.index(comm.rank)
    for src, dst in (
        (f"i32[{comm.size * 2}{{x}}, 840]", f"i32[{comm.size * 2}, 840{{x}}]"),
        ("i32[840{x}]", "i32[840]"),
        ("i32[840] sum{x}", "i32[840{x}]"),
    ):
        a, b = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
        other = rd.ArrayType.parse(dst, plain)
        array = example(a)
        for there, held in ((b, position), (other, comm.rank)):
            with rmpi.Redistribution(a, there, comm) as redistribution:
                assert redistribution.src_position == position
                assert redistribution.dst_position == held
                result = redistribution(simulator.scatter(array, a)[position])
            assert same_bits(result, tile_of(array, there, held)), (src, dst)
        plan = rd.plan(a, b)
        result = rmpi.run_array(plan, array, comm)
        assert result is None or same_bits(result, array)
        gathered = rmpi.gather(simulator.scatter(array, a)[position], a, comm)
        assert gathered is None or same_bits(gathered, array)


@case
def an_empty_tile_may_lie_where_out_does(comm: MPI.Intracomm) -> None:
    mesh = rd.Mesh(x=comm.size)
    a = rd.ArrayType.parse("f32[1{x}:ceil, 5]", mesh)
    b = rd.ArrayType.parse("f32[1, 5]", mesh)
    array = example(b)
    for options in ({}, {"timeout": 60.0}):
        out = np.zeros((1, 5), np.float32)
        tile = array if comm.rank == 0 else out[:0]
        with rmpi.Redistribution(a, b, comm, **options) as redistribution:
            for result in (redistribution(tile, out), *redistribution.start(tile, out).wait()):
                assert same_bits(result, array)


@case
def started_calls_may_end_in_any_order(comm: MPI.Intracomm) -> None:
    """Small ones of several phases too: what belongs to which call is told by its tag."""
    mesh = mesh_for(comm)
    plan = direct(mesh, "i32[24{x}, 24{y}]", "i32[24{y}, 24{x}]")
    made = [rmpi.Redistribution.from_plan(plan, comm) for _ in range(2)]
    arrays = [example(plan.src), 1000 + example(plan.src)]
    calls = [
        redistribution.start(tile_of(array, plan.src, comm.rank))
        for redistribution, array in zip(made, arrays, strict=True)
    ]
    order = (0, 1) if comm.rank % 2 else (1, 0)
    results = {number: calls[number].wait()[0] for number in order}
    for number, array in enumerate(arrays):
        assert same_bits(results[number], tile_of(array, plan.dst, comm.rank))


@case
def only_data_is_taken_for_a_tile(comm: MPI.Intracomm) -> None:
    plan = direct(mesh_for(comm), "f32[24{x}, 48{y}]", "f32[24{y}, 48{x}]")
    good = tile_of(example(plan.src), plan.src, comm.rank)
    expected = tile_of(example(plan.src), plan.dst, comm.rank)

    class Quantity(np.ndarray):
        unit = "m"

    with rmpi.Redistribution.from_plan(plan, comm) as redistribution:
        for bad in (np.ma.masked_array(good, good > 3), good.view(Quantity)):
            with pytest.raises(rd.BackendError, match=r"a numpy array; got .* would be lost"):
                redistribution(bad)
        with pytest.raises(rd.BackendError, match="out is a numpy array; got MaskedArray"):
            redistribution(good, np.ma.masked_array(np.zeros_like(expected)))
        with tempfile.NamedTemporaryFile() as file:
            mapped = np.memmap(file.name, good.dtype, "w+", shape=good.shape)
            mapped[...] = good
            assert same_bits(redistribution(mapped), expected)
            del mapped
    for dtype in ("S0", "V0", "U0", "(2,)f4"):
        with pytest.raises(rd.BackendError, match="of at least one byte, and no arrays"):
            rmpi.Redistribution(plan.src, plan.dst, comm, dtype=dtype)
    if comm.rank == 0:
        masked: Any = np.ma.masked_array(example(plan.src), False)
    else:
        masked = example(plan.src)
    with pytest.raises(rd.BackendError, match="rank 0: the array is a numpy array; got MaskedArr"):
        rmpi.run_array(plan, masked, comm)


@case
def results_share_no_memory(comm: MPI.Intracomm) -> None:
    """Elements count, not bounds; and every result of a batch has its own."""
    t = rd.ArrayType.parse("f32[24{x}, 24]", rd.Mesh(x=comm.size))
    back = rd.ArrayType.parse("f32[24, 24{x}]", rd.Mesh(x=comm.size))
    if 24 % comm.size:
        return
    array = example(t)
    tile, expected = (tile_of(array, end, comm.rank) for end in (t, back))
    lattice = np.zeros(2 * tile.size, np.float32)
    source = np.lib.stride_tricks.as_strided(lattice, tile.shape, (8 * tile.shape[1], 8))
    out = np.lib.stride_tricks.as_strided(lattice[1:], expected.shape, (8 * expected.shape[1], 8))
    source[...] = tile
    with rmpi.Redistribution(t, back, comm) as redistribution:
        assert redistribution(source, out) is out
        assert np.array_equal(out, expected)
        assert np.array_equal(source, tile)
        one = np.zeros_like(expected)
        for outs in ([one, one], [one, one[::1]]):
            with pytest.raises(rd.BackendError, match="outs share no memory"):
                redistribution.batch([tile, tile], outs)
        repeated = np.lib.stride_tricks.as_strided(one, one.shape, (0, 4))
        with pytest.raises(rd.BackendError, match="repeats some"):
            redistribution(tile, repeated)
