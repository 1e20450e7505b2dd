"""The memory-constrained search of the paper: weak types, and one all_permute.

A program in normal form slices, moves at a constant tile, and gathers, so no tile exceeds both
ends. An all_permute joins any two types with tiles of one shape. So a program is two halves of
strong collectives, one from the source, one backwards from the target, that meet in the shape of a
tile; in a half only the sizes of axes matter, not which axes they are. Both halves grow by
increasing cost until they meet. With s elements per target tile and t at the permute, gathers cost
s - t and the permute t: together s, wherever it is. What is minimised is the cost of the moves.

Where tops have the wrong size on both sides one permute is not enough ((6|2) -> (2|6) on 6 x 6,
axes 2 and 3 in dimension 0, 2 in dimension 1). Then moves follow the weak rules, each after a
permute of its own.

A program without permute is a different search, on the axes themselves: each that the target adds
is sliced, and what lies above a wrong axis has to move.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from redistrib.synth.planner.paper.calculus import (
    Gather,
    Move,
    Operation,
    PaperType,
    Permute,
    Slice,
    apply,
)
from redistrib.types.digits import DeviceDigit

MAX_STATES = 50_000  # of the halves; a bound on time
MAX_EXACT = 3000  # of the search without permute: beyond it a permute is accepted

Cost = tuple[int, int]
"""Elements that a device receives, and collectives."""

_Shape = tuple[int, ...]
_Sizes = tuple[tuple[int, ...], ...]
"""Per dimension the sizes of its axes, major first, so that the top is last."""

_Stacks = tuple[tuple[DeviceDigit, ...], ...]
"""Per dimension its axes, major first."""


@dataclass(frozen=True, slots=True)
class _State:
    """A type up to which axes own: sizes in order, or (weak) in any order after a permute."""

    sizes: _Sizes
    weak: bool = False


@dataclass(frozen=True, slots=True)
class _Push:
    """A slice, or a gather backwards: an axis of this size on top of a dimension."""

    dim: int
    size: int


@dataclass(frozen=True, slots=True)
class _Shift:
    """An all_to_all of axes of these sizes, top first; `weak` with a permute before it."""

    source: int
    target: int
    sizes: tuple[int, ...]
    weak: bool = False


_Edge = _Push | _Shift


def synthesise(src: PaperType, dst: PaperType) -> tuple[Operation, ...]:
    """A cheapest program in normal form from one type to another, on one system.

    Least elements received first, then fewest collectives, where consecutive all_to_alls between
    the same dimensions, and gathers of one dimension, count as one. Compared with a search over all
    strong types on small meshes; on large ones MAX_STATES and MAX_EXACT may leave it dearer, never
    wrong.
    """
    if src == dst:
        return ()
    joined, cost = _with_permutes(src, dst)
    return _without_permute(src, dst, cost) or joined


# --- with permutes -----------------------------------------------------------------------------


class _Half:
    """Dijkstra over what is reached from one end by pushes and then shifts."""

    def __init__(self, end: PaperType, *, backward: bool) -> None:
        self.backward = backward
        self.lengths = tuple(dim.size for dim in end.dims)
        start = _State(tuple(tuple(a.size for a in reversed(dim.axes)) for dim in end.dims))
        self.end = start
        self.available = Counter(axis.size for axis in end.replicated)
        self.cost: dict[_State, Cost] = {start: (0, 0)}
        self.parent: dict[_State, tuple[_State, _Edge]] = {}
        self.best: dict[_Shape, tuple[Cost, _State]] = {}
        self.heap: list[tuple[Cost, int, _State]] = [((0, 0), 0, start)]
        self.pushed = 0

    def least(self) -> Cost | None:
        """The cost of the next state; None if there is none."""
        while self.heap and self.cost[self.heap[0][2]] < self.heap[0][0]:
            heapq.heappop(self.heap)
        return self.heap[0][0] if self.heap else None

    def grow(self) -> _Shape:
        """Settle the next state, and give the shape of its tile."""
        cost, _, state = heapq.heappop(self.heap)
        tile = self.tile(state)
        self.best.setdefault(tile, (cost, state))
        for edge, after, more in self._edges(state, tile, moved=cost[0] > 0):
            reached = (cost[0] + more[0], cost[1] + more[1])
            if after not in self.cost or reached < self.cost[after]:
                self.cost[after] = reached
                self.parent[after] = (state, edge)
                self.pushed += 1
                heapq.heappush(self.heap, (reached, self.pushed, after))
        return tile

    def tile(self, state: _State) -> _Shape:
        """The shape of a tile; of a dimension without elements, 1."""
        return tuple(
            max(n // prod(sizes), 1) for n, sizes in zip(self.lengths, state.sizes, strict=True)
        )

    def path(self, state: _State) -> list[_Edge]:
        """The edges from the end to a state."""
        edges = []
        while state in self.parent:
            state, edge = self.parent[state]
            edges.append(edge)
        edges.reverse()
        return edges

    def _edges(
        self, state: _State, tile: _Shape, *, moved: bool
    ) -> Iterator[tuple[_Edge, _State, Cost]]:
        elements = prod(tile)
        dims = range(len(tile))
        if not moved:
            pushed = Counter(s for sizes in state.sizes for s in sizes)
            pushed.subtract(s for sizes in self.end.sizes for s in sizes)
            for size, count in self.available.items():
                for dim in dims:
                    if pushed[size] < count and self.lengths[dim] and tile[dim] % size == 0:
                        first = state.sizes[dim] == self.end.sizes[dim]
                        after = _with(state.sizes, dim, (*state.sizes[dim], size))
                        yield _Push(dim, size), _State(after), (0, self.backward and first)
        for source in dims:
            for target in dims:
                if source != target and self.lengths[target]:
                    yield from self._shifts(state, source, target, tile[target], elements)

    def _shifts(
        self, state: _State, source: int, target: int, room: int, elements: int
    ) -> Iterator[tuple[_Edge, _State, Cost]]:
        owned = state.sizes[source]
        if not state.weak:
            group = 1
            for count in range(1, len(owned) + 1):
                group *= owned[-count]
                if room % group:
                    break
                sizes = tuple(reversed(owned[-count:]))
                after = _with(state.sizes, source, owned[:-count])
                after = _with(after, target, (*state.sizes[target], *sizes))
                cost = elements - elements // group
                yield _Shift(source, target, sizes), _State(after), (cost, 1)
        if self.backward:
            return
        for sizes in _subsets(owned):
            group = prod(sizes)
            if room % group == 0:
                remaining = Counter(owned)
                remaining.subtract(sizes)
                after = _with(state.sizes, source, tuple(sorted(remaining.elements())))
                after = _with(after, target, tuple(sorted((*state.sizes[target], *sizes))))
                cost = elements + elements - elements // group
                yield _Shift(source, target, sizes, True), _State(after, True), (cost, 2)


def _with_permutes(src: PaperType, dst: PaperType) -> tuple[tuple[Operation, ...], Cost]:
    """The cheapest program with a permute where the halves meet, and its cost."""
    ahead, behind = _Half(src, backward=False), _Half(dst, backward=True)
    best: tuple[Cost, _Shape] | None = None
    while best is None or (best[0][0] and ahead.pushed + behind.pushed < MAX_STATES):
        costs = [
            (cost, half.pushed, side)
            for side, half in enumerate((ahead, behind))
            if (cost := half.least()) is not None
        ]
        if not costs or (best is not None and min(costs)[0] >= best[0]):
            break
        half, other = (ahead, behind) if min(costs)[2] == 0 else (behind, ahead)
        shape = half.grow()
        if shape in other.best:
            mine, theirs = half.best[shape][0], other.best[shape][0]
            total = (mine[0] + theirs[0], mine[1] + theirs[1])
            if best is None or total < best[0]:
                best = total, shape
    assert best is not None  # the normal form of the easy program is such a program
    (moves, calls), shape = best
    opening, before = _replay(src, ahead.path(ahead.best[shape][1]), dst)
    closing, after = _replay(dst, behind.path(behind.best[shape][1]), before)
    between = [] if before == after else [Permute(tuple(dim.axes for dim in after.dims))]
    steps = (*opening, *between, *_reversed(closing))
    return steps, (moves + prod(max(n, 1) for n in dst.tile_shape), calls + 1)


def _replay(
    end: PaperType, edges: list[_Edge], other: PaperType
) -> tuple[list[Operation], PaperType]:
    """The steps of a path from an end, on axes, and the type that they lead to.

    A push takes an axis that `other` has in the same dimension, if any, or else anywhere.
    """
    home = {axis: index.dim for axis, index in other.owners.items()}
    steps: list[Operation] = []
    t = end

    def take(step: Operation) -> None:
        nonlocal t
        steps.append(step)
        t = apply(t, step)

    for edge in edges:
        match edge:
            case _Push(dim, size):
                fits = [axis for axis in t.replicated if axis.size == size]
                fits.sort(key=lambda axis: (home.get(axis) != dim, axis not in home))
                take(Slice(dim, fits[0]))
            case _Shift(source, target, sizes, weak):
                if weak:
                    take(Permute(_to_the_top(t, source, sizes)))
                for _ in sizes:
                    take(Move(source, target, t.dims[source].axes[0]))
    return steps, t


def _to_the_top(
    t: PaperType, dim: int, sizes: tuple[int, ...]
) -> tuple[tuple[DeviceDigit, ...], ...]:
    """The axes of a type with some of these sizes on top of a dimension."""
    below = list(t.dims[dim].axes)
    top = []
    for size in sizes:
        axis = next(axis for axis in below if axis.size == size)
        below.remove(axis)
        top.append(axis)
    return tuple(d.axes if number != dim else (*top, *below) for number, d in enumerate(t.dims))


def _reversed(steps: list[Operation]) -> Iterator[Operation]:
    """The steps back: gathers for slices, and all_to_alls the other way."""
    for step in reversed(steps):
        match step:
            case Slice(dim, axis):
                yield Gather(dim, axis)
            case Move(source, target, axis):
                yield Move(target, source, axis)
            case _:
                raise AssertionError("the half from the target slices and moves")


def _with(sizes: _Sizes, dim: int, new: tuple[int, ...]) -> _Sizes:
    return (*sizes[:dim], new, *sizes[dim + 1 :])


def _subsets(sizes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The multisets of one or more of these sizes, in order."""
    subsets: set[tuple[int, ...]] = {()}
    for size in sorted(sizes):
        subsets |= {(*chosen, size) for chosen in subsets}
    return sorted(subsets - {()})


