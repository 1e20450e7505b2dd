"""Every question ends within the budget of tests/budget.py; `exhaustive budget` asks many."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from redistrib.synth.planner.choose import choose
from redistrib.synth.planner.problem import make_problem
from redistrib.synth.planner.work import MAX_STEPS, Work
from redistrib.types.overlap import meetings
from tests.budget import CALLS, PROFILES, budget_pair, calls_of, verify_budget


@pytest.mark.parametrize("seed", range(12))
def test_any_pair_is_planned_priced_and_checked_within_the_budget(seed: int) -> None:
    verify_budget(seed)


@pytest.mark.parametrize("seed", [1, 40, 115, 132])
def test_uneven_pairs_are_planned_priced_and_checked_within_the_budget(seed: int) -> None:
    """Millions of messages in two of them, 18,432 nested blocks in one."""
    assert verify_budget(seed, uneven=True)["uneven"]


@pytest.mark.parametrize("seed", [12, 63, 103, 147, 157, 172, 205, 261, 297, 850, 910, 957])
def test_pairs_that_took_longer_or_failed_once(seed: int) -> None:
    """Axes of 720 devices, whose digits no cut looked at suits; 400 copies for 1,920 receivers.

    In the last three a permute came back from cut axes, or from normal form, as none.
    """
    verify_budget(seed)


def test_a_target_with_sums_on_another_mesh_of_many_copies_is_planned() -> None:
    """Its copies could not be spread over the digits of the sum: an internal error, once."""
    mesh, onto = (
        rd.Mesh(x0=4, x1=5),
        rd.Mesh({"a0": 1024, "a1": 3, "a2": 8}, devices=range(10, 24586)),
    )
    src = rd.ArrayType.parse("i8[48{x0}] sum{x1}", mesh)
    plan = rd.plan(src, rd.ArrayType.parse("i8[48] sum{a2}", onto))
    assert [step.collective for step in plan.steps][:2] == ["all_reduce", "exchange"]
    rd.check(plan)


@pytest.mark.parametrize("seed", [147, 333])
def test_searches_share_a_bound_on_their_work(seed: int) -> None:
    src, dst = budget_pair(seed)
    problem = make_problem(src, dst, None, PROFILES[seed % len(PROFILES)])
    choose(problem)
    # the last step may be a meeting with all its places
    assert -1000 < problem.work.left < MAX_STEPS // 2


def test_a_share_of_work_comes_back() -> None:
    work = Work(800)

    def search() -> None:
        with work.share(2) as part:
            part.left -= 100
            assert (work.left, part.left) == (400, 300)
            raise rd.RedistribError("no plan")

    with pytest.raises(rd.RedistribError):
        search()
    assert work.left == 700


def test_any_order_of_many_devices_is_planned_within_the_budget() -> None:
    rng = random.Random(1)
    meshes = [
        rd.Mesh(axes, devices=rng.sample(range(65536), 65536))
        for axes in ({"x": 256, "y": 256}, {"a": 1024, "b": 64})
    ]
    src = rd.ArrayType.parse("f32[65536{x}, 4096{y}]", meshes[0])
    dst = rd.ArrayType.parse("f32[65536{b}, 4096{a}]", meshes[1])
    plans: list[rd.Plan] = []
    assert calls_of(lambda: plans.append(rd.plan(src, dst))) < CALLS["plan"]
    assert calls_of(lambda: rd.check(plans[0].to_json())) < CALLS["check"]


def test_what_is_planned_is_checked() -> None:
    """Digits of strides 2048, 15015 and 2145, of which the checker looked at each index, once."""
    meshes = rd.Mesh(x=3, y=30030), rd.Mesh(a=8, b=7, c=4096)
    src = rd.ArrayType.parse("i32[61501440{y}, 2]", meshes[0])
    plan = rd.plan(src, rd.ArrayType.parse("i32[61501440{c}, 2] sum{b}", meshes[1]))
    assert rd.check(plan)["received_bytes"] == plan.received_bytes


def test_receivers_that_want_the_same_are_checked_as_one() -> None:
    """4,096 receivers want the same of the last dimension, 16 million pieces in all."""
    mesh = rd.Mesh(x=15, y=4096)
    texts = "i32[3, 4096, 61440{y}]", "i32[3, 4096{y}, 61440{x}]"
    src, dst = (rd.ArrayType.parse(text, mesh) for text in texts)
    plan = rd.plan(src, dst, strategy="direct")
    assert rd.check(plan)["sent_bytes"] == plan.sent_bytes


def test_blocks_that_no_tile_cuts_are_enumerated_once_for_each_order_of_axes() -> None:
    """For the bound, prices, routes and the plan; half a million of them here, once two seconds."""
    mesh = rd.Mesh(x=7, y=11, z=625)
    src, dst = (
        rd.ArrayType.parse(text, mesh) for text in ("i32[288750{z,_6,x,y}]", "i32[288750{y,z}]")
    )
    meetings.cache_clear()
    rd.plan(src, dst)
    assert meetings.cache_info().misses == 2


def test_the_pairs_are_of_many_kinds() -> None:
    ends = [budget_pair(seed) for seed in range(40)]
    assert any(src.mesh != dst.mesh for src, dst in ends)
    assert any(src.partial or dst.partial for src, dst in ends)
    assert max(src.mesh.num_devices for src, _ in ends) > 10_000
    assert max(len(src.shape) for src, _ in ends) == 8
