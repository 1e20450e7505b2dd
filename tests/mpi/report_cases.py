"""Public reports of other libraries, each restated by what a program asked for and did not get."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi import streams
from redistrib.backends.mpi.memory import peak_extra
from redistrib.interop.scalapack import parse_scalapack
from tests.mpi.cases import case, mesh_for

MIB = 1 << 20


def tile_at(array: np.ndarray, *indices: Any) -> np.ndarray:
    return np.ascontiguousarray(array[np.ix_(*indices)])


@case
def a_call_takes_the_result_and_no_third_array(comm: MPI.Intracomm) -> None:
    """caput#179: redistributing took three times the array: itself, a copy, and the result."""
    size, row = comm.size, 8 * MIB // comm.size
    src = f"u8[{size}{{x}}, {size}, {row}]", rd.Mesh(x=size)
    dst = f"u8[{size}, {size}{{x}}, {row}]"
    with rmpi.Redistribution(src, dst, comm) as redistribution:
        tile = np.full(redistribution.src.tile_shape, comm.rank, np.uint8)
        redistribution(tile)  # what MPI takes once in a process
        results = []
        extra = peak_extra(lambda: results.append(redistribution(tile)))
    assert extra <= 1.1 * tile.nbytes + 2 * MIB
    assert (results[0][:, 0, 0] == np.arange(comm.size)).all()


@case
def a_gather_takes_the_array_at_the_root_alone(comm: MPI.Intracomm) -> None:
    """The root of a gather held the array twice, as tiles and whole."""
    row = 8 * MIB // comm.size
    t = rd.ArrayType.parse(f"u8[{row}, {comm.size}{{x}}, {comm.size}]", rd.Mesh(x=comm.size))
    tile = np.full(t.tile_shape, comm.rank, np.uint8)
    nbytes = tile.nbytes * comm.size
    root = comm.size - 1
    rmpi.gather(tile, t, comm, root)  # what MPI takes once in a process
    results: list[np.ndarray | None] = []
    extra = peak_extra(lambda: results.append(rmpi.gather(tile, t, comm, root)))
    assert extra <= (nbytes if comm.rank == root else 0) + 0.1 * tile.nbytes + 2 * MIB
    [array] = results
    assert array is None or (array[0, :, 0] == np.arange(comm.size)).all()


@case
def transposed_tiles_are_gathered(comm: MPI.Intracomm) -> None:
    """heat#2559: after a transpose, gathering hung: tiles were strided on some ranks only."""
    mesh = rd.Mesh(x=comm.size)
    array = np.arange(3 * 8 * 4 * 5 * 3, dtype=np.float32).reshape(3, 8, 4, 5, 3)
    split = rd.ArrayType.parse("f32[3{x}:ceil, 8, 4, 5, 3]", mesh)  # of no or one row each
    axes = (0, 1, 4, 3, 2)
    tile = tile_at(array, *split.tile(comm.rank)).transpose(axes)
    src, dst = ("f32[3{x}:ceil, 8, 3, 5, 4]", mesh), "f32[3, 8, 3, 5, 4]"
    assert np.array_equal(rmpi.redistribute(tile, src, dst, comm), array.transpose(axes))


@case
def no_message_is_above_the_largest_count(comm: MPI.Intracomm) -> None:
    """heat#1932: a wide contiguous matrix gave Alltoallw a count that overflowed, and wrong data.

    `make exhaustive` moves tiles above 2^31 bytes; here the largest message is small.
    """
    mesh = rd.Mesh(x=comm.size)
    n = 4096 * comm.size
    array = np.arange(2 * comm.size * n, dtype=np.int32).reshape(2 * comm.size, n)
    rows, columns = (
        rd.ArrayType.parse(text, mesh)
        for text in (f"i32[{2 * comm.size}{{x}}, {n}]", f"i32[{2 * comm.size}, {n}{{x}}]")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "LARGEST", 1000)
        with (
            rmpi.Redistribution(rows, columns, comm) as forth,
            rmpi.Redistribution(columns, rows, comm) as back,
        ):
            tile = tile_at(array, *rows.tile(comm.rank))
            result = forth(tile)
            assert np.array_equal(result, tile_at(array, *columns.tile(comm.rank)))
            assert np.array_equal(back(result), tile)


