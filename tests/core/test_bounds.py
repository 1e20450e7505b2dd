"""The lower bound is below every plan, and the planner's and the checker's are one number."""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import permutations, product
from math import prod

import pytest

import redistrib as rd
from proofs import addends
from redistrib.checker.lower_bound import lower_bound
from redistrib.synth.plan.bounds import _by_mean, lower_bound_elements
from redistrib.synth.plan.collectives import AllGather, ReduceScatter, ShardedToPartial
from redistrib.synth.plan.data import make_plan
from redistrib.types.digits import DeviceDigit, IndexDigit, divisors
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


def least_receipts(src: rd.ArrayType, dst: rd.ArrayType, element: int) -> int:
    """The fewest messages about one element of a 1-D array after which its sum is as `dst` says.

    Breadth first over what each device knows, a set of addends; a message tells all of that.
    """
    devices = range(src.mesh.num_devices)

    def addend(t: rd.ArrayType, at: int) -> tuple[int, ...] | None:
        if element not in t.tile(at)[0]:
            return None
        return tuple(t.digit_coordinate(digit, at) for digit in t.partial)

    held = [addend(src, at) for at in devices]
    different = sorted({a for a in held if a is not None})
    rows: dict[tuple[int, ...], list[int]] = {}
    for at in devices:
        if (row := addend(dst, at)) is not None:
            rows.setdefault(row, []).append(at)
    start = tuple(0 if a is None else 1 << different.index(a) for a in held)

    def done(known: tuple[int, ...]) -> bool:
        common = [
            functools.reduce(operator.and_, (known[at] for at in row)) for row in rows.values()
        ]
        if src.partial and dst.partial and src.reduction != dst.reduction:
            return max(common) == (1 << len(different)) - 1
        return functools.reduce(operator.or_, common) == (1 << len(different)) - 1

    reached, messages = {start}, 0
    while not any(map(done, reached)):
        messages += 1
        reached = {
            (*known[:to], known[to] | known[who], *known[to + 1 :])
            for known in reached
            for who in devices
            for to in devices
            if known[who] & ~known[to]
        }
    return messages


@pytest.mark.parametrize(
    ("sizes", "n", "few", "many"),
    [((2, 2), 4, 40, 400), ((4,), 4, 40, 400), ((6,), 6, 20, 60), ((2, 3), 6, 20, 60)],
)
def test_no_way_to_send_elements_takes_fewer_receipts(
    sizes: tuple[int, ...], n: int, few: int, many: int
) -> None:
    """Of random types on few devices, those whose elements take few messages."""
    mesh = rd.Mesh(dict(zip("xy", sizes, strict=False)))
    rng = random.Random(n)
    types = list(sub_axis_types(mesh, n))
    met = tried = 0
    while tried < repetitions(few, many):
        src, dst = rng.choice(types), rng.choice(types)
        addends, copies = (
            prod(d.size for d in digits) for digits in (src.partial, dst.free_digits)
        )
        if addends == 1 or addends + copies > (8 if n == 4 else 5):
            continue
        tried += 1
        receipts = sum(least_receipts(src, dst, element) for element in range(n))
        stated = _by_mean(src, dst, None) * mesh.num_devices
        assert stated <= receipts, f"{src} -> {dst}"
        met += stated == receipts
    assert met > tried / 3


def sizes_of(src: rd.ArrayType, dst: rd.ArrayType) -> list[int]:
    """How many addends an element has in the source, and how many devices a row of the target."""
    return [prod(digit.size for digit in digits) for digits in (src.partial, dst.free_digits)]


def test_the_bound_of_the_planner_is_that_of_the_proofs() -> None:
    """Of targets that are not partial; the elements that are held where they are wanted counted."""
    done = 0
    for seed in range(repetitions(300, 3000)):
        src, dst = random_pair(random.Random(seed).choice)
        if not src.partial or dst.partial or not 0 < src.size < 2000 or len(src.shape) != 1:
            continue
        held: set[int] = set()
        for at in range(src.mesh.num_devices):
            held |= {*src.tile(at)[0].tolist()} & {*dst.tile(at)[0].tolist()}
        receipts = addends.least(*sizes_of(src, dst), Fraction(len(held), src.size))
        assert _by_mean(src, dst, None) == receipts * src.size / src.mesh.num_devices
        done += 1
    assert done > 10


def sub_axis_types(mesh: rd.Mesh, n: int) -> Iterator[rd.ArrayType]:
    """Types of `n` elements: each part of an axis is free, partial, or an owner in any order."""
    cuts = []
    for name, size in mesh.axes:
        cuts.append([[DeviceDigit(name, 1, size)]])
        for pre in divisors(size)[1:-1]:
            cuts[-1].append([DeviceDigit(name, 1, pre), DeviceDigit(name, pre, size // pre)])
    for chosen in product(*cuts):
        digits = [digit for cut in chosen for digit in cut]
        for roles in product(("free", "partial", "owner"), repeat=len(digits)):
            owners = [d for d, role in zip(digits, roles, strict=True) if role == "owner"]
            partial = [d for d, role in zip(digits, roles, strict=True) if role == "partial"]
            for order in permutations(owners):
                for reduction in ("sum", "max"):
                    with suppress(rd.LayoutError):
                        yield rd.ArrayType(mesh, "i8", (n,), [order], partial, reduction)
