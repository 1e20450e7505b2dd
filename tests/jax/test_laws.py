"""`reshard` beside plain jax: all cases of laws_worker.py, run once in one process."""

from __future__ import annotations

import pytest

from tests.worker import outcome_of

CASES = (
    "an_array_twice_in_a_donated_tree_moves_once_and_is_given_up",
    "where_the_target_has_other_devices_or_another_mesh_of_the_same_names",
    "small_and_large_arrays_go_to_other_devices",
    "what_is_asked_for_is_no_transfer_that_a_guard_forbids",
    "gradients_go_back_to_the_devices_they_came_from",
    "inside_jit_the_devices_are_those_of_the_target",
    "meshes_with_axes_of_both_kinds",
    "weak_types_stay_weak",
    "memory_of_another_kind_is_refused_or_left_to_jax",
    "whatever_the_target_xla_takes_over_where_it_is_asked_to",
    "targets_that_are_one_device_or_a_layout_in_memory",
    "targets_in_jit_that_are_one_device_or_a_layout_in_memory",
    "errors_inside_jit_are_ours",
    "leaves_that_jax_takes",
    "arrays_that_a_function_closes_over",
    "programs_that_do_the_same_have_one_key_in_the_compilation_cache",
)


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    return outcome_of("tests.jax.laws_worker", CASES, devices=16)


@pytest.mark.parametrize("case", CASES)
def test_law(case: str, outcome: dict[str, str]) -> None:
    assert outcome[case] == "", outcome[case]
