"""Calls without a global step: who is in error says so, and nobody waits without need."""

from __future__ import annotations

import contextlib
import random
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi import exchange
from redistrib.backends.mpi.faults import NOTICE, Fault, Faults
from redistrib.backends.mpi.options import Check
from redistrib.backends.mpi.requests import Outstanding
from redistrib.types.tile import same_bits, tile_of
from tests.mpi.cases import case, direct, example, mesh_for

WRONG: Any = "no tile"


def swap(comm: MPI.Intracomm, **options: Any) -> rmpi.Redistribution:
    """Ranks 0 and 1 swap; the others have nothing and need nothing."""
    rows = rd.ArrayType.parse("i32[840{x}, 3]", rd.Mesh(x=2))
    return rmpi.Redistribution(rows, rows, comm, src_ranks=[0, 1], dst_ranks=[1, 0], **options)


def swapped(comm: MPI.Intracomm, number: int) -> tuple[Any, Any]:
    """What this rank gives and gets in a call of that number."""
    if comm.rank > 1:
        return None, None
    tile = np.full((420, 3), 10 * number + comm.rank, np.int32)
    return tile, np.full_like(tile, 10 * number + 1 - comm.rank)


def all_to_all(comm: MPI.Intracomm) -> rd.Plan:
    n = 2 * comm.size
    return direct(rd.Mesh(x=comm.size), f"f32[{n}{{x}}, {n}]", f"f32[{n}, {n}{{x}}]")


@case
def who_needs_nothing_is_not_waited_for(comm: MPI.Intracomm) -> None:
    """The others come to the second call when it is over on ranks 0 and 1."""
    for options in ({}, {"shared": True}, {"timeout": 60.0}, {"check": "none"}):
        with swap(comm, **options) as redistribution:
            for number in range(3):
                if number and comm.rank > 1:
                    comm.Barrier()
                tile, expected = swapped(comm, number)
                result = redistribution(tile)
                assert (result is None) == (expected is None)
                assert result is None or same_bits(result, expected)
                if number and comm.rank < 2:
                    comm.Barrier()
            redistribution.check_calls()


@case
def a_start_waits_for_nobody(comm: MPI.Intracomm) -> None:
    """Also the first one, and one with a reduction: the last rank starts when the others have."""
    plan = all_to_all(comm)
    summed = rd.plan(
        *(rd.ArrayType.parse(t, rd.Mesh(x=comm.size)) for t in ("i32[840] sum{x}", "i32[840]"))
    )
    for options in ({}, {"shared": True}):
        with (
            rmpi.Redistribution.from_plan(plan, comm, **options) as moving,
            rmpi.Redistribution.from_plan(summed, comm, **options) as reducing,
        ):
            for _ in range(2):
                calls = []
                if comm.rank == comm.size - 1:
                    comm.Barrier()
                calls.append(moving.start(tile_of(example(plan.src), plan.src, comm.rank)))
                calls.append(reducing.start(np.full(840, 1 << comm.rank, np.int32)))
                if comm.rank != comm.size - 1:
                    comm.Barrier()
                [total] = calls[1].wait()
                assert (total == (1 << comm.size) - 1).all()
                [result] = calls[0].wait()
                assert same_bits(result, tile_of(example(plan.src), plan.dst, comm.rank))


@case
def calls_on_two_duplicates_may_be_in_different_orders(comm: MPI.Intracomm) -> None:
    own = [comm.Dup(), comm.Dup()]
    a, b = (rd.ArrayType.parse(t, rd.Mesh(x=comm.size)) for t in ("i32[840] sum{x}", "i32[840]"))
    made = [rmpi.Redistribution(a, b, one) for one in own]
    for ends in (1, -1):
        order = (0, 1) if comm.rank % 2 else (1, 0)
        calls = {n: made[n].start(np.full(840, n + 1, np.int32)) for n in order}
        for n in order[::ends]:
            [total] = calls[n].wait()
            assert (total == (n + 1) * comm.size).all()
    for redistribution, one in zip(made, own, strict=True):
        redistribution.free()
        one.Free()


