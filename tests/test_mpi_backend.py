"""The mpi backend on real ranks: every case of tests/mpi/cases.py under MPICH and Open MPI."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.mpi.pool import MPICH, OPENMPI, Pool

ROOT = Path(__file__).parents[1]
POOLS = [
    pytest.param((mpi, ranks), id=f"{mpi.name}-{ranks}")
    for mpi, ranks in product((MPICH, OPENMPI), (2, 3, 4, 6, 8))
]


def cases() -> list[str]:
    """The names of the cases, without importing MPI into this process."""
    source = (ROOT / "tests" / "mpi" / "cases.py").read_text(encoding="utf-8")
    functions = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    return [f.name for f in functions if f.decorator_list and len(f.args.args) == 1]


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    installation, ranks = request.param
    with Pool(installation, ranks) as running:
        yield running


@pytest.mark.parametrize("case", cases())
def test_mpi(pool: Pool, case: str) -> None:
    assert pool.run(case) == {}


def test_random_draws(pool: Pool) -> None:
    assert pool.run("random_draws_are_right", 0, 40) == {}
