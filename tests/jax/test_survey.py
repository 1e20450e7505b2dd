"""Thirty pairs of the survey of reshardings; `make exhaustive` runs all of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from math import exp, log

from redistrib.demo.survey import DTYPES, Pair, crashing, pairs, specs
from tests.jax.survey import check, survey


def test_programs_are_exact_and_smaller_than_those_of_xla() -> None:
    chosen = [
        pair for devices, every in ((8, 20), (12, 20), (16, 40)) for pair in pairs(devices)[::every]
    ]
    work = [replace(pair, dtype=dtype) for pair, dtype in zip(chosen, cycle(DTYPES), strict=False)]
    ratios: dict[str, list[float]] = {}
    counts = check(work, ratios)
    assert counts["pairs"] == 30
    assert counts["in chunks"] > 15
    assert _mean(ratios["ours"]) <= 1.15
    # The survey finds what it is there to find.
    assert counts["XLA's buffer above both tiles"] > 2
    assert _mean(ratios["xla"]) > 1.3


def test_chunks_copy_neither_end() -> None:
    # Read back from the target, the order of these rounds made XLA copy it.
    counts = check(
        [
            Pair((2, 3, 2), (96, 96, 96), *specs("b c a", "- bc a")),
            Pair((2, 2, 2, 2), (64, 128, 128), *specs("acdb - -", "c - b")),
        ]
    )
    assert counts["in chunks"] == 2


def test_layouts_that_crash_xla_run() -> None:
    for found in survey([(pair, "ours") for pair in crashing()]):
        assert found["exact"]


def _mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))
