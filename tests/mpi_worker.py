"""The cases of test_mpi_backend.py, run under mpiexec; rank 0 prints what failed on any rank.

Prints a JSON object: case -> {rank: traceback} of the ranks on which it does not hold.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends import simulator
from redistrib.backends.local import same_bits, tile_of
from redistrib.synth.plan import make_plan
from redistrib.synth.routing import exchange_traffic
from tests.random_plans import expected_tiles, random_plans, random_tiles

CASES: dict[str, Callable[[MPI.Intracomm], None]] = {}


def case(function: Callable[[MPI.Intracomm], None]) -> Callable[[MPI.Intracomm], None]:
    CASES[function.__name__] = function
    return function


def mesh_for(comm: MPI.Intracomm) -> rd.Mesh:
    return rd.Mesh(x=2, y=comm.size // 2)


def direct(mesh: rd.Mesh, src: str, dst: str) -> rd.Plan:
    a, b = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
    return make_plan(a, b, "direct", [exchange_traffic(a, b).exchange])


def example(t: rd.ArrayType) -> np.ndarray:
    return np.arange(t.size).astype(t.numpy_dtype).reshape(t.shape)


@case
def random_plans_equal_the_simulator(comm: MPI.Intracomm) -> None:
    for number, plan in enumerate(random_plans(comm.size, comm.size, 40)):
        expected = expected_tiles(plan, number)[comm.rank]
        tile = random_tiles(plan, number)[comm.rank]
        kept = tile.copy()
        redistribution = rmpi.Redistribution.from_plan(plan, comm)
        result = redistribution(tile)
        redistribution.free()
        assert same_bits(result, expected), (str(plan.src), str(plan.dst))
        assert same_bits(tile, kept), "the source is intact"


@case
def strategies_end_in_the_same_tiles(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    src = rd.ArrayType.parse("f32[48{x}, 48{y}]", mesh)
    dst = rd.ArrayType.parse("f32[48{y}, 48{x}]", mesh)
    array = example(src)
    for strategy in ("auto", "collectives", "direct"):
        redistribution = rmpi.Redistribution(src, dst, comm, strategy)
        result = redistribution(tile_of(array, src, comm.rank))
        assert same_bits(result, tile_of(array, dst, comm.rank))
        # However many collectives the plan has, one exchange runs, at the lower bound.
        assert redistribution.num_collectives == 1
        worst = comm.allreduce(redistribution.received_bytes, MPI.MAX)
        assert worst == redistribution.plan.lower_bound_bytes
        redistribution.free()


@case
def every_dtype_moves_bit_for_bit(comm: MPI.Intracomm) -> None:
    names = "bool i8 i64 u16 f16 f32 f64 c64 c128 bf16 f8e4m3fn f8e5m2"
    for dtype in names.split():
        plan = direct(mesh_for(comm), f"{dtype}[24{{x}}, 24{{y}}]", f"{dtype}[24{{y}}, 24{{_2,x}}]")
        # All bit patterns, NaNs with payloads and negative zeros included.
        size = plan.src.size * plan.src.itemsize
        raw = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, size, np.uint8)
        array = raw.view(plan.src.numpy_dtype).reshape(plan.src.shape)
        redistribution = rmpi.Redistribution.from_plan(plan, comm)
        result = redistribution(tile_of(array, plan.src, comm.rank))
        redistribution.free()
        assert same_bits(result, tile_of(array, plan.dst, comm.rank)), dtype


@case
def results_go_where_they_are_told(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    plan = direct(mesh, "f64[24{x}, 24{y}]", "f64[24, 24{y}]")
    redistribution = rmpi.Redistribution.from_plan(plan, comm)
    out = np.full(plan.dst.tile_shape, np.nan)
    for factor in (1, 2):
        array = factor * example(plan.src)
        tile = tile_of(array, plan.src, comm.rank)
        assert redistribution(tile, out=out) is out
        assert same_bits(out, tile_of(array, plan.dst, comm.rank))
    redistribution.free()


@case
def nothing_to_do_and_zero_sizes(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    for src, dst in (
        ("f32[8{x}]", "f32[8{x}]"),
        ("f32[0, 8{x}]", "f32[0, 8]"),
        ("f32[]", "f32[]"),
        ("i8[24]", "i8[24{y}]"),
    ):
        plan = direct(mesh, src, dst)
        redistribution = rmpi.Redistribution.from_plan(plan, comm)
        array = example(plan.src)
        tile = tile_of(array, plan.src, comm.rank)
        result = redistribution(tile)
        assert same_bits(result, tile_of(array, plan.dst, comm.rank)), (src, dst)
        assert not np.may_share_memory(result, tile)
        assert redistribution.num_collectives == 0
        redistribution.free()


@case
def arrays_are_gathered_on_rank_0(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    for src, dst in (
        ("f32[24{_2,x}, 24{y}]", "f32[24{y}, 24{x}]"),
        ("i32[24] sum{x}", "i32[24{x}] sum{y}"),
    ):
        a, b = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
        plan = rd.plan(a, b)
        array = example(plan.src)
        result = rmpi.run_array(plan, array, comm)
        if comm.rank:
            assert result is None
        else:
            assert result is not None
            assert same_bits(result, array)


@case
def reductions_are_taken_in_rank_order(comm: MPI.Intracomm) -> None:
    mesh = rd.Mesh(r=comm.size)
    t = rd.ArrayType.parse("f32[48] sum{r}", mesh)
    rng = np.random.default_rng(1)
    addends = rng.standard_normal((comm.size, 48)).astype(np.float32)
    expected = addends[0].copy()
    for addend in addends[1:]:
        expected += addend
    for text in ("f32[48]", "f32[48{r}]"):
        dst = rd.ArrayType.parse(text, mesh)
        redistribution = rmpi.Redistribution(t, dst, comm)
        result = redistribution(addends[comm.rank])
        assert same_bits(result, tile_of(expected, dst, comm.rank))
        redistribution.free()


@case
def one_bad_rank_is_an_error_on_all(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    plan = direct(mesh, "f32[24{x}, 48{y}]", "f32[24{y}, 48{x}]")
    redistribution = rmpi.Redistribution.from_plan(plan, comm)
    good = np.zeros(plan.src.tile_shape, np.float32)
    other = np.zeros(plan.dst.tile_shape, np.float32)
    frozen = other.copy()
    frozen.flags.writeable = False
    last = comm.size - 1
    for bad, message in (
        ((good.astype(np.float64),), "dtype float64"),
        ((good.astype(">f4"),), "dtype >f4"),
        ((good[1:],), "tile of f32"),
        ((good.tolist(),), "tile is a numpy array; got list"),
        ((good, other[:, 1:]), "out is a tile of f32"),
        ((good, frozen), "out is writeable"),
        ((good, good.reshape(other.shape)), "out shares no memory"),
    ):
        with pytest.raises(rd.BackendError, match=message):
            redistribution(*(bad if comm.rank == last else (good,)))
    # The next call is in step again.
    array = example(plan.src)
    result = redistribution(tile_of(array, plan.src, comm.rank))
    assert same_bits(result, tile_of(array, plan.dst, comm.rank))
    redistribution.free()


@case
def disagreement_is_an_error_on_all(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    good = "f32[24{x}]", "f32[24]"
    for odd in (("f32[24]", "f32[24{x}]"), ("f32[48{x}]", "f32[48]"), ("i32[24{x}]", "i32[24]")):
        src, dst = odd if comm.rank == 1 else good
        with pytest.raises(rd.BackendError, match="given different problems"):
            rmpi.Redistribution.from_plan(direct(mesh, src, dst), comm)
    with pytest.raises(rd.BackendError, match=f"the communicator has {comm.size} ranks"):
        rmpi.Redistribution.from_plan(direct(rd.Mesh(x=3), "f32[3{x}]", "f32[3]"), comm)
    ends = [rd.ArrayType.parse(text, mesh) for text in ("f32[24{x}]", "f32[24]")]
    limit = 1 if comm.rank == 1 else None
    with pytest.raises(rd.InfeasibleError, match="rank 1: .*memory limit is 1"):
        rmpi.Redistribution(*ends, comm, memory_limit=limit)


@case
def wrong_data_is_an_error_on_all(comm: MPI.Intracomm) -> None:
    plan = direct(rd.Mesh(x=comm.size), "i32[48{x}]", "i32[48]")
    array = example(plan.src)
    if comm.rank == 1:
        array = array + 1  # so that others receive what they do not expect
    with pytest.raises(rd.BackendError, match="holds other data than its tile"):
        rmpi.run_array(plan, array, comm)


@case
def gather_is_the_inverse_of_scatter(comm: MPI.Intracomm) -> None:
    t = rd.ArrayType.parse("bf16[24{_2,x}, 24{y}]", mesh_for(comm))
    array = example(t)
    result = rmpi.gather(simulator.scatter(array, t)[comm.rank], t, comm)
    assert (result is None) == bool(comm.rank)
    if result is not None:
        assert same_bits(result, array)


def main() -> None:
    comm = MPI.COMM_WORLD
    outcome = {}
    for name, function in CASES.items():
        error = ""
        try:
            function(comm)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - rank 0 reports it
            error = traceback.format_exc()
        # A rank that failed alone would leave the others behind in the next case.
        errors = comm.gather(error, root=0)
        outcome[name] = {rank: text for rank, text in enumerate(errors or ()) if text}
    if comm.rank == 0:
        json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