@case
def a_fault_is_raised_by_those_who_need_its_rank_and_then_by_all(comm: MPI.Intracomm) -> None:
    for options in ({}, {"shared": True}, {"timeout": 60.0}):
        with swap(comm, **options) as redistribution:
            for number in range(3):
                tile, expected = swapped(comm, number)
                if number == 1:
                    if comm.rank < 2:
                        with pytest.raises(rd.BackendError, match="rank 1: tile is a numpy") as it:
                            redistribution(WRONG if comm.rank == 1 else tile)
                        assert it.value.rank == 1
                    else:
                        assert redistribution(None) is None
                    if comm.size > 2:  # some have not raised
                        with pytest.raises(rd.BackendError, match="rank 1: tile is a numpy"):
                            redistribution.check_calls()
                    redistribution.check_calls()
                else:
                    result = redistribution(tile)
                    assert result is None or same_bits(result, expected)


@case
def the_call_after_one_that_failed_on_all_ranks_is_right(comm: MPI.Intracomm) -> None:
    plan = all_to_all(comm)
    array = example(plan.src)
    tile, expected = (tile_of(array, t, comm.rank) for t in (plan.src, plan.dst))
    for options in ({}, {"shared": True}, {"timeout": 60.0}):
        with rmpi.Redistribution.from_plan(plan, comm, **options) as redistribution:
            for number in range(4):
                result = redistribution(tile)
                assert same_bits(result, expected)
                with pytest.raises(rd.BackendError, match=f"rank {number % comm.size}: tile is a"):
                    redistribution(WRONG if comm.rank == number % comm.size else tile)
            assert same_bits(redistribution(tile), expected)


@case
def messages_of_a_call_that_failed_are_never_taken_for_others(comm: MPI.Intracomm) -> None:
    """Any ranks are in error in any calls; what is returned is right, and none hangs."""
    rng = random.Random(comm.size)
    mesh = mesh_for(comm)
    plans = [
        direct(mesh, "i32[48{x}, 48{y}]", "i32[48{y}, 48{x}]"),
        rd.plan(*(rd.ArrayType.parse(t, mesh) for t in ("i32[48, 48] sum{x}", "i32[48, 48{y}]"))),
    ]
    made = [
        rmpi.Redistribution.from_plan(plan, comm, shared=shared)
        for plan in plans
        for shared in (False, True)
    ]
    raised = 0
    for number in range(60):
        redistribution = made[rng.randrange(len(made))]
        plan = redistribution.plan
        assert plan is not None
        bad = {rank for rank in range(comm.size) if rng.random() < 0.4 / comm.size}
        array = example(plan.src) + number
        tile, times = tile_of(array, plan.src, comm.rank), 1
        if plan.src.partial:
            tile, times = array, mesh.axis_size("x")
        expected = tile_of(array * times, plan.dst, comm.rank)
        failed = False
        try:
            result = redistribution(WRONG if comm.rank in bad else tile)
        except rd.BackendError:
            failed = True
        else:
            assert same_bits(result, expected), number
        assert failed or comm.rank not in bad
        try:
            redistribution.check_calls()
        except rd.BackendError:
            failed = True
        assert failed == bool(bad), "all have raised, or none"
        raised += failed
    assert 0 < raised < 60


@case
def ranks_in_different_calls_are_told_of_it(comm: MPI.Intracomm) -> None:
    plan = all_to_all(comm)
    back = rd.plan(plan.dst, plan.src)
    tile, other = (tile_of(example(plan.src), t, comm.rank) for t in (plan.src, plan.dst))
    with (
        rmpi.Redistribution.from_plan(plan, comm) as forth,
        rmpi.Redistribution.from_plan(back, comm) as return_,
    ):
        for odd in (0, comm.size - 1):
            assert same_bits(forth(tile), other)
            assert same_bits(return_(other), tile)
            with pytest.raises(
                rd.BackendError, match=r"different problems: rank \d: operation \d+"
            ):
                return_(other) if comm.rank == odd else forth(tile)
            assert same_bits(forth(tile), other)
        with pytest.raises(rd.BackendError, match="different problems"):
            rmpi.Redistribution.from_plan(plan, comm) if comm.rank == 1 else forth(tile)
        assert same_bits(forth(tile), other)


