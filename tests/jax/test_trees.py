"""Whole trees, and copies between devices: all cases of trees_worker.py, run once."""

from __future__ import annotations

import pytest

from tests.worker import outcome_of

CASES = (
    "random_moves_by_copies_in_memory",
    "random_moves_by_one_program",
    "trees_move_as_plain_jax_moves_them",
    "equal_moves_are_one_program_and_another_tree_is_none",
    "a_budget_holds_at_every_moment",
    "sums_over_devices_go_to_other_devices",
    "a_weight_map_makes_other_arrays",
    "errors_name_the_array_and_come_before_anything_moves",
    "progress_is_said",
)


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    return outcome_of("tests.jax.trees_worker", CASES, devices=16)


@pytest.mark.parametrize("case", CASES)
def test_tree(case: str, outcome: dict[str, str]) -> None:
    assert outcome[case] == "", outcome[case]
