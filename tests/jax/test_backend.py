"""The jax backend on virtual devices: all cases of backend_worker.py, run once in one process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.worker import ROOT, outcome_of

CASES = (
    "random_plans_equal_the_simulator",
    "programs_in_chunks_equal_the_simulator",
    "every_dtype_moves_bit_for_bit",
    "layouts_without_a_partition_spec_run",
    "plans_to_other_devices_run",
    "zero_sizes_and_single_devices_run",
    "compiled_programs_move_what_the_plan_says",
    "accepted_corruptions_run_as_they_say",
    "an_exchange_takes_the_least_rounds",
    "the_tile_program_runs_in_a_users_shard_map",
    "a_target_may_name_the_same_devices_in_another_order",
    "devices_are_calibrated",
    "bad_input_is_one_clear_error",
)


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    return outcome_of("tests.jax.backend_worker", CASES, devices=12)


@pytest.mark.parametrize("case", CASES)
def test_jax(case: str, outcome: dict[str, str]) -> None:
    assert outcome[case] == "", outcome[case]


def test_without_jax_the_error_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['jax'] = None\n"  # what an import of a missing package finds
        "from redistrib.errors import BackendError\n"
        "try:\n"
        "    import redistrib.backends.jax\n"
        "except BackendError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "pip install 'redistrib[jax]'" in run.stdout