@case
def an_error_in_the_middle_of_a_call_reaches_the_others(comm: MPI.Intracomm) -> None:
    plan = all_to_all(comm)
    tile, expected = (tile_of(example(plan.src), t, comm.rank) for t in (plan.src, plan.dst))
    with rmpi.Redistribution.from_plan(plan, comm, shared=True) as redistribution:
        assert same_bits(redistribution(tile), expected)
        with pytest.MonkeyPatch.context() as patch:
            if comm.rank == comm.size - 1:

                def fail(*_: object) -> None:
                    raise ZeroDivisionError

                patch.setattr(exchange, "_copy", fail)
            with pytest.raises((rd.BackendError, ZeroDivisionError)):
                redistribution(tile)
        assert same_bits(redistribution(tile), expected)


@case
def what_is_given_is_looked_at_unless_told_not_to(comm: MPI.Intracomm) -> None:
    plan = all_to_all(comm)
    tile, expected = (tile_of(example(plan.src), t, comm.rank) for t in (plan.src, plan.dst))
    with rmpi.Redistribution.from_plan(plan, comm, check="none") as redistribution:
        out = np.zeros_like(expected)
        for _ in range(3):
            assert redistribution(tile, out) is out
            assert same_bits(out, expected)
            out[...] = 0
            assert same_bits(redistribution(tile), expected)
        # It takes what looks like a tile for one.
        assert same_bits(redistribution(tile.view(np.uint32)).view(np.float32), expected)
    for wrong in ("some", None, True):
        with pytest.raises(rd.BackendError, match="check is 'all', 'peers' or 'none'; got"):
            rmpi.Redistribution.from_plan(plan, comm, check=wrong)  # type: ignore[arg-type]
    with pytest.raises(rd.BackendError, match=r"different problems: .* with check='none'"):
        rmpi.Redistribution.from_plan(plan, comm, check="peers" if comm.rank else "none")


@case
def messages_of_a_repeated_call_that_failed_are_never_taken_for_others(
    comm: MPI.Intracomm,
) -> None:
    """The others have sent theirs when a rank fails; the next call sends new data."""
    for check in ("none", "peers"):
        _failed_again(comm, check)


def _failed_again(comm: MPI.Intracomm, check: Check) -> None:
    plan = direct(rd.Mesh(x=comm.size), "f32[48{x}, 1680]", "f32[48, 1680{x}]")
    tile, expected = (np.array(tile_of(example(plan.src), t, comm.rank)) for t in plan.types)
    odd, out = comm.size - 1, np.zeros_like(expected)
    wrong = []

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with rmpi.Redistribution.from_plan(plan, comm, check=check) as made:
        for number in range(16):
            tile += 1
            if number % 4 == 3:
                with pytest.MonkeyPatch.context() as patch:
                    if comm.rank == odd:
                        time.sleep(0.1)  # the others have begun theirs
                        patch.setattr(exchange.TileExchange, "run", fail)
                    with pytest.raises((rd.BackendError, ZeroDivisionError)):
                        made(tile, out if comm.rank != odd else np.zeros_like(out))
            elif not same_bits(made(tile, out), expected + number + 1):
                wrong.append(number)
    assert not wrong


@case
def calls_begun_before_an_earlier_one_fails_end_with_it(comm: MPI.Intracomm) -> None:
    """The others have begun the second call when the first fails on one rank: nobody hangs."""
    plan = direct(rd.Mesh(x=comm.size), "f32[48{x}, 1680]", "f32[48, 1680{x}]")
    tile, expected = (tile_of(example(plan.src), t, comm.rank) for t in (plan.src, plan.dst))
    odd = comm.size - 1
    with (
        rmpi.Redistribution.from_plan(plan, comm) as one,
        rmpi.Redistribution.from_plan(plan, comm) as other,
    ):
        for second in (other, one):
            assert same_bits(one(tile), expected)
            assert same_bits(second(tile), expected)
            calls = []
            if comm.rank == odd:
                comm.Barrier()  # the others have begun both
                with pytest.raises(rd.BackendError, match=f"rank {odd}: tile is a"):
                    one.start(WRONG)
                with pytest.raises(rd.BackendError, match=f"rank {odd}: tile is a"):
                    second(tile)
            else:
                calls = [redistribution.start(tile) for redistribution in (one, second)]
                comm.Barrier()
            for call in calls:
                with pytest.raises(rd.BackendError, match=f"rank {odd}: tile is a"):
                    call.wait()
            one.check_calls()
            assert same_bits(second(tile), expected)
            assert same_bits(one(tile), expected)


