"""Which layouts to stop at on the way between two types, where that is cheaper than one plan.

Example: a=2,b=4,c=2 with a slow axis a, `f32[64{c}, 64{b}, 64] -> f32[64{b}, 64{c,a}, 64]`. `leg`
prices the plan between any two types alone; where bounds say that a stop can pay, `find_stop` looks
for the best one. Where digits do not match there are no bounds: then the way leads from the source
to a layout of whole axes, through the closed matrix of all of them, and on to the target.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from math import inf

import numpy as np

from redistrib.synth.plan.price import StepCost, total_seconds
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.detours.batches import Floats, Ints, Prices, price_pairs
from redistrib.synth.planner.detours.closure import (
    Progress,
    Smalls,
    close,
    no_progress,
    paths,
)
from redistrib.synth.planner.detours.stops import (
    ENOUGH,
    Bounds,
    axes_of_stops,
    find_stop,
    stop_types,
)
from redistrib.synth.planner.problem import Problem
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

Leg = Callable[[ArrayType, ArrayType, Profile, int | None], tuple[StepCost, ...] | None]
"""What each step of the plan alone costs, under a profile and a memory limit; None where nothing
fits."""

MAX_COMPARED = 1 << 22
"""Pairs of stops times devices for which a matrix of stops is made: some hundred milliseconds."""
ROWS = 256
"""Rows whose detours are added up at a time."""


def stops_between(
    problem: Problem, seconds: float, collectives: int, leg: Leg
) -> tuple[ArrayType, ...]:
    """The types to stop at where that may take less than the best plan alone.

    That takes so many `seconds` and `collectives`. Empty where a bound says that none can pay.
    """
    src, dst, links = problem.src, problem.dst, problem.links
    latency = problem.fastest.latency
    # Where digits match the planner knows all ways with one latency: others have two as well.
    more = latency if problem.refinement.aligned and collectives > 1 else 0.0
    if not src.size or seconds <= ENOUGH * (problem.floor() + more):
        return ()
    limit = problem.memory_limit or max(src.tile_bytes, dst.tile_bytes)
    if not problem.refinement.aligned:
        return _through_matrix(problem, limit, leg)
    bounds = Bounds.of(src, links)
    if seconds <= ENOUGH * (bounds.between(src, dst) + more):
        return ()

    def price(start: ArrayType, end: ArrayType) -> float:
        costs = leg(start, end, problem.profile, problem.memory_limit)
        return inf if costs is None else total_seconds(costs)

    return find_stop(src, dst, seconds, bounds, limit, price)


def _through_matrix(problem: Problem, limit: int, leg: Leg) -> tuple[ArrayType, ...]:
    src, dst = problem.src, problem.dst
    settings = problem.profile, problem.memory_limit
    axes = axes_of_stops(src, dst)
    between = _matrix_of_stops(src.mesh, src.shape, axes, src.dtype, *settings, leg)
    if between is None:
        return ()
    stops, seconds, via = between
    count = len(stops)
    each = np.arange(count)
    pairs = np.append(np.full(count, count), each), np.append(each, np.full(count, count + 1))
    ends = _priced((*stops, src, dst), pairs, *settings, leg).seconds
    to, onwards = np.split(ends, 2)
    fits = np.array([t.tile_bytes <= limit for t in stops])
    to[~fits] = onwards[~fits] = inf
    total = to[:, None] + seconds + onwards
    first, last = divmod(int(total.argmin()), count)
    if not np.isfinite(total[first, last]):
        return ()
    passed = [src, *(stops[n] for n in path(via, first, last))]
    return tuple(b for a, b in pairwise(passed) if b not in (a, dst))


def path(via: Smalls, row: int, column: int) -> list[int]:
    """The types from row to column on the way that a closure found."""
    nodes = paths(via, np.array([row]), np.array([column]))[0].tolist()
    return [int(row), *(b for a, b in pairwise(nodes) if a != b)]


@lru_cache(maxsize=16)
def _matrix_of_stops(
    mesh: Mesh,
    shape: tuple[int, ...],
    axes: tuple[str, ...],
    dtype: str,
    profile: Profile,
    memory_limit: int | None,
    leg: Leg,
) -> tuple[tuple[ArrayType, ...], Floats, Smalls] | None:
    """All layouts of these axes, whole, the closed matrix between them, and the ways behind it.

    None where there are none, or too many for so many devices.
    """
    stops = tuple(by_tile(stop_types(mesh, shape, axes, dtype)))
    if not stops or len(stops) ** 2 * mesh.num_devices > MAX_COMPARED:
        return None
    priced = _priced(stops, None, profile, memory_limit, leg)
    return stops, *closed(stops, priced, memory_limit)


def _priced(
    types: Sequence[ArrayType],
    pairs: tuple[Ints, Ints] | None,
    profile: Profile,
    memory_limit: int | None,
    leg: Leg,
) -> Prices:
    links = profile.on(types[0].mesh)
    limit = inf if memory_limit is None else memory_limit

    def price(src: ArrayType, dst: ArrayType, _: Hashable) -> tuple[StepCost, ...] | None:
        return leg(src, dst, profile, memory_limit)

    return price_pairs(types, pairs, "auto", links, limit, price, 0)


def closed(
    types: Sequence[ArrayType],
    priced: Prices,
    memory_limit: int | None,
    progress: Progress = no_progress,
) -> tuple[Floats, Smalls]:
    """The seconds between all types, closed under detours, and per pair the type to pass through.

    The types are in order of their tiles. The seconds of a detour are added up step by step, as
    those of its plan are. The prices given become the seconds.
    """
    count = len(types)
    seconds = priced.seconds.reshape(count, count)
    sizes = sorted({t.tile_bytes for t in types})
    tiles = np.array([bisect_left(sizes, t.tile_bytes) for t in types], dtype=np.int64)
    limit = None if memory_limit is None else bisect_right(sizes, memory_limit) - 1
    via = close(seconds, tiles, limit, progress)
    for start in range(0, count, ROWS):
        rows, columns = np.nonzero(via[start : start + ROWS] >= 0)
        rows += start
        total = np.zeros(len(rows))
        for a, b in pairwise(paths(via, rows, columns).T):
            for step in priced.steps[priced.answer[a * count + b]].T:
                total += step
        seconds[rows, columns] = total
    return seconds, via


def by_tile(types: Iterable[ArrayType]) -> list[ArrayType]:
    """Types in the order of their tiles, in which a matrix of them is closed."""
    return sorted(types, key=lambda t: t.tile_bytes)
