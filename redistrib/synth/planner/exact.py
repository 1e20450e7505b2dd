"""Exact search: a shortest path over whole types with slice, gather, all_to_all and permute.

The states are all types that a pair can pass through when every axis is cut into primes; a permute
joins any two types with the same tiles. Exponential, for small meshes: the oracle of the planner.
A* with the bytes that a device must still receive as the estimate.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import combinations, compress, islice
from math import inf, prod
from operator import ne

from redistrib.errors import InfeasibleError, RedistribError
from redistrib.synth.plan.collectives import (
    AllGather,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Move,
)
from redistrib.synth.plan.profile import Profile
from redistrib.synth.plan.tables import owned_runs, permute_table
from redistrib.synth.planner.prime_digits import (
    FREE,
    Places,
    PrimePlaces,
    State,
    merge_state,
    prime_systems,
    split_state,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, divisors

MAX_STATES = 20_000
MAX_EDGES = 2_000_000  # of a search among more types than MAX_STATES: tens of seconds


class ExactSearch:
    """The cheapest sequence from one type to another, both without partial axes.

    `limit` is in elements per device and holds for every type but the two ends. With `bound`, in
    seconds, only a sequence cheaper than that is looked for.
    """

    def __init__(
        self, src: ArrayType, dst: ArrayType, limit: int, profile: Profile, bound: float = inf
    ) -> None:
        self.src, self.dst, self.limit, self.profile = src, dst, limit, profile
        self.bound = bound
        self.systems = list(prime_systems(src.mesh))
        self.goal: State = frozenset(dst.placements)
        # Asked once per edge, so not worked out again.
        self._size, self._wanted, self._itemsize = src.size, dst.tile_size, src.itemsize
        links = [profile.link, *(link for _, link in profile.axes)]
        self._latency = min(link.latency for link in links)
        self._bandwidth = max(link.bandwidth for link in links)
        self._states: dict[tuple[int, Places], State] = {}
        self._permuted: dict[tuple[tuple[int, int, int], ...], list[tuple[int, Places]]] = {}
        self._parent: dict[State, tuple[State, str]] = {}
        self._distance: dict[State, float] = {}

    def run(self) -> list[Collective] | None:
        """The steps of the cheapest sequence; None if there is none within limit and bound.

        Raises RedistribError where the search would pass MAX_STATES types or MAX_EDGES steps.
        """
        sizes = {d.size for system in self.systems for d in system}
        self._places = PrimePlaces(self.src.shape, sizes)
        # Per system, digit and place: the size of the digit, and its overlap factor there.
        self._factors = [
            [
                (d.size, [self._overlap_factor(d, index) for index in self._places.indices])
                for d in system
            ]
            for system in self.systems
        ]
        self._goal_runs = owned_runs(self.dst.placements)
        self._goal_on = [
            (system, want)
            for system in self.systems
            if (want := split_state(self.goal, system)) is not None
        ]
        start: State = frozenset(self.src.placements)
        self._distance[start] = 0.0
        heap: list[tuple[float, int, float, State]] = [(0.0, 0, 0.0, start)]
        pushed = expanded = edges = 0
        most_edges = inf if self.size <= MAX_STATES else MAX_EDGES
        while heap:
            _, _, distance, state = heapq.heappop(heap)
            if state == self.goal:
                return self._steps(start)
            if distance > self._distance[state]:
                continue
            expanded += 1
            if expanded > MAX_STATES:
                raise RedistribError(
                    f"an exact search visits at most {MAX_STATES} types; there are more between "
                    f"{self.src} and {self.dst}"
                )
            tile = self._tile(state)
            if tile > self.limit and distance > 0:
                continue  # only the target may exceed the limit, so nothing follows
            if distance + 2 * self._latency >= self.bound and not self._one_left(state, tile):
                continue
            for number, places, kind, cost in self._edges(state, tile):
                edges += 1
                if edges > most_edges:
                    raise RedistribError(
                        f"an exact search tries at most {MAX_EDGES} collectives; there are more "
                        f"between {self.src} and {self.dst}"
                    )
                reached = distance + cost
                estimate = reached + self._rest(number, places)
                if estimate >= self.bound:
                    continue
                after = self._state(number, places)
                if reached < self._distance.get(after, inf):
                    self._distance[after] = reached
                    self._parent[after] = (state, kind)
                    pushed += 1
                    heapq.heappush(heap, (estimate, pushed, reached, after))
        return None

    @property
    def size(self) -> int:
        """At least the number of types between the two, counting overlapping placements too."""
        choices = {
            size: 1 + sum(len(divisors(n // size)) for n in self.src.shape if n and n % size == 0)
            for size in {d.size for d in self.systems[0]}
        }
        return len(self.systems) * prod(choices[d.size] for d in self.systems[0])

    def _overlap_factor(self, device: DeviceDigit, index: IndexDigit) -> int:
        """By how much an owner reduces what every device has of its target tile; 0: to nothing."""
        touched = False
        for other, owned in self.dst.placements:
            if owned.dim == index.dim and index.pre < owned.end and owned.pre < index.end:
                touched = True
                inside = index.pre % owned.pre == 0 and owned.end % index.end == 0
                same = DeviceDigit(other.axis, other.pre * (index.pre // owned.pre), index.size)
                if inside and same != device and _disjoint(same, device):
                    return 0
        return 1 if touched else index.size

    def _rest(self, number: int, places: Places) -> float:
        """A lower bound on the seconds from here to the target."""
        overlap = self._wanted
        tile = self._size
        for (size, factors), at in zip(self._factors[number], places, strict=True):
            if at != FREE:
                factor = factors[at]
                overlap = overlap // factor if factor else 0
                tile //= size
        missing = self._wanted - (overlap if overlap < tile else tile)
        if not missing:
            return 0.0
        return self._latency + missing * self._itemsize / self._bandwidth

    def _one_left(self, state: State, tile: int) -> bool:
        """Whether one communicating step, with slices around it, may lead to the target."""
        if all(
            any(_within(run, whole) for whole in self._goal_runs)
            for run in owned_runs(sorted(state))
        ):
            return True  # a permute
        number = self._places.number
        shared = False
        for system, want in self._goal_on:
            owned = split_state(state, system)
            if owned is None:
                continue
            shared = True
            local = self._places.beside_all(number[index] for index in owned.values())
            moved = {d: want.get(d) for d in owned if want.get(d) != owned[d]}
            if None not in moved.values() and all(
                local >> number[index] & 1 for index in moved.values() if index
            ):
                return True  # an all_to_all
            sliced = prod(
                d.size for d, i in want.items() if d not in owned and local >> number[i] & 1
            )
            if tile // sliced * prod(d.size for d in moved) <= max(self.limit, self._wanted):
                return True  # a gather
        return not shared

    def _state(self, number: int, places: Places) -> State:
        key = (number, places)
        if key not in self._states:
            self._states[key] = merge_state(self._owned(number, places))
        return self._states[key]

    def _owned(self, number: int, places: Places) -> dict[DeviceDigit, IndexDigit]:
        system = self.systems[number]
        return {
            d: self._places.indices[at] for d, at in zip(system, places, strict=True) if at != FREE
        }

    def _tile(self, state: State) -> int:
        return self._size // prod(device.size for device, _ in state)

    def _price(self, devices: list[DeviceDigit], received: int, collective: str) -> float:
        return self.profile.seconds(devices, received * self._itemsize, 1, collective)

    def _edges(self, state: State, tile: int) -> Iterator[tuple[int, Places, str, float]]:
        """Every type one collective away, on some system, with the seconds of that collective."""
        for number, system in enumerate(self.systems):
            owned = split_state(state, system)
            if owned is None:
                continue
            places = tuple(self._places.number[owned[d]] if d in owned else FREE for d in system)
            if self._states.setdefault((number, places), state) != state:
                continue
            beside = self._places.beside_all(places)
            yield from self._slices(number, places, beside)
            yield from self._gathers(number, places, tile)
            yield from self._all_to_alls(number, places, beside, tile)
        yield from self._permutes(state, tile)

    def _slices(
        self, number: int, places: Places, beside: int
    ) -> Iterator[tuple[int, Places, str, float]]:
        for k, device in enumerate(self.systems[number]):
            if places[k] == FREE:
                for at in self._places.options(beside, device.size):
                    yield number, (*places[:k], at, *places[k + 1 :]), "slice", 0.0

    def _gathers(
        self, number: int, places: Places, tile: int
    ) -> Iterator[tuple[int, Places, str, float]]:
        owners = [k for k, at in enumerate(places) if at != FREE]
        system = self.systems[number]
        for count in range(1, len(owners) + 1):
            for group in combinations(owners, count):
                devices = [system[k] for k in group]
                received = tile * (prod(d.size for d in devices) - 1)
                after = tuple(FREE if k in group else at for k, at in enumerate(places))
                yield number, after, "gather", self._price(devices, received, AllGather.collective)

    def _all_to_alls(
        self, number: int, places: Places, beside: int, tile: int
    ) -> Iterator[tuple[int, Places, str, float]]:
        system = self.systems[number]

        def assign(k: int, chosen: Places, allowed: int) -> Iterator[Places]:
            """Each owner stays or moves to a local index digit beside all chosen so far."""
            if k == len(places):
                yield chosen
                return
            if places[k] == FREE:
                yield from assign(k + 1, (*chosen, FREE), allowed)
                return
            options = [places[k]] if allowed >> places[k] & 1 else []
            options += self._places.options(allowed & beside, system[k].size)
            for at in options:
                yield from assign(k + 1, (*chosen, at), allowed & self._places.beside[at])

        prices: dict[tuple[bool, ...], float] = {}
        for after in assign(0, (), self._places.everywhere):
            if after != places:
                moved = tuple(map(ne, places, after))
                if moved not in prices:
                    devices = list(compress(system, moved))
                    group = prod(device.size for device in devices)
                    received = tile // group * (group - 1)
                    prices[moved] = self._price(devices, received, AllToAll.collective)
                yield number, after, "all_to_all", prices[moved]

    def _permutes(self, state: State, tile: int) -> Iterator[tuple[int, Places, str, float]]:
        """All other types with the same tiles: any digits over the same owned runs."""
        runs = tuple(owned_runs(sorted(state)))
        if runs not in self._permuted:
            most = MAX_EDGES + 2  # beside the state itself more than are ever tried
            self._permuted[runs] = [
                (number, tuple(places.get(d, FREE) for d in system))
                for number, system in enumerate(self.systems)
                for places in islice(self._fill(list(runs), frozenset(system)), most)
            ]
        for number, places in self._permuted[runs]:
            after = self._state(number, places)
            if after != state:
                moved = sorted({d for d, _ in after ^ state})
                cost = self._price(moved, tile, CollectivePermute.collective)
                yield number, places, "permute", cost

    def _fill(
        self, runs: list[tuple[int, int, int]], free: frozenset[DeviceDigit]
    ) -> Iterator[dict[DeviceDigit, int]]:
        """All ways to own exactly these runs by free digits."""
        if not runs:
            yield {}
            return
        (dim, lo, hi), rest = runs[0], runs[1:]
        for device in sorted(free):
            if (hi // lo) % device.size == 0:
                index = IndexDigit(dim, lo, device.size)
                left = [(dim, index.end, hi), *rest] if index.end < hi else rest
                for placed in self._fill(left, free - {device}):
                    yield {device: self._places.number[index], **placed}

    def _steps(self, start: State) -> list[Collective]:
        path: list[tuple[State, str]] = []
        state = self.goal
        while state != start:
            before, kind = self._parent[state]
            path.append((state, kind))
            state = before
        path.reverse()
        steps = []
        before = start
        for at, (state, kind) in enumerate(path):
            if kind == "slice" and at + 1 < len(path) and path[at + 1][1] == "slice":
                continue  # slices one after the other are one slice
            steps.append(self._step(before, state, kind))
            before = state
        return steps

    def _step(self, before: State, after: State, kind: str) -> Collective:
        if kind == "permute":
            return CollectivePermute((), permute_table(self._type(before), self._type(after)))
        for system in self.systems:
            old, new = split_state(before, system), split_state(after, system)
            if old is not None and new is not None:
                break
        else:
            raise AssertionError("an edge lies on one system")
        match kind:
            case "slice":
                return DynamicSlice(tuple((d, i) for d, i in new.items() if d not in old))
            case "gather":
                return AllGather(tuple((d, i) for d, i in old.items() if d not in new))
            case _:
                return AllToAll(tuple(Move(d, i, new[d]) for d, i in old.items() if new[d] != i))

    def _type(self, state: State) -> ArrayType:
        return self.src.replace(placements=state, partial=())


def exact_steps(src: ArrayType, dst: ArrayType, limit: int, profile: Profile) -> list[Collective]:
    """The cheapest sequence through tiles of at most `limit` elements.

    Raises InfeasibleError if there is none, RedistribError if the search is too large.
    """
    steps = ExactSearch(src, dst, limit, profile).run()
    if steps is None:
        raise InfeasibleError(
            f"no sequence of collectives leads from {src} to {dst} through tiles of at most "
            f"{limit * dst.itemsize} bytes; a gather of all needs {dst.size * dst.itemsize}",
            memory_limit=limit * dst.itemsize,
            least_bytes=dst.size * dst.itemsize,
        )
    return steps


def _within(run: tuple[int, int, int], whole: tuple[int, int, int]) -> bool:
    (dim, lo, hi), (other, start, end) = run, whole
    return dim == other and start <= lo and hi <= end and lo % start == 0 and end % hi == 0


def _disjoint(a: DeviceDigit, b: DeviceDigit) -> bool:
    return a.axis != b.axis or a.end <= b.pre or b.end <= a.pre
