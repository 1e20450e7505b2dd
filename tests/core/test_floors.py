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
PARTS = rd.Profile(
    "parts of an axis have links, and what is cut otherwise crosses the default as well",
    rd.Link(1e-6, 1e12),
    (("x:(1)2", rd.Link(1e-6, 1e10)), ("x:(2)3", rd.Link(1e-6, 1e9))),
)
CLOSE = rd.Profile(
    "two links are nearly as slow",
    rd.Link(0.0, 6.72e9),
    (
        ("a", rd.Link(1e-7, 1.34e10)),
        ("b", rd.Link(0.0, 1.34e9)),
        ("c", rd.Link(1e-9, 1.34e8)),
        ("d", rd.Link(1e-9, 1.75e8)),
    ),
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


def test_a_move_over_two_slow_links_has_one_payload() -> None:
    mesh = rd.Mesh(a=2, b=2, c=2, d=2)
    texts = "f32[2304{c}, 2304, 2304{b,a}] sum{d}", "f32[2304, 2304{b,a}, 2304{d,c}]"
    src, dst = (rd.ArrayType.parse(text, mesh) for text in texts)
    plan = rd.plan(src, dst, profile=CLOSE, memory_limit=src.size, strategy="collectives")
    assert plan.seconds < 36
    assert plan.num_collectives == 4


def test_a_digit_may_cross_links_that_no_axis_has() -> None:
    mesh = rd.Mesh(x=6)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in ("f32[6{x}, 6]", "f32[6, 6{x:(3)2}]"))
    plan = rd.plan(src, dst, profile=PARTS)
    rd.check(plan)
    assert rd.Oracle(mesh, PARTS).cost_matrix([src], [dst]) == plan.seconds
