"""The mpi backend on real ranks: every case of tests/mpi/cases.py under MPICH and Open MPI.

Each number of ranks is tried under one of them, 4 under both; `make exhaustive` has all under both.
`python -m tests.exhaustive mpi` runs all draws and pairs; here are a few of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from redistrib.demo.launch import MPICH, OPENMPI
from tests.mpi.pool import Pool
from tests.repetitions import MANY, repetitions

ROOT = Path(__file__).parents[2]
FEW_POOLS = [*product([MPICH], (2, 4, 8)), *product([OPENMPI], (3, 4, 6))]
POOLS = [
    pytest.param((mpi, ranks), id=f"{mpi.name}-{ranks}")
    for mpi, ranks in (product((MPICH, OPENMPI), (2, 3, 4, 6, 8)) if MANY else FEW_POOLS)
]
DRAWS = 20
PROGRAMS = 12
OBJECTS = repetitions(24, 60)
MODELS = 20
CASE_FILES = (
    "cases.py",
    "daily_cases.py",
    "fault_cases.py",
    "model_cases.py",
    "report_cases.py",
    "safety_cases.py",
    "shared_cases.py",
    "step_cases.py",
)


def cases(*files: str) -> list[str]:
    """The names of the cases without arguments, read without importing MPI into this process."""
    return [
        node.name
        for file in files or CASE_FILES
        for node in ast.parse((ROOT / "tests" / "mpi" / file).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list and len(node.args.args) == 1
    ]


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    installation, ranks = request.param
    with Pool(installation, ranks) as running:
        yield running


@pytest.mark.parametrize("case", cases())
def test_mpi(pool: Pool, case: str) -> None:
    assert pool.run(case) == {}


def test_results_in_shared_memory_on_two_nodes() -> None:
    """MPICH can take one node for several: within each results are shared, between them sent."""
    with Pool(MPICH, 4, MPIR_CVAR_NUM_CLIQUES="2") as running:
        for case in cases("shared_cases.py"):
            assert running.run(case) == {}


def test_late_ranks(pool: Pool) -> None:
    if pool.ranks != 4:  # the cases take seconds, and depend on the number of ranks least
        return
    for case in cases("late_cases.py"):
        assert pool.run(case) == {}


def test_random_draws(pool: Pool) -> None:
    assert pool.run("random_draws_are_right", 1000 * pool.ranks, DRAWS) == {}


def test_random_programs(pool: Pool) -> None:
    assert pool.run("programs_equal_numpy", 1000 * pool.ranks, PROGRAMS) == {}


def test_random_models(pool: Pool) -> None:
    count = repetitions(MODELS, 500)
    assert pool.run("models_move_as_numpy_says", 1000 * pool.ranks, count) == {}


def test_objects_come_and_go(pool: Pool) -> None:
    assert pool.run("objects_leave_nothing_behind", OBJECTS) == {}


def test_some_core_pairs_and_real_world_cases(pool: Pool) -> None:
    if pool.ranks < 8:
        return
    assert pool.run("core_pairs_are_right", "x=2,y=4", [8, 8, 8], 0, 7) == {}
    assert pool.run("real_world_cases_are_right", 1 << 20) == {}
