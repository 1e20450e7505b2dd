"""What programs have every day: a call without an object, operations of their own, in place."""

from __future__ import annotations

import operator
import random
from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi import one_shot
from redistrib.backends.mpi.communicators import private
from redistrib.types.tile import same_bits, tile_of
from tests.mpi.cases import case, example, mesh_for
from tests.repetitions import repetitions


@case
def one_shots_are_kept_for_the_next_call(comm: MPI.Intracomm) -> None:
    mesh = mesh_for(comm)
    texts = ("i32[24{x}, 48{y}]", "i32[24{y}, 48{x}]")
    src, dst = (rd.ArrayType.parse(text, mesh) for text in texts)
    made = []
    with pytest.MonkeyPatch.context() as patch:
        make = rmpi.Redistribution.__init__

        def counted(self: rmpi.Redistribution, *given: Any, **options: Any) -> None:
            made.append(given)
            make(self, *given, **options)

        patch.setattr(rmpi.Redistribution, "__init__", counted)
        for number in range(2):
            array = example(src) + number
            tile, expected = (tile_of(array, t, comm.rank) for t in (src, dst))
            for ends in ((src, dst), ((texts[0], mesh), texts[1])):
                out = np.zeros_like(expected)
                assert rmpi.redistribute(tile, *ends, comm, out) is out
                assert same_bits(out, expected)
                ranks = list(range(comm.size))[::-1]  # a list is no key
                back = rmpi.redistribute(expected, *ends[::-1], comm, src_ranks=ranks)
                assert back is not None
        assert len(made) == 2 + 4
        patch.setattr(one_shot, "KEPT", 3)
        for n in range(1, 6):
            t = rd.ArrayType.parse(f"i32[{n}]", mesh)
            assert same_bits(rmpi.redistribute(example(t), t, t, comm), example(t))
    assert len(private(comm).redistributions) == 3
    with pytest.raises(rd.TypeSyntaxError):
        rmpi.redistribute(tile, ("i32[24{x}", mesh), dst, comm)


@case
def types_may_be_texts(comm: MPI.Intracomm) -> None:
    mesh = rd.Mesh(x=comm.size)
    with rmpi.Redistribution(("f32[24{x}]", mesh), "f32[24]", comm) as redistribution:
        assert str(redistribution.src) == "f32[24{x}]"
        whole = np.arange(24, dtype=np.float32)
        assert same_bits(redistribution(tile_of(whole, redistribution.src, comm.rank)), whole)
    bad = "f32[25]" if comm.rank == 1 else "f32[24]"
    with pytest.raises(rd.RedistribError):
        rmpi.Redistribution(("f32[24{x}]", mesh), bad, comm)


