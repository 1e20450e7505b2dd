"""A rank that dies, stops or raises: the job ends within seconds, and leaves no process."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest

from redistrib.backends.mpi.shared import MEMORY
from redistrib.demo.launch import MPICH, OPENMPI, Installation, family, kill, start
from tests.repetitions import MANY

ROOT = Path(__file__).parents[2]
BOTH = pytest.mark.parametrize("mpi", [MPICH, OPENMPI], ids=lambda mpi: mpi.name)
FEW_INTO = [(MPICH, "private"), (OPENMPI, "shared")]
BOTH_INTO = pytest.mark.parametrize(
    ("mpi", "into"),
    [*product((MPICH, OPENMPI), ("private", "shared"))] if MANY else FEW_INTO,
    ids=lambda value: value if isinstance(value, str) else value.name,
)
RANKS = 4
LIMIT = 40.0
"""Seconds in which a job ends: one that hangs never does, and a busy machine takes its time."""


def end_of(mpi: Installation, how: str, timeout: float, into: str) -> tuple[int, str]:
    """Exit status and stderr of a doomed job, which ends soon after its fault."""
    job = start(mpi, RANKS, "-m", "tests.mpi.doomed", how, str(timeout), into)
    try:
        assert job.stdout is not None
        assert job.stdout.readline().strip() == "exchanging"
        begun = time.monotonic()
        members = family(job.pid)
        assert len(members) > RANKS
        _, errors = job.communicate(timeout=LIMIT + timeout)
        assert time.monotonic() - begun < LIMIT + timeout
        gone = time.monotonic() + 20
        while (left := [pid for pid in members if alive(pid)]) and time.monotonic() < gone:
            time.sleep(0.05)
        assert left == [], "the job leaves no process"
    finally:
        kill(job)
    return job.returncode, errors


def alive(pid: int) -> bool:
    """Whether a process is there; one that only waits to be collected is not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def shared_files() -> set[Path]:
    """The files of shared tiles that have a name."""
    return set(MEMORY.glob("redistrib-*"))


@BOTH_INTO
def test_a_killed_rank_ends_the_job(mpi: Installation, into: str) -> None:
    before = shared_files()
    status, _ = end_of(mpi, "kill", 0, into)
    assert status != 0
    gone = time.monotonic() + 20  # other jobs have such files for a moment
    while (left := shared_files() - before) and time.monotonic() < gone:
        time.sleep(0.05)
    assert left == set()


@BOTH
def test_a_rank_that_raises_ends_the_job(mpi: Installation) -> None:
    status, errors = end_of(mpi, "raise", 0, "private")
    assert status != 0
    assert "one rank raises" in errors


@BOTH_INTO
def test_the_watchdog_names_the_step_and_the_rank_that_stopped(
    mpi: Installation, into: str
) -> None:
    status, errors = end_of(mpi, "stop", 4, into)
    assert status != 0
    said = re.search(
        r"BackendError: (the \w+ .*) made no progress for 4 s; "
        r"rank \d got no answer from ranks: (.*)",
        errors,
    )
    assert said is not None, errors
    assert said[1] == "the exchange (1 of 1)"
    assert said[2] == str(RANKS - 1)


@BOTH
def test_a_rank_that_dies_while_shared_tiles_are_made_leaves_no_file(mpi: Installation) -> None:
    before = shared_files()
    status, _ = end_of(mpi, "die making", 0, "shared")
    assert status != 0
    assert shared_files() - before == set()


@BOTH
def test_mpi_may_begin_after_the_import_and_end_before_what_was_made(mpi: Installation) -> None:
    code = (
        "import mpi4py\n"
        "mpi4py.rc.initialize = False\n"
        "import numpy as np\n"
        "import redistrib as rd\n"
        "from redistrib.backends import mpi\n"
        "from mpi4py import MPI\n"
        "t = rd.ArrayType.parse('f32[24, 24]', rd.Mesh())\n"
        "def refused():\n"
        "    try:\n"
        "        mpi.Redistribution(t, t, MPI.COMM_WORLD)\n"
        "    except rd.BackendError as error:\n"
        "        print(error)\n"
        "refused()\n"
        "MPI.Init()\n"
        "made = [mpi.Redistribution(t, t, MPI.COMM_WORLD) for _ in range(2)]\n"
        "made[0](np.zeros((24, 24), np.float32)[::1])\n"
        "MPI.Finalize()\n"
        "made[0].free()\n"
        "del made\n"
        "refused()\n"
        "print('done')\n"
    )
    job = start(mpi, 1, "-c", code)
    try:
        said, errors = job.communicate(timeout=60)
    finally:
        kill(job)
    assert job.returncode == 0, errors
    assert said.count("between MPI_Init and MPI_Finalize") == 2
    assert said.endswith("done\n")


def test_a_mesh_of_another_size_is_refused_by_the_command() -> None:
    code = (
        "import redistrib as rd, numpy as np\n"
        "from redistrib.backends import mpi\n"
        "mesh = rd.Mesh(x=4)\n"
        "ends = [rd.ArrayType.parse(t, mesh) for t in ('f32[8{x}]', 'f32[8]')]\n"
        "mpi.run_array(rd.plan(*ends), np.zeros(8, np.float32))\n"
    )
    job = start(MPICH, 2, "-c", code)
    try:
        _, errors = job.communicate(timeout=60)
    finally:
        kill(job)
    assert job.returncode != 0
    assert "has 4 positions, one for each rank; the communicator has 2 ranks" in errors


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
