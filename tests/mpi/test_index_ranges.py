"""Index sets as runs, element by element: no rank is needed."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from redistrib.backends.mpi.index_ranges import IndexRanges, common, segments

few = st.integers(1, 3)  # so that places are often, and not always, evenly spaced


def elements(lengths: list[int], places: list[int]) -> list[int]:
    return [at + i for length, at in zip(lengths, places, strict=True) for i in range(length)]


def places(lengths: list[int], gaps: list[int]) -> list[int]:
    """Where runs lie that are `gaps` apart."""
    return [sum(lengths[:n]) + sum(gaps[: n + 1]) for n in range(len(lengths))]


@given(st.lists(st.tuples(few, few, few), min_size=1, max_size=24))
def test_segments_are_the_runs_each_once(runs: list[tuple[int, int, int]]) -> None:
    lengths, gaps, others = (list(column) for column in zip(*runs, strict=True))
    take, put = places(lengths, gaps), places(lengths, [n - 1 for n in others])
    found: tuple[list[int], list[int]] = [], []
    for segment in segments(np.array(lengths), np.array(take), np.array(put)):
        for at in product(*map(range, segment.counts)):
            for side, first, steps in (
                (found[0], segment.take, segment.take_steps),
                (found[1], segment.put, segment.put_steps),
            ):
                side.append(first + sum(i * step for i, step in zip(at, steps, strict=True)))
    runs_of = elements(lengths, take), elements(lengths, put)
    assert sorted(zip(*found, strict=True)) == list(zip(*runs_of, strict=True))


def test_blocks_of_another_size_are_a_few_segments() -> None:
    """From blocks of 48 to blocks of 64, each over 2 owners: 192 indices are a period."""
    n = 192 * 50
    ours, theirs = (
        IndexRanges.packed(np.arange(0, n, 2 * size), [size] * (n // (2 * size)))
        for size in (48, 64)
    )
    lengths, take, put = common(ours, theirs)
    assert len(lengths) == 75
    assert len(list(segments(lengths, take, put))) == 3


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_what_two_sets_share_is_found_in_both(one: set[int], other: set[int]) -> None:
    held, wanted = sorted(one), sorted(other)
    lengths, in_held, in_wanted = (
        x.tolist() for x in common(*(IndexRanges.packed(s, [1] * len(s)) for s in (held, wanted)))
    )
    shared = sorted(one & other)
    assert [held[n] for n in elements(lengths, in_held)] == shared
    assert [wanted[n] for n in elements(lengths, in_wanted)] == shared
