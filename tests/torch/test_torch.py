"""The torch backend on real ranks over gloo: every case of tests/torch in one pool of 8.

`python -m tests.exhaustive torch` runs many more of the random ones.
"""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repetitions import repetitions
from tests.torch.pool import PYTHON, ROOT, Pool

RANKS = 8
HERE = Path(__file__).parent
CASE_FILES = sorted(HERE.glob("*_cases.py"))


def cases() -> list[str]:
    """The names of the cases without arguments, read without importing torch."""
    return [
        node.name
        for file in CASE_FILES
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list and not node.args.args
    ]


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(RANKS) as running:
        yield running


@pytest.mark.parametrize("case", cases())
def test_case(pool: Pool, case: str) -> None:
    assert pool.run(case) == {}


def test_random_plans(pool: Pool) -> None:
    assert pool.run("random_plans_are_right", 1, repetitions(40, 2000), timeout=1500) == {}


def test_examples_in_docstrings() -> None:
    """Run where torch is."""
    command = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules"]
    options = ["-o", "addopts=--import-mode=importlib --doctest-modules", "-W", "ignore"]
    result = subprocess.run(
        [*command, *options, "redistrib/backends/torch"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]


def test_random_dtensors(pool: Pool) -> None:
    assert pool.run("random_dtensors_are_right", 2, repetitions(60, 1000), timeout=1500) == {}
