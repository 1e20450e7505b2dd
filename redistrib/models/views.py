"""Strided views, many at once, followed from where elements are written to where they come from.

A view is a first element and digits: counts, each with a step. `Views` are many that differ in
their first elements alone, with coordinates on two sides that are walked together: what is written,
and what is read. A view is *straight* where every coordinate is linear in the digits. Row-major
numbers become coordinates, slices become offsets, and so on; where a step would wrap around the end
of a row, or cross from one part of a concat into the next, the views are cut there first.

    12 elements from number 3 on, in rows of 6:  (0, 3) with digit 3,  (1, 0) with digit 6,
                                                 (2, 0) with digit 3

So two views are the same elements in the same order if their first elements are, and their steps.
Nothing here knows of atoms, copies or routes: the checker of models is built on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from redistrib.models.interpret import Shape
from redistrib.models.pattern import Regrouping
from redistrib.models.segments import AnyType
from redistrib.types.array_type import ArrayType

Numbers = NDArray[np.int64]
Terms = Sequence[tuple[int, int]]
"""(coordinate, factor) pairs: a sum."""
WRITTEN, READ = 0, 1


@dataclass(frozen=True, slots=True)
class Views:
    """Views by row: `rows` number them, `starts` are first coordinates on both sides, [row, dim].

    `steps` are by side, digit and dim.
    """

    rows: Numbers
    starts: tuple[Numbers, Numbers]
    counts: tuple[int, ...]
    steps: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]

    def picked(self, mask: NDArray[np.bool_]) -> Views:
        """Some of the rows."""
        starts = self.starts[0][mask], self.starts[1][mask]
        return Views(self.rows[mask], starts, self.counts, self.steps)

    def taken(self, digit: int, start: int, count: int) -> Views:
        """Some of the steps of a digit."""
        first, second = (
            coordinates + start * np.array(steps[digit], np.int64)
            for coordinates, steps in zip(self.starts, self.steps, strict=True)
        )
        counts = (count,) if count > 1 else ()
        kept = [steps[digit : digit + len(counts)] for steps in self.steps]
        return Views(
            self.rows,
            (first, second),
            (*self.counts[:digit], *counts, *self.counts[digit + 1 :]),
            tuple(  # type: ignore[arg-type]
                (*steps[:digit], *k, *steps[digit + 1 :])
                for steps, k in zip(self.steps, kept, strict=True)
            ),
        )

    def factored(self, digit: int, minor: int) -> Views:
        """A digit as two, the minor one of this size, which divides it."""
        counts, steps = list(self.counts), [list(side) for side in self.steps]
        counts[digit : digit + 1] = [counts[digit] // minor, minor]
        for side in steps:
            side[digit : digit + 1] = [tuple(s * minor for s in side[digit]), side[digit]]
        kept = [k for k, count in enumerate(counts) if count > 1]
        return Views(
            self.rows,
            self.starts,
            tuple(counts[k] for k in kept),
            tuple(tuple(side[k] for k in kept) for side in steps),  # type: ignore[arg-type]
        )

    def mapped(self, side: int, sums: Sequence[tuple[int | Numbers, Terms]]) -> Views:
        """Other coordinates on one side: a constant, which may differ by row, and terms."""
        starts = np.empty((len(self.rows), len(sums)), np.int64)
        for dim, (constant, terms) in enumerate(sums):
            starts[:, dim] = constant
            for old, factor in terms:
                starts[:, dim] += factor * self.starts[side][:, old]
        steps = tuple(
            tuple(sum(step[old] * factor for old, factor in terms) for _, terms in sums)
            for step in self.steps[side]
        )
        sides = [*zip(self.starts, self.steps, strict=True)]
        sides[side] = starts, steps
        return Views(self.rows, (sides[0][0], sides[1][0]), self.counts, (sides[0][1], sides[1][1]))

    def rank(self, side: int) -> int:
        """How many coordinates a side has."""
        return int(self.starts[side].shape[1])


def split(views: Views, side: int, dim: int, sizes: Sequence[int]) -> Iterator[Views]:
    """The views with a coordinate as several, in mixed radix: the last of `sizes` is the fastest.

    Views that wrap around on the way are cut.
    """
    if len(sizes) == 1:
        yield views
        return
    minor = prod(sizes[1:])
    for part in _straight(views, side, dim, minor):
        rank, starts = part.rank(side), part.starts[side]
        sums: list[tuple[int | Numbers, Terms]] = [(0, [(d, 1)]) for d in range(rank)]
        sums[dim : dim + 1] = [(0, []), (0, [])]
        result = part.mapped(side, sums)
        result.starts[side][:, dim], result.starts[side][:, dim + 1] = np.divmod(
            starts[:, dim], minor
        )
        steps = [list(step) for step in result.steps[side]]
        for step, old in zip(steps, part.steps[side], strict=True):
            step[dim + (old[dim] % minor > 0)] = old[dim] if old[dim] % minor else old[dim] // minor
        sides = list(result.steps)
        sides[side] = tuple(tuple(step) for step in steps)
        result = Views(result.rows, result.starts, result.counts, (sides[0], sides[1]))
        yield from split(result, side, dim + 1, sizes[1:])


def _straight(views: Views, side: int, dim: int, minor: int) -> Iterator[Views]:
    """The views cut so that, in rows of `minor`, steps are whole rows or stay within one."""
    if not len(views.rows):
        return
    steps = [step[dim] for step in views.steps[side]]
    small = [k for k, step in enumerate(steps) if step % minor]
    column = views.starts[side][:, dim] % minor
    inside = column + sum((views.counts[k] - 1) * steps[k] for k in small) < minor
    if inside.all():
        yield views
        return
    if inside.any():
        yield views.picked(inside)
    for residue in np.unique(column[~inside]).tolist():
        wrapping = views.picked(~inside & (column == residue))
        for part in _cut(wrapping, steps, small, residue, minor):
            yield from _straight(part, side, dim, minor)


def _cut(
    views: Views, steps: Sequence[int], small: Sequence[int], residue: int, minor: int
) -> Iterator[Views]:
    """Views that begin at a column, cut once where their largest step within rows wraps around."""
    digit = max(small, key=steps.__getitem__)
    step, count = steps[digit], views.counts[digit]
    below = sum((views.counts[k] - 1) * steps[k] for k in small if k != digit)
    if minor % step or residue % step + below >= step:
        yield views.taken(digit, 0, count // 2)
        yield views.taken(digit, count // 2, count - count // 2)
        return
    per_row, begun = minor // step, residue // step
    if begun == 0 and count % per_row == 0:
        yield views.factored(digit, per_row)
        return
    head = min(count, per_row - begun) if begun else 0
    body = (count - head) // per_row * per_row
    for start, taken in ((0, head), (head, body), (head + body, count - head - body)):
        if taken:
            yield views.taken(digit, start, taken)


def between(views: Views, side: int, dim: int, ends: Sequence[int]) -> Iterator[tuple[int, Views]]:
    """The views by the part of a dimension that they are in; parts begin and end at `ends`."""
    if not len(views.rows):
        return
    low = views.starts[side][:, dim]
    steps = [step[dim] for step in views.steps[side]]
    high = low + sum((n - 1) * step for n, step in zip(views.counts, steps, strict=True))
    first, last = (np.searchsorted(ends, place, "right") - 1 for place in (low, high))
    inside = first == last
    for part in np.unique(first[inside]).tolist():
        yield part, views.picked(inside & (first == part))
    across = views.picked(~inside)
    if len(across.rows):
        digit = max(range(len(steps)), key=steps.__getitem__)
        half = views.counts[digit] // 2
        yield from between(across.taken(digit, 0, half), side, dim, ends)
        yield from between(across.taken(digit, half, views.counts[digit] - half), side, dim, ends)


# --- tiles --------------------------------------------------------------------------------------


class Held:
    """Which indices of an array each position of its mesh holds, as digits.

    `kinds` are the shapes of tiles, with (size, stride) digits for every dimension; `kind` and
    `first` are by position. Of `f32[12{_2,x}]` over x=2, position 1 holds 3, 4, 5, 9, 10, 11: from
    3 on, digits (2, 6) and (3, 1).
    """

    def __init__(self, t: ArrayType) -> None:
        self.kinds: list[tuple[tuple[int, ...], list[list[tuple[int, int]]]]] = []
        numbers: dict[str, int] = {}
        kind, first = [], []
        for position in range(t.mesh.num_devices):
            runs = [t.index_runs(dim, position) for dim in range(len(t.shape))]
            digits = [_digits_of(of_dim) for of_dim in runs]
            shape = t.tile_shape_at(position)
            key = f"{shape} {digits}"
            if key not in numbers:
                numbers[key] = len(self.kinds)
                self.kinds.append((shape, digits))
            kind.append(numbers[key])
            first.append([int(of_dim[0, 0]) if len(of_dim) else 0 for of_dim in runs])
        self.kind = np.array(kind)
        self.first = np.array(first, np.int64).reshape(len(kind), len(t.shape))

    def elements(self, views: Views, side: int, positions: Numbers) -> Iterator[Views]:
        """Views of row-major tiles, as coordinates of the array; `positions` are by row."""
        kinds = self.kind[positions[views.rows]]
        for number in np.unique(kinds).tolist():
            shape, digits = self.kinds[number]
            for part in unflattened(views.picked(kinds == number), side, shape):
                yield from self._placed(part, side, digits, positions)

    def _placed(
        self,
        views: Views,
        side: int,
        digits: Sequence[Sequence[tuple[int, int]]],
        positions: Numbers,
    ) -> Iterator[Views]:
        parts = [views]
        for dim in reversed(range(len(digits))):
            sizes = [size for size, _ in digits[dim]]
            parts = [cut for part in parts for cut in split(part, side, dim, sizes)]
        for part in parts:
            starts = self.first[positions[part.rows]]
            sums: list[tuple[int | Numbers, Terms]] = []
            place = 0
            for dim, of_dim in enumerate(digits):
                terms = [(place + k, stride) for k, (_, stride) in enumerate(of_dim)]
                sums.append((starts[:, dim], terms))
                place += len(of_dim)
            yield part.mapped(side, sums)


def _digits_of(runs: NDArray[np.intp]) -> list[tuple[int, int]]:
    """The indices in runs as digits, major to minor: (size, stride). The last run may be shorter.

    >>> _digits_of(np.array([[3, 6], [9, 12], [23, 26], [29, 30]]))
    [(2, 20), (2, 6), (3, 1)]
    """
    if not len(runs):
        return [(1, 1)]
    digits = [(int(runs[0, 1] - runs[0, 0]), 1)]
    starts = runs[:, 0]
    while len(starts) > 1:
        gaps = np.diff(starts)
        other = np.flatnonzero(gaps != gaps[0])
        size = int(other[0]) + 1 if len(other) else len(starts)
        digits.insert(0, (size, int(gaps[0])))
        starts = starts[::size]
    return digits


def unflattened(views: Views, side: int, shape: Sequence[int]) -> Iterator[Views]:
    """Views of row-major numbers, as coordinates of a shape."""
    if shape:
        yield from split(views, side, 0, shape)
    else:
        yield views.mapped(side, [])


def elements(
    views: Views, side: int, t: AnyType, positions: Numbers, held: Callable[[ArrayType], Held]
) -> Iterator[Views]:
    """Views of row-major tiles of a type, segmented or not, as coordinates of the array."""
    if isinstance(t, ArrayType):
        yield from held(t).elements(views, side, positions)
        return
    inside = [0, *accumulate(part.tile_shape[t.dim] for part in t.parts)]
    starts = [0, *accumulate(part.shape[t.dim] for part in t.parts)]
    for part in unflattened(views, side, t.tile_shape):
        for number, views_of_part in between(part, side, t.dim, inside):
            part_type = t.parts[number]
            shape = part_type.tile_shape
            weights = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
            start = -inside[number] * weights[t.dim]
            flat = views_of_part.mapped(side, [(start, [*enumerate(weights)])])
            for result in held(part_type).elements(flat, side, positions):
                sums: list[tuple[int | Numbers, Terms]] = [
                    (starts[number] if dim == t.dim else 0, [(dim, 1)]) for dim in range(len(shape))
                ]
                yield result.mapped(side, sums)


# --- maps ---------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """Views that come from one source, None for zeros, through these dtypes."""

    source: str | None
    dtypes: tuple[str, ...]
    views: Views


@dataclass(frozen=True, slots=True)
class Origin:
    """An array of a shape and dtype that tells where views of its elements come from.

    `recipe` is what has been done to the sources: where it is equal, views come from the same
    places.
    """

    shape: tuple[int, ...]
    dtype: str
    pull: Callable[[Views, int], Iterator[Piece]]
    recipe: object


def source_of(name: str, shape: Shape, number: int = 0) -> Origin:
    """A source: its elements come from itself. It is told from other sources by its number."""

    def pull(views: Views, side: int) -> Iterator[Piece]:
        del side
        yield Piece(name, (shape.dtype,), views)

    return Origin(shape.shape, shape.dtype, pull, number)


class Origins:
    """The kind of array that knows where its elements come from."""

    def dtype_of(self, array: Origin) -> str:
        return array.dtype

    def index(self, array: Origin, spans: Sequence[range], dropped: Sequence[int]) -> Origin:
        kept = [dim for dim in range(len(spans)) if dim not in dropped]

        def pull(views: Views, side: int) -> Iterator[Piece]:
            sums = [
                (span.start, [] if dim in dropped else [(kept.index(dim), span.step)])
                for dim, span in enumerate(spans)
            ]
            yield from array.pull(views.mapped(side, sums), side)

        recipe = "index", array.recipe, tuple(spans), tuple(dropped)
        return Origin(tuple(len(spans[dim]) for dim in kept), array.dtype, pull, recipe)

    def concat(self, dim: int, parts: Sequence[Origin]) -> Origin:
        ends = [0, *accumulate(part.shape[dim] for part in parts)]

        def pull(views: Views, side: int) -> Iterator[Piece]:
            for number, part in between(views, side, dim, ends):
                sums = [(-ends[number] * (d == dim), [(d, 1)]) for d in range(part.rank(side))]
                yield from parts[number].pull(part.mapped(side, sums), side)

        shape = (*parts[0].shape[:dim], ends[-1], *parts[0].shape[dim + 1 :])
        recipe = "concat", dim, *((part.recipe, part.shape[dim]) for part in parts)
        return Origin(shape, parts[0].dtype, pull, recipe)

    def stack(self, dim: int, parts: Sequence[Origin]) -> Origin:
        def pull(views: Views, side: int) -> Iterator[Piece]:
            for number, part in between(views, side, dim, range(len(parts) + 1)):
                sums = [(0, [(d, 1)]) for d in range(part.rank(side)) if d != dim]
                yield from parts[number].pull(part.mapped(side, sums), side)

        shape = (*parts[0].shape[:dim], len(parts), *parts[0].shape[dim:])
        recipe = "stack", dim, *(part.recipe for part in parts)
        return Origin(shape, parts[0].dtype, pull, recipe)

    def rearrange(self, array: Origin, regrouping: Regrouping) -> Origin:
        digits: list[int | None] = [*regrouping.order]  # None: repeats
        sizes = [regrouping.digits[digit] for digit in regrouping.order]
        for place, size in regrouping.repeats:
            digits.insert(place, None)
            sizes.insert(place, size)

        def pull(views: Views, side: int) -> Iterator[Piece]:
            parts = [views]
            for dim in reversed(range(len(regrouping.shape))):
                merged = [n for n, to in zip(sizes, regrouping.merged, strict=True) if to == dim]
                if merged:
                    parts = [cut for part in parts for cut in split(part, side, dim, merged)]
                else:
                    parts = [
                        part.mapped(
                            side, [(0, [(d, 1)]) for d in range(part.rank(side)) if d != dim]
                        )
                        for part in parts
                    ]
            sums: list[tuple[int, list[tuple[int, int]]]] = [(0, []) for _ in array.shape]
            below = [1] * len(array.shape)
            for digit in reversed(range(len(regrouping.digits))):
                dim = regrouping.split[digit]
                sums[dim][1].append((digits.index(digit), below[dim]))
                below[dim] *= regrouping.digits[digit]
            for part in parts:
                yield from array.pull(part.mapped(side, sums), side)

        recipe = "rearrange", array.recipe, regrouping
        return Origin(regrouping.shape, array.dtype, pull, recipe)

    def pad(self, array: Origin, dim: int, size: int) -> Origin:
        def pull(views: Views, side: int) -> Iterator[Piece]:
            for number, part in between(views, side, dim, [0, array.shape[dim]]):
                if number:
                    yield Piece(None, (array.dtype,), part)
                else:
                    yield from array.pull(part, side)

        shape = (*array.shape[:dim], size, *array.shape[dim + 1 :])
        return Origin(shape, array.dtype, pull, ("pad", array.recipe, dim, array.shape[dim], size))

    def cast(self, array: Origin, dtype: str) -> Origin:
        def pull(views: Views, side: int) -> Iterator[Piece]:
            for source, dtypes, part in array.pull(views, side):
                longer = dtypes if dtypes[-1] == dtype else (*dtypes, dtype)
                yield Piece(source, longer, part)

        return Origin(array.shape, dtype, pull, ("cast", array.recipe, dtype))
