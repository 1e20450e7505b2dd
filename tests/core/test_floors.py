"""Floors of combinations of choices: no combination takes less, and most take no more."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import islice, product
from typing import Any

import pytest

import redistrib as rd
from redistrib.synth.planner import three_phase
from redistrib.synth.planner.chains import Choice
from redistrib.synth.planner.floors import Floor
from tests.generators import random_pair
from tests.repetitions import repetitions

SPEEDS = rd.Profile(
    "three speeds, the slowest with the least latency",
    rd.Link(2e-6, 1e11),
    (("x", rd.Link(1e-6, 1e9)), ("y", rd.Link(4e-6, 1e10))),
    efficiency=(("all_gather", 0.5), ("all_to_all", 0.25)),
)
OVER_BOTH = (
    ("f32[4096{x}, 4096{y}, 4096]", "f32[4096, 4096, 4096{x,y}]"),
    ("f32[4096{x,y}, 4096, 4096]", "f32[4096{y,x}, 4096, 4096]"),
    ("f32[4096{x}, 4096{y}, 4096]", "f32[4096{y}, 4096{x}, 4096]"),
    ("f32[4096{x}, 4096{y}, 4096]", "f32[4096, 4096, 4096]"),
    ("f32[4096, 4096, 4096] sum{x,y}", "f32[4096{x}, 4096{y}, 4096]"),
    ("f32[4096, 4096, 4096] sum{x,y}", "f32[4096, 4096, 4096]"),
)
"""On x=2,y=8: x is between nodes, y inside of one."""


@pytest.mark.parametrize("profile", [None, SPEEDS, "dgx-h100", "mpi-cluster", "tpu-v5e"], ids=str)
def test_no_combination_takes_less_than_its_floor(
    profile: rd.Profile | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: Counter[str] = Counter()
    cheapest = three_phase._cheapest

    def verified(options: list[list[Choice]], price: Any, floor: Floor, bound: float) -> Any:
        def verify(choices: Sequence[Choice]) -> None:
            priced = price(choices)
            if priced is not None:
                least = floor.seconds(choices)
                assert least <= priced[0] * (1 + 1e-12), priced[1]
                counts["priced"] += 1
                counts["at the floor"] += least >= priced[0] * (1 - 1e-12)

        for choices in islice(product(*options), 100):
            verify(choices)
        return cheapest(options, price, floor, bound)

    monkeypatch.setattr(three_phase, "_cheapest", verified)
    mesh = rd.Mesh(x=2, y=8)
    pairs = [[rd.ArrayType.parse(text, mesh) for text in texts] for texts in OVER_BOTH]
    pairs += [
        [*random_pair(random.Random(seed).choice, partial=seed % 2 == 0)]
        for seed in range(repetitions(60, 3000))
    ]
    for src, dst in pairs:
        rd.cost(src, dst, profile=profile, memory_limit=src.size * src.itemsize or None)
    assert counts["at the floor"] > counts["priced"] / 5 > 10, counts
