"""The oracle: what redistributions cost, one by one or as a matrix, for those who choose layouts.

A price is always that of a plan that can be had. Single questions are answered by the planner, with
stops on the way where that is cheaper, and remembered. A matrix of few pairs asks so of each; a
larger one is reduced to its signatures and exchanges, which the planner alone prices once each.
Both are closed over their types, so that no detour through them is cheaper (`stops.py`,
`batches.py`, `closure.py` in `planner/detours/`).
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from math import inf
from time import monotonic
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.synth.oracle.matrix import CostMatrix
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.price import Cost, StepCost
from redistrib.synth.plan.profile import Profile, find_profile
from redistrib.synth.planner.choose import (
    STRATEGIES,
    Explanation,
    choose,
    choose_without_stops,
    explain,
)
from redistrib.synth.planner.cut_axes import on_cut_axes
from redistrib.synth.planner.detours.batches import MAX_SEARCHED, Prices, price_pairs
from redistrib.synth.planner.detours.closure import Progress, no_progress
from redistrib.synth.planner.detours.stops import ENOUGH, Bounds, Layouts, layout_of
from redistrib.synth.planner.detours.through import by_tile, closed
from redistrib.synth.planner.problem import Effort, Problem, Strategy, check_name, make_problem
from redistrib.text import MAX_INTEGER, as_integer, brief, parse_limit
from redistrib.types.array_type import ArrayType
from redistrib.types.canonical import as_list
from redistrib.types.mesh import Mesh
from redistrib.types.named_sharding import TypeLike, as_type
from redistrib.types.refinement import check_array

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_SINGLE = 4
"""A matrix of so many types asks a single question for each pair: some milliseconds."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What an oracle did so far: single questions, and pairs in batches with what was priced."""

    hits: int
    misses: int
    remembered: int
    capacity: int
    batched_pairs: int
    batched_prices: int


