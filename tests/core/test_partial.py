"""Plans with partial sums where no search proves them: by chains, and reductions first or last."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner import proposals
from redistrib.synth.planner.reductions import make_partial, partial_roles, reduce_last, reduce_once
from tests.exhaustive.stages import PARTIAL_MESHES, PROFILES
from tests.generators import partial_layouts, random_pair
from tests.repetitions import repetitions
from tests.verify import verify, verify_runs


def pair(sizes: dict[str, int], src: str, dst: str) -> tuple[rd.ArrayType, rd.ArrayType]:
    mesh = rd.Mesh(sizes)
    return rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh)


@pytest.fixture(autouse=True)
def without_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "MAX_PROOF_TYPES", 0)
    monkeypatch.setattr(proposals, "near_steps", lambda *_: None)
    monkeypatch.setattr(proposals, "MAX_ONLY_TYPES", 0)


@pytest.mark.parametrize(
    ("sizes", "src", "dst", "names"),
    [
        # A partial digit and an owner, or a free digit, change roles.
        ({"x": 2, "y": 2}, "i8[7, 2{y}] sum{x}", "i8[7, 2{x}] sum{y}", ["collective_permute"]),
        ({"x": 3, "y": 3}, "i8[5] sum{x}", "i8[5] sum{y}", ["collective_permute"]),
        # The place that a reduction needs is free only after a move.
        (
            {"a": 2, "b": 8},
            "f64[64, 64{b}] sum{a}",
            "f64[64{b}, 64{a}]",
            ["all_to_all", "reduce_scatter"],
        ),
        (
            {"x": 2, "y": 3},
            "i8[6, 6{y}] sum{x}",
            "i8[6{y}, 6{x}]",
            ["all_to_all", "reduce_scatter"],
        ),
        # What becomes partial owns something while it moves.
        (
            {"x": 2, "y": 3},
            "i8[6, 6{x}]",
            "i8[6, 6{y}] sum{x}",
            ["dynamic_slice", "collective_permute", "sharded_to_partial"],
        ),
        # Owners that change are reduced together with the rest.
        (
            {"x": 2, "y": 2, "z": 2},
            "i8[8{z}, 8] sum{y}",
            "i8[8, 8{z,x,y}]",
            ["dynamic_slice", "sharded_to_partial", "reduce_scatter"],
        ),
        (
            {"w": 2, "x": 2, "y": 2, "z": 2},
            "i8[8{z}, 8] sum{w,y}",
            "i8[8, 8{z,x,y}] sum{w}",
            ["dynamic_slice", "sharded_to_partial", "reduce_scatter"],
        ),
        # Without a sum anywhere, in integers: through one.
        (
            {"x": 2, "y": 2, "z": 3},
            "i64[12{y}, 4]",
            "i64[12{z}, 4{x,y}]",
            ["dynamic_slice", "sharded_to_partial", "dynamic_slice", "reduce_scatter"],
        ),
    ],
)
def test_the_steps_that_anyone_would_take(
    sizes: dict[str, int], src: str, dst: str, names: list[str]
) -> None:
    plan = rd.plan(*pair(sizes, src, dst), strategy="collectives")
    assert [step.collective for step in plan.steps] == names
    verify_runs(plan)


@pytest.mark.parametrize(
    ("slow", "src", "dst", "names"),
    [
        # Addends change devices; nothing but a permute takes them there.
        (
            "reduce_scatter",
            "i8[4{x}, 4] sum{y}",
            "i8[4, 4{y}] sum{x}",
            ["collective_permute", "all_to_all"],
        ),
        (
            "reduce_scatter",
            "i8[4, 4] sum{x}",
            "i8[4, 4{x}] sum{y}",
            ["dynamic_slice", "collective_permute"],
        ),
        # What becomes partial does so before the other digit moves.
        (
            "collective_permute",
            "i8[4{x}, 4{y}]",
            "i8[4, 4{x}] sum{y}",
            ["sharded_to_partial", "all_to_all"],
        ),
    ],
)
def test_slow_collectives_are_avoided(slow: str, src: str, dst: str, names: list[str]) -> None:
    efficiency = {"collective_permute": 0.5, "all_reduce": 1e-3, slow: 1e-3}
    link = Link(latency=1e-9, bandwidth=1e9)
    profile = Profile("slow", link, efficiency=tuple(efficiency.items()))
    plan = rd.plan(*pair({"x": 2, "y": 2}, src, dst), strategy="collectives", profile=profile)
    assert [step.collective for step in plan.steps] == names
    verify_runs(plan)


@pytest.mark.parametrize(
    ("sizes", "src", "dst"),
    [
        ({"a": 2, "b": 2}, "f32[64, 1024{b}] sum{a}", "f32[64, 1024{a}]"),
        ({"a": 2, "b": 2, "c": 2}, "f32[64{b}, 64] sum{a,c}", "f32[64{c}, 64] sum{a}"),
    ],
)
def test_what_is_summed_over_a_slow_axis_is_reduced_after_the_move(
    sizes: dict[str, int], src: str, dst: str
) -> None:
    slow = Link(latency=1e-6, bandwidth=1e9)
    profile = Profile("slow", slow, axes=(("b", Link(latency=1e-6, bandwidth=1e11)),))
    plan = rd.plan(*pair(sizes, src, dst), strategy="collectives", profile=profile)
    assert [s.collective for s in plan.steps] == ["all_to_all", "reduce_scatter", "all_gather"]
    least = rd.plan(*pair(sizes, src, dst), strategy="exact", profile=profile)
    assert plan.seconds == least.seconds
    verify_runs(plan)


def test_a_sum_of_a_large_array_is_moved_before_it_is_reduced() -> None:
    mesh = rd.Mesh(a=2, b=8)
    src, dst = (
        rd.ArrayType.parse(text, mesh)
        for text in ("f64[2048, 1024{b}, 2048] sum{a}", "f64[2048{b}, 1024{a}, 2048]")
    )
    plan = rd.plan(src, dst, strategy="collectives", profile="dgx-h100")
    assert [step.collective for step in plan.steps] == ["all_to_all", "reduce_scatter"]


@pytest.mark.parametrize("mesh_at", range(len(PARTIAL_MESHES)))
def test_plans_without_a_proof_stay_near_a_shortest_path(mesh_at: int) -> None:
    """Most are as good; none takes more than three times as long."""
    sizes, shape = PARTIAL_MESHES[mesh_at]
    found = list(partial_layouts(rd.Mesh(dict(zip("xyz", sizes, strict=False))), shape, "i64"))
    rng = random.Random(mesh_at)
    ratios = []
    for _ in range(repetitions(15, 200)):
        src, dst = rng.choice(found), rng.choice(found)
        for profile in PROFILES:
            plan = rd.plan(src, dst, strategy="collectives", profile=profile)
            exact = rd.plan(src, dst, strategy="exact", profile=profile)
            assert plan.seconds >= exact.seconds * (1 - 1e-9)
            ratios.append(plan.seconds / exact.seconds if exact.seconds else 1.0)
    assert max(ratios) <= 3 * (1 + 1e-9)
    assert sum(ratio < 1 + 1e-9 for ratio in ratios) >= 0.75 * len(ratios)


@pytest.mark.parametrize("block", range(3))
def test_random_partial_pairs_are_planned_right(block: int) -> None:
    for seed in range(block * 1000, block * 1000 + repetitions(60, 1000)):
        src, dst = random_pair(random.Random(seed).choice)
        if src.size:
            verify(src, dst)


def test_every_way_to_reduce_keeps_the_limit_and_ends_where_it_should() -> None:
    """Reductions first, last and at once, between random types, at the limit of the larger end."""
    last = once = 0
    for seed in range(repetitions(400, 4000)):
        src, dst = random_pair(random.Random(seed).choice)
        if not src.partial or not src.size:
            continue
        limit = max(src.tile_size, dst.tile_size)
        roles = partial_roles(src, dst)
        end, closing = make_partial(src, dst, roles)
        late = reduce_last(src, dst, roles, limit)
        for way in ((end, closing) if not roles.reduce else None, late):
            if way is not None:
                t = way[0]
                assert t.tile_size <= limit
                for step in way[1]:
                    t = step.apply(t)
                assert t == dst
                last += way is late
        steps = reduce_once(src, dst, roles, limit)
        if steps is not None:
            t = src
            for step in steps:
                t = step.apply(t)
                assert t.tile_size <= limit
            assert t == dst
            once += 1
    assert min(last, once) > 30


def test_what_becomes_partial_owns_something_out_of_the_way_of_the_rest() -> None:
    """In the first dimension y is in the way of x: 2.0 us by an exchange, whatever the order."""
    mesh = rd.Mesh(x=4, y=3, z=2, v=4)
    for shapes in (("72{_6,x}, 1, 18", "72{x}, 1, 18{z}"), ("18, 72{_6,x}", "18{z}, 72{x}")):
        src, dst = (
            rd.ArrayType.parse(f"i32[{dims}]{sums}", mesh)
            for dims, sums in zip(shapes, ("", " sum{y}"), strict=True)
        )
        plan = rd.plan(src, dst)
        assert (plan.num_collectives, plan.received_bytes) == (1, 648)


def test_parts_of_one_axis_that_do_not_nest_change_their_sums() -> None:
    """Such as `[] sum{x:(1)4} -> [] sum{x:(1)6}`: what is handed on goes to digits apart."""
    mesh, bounds = rd.Mesh(x=12), (1, 2, 3, 4, 6, 12)
    digits = [f"x:({a}){b // a}" for a in bounds for b in bounds if a < b and b % a == 0]
    for before in digits:
        for after in digits:
            ends = [rd.ArrayType.parse(f"i64[] sum{{{digit}}}", mesh) for digit in (before, after)]
            for strategy in ("auto", "collectives"):
                verify_runs(rd.plan(*ends, strategy=strategy))
