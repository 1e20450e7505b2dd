"""Whole models under MPI, run by the pools of test_backend.py."""

from __future__ import annotations

import time
import tracemalloc
from types import MappingProxyType

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends import simulator
from tests.models import budgets
from tests.models.random_moves import random_case
from tests.mpi.cases import case
from tests.repetitions import MANY


@case
def models_move_as_numpy_says(comm: MPI.Intracomm, first: int = 0, count: int = 25) -> None:
    for seed in range(first, first + count):
        drawn = random_case(seed, ranks=comm.size, meshes=3, uneven=seed % 2 == 1)
        tiles = simulator.scatter_model(drawn.arrays, drawn.plan.src).get(comm.rank, {})
        moving = rmpi.ModelRedistribution(drawn.plan, comm, batch_bytes=64)
        made = moving(tiles)
        meant = simulator.scatter_model(drawn.meant, drawn.plan.dst).get(comm.rank, {})
        assert made.keys() == meant.keys(), seed
        assert all(np.array_equal(made[name], meant[name]) for name in made), seed


def small_model(comm: MPI.Intracomm, arrays: int = 6) -> rd.ModelPlan:
    mesh = rd.Mesh(x=comm.size)
    n = comm.size * 2
    src = {f"w{i}": (f"f32[{n}{{x}}, {n}]", mesh) for i in range(arrays)}
    dst = {f"w{i}": (f"f32[{n}, {n}{{x}}]", mesh) for i in range(arrays)}
    return rd.plan_model(src, dst)


def example(plan: rd.ModelPlan, rank: int) -> dict[str, np.ndarray]:
    arrays = {
        name: np.arange(t.shape[0] * t.shape[1], dtype="f4").reshape(t.shape) + n
        for n, (name, t) in enumerate(plan.src.items())
    }
    return simulator.scatter_model(arrays, plan.src)[rank]


@case
def a_model_with_wrong_tiles_is_an_error_on_all(comm: MPI.Intracomm) -> None:
    plan = small_model(comm)
    moving = rmpi.ModelRedistribution(plan, comm)
    tiles = example(plan, comm.rank)
    if comm.rank == comm.size - 1:
        tiles["w1"] = tiles["w1"].astype("f8")
    with pytest.raises(rd.BackendError, match=r"a tile of w1 has shape .* float64") as caught:
        moving(tiles)
    assert caught.value.rank == comm.size - 1
    right = example(plan, comm.rank)
    assert moving(right).keys() == plan.dst.keys()


@case
def other_model_plans_on_one_rank_are_an_error_on_all(comm: MPI.Intracomm) -> None:
    plan = small_model(comm, 2 if comm.rank else 3)
    with pytest.raises(rd.BackendError, match="different problems"):
        rmpi.ModelRedistribution(plan, comm)
    far = rd.Mesh({"x": 1}, devices=[comm.size])
    beyond = rd.plan_model({"a": ("f32[2]", far)}, {"a": ("f32[2]", far)})
    with pytest.raises(rd.BackendError, match="device ids of a plan are ranks"):
        rmpi.ModelRedistribution(beyond, comm)


@case
def what_is_completed_is_not_moved_again(comm: MPI.Intracomm) -> None:
    plan = small_model(comm)
    moving = rmpi.ModelRedistribution(plan, comm, batch_bytes=1)
    tiles, told = example(plan, comm.rank), []

    def stop(progress: rmpi.Progress) -> None:
        told.append(progress)
        if progress.arrays == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        moving(tiles, progress=stop)
    assert [p.arrays for p in told] == [1, 2, 3]
    assert told[-1].of_arrays == 6
    assert (told[-1].bytes, told[-1].of_bytes) == (3 * comm.size * 8 * 2, 6 * comm.size * 8 * 2)
    assert told[-1].seconds >= told[0].seconds > 0
    assert told[-1].bytes_per_second == told[-1].received_bytes / told[-1].seconds
    assert told[-1].remaining_seconds == told[-1].seconds
    kept = moving.completed
    assert len(kept) == 3
    again: list[rmpi.Progress] = []
    made = moving(tiles, completed=kept, progress=again.append)
    assert again[-1].received_bytes == told[-1].received_bytes  # the other three of six
    assert [p.bytes for p in again][2:4] == [0, again[-1].of_bytes / 3]
    assert again[2].remaining_seconds is None
    assert again[-1].remaining_seconds == 0
    assert all(made[name] is kept[name] for name in kept)
    for name, tile in rmpi.ModelRedistribution(plan, comm)(tiles).items():
        assert np.array_equal(made[name], tile)