@case
def a_call_is_left_with_the_one_before_it(comm: MPI.Intracomm) -> None:
    """What others send for the one that was left comes for it, begun or not: never its result."""
    for plan, at_once in direct_and_packed(comm):
        tile, expected = (tile_of(example(plan.src), t, comm.rank) for t in (plan.src, plan.dst))
        with rmpi.Redistribution.from_plan(plan, comm) as made:
            assert same_bits(made(tile), expected)
            assert made._at_once() == at_once
            error = ""
            if comm.rank == 0:
                first, second = made.start(tile), made.start(tile + 1)
                first.give_up()
                comm.Barrier()
                comm.Barrier()  # what the others send for the first is here
                with pytest.raises(rd.BackendError, match="given up before its end"):
                    first.wait()
                error = error_of(second)
            else:
                comm.Barrier()
                first = made.start(tile)
                comm.Barrier()
                error_of(first)  # which has all it needs, so that it may also be right
                second = made.start(tile + 1)
            assert "rank 0: the call was given up" in comm.bcast(error)
            if comm.rank:
                assert "rank 0: the call was given up" in error_of(second)
            made.check_calls()
            assert same_bits(made(tile), expected)


def direct_and_packed(comm: MPI.Intracomm) -> Iterator[tuple[rd.Plan, bool]]:
    """A plan whose calls go straight from tile to tile, at once, and one whose runs are packed."""
    for width, at_once in ((128, True), (2, False)):
        n = width * comm.size
        ends = f"f32[{comm.size}{{x}}, {n}]", f"f32[{comm.size}, {n}{{x}}]"
        yield direct(rd.Mesh(x=comm.size), *ends), at_once


def error_of(call: Any) -> str:
    """What the end of a call raises, if anything."""
    try:
        call.wait()
    except rd.BackendError as error:
        return str(error)
    return ""


@case
def several_calls_of_one_object_are_in_flight(comm: MPI.Intracomm) -> None:
    """Begun in one order and ended in any, by any way to wait; the first of all among them."""
    rng = random.Random(comm.rank)
    problems = (  # straight from tile to tile, packed, and reduced: these take turns
        ("f32[840{x}, 840]", "f32[840, 840{x}]"),
        ("f32[840{x}, 24]", "f32[840, 24{x}]"),
        ("f32[840, 24] sum{x}", "f32[840, 24]"),
    )
    for texts in problems:
        src, dst = (rd.ArrayType.parse(text, rd.Mesh(x=comm.size)) for text in texts)
        with rmpi.Redistribution(src, dst, comm) as made:
            for _ in range(3):
                calls = {}
                for number in range(4):
                    array = example(src) + number
                    tile = array if src.partial else tile_of(array, src, comm.rank)
                    calls[number] = made.start(tile), array * (comm.size if src.partial else 1)
                for number in rng.sample(range(4), 4):
                    call, array = calls.pop(number)
                    while rng.random() < 0.5 and not call.test():
                        pass
                    [result] = call.wait()
                    assert same_bits(result, tile_of(array, dst, comm.rank)), (texts, number)
            made.start(tile)
            made.start(tile)  # leaving ends both


@case
def a_call_is_not_done_again_into_an_array_that_is_gone(comm: MPI.Intracomm) -> None:
    """On ranks that give no tile either, so that both are None in the next call."""
    src, dst = (rd.ArrayType.parse("i32[24]", rd.Mesh(r=n)) for n in (1, comm.size))
    tile = np.arange(24, dtype=np.int32) if comm.rank == 0 else None
    with rmpi.Redistribution(src, dst, comm, src_ranks=[0], check="none") as made:
        out = np.zeros(24, np.int32)
        for _ in range(2):
            made(tile, out)
        del out
        found = made(tile)
        assert found is not None
        assert np.array_equal(found, np.arange(24))


