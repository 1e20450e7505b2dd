"""Uneven layouts of other projects: what each device holds is what their own rule says, or none."""

from __future__ import annotations

import json
import random
from math import prod
from pathlib import Path
from typing import Any

import pytest

import redistrib as rd
from redistrib.interop import alpa, colossalai, dtensor, hlo, jax_text, scalapack, shardy
from redistrib.types.digits import Local
from tests.interop.notations import NOTATIONS
from tests.repetitions import repetitions
from tests.uneven.meaning import held

MESH = rd.Mesh(x=2, y=2)
DATA = Path(__file__).parents[1] / "data"
CEIL = ("PartitionSpec", "NamedSharding", "Shardy", "HLO v1", "HLO v2", "HLO v3")


@pytest.mark.parametrize("name", CEIL)
def test_blocks_of_xla_are_those_of_ceil(name: str) -> None:
    """Read with a size that the axes do not divide, and written again."""
    notation = NOTATIONS[name]
    rng = random.Random(f"uneven {name}")
    tried = 0
    while tried < repetitions(40, 400):
        t = notation.draw(rng.choice)
        sharded = [dim for dim, factors in enumerate(t.dims) if factors]
        if not sharded or any(isinstance(f, Local) for factors in t.dims for f in factors):
            continue
        try:
            text = notation.write(t)
        except rd.LayoutError:
            continue
        dim = rng.choice(sharded)
        factors = prod(factor.size for factor in t.dims[dim])
        shape = [*t.shape]
        shape[dim] = rng.choice([n for n in range(1, 2 * factors + 2) if n % factors])
        if name == "NamedSharding":
            read = jax_text.parse_named_sharding(text, None, shape, t.dtype)
        else:
            read = notation.read(text, rd.ArrayType(t.mesh, t.dtype, shape))
        words = [str(factor) for factor in t.dims[dim]]
        meaning = held(shape[dim], words, "ceil", t.mesh)
        positions = range(t.mesh.num_devices)
        assert tuple(tuple(read.tile(p)[dim].tolist()) for p in positions) == meaning
        assert notation.read(notation.write(read), rd.ArrayType(t.mesh, t.dtype, shape)) == read
        tried += 1


def test_dtensor_cuts_as_torch_does() -> None:
    """What torch itself gave every rank, recorded: all orders, sizes that run out."""
    layouts = json.loads((DATA / "uneven_dtensor.json").read_text(encoding="utf-8"))["layouts"]
    assert len(layouts) == 1000
    uneven, refused = 0, []
    for given in layouts:
        mesh = rd.Mesh([(f"m{at}", size) for at, size in enumerate(given["mesh"])])
        shape = (given["size"],)
        try:
            t = dtensor.parse_dtensor(given["placements"], mesh, shape, "f32")
        except rd.LayoutError as error:
            refused.append(str(error))
            continue
        for position, runs in enumerate(given["ranks"]):
            indices = [index for a, b in runs for index in range(a, b)]
            assert t.tile(position)[0].tolist() == indices, given
        assert dtensor.parse_dtensor(dtensor.format_dtensor(t), mesh, shape, "f32") == t
        uneven += bool(t.uneven)
    # Two strided shards in a row may not be cuts one after the other, in torch itself.
    assert len(refused) < 10
    assert all("torch gives the device at position" in reason for reason in refused)
    assert uneven > 600


def numroc(n: int, block: int, process: int, processes: int) -> int:
    """Rows of a process, as NUMROC counts them, counted from the one that has the first block."""
    blocks = n // block
    rows = blocks // processes * block
    extra = blocks % processes
    if process < extra:
        return rows + block
    return rows + n % block if process == extra else rows


def test_block_cyclic_with_a_cut_off_block_is_that_of_numroc() -> None:
    rng = random.Random("numroc")
    for _ in range(repetitions(150, 5000)):
        mesh = rd.Mesh(p=rng.choice((1, 2, 3, 4)), q=rng.choice((1, 2, 3)))
        sizes = rng.randrange(60), rng.randrange(60)
        blocks = rng.randrange(1, 10), rng.randrange(1, 10)
        first = [rng.randrange(count) for _, count in mesh.axes]
        fields = [1, 0, *sizes, *blocks, *first, 99]
        t = scalapack.parse_scalapack(str(fields), mesh, None, "float64")
        for position, process_number in enumerate(t.mesh.ids):
            for dim, (axis, count) in enumerate(mesh.axes):
                n, block = sizes[dim], blocks[dim]
                process = (mesh.coordinates(process_number)[axis] - first[dim]) % count
                indices = t.tile(position)[dim].tolist()
                assert len(indices) == numroc(n, block, process, count)
                assert indices == [i for i in range(n) if i // block % count == process]
        assert scalapack.parse_scalapack(scalapack.format_scalapack(t), t.mesh, None, "f64") == t


@pytest.mark.parametrize(
    ("parse", "text", "shape", "meaning"),
    [
        (dtensor.parse_dtensor, "[Shard(dim=0), Shard(dim=0)]", (10,), "f32[10{x,y}:nested]"),
        (dtensor.parse_dtensor, "S(0)[1]S(0)[0]", (10,), "f32[10{y,x}:nested]"),
        (dtensor.parse_dtensor, "[_StridedShard(dim=0, sf=2), Shard(dim=0)]", (5,), "f32[5{y,x}]"),
        (dtensor.parse_dtensor, "RS(0)", (3,), "f32[3{y}:ceil]"),
        (jax_text.parse_partition_spec, "P(('x', 'y'))", (2,), "f32[2{x,y}:ceil]"),
        (shardy.parse_sdy, '<@mesh, [{"y"}]>', (5,), "f32[5{y}:ceil]"),
        (hlo.parse_hlo, "{devices=[4]<=[4]}", (10,), "f32[10{x,y}:ceil]"),
        (hlo.parse_hlo, "{mesh['x'=2,'y'=2], [{'x','y'}]}", (2,), "f32[2{x,y}:ceil]"),
    ],
)
def test_uneven_examples(parse: Any, text: str, shape: tuple[int, ...], meaning: str) -> None:
    if ":" not in meaning:
        meaning = meaning.replace("}", "}:nested")
    assert parse(text, MESH, shape, "f32") == rd.ArrayType.parse(meaning, MESH)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (dtensor.parse_dtensor, "[_StridedShard(dim=0, sf=2), Replicate()]"),
        (alpa.parse_alpa, "ShardingSpec([Chunked([4])], [ShardedAxis(0)])"),
        (colossalai.parse_colossalai, "[S01]"),
    ],
)
def test_what_has_no_uneven_meaning_is_refused(parse: Any, text: str) -> None:
    with pytest.raises(rd.LayoutError, match=r"a rule says how it is cut|split factor counts"):
        parse(text, MESH, (6,), "f32")


@pytest.mark.parametrize("name", [*NOTATIONS])
def test_blocks_that_a_notation_cannot_say_are_refused(name: str) -> None:
    t = rd.ArrayType.parse("f32[10{y}:sizes(1,9), 4{x}]", rd.Mesh(x=2, y=2))
    with pytest.raises(rd.LayoutError, match=r"has no word for uneven blocks"):
        NOTATIONS[name].write(t)


def test_an_empty_dimension_is_even() -> None:
    t = dtensor.parse_dtensor("[Shard(dim=0), Shard(dim=0)]", MESH, (0,), "f32")
    assert t == rd.ArrayType(MESH, "f32", (0,))
