"""The mpi backend under a real mpiexec: all cases of mpi_worker.py, once per number of ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
MPIEXEC = Path(sys.executable).parent / "mpiexec"
CASES = (
    "random_plans_equal_the_simulator",
    "strategies_end_in_the_same_tiles",
    "every_dtype_moves_bit_for_bit",
    "results_go_where_they_are_told",
    "nothing_to_do_and_zero_sizes",
    "arrays_are_gathered_on_rank_0",
    "reductions_are_taken_in_rank_order",
    "one_bad_rank_is_an_error_on_all",
    "disagreement_is_an_error_on_all",
    "wrong_data_is_an_error_on_all",
    "gather_is_the_inverse_of_scatter",
)


def mpiexec(ranks: int, *arguments: str, timeout: float = 120) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of python under mpiexec; a job that hangs is killed whole."""
    line = [str(MPIEXEC), "-n", str(ranks), sys.executable, "-m", "mpi4py", *arguments]
    with subprocess.Popen(
        line,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"{ranks} ranks hung\n{out}\n{err}")
    return process.returncode, out, err


@cache
def outcome(ranks: int) -> dict[str, Any]:
    """What failed, by case and rank; a job that ends early failed in every case."""
    status, out, err = mpiexec(ranks, "-m", "tests.mpi_worker")
    if status:
        return dict.fromkeys(CASES, err[-4000:])
    found: dict[str, Any] = json.loads(out)
    assert set(found) == set(CASES)
    return found


@pytest.mark.parametrize("ranks", [2, 4, 6, 8])
@pytest.mark.parametrize("case", CASES)
def test_mpi(case: str, ranks: int) -> None:
    assert outcome(ranks)[case] == {}


def test_a_mesh_of_another_size_is_refused_by_the_command() -> None:
    code = (
        "import redistrib as rd, numpy as np\n"
        "from redistrib.backends import mpi\n"
        "mesh = rd.Mesh(x=4)\n"
        "ends = [rd.ArrayType.parse(t, mesh) for t in ('f32[8{x}]', 'f32[8]')]\n"
        "mpi.run_array(rd.plan(*ends), np.zeros(8, np.float32))\n"
    )
    status, _, err = mpiexec(2, "-c", code)
    assert status != 0
    assert "has 4 positions, one for each rank; the communicator has 2 ranks" in err


def test_without_mpi4py_the_error_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "sys.modules['mpi4py'] = None\n"  # what an import of a missing package finds
        "from redistrib.errors import BackendError\n"
        "try:\n"
        "    import redistrib.backends.mpi\n"
        "except BackendError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "pip install 'redistrib[mpi,mpich]'" in run.stdout
