"""The oracle: what moves cost, one by one or a matrix at a time, for those who choose layouts.

A price is always that of a plan that can be had. Single questions are answered by the planner, with
stops on the way where that is cheaper (`stops.py`), and remembered. A matrix is reduced to its
signatures and exchanges (`batches.py`), each is priced once by the planner alone, and it is closed
over its types (`closure.py`), so that no detour through them is cheaper.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import inf
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.synth.oracle.batches import MAX_SEARCHED, Prices, price_pairs
from redistrib.synth.oracle.closure import close, paths
from redistrib.synth.oracle.stops import ENOUGH, GAIN, Bounds, find_stop, layout_of, stop_types
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.price import Cost, StepCost, total_cost
from redistrib.synth.plan.profile import Link, Profile, find_profile
from redistrib.synth.plan.routing import lower_bound
from redistrib.synth.planner.choose import STRATEGIES, Explanation, choose, explain
from redistrib.synth.planner.problem import Effort, Strategy, check_name, make_problem
from redistrib.text import MAX_INTEGER, as_integer, brief, parse_limit
from redistrib.types.array_type import ArrayType
from redistrib.types.canonical import as_list
from redistrib.types.mesh import Mesh
from redistrib.types.named_sharding import TypeLike, as_type
from redistrib.types.refinement import check_pair, refine

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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
    """What a plan costs, step by step and in all; with `stops`, several plans in a row.

    Of a plan alone whether digits match, and the bytes that some device must receive.
    """

    steps: tuple[StepCost, ...]
    cost: Cost
    stops: tuple[ArrayType, ...] = ()
    aligned: bool = False
    bound: int = 0

    @property
    def seconds(self) -> float:
        """What the plan takes."""
        return self.cost.seconds


@dataclass(frozen=True, slots=True, eq=False)
class CostMatrix:
    """Seconds from every source (rows) to every target (columns), and the plans behind them.

    `seconds` is infinite where nothing fits the memory limit. Where a way through other `types` of
    the question is cheaper than the planner's own plan, the plan is the one through them.
    """

    seconds: Floats
    _oracle: Oracle
    _strategy: Strategy
    types: tuple[ArrayType, ...]
    _rows: Ints
    _columns: Ints
    _via: Ints
    _exchanged: Bools

    def hops(self, row: int, column: int) -> tuple[ArrayType, ...]:
        """The types between source and target that the plan stops at."""
        return tuple(self.types[n] for n in self._path(row, column)[1:-1])

    def plan(self, row: int, column: int) -> Plan:
        """The plan that was priced: its `seconds` is that entry, to the last bit.

        Raises InfeasibleError where the entry is infinite.
        """
        path = self._path(row, column)
        types = [self.types[n] for n in path]
        ways = ["direct" if self._exchanged[leg] else self._strategy for leg in pairwise(path)]
        return self._oracle.plan_through(types, ways, self._strategy)

    def _path(self, row: int, column: int) -> list[int]:
        """The types from source to target, as numbers."""
        start, end = self._rows[row], self._columns[column]
        found = paths(self._via, np.array([start]), np.array([end]))[0].tolist()
        return [int(start), *(b for a, b in pairwise(found) if a != b)]


class Oracle:
    """Costs and plans on one mesh, under one profile and memory limit (bytes per device).

    Without a limit no tile of a plan exceeds both ends. Answers are deterministic and remembered by
    meaning, `capacity` of them at most; an oracle may be asked from several threads.

    The planner has a few hundred microseconds for a question, the oracle a few milliseconds, where
    bounds say that they may pay: an answer of `auto` may have tiles up to the larger end over equal
    links too, and a single one may stop at a layout of whole axes. A matrix of many pairs whose
    digits do not match takes their exchanges, or ways around them, and searches none of them.
    With the effort "fast" every answer is that of `redistrib.plan`.

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
        memory_limit: int | str | None = None,
        *,
        capacity: int = 1 << 16,
        effort: Effort = "best",
    ) -> None:
        if not isinstance(mesh, Mesh):
            raise LayoutError(f"an oracle answers for a Mesh; got {brief(mesh)}", mesh=mesh)
        size = as_integer(capacity)
        if size is None or not 0 <= size <= MAX_INTEGER:
            raise RedistribError(
                f"a capacity is a number of answers to remember; got {brief(capacity)}",
                capacity=capacity,
            )
        self.mesh = mesh
        self._asked = find_profile(profile)
        self.profile = self._asked.on(mesh)
        self.memory_limit = parse_limit(memory_limit)
        self._alone = lru_cache(maxsize=size)(self._ask_alone)
        check_name("effort", effort, get_args(Effort))
        self.effort: Effort = effort
        self._stops = effort == "best"
        self._answer = lru_cache(maxsize=size)(self._ask) if self._stops else self._alone
        links = {self.profile.link_of(axis) for axis, size in mesh.axes if size > 1}
        self._fastest = Link(
            min((link.latency for link in links), default=0.0),
            max((link.bandwidth for link in links), default=1.0),
        )
        self._between_stops = lru_cache(maxsize=16)(self._matrix_of_stops)
        self._lock = threading.Lock()
        self._pairs = self._prices = 0

    def cost(self, src: TypeLike, dst: TypeLike, *, strategy: Strategy = "auto") -> Cost:
        """The cost of `plan(src, dst)`. Raises what it raises.

        A type may be given as its text, on the mesh of the oracle.
        """
        check_name("strategy", strategy, STRATEGIES)
        answer = self._answer(as_type(src, self.mesh), as_type(dst, self.mesh), strategy)
        if isinstance(answer, InfeasibleError):
            raise InfeasibleError(str(answer), **vars(answer))
        return answer.cost

    def plan(self, src: TypeLike, dst: TypeLike, *, strategy: Strategy = "auto") -> Plan:
        """The plan that `cost` prices. Raises what `redistrib.plan` raises."""
        check_name("strategy", strategy, STRATEGIES)
        src, dst = as_type(src, self.mesh), as_type(dst, self.mesh)
        answer = self._answer(src, dst, strategy)
        middle = answer.stops if isinstance(answer, _Answer) else ()
        types = (src, *middle, dst)
        ways = [_way(a, b) for a, b in pairwise(types)] if middle else [strategy]
        return self.plan_through(types, ways, strategy)

    def plan_through(
        self, types: Sequence[ArrayType], ways: Sequence[Strategy], strategy: Strategy
    ) -> Plan:
        """The plans from each type to the next, each of its own strategy, as one of `strategy`."""
        steps: list[Collective] = []
        common = None
        for (src, dst), way in zip(pairwise(types), ways, strict=True):
            self._check_mesh(src)
            problem = make_problem(src, dst, self.memory_limit, self._asked, self.effort)
            steps += choose(problem, way).make()
            common = problem.common if len(types) == 2 else None
        ends = types[0], types[-1]
        return make_plan(*ends, strategy, steps, self._asked, self.memory_limit, common)

    def explain(self, src: TypeLike, dst: TypeLike) -> Explanation:
        """Why this plan: the alternatives with their costs."""
        src, dst = as_type(src, self.mesh), as_type(dst, self.mesh)
        self._check_mesh(src)
        limit, profile = self.memory_limit, self._asked
        found = explain(src, dst, effort=self.effort, memory_limit=limit, profile=profile)
        plan = self.plan(src, dst)
        if plan.seconds >= found.plan.seconds:
            return found
        others = (*found.alternatives, ("stops", plan))
        return Explanation(plan, others, len(found.alternatives))

    @property
    def stats(self) -> Stats:
        """Counts of what was asked and what had to be priced."""
        info = self._answer.cache_info()
        with self._lock:
            pairs, prices = self._pairs, self._prices
        return Stats(info.hits, info.misses, info.currsize, info.maxsize or 0, pairs, prices)

    def cost_vector(
        self, srcs: Sequence[TypeLike], dsts: Sequence[TypeLike], *, strategy: Strategy = "auto"
    ) -> Floats:
        """Seconds of each pair `srcs[n]`, `dsts[n]`: those of `cost`; infinite where infeasible.

        The types of one call have one shape and dtype. Raises LayoutError where they have not.
        """
        types, pairs = self._number(srcs, dsts)
        if len(pairs[0]) != len(pairs[1]):
            raise LayoutError(
                f"a vector has as many sources as targets; got {len(pairs[0])} and {len(pairs[1])}"
            )
        seconds = self._price(types, pairs, strategy).seconds
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
        self, srcs: Sequence[TypeLike], dsts: Sequence[TypeLike], *, strategy: Strategy = "auto"
    ) -> Floats:
        """The seconds of `matrix`."""
        return self.matrix(srcs, dsts, strategy=strategy).seconds

    def matrix(
        self, srcs: Sequence[TypeLike], dsts: Sequence[TypeLike], *, strategy: Strategy = "auto"
    ) -> CostMatrix:
        """What it costs from every source to every target, closed over all types given.

        No way through a type given is cheaper, if its tile fits the memory limit, or without a
        limit, if it is no larger than the larger end. The types of one call have one shape and
        dtype. Raises LayoutError where they have not.
        """
        return self._matrix(srcs, dsts, strategy, MAX_SEARCHED if self._stops else inf)

    def _matrix(
        self,
        srcs: Sequence[TypeLike],
        dsts: Sequence[TypeLike],
        strategy: Strategy,
        most_searched: float,
    ) -> CostMatrix:
        types, (rows, columns) = self._number(srcs, dsts)
        count = len(types)
        priced = self._price(types, None, strategy, most_searched)
        seconds = priced.seconds.reshape(count, count)
        sizes = sorted({t.tile_bytes for t in types})
        tiles = np.array([bisect_left(sizes, t.tile_bytes) for t in types], dtype=np.int64)
        limit = None if self.memory_limit is None else bisect_right(sizes, self.memory_limit) - 1
        via = close(seconds, tiles, limit)
        hopping = np.nonzero(via >= 0)
        # The seconds of a plan are added step by step, so those of a detour are added anew.
        total = np.zeros(len(hopping[0]))
        nodes = paths(via, *hopping)
        for a, b in pairwise(nodes.T):
            for step in priced.steps[priced.answer[a * count + b]].T:
                total += step
        seconds[hopping] = total
        return CostMatrix(
            seconds[np.ix_(rows, columns)],
            self,
            strategy,
            tuple(types),
            rows,
            columns,
            via,
            priced.exchanged.reshape(count, count),
        )

    def _number(self, *lists: Sequence[TypeLike]) -> tuple[list[ArrayType], tuple[Ints, ...]]:
        """The distinct types of some lists, and each list as numbers of them."""
        number: dict[ArrayType, int] = {}

        def numbered(given: TypeLike) -> int:
            return number.setdefault(as_type(given, self.mesh), len(number))

        rule = "sources and targets are lists of types"
        found = tuple(
            np.array([numbered(given) for given in as_list(types, rule)], dtype=np.int64)
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
        self,
        types: Sequence[ArrayType],
        pairs: tuple[Ints, ...] | None,
        strategy: Strategy,
        most_searched: float = inf,
    ) -> Prices:
        """Prices of the planner; see `price_pairs`."""
        check_name("strategy", strategy, STRATEGIES)

        def price_alone(src: ArrayType, dst: ArrayType) -> tuple[StepCost, ...] | None:
            answer = self._alone(src, dst, strategy)
            return None if isinstance(answer, InfeasibleError) else answer.steps

        limit = inf if self.memory_limit is None else self.memory_limit
        found = price_pairs(types, pairs, strategy, self.profile, limit, price_alone, most_searched)
        with self._lock:
            self._pairs += len(found.answer)
            self._prices += len(found.steps)
        return found

    def _ask_alone(
        self, src: ArrayType, dst: ArrayType, strategy: Strategy
    ) -> _Answer | InfeasibleError:
        """What the planner answers."""
        self._check_mesh(src)
        check_name("strategy", strategy, STRATEGIES)
        try:
            problem = make_problem(src, dst, self.memory_limit, self._asked, self.effort)
            steps = choose(problem, strategy).costs
        except InfeasibleError as error:
            return error.with_traceback(None)
        bound, common = 0, problem.common
        if common is not None and not (src.partial or dst.partial):
            bound = lower_bound(src, problem.dst, common) * src.itemsize
        aligned = common is not None and common.aligned
        return _Answer(steps, total_cost(src, steps), (), aligned, bound)

    def _ask(self, src: ArrayType, dst: ArrayType, strategy: Strategy) -> _Answer | InfeasibleError:
        """What the planner answers, or with stops where that is cheaper."""
        best = self._alone(src, dst, strategy)
        if strategy != "auto" or isinstance(best, InfeasibleError) or src.partial or dst.partial:
            return best
        # Where digits match the planner knows all ways with one latency: others have two as well.
        latencies = 2 if best.aligned and best.cost.num_collectives > 1 else 1
        least = self._fastest.latency * latencies + best.bound / self._fastest.bandwidth
        if best.seconds <= ENOUGH * least:
            return best
        limit = self.memory_limit or max(src.tile_bytes, dst.tile_bytes)
        middle: tuple[ArrayType, ...] = ()
        if best.aligned:
            bounds = Bounds.of(src, self.profile)
            least = bounds.seconds(layout_of(src), layout_of(dst))
            least += self._fastest.latency * (latencies - 1)
            if best.seconds > ENOUGH * least:
                middle = find_stop(src, dst, best.seconds, bounds, limit, self._seconds_alone)
        else:
            middle = self._best_stops(src, dst, limit)
        through = self._through(src, middle, dst) if middle else None
        if through is not None and through.seconds * GAIN < best.seconds:
            return through
        return best

    def _through(
        self, src: ArrayType, middle: tuple[ArrayType, ...], dst: ArrayType
    ) -> _Answer | None:
        """The answer with these stops; None where a part of the way has none."""
        steps: list[StepCost] = []
        for start, end in pairwise((src, *middle, dst)):
            leg = self._alone(start, end, _way(start, end))
            if isinstance(leg, InfeasibleError):
                return None
            steps += leg.steps
        return _Answer(tuple(steps), total_cost(src, steps), middle)

    def _best_stops(self, src: ArrayType, dst: ArrayType, limit: int) -> tuple[ArrayType, ...]:
        """The stops between two types whose digits do not match, for which there are no bounds.

        From the source to one, through the closed matrix of all, and from one to the target.
        """
        between = self._between_stops(src.shape, src.dtype)
        if between is None:
            return ()
        stops = between.types
        count = len(stops)
        each = np.arange(count)
        pairs = np.append(np.full(count, count), each), np.append(each, np.full(count, count + 1))
        to, onwards = np.split(self._price((*stops, src, dst), pairs, "auto", 0).seconds, 2)
        fits = np.array([t.tile_bytes <= limit for t in stops])
        to[~fits] = onwards[~fits] = inf
        first, last = divmod(int((to[:, None] + between.seconds + onwards).argmin()), count)
        found = (stops[first], *between.hops(first, last), stops[last])
        return tuple(b for a, b in pairwise((src, *found)) if b not in (a, dst))

    def _matrix_of_stops(self, shape: tuple[int, ...], dtype: str) -> CostMatrix | None:
        """The closed matrix of all stops of such an array; None where it has none."""
        stops = [t for _, t in stop_types(ArrayType(self.mesh, dtype, shape))]
        return self._matrix(stops, stops, "auto", 0) if stops else None

    def _seconds_alone(self, src: ArrayType, dst: ArrayType) -> float:
        """What the planner's answer takes; infinite where there is none."""
        answer = self._alone(src, dst, _way(src, dst))
        return inf if isinstance(answer, InfeasibleError) else answer.seconds


def _way(src: ArrayType, dst: ArrayType) -> Strategy:
    """The strategy to or from a stop: a search where digits do not match takes too long."""
    return "auto" if refine(src, dst).aligned else "direct"


def cost_matrix(
    srcs: Sequence[TypeLike],
    dsts: Sequence[TypeLike],
    *,
    strategy: Strategy = "auto",
    memory_limit: int | None = None,
    profile: Profile | str | None = None,
) -> Floats:
    """Seconds from every source (rows) to every target (columns); infinite where infeasible.

    Closed over all types given, as `Oracle.matrix` says. Raises LayoutError unless they have one
    mesh, shape and dtype.
    """
    check_name("strategy", strategy, STRATEGIES)
    rule = "sources and targets are lists of types"
    rows, columns = ([as_type(t) for t in as_list(ts, rule)] for ts in (srcs, dsts))
    if not (rows or columns):
        return np.zeros((0, 0))
    oracle = Oracle((*rows, *columns)[0].mesh, profile, memory_limit)
    return oracle.cost_matrix(rows, columns, strategy=strategy)
