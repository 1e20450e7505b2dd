"""Plans step by step: right results, and the traffic and memory that the plan states."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.synth.plan.collectives import AllReduce
from redistrib.types.tile import same_bits, tile_of
from tests.corruptions import accepted_plans
from tests.mpi.cases import case, example, mesh_for
from tests.random_plans import expected_tiles, random_plans, random_tiles
from tests.repetitions import repetitions


def worst(comm: MPI.Intracomm, phases: Any, name: str) -> list[int]:
    """Per phase the bytes of its worst rank."""
    own = np.array([getattr(phase, name) for phase in phases], np.int64)
    result = np.empty_like(own)
    comm.Allreduce(own, result, MPI.MAX)
    return [int(count) for count in result]


@case
def steps_move_what_the_plan_says(comm: MPI.Intracomm) -> None:
    for number, plan in enumerate(random_plans(comm.size + 200, comm.size, repetitions(20, 40))):
        _run_as_stated(comm, plan, number)


def _run_as_stated(comm: MPI.Intracomm, plan: rd.Plan, number: int) -> None:
    """Run a plan step by step on tiles of its number, and compare tiles and traffic."""
    expected = expected_tiles(plan, number)[comm.rank]
    tile = random_tiles(plan, number)[comm.rank]
    with rmpi.Redistribution.from_plan(plan, comm, fuse=False) as redistribution:
        result = redistribution(tile)
        received, sent = (
            worst(comm, redistribution._phases, name) for name in ("received_bytes", "sent_bytes")
        )
    what = f"{number}: {plan.src.mesh}: {[step.collective for step in plan.steps]}"
    assert same_bits(result, expected), what
    stated = [(t.received_bytes, t.sent_bytes) for t in plan.traffic]
    for found, step, claim in zip(
        zip(received, sent, strict=True), plan.steps, stated, strict=True
    ):
        if isinstance(step, AllReduce):
            # Chunks are cut along one dimension: a chunk may be larger by a row of it.
            assert claim[0] <= found[0], what
            assert claim[1] <= found[1], what
        else:
            assert found == claim, what


@case
def accepted_corruptions_run_as_they_say(comm: MPI.Intracomm) -> None:
    """What the checker accepts of changed plans: read, right, with the traffic that it states."""
    count = repetitions(4, 400)
    texts = [plan.to_json() for plan in accepted_plans(comm.size, count)] if not comm.rank else None
    for number, text in enumerate(comm.bcast(texts)):
        _run_as_stated(comm, rd.Plan.from_json(text), number)


@case
def steps_hold_what_the_plan_says(comm: MPI.Intracomm) -> None:
    """Measured by tracing what numpy allocates, on every rank."""
    n, mesh = 840, mesh_for(comm)
    for src, dst in (
        (f"f32[{n}{{x}}, {n}{{y}}]", f"f32[{n}{{y}}, {n}{{x}}]"),
        (f"f32[{n}{{x,y}}, {n}]", f"f32[{n}, {n}{{y}}]"),
        (f"f32[{n}, {n}] sum{{x}}", f"f32[{n}{{x}}, {n}{{y}}]"),
    ):
        a, b = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
        plan = rd.plan(a, b, strategy="collectives")
        tile = np.ones(a.tile_shape, np.float32)
        with rmpi.Redistribution.from_plan(plan, comm, fuse=False, scratch=1 << 16) as steps:
            steps(tile)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            result = steps(tile)
            peak = tracemalloc.get_traced_memory()[1] - before + tile.nbytes
            tracemalloc.stop()
        assert result.shape == b.tile_shape
        assert abs(peak - plan.live_bytes) <= 1 << 17, (src, dst, peak, plan.live_bytes)


@case
def a_redistribution_says_whether_it_fuses(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    a, b = (rd.ArrayType.parse(t, mesh) for t in ("f32[48{x,y}, 48]", "f32[48, 48{y,x}]"))
    plan = rd.plan(a, b, strategy="collectives")
    array = example(a)
    tile, expected = (tile_of(array, t, comm.rank) for t in (a, b))
    with (
        rmpi.Redistribution.from_plan(plan, comm) as fused,
        rmpi.Redistribution.from_plan(plan, comm, fuse=False) as steps,
    ):
        count = len(plan.steps)
        assert f"a plan of {count} steps fused into the exchange" in repr(fused)
        assert f"a plan of {count} steps run one by one" in repr(steps)
        assert fused.num_collectives == 1
        assert steps.num_collectives == plan.num_collectives
        out = np.zeros_like(expected)
        for redistribution in (fused, steps):
            assert redistribution(tile, out) is out
            assert same_bits(out, expected)
            out[...] = 0
        [one, other] = steps.batch([tile, 2 * tile])
        assert same_bits(one, expected)
        assert same_bits(other, 2 * expected)
        with pytest.raises(rd.BackendError, match="start is of what is fused"):
            steps.start(tile).wait()
        with pytest.raises(rd.BackendError, match="tile is a tile of"):
            steps(tile[1:] if comm.rank == 1 else tile)
        assert same_bits(steps(tile), expected)
    with pytest.raises(rd.BackendError, match=r"different problems: .* step by step"):
        rmpi.Redistribution.from_plan(plan, comm, fuse=comm.rank != 1)


@case
def steps_end_in_shared_tiles_and_on_other_meshes(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    a, b = (rd.ArrayType.parse(t, mesh) for t in ("f32[48{x,y}, 48]", "f32[48, 48{y,x}]"))
    array = example(a)
    options: dict[str, Any]
    for options in ({"shared": True}, {"timeout": 60.0}):
        plan = rd.plan(a, b, strategy="collectives")
        with rmpi.Redistribution.from_plan(plan, comm, fuse=False, **options) as redistribution:
            for factor in (1, 2):
                result = redistribution(factor * tile_of(array, a, comm.rank))
                assert same_bits(result, factor * tile_of(array, b, comm.rank))
    other = rd.ArrayType.parse("f32[48, 48{u}]", rd.Mesh(u=comm.size // 2 or 1))
    plan = rd.plan(a, other)
    with rmpi.Redistribution.from_plan(plan, comm, fuse=False) as redistribution:
        result = redistribution(tile_of(array, a, comm.rank))
        position = redistribution.dst_position
        received = worst(comm, redistribution._phases, "received_bytes")
        assert sum(received) == plan.received_bytes
    assert (result is None) == (position is None)
    assert position is None or same_bits(result, tile_of(array, other, position))