@case
def calls_that_are_done_again_are_right_among_others(comm: MPI.Intracomm) -> None:
    """On the same tiles with other data, other tiles, started ones, after errors, when tiles go."""
    for check in ("none", "peers"):
        _done_again_among_others(comm, check)


def _done_again_among_others(comm: MPI.Intracomm, check: Check) -> None:
    plan = direct(rd.Mesh(x=comm.size), "f32[48{x}, 1680]", "f32[48, 1680{x}]")
    array, rank = example(plan.src), comm.rank
    tile, expected = (np.array(tile_of(array, t, rank)) for t in (plan.src, plan.dst))
    out, other = np.zeros_like(expected), np.zeros_like(expected)
    full_calls = []
    with pytest.MonkeyPatch.context() as patch:
        full = rmpi.Redistribution._run

        def counted(*given: Any, **options: Any) -> Any:
            full_calls.append(1)
            return full(*given, **options)

        patch.setattr(rmpi.Redistribution, "_run", counted)
        with rmpi.Redistribution.from_plan(plan, comm, check=check) as made:
            for number in range(24):
                tile += 1
                into = other if number % 8 == 5 else out
                if number % 8 == 6:
                    [found] = made.start(tile, into).wait()
                elif number == 16 + rank % 2:  # whether a rank takes the short way is up to it
                    found = made(tile)
                else:
                    found = made(tile, into)
                assert same_bits(found, expected + number + 1)
                if number == 11:
                    with pytest.raises(rd.BackendError, match="rank 1: tile is a"):
                        rmpi.gather(WRONG if rank == 1 else tile, plan.src, comm)
                into[...] = 0
            assert len(full_calls) < 18, "the others are done again"
            seen = weakref.ref(tile)
            del tile, found
            assert seen() is None, "nothing is kept"
            tile = np.array(tile_of(array, plan.src, rank))
            assert same_bits(made(tile, out), expected)


def call_and_meet(made: rmpi.Redistribution, *arrays: Any) -> None:
    """A call, and then a point where all ranks meet."""
    made(*arrays)
    made.check_calls()


@case
def a_repeated_call_looks_at_arrays_that_were_changed_in_place(comm: MPI.Intracomm) -> None:
    """Another shape or dtype, or a result that may not be written, is the error of a first call."""
    plan = direct(rd.Mesh(x=comm.size), "f32[48{x}, 1680]", "f32[48, 1680{x}]")
    for change in ("shape", "dtype", "writeable"):
        tile, expected = (np.array(tile_of(example(plan.src), t, comm.rank)) for t in plan.types)
        out = np.zeros_like(expected)
        with rmpi.Redistribution.from_plan(plan, comm) as made:
            for _ in range(3):
                assert same_bits(made(tile, out), expected)
            assert made._repeated is not None
            if comm.rank == 0:
                match change:
                    case "shape":
                        tile.shape = tile.shape[::-1]
                    case "dtype":
                        tile.dtype = np.dtype("i4")
                    case "writeable":
                        out.flags.writeable = False

            with pytest.raises(rd.BackendError, match=r"rank 0: (tile|out) "):
                call_and_meet(made, tile, out)
            assert same_bits(made(tile_of(example(plan.src), plan.src, comm.rank)), expected)


class Interrupting:
    """What stands for an array, and raises when it is written, as a signal's handler may then."""

    def __setitem__(self, *_: object) -> None:
        raise KeyboardInterrupt


def recorded_give_ups(patch: pytest.MonkeyPatch) -> list[int]:
    """How many requests were open whenever some are given up, while the patch holds."""
    counts: list[int] = []
    give_up = Outstanding.give_up

    def recorded(self: Outstanding) -> None:
        counts.append(len(self.requests))
        give_up(self)

    patch.setattr(Outstanding, "give_up", recorded)
    return counts


