"""The laws of prices for all types: a few random questions, and one of each kind that once fell."""

import random

import pytest

import redistrib as rd
from tests.oracle.questions import relabelled, verify_names_and_orders
from tests.repetitions import repetitions

RELABELLED = (272, *range(repetitions(8, 250)))


@pytest.mark.parametrize("seed", RELABELLED)
def test_names_and_orders_change_no_price(seed: int) -> None:
    verify_names_and_orders(seed)


def test_orders_of_dimensions_do_not_decide_what_a_search_finds() -> None:
    mesh = rd.Mesh(x=5, y=12)
    pair = [
        rd.ArrayType.parse(text, mesh)
        for text in ("f64[8, 96, 960{x}] min{y}", "f64[8, 96, 960{y}]")
    ]
    found = rd.cost(*pair)
    for seed in range(4):
        assert rd.cost(*relabelled(random.Random(seed), pair)) == found
    rd.check(rd.plan(*pair))
