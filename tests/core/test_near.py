"""The search near both ends: what it finds is right, ends soon, and is mostly a shortest path."""

from __future__ import annotations

import json
import random
from math import inf

import pytest

import redistrib as rd
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.data import make_plan
from redistrib.synth.planner import near
from redistrib.synth.planner.exact import ExactSearch
from redistrib.synth.planner.near import MAX_EDGES, NearSearch, near_steps
from redistrib.synth.planner.problem import Problem, make_problem
from redistrib.synth.planner.work import Work
from tests.generators import partial_layouts, random_pair
from tests.repetitions import repetitions
from tests.verify import verify_runs


def ends(axes: dict[str, int], src: str, dst: str) -> tuple[rd.ArrayType, rd.ArrayType]:
    mesh = rd.Mesh(axes)
    return rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh)


def seconds(problem: Problem, steps: list[Collective]) -> float:
    return sum(step.seconds for step in problem.step_costs(steps))


def test_it_finds_the_example_of_its_docstring() -> None:
    pair = ends({"x": 2, "y": 2, "z": 3}, "f32[12{z}, 12, 12{x}] sum{y}", "f32[12{y}, 12{x}, 12]")
    problem = make_problem(*pair)
    found = near_steps(*pair, problem.limit(aligned=False), problem.links, inf, MAX_EDGES, Work())
    assert found is not None
    assert [step.collective for step in found] == ["reduce_scatter", "all_gather", "all_to_all"]
    best = ExactSearch(*pair, problem.limit(aligned=False), problem.links).run()
    assert best is not None
    assert seconds(problem, found) < 1.002 * seconds(problem, best)


def test_collectives_are_nearly_a_shortest_path_where_no_exact_search_runs() -> None:
    """Partial pairs between 2,156 types on 2x2x3: a shortest path has at most 2% on them."""
    mesh = rd.Mesh(x=2, y=2, z=3)
    layouts = list(partial_layouts(mesh, (12, 12, 12)))
    rng = random.Random(3)
    todo = repetitions(12, 400)
    while todo:
        src, dst = rng.choice(layouts), rng.choice(layouts)
        if src == dst or not (src.partial or dst.partial):
            continue
        todo -= 1
        plan = rd.plan(src, dst, strategy="collectives")
        verify_runs(plan)
        limit = max(src.tile_size, dst.tile_size)
        problem = make_problem(src, dst)
        cheaper = ExactSearch(src, dst, limit, problem.links, plan.seconds * (1 - 1e-9)).run()
        least = plan.seconds if cheaper is None else seconds(problem, cheaper)
        assert plan.seconds <= 1.02 * least, f"{src} -> {dst}"


def test_what_it_finds_is_right_within_the_limit_and_below_the_bound() -> None:
    found = 0
    for seed in range(repetitions(60, 3000)):
        src, dst = random_pair(random.Random(seed).choice)
        problem = make_problem(src, dst)
        limit = max(src.tile_size, dst.tile_size)
        steps = near_steps(src, dst, limit, problem.links, inf, 400, Work())
        if steps is None:
            continue
        found += 1
        plan = make_plan(src, dst, "custom", steps, problem.profile)
        verify_runs(plan)
        assert plan.peak_tile_bytes <= limit * src.itemsize
        if plan.seconds:
            again = near_steps(src, dst, limit, problem.links, plan.seconds, 400, Work())
            assert again is None or seconds(problem, again) < plan.seconds
    assert found > repetitions(30, 1500)


def test_its_work_is_bounded_on_a_mesh_of_many_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = dict.fromkeys("abcd", 12)
    src, dst = ends(axes, "f32[20736{a,b},144{c}] sum{d}", "f32[20736{d,c},144{_2,a}]")
    problem = make_problem(src, dst)
    search = NearSearch(src, dst, problem.limit(aligned=False), problem.links)
    search.most_edges = 700
    edges = search.graph.edges
    looked_at = 0

    def counted(state):  # type: ignore[no-untyped-def]
        nonlocal looked_at
        for edge in edges(state):
            looked_at += 1
            yield edge

    monkeypatch.setattr(search.graph, "edges", counted)
    search.run()
    assert looked_at <= 701
    assert len(search.graph.systems) <= near.MAX_USED


DEARER_ONCE = [
    # a late slice after one all_to_all
    ({"x": 5, "z": 6}, "i32[4, 30{z}, 8, 24]", "i32[4, 30{_2,x}, 8, 24{z}]", "dgx-h100", 22.6560),
    # an all_reduce before what moves
    (
        {"x": 6, "y": 12},
        "f32[4{y:(6)2}, 6] max{x,y:(1)6}",
        "f32[4{y:(3)4}, 6]",
        "dgx-h100",
        67.2042,
    ),
    # copies that become partial in the end
    (
        {"x": 8, "y": 6},
        "f32[12, 432{x:(4)2,x:(1)4,_3,y}]",
        "f32[12, 432{y:(2)3}] sum{x}",
        "dgx-h100",
        67.344,
    ),
    (
        {"y": 12, "z": 2, "v": 4},
        "f32[12{y}, 36{v}, 6{z}]",
        "f32[12, 36{y:(2)6,y:(1)2}, 6] sum{v}",
        "dgx-h100",
        34.218,
    ),
    # the same after an exchange
    ({"x": 12, "y": 8}, "i8[8, 8, 8{y}]", "i8[8, 8{y:(2)4}, 8] min{x}", "mpi-cluster", 1.0701),
    # nothing else within the limit
    ({"x": 2, "y": 4, "z": 5}, "f64[80{_2,y,x}, 4] min{z}", "f64[80{z}, 4{x}]", "dgx-h100", 112.03),
    # an idle axis owns something halfway
    ({"a": 2, "b": 6, "c": 4}, "f32[48{a,b}, 720]", "f32[48{b}, 720{a}]", "dgx-h100", 34.277),
    # a detour through a sum
    ({"y": 12, "z": 5}, "i32[10{z}, 240{_4,y}]", "i32[10, 240{z}] sum{y}", "dgx-h100", 22.4308),
]


@pytest.mark.parametrize("case", DEARER_ONCE, ids=lambda case: json.dumps(case[1]))
def test_pairs_that_were_dearer_once(case: tuple[dict[str, int], str, str, str, float]) -> None:
    axes, src, dst, profile, microseconds = case
    plan = rd.plan(*ends(axes, src, dst), profile=profile)
    assert plan.seconds * 1e6 <= microseconds
    verify_runs(plan)


def test_a_smaller_mesh_is_searched_exactly_and_not_near() -> None:
    pair = ends({"x": 2, "y": 2}, "i64[4{x}, 4] sum{y}", "i64[4, 4{y}]")
    names = [name for name, _ in rd.explain(*pair).alternatives]
    assert "collectives: exact" in names
    assert "collectives: near the ends" not in names
