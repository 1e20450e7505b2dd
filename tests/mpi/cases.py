"""What must hold on all ranks of a communicator; run by the pools of test_backend.py."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from itertools import product
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends import simulator
from redistrib.backends.mpi import exchange, requests, streams
from redistrib.backends.mpi.communicators import private
from redistrib.synth.plan.data import make_plan
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.types.tile import same_bits, tile_of
from tests.generators import whole_axis_layouts
from tests.mpi.draws import DTYPES, draw
from tests.random_plans import expected_tiles, random_plans, random_tiles
from tests.repetitions import repetitions

Case = Callable[..., None]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def mesh_for(comm: MPI.Intracomm) -> rd.Mesh:
    return rd.Mesh(x=comm.size, y=1) if comm.size % 2 else rd.Mesh(x=2, y=comm.size // 2)


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
        redistribution = rmpi.Redistribution(src, dst, comm, strategy=strategy)
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
        ("f32[24{x}]", "f32[24{x}]"),
        ("f32[0, 24{x}]", "f32[0, 24]"),
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
    redistribution = rmpi.Redistribution.from_plan(plan, comm, check="all")
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
    wide = rd.Mesh(x=comm.size + 1)
    with pytest.raises(rd.BackendError, match=f"the communicator has {comm.size} ranks"):
        rmpi.Redistribution.from_plan(direct(wide, "f32[2520{x}]", "f32[2520]"), comm)
    ends = [rd.ArrayType.parse(text, mesh) for text in ("f32[24{x}]", "f32[24]")]
    limit = 1 if comm.rank == 1 else None
    with pytest.raises(rd.InfeasibleError, match=r"rank 1: .*memory limit is 1"):
        rmpi.Redistribution(*ends, comm, memory_limit=limit)
    # One rank would wait inside a collective that blocks, the others beside one that does not.
    for timeouts in ((None, 5.0), (5.0, None), (5.0, 6.0)):
        timeout = timeouts[comm.rank == 1]
        with pytest.raises(rd.BackendError, match=r"different problems: .* with a timeout of"):
            rmpi.Redistribution(*ends, comm, timeout=timeout)
    for timeout in (0.0, -1.0, float("nan")):
        with pytest.raises(rd.BackendError, match="timeout is a number of seconds above 0, or"):
            rmpi.Redistribution(*ends, comm, timeout=timeout)
    wrong: Any = "soon" if comm.rank == 1 else None
    with pytest.raises(rd.BackendError, match="rank 1: timeout is a number of seconds above 0"):
        rmpi.Redistribution(*ends, comm, timeout=wrong)


@case
def replicas_share_the_sending(comm: MPI.Intracomm) -> None:
    size = 48 * comm.size
    whole = rd.ArrayType.parse(f"i32[{size}]", rd.Mesh(r=2))
    parts = rd.ArrayType.parse(f"i32[{size}{{x}}]", rd.Mesh(x=comm.size))
    with rmpi.Redistribution(whole, parts, comm, src_ranks=[0, 1]) as redistribution:
        sent = comm.allgather(redistribution.sent_bytes)
        received = comm.allgather(redistribution.received_bytes)
    # Each of the two keeps its own part, and sends half of the others.
    assert received == [0, 0, *[parts.tile_bytes] * (comm.size - 2)]
    assert sum(sent) == sum(received)
    assert abs(sent[0] - sent[1]) <= parts.tile_bytes


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


@case
def tiles_may_have_any_strides(comm: MPI.Intracomm) -> None:
    plan = direct(mesh_for(comm), "f32[24{x}, 6, 48{y}]", "f32[24{y}, 6, 48{_2,x}]")
    array = example(plan.src)
    tile, expected = (tile_of(array, t, comm.rank) for t in (plan.src, plan.dst))
    with pytest.MonkeyPatch.context() as patch:
        # Messages from tile to tile, all of them at once or a few at a time.
        for depth in (1 << 20, 2):
            patch.setattr(streams, "SHORT_RUN", 0)
            patch.setattr(streams, "SLAB_RUNS", 1)
            patch.setattr(streams, "DEPTH_DIRECT", depth)
            with rmpi.Redistribution.from_plan(plan, comm) as redistribution:
                for source in strided(tile):
                    for out in strided(np.empty_like(expected)):
                        out[...] = 0
                        assert redistribution(source, out=out) is out
                        assert np.array_equal(out, expected)
                        assert np.array_equal(source, tile), "the source is intact"


def strided(array: np.ndarray) -> list[np.ndarray]:
    """The same array C-ordered, F-ordered, with gaps, reversed, and with permuted axes."""
    gaps = np.empty([2 * n for n in array.shape], array.dtype)[
        tuple([slice(1, None, 2)] * array.ndim)
    ]
    turned = np.empty_like(array)[tuple([slice(None, None, -1)] * array.ndim)]
    moved = np.moveaxis(np.empty((array.shape[-1], *array.shape[:-1]), array.dtype), 0, -1)
    found = [array.copy(), np.asfortranarray(array), gaps, turned, moved]
    for copy in found:
        copy[...] = array
    return found


@case
def f_ordered_tiles_move_as_the_transposed_array(comm: MPI.Intracomm) -> None:
    """In as long runs, into F-ordered results; and the order may change from call to call."""
    mesh = mesh_for(comm)
    for src, dst in (
        ("f32[240{x}, 480{y}]", "f32[240{y}, 480{x}]"),
        ("i32[24, 48{y}] sum{x}", "i32[24{x}, 48{y}]"),
        ("i32[24{x}, 48{y}, 2]", "i32[24, 48{y}, 2] sum{x}"),
    ):
        a, b = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
        turned = [
            rd.ArrayType(mesh, t.dtype, t.shape[::-1], t.dims[::-1], t.partial, t.reduction)
            for t in (a, b)
        ]
        plan, array = rd.plan(a, b), example(a)
        tile = simulator.scatter(array, a)[comm.rank]
        expected = simulator.run(plan, simulator.scatter(array, a))[comm.rank]
        with (
            rmpi.Redistribution.from_plan(plan, comm) as redistribution,
            rmpi.Redistribution.from_plan(plan, comm) as fortran,
            rmpi.Redistribution(*turned, comm) as other,
        ):
            # In the last call the order is not the same on all ranks.
            for order in (*"CFFCF", "CF"[comm.rank % 2]):
                given = np.asarray(tile, order=order)
                result = redistribution(given)
                assert np.array_equal(result, expected)
                assert result.flags.f_contiguous if order == "F" else result.flags.c_contiguous
                out = np.full(expected.shape, 7, expected.dtype, order)
                assert redistribution(given, out) is out
                assert np.array_equal(out, expected)
            # The first call settles how the array is seen.
            assert np.array_equal(fortran(np.asfortranarray(tile)), expected)
            if isinstance(fortran._phases[0], exchange.TileExchange):
                for one, same in zip(fortran._phases, other._phases, strict=True):
                    assert isinstance(one, exchange.TileExchange)
                    assert isinstance(same, exchange.TileExchange)
                    assert runs_of(one) == runs_of(same)


def runs_of(phase: exchange.TileExchange) -> list[tuple[int, list[int], bool]]:
    """Per peer how long the runs are that it is sent, and whether they are packed."""
    return [(s.peer, [o.contiguous for o in s.overlaps], s.packed) for s in phase.sends]


@case
def elements_may_be_any_bytes(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    src, dst = (rd.ArrayType.parse(t, mesh) for t in ("u8[12{x}, 24{y}]", "u8[12{y}, 24{x}]"))
    pair = np.dtype([("number", "<i2"), ("name", "S3")])
    for dtype in (pair, "datetime64[s]", ">f8", "V12", "S7", np.dtype("c16"), "longdouble"):
        raw = np.random.default_rng(3).integers(
            0, 256, src.size * np.dtype(dtype).itemsize, np.uint8
        )
        array = raw.view(dtype).reshape(src.shape)
        with rmpi.Redistribution(src, dst, comm, dtype=dtype) as redistribution:
            result = redistribution(np.ascontiguousarray(array[np.ix_(*src.tile(comm.rank))]))
        expected = np.ascontiguousarray(array[np.ix_(*dst.tile(comm.rank))])
        assert result.dtype == expected.dtype
        assert result.tobytes() == expected.tobytes(), dtype
    with pytest.raises(rd.BackendError, match="bytes without references; got dtype object"):
        rmpi.Redistribution(src, dst, comm, dtype=object)
    summed = rd.ArrayType.parse("u8[12, 24] sum{x}", mesh)
    with pytest.raises(rd.BackendError, match="a reduction is over the types' dtype"):
        rmpi.Redistribution(summed, src, comm, dtype="V1")


@case
def calls_may_overlap_with_work(comm: MPI.Intracomm) -> None:
    plans = [
        direct(mesh_for(comm), "f32[480{x}, 480{y}]", "f32[480{y}, 480{x}]"),
        direct(mesh_for(comm), "f64[480{x}, 960{y}]", "f64[480, 960{_4,x}]"),
    ]
    made = [rmpi.Redistribution.from_plan(plan, comm) for plan in plans]
    tiles = [tile_of(example(plan.src), plan.src, comm.rank) for plan in plans]
    # Whether it waits for a call is up to each rank.
    made[0](tiles[0]) if comm.rank == 0 else made[0].start(tiles[0]).wait()
    running = [r.start(tile) for r, tile in zip(made, tiles, strict=True)]
    while not running[1].test():
        pass
    for plan, call in zip(plans, running, strict=True):
        [result] = call.wait()
        assert call.done
        assert same_bits(result, tile_of(example(plan.src), plan.dst, comm.rank))
    for redistribution in made:
        redistribution.free()
        with pytest.raises(rd.BackendError, match="was freed"):
            redistribution(tiles[0])


@case
def arrays_go_in_batches(comm: MPI.Intracomm) -> None:
    for src, dst in (
        ("f32[24{x}, 48{y}]", "f32[24{y}, 48{x}]"),
        ("i32[24, 48{y}] sum{x}", "i32[24{x}, 48{y}]"),
        ("i32[24, 48] sum{x}", "i32[24, 48]"),
    ):
        mesh = mesh_for(comm)
        a, b = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
        arrays = [example(a) + n for n in range(3)]
        with rmpi.Redistribution(a, b, comm) as redistribution:
            results = redistribution.batch([simulator.scatter(x, a)[comm.rank] for x in arrays])
            tile = np.zeros(a.tile_shape, a.numpy_dtype)
            with pytest.raises(rd.BackendError, match="different problems"):
                redistribution.batch([tile] * (1 + comm.rank % 2))
        for array, result in zip(arrays, results, strict=True):
            assert same_bits(result, tile_of(array, b, comm.rank))


@case
def sources_and_targets_may_be_on_other_ranks(comm: MPI.Intracomm) -> None:
    size = comm.size
    sets = [(size, size - 1), (size - 1, size), (1, size), (size, 1), (size // 2, size - size // 2)]
    for few, many in sets:
        for first in {0, size - many}:
            a, b = list(range(few)), list(range(first, first + many))[::-1]
            check_sets(comm, a, b)


def check_sets(comm: MPI.Intracomm, a: list[int], b: list[int]) -> None:
    """One array from the ranks `a` to the ranks `b`, said in either way, there and back."""
    n = len(a) * len(b)
    one, other = rd.Mesh({"x": len(a)}, devices=a), rd.Mesh({"u": len(b)}, devices=b)
    src = rd.ArrayType.parse(f"f32[{n}{{x}}, {2 * n}]", one)
    dst = rd.ArrayType.parse(f"f32[{n}, {2 * n}{{_2,u}}]", other)
    whole = rd.ArrayType.parse(f"f32[{n}, {2 * n}]", other)
    array = example(src)
    for s, t, options in (
        (src, dst, {}),
        (dst, src, {}),
        (src, whole, {}),
        (whole, src, {"src_ranks": b, "dst_ranks": a}),
    ):
        holds, wants = (
            {rank: position for position, rank in enumerate(a if end.mesh == one else b)}
            for end in (s, t)
        )
        if one == other:
            return  # one mesh: ranks are its positions
        with rmpi.Redistribution(s, t, comm, **options) as redistribution:
            tile = tile_of(array, s, holds[comm.rank]) if comm.rank in holds else None
            result = redistribution(tile)
            received = comm.allreduce(redistribution.received_bytes)
        if comm.rank not in wants:
            assert result is None
            assert redistribution.received_bytes == 0
        else:
            assert same_bits(result, tile_of(array, t, wants[comm.rank]))
        own = sum(common_size(s, holds[r], t, wants[r]) for r in holds.keys() & wants.keys())
        assert received == (len(wants) * t.tile_size - own) * 4


def common_size(s: rd.ArrayType, at: int, t: rd.ArrayType, to: int) -> int:
    """Elements that a position of one type shares with one of another."""
    shared = 1
    for a, b in zip(s.tile(at), t.tile(to), strict=True):
        shared *= len(np.intersect1d(a, b))
    return shared


@case
def ranks_without_a_tile_pass_none(comm: MPI.Intracomm) -> None:
    one, other = rd.Mesh(x=1), rd.Mesh(u=comm.size)
    src, dst = rd.ArrayType.parse("f32[24]", one), rd.ArrayType.parse("f32[24{u}]", other)
    with rmpi.Redistribution(src, dst, comm) as redistribution:
        with pytest.raises(rd.BackendError, match="rank 1: tile is None on a rank that has no"):
            redistribution(np.zeros(24, np.float32))
        with pytest.raises(rd.BackendError, match="rank 0: tile is a numpy array; got NoneType"):
            redistribution(None)
    for ranks, message in (
        ([comm.size], "communicator; got"),
        ([0, 0], "a rank of its own; got"),
    ):
        with pytest.raises(rd.BackendError, match=message):
            rmpi.Redistribution(src, dst, comm, src_ranks=ranks)
    for bad in ("f32[25]", "f64[24]"):
        with pytest.raises(rd.LayoutError, match="have one shape and dtype"):
            rmpi.Redistribution(rd.ArrayType.parse(bad, one), dst, comm)
    with pytest.raises(rd.LayoutError, match="the target is not partial"):
        rmpi.Redistribution(src, rd.ArrayType.parse("f32[24] sum{u}", other), comm)


@case
def sums_may_end_on_other_ranks(comm: MPI.Intracomm) -> None:
    one, other = rd.Mesh(x=comm.size), rd.Mesh(u=comm.size - 1)
    src = rd.ArrayType.parse("i32[12, 420] sum{x}", one)
    for text in ("i32[12, 420]", "i32[12, 420{u}]"):
        dst = rd.ArrayType.parse(text, other)
        if not comm.size - 1:
            continue
        with rmpi.Redistribution(src, dst, comm) as redistribution:
            result = redistribution(np.full((12, 420), 1 << comm.rank, np.int32))
        if comm.rank < comm.size - 1:
            assert same_bits(result, np.full(dst.tile_shape, (1 << comm.size) - 1, np.int32))


@case
def uneven_types_are_reduced_and_moved(comm: MPI.Intracomm) -> None:
    """Block-cyclic with a cut-off block, blocks of given sizes, sums; nothing is padded."""
    mesh = mesh_for(comm)
    n = comm.size * 5 - 3
    sizes = ",".join(map(str, [0] * (comm.size - 1) + [n]))
    layouts = [
        f"{{_{-(-n // (2 * mesh.axis_size('x')))},x,_2}}:ceil",
        "{x,y}:nested",
        "{y}:balanced",
        f"{{x,y}}:sizes({sizes})",
        "{y,x}:ceil",
        "",
    ]
    texts = [f"i32[{n}{layout}, 6]" for layout in layouts]
    texts += [f"i32[{n}{layout}, 6] sum{{y}}" for layout in ("{x}:ceil", "")]
    types = [rd.ArrayType.parse(text, mesh) for text in texts]
    array = np.arange(6 * n, dtype=np.int32).reshape(n, 6)
    ends = [(a, b) for a in types for b in types]
    for src, dst in ends[:: repetitions(5, 1)]:
        plan = rd.plan(src, dst)
        with rmpi.Redistribution.from_plan(plan, comm) as redistribution:
            result = redistribution(tile_of(array, src, comm.rank))
            if not (src.partial or dst.partial):
                most = comm.allreduce(redistribution.received_bytes, MPI.MAX)
                assert most == plan.lower_bound_bytes
        assert result.shape == dst.tile_shape_at(comm.rank)
        made = rmpi.gather(result, dst, comm)
        assert made is None or np.array_equal(made, array), (str(src), str(dst))


@case
def tiles_may_be_uneven(comm: MPI.Intracomm) -> None:
    mesh = rd.Mesh(x=comm.size, y=1)
    even = rd.ArrayType.parse(f"i32[{7 * comm.size}{{x}}, 13]", mesh)
    for n in (0, 1, comm.size - 1, 3 * comm.size + 1, 7 * comm.size):
        shape = (n, 13)
        array = np.arange(13 * n, dtype=np.int32).reshape(shape)
        types = [
            rd.ArrayType(mesh, "i32", shape, dims, uneven={0: rule, 1: rule})
            for dims in ([("x",), ()], [(), ("x",)], [("y", "x"), ()], [(), ()])
            for rule in ("ceil", "balanced", "nested")
        ]
        ends = [(a, b) for a in types for b in types]
        if n == even.shape[0]:
            ends += [(even, b) for b in types] + [(a, even) for a in types]
        every = repetitions(12, 1)  # programs_equal_numpy draws such layouts too
        for src, dst in ends[comm.size // 2 % every :: every]:
            tile = np.ascontiguousarray(array[np.ix_(*src.tile(comm.rank))])
            with rmpi.Redistribution(src, dst, comm) as redistribution:
                result = redistribution(tile)
            assert same_bits(result, np.ascontiguousarray(array[np.ix_(*dst.tile(comm.rank))]))
        # The rules are those of numpy and of XLA's padding.
        split = np.array_split(array, comm.size)[comm.rank]
        assert np.array_equal(array[np.ix_(*types[1].tile(comm.rank))], split)
        step = -(-n // comm.size)
        assert np.array_equal(
            array[np.ix_(*types[0].tile(comm.rank))], array[step * comm.rank :][:step]
        )


@case
def every_reduction_of_every_dtype(comm: MPI.Intracomm) -> None:
    mesh = rd.Mesh(r=comm.size)
    ufuncs = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
    every = repetitions(2, 1)
    for dtype, reduction in [*product(DTYPES, ufuncs)][comm.size // 2 % every :: every]:
        src = rd.ArrayType.parse(f"{dtype}[3, 48] {reduction}{{r}}", mesh)
        rng = np.random.default_rng(5)
        addends = rng.integers(0, 3, (comm.size, 3, 48)).astype(src.numpy_dtype)
        expected = addends[0].copy()
        for addend in addends[1:]:
            ufuncs[reduction](expected, addend, out=expected)
        for text in (f"{dtype}[3, 48]", f"{dtype}[3, 48{{r}}]"):
            dst = rd.ArrayType.parse(text, mesh)
            with rmpi.Redistribution(src, dst, comm, scratch=1) as redistribution:
                result = redistribution(addends[comm.rank])
            assert same_bits(result, tile_of(expected, dst, comm.rank)), (dtype, reduction)


def sends_counted(patch: pytest.MonkeyPatch) -> list[int]:
    """Whom messages are sent to from now on, while the patch holds."""
    peers: list[int] = []
    send = requests.Outstanding.send

    def counted(self: Any, message: Any, peer: int, owner: Any = None) -> None:
        peers.append(peer)
        send(self, message, peer, owner)

    patch.setattr(requests.Outstanding, "send", counted)
    return peers


@case
def short_runs_go_in_one_message_to_each_rank(comm: MPI.Intracomm) -> None:
    """If a quarter of the scratch holds it, however many the ranks; and buffers are within it."""
    mesh = rd.Mesh(x=comm.size)
    src, dst = (rd.ArrayType.parse(t, mesh) for t in ("u8[840{x}, 840]", "u8[840, 840{x}]"))
    array = example(src)
    tile, expected = (tile_of(array, t, comm.rank) for t in (src, dst))
    overlap = 840 * 840 // comm.size**2
    for each in (1, 3):
        scratch = 4 * -(-overlap // each)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "LEAST_CHUNK", 1)
            sent = sends_counted(patch)
            with rmpi.Redistribution(src, dst, comm, scratch=scratch) as redistribution:
                assert redistribution.scratch_bytes <= scratch
                assert np.array_equal(redistribution(tile), expected)
        counts = [sent.count(peer) for peer in range(comm.size) if peer != comm.rank]
        assert all(each <= count <= each + 1 for count in counts), counts
        assert each > 1 or sum(counts) == comm.size - 1


@case
def runs_are_packed_where_that_is_faster(comm: MPI.Intracomm) -> None:
    """Short ones, if there are many; long ones if each rank of Open MPI has a processor."""
    mesh, openmpi = rd.Mesh(x=comm.size), MPI.get_vendor()[0] != "MPICH"
    few, many = 100 * comm.size, 5000 * comm.size
    long = (4 << 20) // comm.size // 840 * 840  # 4 MiB to each rank, in two runs
    ends = [
        (f"u8[{few}{{x}}, 840]", f"u8[{few}, 840{{x}}]"),
        (f"u8[{many}{{x}}, 840]", f"u8[{many}, 840{{x}}]"),
        (f"u8[{2 * comm.size}{{x}}, {long}]", f"u8[{2 * comm.size}, {long}{{x}}]"),
    ]
    for crowded in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "FEW_RUNS", 4096)
            patch.setattr(streams, "PACKED", long // comm.size)
            patch.setattr(private(comm), "crowded", crowded)
            packed = False, True, openmpi and not crowded
            for (before, after), is_packed in zip(ends, packed, strict=True):
                src, dst = (rd.ArrayType.parse(text, mesh) for text in (before, after))
                array = np.random.default_rng(0).integers(0, 256, src.shape, np.uint8)
                with rmpi.Redistribution(src, dst, comm) as made:
                    assert made._at_once() is not is_packed
                    result = made(np.array(tile_of(array, src, comm.rank)))
                assert np.array_equal(result, tile_of(array, dst, comm.rank))


@case
def reductions_need_a_bounded_scratch(comm: MPI.Intracomm) -> None:
    """However large the tiles, and without more traffic than a reduce_scatter and a gather."""
    mesh, scratch = rd.Mesh(r=comm.size), 1 << 18
    n = 840 * 1000
    for text in (f"f32[{n}]", f"f32[{n}{{r}}]"):
        src, dst = (rd.ArrayType.parse(t, mesh) for t in (f"f32[{n}] sum{{r}}", text))
        with rmpi.Redistribution(src, dst, comm, scratch=scratch) as redistribution:
            assert redistribution.scratch_bytes <= scratch
            if "r" in text and comm.size > 2:  # of two, the addend of the other goes into place
                assert redistribution.scratch_bytes > 0.9 * scratch, "all of it is of use"
            result = redistribution(np.full(n, 2.0**comm.rank, np.float32))
            share = n // comm.size * 4
            received = share * (comm.size - 1) + dst.tile_bytes - share
            assert redistribution.received_bytes == received
        assert (result == 2**comm.size - 1).all()


@case
def reductions_of_short_and_long_runs_are_within_their_scratch(comm: MPI.Intracomm) -> None:
    """The last rank packs what it sends, and receives what was not packed."""
    mesh, scratch, rows = rd.Mesh(r=comm.size), 1 << 18, 840
    widths = [8] * (comm.size - 1) + [512]
    src = rd.ArrayType.parse(f"i32[{rows}, {sum(widths)}] sum{{r}}", mesh)
    sizes = ",".join(map(str, widths))
    dst = rd.ArrayType.parse(f"i32[{rows}, {sum(widths)}{{r}}:sizes({sizes})]", mesh)
    array = example(src)
    expected = comm.size * np.split(array, np.cumsum(widths)[:-1], axis=1)[comm.rank]
    expected += sum(range(comm.size))
    with rmpi.Redistribution(src, dst, comm, scratch=scratch) as redistribution:
        assert comm.allreduce(redistribution.scratch_bytes, MPI.MAX) <= scratch
        for _ in range(2):
            assert np.array_equal(redistribution(array + comm.rank), expected)


@case
def dtype_size_and_plan_disagreement_leave_the_data_intact(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    last = comm.rank == comm.size - 1
    a, b = (rd.ArrayType.parse(t, mesh) for t in ("f32[24{x}, 24]", "f32[24, 24{x}]"))
    with (
        rmpi.Redistribution(a, b, comm, check="all") as forth,
        rmpi.Redistribution(b, a, comm, check="all") as other,
    ):
        good = tile_of(example(a), a, comm.rank)
        out = np.full(b.tile_shape, 7, np.float32)
        for tile, target in (
            (good.view(np.int32), out),  # equal byte counts, another dtype
            (good.reshape(-1), out),
            (good, np.full((1 + b.tile_shape[0], *b.tile_shape[1:]), 7, np.float32)),
        ):
            with pytest.raises(
                rd.BackendError, match=f"rank {comm.size - 1}: (tile|out) is a tile"
            ):
                forth(*((tile, target) if last else (good, out)))
        swapped = tile_of(example(b), b, comm.rank)
        with pytest.raises(
            rd.BackendError,
            match=r"given different problems: rank 0: operation \d+: a call of redistribution",
        ):
            other(swapped) if last else forth(good, out)
        assert (out == 7).all(), "nothing was written"
        assert same_bits(good, tile_of(example(a), a, comm.rank))
        assert same_bits(forth(good, out), tile_of(example(a), b, comm.rank))


@case
def exhausted_memory_on_one_rank_is_an_error_on_all(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    a, b = (rd.ArrayType.parse(t, mesh) for t in ("f32[1536{x}, 32768]", "f32[1536, 32768]"))
    rows = a.tile(comm.rank)[0].astype(np.float32)
    tile = np.broadcast_to(rows[:, None], a.tile_shape).copy()
    with rmpi.Redistribution(a, b, comm) as redistribution:
        limits = resource.getrlimit(resource.RLIMIT_AS)
        if comm.rank == 1:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), limits[1]))
        try:
            with pytest.raises(
                rd.BackendError, match=r"rank 1: .*MemoryError: Unable to allocate 192"
            ):
                redistribution(tile)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        assert (tile == rows[:, None]).all(), "the source is intact"
        # The ranks are in step, and the next call succeeds.
        assert redistribution(tile)[:, 0].tolist() == list(range(1536))


@case
def communicators_come_and_go(comm: MPI.Intracomm) -> None:
    for _ in range(3):
        half = comm.Split(comm.rank % 2)
        mesh = rd.Mesh(x=half.size)
        a, b = (rd.ArrayType.parse(text, mesh) for text in ("i32[24{x}, 24]", "i32[24, 24]"))
        with rmpi.Redistribution(a, b, half) as redistribution:
            result = redistribution(tile_of(example(a), a, half.rank))
        assert same_bits(result, example(b))
        half.Free()


@case
def ranks_agree_on_crowded_nodes_and_on_others(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    a, b = (rd.ArrayType.parse(t, mesh) for t in ("f32[24{x}, 24]", "f32[24, 24{x}]"))
    # All ranks on one processor; each on its own.
    for processors, crowded in (({0}, comm.size > 1), ({comm.rank}, False)):
        own = comm.Dup()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "sched_getaffinity", lambda _, found=processors: found)
            assert private(own).crowded == crowded
        with rmpi.Redistribution(a, b, own, check="all") as redistribution:
            tile = tile_of(example(a), a, own.rank)
            assert same_bits(redistribution(tile), tile_of(example(b), b, own.rank))
            with pytest.raises(rd.BackendError, match="rank 0: tile is a numpy array; got str"):
                redistribution("none" if own.rank == 0 else tile)
            assert same_bits(redistribution(tile), tile_of(example(b), b, own.rank))
        own.Free()


@case
def random_draws_are_right(comm: MPI.Intracomm, first: int, count: int) -> None:
    for seed in range(first, first + count):
        draw(comm, seed)


def check_pair(comm: MPI.Intracomm, src: rd.ArrayType, dst: rd.ArrayType, seed: int) -> None:
    """One pair on the first ranks, bit for bit, and without a byte more than the lower bound."""
    ranks = range(src.mesh.num_devices)
    with rmpi.Redistribution(
        src, dst, comm, strategy="direct", src_ranks=ranks, dst_ranks=ranks
    ) as redistribution:
        received = comm.allreduce(redistribution.received_bytes, MPI.MAX)
        plan = redistribution.plan
        assert plan is not None
        rng = np.random.default_rng(seed)
        bits = rng.integers(0, 2 if src.dtype == "bool" else 256, src.size * src.itemsize, np.uint8)
        array = bits.view(src.numpy_dtype).reshape(src.shape)
        here = comm.rank in ranks
        if src.partial or dst.partial:
            array = (np.arange(src.size) % 3).astype(src.numpy_dtype).reshape(src.shape)
        tile = tile_of(array, src, comm.rank) if here else None
        result = redistribution(tile)
    if dst.partial:
        return
    assert not here or same_bits(result, tile_of(array, dst, comm.rank)), f"{src} -> {dst}"
    if not src.partial:
        assert received == plan.lower_bound_bytes, f"{src} -> {dst}"


@case
def core_pairs_are_right(
    comm: MPI.Intracomm, mesh: str, shape: list[int], at: int, step: int
) -> None:
    """Every ordered pair of whole-axis layouts, or one in `step` of them."""
    layouts = list(whole_axis_layouts(rd.Mesh.parse(mesh), shape))
    for number, (src, dst) in enumerate(product(layouts, repeat=2)):
        if number % step == at:
            check_pair(comm, src, dst, number)


@case
def real_world_cases_are_right(comm: MPI.Intracomm, largest: int) -> None:
    """Public cases that fit: as many ranks as devices, of at most `largest` bytes, else shrunk."""
    data = Path(__file__).parents[1] / "data" / "real_world.json"
    for number, found in enumerate(json.loads(data.read_text(encoding="utf-8"))):
        mesh = rd.Mesh(found["mesh"])
        if mesh.num_devices > comm.size:
            continue
        src, dst = (rd.ArrayType.parse(found[end], mesh) for end in ("src", "dst"))
        if src.size * src.itemsize > largest:
            shape = [
                lcm(*(i.end for t in (src, dst) for _, i in t.placements if i.dim == dim), 1)
                for dim in range(len(src.shape))
            ]
            src, dst = (
                rd.ArrayType(mesh, t.dtype, shape, t.dims, t.partial, t.reduction)
                for t in (src, dst)
            )
        check_pair(comm, src, dst, number)


@case
def tiles_may_exceed_two_gibibytes(comm: MPI.Intracomm, mebibytes: int) -> None:
    """Two ranks swap tiles of more than 2^31 bytes, in which every MiB is told from the others."""
    mesh = rd.Mesh(x=2)
    rows = rd.ArrayType.parse(f"u8[2{{x}}, {mebibytes << 20}]", mesh)
    mine, other = (
        ((np.arange(mebibytes) * 7 + rank) % 251).astype(np.uint8)
        for rank in (comm.rank, 1 - comm.rank)
    )
    tile = np.empty(rows.tile_shape, np.uint8)
    tile.reshape(mebibytes, -1)[...] = mine[:, None]
    with rmpi.Redistribution(rows, rows, comm, src_ranks=[0, 1], dst_ranks=[1, 0]) as swap:
        assert swap.received_bytes == tile.nbytes > 1 << 31
        result = swap(tile)
    for found, expected in zip(result.reshape(mebibytes, -1), other, strict=True):
        assert (found == expected).all()


@case
def gathered_tiles_may_exceed_two_gibibytes(comm: MPI.Intracomm, mebibytes: int) -> None:
    """Rank 1 gathers an array whose one part is of more than 2^31 bytes."""
    t = rd.ArrayType.parse(f"u8[{2 * mebibytes - 1}{{x}}:ceil, 1048576]", rd.Mesh(x=2))
    rows = t.tile(comm.rank)[0]
    tile = np.empty(t.tile_shape_at(comm.rank), np.uint8)
    tile[...] = (rows * 7 % 251).astype(np.uint8)[:, None]
    array = rmpi.gather(tile, t, comm, root=1)
    assert (array is None) == (comm.rank == 0)
    for row, values in enumerate(array if array is not None else ()):
        assert (values == row * 7 % 251).all()
