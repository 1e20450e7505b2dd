"""One place chooses: what is proposed, what it costs, what is taken, and what is said about it."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

import pytest

import redistrib as rd
from redistrib.synth.plan.collectives import AllGather, Collective, DynamicSlice
from redistrib.synth.planner.exact import exact_size
from redistrib.synth.planner.problem import Problem
from redistrib.types.refinement import refine
from tests.budget import calls_of
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


def test_an_explanation_says_what_became_of_every_candidate() -> None:
    """Only what a search says depends on what came before; any other has a plan or has none."""
    searches = {f"collectives: {name}" for name in ("halfway", "near the ends", "exact")}
    none = searched = dearer = 0
    for seed in range(repetitions(20, 300)):
        src, dst = random_pair(random.Random(seed).choice, partial=seed % 2 == 0)
        explanation = rd.explain(src, dst)
        for name, found in explanation.alternatives:
            text = str(found)
            assert "inf us" not in text
            if isinstance(found, rd.Plan):
                dearer += found.seconds > explanation.plan.seconds
            elif " us" in text:
                assert name.removesuffix(", on used axes") in searches
                searched += "searched" in text
            else:
                none += text == "has no plan for such a pair"
    assert min(none, searched, dearer) >= 5


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


def test_the_least_memory_of_an_infeasible_answer_is_the_least() -> None:
    """With exactly that limit there is a plan, and with one byte less there is none."""
    refused = 0
    for seed in range(400):
        src, dst = random_pair(random.Random(seed).choice, partial=False)
        limit = max(src.tile_bytes, dst.tile_bytes)
        try:
            rd.plan(src, dst, strategy="collectives", memory_limit=limit)
        except rd.InfeasibleError as error:
            refused += 1
            least = error.least_bytes
            plan = rd.plan(src, dst, strategy="collectives", memory_limit=least)
            assert plan.peak_tile_bytes <= least
            with pytest.raises(rd.InfeasibleError) as again:
                rd.plan(src, dst, strategy="collectives", memory_limit=least - 1)
            assert again.value.least_bytes == least
    assert refused > 3


def test_collectives_that_need_more_than_both_ends_say_how_much() -> None:
    src, dst = pair(rd.Mesh(x=5), "i64[15{x}]", "i64[15{_3,x}]")
    with pytest.raises(rd.InfeasibleError, match="need tiles of 120 bytes per device; the limit"):
        rd.plan(src, dst, strategy="collectives")
    plan = rd.plan(src, dst, strategy="collectives", memory_limit=120)
    assert [step.collective for step in plan.steps] == ["all_gather", "dynamic_slice"]


NO_AXES = {"", "axes"}  # of replicated tiles, and in the paper's tile{axes}global


def axes_named(text: str) -> set[str]:
    """The axes of all types and digits in a text."""
    found = re.findall(r"\{([^}]*)\}", text) + re.findall(r"[\w.]+:\(\d+\)\d+", text)
    factors = [factor.partition(":")[0] for names in found for factor in names.split(",")]
    return {name for name in factors if not name.startswith("_")} - NO_AXES


@pytest.mark.parametrize("links", [None, "dgx-h100"])
def test_messages_name_what_was_asked(links: str | None) -> None:
    """Questions are planned on axes of their own, of which no message of any strategy knows."""
    raised: Counter[str] = Counter()
    pairs = [random_pair(random.Random(seed).choice) for seed in range(repetitions(8, 3000))]
    pairs += [pair(rd.Mesh(x=5), "i64[15{x}]", "i64[15{_3,x}]")]
    large = pair(rd.Mesh(x=12, z=5), "i32[10{z}, 240{_4,x}]", "i32[10, 240{z}] sum{x}")
    for src, dst in (*pairs, large):
        aligned, exact = refine(src, dst).aligned, exact_size(src, dst) <= 50 or dst is large[1]
        asked = ["collectives", "paper", "direct", *(["auto", "explain"] if not aligned else [])]
        for strategy in (*asked, *(["exact"] if exact else [])):
            try:
                if strategy == "explain":
                    text = str(rd.explain(src, dst, profile=links))
                else:
                    text = str(rd.plan(src, dst, strategy=strategy, profile=links))
            except rd.RedistribError as error:
                raised[f"{type(error).__name__} of {strategy}"] += 1
                text = str(error)
                assert text.startswith(f"from {src} to {dst}: "), text
            assert axes_named(text) <= {name for name, _ in src.mesh.axes}, (strategy, text)
    assert raised["InfeasibleError of collectives"]
    assert raised["InfeasibleError of exact"]
    assert raised["RedistribError of exact"]


CASES = {
    "48x20": ({"x": 48, "y": 20}, "bf16[8640{x}, 8640{y}]", "bf16[8640{y}, 8640{x}]"),
    "8x8x12": ({"x": 8, "y": 8, "z": 12}, "bf16[768{x,y,z}, 768]", "bf16[768{z}, 768{y,x}]"),
    "16x20x28": (
        {"x": 16, "y": 20, "z": 28},
        "bf16[8960{x}, 8960{y}, 8960{z}]",
        "bf16[8960{y}, 8960{z}, 8960{x}]",
    ),
    "24x9x4": (
        {"x": 24, "y": 9, "z": 4},
        "f32[864{x}, 864{y}, 864{z}, 864]",
        "f32[864{y}, 864{z}, 864, 864{x}]",
    ),
    "2048x3": ({"x": 2048, "y": 3}, "f32[12288{x}, 12288{y}]", "f32[12288{y}, 12288{x}]"),
    "6x10x15": ({"a": 6, "b": 10, "c": 15}, "f32[900{a,b}, 900{c}]", "f32[900{b,c}, 900{a}]"),
    "6x4x3x6": (
        {"a": 6, "b": 4, "c": 3, "d": 6},
        "i8[864{b}, 1728{c,d,a}]",
        "i8[864, 1728{a,d}]",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_questions_that_took_seconds_to_minutes_are_answered_with_bounded_work(case: str) -> None:
    """A tenth of a second each; here calls are counted, so that a busy machine does not matter."""
    axes, *texts = CASES[case]
    ends = pair(rd.Mesh(axes), *texts)
    plans: list[rd.Plan] = []
    assert calls_of(lambda: plans.append(rd.plan(*ends))) < 400_000
    plan = plans[0]
    assert plan.seconds <= rd.plan(*ends, strategy="direct").seconds
    assert len(plan.to_json()) < 50_000
    assert rd.Oracle(ends[0].mesh).cost(*ends).seconds <= plan.seconds
