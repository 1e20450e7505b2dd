"""Whole models with uneven dimensions on either side: on data, checked, at the bound."""

from __future__ import annotations

import json

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from tests.models.random_moves import random_case
from tests.models.test_model_plan import held
from tests.models.verify import check_case, counted
from tests.repetitions import repetitions


def test_random_moves_mean_what_numpy_means() -> None:
    uneven = 0
    for seed in [1599, *range(repetitions(80, 5000))]:
        try:
            case = random_case(seed, uneven=True)
            check_case(case)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        types = (*case.plan.src.values(), *case.plan.dst.values())
        uneven += any(getattr(t, "uneven", ()) for t in types)
    assert uneven > repetitions(40, 2500)


def test_plain_moves_are_at_the_bound_on_every_device() -> None:
    """Without a map, what a device receives is what it needs and does not hold."""
    tried = 0
    for seed in range(repetitions(150, 2000)):
        plan = random_case(seed, depth=0, targets=1, uneven=True).plan
        types = (*plan.src.values(), *plan.dst.values())
        if any(getattr(t, "partial", ()) for t in types) or len(plan.dst) > 1:
            continue
        (name,) = plan.dst
        if "cast" in str(plan.weights) or plan.moves[0].sources[0][0] not in plan.src:
            continue
        target, source = plan.dst[name], plan.src[plan.moves[0].sources[0][0]]
        if target.shape != source.shape or target.dtype != source.dtype:
            continue
        numbers = np.arange(int(np.prod(target.shape)), dtype=np.int64).reshape(target.shape)
        like = [t.replace() if isinstance(t, rd.ArrayType) else t for t in (source, target)]
        if not all(isinstance(t, rd.ArrayType) for t in like):
            continue
        has, needs = (
            held(numbers, rd.ArrayType(t.mesh, "i64", t.shape, t.dims, uneven=dict(t.uneven)))
            for t in like
        )
        received, _ = counted(plan)
        width = source.itemsize
        for device in plan.devices:
            lacking = needs.get(device, set()) - has.get(device, set())
            assert received[device] == width * len(lacking), seed
        assert plan.lower_bound_bytes == plan.received_bytes
        tried += 1
    assert tried > repetitions(20, 300)


def test_a_vocabulary_over_twelve() -> None:
    """Llama-3's embedding, 128,256 rows, from 8 ways to 12 by ceil, and back to pipeline stages."""
    old, new = rd.Mesh(tp=8), rd.Mesh({"tp": 12}, devices=range(8, 20))
    src = {"embed": ("f32[128256{tp}, 8]", old), "norm": ("f32[4096]", old)}
    dst = {"embed": ("f32[128256{tp}:ceil, 8]", new), "norm": ("f32[4096]", new)}
    plan = rd.plan_model(src, dst)
    assert plan.received_bytes == plan.lower_bound_bytes
    assert rd.ModelPlan.from_json(plan.to_json()) == plan
    tiles = {t.shape for tile in [plan.dst["embed"]] for t in map(np.empty, _shapes(tile))}
    assert tiles == {(10688, 8)}
    odd = {"embed": ("f32[32001{tp}:ceil, 8]", old)}
    even = {"embed": ("f32[32001{tp}:balanced, 8]", new)}
    moved = rd.plan_model(odd, even)
    array = np.arange(32001 * 8, dtype=np.float32).reshape(32001, 8)
    made = simulator.run_model(moved, simulator.scatter_model({"embed": array}, moved.src))
    whole = np.concatenate([made[device]["embed"] for device in new.ids])
    assert np.array_equal(whole, array)
    assert moved.received_bytes == moved.lower_bound_bytes
    assert json.loads(moved.to_json())["src"][0]["type"] == "f32[32001{tp}:ceil, 8]"


def _shapes(t: rd.ArrayType) -> list[tuple[int, ...]]:
    return [t.tile_shape_at(position) for position in range(t.mesh.num_devices)]


def test_parts_of_a_segmented_type_are_even() -> None:
    with pytest.raises(rd.LayoutError, match=r"are even; .* pad it to a size"):
        rd.SegmentedType.parse("f32[7{x}:ceil|4{x}, 3]", rd.Mesh(x=4))


def test_runs_are_those_of_the_tiles_that_there_are() -> None:
    """Columns 0 and 2 of two rows are one run in a tile of 4 columns, and not in one of 3."""
    mesh = rd.Mesh(x=2)
    text = 't = rearrange(stack(2, a, b), "r n two -> r (n two)")[:, 0:7]'
    weights = rd.WeightMap.parse(text)
    src = dict.fromkeys("ab", ("i32[2, 4{x}]", mesh))
    plan = rd.plan_model(src, {"t": ("i32[2, 7{x}:ceil]", mesh)}, weights=weights)
    arrays = {
        name: np.arange(8, dtype=np.int32).reshape(2, 4) + 100 * n for n, name in enumerate("ab")
    }
    made = simulator.run_model(plan, simulator.scatter_model(arrays, plan.src))
    whole = np.concatenate([made[device]["t"] for device in mesh.ids], axis=1)
    assert np.array_equal(whole, weights(arrays)["t"])
    rd.check(plan)
