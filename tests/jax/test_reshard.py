"""`reshard` on virtual devices: all cases of reshard_worker.py, run once in one process."""

from __future__ import annotations

import pytest

from tests.worker import outcome_of

CASES = (
    "every_shard_is_what_jax_puts_there",
    "however_the_array_was_made",
    "trees_and_prefixes_of_trees",
    "five_hundred_arrays_of_five_layouts_are_five_programs",
    "a_spec_is_on_the_mesh_in_context_or_of_the_array",
    "inside_jit_the_bytes_are_those_of_the_plan",
    "a_layout_that_only_the_partitioner_knows",
    "gradients_run_the_plan_back",
    "the_backward_pass_receives_what_its_plan_says",
    "sums_and_replicas_that_jax_tracks",
    "in_loops_and_batches",
    "other_meshes_of_the_same_devices",
    "other_devices",
    "donated_arrays_are_given_up",
    "below_the_tiles_of_both_ends_it_runs_in_chunks",
    "a_cached_reshard_costs_little_more_than_the_program",
    "what_cannot_be_planned_is_one_clear_error_before_compilation",
    "xla_takes_over_where_it_is_asked_to",
)


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    return outcome_of("tests.jax.reshard_worker", CASES, devices=16)


@pytest.mark.parametrize("case", CASES)
def test_reshard(case: str, outcome: dict[str, str]) -> None:
    assert outcome[case] == "", outcome[case]
