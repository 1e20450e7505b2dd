"""Plans of whole models: every element is right, received once, and counted as stated."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from redistrib.backends.simulator.models import run_model, scatter_model
from redistrib.errors import (
    BackendError,
    CheckError,
    InfeasibleError,
    LayoutError,
    RedistribError,
    WeightMapError,
)
from redistrib.models.check import check_model
from redistrib.models.model_plan import ModelPlan, plan_model
from redistrib.models.segments import AnyType, SegmentedType
from redistrib.models.weight_map import WeightMap
from redistrib.report.figures import format_bytes
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import itemsize
from redistrib.types.mesh import Mesh
from tests.models.random_moves import random_case
from tests.models.verify import check_case, counted
from tests.repetitions import repetitions


@pytest.mark.parametrize("block", range(repetitions(2, 10)))
def test_random_moves_mean_what_numpy_means(block: int) -> None:
    for seed in range(block * 50, block * 50 + 50):
        try:
            check_case(random_case(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


def held(array: np.ndarray, t: AnyType) -> dict[int, set[int]]:
    tiles = scatter_model({"a": array}, {"a": t})
    return {device: set(tile["a"].reshape(-1).tolist()) for device, tile in tiles.items()}


def test_each_device_receives_what_it_needs_and_does_not_hold() -> None:
    """Element by element, where nothing is cast or partial: the bound, on every device."""
    tight = tried = 0
    for seed in range(400):
        plan = random_case(seed).plan
        partial = any(getattr(t, "partial", ()) for t in (*plan.src.values(), *plan.dst.values()))
        if partial or "cast" in str(plan.weights) or "pad" in str(plan.weights):
            continue
        start, numbers = 1, {}
        for name, t in plan.src.items():
            size = int(np.prod(t.shape))
            numbers[name] = np.arange(start, start + size).reshape(t.shape)
            start += size
        meant = {**numbers, **plan.weights(numbers)}
        width = {}
        for name, t in plan.src.items():
            width |= dict.fromkeys(numbers[name].reshape(-1).tolist(), itemsize(t.dtype))
        needs: dict[int, set[int]] = {device: set() for device in plan.devices}
        for name, t in plan.dst.items():
            for device, elements in held(meant[name].astype("i8"), plan_type(t)).items():
                needs[device] |= elements
        for name, t in plan.src.items():
            for device, elements in held(numbers[name].astype("i8"), plan_type(t)).items():
                needs[device] -= elements
        least = {device: sum(width[n] for n in elements) for device, elements in needs.items()}
        received, _ = counted(plan)
        tried += 1
        assert all(received[device] >= least[device] for device in plan.devices)
        assert plan.lower_bound_bytes <= max(least.values())
        tight += all(received[device] == least[device] for device in plan.devices)
    assert tried > 80
    # The rest want one source twice, through different slices of it.
    assert tight > 0.8 * tried


def plan_type(t: AnyType) -> AnyType:
    """The same layout with elements that hold a number."""
    if isinstance(t, SegmentedType):
        return SegmentedType(tuple(plan_type(part) for part in t.parts), t.dim)
    return ArrayType(t.mesh, "i64", t.shape, t.dims)


# --- figures of named moves -----------------------------------------------------------------------

TRAIN = Mesh({"dp": 2, "tp": 2})
SERVE = Mesh({"tp": 4}, devices=range(4, 8))


def fused(layers: int = 2, **options) -> ModelPlan:
    src = {
        f"l.{i}.{x}": ArrayType.parse(f"f32[{rows}{{tp}}, 8]", TRAIN)
        for i in range(layers)
        for x, rows in (("q", 16), ("k", 8), ("v", 8))
    }
    dst = {
        f"l.{i}.qkv": SegmentedType.parse("bf16[16{tp}|8{tp}|8{tp}, 8]", SERVE)
        for i in range(layers)
    }
    w = WeightMap.parse("l.{i}.qkv = cast(concat(0, l.{i}.q, l.{i}.k, l.{i}.v), bf16)")
    return plan_model(src, dst, weights=w, **options)


def test_layers_share_their_copies_and_cross_in_the_narrow_dtype() -> None:
    plan = fused()
    assert plan.moves[0].steps is plan.moves[1].steps
    assert {t.wire for t in plan.schedule(5)} == {"bf16"}
    # On each of 4 devices 8 of 32 rows of 8 elements of 2 bytes, twice.
    assert plan.received_bytes == plan.lower_bound_bytes == 2 * 8 * 8 * 2
    assert "2 arrays from 6, 8 devices" in str(plan)


def test_every_element_crosses_once_to_a_group_of_replicas() -> None:
    here, there = Mesh(x=4), Mesh({"r": 3, "y": 2}, devices=range(4, 10))
    src, dst = {"a": ("f32[24{x}, 6]", here)}, {"a": ("f32[24{y}, 6]", there)}
    plan = plan_model(src, dst, least_part=1)
    _, sent = counted(plan)
    assert sum(sent[device] for device in here.ids) == 24 * 6 * 4
    assert plan.received_bytes == plan.lower_bound_bytes == 12 * 6 * 4


def test_tied_weights_cross_once() -> None:
    src = {"embed": ("f32[8{tp}, 4]", TRAIN)}
    dst = dict.fromkeys(("embed", "head"), ("f32[8{tp}, 4]", SERVE))
    plan = plan_model(src, dst, weights=WeightMap.parse("head = embed"))
    assert plan.received_bytes == plan.lower_bound_bytes == 8 * 4 * 4 // 4
    assert plan.unused_sources == ()


def test_a_source_wanted_in_two_dtypes_is_right_in_both() -> None:
    src = {"w": ("f32[8{tp}, 4]", TRAIN)}
    dst = {"t": ("f16[8{tp}, 4]", SERVE), "u": ("f32[8{tp}, 4]", SERVE), "w": ("f32[8, 4]", SERVE)}
    plan = plan_model(src, dst, weights=WeightMap.parse("t = cast(w, f16)\nu = w"))
    arrays = {"w": np.random.default_rng(0).random((8, 4)).astype("f4")}
    meant = {"t": arrays["w"].astype("f2"), "u": arrays["w"], "w": arrays["w"]}
    # w crosses, whole; what u and t need is on the same devices then.
    assert plan.received_bytes == plan.lower_bound_bytes == 32 * 4
    check_model(plan)
    tiles = run_model(plan, scatter_model(arrays, plan.src))
    for device, made in scatter_model(meant, plan.dst).items():
        assert all(np.array_equal(tiles[device][name], made[name]) for name in made)


def test_what_is_cast_further_is_made_of_what_is_there_in_any_order_of_targets() -> None:
    chains = {"a": "w", "b": "cast(w, f16)", "c": "cast(cast(w, f16), f32)", "d": "cast(w, i32)"}
    chains |= {"e": "stack(0, cast(w, f16), cast(w, f16))", "f": "cast(w, f16)"}
    kinds = {"a": "f32", "b": "f16", "c": "f32", "d": "i32", "e": "f16", "f": "f16"}
    w = WeightMap.parse("\n".join(f"{name} = {text}" for name, text in chains.items()))
    array = {"w": np.arange(32, dtype="f4").reshape(8, 4) * 0.7}
    for n, names in enumerate(permutations(chains)):
        if n % 60:
            continue
        dst = {x: (f"{kinds[x]}[{'2, ' * (x == 'e')}8{{tp}}, 4]", SERVE) for x in names}
        src = {"w": ("f32[8{tp}, 4]", TRAIN)}
        for keep in (True, False):
            plan = plan_model(src, dst, weights=w, keep_sources=keep)
            check_model(plan)
            assert not keep or plan.received_bytes == plan.lower_bound_bytes == 8 * 4
            tiles = run_model(plan, scatter_model(array, plan.src))
            for device, made in scatter_model(w(array), plan.dst).items():
                assert all(np.array_equal(tiles[device][name], made[name]) for name in made)


def test_replicas_share_the_sending_of_a_model() -> None:
    here, there = Mesh(r=4), Mesh({"y": 2}, devices=range(4, 6))
    src = {f"a{n}": ("f32[6, 5]", here) for n in range(8)}
    dst = {f"a{n}": ("f32[6{y}, 5]", there) for n in range(8)}
    _, sent = counted(plan_model(src, dst))
    assert {sent[device] for device in here.ids} == {8 * 6 * 5 * 4 // 4}


def test_a_large_array_is_cut_so_that_all_replicas_send() -> None:
    here, there = Mesh(r=4), Mesh({"y": 1}, devices=[9])
    plan = plan_model({"a": ("f32[8, 5]", here)}, {"a": ("f32[8, 5]", there)}, least_part=1)
    _, sent = counted(plan)
    assert {sent[device] for device in here.ids} == {8 * 5 * 4 // 4}


def test_partial_sources_are_reduced_before_they_are_cast() -> None:
    src = {"g": ("f32[8, 4] sum{tp}", TRAIN)}
    dst = {"g": ("f16[8{tp}, 4]", SERVE)}
    plan = plan_model(src, dst, weights=WeightMap.parse("g = cast(g, f16)"))
    values = np.full((8, 4), 0.1, "f4")
    addends = {d: {"g": np.full((8, 4), 0.1 / 2, "f4")} for d in TRAIN.ids}
    for tile in run_model(plan, addends).values():
        for made in tile.values():
            assert (made == (np.float32(0.1 / 2) * 2).astype("f2")).all()
    assert values.shape == (8, 4)


# --- budget and order -------------------------------------------------------------------------


def test_a_budget_is_kept_or_named() -> None:
    mesh = Mesh(x=4)
    src = {f"w{n}": ("f32[512{x}, 512]", mesh) for n in range(8)}
    dst = {f"w{n}": ("f32[512, 512{x}]", mesh) for n in range(8)}
    tile = 512 * 512 * 4 // 4
    plan = plan_model(src, dst, keep_sources=False)
    assert plan.peak_bytes == 9 * tile + tile  # all sources, one target, its scratch
    kept = plan_model(src, dst)
    assert kept.peak_bytes == 16 * tile + tile
    with pytest.raises(InfeasibleError, match="at least") as caught:
        plan_model(src, dst, keep_sources=False, memory_budget=9 * tile)
    least = caught.value.least_bytes
    assert least == plan.least_budget_bytes
    assert plan_model(src, dst, keep_sources=False, memory_budget=least).peak_bytes <= least


def test_arrays_that_shrink_move_before_those_that_grow() -> None:
    mesh = Mesh(x=4)
    grow, shrink = ("f32[4096{x}]", "f32[4096]"), ("f32[4096]", "f32[4096{x}]")
    src = {"a": (grow[0], mesh), "b": (shrink[0], mesh)}
    dst = {"a": (grow[1], mesh), "b": (shrink[1], mesh)}
    plan = plan_model(src, dst, keep_sources=False)
    assert [move.target for move in plan.moves] == ["b", "a"]
    tile = 4096 * 4
    assert plan.peak_bytes == max(tile + tile // 4 + tile // 4 + tile, tile // 2 + tile + tile)


# --- JSON, schedules, errors --------------------------------------------------------------------


def test_a_plan_survives_json() -> None:
    for seed in range(40):
        plan = random_case(seed).plan
        text = plan.to_json()
        back = ModelPlan.from_json(text)
        assert back.to_json() == text
        for device in plan.devices:
            assert back.schedule(device) == plan.schedule(device)
    relabelled = plan_model(
        {"a": ("f32[4{x}]", Mesh(x=4))},
        {"a": ("f32[4{x}]", Mesh({"x": 4}, devices=[3, 2, 1, 0]))},
        relabel=True,
    )
    assert ModelPlan.from_json(relabelled.to_json()).device_of == relabelled.device_of


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="redistrib-model/9"), "has the format"),
        (lambda d: d.update(extra=1), "extra"),
        (lambda d: d.pop("dst"), "dst"),
        (lambda d: d.update(received_bytes=1), "received_bytes of the model plan is"),
        (lambda d: d.update(order=d["order"][::-1]), "order of the model plan"),
        (lambda d: d.update(seconds=-1.0), "seconds of the model plan"),
        (lambda d: d["meshes"][0].update(devices="0:99999999999999"), "devices are"),
        (lambda d: d["meshes"][0].update(devices=[0, 0.5]), "devices are"),
        (lambda d: d["src"][0].update(type="f32[9{tp}, 8]"), "divide"),
        (lambda d: d["src"][0].update(mesh=7), "the number of a mesh"),
        (lambda d: d.update(weights="l = ("), "line 1"),
        (lambda d: d.update(src=3), "src of a model plan is malformed"),
    ],
)
def test_a_json_text_that_is_not_the_plan_is_refused(change, message: str) -> None:
    data = json.loads(fused().to_json())
    change(data)
    with pytest.raises(RedistribError, match=message):
        ModelPlan.from_json(json.dumps(data))


def test_a_schedule_is_a_list_of_strided_views() -> None:
    plan = fused(1)
    schedule = plan.schedule(4)
    data = json.loads(schedule.to_json())
    assert data["device"] == 4
    assert len(data["transfers"]) == len(schedule) == 3
    first = data["transfers"][0]
    assert (first["target"], first["source"], first["wire"]) == ("l.0.qkv", "l.0.q", "bf16")
    assert first["counts"] == [32]
    nixl = json.loads(plan.schedule(0).to_nixl())
    assert all(entry["role"] == "send" for entry in nixl["transfers"])
    sent = sum(n for e in nixl["transfers"] for _, n in e["descriptors"])
    # Before the cast: descriptors are of the memory that is there.
    assert sent == 2 * sum(t.wire_bytes for t in plan.schedule(0))


def test_types_that_do_not_fit_the_map_are_refused() -> None:
    src = {"a": ("f32[8{tp}]", TRAIN)}
    with pytest.raises(WeightMapError, match="nothing makes the target b"):
        plan_model(src, {"b": ("f32[8]", SERVE)})
    with pytest.raises(LayoutError, match=r"has the shape \[9\]; the map makes \[8\]"):
        plan_model(src, {"a": ("f32[9]", SERVE)})
    with pytest.raises(LayoutError, match="has dtype f16; the map makes f32"):
        plan_model(src, {"a": ("f16[8]", SERVE)})
    with pytest.raises(LayoutError, match="device 99 is in no mesh"):
        plan_model(src, {"a": ("f32[8]", SERVE)}).schedule(99)
    with pytest.raises(LayoutError, match="array a: "):
        plan_model({"a": 3}, {"a": ("f32[8]", SERVE)})
    unused = plan_model({**src, "c": ("f32[8]", TRAIN)}, {"a": ("f32[8]", SERVE)})
    assert unused.unused_sources == ("c",)


def test_tiles_that_do_not_fit_are_refused() -> None:
    plan = fused(1)
    tiles = scatter_model(
        {f"l.0.{x}": np.zeros((16 if x == "q" else 8, 8), "f4") for x in "qkv"}, plan.src
    )
    with pytest.raises(BackendError, match=r"a tile of l\.0\.k has shape"):
        run_model(plan, {**tiles, 1: {**tiles[1], "l.0.k": np.zeros(3, "f4")}})
    del tiles[2]["l.0.q"]
    with pytest.raises(BackendError, match=r"device 2 has a tile of l\.0\.q"):
        run_model(plan, tiles)


# --- the checker finds what is wrong ------------------------------------------------------------


def with_copy(plan: ModelPlan, **changes) -> ModelPlan:
    """The plan with its first step's copy changed, in every move that shares it."""
    first = plan.moves[0].steps[0]
    bad = replace(first, copy=replace(first.copy, **changes))
    return with_steps(plan, (bad, *plan.moves[0].steps[1:]))