@case
def a_repeated_call_that_is_interrupted_gives_up_what_it_started(comm: MPI.Intracomm) -> None:
    """After its messages have begun: none of them reads or writes an array that is gone."""
    plan = direct(rd.Mesh(x=comm.size), "f32[240{x}, 3360]", "f32[240, 3360{x}]")
    for check in ("none", "peers"):
        tile, expected = (np.array(tile_of(example(plan.src), t, comm.rank)) for t in plan.types)
        out = np.zeros_like(expected)
        with rmpi.Redistribution.from_plan(plan, comm, check=check) as made:
            for _ in range(3):
                assert same_bits(made(tile, out), expected)
            repeated = made._repeated
            assert repeated is not None
            if comm.rank == 0:
                repeated._copies = [(Interrupting(), None)]  # type: ignore[list-item]
            with pytest.MonkeyPatch.context() as patch:
                open_then = recorded_give_ups(patch)
                with contextlib.suppress(KeyboardInterrupt, rd.BackendError):
                    made(tile, out)
                    assert comm.rank != 0
            assert comm.rank != 0 or open_then == [len(repeated._requests)]
            with contextlib.suppress(rd.BackendError):  # of ranks that had raised it before
                made.check_calls()
            del out, repeated
            for number in range(4):
                tile += 1
                assert same_bits(made(tile, np.zeros_like(expected)), expected + number + 1)


@case
def a_call_after_its_communicator_was_freed_is_refused(comm: MPI.Intracomm) -> None:
    plan = direct(rd.Mesh(x=comm.size), "f32[48{x}, 1680]", "f32[48, 1680{x}]")
    tile, expected = (np.array(tile_of(example(plan.src), t, comm.rank)) for t in plan.types)
    out, own = np.zeros_like(expected), comm.Dup()
    made = rmpi.Redistribution.from_plan(plan, own)
    for _ in range(3):
        made(tile, out)
    assert made._repeated is not None
    own.Free()
    for _ in range(2):
        with pytest.raises(rd.BackendError, match="got COMM_NULL"):
            made(tile, out)


@case
def an_error_is_met_about_once_where_a_call_was_started_since(comm: MPI.Intracomm) -> None:
    """Ranks that know the outcome of its meeting begin the next one with those that do not."""
    plan = direct(rd.Mesh(x=comm.size), "f32[48{x}, 1680]", "f32[48, 1680{x}]")
    tile, expected = (np.array(tile_of(example(plan.src), t, comm.rank)) for t in plan.types)
    for knowing in (0, comm.size - 1):
        with (
            rmpi.Redistribution.from_plan(plan, comm) as one,
            rmpi.Redistribution.from_plan(plan, comm) as other,
        ):
            for made in (one, other):
                assert same_bits(made(tile), expected)
            with pytest.raises(rd.BackendError, match="rank 0: tile is a"):
                one(WRONG if comm.rank == 0 else tile)
            comm.Barrier()
            call = other.start(tile)
            end = time.monotonic() + 0.3
            while comm.rank == knowing and time.monotonic() < end:
                call.test()
            for _ in range(2):
                assert same_bits(one(tile), expected)
            assert same_bits(call.wait()[0], expected)


@case
def a_call_that_is_a_meeting_is_never_repeated_without(comm: MPI.Intracomm) -> None:
    """Step by step, or with check="all", also where only some ranks give the same arrays again."""
    plan = direct(rd.Mesh(x=comm.size), "f32[48{x}, 1680]", "f32[48, 1680{x}]")
    tile, expected = (np.array(tile_of(example(plan.src), t, comm.rank)) for t in plan.types)
    out = np.zeros_like(expected)
    options: list[dict[str, Any]] = [{"check": "none", "fuse": False}, {"check": "all"}]
    for given in options:
        with rmpi.Redistribution.from_plan(plan, comm, **given) as made:
            for _ in range(4):
                into = out if comm.rank else np.zeros_like(out)
                assert same_bits(made(tile, into), expected)


@case
def a_fault_of_the_next_call_may_come_before_a_meeting_is_over(comm: MPI.Intracomm) -> None:
    """Rank 0 leaves the meeting first and fails at once; the others remember it for later."""
    told = comm.Dup()
    faults = Faults(told)
    fault = Fault(7, 0, "BackendError", "a wrong tile")
    if comm.rank == 0:
        faults.clear(None)
        faults.tell(fault)
    else:
        while not told.Iprobe(0, NOTICE):
            time.sleep(0.001)
        faults.listen()
        assert faults.known is None, "it may not be about this meeting's calls"
        faults.clear(None)
        faults.listen()
    assert faults.known == fault
    comm.Barrier()  # all have received it
    told.Free()
