"""Programs jitted by jax and by us: real ones, and random ones, each in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.repetitions import repetitions
from tests.worker import ROOT, cpu_devices, outcome_of

CASES = (
    "a_transformer_step_with_an_embedding_and_adam",
    "a_convnet_with_its_gradient",
    "primitives_each_in_a_call",
    "what_jax_documents_of_jit_and_shard_map",
    "windowed_reductions_of_several_are_laid_out_as_in_plain_jax",
    "dropout_in_a_rematerialized_scan",
    "a_training_step_with_explicit_axes",
    "values_that_are_constrained_together_are_one_call",
    "loops_are_laid_out_as_their_constraints_say",
    "functions_with_their_own_derivatives",
    "experts_and_their_dispatch",
    "solves_and_factorizations",
    "random_keys_of_both_kinds",
    "meshes_with_explicit_axes_and_regions_without",
    "constraints_on_two_meshes_and_odd_element_types",
    "pipelines_in_a_shard_map_of_some_axes",
    "ahead_of_time_donated_exported_and_under_another_partitioner",
    "tactics_move_what_compiled_programs_do",
)
MODULE = "tests.jax.random_programs"
RANDOM, PROCESSES = repetitions(24, 200), 2


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    return outcome_of("tests.jax.conformance_worker", CASES, devices=8)


@pytest.mark.parametrize("case", CASES)
def test_program(case: str, outcome: dict[str, str]) -> None:
    assert outcome[case] == "", outcome[case]


def test_random_programs() -> None:
    share = RANDOM // PROCESSES
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", MODULE, str(first), str(first + share)],
            cwd=ROOT,
            env=cpu_devices(8),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for first in range(0, RANDOM, share)
    ]
    try:
        for run in runs:
            output, _ = run.communicate(timeout=600)
            assert run.returncode == 0
            assert json.loads(output) == {}
    finally:
        for run in runs:
            run.kill()
            run.communicate()
