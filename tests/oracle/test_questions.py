"""The laws of prices for all types: a few random questions, and one of each kind that once fell."""

import random

import pytest

import redistrib as rd
from tests.oracle.questions import relabelled, verify_question
from tests.repetitions import repetitions

QUESTIONS = (
    50,
    194,
    272,
    300,
    2114,
    3998,
    4243,
    4509,
    5531,
    40041,
    50188,
    *range(repetitions(5, 250)),
)


@pytest.mark.parametrize("seed", QUESTIONS)
def test_all_laws_of_a_random_question(seed: int) -> None:
    assert verify_question(seed)["questions"] == 1


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


def test_addends_are_handed_on_where_others_become_partial() -> None:
    """One permute, where a reduction and copies would take two latencies: in matrices too."""
    mesh = rd.Mesh(y=3, z=6, v=5)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in ("i8[] max{y,v}", "i8[] max{z,v}"))
    (permute,) = (step for step in rd.plan(src, dst).steps if step.communicates)
    assert permute.collective == "collective_permute"
    oracle = rd.Oracle(mesh)
    assert oracle.cost_matrix([src], [dst]) == oracle.cost(src, dst).seconds


@pytest.mark.parametrize("sizes", [(8, 2, 2), (16, 2, 4), (12, 2, 3), (12, 3, 2)])
def test_replicas_on_another_mesh_receive_parts_of_what_one_device_has(
    sizes: tuple[int, int, int],
) -> None:
    x, a, b = sizes
    there = rd.Mesh({"a": a, "b": b}, devices=[100 + n for n in range(a * b)])
    for src, dst in (("f32[48{x}, 48]", "f32[48{a}, 48]"), ("f32[48, 48{x}]", "f32[48, 48{a}]")):
        types = rd.ArrayType.parse(src, rd.Mesh(x=x)), rd.ArrayType.parse(dst, there)
        exchange, gather = rd.plan(*types).terms
        assert (exchange.latencies, gather.latencies) == (x // (a * b), 1)
