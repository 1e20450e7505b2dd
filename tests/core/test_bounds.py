"""The lower bound is below every plan, and the planner's and the checker's are one number."""

from __future__ import annotations

import random

import pytest

import redistrib as rd
from redistrib.checker.lower_bound import lower_bound
from redistrib.synth.plan.bounds import lower_bound_elements
from redistrib.synth.plan.collectives import AllGather, ReduceScatter, ShardedToPartial
from redistrib.synth.plan.data import make_plan
from redistrib.types.digits import DeviceDigit, IndexDigit
from tests.generators import random_pair
from tests.repetitions import repetitions


def pair(mesh: rd.Mesh, src: str, dst: str) -> tuple[rd.ArrayType, rd.ArrayType]:
    return rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh)


@pytest.mark.parametrize("block", range(repetitions(1, 4)))
def test_planner_and_checker_state_one_bound_below_the_traffic_of_every_plan(block: int) -> None:
    for seed in range(block * 300, block * 300 + 300):
        src, dst = random_pair(random.Random(seed).choice)
        bound = lower_bound_elements(src, dst)
        assert bound == lower_bound(src, dst), f"seed {seed}: {src} -> {dst}"
        assert rd.plan(src, dst, strategy="direct").received_bytes >= bound * src.itemsize


def test_addends_that_are_chosen_anew_are_bounded_by_three_receipts_an_element() -> None:
    src, dst = pair(rd.Mesh(x=2, y=3), "i64[6, 6{y}] sum{x}", "i64[6, 6] sum{x}")
    rows = ((DeviceDigit("x", 1, 2), IndexDigit(0, 1, 2)),)
    columns = ((DeviceDigit("y", 1, 3), IndexDigit(1, 1, 3)),)
    steps = [ReduceScatter(rows), AllGather(columns), ShardedToPartial(rows, "sum")]
    plan = make_plan(src, dst, "collectives", steps)
    assert (plan.received_bytes, plan.lower_bound_bytes) == (144, 144)
    rd.check(plan)


@pytest.mark.parametrize(
    ("sizes", "src", "dst", "elements"),
    [
        # One addend: only the devices of one row need to hear of an element.
        ({"x": 2, "y": 2}, "i8[8{y}]", "i8[8] sum{x}", 2),
        ({"x": 2, "y": 2}, "i8[8{x}]", "i8[8] sum{x}", 0),
        ({"x": 4}, "i8[8{x}]", "i8[8] sum{x:(1)2}", 2),
        # Addends may stay where they are: nothing moves.
        ({"x": 2, "y": 2}, "i8[8{y}] sum{x}", "i8[8{y}] sum{x}", 0),
        # No device holds what it needs: each row of two takes one receipt of each element.
        ({"x": 2, "y": 2, "z": 2}, "i8[4{y}] sum{x}", "i8[4{z}] sum{x}", 1),
        # Two addends are brought together on one of two devices: 1 of 8 on each of 4.
        ({"x": 2, "y": 2}, "i8[8] sum{x}", "i8[8] sum{y}", 4),
        # All four to all: 3 + 4 - 1 receipts.
        ({"x": 2, "y": 2}, "i8[8] sum{x,y}", "i8[8]", 12),
        # A maximum cannot be made of parts of a sum: somebody needs all addends.
        ({"x": 2}, "i8[8] sum{x}", "i8[8] max{x}", 4),
        ({"x": 2}, "i8[8] sum{x}", "i8[8] sum{x}", 0),
        # Axes whose digits are not nested: both addends may be where they are wanted.
        ({"x": 6}, "i8[6] sum{x:(1)2}", "i8[6] sum{x:(1)3}", 0),
    ],
)
def test_the_bound_of_partial_sums(
    sizes: dict[str, int], src: str, dst: str, elements: int
) -> None:
    ends = pair(rd.Mesh(sizes), src, dst)
    assert lower_bound_elements(*ends) == elements
    rd.check(rd.plan(*ends, strategy="direct"))


def test_a_partial_target_on_other_devices_is_sent_at_least_once() -> None:
    src = rd.ArrayType.parse("i8[8{x}]", rd.Mesh(x=2))
    there = rd.Mesh({"a": 2, "b": 2}, devices=[2, 3, 4, 5])
    dst = rd.ArrayType.parse("i8[8{a}] sum{b}", there)
    assert lower_bound_elements(src, dst) == lower_bound(src, dst) == 2
    here = rd.ArrayType.parse("i8[8{a}] sum{b}", rd.Mesh({"a": 2, "b": 2}, devices=[1, 2, 0, 3]))
    assert lower_bound_elements(src, here) == lower_bound(src, here) == 0
