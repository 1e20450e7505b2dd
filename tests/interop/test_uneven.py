"""A layout that cuts a dimension unevenly is refused as such by every reader, whatever its size."""

from __future__ import annotations

import random
import re
from math import prod
from typing import Any

import pytest

import redistrib as rd
from redistrib.interop import alpa, colossalai, dtensor, hlo, jax_text, scalapack, shardy
from tests.interop.notations import NOTATIONS

MESH = rd.Mesh(x=2, y=2)


def read_with_size(name: str, text: str, t: rd.ArrayType, dim: int, size: int) -> rd.ArrayType:
    """What a notation reads where dimension `dim` has another size; some have it in their text."""
    shape = [*t.shape[:dim], size, *t.shape[dim + 1 :]]
    match name:
        case "aval":
            sizes = iter(shape)
            head, rest = text.split("[", 1)
            text = head + "[" + re.sub(r"(?<![\w(])\d+(?=[@,\]])", lambda _: str(next(sizes)), rest)
            return jax_text.parse_aval(text, t.mesh)
        case "ScaLAPACK":
            fields = text.strip("[]").split(", ")
            fields[2:4] = map(str, shape)
            fields[8] = str(max(shape))
            return scalapack.parse_scalapack(f"[{', '.join(fields)}]", t.mesh, None, t.dtype)
        case "NamedSharding":
            return jax_text.parse_named_sharding(text, None, shape, t.dtype)
        case _:
            like = rd.ArrayType(t.mesh, t.dtype, shape)
            return NOTATIONS[name].read(text, like)


@pytest.mark.parametrize("name", NOTATIONS)
def test_every_uneven_size_is_refused(name: str) -> None:
    notation = NOTATIONS[name]
    rng = random.Random(f"uneven {name}")
    tried = 0
    while tried < 200:
        t = notation.draw(rng.choice)
        try:
            text = notation.write(t)
        except rd.LayoutError:
            continue
        sharded = [dim for dim, factors in enumerate(t.dims) if factors]
        if not sharded or (re.search(r"\d@", text) is None and name == "aval"):
            continue
        dim = rng.choice(sharded)
        factors = prod(factor.size for factor in t.dims[dim])
        if name == "ScaLAPACK":  # its text states the block, so the cycles follow from the size
            factors = int(text.strip("[]").split(", ")[4 + dim]) * t.mesh.axes[dim][1]
        size = rng.choice([n for n in range(1, 2 * factors + 2) if n % factors])
        with pytest.raises(rd.LayoutError, match=r"a rule says how it is cut"):
            read_with_size(name, text, t, dim, size)
        tried += 1


@pytest.mark.parametrize(
    ("parse", "text", "shape"),
    [
        (dtensor.parse_dtensor, "[Shard(dim=0), Shard(dim=0)]", (2,)),
        (dtensor.parse_dtensor, "[Shard(dim=0), Shard(dim=0)]", (1,)),
        (dtensor.parse_dtensor, "[Shard(dim=0), Shard(dim=0)]", (6,)),
        (dtensor.parse_dtensor, "S(0)[1]S(0)[0]", (2,)),
        (dtensor.parse_dtensor, "[_StridedShard(dim=0, sf=2), Shard(dim=0)]", (2,)),
        (dtensor.parse_dtensor, "[_StridedShard(dim=0, sf=2), Replicate()]", (6,)),
        (dtensor.parse_dtensor, "RS(0)", (3,)),
        (jax_text.parse_partition_spec, "P(('x', 'y'))", (2,)),
        (shardy.parse_sdy, '<@mesh, [{"x", "y"}]>', (2,)),
        (shardy.parse_sdy, '<@mesh, [{"y"}]>', (5,)),
        (hlo.parse_hlo, "{devices=[4]<=[4]}", (2,)),
        (hlo.parse_hlo, "{devices=[2,2]0,1,2,3 last_tile_dim_replicate}", (3,)),
        (hlo.parse_hlo, "{mesh['x'=2,'y'=2], [{'x','y'}]}", (2,)),
        (alpa.parse_alpa, "ShardingSpec([Chunked([4])], [ShardedAxis(0)])", (2,)),
        (colossalai.parse_colossalai, "[S01]", (2,)),
    ],
)
def test_uneven_examples(parse: Any, text: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(rd.LayoutError, match=r"a rule says how it is cut"):
        parse(text, MESH, shape, "f32")


def test_an_empty_dimension_is_even() -> None:
    t = dtensor.parse_dtensor("[Shard(dim=0), Shard(dim=0)]", MESH, (0,), "f32")
    assert t == rd.ArrayType(MESH, "f32", (0,))
