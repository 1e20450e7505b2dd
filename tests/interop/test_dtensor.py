"""DTensor placements against the local shards that torch itself makes.

data/dtensor.json was recorded by data/record_dtensor.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib.interop.dtensor import format_dtensor, parse_dtensor

RECORDS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "dtensor.json").read_text()
)["records"]


def mesh_of(record: dict[str, Any]) -> rd.Mesh:
    return rd.Mesh([(f"m{at}", size) for at, size in enumerate(record["mesh"])])


def tiles(t: rd.ArrayType) -> list[list[int]]:
    """The flat indices of the elements that each device holds."""
    array = np.arange(t.size).reshape(t.shape)
    return [array[np.ix_(*t.tile(p))].ravel().tolist() for p in range(t.mesh.num_devices)]


def type_of(record: dict[str, Any], text: str) -> rd.ArrayType | None:
    """The type of a layout; None for split factors, such as 3 and then 2, that do not nest."""
    try:
        return parse_dtensor(text, mesh_of(record), record["shape"], "float32")
    except rd.LayoutError as error:
        if "split factor" not in str(error):
            raise
        return None


def test_every_local_shard_is_torchs() -> None:
    agreed, without_type = 0, []
    for record in RECORDS:
        for text in record["texts"]:
            t = type_of(record, text)
            if t is None:
                without_type.append(text)
                break
            assert tiles(t) == record["tiles"], text
            again = parse_dtensor(format_dtensor(t), t.mesh, t.shape, "float32")
            assert again == t
        else:
            agreed += 1
    assert agreed == 527
    assert without_type == ["_S(0, 3)_S(0, 2)", "_S(0, 3)_S(0, 2)", "P(min)_S(0, 3)_S(0, 4)"]


def test_the_data_can_disagree() -> None:
    """The comparison tells left to right from right to left."""
    record = next(r for r in RECORDS if "S(0)[1]S(0)[0]" in r["texts"] and 1 not in r["mesh"])
    wrong = parse_dtensor("S(0)S(0)", mesh_of(record), record["shape"], "float32")
    assert tiles(wrong) != record["tiles"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[Shard(0), Shard(1)]", "f32[16{dp}, 16{tp}]"),
        ("(Shard(dim=-1), Replicate())", "f32[16, 16{dp}]"),
        ("(Shard(0), Shard(0),)", "f32[16{dp,tp}, 16]"),
        ("[_StridedShard(0, split_factor=4), Shard(0)]", "f32[16{tp,dp}, 16]"),
        ("[_StridedShard(dim=0, sf=2), Replicate()]", "f32[16{_2,dp}, 16]"),
        ("_S(0, 8)R", "f32[16{_8,dp}, 16]"),
        ("S(0)[1]S(0)[0]", "f32[16{tp,dp}, 16]"),
        ("S(1)[0]S(1)[1]", "f32[16, 16{dp,tp}]"),
        ("[Partial(), Partial('sum')]", "f32[16, 16] sum{dp,tp}"),
        ("P(product)S(0)", "f32[16{tp}, 16] prod{dp}"),
        ("[Partial(reduce_op='max'), Shard(0)]", "f32[16{tp}, 16] max{dp}"),
        ("PR", "f32[16, 16] sum{dp}"),
    ],
)
def test_ways_to_write_placements(text: str, expected: str) -> None:
    assert str(parse_dtensor(text, rd.Mesh(dp=2, tp=4), (16, 16), "f32")) == expected


SPEC = (
    "DTensorSpec(mesh=DeviceMesh('cuda', [[0, 1], [2, 3]], mesh_dim_names=('dp', 'tp')), "
    "placements=(Shard(dim=0), Shard(dim=0)), tensor_meta=TensorMeta(shape=torch.Size([8, 4]), "
    "stride=(4, 1), dtype=torch.bfloat16)@)"
)


SPEC_8X8 = SPEC.replace("[8, 4]", "[8, 8]").replace("bfloat16", "float32")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Spec(S(0)R on (8, 8))", "f32[8{dp}, 8]"),
        ("Spec(RS(1) on (8, 8))", "f32[8, 8{tp}]"),
        ("Spec(f32[8, 8](S(0)R))", "f32[8{dp}, 8]"),
        ("Spec(f32[8, 8](S(0)[1]S(0)[0]))", "f32[8{tp,dp}, 8]"),
        ("Spec(f32[8, 8](P(max)_SS(0, 2)))", "f32[8{_2,tp}, 8] max{dp}"),
        ("_SS(0, 2)R", "f32[8{_2,dp}, 8]"),
    ],
)
def test_what_torch_prints_of_a_spec(text: str, expected: str) -> None:
    mesh = rd.Mesh(dp=2, tp=2)
    assert str(parse_dtensor(text, mesh, (8, 8), "f32")) == expected
    if "f32" in text:
        assert str(parse_dtensor(text, mesh)) == expected
    if "on" in text:
        assert str(parse_dtensor(text, mesh, None, "f32")) == expected


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("", "bf16[8{dp,tp}, 4]"),
        (", shard_order=None", "bf16[8{dp,tp}, 4]"),
        (
            ", shard_order=(ShardOrderEntry(tensor_dim=0, mesh_dims=(1, 0)),), "
            "use_strided_shard_as_shard_order=False",
            "bf16[8{tp,dp}, 4]",
        ),
    ],
)
def test_a_long_spec_says_all(tail: str, expected: str) -> None:
    text = SPEC.replace("@", tail)
    t = parse_dtensor(text, None)
    assert t.mesh == rd.Mesh(dp=2, tp=2)
    assert str(t) == expected
    assert parse_dtensor(text, t.mesh, (8, 4), "bf16") == t


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        ("DeviceMesh('cpu', [0, 1])", rd.Mesh(m0=2)),
        ("DeviceMesh:([1, 0])", rd.Mesh({"m0": 2}, devices=[1, 0])),
        ("DeviceMesh((dp=2, tp=3), 'cuda', stride=(3, 1))", rd.Mesh(dp=2, tp=3)),
        (
            "DeviceMesh((dp=2, tp=3), 'cuda', stride=(1, 2))",
            rd.Mesh({"dp": 2, "tp": 3}, devices=[0, 2, 4, 1, 3, 5]),
        ),
        ("DeviceMesh((2,), 'cuda', stride=(1,))", rd.Mesh(m0=2)),
    ],
)
def test_meshes_of_torch(mesh: str, expected: rd.Mesh) -> None:
    placements = ", ".join(["Replicate()"] * len(expected.axes))
    text = f"DTensorSpec(mesh={mesh}, placements=({placements},))"
    assert parse_dtensor(text, None, (6,), "f32") == rd.ArrayType(expected, "f32", (6,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Partial(avg), Replicate()]", "one of sum, product, max, min, got 'avg'"),
        ("[_NormPartial(reduce_op='sum', norm_type=2.0), R]", "_NormPartial is no reduction"),
        ("R_MaskPartial(offset_shape=(8, 8), offset_dim=0)", "_MaskPartial is no reduction"),
        ("RMaskP", "MaskP is no reduction of elements"),
        ("Spec(S(0)R)", "column 6: expected a shape"),
        ("Spec(S(0)R on (8, 9))", r"the given shape, \(8, 8\)"),
        ("Spec(bf16[8, 8](S(0)R))", "the given dtype, 'f32'"),
        ("Spec(f32[8, 8](S(0)R)", "the end of the text"),
        ("Spec(f33[8, 8](S(0)R))", "unknown dtype 'f33'"),
        ("DTensorSpec(mesh=DeviceMesh('cpu', [0, 1]), placements=(R,))", "the given mesh"),
        ("DTensorSpec(mesh=DeviceMesh('cpu', [[0], [1, 2]]), placements=(R,))", "rows of one"),
        (
            SPEC.replace("[8, 4]", "[8, 8]")
            .replace("bfloat16", "float32")
            .replace("@", ", colour=1"),
            "tensor_meta=, shard_order= or",
        ),
    ],
)
def test_what_has_no_type_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(rd.TypeSyntaxError, match=message):
        parse_dtensor(text, rd.Mesh(dp=2, tp=2), (8, 8), "f32")


def test_what_is_not_stated_has_to_be_given() -> None:
    mesh = rd.Mesh(dp=2, tp=2)
    for given, missing in (
        ((None, (8, 8), "f32"), "mesh"),
        ((mesh, None, "f32"), "shape"),
        ((mesh, (8, 8), None), "dtype"),
    ):
        with pytest.raises(rd.TypeSyntaxError, match=f"a text that states the {missing}"):
            parse_dtensor("S(0)R", *given)  # type: ignore[arg-type]
