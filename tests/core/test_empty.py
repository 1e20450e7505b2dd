"""Arrays without elements: every plan is local and takes no time."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from redistrib.errors import LayoutError
from redistrib.synth.planner.choose import STRATEGIES
from tests.generators import random_layout, random_mesh
from tests.repetitions import repetitions
from tests.verify import verify_runs


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_moves_of_an_array_without_elements(strategy: rd.Strategy) -> None:
    choose = random.Random(5).choice
    planned = 0
    while planned < repetitions(25, 400):
        mesh = random_mesh(choose)
        ends = []
        for _ in range(2):
            dims, partial, products = random_layout(choose, mesh, 3, partial=True)
            ends.append((dims, partial, products))
        shape = [0, *(a * b for a, b in zip(ends[0][2][1:], ends[1][2][1:], strict=True))]
        try:
            src, dst = (rd.ArrayType(mesh, "f32", shape, *end[:2]) for end in ends)
        except LayoutError:
            continue
        plan = rd.plan(src, dst, strategy=strategy)
        verify_runs(plan)
        assert plan.seconds == plan.num_collectives == plan.received_bytes == 0
        assert (not plan.steps) == (src == dst)
        assert rd.cost(src, dst, strategy=strategy).seconds == 0
        planned += 1


def test_effort_and_limit_change_nothing() -> None:
    mesh = rd.Mesh(x=2, y=3)
    src, dst = (rd.ArrayType.parse(text, mesh) for text in ("f32[0,6{y}]", "f32[0,6{x}]"))
    plan = rd.plan(src, dst, effort="best", memory_limit=0)
    assert [step.collective for step in plan.steps] == ["sharded_to_partial", "dynamic_slice"]
    assert rd.Oracle(mesh).cost(src, dst).seconds == 0
    assert [name for name, _ in rd.explain(src, dst).alternatives] == ["no elements"]


def test_two_meshes() -> None:
    here, there = rd.Mesh(x=2), rd.Mesh({"a": 3}, devices=range(2, 5))
    src, dst = rd.ArrayType.parse("f32[0,2{x}]", here), rd.ArrayType.parse("f32[0,2]", there)
    plan = rd.plan(src, dst)
    verify_runs(plan)
    assert plan.seconds == plan.received_bytes == 0