@case
def out_is_filled_where_nothing_moves(comm: MPI.Intracomm) -> None:
    """mpi4py-fft#56: asked for the layout that it has, an array was returned, and `out` left."""
    t = rd.ArrayType.parse("f64[24{x}, 2]", rd.Mesh(x=comm.size))
    tile, out = np.ones(t.tile_shape), np.zeros(t.tile_shape)
    assert rmpi.redistribute(tile, t, t, comm, out) is out
    assert np.array_equal(out, tile)
    out[...] = 0
    assert tile.all()


@case
def a_program_restarts_on_another_number_of_ranks(comm: MPI.Intracomm) -> None:
    """firedrake#1873: what N processes have saved, P others load and have in their own layout."""
    n, saved = 7 * comm.size + 3, comm.size + 2
    array = np.random.default_rng(1).random((n, 5))
    with tempfile.TemporaryDirectory(prefix="saved-") as made:
        directory = Path(comm.bcast(made))
        parts = np.array_split(array, saved)
        if comm.rank == 0:
            for number, part in enumerate(parts):
                np.save(directory / f"{number}.npy", part)
        comm.Barrier()
        files = np.array_split(np.arange(saved), comm.size)
        tile = np.concatenate([np.load(directory / f"{number}.npy") for number in files[comm.rank]])
        comm.Barrier()
    rows = [sum(len(parts[number]) for number in held) for held in files]
    loaded = f"f64[{n}{{x,y}}:sizes({','.join(map(str, rows))}), 5]", mesh_for(comm)
    dst = rd.ArrayType.parse(f"f64[{n}{{y,x}}:balanced, 5]", mesh_for(comm))
    result = rmpi.redistribute(tile, loaded, dst, comm)
    assert np.array_equal(result, tile_at(array, *dst.tile(comm.rank)))


