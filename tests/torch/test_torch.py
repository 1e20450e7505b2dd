"""The torch backend on real ranks over gloo: every case of tests/torch in one pool of 8.

`python -m tests.exhaustive torch` runs many more of the random ones.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from redistrib.demo.launch import family
from tests.repetitions import repetitions
from tests.torch.pool import Pool

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


@pytest.mark.parametrize(
    ("case", "few", "many"),
    [
        ("random_plans_are_right", 40, 2000),
        ("random_uneven_plans_are_right", 40, 1000),
        ("random_dtensors_are_right", 60, 1000),
        ("random_orders_of_uneven_shards_are_right", 60, 1000),
        ("random_pairs_are_torchs", 60, 1000),
        ("moves_stay_within_their_ends_where_dtensor_does_not", 6, 200),
        ("random_models_move", 20, 500),
        ("llama_moves_within_a_tenth_more_than_its_weights", 4, 32),
    ],
)
def test_random(pool: Pool, case: str, few: int, many: int) -> None:
    assert pool.run(case, 1, repetitions(few, many), timeout=3000) == {}


def test_a_rank_that_fails_or_is_lost_is_an_error_on_the_others() -> None:
    """Within the timeout, and no process is left."""
    with Pool(4) as running:
        processes = family(running.process.pid)
        assert running.run("a_wrong_later_call_is_told", timeout=60) == {}
        assert running.run("waits_for_a_lost_rank", timeout=60, lost=1) == {}
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)
