"""Exact search: a shortest path over whole types, by every collective but the exchange.

Example: x=2,y=2,z=3, `i64[12{y}, 4] -> i64[12{z}, 4{x,y}]`. The digits of 12 do not match: y owns
its major 2, z is to own its major 3. Every sequence of slices, gathers, all_to_alls and permutes
receives 48 bytes or takes larger tiles. The search finds

    dynamic_slice x        i64[12{y}, 4{x}]
    sharded_to_partial y   i64[12, 4{x}] sum{y}     each device holds its part of 12 and zeros
    dynamic_slice z        i64[12{z}, 4{x}] sum{y}
    reduce_scatter y       i64[12{z}, 4{x,y}]       32 bytes, the lower bound

Such a detour through a sum is taken in integers only, where adding zeros changes no bit. What a sum
costs is what moves, as in every price: a profile has no rate of computation.

It is A* over the types of `type_graph`, with the bytes that a device must still receive as the
estimate; exponential, so there is a bound on the number of types, and one on the collectives that
are looked at: on x=4,y=8 `f32[12,48,4,1] min{x,y} -> f32[12,48{x},4,1]` has no more types than
that, and six million collectives between them.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from math import inf, prod
from typing import NamedTuple

from redistrib.errors import InfeasibleError, RedistribError
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.profile import Profile
from redistrib.synth.plan.tables import owned_runs
from redistrib.synth.planner.prime_digits import FREE, Places, State, split_state
from redistrib.synth.planner.type_graph import Edge, TypeGraph
from redistrib.synth.planner.work import Work
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit

MAX_TYPES = 100_000
MAX_COLLECTIVES = 600_000
"""Looked at by a search that is to prove a shortest path: four seconds."""


class _Node(NamedTuple):
    """A state, and the kind and system of the step that it is within."""

    state: State
    within: tuple[str, int] | None


class ExactSearch:
    """The cheapest sequence from one type to another on one mesh.

    `limit` is in elements per device and holds for every type but the two ends. With `bound`, in
    seconds, only a sequence cheaper than that is looked for.
    """

    most_edges: float = inf
    looked_at = 0
    steps_of_an_edge = 0.68
    """Of work. So 16,000 edges are looked at; pairs with sums on 2x2x2 take up to 14,707."""

    def __init__(
        self, src: ArrayType, dst: ArrayType, limit: int, profile: Profile, bound: float = inf
    ) -> None:
        self.src, self.dst, self.limit, self.bound = src, dst, limit, bound
        self.graph = self._graph(profile)
        self.start, self.goal = self.graph.state(src), self.graph.state(dst)
        # Asked once per edge, so not worked out again.
        self._size, self._wanted, self._itemsize = src.size, dst.tile_size, src.itemsize
        self._goal_owners = dst.placements
        fastest = profile.fastest(src.mesh)
        self.latency, self._bandwidth = fastest.latency, fastest.bandwidth
        # Per system, digit and place: the size of the digit, and its overlap factor there.
        self._factors = [
            [
                (d.size, [self._overlap_factor(d, index) for index in self.graph.places.indices])
                for d in system
            ]
            for system in self.graph.systems
        ]
        systems = range(len(self.graph.systems))
        self._goals = [self.graph.places_of(self.goal, number) for number in systems]
        self._goal_runs = owned_runs(self._goal_owners)
        self._goal_on = [
            (system, want)
            for system in self.graph.systems
            if (want := split_state(self._goal_owners, system)) is not None
        ]

    def _graph(self, profile: Profile) -> TypeGraph:
        return TypeGraph(self.src, reductions_between(self.src, self.dst), profile)

    def run(self) -> list[Collective] | None:
        """The steps of the cheapest sequence; None if there is none within limit and bound."""
        graph = self.graph
        start, goal = _Node(self.start, None), _Node(self.goal, None)
        distances = {start: 0.0}
        parents: dict[_Node, tuple[_Node, Edge]] = {}
        heap: list[tuple[float, int, float, _Node]] = [(0.0, 0, 0.0, start)]
        pushed, bound = 0, self.bound
        while heap and self.looked_at < self.most_edges:
            _, _, distance, node = heapq.heappop(heap)
            if distance > distances[node] or node == goal:
                continue
            tile = graph.tile(node.state)
            if distance + 2 * self.latency >= bound and not self._one_left(node.state, tile):
                continue
            for edge in graph.edges(node.state):
                self.looked_at += 1
                if self.looked_at > self.most_edges:
                    break
                if node.within is not None and node.within != (edge.kind, edge.system):
                    continue
                reached = distance + edge.seconds
                least = self.lower_bound(edge.system, edge.places)
                if reached + least >= bound:
                    continue
                after = self._after(node, edge)
                if after is not None and reached < distances.get(after, inf):
                    distances[after] = reached
                    parents[after] = (node, edge)
                    if after == goal:
                        bound = reached
                        continue
                    pushed += 1
                    order = reached + self.guess(least, edge.system, edge.places)
                    heapq.heappush(heap, (order, pushed, reached, after))
        return self._steps(parents, goal) if goal in distances else None

    @property
    def cut(self) -> bool:
        """Whether the search may have ended for its bound on collectives, and proves nothing."""
        return self.looked_at >= self.most_edges

    def run_within(self, work: Work, most_edges: float = inf) -> list[Collective] | None:
        """`run` while work is left; then the cheapest sequence so far, maybe no shortest path."""
        self.most_edges = min(most_edges, int(work.left / self.steps_of_an_edge))
        steps = self.run()
        work.left -= int(self.looked_at * self.steps_of_an_edge)
        return steps

    def guess(self, least: float, number: int, places: Places) -> float:
        """About the seconds from here to the target: what is least is looked at first.

        A latency for each kind of step that is left, and the bytes to receive: `least`.
        """
        goal = self._goals[number]
        kinds = (
            1
            if goal is None
            else len(
                {
                    "reduce" if place < FREE else "gather" if end == FREE else "move"
                    for place, end in zip(places, goal, strict=True)
                    if place not in (end, FREE) and (place < FREE or end >= FREE)
                }
            )
        )
        return least + self.latency * max(0, kinds - (least > 0))

    def _after(self, node: _Node, edge: Edge) -> _Node | None:
        """Where an edge leads to; None if no type between the ends may have such a tile.

        Slices of a source above the limit, and digits that become partial on the way to a target
        above it, are one step in the end; within it the digits change one by one.
        """
        after = self.graph.reached(edge)
        if after == self.goal or self.graph.tile(after) <= self.limit:
            return _Node(after, None)
        slicing = edge.kind == "slice" and (node.within is not None or node.state == self.start)
        if slicing or edge.kind == "sharded_to_partial":
            return _Node(after, (edge.kind, edge.system))
        return None

    def least_tile(self) -> int | None:
        """The least `limit` at which there is a sequence: its largest tile between the ends.

        None where that takes too many collectives to find out.
        """
        graph, pushed = self.graph, 0
        self.looked_at = 0
        seen: set[State] = set()
        heap: list[tuple[int, int, State]] = [(0, 0, self.start)]
        while not self.cut:  # gathering all and slicing all leads from each type to each other
            largest, _, state = heapq.heappop(heap)
            if state == self.goal:
                return largest
            if state in seen:
                continue
            seen.add(state)
            if state != self.start:
                largest = max(largest, graph.tile(state))
            for edge in graph.edges(state):
                self.looked_at += 1
                after = graph.reached(edge)
                if after not in seen:
                    pushed += 1
                    heapq.heappush(heap, (largest, pushed, after))
        return None

    def _steps(self, parents: dict[_Node, tuple[_Node, Edge]], node: _Node) -> list[Collective]:
        path: list[tuple[State, Edge]] = []
        while node in parents:
            before, edge = parents[node]
            path.append((node.state, edge))
            node = before
        return self.graph.steps(path[::-1], self.start)

    def _overlap_factor(self, device: DeviceDigit, index: IndexDigit) -> int:
        """By how much an owner reduces what every device has of its target tile; 0: to nothing."""
        touched = False
        for other, owned in self._goal_owners:
            if owned.dim == index.dim and index.pre < owned.end and owned.pre < index.end:
                touched = True
                inside = index.pre % owned.pre == 0 and owned.end % index.end == 0
                same = DeviceDigit(other.axis, other.pre * (index.pre // owned.pre), index.size)
                if inside and same != device and _disjoint(same, device):
                    return 0
        return 1 if touched else index.size

    def lower_bound(self, number: int, places: Places) -> float:
        """A lower bound on the seconds from here to the target.

        Of a sum each device must receive something of every element that it wants; of a partial
        target there is no device that must receive anything.
        """
        if self.dst.partial:
            return 0.0
        overlap = self._wanted
        tile = self._size
        for (size, factors), place in zip(self._factors[number], places, strict=True):
            if place < FREE:
                overlap = 0
                break
            if place != FREE:
                factor = factors[place]
                overlap = overlap // factor if factor else 0
                tile //= size
        missing = self._wanted - (overlap if overlap < tile else tile)
        if not missing:
            return 0.0
        return self.latency + missing * self._itemsize / self._bandwidth

    def _one_left(self, state: State, tile: int) -> bool:
        """Whether one communicating step, with others around it, may lead to the target.

        Where a reduction can be that step, so can an all_reduce or a gather of the same digits.
        """
        if self.dst.partial:
            return True
        owners = [placement for placement in state if placement[1].dim >= 0]
        if len(owners) == len(state) and all(
            any(_within(run, goal_run) for goal_run in self._goal_runs)
            for run in owned_runs(sorted(owners))
        ):
            return True  # a permute
        shared = False
        for system, want in self._goal_on:
            owned, addends = split_state(owners, system), split_state(state - {*owners}, system)
            if owned is None or addends is None:
                continue
            shared = True
            if self._one_step(owned, want, set(addends), tile):
                return True
        return not shared

    def _one_step(
        self,
        owned: Mapping[DeviceDigit, IndexDigit],
        want: Mapping[DeviceDigit, IndexDigit],
        addends: Collection[DeviceDigit],
        tile: int,
    ) -> bool:
        """Whether an all_to_all, a gather or a reduction may lead to what a system wants."""
        number = self.graph.places.number
        if any(index not in number for index in (*owned.values(), *want.values())):
            return True
        local = self.graph.places.beside_all(number[index] for index in owned.values())
        moved = {d: want.get(d) for d in owned if want.get(d) != owned[d]}
        if (
            not addends
            and None not in moved.values()
            and all(local >> number[index] & 1 for index in moved.values() if index)
        ):
            return True  # an all_to_all
        sliced = prod(
            d.size
            for d, i in want.items()
            if d not in owned and d not in addends and local >> number[i] & 1
        )
        # a gather or a reduction
        return tile // sliced * prod(d.size for d in moved) <= max(self.limit, self._wanted)


def exact_size(src: ArrayType, dst: ArrayType) -> int:
    """At least the number of types that an exact search between two types may visit."""
    return TypeGraph.count(src, len(reductions_between(src, dst)))


def exact_steps(
    src: ArrayType,
    dst: ArrayType,
    limit: int,
    profile: Profile,
    bound: float = inf,
    work: Work | None = None,
) -> list[Collective] | None:
    """The cheapest sequence through tiles of at most `limit` elements, if it takes below `bound`.

    With `work` it may be no shortest path, and None says that none was found. Without, raises
    InfeasibleError if there is none at any price, RedistribError if the search is too large.
    """
    types = exact_size(src, dst)
    if types > MAX_TYPES:
        raise RedistribError(
            f"an exact search is among at most {MAX_TYPES} types; here there may be {types}",
            types=types,
            most=MAX_TYPES,
        )
    search = ExactSearch(src, dst, limit, profile, bound)
    if work is not None:
        return search.run_within(work)
    search.most_edges = MAX_COLLECTIVES
    steps = search.run()
    none = steps is None and bound == inf and not search.cut
    least = search.least_tile() if none else None
    if search.cut:
        raise RedistribError(
            f"an exact search looks at {MAX_COLLECTIVES} collectives at most, some seconds, and "
            f"this one needs more; auto, collectives and direct answer at once",
            most=MAX_COLLECTIVES,
        )
    if least is not None:
        raise InfeasibleError(
            f"no sequence of collectives leads there through tiles of at most "
            f"{limit * src.itemsize} bytes per device; with {least * src.itemsize} there is one",
            memory_limit=limit * src.itemsize,
            least_bytes=least * src.itemsize,
        )
    return steps


def reductions_between(src: ArrayType, dst: ArrayType) -> tuple[str, ...]:
    """Under which reductions a type on the way may be partial."""
    if not src.size:
        return ()
    reductions = dict.fromkeys(t.reduction for t in (src, dst) if t.reduction is not None)
    if reductions:
        return tuple(reductions)
    return ("sum",) if src.dtype[0] in "iu" else ()


def _within(run: tuple[int, int, int], outer: tuple[int, int, int]) -> bool:
    (dim, lo, hi), (other, start, end) = run, outer
    return dim == other and start <= lo and hi <= end and lo % start == 0 and end % hi == 0


def _disjoint(a: DeviceDigit, b: DeviceDigit) -> bool:
    return a.axis != b.axis or a.end <= b.pre or b.end <= a.pre
