"""Pairs of whole-axis layouts, without any library: what every planner is asked.

A layout gives each axis to a dimension or to none; per dimension the axes are major to minor.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from math import prod

Layout = tuple[tuple[int, ...], ...]
"""Per dimension the numbers of the axes that shard it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Axis sizes, array shape, and the layouts before and after."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    src: Layout
    dst: Layout


def axis_names(count: int) -> list[str]:
    """Names for so many axes, 26 at most."""
    return [chr(ord("a") + n) for n in range(count)]


def layouts(axes: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[Layout]:
    """Every layout of whole axes that divides the shape."""
    for places in product(range(-1, len(shape)), repeat=len(axes)):
        groups = [[n for n, p in enumerate(places) if p == d] for d in range(len(shape))]
        if all(n % prod(axes[a] for a in g) == 0 for n, g in zip(shape, groups, strict=True)):
            yield from product(*(list(permutations(group)) for group in groups))


def all_pairs(axes: tuple[int, ...], shape: tuple[int, ...]) -> list[Problem]:
    """Every ordered pair of different layouts."""
    all_layouts = list(layouts(axes, shape))
    return [Problem(axes, shape, a, b) for a in all_layouts for b in all_layouts if a != b]


def random_layout(rng: random.Random, axes: tuple[int, ...], rank: int) -> Layout:
    """One layout; each axis goes to each dimension, or to none, with the same probability."""
    dims: list[list[int]] = [[] for _ in range(rank)]
    for axis in rng.sample(range(len(axes)), len(axes)):
        place = rng.randrange(rank + 1)
        if place < rank:
            dims[place].append(axis)
    return tuple(map(tuple, dims))


def random_pair(rng: random.Random, axes: tuple[int, ...], shape: tuple[int, ...]) -> Problem:
    """Two different layouts over a shape that every layout divides."""
    while True:
        src, dst = (random_layout(rng, axes, len(shape)) for _ in range(2))
        if src != dst:
            return Problem(axes, shape, src, dst)