# --- without permute ---------------------------------------------------------------------------


class _Shifting:
    """The search without permutes, on the stacks of axes of the dimensions.

    Only axes that the target adds are sliced, all of them first; then all_to_alls move tops of
    stacks, until each stack begins as that of the target does and the rest can be gathered.
    """

    def __init__(self, src: PaperType, dst: PaperType) -> None:
        self.goal = tuple(tuple(reversed(dim.axes)) for dim in dst.dims)
        self.start = tuple(tuple(reversed(dim.axes)) for dim in src.dims)
        self.home = {axis for stack in self.goal for axis in stack}
        self.added = [
            axis for stack in self.goal for axis in stack if not _anywhere(axis, self.start)
        ]
        self.lengths = [dim.size for dim in src.dims]
        tile = prod(max(n, 1) for n in src.tile_shape)
        self.elements = tile // prod(axis.size for axis in self.added)
        # What the gathers receive.
        self.spread = prod(max(n, 1) for n in dst.tile_shape) - self.elements

    def lower_bound(self, stacks: _Stacks) -> int:
        """Elements that all_to_alls have yet to bring: at least one of all that has to leave."""
        groups = [self.leaving(dim, stack) for dim, stack in enumerate(stacks)]
        return sum(self.elements + -self.elements // group for group in groups)

    def leaving(self, dim: int, stack: tuple[DeviceDigit, ...]) -> int:
        """The product of the axes that have to leave a dimension."""
        goal = self.goal[dim]
        kept = 0
        while kept < min(len(stack), len(goal)) and stack[kept] == goal[kept]:
            kept += 1
        above = stack[kept:]
        if kept == len(goal):
            above = tuple(axis for axis in above if axis in self.home)
        return prod(axis.size for axis in above)

    def done(self, stacks: _Stacks) -> bool:
        """Whether gathers alone lead to the target."""
        return all(
            stack[: len(wanted)] == wanted
            and not any(axis in self.home for axis in stack[len(wanted) :])
            for stack, wanted in zip(stacks, self.goal, strict=True)
        )

    def gathers(self, stacks: _Stacks) -> list[Operation]:
        """What is above the stacks of the target, gathered from the top."""
        return [
            Gather(dim, axis)
            for dim, stack in enumerate(stacks)
            for axis in reversed(stack[len(self.goal[dim]) :])
        ]

    def edges(self, stacks: _Stacks) -> Iterator[tuple[tuple[Operation, ...], _Stacks, Cost]]:
        """Operations that may come next, where they lead, and what they cost."""
        unsliced = [axis for axis in self.added if not _anywhere(axis, stacks)]
        dims = [dim for dim in range(len(stacks)) if self.lengths[dim]]
        for axis in unsliced:
            for dim in dims:
                if self._room(stacks, dim) % axis.size == 0:
                    after = (*stacks[:dim], (*stacks[dim], axis), *stacks[dim + 1 :])
                    yield (Slice(dim, axis),), after, (0, 0)
        if unsliced:
            return
        for source in range(len(stacks)):
            for target in dims:
                if source != target:
                    yield from self._shifts(stacks, source, target)

    def _shifts(
        self, stacks: _Stacks, source: int, target: int
    ) -> Iterator[tuple[tuple[Operation, ...], _Stacks, Cost]]:
        shifted, moved, group = list(stacks), [], 1
        while shifted[source]:
            axis = shifted[source][-1]
            group *= axis.size
            if self._room(stacks, target) % group:
                break
            moved.append(Move(source, target, axis))
            shifted[source], shifted[target] = shifted[source][:-1], (*shifted[target], axis)
            yield tuple(moved), tuple(shifted), (self.elements - self.elements // group, 1)

    def _room(self, stacks: _Stacks, dim: int) -> int:
        return self.lengths[dim] // prod(axis.size for axis in stacks[dim])


def _anywhere(axis: DeviceDigit, stacks: _Stacks) -> bool:
    return any(axis in stack for stack in stacks)


def _without_permute(src: PaperType, dst: PaperType, bound: Cost) -> tuple[Operation, ...] | None:
    """The cheapest program without permute, if it is cheaper than `bound` and soon found.

    A* with, per dimension, one all_to_all of all that has to leave it.
    """
    search = _Shifting(src, dst)
    cost: dict[_Stacks, Cost] = {search.start: (0, 0)}
    parent: dict[_Stacks, tuple[_Stacks, tuple[Operation, ...]]] = {}
    heap: list[tuple[Cost, int, _Stacks]] = [
        ((search.lower_bound(search.start), 0), 0, search.start)
    ]
    settled: set[_Stacks] = set()
    pushed = 0
    while heap and len(settled) < MAX_EXACT:
        _, _, stacks = heapq.heappop(heap)
        if stacks in settled:
            continue
        settled.add(stacks)
        if search.done(stacks):
            steps = search.gathers(stacks)
            while stacks in parent:
                stacks, before = parent[stacks]
                steps[:0] = before
            return tuple(steps)
        for step, after, more in search.edges(stacks):
            reached = (cost[stacks][0] + more[0], cost[stacks][1] + more[1])
            estimate = (reached[0] + search.lower_bound(after), reached[1])
            if (estimate[0] + search.spread, estimate[1]) < bound and (
                after not in cost or reached < cost[after]
            ):
                cost[after] = reached
                parent[after] = (stacks, step)
                pushed += 1
                heapq.heappush(heap, (estimate, -pushed, after))
    return None
