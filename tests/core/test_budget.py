"""Every question ends within the budget of tests/budget.py; `exhaustive budget` asks many."""

from __future__ import annotations

import pytest

import redistrib as rd
from tests.budget import budget_pair, verify_budget


@pytest.mark.parametrize("seed", range(16))
def test_any_pair_is_planned_priced_and_checked_within_the_budget(seed: int) -> None:
    verify_budget(seed)


@pytest.mark.parametrize("seed", [12, 63, 103, 172, 205, 261, 297])
def test_pairs_that_took_longer_or_failed_once(seed: int) -> None:
    """Axes of 720 devices, whose digits no cut looked at suits; 400 copies for 1,920 receivers."""
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


def test_the_pairs_are_of_many_kinds() -> None:
    ends = [budget_pair(seed) for seed in range(40)]
    assert any(src.mesh != dst.mesh for src, dst in ends)
    assert any(src.partial or dst.partial for src, dst in ends)
    assert max(src.mesh.num_devices for src, _ in ends) > 10_000
    assert max(len(src.shape) for src, _ in ends) == 8
