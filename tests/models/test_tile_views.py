"""Views are joined into fewer of the same elements, whatever their order."""

from __future__ import annotations

import random
from itertools import product

from redistrib.models.coverage import all_written, strided
from redistrib.models.tile_views import Run, View, joined
from tests.repetitions import repetitions


def places(view: View) -> list[tuple[int, int]]:
    """Offsets in the target and in the source of all elements."""
    walks = product(*(range(count) for count, _, _ in view.runs))
    strides = [(target, source) for _, target, source in view.runs]
    return [
        (
            view.target_offset + sum(n * t for n, (t, _) in zip(walk, strides, strict=True)),
            view.source_offset + sum(n * s for n, (_, s) in zip(walk, strides, strict=True)),
        )
        for walk in walks
    ]


def test_joined_views_have_the_same_elements() -> None:
    rng = random.Random("joined")
    fewer = 0
    for _ in range(repetitions(200, 5000)):
        patterns: list[tuple[Run, ...]] = [(), ((2, 1, 1),), ((3, 2, 2),), ((2, 1, 0),)]
        starts = rng.sample(range(12), rng.randint(1, 12))
        views = [View(8 * n, 8 * n, rng.choice(patterns[: rng.randint(1, 4)])) for n in starts]
        made = sorted(joined(views))
        assert made == sorted(joined(rng.sample(views, len(views))))
        assert sorted(p for view in made for p in places(view)) == sorted(
            p for view in views for p in places(view)
        )
        fewer += len(made) < len(views)
    assert fewer > 100


def test_what_is_read_is_written_where_all_its_elements_are() -> None:
    rng = random.Random("written")
    found = set()
    for _ in range(repetitions(300, 5000)):
        digits = [(rng.choice((2, 3, 4)), 12), (rng.choice((2, 3)), rng.choice((4, 3))), (2, 1)]
        views = [
            strided(rng.choice((0, 0, 1, 2, 4, 6, 12)), rng.sample(digits, rng.randint(1, 3)))
            for _ in range(rng.randint(2, 5))
        ]
        sets = [
            {
                first + sum(n * stride for n, (_, stride) in zip(walk, runs, strict=True))
                for walk in product(*(range(count) for count, _ in runs))
            }
            for first, runs in views
        ]
        right = sets[0] <= set().union(*sets[1:])
        assert all_written(views[:1], views[1:], 96) == right, views
        found.add(right)
    assert len(found) == 2