@case
def a_cartesian_communicator_has_a_mesh(comm: MPI.Intracomm) -> None:
    shape = [2, comm.size // 2] if comm.size % 2 == 0 else [comm.size, 1]
    cart = comm.Create_cart(shape)
    mesh = rmpi.mesh_of(cart)
    assert mesh == rd.Mesh(x=shape[0], y=shape[1])
    assert mesh.coordinates(cart.rank) == dict(zip("xy", cart.coords, strict=True))
    assert rmpi.mesh_of(cart, ("rows", "columns")).axis_size("rows") == shape[0]
    for bad, names in ((comm, None), (cart, ("rows",))):
        with pytest.raises(rd.BackendError, match=r"a mesh is that of|a name for each of"):
            rmpi.mesh_of(bad, names)  # type: ignore[arg-type]
    cart.Free()


OPERATIONS = {
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "gcd": np.gcd,
    "second": lambda a, b: b,
    "affine": lambda a, b: a * 3 + b,
    "into its first": operator.iadd,
}


@case
def reductions_may_take_any_operation_in_rank_order(comm: MPI.Intracomm) -> None:
    mesh = rd.Mesh(r=comm.size)
    src = rd.ArrayType.parse("i32[4, 48] sum{r}", mesh)
    addends = np.random.default_rng(3).integers(0, 99, (comm.size, 4, 48)).astype(np.int32)
    for name, op in OPERATIONS.items():
        if name == "affine" and comm.size > 2:
            continue  # not associative
        expected = addends[0].copy()
        for addend in addends[1:]:
            expected[...] = op(expected, addend)
        for text in ("i32[4, 48]", "i32[4, 48{r}]"):
            dst = rd.ArrayType.parse(text, mesh)
            tile = addends[comm.rank].copy()
            with rmpi.Redistribution(src, dst, comm, op=op, scratch=1) as redistribution:
                result = redistribution(tile)
            assert same_bits(result, tile_of(expected, dst, comm.rank)), (name, text)
            assert same_bits(tile, addends[comm.rank]), (name, text)
    whole = rd.ArrayType.parse("i32[4, 48]", mesh)
    for wrong, message in ((np.negative, "op takes two arrays"), (3, "op takes two arrays")):
        with pytest.raises(rd.BackendError, match=message):
            rmpi.Redistribution(src, whole, comm, op=wrong)  # type: ignore[arg-type]
    with pytest.raises(rd.BackendError, match="op and accumulate are of a reduction"):
        rmpi.Redistribution(whole, whole, comm, op=np.add)
    op = np.bitwise_or if comm.rank else np.bitwise_and
    with pytest.raises(rd.BackendError, match=r"different problems: .* by bitwise_"):
        rmpi.Redistribution(src, whole, comm, op=op)


@case
def small_floats_may_add_up_in_a_wide_one(comm: MPI.Intracomm) -> None:
    mesh = rd.Mesh(r=comm.size)
    for dtype in ("f16", "bf16"):
        src, dst = (rd.ArrayType.parse(f"{dtype}[3, 48]{s}", mesh) for s in (" sum{r}", ""))
        addends = np.random.default_rng(4).standard_normal((comm.size, 3, 48))
        small = addends.astype(src.numpy_dtype)
        wide = small[0].astype(np.float32)
        for addend in small[1:]:
            wide += addend.astype(np.float32)
        with rmpi.Redistribution(src, dst, comm, accumulate="f4", scratch=1) as redistribution:
            assert same_bits(redistribution(small[comm.rank]), wide.astype(src.numpy_dtype))
    with pytest.raises(rd.BackendError, match="accumulate is a dtype of numbers; got bool"):
        rmpi.Redistribution(src, dst, comm, accumulate=bool)


@case
def an_all_reduce_may_be_in_place(comm: MPI.Intracomm) -> None:
    grid, line = mesh_for(comm), rd.Mesh(x=comm.size)
    for mesh, src, dst in (
        (grid, "i32[24, 6] sum{x}", "i32[24, 6]"),
        (grid, "i32[24{y}, 6] sum{x}", "i32[24{y}, 6]"),
        (line, "i32[24, 6] sum{x}", "i32[24, 6]"),
        (line, "i32[840, 210] sum{x}", "i32[840, 210]"),
    ):
        a, b = (rd.ArrayType.parse(text, mesh) for text in (src, dst))
        addends, own = mesh.axis_size("x"), mesh.coordinates(comm.rank)["x"]
        for order in "CF":
            with rmpi.Redistribution(a, b, comm, scratch=1) as redistribution:
                for number in range(3):
                    base = np.array(tile_of(example(b) + number, b, comm.rank), order=order)
                    tile = base + own
                    assert redistribution(tile, tile) is tile
                    assert np.array_equal(tile, addends * base + sum(range(addends)))
                view = tile[...]
                with pytest.raises(rd.BackendError, match="shares no memory with a tile"):
                    redistribution(tile, view)
    a, c = (rd.ArrayType.parse(text, grid) for text in ("i32[24, 6] sum{x}", "i32[24{x}, 6]"))
    with rmpi.Redistribution(a, c, comm) as redistribution:
        tile = np.zeros(a.tile_shape, np.int32)
        if a.tile_shape == c.tile_shape:
            with pytest.raises(rd.BackendError, match="shares no memory with a tile"):
                redistribution(tile, tile)


@case
def memory_of_a_gpu_is_refused(comm: MPI.Intracomm) -> None:
    class OnDevice:
        __cuda_array_interface__: ClassVar[dict[str, Any]] = {}

    with (
        rmpi.Redistribution(
            ("f32[24]", rd.Mesh(x=comm.size)), "f32[24{x}]", comm
        ) as redistribution,
        pytest.raises(rd.BackendError, match="memory of the host; got OnDevice on a GPU: copy it"),
    ):
        redistribution(OnDevice())  # type: ignore[arg-type]


@case
def sub_arrays_are_assigned(comm: MPI.Intracomm) -> None:
    """`dst[...] = src[...]`, between arrays of two shapes, in either order, of addends too."""
    mesh = mesh_for(comm)
    a, b = (
        rd.ArrayType.parse(text, mesh)
        for text in ("i32[13{x}:ceil, 24{y}]", "i32[9{y}:balanced, 30{x}:nested]")
    )
    index = np.s_[2:11, -8:], np.s_[:, 20:28]
    source, target = example(a), -example(b)
    addends = rd.ArrayType.parse("i32[13{y}:ceil, 24] sum{x}", mesh)
    replicas = rd.ArrayType.parse("i32[9, 30{x}:nested]", mesh)  # who adds for them is shared out
    for src, dst in ((a, b), (addends, b), (addends, replicas)):
        expected = target.copy()
        expected[index[1]] = source[index[0]]
        indices = {"src_index": index[0], "dst_index": index[1]}
        with rmpi.Redistribution(src, dst, comm, **indices) as redistribution:  # type: ignore[arg-type]
            for order in "CF":
                tile = np.asarray(tile_of(source, src, comm.rank), order=order)  # type: ignore[call-overload]
                out = np.array(tile_of(target, dst, comm.rank), order=order)  # type: ignore[call-overload]
                assert redistribution(tile, out) is out
                assert np.array_equal(out, tile_of(expected, dst, comm.rank))
            with pytest.raises(rd.BackendError, match=r"with a dst_index the tile .* is given, as"):
                redistribution(tile)
    part = np.s_[1:5, :2]
    with rmpi.Redistribution(a, rd.ArrayType.parse("i32[4, 2]", mesh), comm, src_index=part) as cut:
        assert np.array_equal(cut(tile_of(source, a, comm.rank)), source[part])
    for wrong in (np.s_[::2], np.s_[:, :, :], 3, np.s_[..., 1:2]):
        with pytest.raises(rd.BackendError, match="src_index is a slice of step 1 per dimension"):
            rmpi.Redistribution(a, b, comm, src_index=wrong)  # type: ignore[arg-type]
    with pytest.raises(rd.LayoutError, match=r"one shape and dtype; .* sub-arrays of \(2, 24\)"):
        rmpi.Redistribution(a, b, comm, src_index=np.s_[:2])


@case
def results_may_be_in_memory_that_ranks_share(comm: MPI.Intracomm) -> None:
    """Of the program's own, any number, in calls beside others; the memory outlives the object."""
    few = rd.Mesh({"u": max(1, comm.size - 1)}, devices=range(max(1, comm.size - 1)))
    src = rd.ArrayType.parse("f32[840{x}, 24]", rd.Mesh(x=comm.size))
    for dst in (src, rd.ArrayType.parse("f32[840, 24{u}:ceil]", few)):
        position = comm.rank if comm.rank < dst.mesh.num_devices else None
        with rmpi.Redistribution(
            src, dst, comm, src_ranks=range(comm.size), dst_ranks=range(dst.mesh.num_devices)
        ) as redistribution:
            first, second = redistribution.empty(), redistribution.empty()
            for number, out in enumerate((None, first, second, first, None, second)):
                array = example(src) + number
                tile = tile_of(array, src, comm.rank)
                if number % 2:
                    found = redistribution(tile, out)
                else:
                    [found] = redistribution.start(tile, out).wait()
                if position is None:
                    assert found is None
                else:
                    assert out is None or found is out
                    assert same_bits(found, tile_of(array, dst, position))
            if comm.size > 2 and dst != src:
                with pytest.raises(rd.BackendError, match="given different problems"):
                    redistribution(tile, second if comm.rank else first)
        kept = first.copy()
        del redistribution
        assert np.array_equal(first, kept)


@case
def steps_take_no_operation_of_their_own(comm: MPI.Intracomm) -> None:
    mesh = rd.Mesh(r=comm.size)
    plan = rd.plan(("i32[24] sum{r}", mesh), "i32[24]")
    for options in ({"op": np.bitwise_or}, {"accumulate": "i8"}):
        with pytest.raises(rd.BackendError, match="op and accumulate are of one reduction; fuse"):
            rmpi.Redistribution.from_plan(plan, comm, fuse=False, **options)  # type: ignore[arg-type]


@case
def one_rank_sends_two_tiles_to_all_others(comm: MPI.Intracomm) -> None:
    """However many there are: a part to each, which they gather; in any order of their memory.

    On one node, where that saves nothing, only if a profile says so.
    """
    at_once = rd.Profile("at once", rd.Link(0.0, 1e9))
    mesh, root = rd.Mesh(x=comm.size), comm.size - 1
    src, dst = rd.ArrayType.parse("f32[840, 96]", rd.Mesh()), rd.ArrayType(mesh, "f32", (840, 96))
    array = example(src)
    for order, shared in (("C", False), ("F", False), ("C", True)):
        with rmpi.Redistribution(
            src, dst, comm, profile=at_once, src_ranks=[root], shared=shared
        ) as made:
            given = np.asarray(array, order=order) if comm.rank == root else None  # type: ignore[call-overload]
            for call in (made, lambda tile, made=made: made.start(tile).wait()[0]):
                assert np.array_equal(call(given), array)
            sent = comm.allreduce(made.sent_bytes, MPI.MAX)
            assert sent <= 2 * array.nbytes * (comm.size - 1) // comm.size
            assert made.received_bytes == (0 if comm.rank == root else array.nbytes)
            if comm.size > 2:  # to two, a part each saves nothing
                assert made.plan is not None
                assert [step.collective for step in made.plan.steps] == ["exchange", "all_gather"]
            wrong = given[1:] if given is not None else None
            with pytest.raises(rd.BackendError, match=f"rank {root}: tile is a tile of"):
                made(wrong)
    with rmpi.Redistribution(src, dst, comm, src_ranks=[root]) as made:
        one_node = len(private(comm).node_ranks) == comm.size
        assert (made.plan is None) == one_node
        if comm.rank == root and one_node:
            assert made.sent_bytes == array.nbytes * (comm.size - 1)
        assert np.array_equal(made(array if comm.rank == root else None), array)


@case
def replicas_on_other_ranks_gather_what_each_received(comm: MPI.Intracomm) -> None:
    """From ranks that hold all of their target, a part of it or nothing, into any positions."""
    rng, ways = random.Random(comm.size), Counter[str]()
    at_once = rd.Profile("at once", rd.Link(0.0, 1e9))
    for _ in range(repetitions(8, 60)):
        meshes = [rd.Mesh({"a": 1, "b": 1}), rd.Mesh(u=1, v=comm.size)]
        if comm.size % 2 == 0:
            meshes += [rd.Mesh(a=2, b=1), rd.Mesh(u=2, v=comm.size // 2)]
        source, target = rng.choice(meshes[::2]), rng.choice(meshes[1::2])
        src = rd.ArrayType.parse(rng.choice(("i32[24{b}, 48{a}]", "i32[24{a}, 48]")), source)
        text = rng.choice(("i32[24, 48]", "i32[24{u}, 48]", "i32[24, 48{_4,u}]", "i32[24{v}, 48]"))
        if 24 % comm.size and "v" in text:
            continue
        dst = rd.ArrayType.parse(text, target)
        ranks, onto = (rng.sample(range(comm.size), m.num_devices) for m in (source, target))
        array, sent = example(src), {}
        for strategy in ("auto", "direct"):
            options = {"src_ranks": ranks, "dst_ranks": onto, "strategy": strategy}
            with rmpi.Redistribution(src, dst, comm, profile=at_once, **options) as made:  # type: ignore[arg-type]
                at = made.src_position
                tile = None if at is None else tile_of(array, src, at)
                assert same_bits(made(tile), tile_of(array, dst, onto.index(comm.rank)))
                sent[strategy] = comm.allreduce(made.sent_bytes, MPI.MAX)
                ways[repr(made).rpartition("into ")[2]] += 1
        assert sent["auto"] <= sent["direct"]
    assert ways["the exchange and gather of parts>"] or comm.size < 3


@case
def replicas_on_other_ranks_receive_nothing_twice(comm: MPI.Intracomm) -> None:
    """Where gathering parts would bring a rank what it holds, each is sent what it lacks."""
    if comm.size < 3:
        return
    at_once = rd.Profile("at once", rd.Link(0.0, 1e9))
    src = rd.ArrayType.parse("i32[24{a}, 840]", rd.Mesh(a=2))
    dst = rd.ArrayType.parse("i32[24, 840]", rd.Mesh(u=comm.size))
    array = example(src)
    with rmpi.Redistribution(src, dst, comm, profile=at_once) as made:
        tile = None if made.src_position is None else tile_of(array, src, made.src_position)
        assert same_bits(made(tile), array)
    held = 0 if tile is None else tile.nbytes
    assert made.received_bytes == array.nbytes - held


@case
def ranks_of_a_target_on_the_mesh_of_the_source_are_obeyed(comm: MPI.Intracomm) -> None:
    """Also where a plan for them has no gather: it is one exchange, between the two sets."""
    if comm.size < 4:
        return
    mesh = rd.Mesh(x=2)
    for texts in (("i32[24{x}, 8]", "i32[24, 8]"), ("i32[24, 8]", "i32[24, 8]")):
        src, dst = (rd.ArrayType.parse(text, mesh) for text in texts)
        array, results = example(src), []
        for profile in (None, "default", "mpi-cluster"):
            options = {"src_ranks": [0, 1], "dst_ranks": [3, 2], "profile": profile}
            with rmpi.Redistribution(src, dst, comm, **options) as made:  # type: ignore[arg-type]
                tile = None if made.src_position is None else tile_of(array, src, made.src_position)
                results.append(made(tile))
        for result in results:
            assert (result is None) == (comm.rank not in (2, 3))
            assert result is None or same_bits(result, array)
