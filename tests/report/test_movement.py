"""What a step moves, against the traffic that the simulator counts."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.errors import RedistribError
from redistrib.report.movement import MAX_SHOWN, movement
from tests.generators import random_pair
from tests.repetitions import repetitions


def check_flows(plan: rd.Plan) -> int:
    """The receivers shown get no more than the worst device, and it if all are shown."""
    measured = simulator.measure(plan)
    seen = 0
    for at, (before, after) in enumerate(pairwise(plan.types)):
        moved = movement(plan.steps[at], before, after)
        worst = measured.received_bytes_per_step[at]
        assert (moved is not None) == (worst > 0)
        if moved is None:
            continue
        received: dict[int, int] = {}
        for (sender, receiver), size in moved.flows.items():
            assert sender != receiver
            assert size > 0
            received[receiver] = received.get(receiver, 0) + size
        assert max(received.values()) <= worst
        if plan.src.mesh.num_devices <= MAX_SHOWN and plan.steps[at].collective != "exchange":
            assert max(received.values()) == worst
        seen += 1
    return seen


def test_flows_add_up_to_the_traffic_that_is_counted() -> None:
    choose, seen = random.Random(0).choice, 0
    for _ in range(repetitions(150, 5000)):
        src, dst = random_pair(choose)
        for strategy in ("collectives", "direct"):
            try:
                plan = rd.plan(src, dst, strategy=strategy)
            except RedistribError:
                continue
            seen += check_flows(plan)
    assert seen > 50


@pytest.mark.parametrize(
    ("dst", "words"),
    [
        ("f32[64]", "In each of 4 groups of 2, every device sends 16 B to every other."),
        ("f32[64{y}]", "to one other"),
    ],
)
def test_words(dst: str, words: str) -> None:
    mesh = rd.Mesh(x=2, y=2, z=2)
    ends = rd.ArrayType.parse("f32[8{x}]", mesh), rd.ArrayType.parse(dst.replace("64", "8"), mesh)
    plan = rd.plan(*ends, strategy="collectives")
    moved = movement(plan.steps[-1], *plan.types[-2:])
    assert moved is not None
    assert words in moved.words


def test_uneven_ends_send_block_by_block() -> None:
    mesh = rd.Mesh(x=4, y=2)
    ends = (rd.ArrayType.parse(text, mesh) for text in ("f32[10{x}:ceil, 6]", "f32[10, 6{y}]"))
    plan = rd.plan(*ends, strategy="direct")
    assert check_flows(plan) == 1
    assert str(plan.dst) in plan._repr_html_()


def test_between_two_meshes_the_ids_of_devices_are_shown() -> None:
    there = rd.Mesh({"y": 2}, devices=[8, 9])
    ends = rd.ArrayType.parse("f32[8{x}]", rd.Mesh(x=2)), rd.ArrayType.parse("f32[8{y}]", there)
    plan = rd.plan(*ends)
    moved = movement(plan.steps[0], *plan.types[:2])
    assert moved is not None
    assert moved.flows == {(0, 8): 16}
    assert moved.shown == "all connected with device 8"
