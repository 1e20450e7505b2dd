"""One place chooses: what is proposed, what it costs, what is taken, and what is said about it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

import redistrib as rd
from redistrib.synth.plan.collectives import AllGather, Collective, DynamicSlice
from redistrib.synth.planner.problem import Problem
from tests.generators import random_pair, whole_axis_layouts
from tests.repetitions import repetitions
from tests.verify import verify_runs

PROFILES = ("default", "tpu-v5e", "mpi-cluster")


def pair(mesh: rd.Mesh, src: str, dst: str) -> tuple[rd.ArrayType, rd.ArrayType]:
    return rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh)


@pytest.mark.parametrize("effort", ["fast", "best"])
@pytest.mark.parametrize("profile", PROFILES)
def test_an_explanation_is_the_list_that_was_chosen_from(profile: str, effort: str) -> None:
    for seed in range(repetitions(12, 40)):
        src, dst = random_pair(random.Random(seed).choice, partial=seed % 2 == 0)
        explanation = rd.explain(src, dst, profile=profile, effort=effort)
        assert explanation.plan == rd.plan(src, dst, profile=profile, effort=effort)
        assert explanation.alternatives[explanation.chosen][1] == explanation.plan
        plans = [found for _, found in explanation.alternatives if isinstance(found, rd.Plan)]
        assert explanation.plan.seconds == min(plan.seconds for plan in plans)
        lines = str(explanation).splitlines()[1:]
        assert len(lines) == len(explanation.alternatives)
        assert [at for at, line in enumerate(lines) if line[0] == "*"] == [explanation.chosen]


def test_an_explanation_says_why_a_candidate_is_infeasible() -> None:
    src, dst = pair(rd.Mesh(x=5), "f32[90{x}]", "f32[90{_6,x}]")
    found = dict(rd.explain(src, dst).alternatives)
    assert isinstance(found["direct"], rd.Plan)
    assert "the limit is 72" in str(found["collectives: halfway"])


def test_auto_proposes_what_collectives_and_direct_do() -> None:
    for seed in range(repetitions(20, 60)):
        src, dst = random_pair(random.Random(seed).choice, partial=seed % 2 == 0)
        auto = rd.plan(src, dst)
        for strategy in ("collectives", "direct"):
            try:
                assert auto.seconds <= rd.plan(src, dst, strategy=strategy).seconds * (1 + 1e-9)
            except rd.InfeasibleError:
                assert strategy == "collectives"


def test_a_strategy_may_be_a_function_from_the_problem_to_steps() -> None:
    src, dst = pair(rd.Mesh(x=2, y=4), "f32[8{x}, 8]", "f32[8, 8{x}]")
    limit = 256

    def around(problem: Problem) -> Sequence[Collective]:
        return [AllGather(problem.src.placements), DynamicSlice(problem.dst.placements)]

    plan = rd.plan(src, dst, strategy=around, memory_limit=limit)
    assert (plan.strategy, [s.collective for s in plan.steps]) == (
        "custom",
        ["all_gather", "dynamic_slice"],
    )
    assert rd.cost(src, dst, strategy=around, memory_limit=limit).seconds == plan.seconds
    verify_runs(plan)
    with pytest.raises(rd.LayoutError, match="the steps of a plan end in"):
        rd.plan(src, dst, strategy=lambda _: [])
    with pytest.raises(rd.InfeasibleError) as error:
        rd.plan(src, dst, strategy=around)
    assert (error.value.memory_limit, error.value.least_bytes) == (128, limit)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "colectives"}, "'colectives', did you mean 'collectives'? known: auto, coll"),
        (
            {"strategy": "magic"},
            "strategy 'magic'; known: auto, collectives, direct, exact",
        ),
        ({"effort": "bets"}, "unknown effort 'bets', did you mean 'best'? known: fast, best"),
        ({"strategy": None}, "unknown strategy None; known: auto"),
    ],
)
def test_unknown_names_are_answered_with_the_legal_ones(
    options: dict[str, str], message: str
) -> None:
    src, dst = pair(rd.Mesh(x=2), "f32[8{x}]", "f32[8]")
    for ask in (rd.plan, rd.cost):
        with pytest.raises(rd.RedistribError) as error:
            ask(src, dst, **options)
        assert message in str(error.value)


def test_no_plan_beats_the_floor() -> None:
    from redistrib.synth.planner.problem import make_problem

    positive, pairs = 0, repetitions(20, 150)
    for seed in range(pairs):
        src, dst = random_pair(random.Random(seed).choice, partial=False)
        for profile in PROFILES:
            floor = make_problem(src, dst, None, profile).floor()
            size = src.size * src.itemsize
            for limit in (None, size):
                plan = rd.plan(src, dst, profile=profile, memory_limit=limit, effort="best")
                assert floor <= plan.seconds * (1 + 1e-12)
                assert (floor > 0) == (plan.seconds > 0) or not size
            positive += floor > 0
    assert positive > pairs


@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 3, 2)])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_best_effort_and_the_oracle_give_one_answer(
    sizes: tuple[int, ...], profile: str
) -> None:
    mesh = rd.Mesh(dict(zip("abc", sizes, strict=True)))
    types = list(whole_axis_layouts(mesh, (24, 24, 24)))
    oracle = rd.Oracle(mesh, profile)
    rng = random.Random(f"{sizes} {profile}")
    for _ in range(12):
        src, dst = rng.choices(types, k=2)
        plan = rd.plan(src, dst, effort="best", profile=profile)
        assert plan.seconds == oracle.plan(src, dst).seconds == oracle.cost(src, dst).seconds
        assert plan.seconds <= rd.plan(src, dst, profile=profile).seconds * (1 + 1e-9)
        rd.check(plan)
