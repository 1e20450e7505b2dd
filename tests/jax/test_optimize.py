"""`optimize` on virtual devices: all cases of jax_optimize_worker.py, run once in one process."""

from __future__ import annotations

import pytest

from tests.worker import outcome_of

CASES = (
    "the_public_report_of_dimensions_that_swap_axes",
    "the_public_report_of_a_parameter_between_two_layouts",
    "training_steps_loops_and_branches",
    "functions_with_their_own_derivatives",
    "explicit_reshards",
    "arguments_that_are_no_arrays",
    "what_cannot_be_planned_stays_with_xla",
    "tiles_in_a_shard_map_are_left_alone",
    "what_a_program_will_do_is_explained_before_it_runs",
)


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    return outcome_of("tests.jax.optimize_worker", CASES, devices=16)


@pytest.mark.parametrize("case", CASES)
def test_optimize(case: str, outcome: dict[str, str]) -> None:
    assert outcome[case] == "", outcome[case]
