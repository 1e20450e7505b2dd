"""All types that an array can have on the way, and the collectives that join them.

Example: x=2, y=2, `i8[4{x}, 4]`. Each axis is one prime digit, that is free, partial, or owns one
of the index digits 0:(1)2, 0:(2)2, 1:(1)2, 1:(2)2: at most 6 * 6 types. The `edges` of this
type has, among others, a gather of x to `i8[4, 4]`, which receives 8 elements; an all_to_all of x
to `i8[4, 4{x}]`, 4; a permute to `i8[4{y}, 4]`, 8; a sharded_to_partial to `i8[4, 4] sum{x}`, none.

A digit of a partial sum is written as the owner of a digit of a dimension that no array has, one
for each axis and reduction. Every collective is an edge but the exchange, which leads from any type
to any other: it is the strategy `direct`. Steps without communication change one digit at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, compress, islice, zip_longest
from math import factorial, prod
from operator import ne
from typing import NamedTuple

from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Move,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.profile import Profile
from redistrib.synth.plan.tables import owned_runs, permute_table
from redistrib.synth.planner.prime_digits import (
    FREE,
    Places,
    PrimePlaces,
    State,
    merge_state,
    prime_places,
    prime_systems,
    split_state,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, primes

MAX_PERMUTES = 200
"""From one type, where only some index digits are looked at."""
SUM = -2
"""In the places of a state: partial under the first reduction; one less is the second."""


class Edge(NamedTuple):
    """One collective: the system and places of the type after it, its kind, and its seconds."""

    system: int
    places: Places
    kind: str
    seconds: float


class TypeGraph:
    """The types of one array on one mesh that are partial under `reductions` at most.

    With `systems` and `indices`, only those that are written with these digits.
    """

    def __init__(
        self,
        like: ArrayType,
        reductions: Sequence[str],
        profile: Profile,
        systems: Sequence[tuple[DeviceDigit, ...]] | None = None,
        indices: Sequence[IndexDigit] | None = None,
    ) -> None:
        self.like, self.reductions, self.profile = like, tuple(reductions), profile
        self.systems = list(prime_systems(like.mesh)) if systems is None else systems
        self._axis = {name: number for number, (name, _) in enumerate(like.mesh.axes)}
        sizes = {d.size for d in self.systems[0]}
        self.places = PrimePlaces(prime_places(like.shape, sizes) if indices is None else indices)
        self._most_permutes = None if indices is None else MAX_PERMUTES
        self._elements, self._itemsize = like.size, like.itemsize
        self._states: dict[tuple[int, Places], State] = {}
        self._speeds: dict[object, tuple[float, float]] = {}
        self._permuted: dict[object, list[tuple[int, Places]]] = {}

    @staticmethod
    def count(like: ArrayType, reductions: int) -> int:
        """At least the number of types, counting overlapping index digits too."""
        total = 1
        for _, axis in like.mesh.axes:
            sizes = Counter(primes(axis))
            total *= factorial(sizes.total()) // prod(map(factorial, sizes.values()))
            for size, count in sizes.items():
                owned = sum(
                    prod(times + 1 for times in Counter(primes(n // size)).values())
                    for n in like.shape
                    if n and n % size == 0
                )
                total *= (1 + reductions + owned) ** count
        return total

    # --- types and states

    def state(self, t: ArrayType) -> State:
        """The state of a type."""
        owned = dict(t.placements)
        if t.partial:
            role = SUM - self.reductions.index(t.reduction or "")
            owned |= {digit: self._addend(digit, role) for digit in t.partial}
        return merge_state(owned)

    def type(self, state: State) -> ArrayType:
        """The type of a state."""
        partial = [(device, index) for device, index in state if index.dim < 0]
        reduction = self.reductions[self._role(partial[0][1]) - SUM] if partial else None
        return self.like.replace(
            placements=[placement for placement in state if placement[1].dim >= 0],
            partial=[device for device, _ in partial],
            reduction=reduction,
        )

    def _addend(self, device: DeviceDigit, role: int) -> IndexDigit:
        """What a partial digit owns: a digit of a dimension that no array has."""
        dim = -1 - self._axis[device.axis] - len(self._axis) * (SUM - role)
        return IndexDigit(dim, device.pre, device.size)

    def _role(self, index: IndexDigit) -> int:
        return SUM - (-1 - index.dim) // len(self._axis)

    def tile(self, state: State) -> int:
        """Elements that a device holds."""
        return self._elements // prod([device.size for device, index in state if index.dim >= 0])

    def reached(self, edge: Edge) -> State:
        """The state that an edge leads to."""
        return self._state(edge.system, edge.places)

    def _state(self, number: int, places: Places) -> State:
        key = (number, places)
        if key not in self._states:
            owned = {
                d: self._addend(d, place) if place < FREE else self.places.indices[place]
                for d, place in zip(self.systems[number], places, strict=True)
                if place != FREE
            }
            self._states[key] = merge_state(owned)
        return self._states[key]

    def places_of(self, state: State, number: int) -> Places | None:
        """What each digit of a system does in a state; None if it is not written with them."""
        system = self.systems[number]
        owned = split_state(state, system)
        if owned is None:
            return None
        numbers = self.places.number
        if any(index.dim >= 0 and index not in numbers for index in owned.values()):
            return None
        return tuple(
            (numbers[i] if i.dim >= 0 else self._role(i)) if (i := owned.get(d)) else FREE
            for d in system
        )

    # --- edges

    def edges(self, state: State) -> Iterator[Edge]:
        """Every type one collective away, on some system, with the seconds of that collective."""
        tile = self.tile(state)
        for number in range(len(self.systems)):
            places = self.places_of(state, number)
            if places is None:
                continue
            if self._states.setdefault((number, places), state) != state:
                continue
            beside = self.places.beside_all(place for place in places if place >= 0)
            yield from self._local(number, places, beside)
            yield from self._gathers(number, places, tile)
            yield from self._moves(number, places, beside, tile)
            if any(place < FREE for place in places):
                yield from self._all_reduces(number, places, tile)
                yield from self._scatters(number, places, beside, tile)
                yield from self._role_permutes(number, places, tile)
        yield from self._permutes(state, tile)

    def _price(
        self, devices: Sequence[DeviceDigit], received: int, collective: str, latencies: int = 1
    ) -> float:
        key = (*devices, collective)
        speed = self._speeds.get(key)
        if speed is None:
            speed = self._speeds[key] = self.profile.speed(devices, collective)
        latency, bandwidth = speed
        return latency * latencies + received * self._itemsize / bandwidth

    def _local(self, number: int, places: Places, beside: int) -> Iterator[Edge]:
        """Slices, and digits that become partial, under one reduction at a time."""
        used = {place for place in places if place < FREE}
        roles = [SUM - n for n in range(len(self.reductions)) if used <= {SUM - n}]
        for k, (device, place) in enumerate(zip(self.systems[number], places, strict=True)):
            before, after = places[:k], places[k + 1 :]
            if place == FREE:
                for index in self.places.options(beside, device.size):
                    yield Edge(number, (*before, index, *after), "slice", 0.0)
            if place >= FREE:
                kind = "replicated_to_partial" if place == FREE else "sharded_to_partial"
                for role in roles:
                    yield Edge(number, (*before, role, *after), kind, 0.0)

    def _gathers(self, number: int, places: Places, tile: int) -> Iterator[Edge]:
        system = self.systems[number]
        owners = [k for k, place in enumerate(places) if place >= 0]
        for group, devices in _groups(system, owners):
            received = tile * (prod([d.size for d in devices]) - 1)
            after = list(places)
            for k in group:
                after[k] = FREE
            seconds = self._price(devices, received, AllGather.collective)
            yield Edge(number, tuple(after), "gather", seconds)

    def _all_reduces(self, number: int, places: Places, tile: int) -> Iterator[Edge]:
        system = self.systems[number]
        for group, devices in _groups(
            system, [k for k, place in enumerate(places) if place < FREE]
        ):
            size = prod(d.size for d in devices)
            received = tile + (size - 2) * -(-tile // size)
            after = tuple(FREE if k in group else place for k, place in enumerate(places))
            seconds = self._price(devices, received, AllReduce.collective, 2)
            yield Edge(number, after, "all_reduce", seconds)

    def _moves(self, number: int, places: Places, beside: int, tile: int) -> Iterator[Edge]:
        """All_to_alls: owners go to index digits that are local before."""
        movable = [place >= 0 for place in places]
        for after in self._assign(number, places, movable, beside):
            yield self._grouped(number, places, after, tile, AllToAll.collective)

    def _scatters(self, number: int, places: Places, beside: int, tile: int) -> Iterator[Edge]:
        """Reduce_scatters: partial digits go to local index digits."""
        movable = [place < FREE for place in places]
        for after in self._assign(number, places, movable, beside):
            yield self._grouped(number, places, after, tile, ReduceScatter.collective)

    def _grouped(
        self, number: int, places: Places, after: Places, tile: int, collective: str
    ) -> Edge:
        moved = tuple(map(ne, places, after))
        devices = list(compress(self.systems[number], moved))
        group = prod([device.size for device in devices])
        seconds = self._price(devices, tile // group * (group - 1), collective)
        return Edge(number, after, collective, seconds)

    def _assign(
        self, number: int, places: Places, movable: Sequence[bool], local: int
    ) -> Iterator[Places]:
        """All ways in which movable digits, one at least, go to local index digits."""
        system = self.systems[number]

        def assign(k: int, chosen: Places, allowed: int) -> Iterator[Places]:
            if k == len(places):
                yield chosen
                return
            place = places[k]
            if place < 0:
                yield from assign(k + 1, (*chosen, place), allowed)
            elif allowed >> place & 1:
                yield from assign(k + 1, (*chosen, place), allowed & self.places.beside[place])
            if movable[k]:
                for index in self.places.options(allowed & local, system[k].size):
                    below = allowed & self.places.beside[index]
                    yield from assign(k + 1, (*chosen, index), below)

        for after in assign(0, (), self.places.everywhere):
            if after != places:
                yield after

    def _role_permutes(self, number: int, places: Places, tile: int) -> Iterator[Edge]:
        """Permutes by routes that give partial digits another role."""
        system = self.systems[number]

        def assign(
            k: int, chosen: Places, available: tuple[tuple[int, int], ...]
        ) -> Iterator[Places]:
            if k == len(places):
                yield chosen
                return
            for role in dict.fromkeys(available):
                if role[0] == system[k].size:
                    remaining = list(available)
                    remaining.remove(role)
                    yield from assign(k + 1, (*chosen, role[1]), tuple(remaining))

        roles = tuple((d.size, place) for d, place in zip(system, places, strict=True))
        for after in assign(0, (), roles):
            changed = [a != b for a, b in zip(places, after, strict=True)]
            if any((a < FREE) != (b < FREE) for a, b in zip(places, after, strict=True)):
                devices = list(compress(system, changed))
                seconds = self._price(devices, tile, CollectivePermute.collective)
                yield Edge(number, after, "routes", seconds)

    def _permutes(self, state: State, tile: int) -> Iterator[Edge]:
        """All other types with the same tiles and partial set: any digits over the owned runs."""
        runs = tuple(owned_runs(sorted(p for p in state if p[1].dim >= 0)))
        partial = tuple(sorted(p for p in state if p[1].dim < 0))
        if (runs, partial) not in self._permuted:
            refilled = islice(self._refilled(runs, partial), self._most_permutes)
            self._permuted[runs, partial] = list(refilled)
        for number, places in self._permuted[runs, partial]:
            after = self._state(number, places)
            if after != state:
                moved = sorted({d for d, _ in after ^ state})
                seconds = self._price(moved, tile, CollectivePermute.collective)
                yield Edge(number, places, "permute", seconds)

    def _refilled(
        self,
        runs: tuple[tuple[int, int, int], ...],
        partial: tuple[tuple[DeviceDigit, IndexDigit], ...],
    ) -> Iterator[tuple[int, Places]]:
        """Every way to own these runs beside these addends."""
        for number, system in enumerate(self.systems):
            addends = split_state(partial, system)
            if addends is None:
                continue
            roles = {d: self._role(index) for d, index in addends.items()}
            free = frozenset(d for d in system if d not in roles)
            for owned in self._fill(list(runs), free):
                yield number, tuple((roles | owned).get(d, FREE) for d in system)

    def _fill(
        self, runs: list[tuple[int, int, int]], free: frozenset[DeviceDigit]
    ) -> Iterator[dict[DeviceDigit, int]]:
        """All ways to own exactly these runs by free digits."""
        if not runs:
            yield {}
            return
        (dim, lo, hi), others = runs[0], runs[1:]
        for device in sorted(free):
            index = IndexDigit(dim, lo, device.size)
            if (hi // lo) % device.size == 0 and index in self.places.number:
                remaining = [(dim, index.end, hi), *others] if index.end < hi else others
                for placed in self._fill(remaining, free - {device}):
                    yield {device: self.places.number[index], **placed}

    # --- steps

    def steps(self, path: Sequence[tuple[State, Edge]], start: State) -> list[Collective]:
        """The collectives along a path: states with the edge to each.

        Neighbours of a kind that move nothing between devices are one step, where one system has
        them all.
        """
        steps: list[Collective] = []
        before = start
        for (state, edge), (after, following) in zip_longest(path, path[1:], fillvalue=_END):
            if following.kind == edge.kind and edge.kind in _MERGED:
                system = following.system
                both = self.places_of(before, system), self.places_of(after, system)
                if None not in both:
                    continue
            steps.append(self._step(before, state, edge.kind, edge.system))
            before = state
        return steps

    def _step(self, before: State, after: State, kind: str, number: int) -> Collective:
        if kind == "permute":
            return CollectivePermute((), permute_table(self.type(before), self.type(after)))
        system = self.systems[number]
        old, new = self.places_of(before, number), self.places_of(after, number)
        assert old is not None
        assert new is not None  # an edge lies on its system
        changed = [(d, a, b) for d, a, b in zip(system, old, new, strict=True) if a != b]
        index = self.places.indices
        match kind:
            case "slice":
                return DynamicSlice(tuple((d, index[b]) for d, _, b in changed))
            case "gather":
                return AllGather(tuple((d, index[a]) for d, a, _ in changed))
            case "all_to_all":
                return AllToAll(tuple(Move(d, index[a], index[b]) for d, a, b in changed))
            case "reduce_scatter":
                return ReduceScatter(tuple((d, index[b]) for d, _, b in changed))
            case "all_reduce":
                return AllReduce(tuple(d for d, _, _ in changed))
            case "replicated_to_partial":
                reduction = self.reductions[changed[0][2] - SUM]
                return ReplicatedToPartial(tuple(d for d, _, _ in changed), reduction)
            case "sharded_to_partial":
                reduction = self.reductions[changed[0][2] - SUM]
                return ShardedToPartial(tuple((d, index[a]) for d, a, _ in changed), reduction)
            case _:
                return CollectivePermute(_routes(changed))


_END: tuple[State, Edge] = (frozenset(), Edge(0, (), "", 0.0))
_MERGED = ("slice", "replicated_to_partial", "sharded_to_partial")


def _groups(
    system: Sequence[DeviceDigit], members: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], list[DeviceDigit]]]:
    for count in range(1, len(members) + 1):
        for group in combinations(members, count):
            yield group, [system[k] for k in group]


def _routes(
    changed: Sequence[tuple[DeviceDigit, int, int]],
) -> tuple[tuple[DeviceDigit, DeviceDigit], ...]:
    """Routes by which digits of one size take each other's roles: (digit, before, after)."""
    wanting = list(changed)
    routes = []
    for old, role, _ in changed:
        to = next(x for x in wanting if x[2] == role and x[0].size == old.size)
        wanting.remove(to)
        routes.append((old, to[0]))
    return tuple(routes)