@case
def a_model_keeps_to_its_budget(comm: MPI.Intracomm) -> None:
    """Live bytes by the rank's own count and by tracemalloc; sources go as they are used."""
    if comm.size != 8:
        return
    ratios, layers = ((1.1, 1.1), 32) if MANY else ((1.6, 1.3), 4)
    for serve, ratio in zip(budgets.MESHES, ratios, strict=True):
        plan = budgets.llama(serve, ratio, layers)
        moving = rmpi.ModelRedistribution(plan, comm)
        tracemalloc.start()
        tiles = {name: budgets.tile_of(t, name, comm.rank) for name, t in plan.src.items()}
        tracemalloc.reset_peak()
        made = moving(tiles)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert tiles == {}
        assert moving.live_bytes <= plan.peak_bytes <= plan.memory_budget
        objects = 1 << 20 if layers == 4 else 6 << 20  # what the schedules are in Python
        assert peak <= plan.memory_budget + objects, (peak, plan.memory_budget, moving.live_bytes)
        for name in ("embed", "3.down"):
            want = budgets.tile_of(plan.dst[name], name, comm.rank)
            assert np.array_equal(made[name], want)


@case
def a_model_moves_between_pieces_of_computation(comm: MPI.Intracomm) -> None:
    """All ranks take the same steps, and meet otherwise between them; targets appear in turn."""
    plan = small_model(comm)
    moving = rmpi.ModelRedistribution(plan, comm, batch_bytes=1)
    for steps, done in enumerate(moving.chunks(example(plan, comm.rank))):
        assert comm.allreduce(steps, MPI.MIN) == steps == comm.allreduce(steps, MPI.MAX)
        assert len(moving.completed) == done.arrays
    assert (done.arrays, len(moving.completed)) == (6, 6)
    for name, tile in rmpi.ModelRedistribution(plan, comm)(example(plan, comm.rank)).items():
        assert np.array_equal(moving.completed[name], tile)
    for seed in range(3):
        drawn = random_case(7000 + seed, ranks=comm.size)
        tiles = simulator.scatter_model(drawn.arrays, drawn.plan.src).get(comm.rank, {})
        moving = rmpi.ModelRedistribution(drawn.plan, comm, batch_bytes=64)
        for _ in moving.chunks(tiles):
            comm.Barrier()
        meant = simulator.scatter_model(drawn.meant, drawn.plan.dst).get(comm.rank, {})
        assert all(np.array_equal(moving.completed[name], meant[name]) for name in meant), seed


@case
def a_model_takes_no_more_than_its_bandwidth(comm: MPI.Intracomm) -> None:
    plan = small_model(comm)
    moving = rmpi.ModelRedistribution(plan, comm)
    bytes_ = plan.received_bytes
    began = time.monotonic()
    for done in moving.chunks(example(plan, comm.rank), bandwidth=bytes_ / 0.2):
        assert done.received_bytes <= bytes_
    assert time.monotonic() - began >= 0.2
    with pytest.raises(rd.BackendError, match="bandwidth is bytes per second"):
        next(moving.chunks(example(plan, comm.rank), bandwidth=0))