class Oracle:
    """Costs and plans on one mesh, under one profile and memory limit.

    `profile`, `memory_limit` (bytes per device, or "1GiB") and the strategies of its methods are
    those of `redistrib.plan`. Raises LayoutError for what is no mesh, RedistribError for an unknown
    profile or effort, and for an illegal limit or capacity.

    Without a limit no tile of a plan exceeds both ends. Answers are deterministic and remembered by
    meaning, `capacity` of them at most; an oracle may be asked from several threads. It pickles, as
    does a matrix, so that processes share one: what it was asked stays behind.

    The planner has a few hundred microseconds for a question, the oracle a few milliseconds, where
    bounds say that they may pay: an answer of `auto` may have tiles up to the larger end over equal
    links too, and a single one may stop at a layout of whole axes; so may one of a matrix of at
    most MAX_SINGLE types. A matrix of many pairs whose digits do not match takes their exchanges,
    or ways around them, and searches none of them.
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
        self._base_profile = find_profile(profile)
        self.profile = self._base_profile.on(mesh)
        self.memory_limit = parse_limit(memory_limit)
        check_name("effort", effort, get_args(Effort))
        self.effort: Effort = effort
        self._answer = lru_cache(maxsize=size)(self._ask)
        self._answers: dict[Hashable, tuple[StepCost, ...] | None] = {}
        self._capacity = size
        self._lock = threading.Lock()
        self._pairs = self._prices = 0

    def __reduce__(self) -> tuple[object, ...]:
        # The question it answers, without what it was asked so far.
        make = partial(Oracle, capacity=self.stats.capacity, effort=self.effort)
        return (make, (self.mesh, self._base_profile, self.memory_limit))

    def cost(self, src: TypeLike, dst: TypeLike, *, strategy: Strategy = "auto") -> Cost:
        """The cost of `plan(src, dst)`. Raises what it raises.

        A type may be given as its text, on the mesh of the oracle.
        """
        check_name("strategy", strategy, STRATEGIES)
        answer = self._answer(as_type(src, self.mesh), as_type(dst, self.mesh), strategy)
        if isinstance(answer, InfeasibleError):
            raise InfeasibleError(str(answer), **vars(answer))
        return answer

    def plan(self, src: TypeLike, dst: TypeLike, *, strategy: Strategy = "auto") -> Plan:
        """The plan that `cost` prices. Raises what `redistrib.plan` raises."""
        check_name("strategy", strategy, STRATEGIES)
        problem = self._problem(as_type(src, self.mesh), as_type(dst, self.mesh))
        return choose(problem, strategy).plan(problem, strategy)

    def plan_through(
        self,
        types: Sequence[ArrayType],
        ways: Sequence[Strategy],
        strategy: Strategy,
        *,
        singly: bool = False,
    ) -> Plan:
        """The plans from each type to the next, each of its own strategy, as one of `strategy`.

        They are those of the planner alone, or `singly` those of single questions.
        """
        choose_leg = choose if singly else choose_without_stops
        if len(types) == 2:
            problem = self._problem(types[0], types[1])
            return choose_leg(problem, ways[0]).plan(problem, strategy)
        steps: list[Collective] = []
        for (src, dst), way in zip(pairwise(types), ways, strict=True):
            problem = self._problem(src, dst)
            steps += choose_leg(problem, way).make()
        return make_plan(
            types[0], types[-1], strategy, steps, self._base_profile, self.memory_limit
        )

    def explain(self, src: TypeLike, dst: TypeLike) -> Explanation:
        """Why this plan: the alternatives with their costs."""
        src, dst = as_type(src, self.mesh), as_type(dst, self.mesh)
        self._check_mesh(src)
        limit, profile = self.memory_limit, self._base_profile
        return explain(src, dst, effort=self.effort, memory_limit=limit, profile=profile)

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
        check_name("strategy", strategy, STRATEGIES)
        types, (rows, columns) = self._number(srcs, dsts)
        if len(rows) != len(columns):
            raise LayoutError(
                f"a vector has as many sources as targets; got {len(rows)} and {len(columns)}"
            )
        pairs = rows, columns
        seconds = self._price(types, pairs, strategy).seconds
        if strategy != "auto" or not types or any(t.uneven for t in types):
            return seconds
        bounds = Bounds.of(types[0], self.profile)
        layouts = Layouts([layout_of(t) for t in types])
        enough = ENOUGH * bounds.seconds(layouts, layouts, *pairs)
        for n, (src, dst) in enumerate(zip(*(p.tolist() for p in pairs), strict=True)):
            # A single answer searches, with partial sums, and stops on the way, where that may pay.
            best = bool(types[src].partial or types[dst].partial)
            if self.effort == "best" and not best:
                best = seconds[n] > enough[n]
            if best:
                answer = self._answer(types[src], types[dst], strategy)
                if not isinstance(answer, InfeasibleError):
                    seconds[n] = answer.seconds
        return seconds

    def cost_matrix(
        self,
        srcs: Sequence[TypeLike],
        dsts: Sequence[TypeLike],
        *,
        strategy: Strategy = "auto",
        closed: bool = True,
        progress: Progress | None = None,
    ) -> Floats:
        """The seconds of `matrix`, with its `progress`.

        Not `closed` it prices what is asked alone, and no way from a source to another one: less
        work, where a way through other types may be cheaper.
        """
        if closed:
            return self.matrix(srcs, dsts, strategy=strategy, progress=progress).seconds
        types, (rows, columns) = self._number(srcs, dsts)
        pairs = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
        priced = self._price_matrix(types, pairs, strategy, _in_time(progress))
        return priced.seconds.reshape(len(rows), len(columns))

    def matrix(
        self,
        srcs: Sequence[TypeLike],
        dsts: Sequence[TypeLike],
        *,
        strategy: Strategy = "auto",
        progress: Progress | None = None,
    ) -> CostMatrix:
        """What it costs from every source to every target, closed over all types given.

        No way through a type given is cheaper, if its tile fits the memory limit, or without a
        limit, if it is no larger than the larger end; of uneven types each pair is priced alone.
        It holds 32 bytes for each pair of the types given, beside 64 MiB, and takes time in the
        cube of their number. After two seconds `progress` is told what is done and which part of
        it, once a second. The types of one call have one shape and dtype. Raises LayoutError where
        they have not.
        """
        distinct, numbers = self._number(srcs, dsts)
        types = by_tile(distinct)
        place = {t: n for n, t in enumerate(types)}
        position = np.array([place[t] for t in distinct], dtype=np.int64)
        rows, columns = (position[number] for number in numbers)
        tell = _in_time(progress)
        priced = self._price_matrix(types, None, strategy, tell)
        if any(t.uneven for t in types):
            seconds = priced.seconds.reshape(len(types), len(types))
            via = np.full(seconds.shape, -1, dtype=np.int32)
        else:
            seconds, via = closed(types, priced, self.memory_limit, tell)
        singly = _asks_singly(types, strategy)
        return CostMatrix(
            seconds[np.ix_(rows, columns)],
            tuple(types),
            strategy,
            partial(self.plan_through, strategy=strategy, singly=singly),
            rows,
            columns,
            via,
            priced.exchanged.reshape(via.shape),
        )

    def _number(self, *lists: Sequence[TypeLike]) -> tuple[list[ArrayType], tuple[Ints, ...]]:
        """The distinct types of some lists, and each list as numbers of them."""
        number: dict[ArrayType, int] = {}

        def numbered(entry: TypeLike) -> int:
            return number.setdefault(as_type(entry, self.mesh), len(number))

        rule = "sources and targets are lists of types"
        numbers = tuple(
            np.array([numbered(entry) for entry in as_list(types, rule)], dtype=np.int64)
            for types in lists
        )
        types = list(number)
        for t in types:
            self._check_mesh(t)
            check_array(types[0], t)
        return types, numbers

    def _check_mesh(self, t: ArrayType) -> None:
        if t.mesh != self.mesh:
            raise LayoutError(
                f"an oracle answers for types on its mesh, {self.mesh}; got {t} on {t.mesh}", type=t
            )

    def _price_matrix(
        self,
        types: Sequence[ArrayType],
        pairs: tuple[Ints, Ints] | None,
        strategy: Strategy,
        progress: Progress,
    ) -> Prices:
        """Prices of the pairs of a matrix: each as a single question where they are few."""
        check_name("strategy", strategy, STRATEGIES)
        singly = _asks_singly(types, strategy)
        most_searched = MAX_SEARCHED if self.effort == "best" else inf
        return self._price(types, pairs, strategy, most_searched, progress, singly=singly)

    def _price(
        self,
        types: Sequence[ArrayType],
        pairs: tuple[Ints, Ints] | None,
        strategy: Strategy,
        most_searched: float = inf,
        progress: Progress = no_progress,
        *,
        singly: bool = False,
    ) -> Prices:
        """Prices of the planner alone, or `singly` of single questions; see `price_pairs`."""
        finer = on_cut_axes(self.profile, types) if types and not singly else None
        if finer is not None and finer[0].links.cuts_axes:  # each pair is cut for itself
            finer = None
        links, profile = (
            (finer[0].links, finer[0].links) if finer else (self.profile, self._base_profile)
        )
        choose_pair = choose if singly else choose_without_stops

        def price_alone(
            src: ArrayType, dst: ArrayType, price_key: Hashable | None
        ) -> tuple[StepCost, ...] | None:
            of_pair = (src, dst) if singly else price_key
            key = src.dtype, strategy, of_pair
            if of_pair is not None and key in self._answers:
                return self._answers[key]
            try:
                problem = make_problem(src, dst, self.memory_limit, profile, self.effort)
                costs = choose_pair(problem, strategy).costs
            except InfeasibleError:
                costs = None
            if of_pair is not None and len(self._answers) < self._capacity:
                self._answers[key] = costs
            return costs

        types = finer[1] if finer else types
        limit = inf if self.memory_limit is None else self.memory_limit
        prices = price_pairs(
            types,
            pairs,
            strategy,
            links,
            limit,
            price_alone,
            most_searched,
            progress,
            singly=singly,
        )
        with self._lock:
            self._pairs += len(prices.answer)
            self._prices += len(prices.steps)
        return prices

    def _problem(self, src: ArrayType, dst: ArrayType) -> Problem:
        self._check_mesh(src)
        return make_problem(src, dst, self.memory_limit, self._base_profile, self.effort)

    def _ask(self, src: ArrayType, dst: ArrayType, strategy: Strategy) -> Cost | InfeasibleError:
        """What the planner answers."""
        try:
            problem = self._problem(src, dst)
            return choose(problem, strategy).cost(problem)
        except InfeasibleError as error:
            return error.with_traceback(None)


def _asks_singly(types: Sequence[ArrayType], strategy: Strategy) -> bool:
    """Whether a matrix of these types asks a single question for each pair."""
    return len(types) <= MAX_SINGLE and strategy == "auto"


def _in_time(progress: Progress | None) -> Progress:
    """A progress that is told nothing in the first two seconds, then at most once a second."""
    if progress is None:
        return no_progress
    tell, due = progress, monotonic() + 2

    def told(stage: str, part: float) -> None:
        nonlocal due
        if monotonic() >= due:
            due = monotonic() + 1
            tell(stage, part)

    return told


def cost_matrix(
    srcs: Sequence[TypeLike],
    dsts: Sequence[TypeLike],
    *,
    strategy: Strategy = "auto",
    memory_limit: int | str | None = None,
    profile: Profile | str | None = None,
) -> Floats:
    """Seconds from every source (rows) to every target (columns); infinite where infeasible.

    Closed over all types given, as `Oracle.matrix` says. `strategy`, `memory_limit` (bytes per
    device, or "1GiB") and `profile` are those of `redistrib.plan`. Raises LayoutError unless the
    types have one mesh, shape and dtype.
    """
    check_name("strategy", strategy, STRATEGIES)
    rule = "sources and targets are lists of types"
    rows, columns = ([as_type(t) for t in as_list(ts, rule)] for ts in (srcs, dsts))
    if not (rows or columns):
        return np.zeros((0, 0))
    oracle = Oracle((*rows, *columns)[0].mesh, profile, memory_limit)
    return oracle.cost_matrix(rows, columns, strategy=strategy)
