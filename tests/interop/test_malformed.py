"""Malformed text names the column and what was expected there, and nothing else ever happens."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

import redistrib as rd
from redistrib.interop import alpa, colossalai, dtensor, hlo, jax_text, scalapack, shardy
from tests.interop.notations import NOTATIONS

MESH = rd.Mesh(x=2, y=4)


def parse_aval(text: str, mesh: rd.Mesh, *_: object) -> rd.ArrayType:
    return jax_text.parse_aval(text, mesh)


def parse_mesh(text: str, *_: object) -> rd.Mesh:
    return shardy.parse_sdy_mesh(text)


Case = tuple[Callable[..., object], str, str]
CASES: list[Case] = [
    # reader, text with a mark before the column of the error, what was expected there
    (jax_text.parse_partition_spec, "P('x', ¦'q')", "an axis of the mesh (x, y)"),
    (jax_text.parse_partition_spec, "P('x', 'y'¦", "',' or ')'"),
    (jax_text.parse_partition_spec, "P('x', ¦x)", "a tuple of axes"),
    (jax_text.parse_partition_spec, "P('x', 'y', ¦None)", "at most 2 entries"),
    (jax_text.parse_partition_spec, "P(¦UNCONSTRAINED)", "unconstrained dimension has none"),
    (jax_text.parse_partition_spec, "P(unreduced={'x'}, ¦'y')", "entries stand before"),
    (jax_text.parse_partition_spec, "P('x') ¦tail", "the end"),
    (jax_text.parse_partition_spec, "¦('x',)", "'PartitionSpec' or 'P'"),
    (jax_text.parse_named_sharding, "NamedSharding(mesh=¦Mesh('x': 3), spec=P())", "x=2,y=4"),
    (jax_text.parse_named_sharding, "NamedSharding(mesh=Mesh('x' ¦2), spec=P())", "':'"),
    (parse_aval, "¦float33[8@x,8]", "unknown dtype 'float33'"),
    (parse_aval, "float32[8@¦z,8]", "an axis of the mesh (x, y)"),
    (parse_aval, "float32[8@x,¦y]", "the size of a dimension"),
    (parse_aval, "float32[8@x,8]{¦V:y}", "'U' or 'R'"),
    (parse_aval, "float32[8@(x,y¦", "',' or ')'"),
    (parse_mesh, '<["x"=¦y]>', "the size of an axis"),
    (parse_mesh, '<¦["x"=2], device_ids=[0, 0]>', "device ids are distinct"),
    (shardy.parse_sdy, '#sdy.sharding<@mesh, ¦[{"x"}]>', "2 lists of axes"),
    (shardy.parse_sdy, '<@mesh, [{"x"}, {¦?}]>', "an open one is a pattern"),
    (shardy.parse_sdy, '<@mesh, [{¦"x":(1)3}, {}]>', "divide its size 2"),
    (shardy.parse_sdy, '<@mesh, [{"x"}, {¦"z"}]>', "an axis of the mesh (x, y)"),
    (shardy.parse_sdy, '<@mesh, [{"x"}, {}], ¦unreduce={"y"}>', "'unreduced'"),
    (shardy.parse_sdy, '<¦mesh<["x"=2]>, [{"x"}, {}]>', "the given mesh"),
    (shardy.parse_sdy, '<¦[{"x"}, {}]>', "@NAME or mesh<...>"),
    (hlo.parse_hlo, "{devices=¦[2,4]<=[9]}", "as many tiles as there are devices, 9"),
    (hlo.parse_hlo, "{devices=[2,4]<=[4,2]T¦(1,1)}", "a permutation of 0 to 1"),
    (hlo.parse_hlo, "{devices=[2,4]<=[4,2]¦}", "'T'"),
    (hlo.parse_hlo, "{devices=[2,2]¦0,1,2,2}", "distinct device ids"),
    (hlo.parse_hlo, "{¦devices=[2,2]0,1,2,3}", "the 8 devices of the mesh"),
    (hlo.parse_hlo, "{devices=¦[8]<=[8]}", "2 tile dimensions"),
    (hlo.parse_hlo, "{devices=[2,1,4]<=[8] last_tile_dims={¦manual}}", "'replicated'"),
    (hlo.parse_hlo, "{devices=[2,4]<=[8] ¦last_tile_dim}", "'}'"),
    (hlo.parse_hlo, "{¦manual}", "does not say what a device holds"),
    (hlo.parse_hlo, "{replicated ¦shard_as 3}", "shard_as ties a sharding to others"),
    (hlo.parse_hlo, "{devices=[2,4]<=[8] ¦shard_like 3}", "shard_like ties a sharding to others"),
    (hlo.parse_hlo, "{¦maximal_mesh[device_id=3]}", "a mesh of device 3 alone"),
    (hlo.parse_hlo, "{mesh['x'=2,'y'=4], ¦manual}", "manual does not say"),
    (hlo.parse_hlo, "{mesh['x'=2,'y'=4], [{}, {}], ¦manual={'x'}}", "manual does not say"),
    (hlo.parse_hlo, "{mesh['x'=2,'y'=4], [{}, {}], unreduced=¦or{'x'}}", "sum, max, min"),
    (
        hlo.parse_hlo,
        '{unreduced ¦metadata={op_type="sdy::reduction_op" op_name="OR"}}',
        "one of sum, max, min as reduction_op",
    ),
    (shardy.parse_sdy, '<@mesh, [{"x"}, {}], unreduced=¦prod{"y"}>', "sum, max, min"),
    (hlo.parse_hlo, "{¦maximal device=3}", "a mesh of device 3 alone"),
    (hlo.parse_hlo, "{¦replicate}", "replicated, unreduced or maximal"),
    (hlo.parse_hlo, "{mesh['x'=2,'y'=4], [{'x'}, {¦'y':(1)3}]}", "divide its size 4"),
    (hlo.parse_hlo, "{mesh¦['x'=2,'y'=2], [{'x'}, {'y'}]}", "the given mesh"),
    (hlo.parse_hlo, "{mesh¦['x'=2,'y'=4], device_ids=(0), [{}, {}]}", "8 positions"),
    (dtensor.parse_dtensor, "[Shard(0)¦]", "a placement for each of the 2 mesh dimensions"),
    (dtensor.parse_dtensor, "[Shard(¦2), Replicate()]", "a tensor dimension below 2"),
    (dtensor.parse_dtensor, "¦S(0)[1]S(0)", "an order [0] to [1] on each shard of 0"),
    (dtensor.parse_dtensor, "[Partial(¦avg), Replicate()]", "one of sum, product, max, min"),
    (dtensor.parse_dtensor, "P(sum)¦P(max)", "one reduction for all, sum"),
    (dtensor.parse_dtensor, "S(0)R ¦R", "the end"),
    (dtensor.parse_dtensor, "S(0)¦Q", "Shard, Replicate, Partial"),
    (alpa.parse_alpa, "ShardingSpec(¦[Chunked([2])], [ShardedAxis(0)])", "2 dimensions"),
    (
        alpa.parse_alpa,
        "ShardingSpec([Chunked([2]), NoSharding()], [ShardedAxis(¦1), Replicated(4)])",
        "the number of one of the 1 chunks",
    ),
    (
        alpa.parse_alpa,
        "ShardingSpec([Chunked([2]), NoSharding()], ¦[Replicated(8)])",
        "each of the 1 chunks once",
    ),
    (alpa.parse_alpa, "ShardingSpec([NoSharding(), NoSharding()], ¦[Replicated(4)])", "8 devices"),
    (colossalai.parse_colossalai, "[R, ¦S2]", "axes of the mesh, 0 to 1"),
    (colossalai.parse_colossalai, "[R, ¦T]", "R, or S with numbers"),
    (colossalai.parse_colossalai, "¦[R]", "2 entries"),
    (scalapack.parse_scalapack, "[1, 0, 8, 8, 4, 2, 0, ¦4, 4]", "a process of y, 0 to 3"),
    (scalapack.parse_scalapack, "[¦2, 0, 8, 8, 4, 2, 0, 0, 4]", "a dense matrix"),
    (scalapack.parse_scalapack, "[1, 0, 8, 8, 4, 2, 0, 0, ¦3]", "at least 4, the local rows"),
    (scalapack.parse_scalapack, "[1, 0, 8¦]", "nine fields"),
]


@pytest.mark.parametrize(("parse", "marked", "expected"), CASES, ids=[case[1] for case in CASES])
def test_the_column_and_what_was_expected(
    parse: Callable[..., object], marked: str, expected: str
) -> None:
    text = marked.replace("¦", "")
    with pytest.raises(rd.TypeSyntaxError) as caught:
        parse(text, MESH, (8, 8), "f32")
    assert caught.value.column == marked.index("¦") + 1
    assert expected in str(caught.value).split("\n")[0]
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("parse", "text", "rule"),
    [
        (jax_text.parse_partition_spec, "P('x', 'x')", "used once"),
        (jax_text.parse_partition_spec, "P('x', unreduced={'x'})", "used once"),
        (jax_text.parse_partition_spec, "P('x', reduced={'x'})", "used once"),
        (shardy.parse_sdy, '<@mesh, [{"x"}, {}], replicated={"x"}>', "used once"),
        (hlo.parse_hlo, "{devices=[4,2]0,1,3,2,4,5,6,7}", "made of digits"),
        (dtensor.parse_dtensor, "[_StridedShard(0, sf=16), Replicate()]", "split factor 16"),
    ],
)
def test_well_formed_text_that_is_no_layout(
    parse: Callable[..., object], text: str, rule: str
) -> None:
    with pytest.raises(rd.LayoutError, match=rule):
        parse(text, MESH, (8, 8), "f32")


def test_tiles_that_are_no_digits_of_the_mesh() -> None:
    with pytest.raises(rd.LayoutError, match="digits of the axes of the mesh x=2,y=3"):
        hlo.parse_hlo("{devices=[3,2]<=[6]}", rd.Mesh(x=2, y=3), (6, 6), "f32")
    with pytest.raises(rd.LayoutError, match="a tile coordinate is made of digits"):
        hlo.parse_hlo("{devices=[3,2]<=[3,2]T(1,0)}", rd.Mesh(x=6), (6, 6), "f32")


@pytest.mark.parametrize("name", NOTATIONS)
def test_every_spoilt_text_is_refused_with_a_column_or_read(name: str) -> None:
    notation = NOTATIONS[name]
    rng = random.Random(f"spoil {name}")
    refused = 0
    for _ in range(400):
        t = notation.draw(rng.choice)
        try:
            text = notation.write(t)
        except rd.LayoutError:
            continue
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                spoilt = text[:at]
            case 1:
                spoilt = text[:at] + text[at + 1 :]
            case 2:
                spoilt = text[:at] + rng.choice("()[]{}<>,'\"=:?@_SRx0189é ") + text[at:]
            case _:
                spoilt = text[:at] + rng.choice("9" * 30 + "x") * rng.randrange(30) + text[at:]
        try:
            found = notation.read(spoilt, t)
        except (rd.TypeSyntaxError, rd.LayoutError) as refusal:
            error = refusal
        else:  # it has become another layout, and says which
            assert notation.read(notation.write(found), found) == found
            continue
        if isinstance(error, rd.TypeSyntaxError):
            refused += 1
            assert 1 <= error.column <= len(spoilt) + 1
            assert str(error).startswith(f"column {error.column}: ")
    assert refused > 50