@case
def a_model_is_rounded_on_the_wire(comm: MPI.Intracomm) -> None:
    plan = small_model(comm)
    exact = rmpi.ModelRedistribution(plan, comm)(example(plan, comm.rank))
    for name, bound in (("bf16", 2.0**-8), ("int8", 1 / 253)):
        told: list[rmpi.Progress] = []
        moving = rmpi.ModelRedistribution(plan, comm, wire_dtype=name)
        made = moving(example(plan, comm.rank), progress=told.append)
        for array, tile in exact.items():
            largest = max(comm.allgather(abs(tile).max()))
            assert np.abs(made[array] - tile).max() <= bound * largest
        assert name == "int8" or told[-1].received_bytes * 2 == plan.received_bytes
    odd = "int8" if comm.rank else "bf16"
    with pytest.raises(rd.BackendError, match="different problems"):
        rmpi.ModelRedistribution(plan, comm, wire_dtype=odd)


@case
def sources_are_released_and_nothing_is_lost(comm: MPI.Intracomm) -> None:
    """Those of whole targets are gone after an error, and the next call needs them no more."""
    kept = small_model(comm)
    plan = rd.plan_model(kept.src, kept.dst, keep_sources=False)
    moving = rmpi.ModelRedistribution(plan, comm, batch_bytes=1)
    tiles = example(plan, comm.rank)

    def stop(progress: rmpi.Progress) -> None:
        assert len(tiles) == 6 - progress.arrays
        if progress.arrays == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        moving(tiles, progress=stop)
    made = moving(tiles, completed=moving.completed)
    assert tiles == {}
    for name, tile in rmpi.ModelRedistribution(kept, comm)(example(kept, comm.rank)).items():
        assert np.array_equal(made[name], tile)
    odd = example(plan, comm.rank)
    with pytest.raises(rd.BackendError, match="out of a mapping that can be changed") as caught:
        moving(MappingProxyType(odd) if comm.rank == comm.size - 1 else odd)
    assert caught.value.rank == comm.size - 1


@case
def an_error_of_one_rank_in_a_model_is_raised_by_all(comm: MPI.Intracomm) -> None:
    """Wherever it fails: all raise, none waits, and what was whole is not moved again."""
    kept = small_model(comm)
    plan = rd.plan_model(kept.src, kept.dst, keep_sources=False)
    right = rmpi.ModelRedistribution(kept, comm)(example(kept, comm.rank))
    moving = rmpi.ModelRedistribution(plan, comm, batch_bytes=1)
    for last in (1, 3, 6):
        tiles, odd = example(plan, comm.rank), last % comm.size

        def fail(progress: rmpi.Progress, last: int = last, odd: int = odd) -> None:
            if comm.rank == odd and progress.arrays == last:
                raise MemoryError("no room")

        with pytest.raises(MemoryError if comm.rank == odd else rd.BackendError) as caught:
            moving(tiles, progress=fail)
        if comm.rank != odd:
            assert caught.value.rank == odd
            assert "MemoryError: no room" in str(caught.value)
        assert set(moving.completed) | set(tiles) == set(plan.dst)
        made = moving(tiles, completed=moving.completed)
        assert tiles == {}
        assert all(np.array_equal(made[name], tile) for name, tile in right.items()), last


@case
def a_model_that_one_rank_leaves_is_left_by_all(comm: MPI.Intracomm) -> None:
    """An iterator that is dropped: the others raise where they wait, and all can begin anew."""
    plan = small_model(comm)
    right = rmpi.ModelRedistribution(plan, comm)(example(plan, comm.rank))
    moving = rmpi.ModelRedistribution(plan, comm, batch_bytes=1)
    if comm.rank == 0:
        steps = moving.chunks(example(plan, comm.rank))
        next(steps)
        steps.close()
    else:
        with pytest.raises(rd.BackendError, match="rank 0: GeneratorExit"):
            for _ in moving.chunks(example(plan, comm.rank)):
                pass
    tiles = example(plan, comm.rank)
    made = moving(tiles, completed=moving.completed)
    assert all(np.array_equal(made[name], tile) for name, tile in right.items())
    for done in moving.chunks(tiles):
        if done.arrays == done.of_arrays:
            break  # the call is at its end by then
    assert all(np.array_equal(moving.completed[n], tile) for n, tile in right.items())
    assert moving(tiles).keys() == right.keys()
