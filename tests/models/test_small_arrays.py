"""Arrays of rank 0, of no elements, on meshes of one device; and casts that round on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends.simulator.models import run_model, scatter_model
from redistrib.errors import CheckError

ONE, TWO, THREE = rd.Mesh({}, devices=[7]), rd.Mesh(x=2), rd.Mesh({"x": 3}, devices=[1, 7, 0])


@pytest.mark.parametrize("there", [ONE, TWO, THREE])
@pytest.mark.parametrize("here", [ONE, TWO, THREE])
@pytest.mark.parametrize(
    ("src", "dst", "text"),
    [
        ("f32[]", "bf16[]", "a = cast(w, bf16)"),
        ("f32[]", "f32[2]", "a = stack(0, w, w)"),
        ("f32[]", "f32[6{x}]", 'a = rearrange(w, "-> r", r=6)'),
        ("f32[6{x}]", "f32[]", "a = w[4]"),
        ("f32[]", "f32[]", "a = stack(0, w, w)[1]"),
        ("f32[0, 6{x}]", "f32[6{x}, 0]", 'a = rearrange(w, "a b -> b a")'),
        ("f32[0, 3]", "f32[6{x}, 3]", "a = pad(w, 0, 6)"),
        ("f32[6{x}]", "f32[0]", "a = w[2:2]"),
    ],
)
def test_small_arrays(src: str, dst: str, text: str, here: rd.Mesh, there: rd.Mesh) -> None:
    src, dst = (t.replace("{x}", "") if m is ONE else t for t, m in ((src, here), (dst, there)))
    check_move(src, dst, text, here, there)
    if here is not ONE and "{x}" not in src:
        check_move(src + " sum{x}", dst, text, here, there)


def check_move(src: str, dst: str, text: str, here: rd.Mesh, there: rd.Mesh) -> None:
    w = rd.WeightMap.parse(text)
    plan = rd.plan_model({"w": (src, here)}, {"a": (dst, there)}, weights=w)
    rd.check(plan)
    assert rd.ModelPlan.from_json(plan.to_json()) == plan
    array = np.arange(1, 1 + np.prod(plan.src["w"].shape), dtype="f4")
    array = array.reshape(plan.src["w"].shape)
    made = run_model(plan, scatter_model({"w": array}, plan.src))
    meant = scatter_model(w({"w": array}), plan.dst)
    for device, tiles in meant.items():
        assert np.array_equal(made[device]["a"], tiles["a"])
        assert made[device]["a"].shape == tiles["a"].shape


def test_a_cast_left_out_on_the_way_is_found() -> None:
    w = rd.WeightMap.parse("a = cast(cast(w, bf16), f32)")
    plan = rd.plan_model({"w": ("f32[4{x}]", TWO)}, {"a": ("f32[4]", TWO)}, weights=w)
    rd.check(plan)
    (move,) = plan.moves
    steps = tuple(
        replace(step, copy=replace(step.copy, dtypes=("f32", "f32"))) for step in move.steps
    )
    with pytest.raises(CheckError, match="does not get its value"):
        rd.check(replace(plan, moves=(replace(move, steps=steps),)))
