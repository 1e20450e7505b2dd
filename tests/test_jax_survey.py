"""Sixty pairs of the survey of reshardings; `make exhaustive` runs all of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from math import exp, log

from tests.jax_survey import DTYPES, check, crashing, pairs, survey


def test_programs_are_exact_and_smaller_than_those_of_xla() -> None:
    chosen = [
        pair for devices, every in ((8, 10), (12, 10), (16, 20)) for pair in pairs(devices)[::every]
    ]
    work = [replace(pair, dtype=dtype) for pair, dtype in zip(chosen, cycle(DTYPES), strict=False)]
    ratios: dict[str, list[float]] = {}
    counts = check(work, ratios)
    assert counts["pairs"] == 60
    assert counts["in chunks"] > 30
    assert _mean(ratios["ours"]) <= 1.15
    # The survey finds what it is there to find.
    assert counts["XLA's buffer above both tiles"] > 5
    assert _mean(ratios["xla"]) > 1.3


def test_layouts_that_crash_xla_run() -> None:
    for found in survey([(pair, "ours") for pair in crashing()]):
        assert found["exact"]


def _mean(values: list[float]) -> float:
    return exp(sum(map(log, values)) / len(values))
