"""The bound of a model plan, against a count of elements one by one."""

from __future__ import annotations

import itertools
import random
from math import prod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import redistrib as rd
from redistrib.backends.simulator.models import scatter_model
from redistrib.models.bounds import overlapping
from redistrib.models.copies import Line
from redistrib.models.interpret import NumpyArrays, interpret
from redistrib.models.model_plan import ModelPlan
from redistrib.models.segments import AnyType, SegmentedType
from redistrib.types.dtypes import itemsize
from tests.models.random_moves import random_case
from tests.repetitions import repetitions

Coded = NDArray[np.int64]
"""Elements as number * WIDTHS + the narrowest bytes that they had so far; 0 for zeros of a pad."""
WIDTHS = 32


class Widths(NumpyArrays):
    """The kind of array whose elements remember which they are and how narrow they have been."""

    def dtype_of(self, array: Coded) -> str:
        return "i64"

    def cast(self, array: Coded, dtype: str) -> Coded:
        width = np.minimum(array % WIDTHS, itemsize(dtype))
        return np.where(array == 0, 0, array // WIDTHS * WIDTHS + width)


def tiles(array: Coded, t: AnyType) -> dict[int, list[int]]:
    """The elements by device; zeros count as none, as do the identities of a partial type."""

    def plain(part: rd.ArrayType) -> rd.ArrayType:
        return rd.ArrayType(part.mesh, "i64", part.shape, part.dims)

    whole: AnyType
    if isinstance(t, SegmentedType):
        whole = SegmentedType(tuple(map(plain, t.parts)), t.dim)
    else:
        whole = plain(t)
    held = scatter_model({"a": array}, {"a": whole})
    made = {}
    for position, device in enumerate(t.mesh.ids):
        away = isinstance(t, rd.ArrayType) and any(
            t.digit_coordinate(digit, position) for digit in t.partial
        )
        codes = held[device]["a"].reshape(-1).tolist()
        made[device] = [] if away else [code for code in codes if code]
    return made


def least(plan: ModelPlan) -> int:
    """What the worst device must take in, each element that it lacks once, in its widest use."""
    coded: dict[str, Any] = {}
    start = 1
    for name, t in plan.src.items():
        numbers = np.arange(start, start + prod(t.shape)).reshape(t.shape)
        coded[name] = numbers * WIDTHS + itemsize(t.dtype)
        start += numbers.size
    made = plan.weights.targets(coded)
    held: dict[int, set[int]] = {device: set() for device in plan.devices}
    for name in plan.src:
        for device, codes in tiles(coded[name], plan.source_type(name)).items():
            held[device] |= {code // WIDTHS for code in codes}
    needs: dict[int, dict[int, int]] = {device: {} for device in plan.devices}
    for name, t in plan.dst.items():
        array = coded.get(name)
        if name in made:
            target = made[name]
            array = interpret(target.rule.expression, coded.__getitem__, Widths(), target.binding)
        for device, codes in tiles(np.asarray(array), t).items():
            for number, width in (divmod(code, WIDTHS) for code in codes):
                if number not in held[device]:
                    needs[device][number] = max(width, needs[device].get(number, 0))
    return max(sum(widths.values()) for widths in needs.values())


def test_the_bound_is_one_and_mostly_exact() -> None:
    """Also where targets take a source twice, in other slices or dtypes, or repeat part of it."""
    exact = 0
    seeds = range(100_100, 100_200)
    for seed in seeds:
        depth = random.Random(seed).choice((1, 2, 3, 4))
        plan = random_case(seed, targets=3, depth=depth).plan
        assert plan.lower_bound_bytes <= least(plan), f"seed {seed}"
        exact += plan.lower_bound_bytes == least(plan)
    assert exact > 0.9 * len(seeds)


def test_views_of_different_groups_share_no_element() -> None:
    rng = random.Random(7)
    apart = 0
    for _ in range(300):
        views = [
            tuple(
                Line(
                    rng.randrange(12),
                    tuple(
                        (rng.randint(2, 3), rng.choice((1, 2, 3, 4, 6, 8))) for _ in range(steps)
                    ),
                )
                for steps in (rng.randint(0, 2), rng.randint(0, 1))
            )
            for _ in range(rng.randint(1, 5))
        ]
        elements = [set(itertools.product(*map(positions, view))) for view in views]
        groups = overlapping(views)
        assert sorted(n for group in groups for n in group) == list(range(len(views)))
        for group, other in itertools.combinations(groups, 2):
            assert not any(elements[n] & elements[m] for n in group for m in other), views
        apart += len(groups) > 1
    assert apart > 150


def positions(line: Line) -> list[int]:
    counts = itertools.product(*(range(count) for count, _ in line.steps))
    return [
        line.start + sum(n * stride for n, (_, stride) in zip(c, line.steps, strict=True))
        for c in counts
    ]


HERE, THERE = rd.Mesh(x=4), rd.Mesh({"x": 4}, devices=range(4, 8))
GROUPED = 'rearrange(w, "(g j d) h -> g j d h", j=6, d=4)'
APART = 'rearrange({}[:, {}], "g j d h -> (g j d) h")'


@pytest.mark.parametrize(
    ("src", "dst", "text", "received", "bound"),
    [
        # Two dtypes: the wider one does.
        ("f32[24{x}]", {"a": "f32[24{x}]", "b": "bf16[24{x}]"}, "a = w\nb = cast(w, bf16)", 24, 24),
        # Slices that overlap: 8 elements are needed, and come in once.
        ("f32[8{x}]", {"a": "f32[10]"}, "a = concat(0, w[0:4], w[2:8])", 32, 32),
        # Slices that do not, by their ends, by twos, and by groups of heads.
        (
            "f32[24{x}]",
            {"a": "f32[16{x}]", "b": "f32[8{x}]"},
            "a = w[0:16]\nb = w[16:24]",
            24,
            24,
        ),
        (
            "f32[16{x}]",
            {"a": "f32[8{x}]", "b": "f32[8{x}]"},
            "a = w[0::2]\nb = w[1::2]",
            16,
            16,
        ),
        (
            "f32[96{x}, 2]",
            {"q": "f32[64{x}, 2]", "k": "f32[16{x}, 2]", "v": "f32[16{x}, 2]"},
            "\n".join(
                f"{name} = {APART.format(GROUPED, heads)}"
                for name, heads in (("q", "0:4"), ("k", "4:5"), ("v", "5:6"))
            ),
            192,
            192,
        ),
    ],
)
def test_views_of_one_source(
    src: str, dst: dict[str, str], text: str, received: int, bound: int
) -> None:
    plan = rd.plan_model(
        {"w": (src, HERE)},
        {name: (t, THERE) for name, t in dst.items()},
        weights=rd.WeightMap.parse(text),
    )
    assert (plan.received_bytes, plan.lower_bound_bytes) == (received, bound)
    assert bound <= least(plan)
    rd.check(plan)


@pytest.mark.parametrize("there", [THERE, HERE])
@pytest.mark.parametrize("layout", ["f32[{}, 8]", "f32[{}, 8{{x}}]"])
def test_slices_that_overlap_come_in_once(there: rd.Mesh, layout: str) -> None:
    """Three parts of the rows of one source in any order: slices with steps, rows of each group."""
    rng = random.Random(f"{there}{layout}")
    for _ in range(repetitions(6, 200)):
        rules, dst = [], {}
        for name in "abc":
            start, of_groups = rng.randrange(15), rng.random() < 0.4
            rows = range(start, rng.randrange(start + 1, 17), rng.choice((1, 1, 2)))
            part, count = f"w[{rows.start}:{rows.stop}:{rows.step}]", len(rows)
            if of_groups:
                of_each = range(start % 4, 4 - rng.randrange(4 - start % 4))
                grouped = (
                    f'rearrange(w, "(g j) h -> g j h", j=4)[:, {of_each[0]}:{of_each[-1] + 1}]'
                )
                part, count = f'rearrange({grouped}, "g j h -> (g j) h")', 4 * len(of_each)
            rules.append(f"{name} = {part}")
            dst[name] = (layout.format(count), there)
        plan = rd.plan_model(
            {"w": ("f32[16{x}, 8]", HERE)}, dst, weights=rd.WeightMap.parse("\n".join(rules))
        )
        assert plan.received_bytes == plan.lower_bound_bytes == least(plan), rules
        rd.check(plan)
