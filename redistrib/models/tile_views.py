"""Strided views of one tile into another: what a transfer copies.

Of a tile of 4 rows of 6, two columns that go to a tile of 4 rows of 2: from number 3 of the source,
to 0, with the runs (4, 2, 6) and (2, 1, 1). Views that differ in their offsets alone are joined
where these are as far apart each time: rows 0 and 2 of such a tile, and rows 4 and 6 of a larger
one, are 4 steps of 2 rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import NamedTuple

from redistrib.models.tiles import Tiles

Run = tuple[int, int, int]
"""count, stride in the target tile, stride in the source tile; elements. Stride 0 repeats."""


class View(NamedTuple):
    """Elements of a target tile and of what they are copied from, by offset and runs."""

    target_offset: int
    source_offset: int
    runs: tuple[Run, ...]

    @property
    def size(self) -> int:
        """Elements written in the target."""
        return prod(count for count, _, _ in self.runs)

    @property
    def distinct(self) -> int:
        """Elements read of the source, each once: what crosses a wire."""
        return prod(count for count, _, stride in self.runs if stride)


def relaid(view: View, target: Tiles, receiver: int, source: Tiles, sender: int) -> View:
    """A view of the largest tiles of two types as one of the tiles at two positions.

    Runs are neighbours or not in the tiles that there are, so they are merged only now.
    """
    target_shapes = target.type.tile_shape, target.shape_at(receiver)
    source_shapes = source.type.tile_shape, source.shape_at(sender)
    runs = [(n, _relaid(t, *target_shapes), _relaid(s, *source_shapes)) for n, t, s in view.runs]
    starts = (
        _relaid(view.target_offset, *target_shapes),
        _relaid(view.source_offset, *source_shapes),
    )
    return View(*starts, merged(runs))


def _relaid(number: int, largest: Sequence[int], actual: Sequence[int]) -> int:
    """The row-major number, in a tile of a shape, of an element given in a larger one.

    >>> _relaid(9, (2, 8), (2, 5))
    6
    """
    if largest == actual:
        return number
    result, below = 0, 1
    for of_largest, size in zip(reversed(largest), reversed(actual), strict=True):
        number, place = divmod(number, of_largest)
        result += place * below
        below *= size
    return result


def merged(unmerged: Iterable[Run]) -> tuple[Run, ...]:
    """The same runs, neighbours that are one run merged."""
    runs: list[Run] = []
    for count, target, source in unmerged:
        if count == 1:
            continue
        if runs and runs[-1][1:] == (target * count, source * count):
            runs[-1] = (runs[-1][0] * count, target, source)
        else:
            runs.append((count, target, source))
    return tuple(runs)


def joined(views: Iterable[View]) -> Iterator[View]:
    """The views of a tile into another that has the same offsets, with as few as are found.

    >>> [(first, runs) for first, _, runs in joined(View(n, n, ()) for n in (0, 1, 8, 9, 30))]
    [(30, ()), (0, ((2, 8, 8), (2, 1, 1)))]
    """
    groups: dict[tuple[Run, ...], list[int]] = {}
    for view in views:
        groups.setdefault(view.runs, []).append(view.target_offset)
    while groups:
        longer: dict[tuple[Run, ...], list[int]] = {}
        for runs, starts in groups.items():
            for start, count, step in _evenly_spaced(sorted(starts)):
                if count == 1:
                    yield View(start, start, runs)
                    continue
                more = sorted(((count, step, step), *runs), key=lambda run: -run[1])
                longer.setdefault(merged(more), []).append(start)
        groups = longer


def _evenly_spaced(numbers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Ascending numbers as (first, count, step), each as long as it gets."""
    first = 0
    while first < len(numbers):
        end = first + 1
        step = numbers[end] - numbers[first] if end < len(numbers) else 0
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        yield numbers[first], end - first, step
        first = end
