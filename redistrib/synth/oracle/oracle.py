"""The oracle: what moves cost, one by one or a matrix at a time, for those who choose layouts.

A price is always that of a plan that can be had. Single questions are answered by the planner, with
a stop on the way where that is cheaper (`stops.py`), and remembered. A matrix is reduced to its
signatures (`signatures.py`), each is priced once by the planner alone, and it is closed over its
types (`closure.py`), so that no detour through them is cheaper.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import InfeasibleError, LayoutError
from redistrib.synth.cost import Cost, Profile, StepCost, find_profile, total_cost
from redistrib.synth.oracle.closure import close, paths
from redistrib.synth.oracle.signatures import find_signatures, matrix_signatures
from redistrib.synth.oracle.stops import ENOUGH, Bounds, find_stop, layout_of
from redistrib.synth.plan import Plan, make_plan
from redistrib.synth.planner import (
    Explanation,
    explain,
    find_strategy,
    make_problem,
    solve,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh
from redistrib.types.named_sharding import TypeLike, as_type
from redistrib.types.refinement import check_pair

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BY_SIGNATURE = ("auto", "collectives", "direct")
"""Strategies whose price of an aligned pair is a function of its signature."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What an oracle did so far: single questions, and pairs in batches with what was priced."""

    hits: int
    misses: int
    remembered: int
    capacity: int
    batched_pairs: int
    batched_prices: int


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a plan costs, step by step and in all; with a `stop`, two plans in a row."""

    steps: tuple[StepCost, ...]
    cost: Cost
    stop: ArrayType | None = None

    @classmethod
    def of(
        cls, src: ArrayType, steps: Sequence[StepCost], stop: ArrayType | None = None
    ) -> _Answer:
        """The answer of a plan from a type."""
        return cls(tuple(steps), total_cost(src, steps), stop)

    @property
    def seconds(self) -> float:
        """What the plan takes."""
        return self.cost.seconds


@dataclass(frozen=True, slots=True, eq=False)
class CostMatrix:
    """Seconds from every source (rows) to every target (columns), and the plans behind them.

    `seconds` is infinite where nothing fits the memory limit. Where a way through other types of
    the matrix is cheaper than the planner's own plan, the plan is the one through them.
    """

    seconds: Floats
    _oracle: Oracle
    _strategy: str
    _types: tuple[ArrayType, ...]
    _rows: Ints
    _columns: Ints
    _via: Ints

    def hops(self, row: int, column: int) -> tuple[ArrayType, ...]:
        """The types between source and target that the plan stops at."""
        start, end = self._rows[[row]], self._columns[[column]]
        found = paths(self._via, start, end)[0].tolist()
        return tuple(self._types[b] for a, b in pairwise(found) if a != b)[:-1]

    def plan(self, row: int, column: int) -> Plan:
        """The plan that was priced: its `seconds` is that entry, to the last bit.

        Raises InfeasibleError where the entry is infinite.
        """
        src, dst = self._types[self._rows[row]], self._types[self._columns[column]]
        hops = self.hops(row, column)
        if not hops:
            return self._oracle.plan_alone(src, dst, self._strategy)
        return self._oracle.plan_through((src, *hops, dst), self._strategy)


class Oracle:
    """Costs and plans on one mesh, under one profile and memory limit (bytes per device).

    Without a limit no tile of a plan exceeds both ends. Answers are deterministic and remembered by
    meaning, `capacity` of them at most; an oracle may be asked from several threads.

    The planner has a few hundred microseconds for a question, the oracle a few milliseconds, where
    bounds say that they may pay: an answer of `auto` may have tiles up to the larger end over equal
    links too, and a single one may stop at a layout of whole axes. `stops=False`: every answer is
    that of `redistrib.plan`.

    >>> mesh = Mesh(x=2, y=4)
    >>> oracle = Oracle(mesh)
    >>> rows, columns = (ArrayType.parse(t, mesh) for t in ("f32[8{x}, 8]", "f32[8, 8{x}]"))
    >>> oracle.cost(rows, columns).received_bytes
    64
    >>> oracle.cost_matrix([rows, columns], [rows, columns]).diagonal().tolist()
    [0.0, 0.0]
    """

    def __init__(
        self,
        mesh: Mesh,
        profile: Profile | str | None = None,
        memory_limit: int | None = None,
        *,
        capacity: int = 1 << 16,
        stops: bool = True,
    ) -> None:
        self.mesh = mesh
        self.profile = find_profile(profile).on(mesh)
        self.memory_limit = memory_limit
        self._alone = lru_cache(maxsize=capacity)(self._ask_alone)
        self._answer = lru_cache(maxsize=capacity)(self._ask) if stops else self._alone
        self._stops = stops
        self._lock = threading.Lock()
        self._pairs = self._prices = 0

    def cost(self, src: ArrayType, dst: ArrayType, *, strategy: str = "auto") -> Cost:
        """The cost of `plan(src, dst)`. Raises what it raises."""
        answer = self._answer(src, dst, strategy)
        if isinstance(answer, InfeasibleError):
            raise InfeasibleError(str(answer), **vars(answer))
        return answer.cost

    def plan(self, src: ArrayType, dst: ArrayType, *, strategy: str = "auto") -> Plan:
        """The plan that `cost` prices. Raises what `redistrib.plan` raises."""
        answer = self._answer(src, dst, strategy)
        match answer:
            case _Answer(stop=ArrayType() as stop):
                return self.plan_through((src, stop, dst), strategy)
            case _:
                return self.plan_alone(src, dst, strategy)

    def plan_alone(self, src: ArrayType, dst: ArrayType, strategy: str) -> Plan:
        """The plan without a stop."""
        self._check_mesh(src)
        problem = make_problem(src, dst, self.memory_limit, self.profile)
        steps, _ = solve(problem, strategy, self._stops)
        return make_plan(src, dst, strategy, steps, self.profile, self.memory_limit, problem.common)

    def plan_through(self, types: Sequence[ArrayType], strategy: str) -> Plan:
        """The plans from each type to the next, as one."""
        parts = [self.plan_alone(a, b, strategy) for a, b in pairwise(types)]
        steps = [step for part in parts for step in part.steps]
        return make_plan(types[0], types[-1], strategy, steps, self.profile, self.memory_limit)

    def explain(self, src: ArrayType, dst: ArrayType) -> Explanation:
        """Why this plan: the alternatives with their costs."""
        self._check_mesh(src)
        found = explain(src, dst, memory_limit=self.memory_limit, profile=self.profile)
        return replace(found, plan=self.plan(src, dst))

    @property
    def stats(self) -> Stats:
        """Counts of what was asked and what had to be priced."""
        info = self._answer.cache_info()
        with self._lock:
            pairs, prices = self._pairs, self._prices
        return Stats(info.hits, info.misses, info.currsize, info.maxsize or 0, pairs, prices)

    def cost_vector(
        self, srcs: Sequence[ArrayType], dsts: Sequence[ArrayType], *, strategy: str = "auto"
    ) -> Floats:
        """Seconds of each pair `srcs[n]`, `dsts[n]`: those of `cost`; infinite where infeasible.

        The types of one call have one shape and dtype. Raises LayoutError where they have not.
        """
        if len(srcs) != len(dsts):
            raise LayoutError(
                f"a vector has as many sources as targets; got {len(srcs)} and {len(dsts)}"
            )
        types, pairs = self._number(srcs, dsts)
        seconds = self._price(types, pairs, strategy)[0]
        if self._stops and strategy == "auto" and len(types):
            bounds = Bounds.of(types[0], self.profile)
            layouts = [layout_of(t) for t in types]
            for n, (src, dst) in enumerate(zip(*(p.tolist() for p in pairs), strict=True)):
                if seconds[n] > ENOUGH * bounds.seconds(layouts[src], layouts[dst]):
                    answer = self._answer(types[src], types[dst], strategy)
                    if not isinstance(answer, InfeasibleError):
                        seconds[n] = answer.cost.seconds
        return seconds

    def cost_matrix(
        self, srcs: Sequence[ArrayType], dsts: Sequence[ArrayType], *, strategy: str = "auto"
    ) -> Floats:
        """The seconds of `matrix`."""
        return self.matrix(srcs, dsts, strategy=strategy).seconds

    def matrix(
        self, srcs: Sequence[ArrayType], dsts: Sequence[ArrayType], *, strategy: str = "auto"
    ) -> CostMatrix:
        """What it costs from every source to every target, closed over all types given.

        No way through a type given is cheaper, if its tile fits the memory limit, or without a
        limit, if it is no larger than the larger end. The types of one call have one shape and
        dtype. Raises LayoutError where they have not.
        """
        types, (rows, columns) = self._number(srcs, dsts)
        count = len(types)
        flat, steps, answer = self._price(types, None, strategy)
        seconds = flat.reshape(count, count)
        sizes = sorted({t.tile_bytes for t in types})
        tiles = np.array([bisect_left(sizes, t.tile_bytes) for t in types], dtype=np.int64)
        limit = None if self.memory_limit is None else bisect_right(sizes, self.memory_limit) - 1
        via = close(seconds, tiles, limit)
        hopping = np.nonzero(via >= 0)
        # The seconds of a plan are added step by step, so those of a detour are added anew.
        total = np.zeros(len(hopping[0]))
        nodes = paths(via, *hopping)
        for a, b in pairwise(nodes.T):
            for step in steps[answer[a * count + b]].T:
                total += step
        seconds[hopping] = total
        return CostMatrix(
            seconds[np.ix_(rows, columns)], self, strategy, tuple(types), rows, columns, via
        )

    def _number(self, *lists: Sequence[ArrayType]) -> tuple[list[ArrayType], tuple[Ints, ...]]:
        """The distinct types of some lists, and each list as numbers of them."""
        number: dict[ArrayType, int] = {}
        found = tuple(
            np.array([number.setdefault(t, len(number)) for t in types], dtype=np.int64)
            for types in lists
        )
        types = list(number)
        for t in types:
            self._check_mesh(t)
            check_pair(types[0], t)
        return types, found

    def _check_mesh(self, t: ArrayType) -> None:
        if t.mesh != self.mesh:
            raise LayoutError(
                f"an oracle answers for types on its mesh, {self.mesh}; got {t} on {t.mesh}", type=t
            )

    def _price(
        self, types: Sequence[ArrayType], pairs: tuple[Ints, ...] | None, strategy: str
    ) -> tuple[Floats, Floats, Ints]:
        """Per pair its seconds; per distinct price the seconds of its steps; which a pair has.

        The pairs are numbers of types; None for every type with every type, row by row.
        """
        find_strategy(strategy)
        src, dst = pairs or _all_pairs(len(types))
        if not len(src):
            return np.zeros(0), np.zeros((0, 0)), np.zeros(0, dtype=np.int64)
        which, first = np.full(len(src), -1), np.zeros(0, dtype=np.int64)
        if strategy in BY_SIGNATURE:
            with suppress(OverflowError):  # too many cuts for a mask: each pair for itself
                if pairs is None:
                    signatures = matrix_signatures(types, self.profile)
                else:
                    signatures = find_signatures(types, src, dst, self.profile)
                which, first = signatures.of_pair, signatures.first
        alone = np.flatnonzero(which < 0)
        which[alone] = np.arange(len(first), len(first) + len(alone))
        answers = [self._alone(types[src[p]], types[dst[p]], strategy) for p in (*first, *alone)]
        with self._lock:
            self._pairs += len(src)
            self._prices += len(answers)
        seconds = [np.inf if isinstance(a, InfeasibleError) else a.cost.seconds for a in answers]
        each = [() if isinstance(a, InfeasibleError) else a.steps for a in answers]
        steps = np.zeros((len(answers), max(map(len, each))))
        for n, costs in enumerate(each):
            steps[n, : len(costs)] = [step.seconds for step in costs]
        return np.array(seconds)[which], steps, which

    def _ask_alone(
        self, src: ArrayType, dst: ArrayType, strategy: str
    ) -> _Answer | InfeasibleError:
        """What the planner answers."""
        self._check_mesh(src)
        find_strategy(strategy)
        try:
            problem = make_problem(src, dst, self.memory_limit, self.profile)
            _, steps = solve(problem, strategy, self._stops)
        except InfeasibleError as error:
            return error.with_traceback(None)
        return _Answer.of(src, steps)

    def _ask(self, src: ArrayType, dst: ArrayType, strategy: str) -> _Answer | InfeasibleError:
        """What the planner answers, or with a stop where that is cheaper."""
        best = self._alone(src, dst, strategy)
        if strategy != "auto" or isinstance(best, InfeasibleError) or src.partial or dst.partial:
            return best
        bounds = Bounds.of(src, self.profile)
        least = bounds.seconds(layout_of(src), layout_of(dst))
        # The planner knows all ways with one latency: another has two, as this one has.
        if best.cost.num_collectives > 1:
            least += bounds.least_latency
        if best.seconds > ENOUGH * least:
            limit = self.memory_limit or max(src.tile_bytes, dst.tile_bytes)
            found = find_stop(src, dst, best.seconds, bounds, limit, self._steps_alone)
            if found is not None:
                best = _Answer.of(src, found[1], found[0])
        return best

    def _steps_alone(self, src: ArrayType, dst: ArrayType) -> tuple[StepCost, ...] | None:
        """What the steps of the planner's answer cost; None where there is none."""
        answer = self._alone(src, dst, "auto")
        return None if isinstance(answer, InfeasibleError) else answer.steps


def _all_pairs(count: int) -> tuple[Ints, Ints]:
    """Every number below `count` with every one, row by row."""
    each = np.arange(count)
    return np.repeat(each, count), np.tile(each, count)


def cost_matrix(
    srcs: Sequence[TypeLike],
    dsts: Sequence[TypeLike],
    *,
    strategy: str = "auto",
    memory_limit: int | None = None,
    profile: Profile | str | None = None,
) -> Floats:
    """Seconds from every source (rows) to every target (columns); infinite where infeasible.

    Closed over all types given, as `Oracle.matrix` says. Raises LayoutError unless they have one
    mesh, shape and dtype.
    """
    find_strategy(strategy)
    rows, columns = [*map(as_type, srcs)], [*map(as_type, dsts)]
    if not (rows or columns):
        return np.zeros((0, 0))
    oracle = Oracle((*rows, *columns)[0].mesh, profile, memory_limit)
    return oracle.cost_matrix(rows, columns, strategy=strategy)