def cyclic(n: int, block: int, process: int, processes: int) -> np.ndarray:
    indices = np.arange(n)
    return indices[indices // block % processes == process]


@case
def blocks_and_grids_of_a_matrix_change_at_once(comm: MPI.Intracomm) -> None:
    """DLA-Future#919: a block-cyclic matrix on one grid, wanted in other blocks on another."""
    grids = [rd.Mesh(p=comm.size, q=1), mesh_for(comm)]
    blocks = [(4, 6), (3, 5)]
    array = np.random.default_rng(2).random((41, 38))
    types, tiles = [], []
    for (_, p), (_, q), (mb, nb), mesh in (
        (*m.axes, b, m) for m, b in zip(grids, blocks, strict=True)
    ):
        types.append(parse_scalapack(f"[1, 0, 41, 38, {mb}, {nb}, 0, 0, 99]", mesh, None, "f64"))
        row, column = divmod(comm.rank, q)
        tiles.append(tile_at(array, cyclic(41, mb, row, p), cyclic(38, nb, column, q)))
    for order in "CF":
        result = rmpi.redistribute(np.asarray(tiles[0], order=order), *types, comm)
        assert np.array_equal(result, tiles[1])


@case
def slabs_need_one_transpose(comm: MPI.Intracomm) -> None:
    """CaNS#18: with all ranks along one dimension, pencils x to y to z are one exchange."""
    shape = (comm.size + 1, 5, 2 * comm.size + 1)
    array = np.random.default_rng(3).random(shape)
    mesh = rd.Mesh(x=comm.size, y=1)
    pencils = [
        rd.ArrayType(mesh, "f64", shape, dims, uneven=dict.fromkeys(range(3), "ceil"))
        for dims in ([(), ("y",), ("x",)], [("y",), (), ("x",)], [("x",), ("y",), ()])
    ]
    tiles = [tile_at(array, *t.tile(comm.rank)) for t in pencils]
    messages = []
    for at in (0, 1):
        with rmpi.Redistribution(*pencils[at : at + 2], comm) as redistribution:
            messages.append(redistribution.num_collectives)
            assert np.array_equal(redistribution(tiles[at]), tiles[at + 1])
    assert messages == [0, 1]


@case
def any_map_of_shapes_becomes_any_other(comm: MPI.Intracomm) -> None:
    """heat's lshape_map: `a[:-1] + b[1:]` of other cuts, ranks without a row among them."""
    n = 3 * comm.size
    array = np.arange(n + 1.0)
    maps = [[3] * comm.size, [0] * (comm.size - 1) + [n], [n] + [0] * (comm.size - 1)]
    maps.append([max(0, 3 + (at % 3 - 1) * 2) for at in range(comm.size - 1)])
    maps[-1].append(n - sum(maps[-1]))
    for first, second in zip(maps, maps[1:] + maps[:1], strict=True):
        texts = [f"f64[{n}{{x}}:sizes({','.join(map(str, sizes))})]" for sizes in (first, second)]
        a, b = (
            np.split(part, np.cumsum(sizes)[:-1])[comm.rank]
            for part, sizes in ((array[:-1], first), (array[1:], second))
        )
        moved = rmpi.redistribute(a, (texts[0], rd.Mesh(x=comm.size)), texts[1], comm)
        assert np.array_equal(moved + b, 2 * b - 1)


@case
def ownership_ranges_are_types(comm: MPI.Intracomm) -> None:
    """PETSc: vectors of any ownership ranges, and PETSC_DECIDE's own, n // P and one for n % P."""
    n = 4 * comm.size + 1
    array, mesh = np.arange(float(n)), rd.Mesh(x=comm.size)
    mine = n // comm.size + (n % comm.size > comm.rank)
    start = comm.exscan(mine) or 0
    decided = rd.ArrayType.parse(f"f64[{n}{{x}}:balanced]", mesh)
    assert decided.tile(comm.rank)[0].tolist() == list(range(start, start + mine))
    ranges = sorted(np.random.default_rng(4).integers(0, n, comm.size - 1).tolist())
    sizes = np.diff([0, *ranges, n])
    other = f"f64[{n}{{x}}:sizes({','.join(map(str, sizes))})]"
    owned = np.split(array, ranges)[comm.rank]
    assert np.array_equal(rmpi.redistribute(array[start:][:mine], decided, other, comm), owned)


@case
def sub_matrices_move_between_contexts(comm: MPI.Intracomm) -> None:
    """pdgemr2d: a sub-matrix anywhere in A goes anywhere in B, of other blocks, other processes,
    and another process with the first block; the rest of B stays."""
    middle = comm.size // 2  # which is in both
    ranks = range(middle + 1), range(middle, comm.size)
    first = rd.Mesh({"p": 1, "q": len(ranks[0])}, devices=ranks[0])
    second = rd.Mesh({"p": len(ranks[1]), "q": 1}, devices=ranks[1])
    a, b = np.random.default_rng(5).random((2, 30, 31))
    starts = [len(held) - 1 for held in ranks]
    src = parse_scalapack(f"[1, 0, 30, 31, 4, 3, 0, {starts[0]}, 99]", first, None, "f64")
    dst = parse_scalapack(f"[1, 0, 30, 31, 5, 7, {starts[1]}, 0, 99]", second, None, "f64")
    index = np.s_[3:20, 11:30], np.s_[13:30, 1:20]
    expected = b.copy()
    expected[index[1]] = a[index[0]]
    ends = []
    for array, t in ((a, src), (b, dst), (expected, dst)):
        here = comm.rank in t.mesh.ids
        ends.append(tile_at(array, *t.tile(t.mesh.ids.index(comm.rank))) if here else None)
    tile, out, wanted = ends
    options: dict[str, Any] = {"src_ranks": src.mesh.ids, "dst_ranks": dst.mesh.ids}
    with rmpi.Redistribution(
        src, dst, comm, src_index=index[0], dst_index=index[1], **options
    ) as redistribution:
        result = redistribution(tile, out)
    assert (result is None) if wanted is None else np.array_equal(result, wanted)
