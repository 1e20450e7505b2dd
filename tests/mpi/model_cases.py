"""Whole models under MPI, run by the pools of test_backend.py."""

from __future__ import annotations

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends import simulator
from tests.models.random_moves import random_case
from tests.mpi.cases import case


@case
def models_move_as_numpy_says(comm: MPI.Intracomm, first: int = 0, count: int = 25) -> None:
    for seed in range(first, first + count):
        drawn = random_case(seed, ranks=comm.size, uneven=seed % 2 == 1)
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
    kept = moving.completed
    assert len(kept) == 3
    again: list[rmpi.Progress] = []
    made = moving(tiles, completed=kept, progress=again.append)
    assert again[-1].received_bytes == told[-1].received_bytes  # the other three of six
    assert all(made[name] is kept[name] for name in kept)
    for name, tile in rmpi.ModelRedistribution(plan, comm)(tiles).items():
        assert np.array_equal(made[name], tile)
