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
