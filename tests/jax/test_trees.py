"""Copies of model plans between devices: all cases of trees_worker.py, run once in one process."""

from __future__ import annotations

import pytest

from tests.worker import outcome_of

CASES = ("random_moves_by_copies_in_memory", "random_moves_by_one_program")


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    return outcome_of("tests.jax.trees_worker", CASES, devices=16)


@pytest.mark.parametrize("case", CASES)
def test_tree(case: str, outcome: dict[str, str]) -> None:
    assert outcome[case] == "", outcome[case]