def with_steps(plan: ModelPlan, steps) -> ModelPlan:
    move = replace(plan.moves[0], steps=steps)
    return replace(plan, moves=(move, *plan.moves[1:]))


def corruptions(plan: ModelPlan):
    move = plan.moves[0]
    copy = move.steps[0].copy
    start = copy.target
    digit = copy.digits[-1]
    yield "a step is missing", with_steps(plan, move.steps[1:])
    yield "a step runs twice", with_steps(plan, (*move.steps, move.steps[0]))
    yield "target offset", with_copy(plan, target=replace(start, offset=start.offset + 1))
    yield "source offset", with_copy(plan, source=replace(copy.source, offset=1))
    yield "another source", with_copy(plan, number=1)
    yield "dtype", with_copy(plan, dtypes=copy.dtypes[::-1])
    yield (
        "a shorter digit",
        with_copy(plan, digits=(*copy.digits[:-1], replace(digit, size=digit.size // 2))),
    )
    wide = replace(digit, target=replace(digit.target, stride=digit.target.stride + 1))
    yield "target stride", with_copy(plan, digits=(*copy.digits[:-1], wide))
    wide = replace(digit, source=replace(digit.source, stride=digit.source.stride + 1))
    yield "source stride", with_copy(plan, digits=(*copy.digits[:-1], wide))
    ((owner, value),) = start.coordinates
    yield "coordinate", with_copy(plan, target=replace(start, coordinates=((owner, value + 1),)))
    yield "a move is missing", replace(plan, moves=plan.moves[1:])
    yield "a move runs twice", replace(plan, moves=(*plan.moves, plan.moves[0]))


def test_corrupted_plans_are_refused() -> None:
    plan = fused()
    check_model(plan)
    for name, bad in corruptions(plan):
        # The layers after a wrong one are like it but for what is wrong; so are those before it.
        for moves in (bad.moves, (*bad.moves[1:], *bad.moves[:1])):
            with pytest.raises(CheckError) as caught:
                check_model(replace(bad, moves=moves))
            assert str(caught.value), name


def test_an_element_that_is_written_twice_is_found() -> None:
    plan = plan_model({"a": ("f32[8{tp}]", TRAIN)}, {"a": ("f32[8{tp}]", TRAIN)})
    assert plan.received_bytes == 0
    with pytest.raises(CheckError, match="or twice"):
        check_model(with_steps(plan, plan.moves[0].steps * 2))


def test_a_plan_is_a_page_of_its_own(tmp_path: Path) -> None:
    plan = fused(3, keep_sources=False, memory_budget="2GiB")
    plan.to_html(tmp_path / "plan.html")
    page = (tmp_path / "plan.html").read_text(encoding="utf-8")
    assert "http" not in page
    assert "<script" not in page
    assert page.count("<rect") == 3
    assert "bf16[16{tp}|8{tp}|8{tp}, 8]</td>" in page
    assert '<td>l.0.qkv</td><td class="right">3</td>' in page
    assert f"{format_bytes(plan.received_bytes)} by the worst device" in page
    odd = plan_model({"<b>&": ("f32[4]", SERVE)}, {"<b>&": ("f32[4]", SERVE)})
    assert "&lt;b&gt;&amp;" in odd._repr_html_()
    assert "0 arrays on 0 devices" in plan_model({}, {})._repr_html_()


def test_what_replicas_pass_on_is_joined() -> None:
    """Sixteen experts of one array each to four replicas: each gives four to three others."""
    here, there = Mesh(x=2), Mesh({"r": 4, "y": 2}, devices=range(2, 10))
    plan = plan_model(
        {f"e.{n}": ("f32[6{x}, 4]", here) for n in range(16)},
        {"experts": ("f32[16, 6, 4{y}]", there)},
        weights=WeightMap.parse("experts = stack(0, {n} in 0:16: e.{n})"),
        least_part=1,
    )
    passed_on = [t for t in plan.schedule(2) if t.phase == 1]
    assert len(passed_on) == 6
    assert {t.view.size for t in passed_on} == {4 * 6 * 2}
    check_model(plan)
