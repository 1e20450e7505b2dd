"""Where two types meet halfway: what each owns after a slice and an all_to_all from its end.

Example: x=4,y=6, `f32[24{x}, 24{y}] -> f32[24{y}, 24{x}]`, on prime digits x = 2 2, y = 2 3. In
dimension 0 the source owns 2 2 and the target 2 3: the second 2 and the 3 start at one place, so
the source's 2 has to move away before the permute, and the target's 3 can only come after it.

    source   [x:(1)2 x:(2)2 -  , y:(1)2 y:(2)3]
    halfway  [x:(1)2 ..        , y:(1)2 ..    ] and, elsewhere, what was moved: one all_to_all
    permute  the same tiles on other devices
    target   the other all_to_all, backwards

What a meeting costs depends on how many digits of each prime are moved and added on each side, not
on which: counts are priced first (`_uses`, `_floor`), and only the cheapest are built, until one
can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop
from itertools import combinations, islice, pairwise, product
from math import gcd, lcm, prod
from operator import gt, mul, sub

from redistrib.synth.plan.collectives import (
    AllGather,
    AllToAll,
    Collective,
    CollectivePermute,
)
from redistrib.synth.plan.price import price_step
from redistrib.synth.plan.profile import Profile
from redistrib.synth.plan.tables import permute_table
from redistrib.synth.planner.halfway_type import (
    Block,
    Cut,
    Halfway,
    Kind,
    Owned,
    Sizes,
    backwards,
    forwards,
    sizes_of,
    with_placements,
)
from redistrib.synth.planner.prime_digits import (
    compatible,
    merge_state,
    prime_systems,
    split_state,
)
from redistrib.synth.planner.work import Work
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, primes

MAX_CUTS = 24  # ways to cut one end into primes, a bound on time like all that follow
MAX_PAIRS = 144  # of them, one of each end
MAX_USES = 2048  # combinations of what is owned halfway
MAX_BUILT = 64  # meetings that are built; nearly always the first can be
MAX_TRIES = 400  # places that are looked at for digits that have to go somewhere
STEPS_OF_A_PAIR = 20  # of work: the blocks of two cuts
STEPS_OF_A_MEETING = 20  # to build and price one


@dataclass(frozen=True, slots=True)
class _Use:
    """Blocks of each kind to be owned halfway, and digits of each prime that go elsewhere."""

    blocks: Mapping[Kind, int]
    elsewhere: Mapping[int, int]


_Build = Callable[[], tuple[Halfway, Halfway] | None]
"""The halfway types of a meeting; None where there is no room for what it adds or moves."""


class MeetingSearch:
    """The cheapest meeting of two ends that takes less than `bound` seconds.

    `met` says afterwards whether the ends meet at all, at whatever price.
    """

    def __init__(
        self, src: ArrayType, dst: ArrayType, links: Profile, bound: float, work: Work
    ) -> None:
        self.src, self.dst, self.links, self.bound = src, dst, links, bound
        self.work = self.pricing = work
        self.met = self._pruned = False
        self.fixed = frozenset(src.placements) & frozenset(dst.placements)
        self.pinned = {*(device for device, _ in self.fixed), *src.partial}
        self.movable = [frozenset(t.placements) - self.fixed for t in (src, dst)]
        self.size = src.size // prod(device.size for device, _ in self.fixed)
        fastest, efficiency = links.fastest(src.mesh), dict(links.efficiency)
        self._latency = fastest.latency
        # Per element that is received.
        self._seconds_of = [
            src.itemsize / (fastest.bandwidth * efficiency.get(step.collective, 1.0))
            for step in (AllToAll, CollectivePermute, AllGather)
        ]
        self._compatible: dict[tuple[IndexDigit, IndexDigit], bool] = {}
        self._rooms: dict[object, dict[tuple[int, ...], list[IndexDigit] | None]] = {}

    def run(self) -> list[Collective] | None:
        """The steps; None where none take less than the bound, or no work is left."""
        with self.work.share(2) as self.pricing:
            equal = list(self._equal())  # far fewer, so the work that is shared suffices for them
            meetings = (*self._permuted(), *equal)
        ordered = [(floor, n, build) for n, (floor, build) in enumerate(meetings)]
        heapify(ordered)
        best, cheapest, built = self.bound, None, 0
        while ordered and ordered[0][0] < best and built < MAX_BUILT and self.work.left > 0:
            built += 1
            self.work.left -= STEPS_OF_A_MEETING
            halves = heappop(ordered)[2]()
            if halves is not None:
                self.met = True
                seconds = self._seconds(*halves)
                if seconds < best:
                    best, cheapest = seconds, halves
        # Where even the cheapest meeting is too dear, nothing with gathers around it is cheaper.
        too_dear = self._pruned or any(floor >= best for floor, _, _ in ordered[:1])
        self.met |= not built and too_dear
        return None if cheapest is None else self._steps(*cheapest)

    def compatible(self, index: IndexDigit, others: Iterable[IndexDigit]) -> bool:
        """Whether an index digit may be owned beside all others."""
        known = self._compatible
        for other in others:
            key = (index, other)
            if key not in known:
                known[key] = known[other, index] = compatible(index, other)
            if not known[key]:
                return False
        return True

    def _systems(self, *sides: int) -> Iterator[tuple[DeviceDigit, ...]]:
        """Ways to cut the mesh into primes; all orders on the axes that these ends use."""
        varied = {device.axis for side in sides for device, _ in self.movable[side]}
        return prime_systems(self.src.mesh, self.pinned, varied)

    def _cuts(self, *sides: int) -> Iterator[tuple[Cut, ...]]:
        """Ends cut into primes, on one system all of them."""
        seen = set()
        for system in self._systems(*sides):
            self.pricing.left -= 1
            if self.pricing.left < 0:
                return
            owned = [split_state(self.movable[side], system) for side in sides]
            cuts = tuple(
                Cut(o, tuple(d for d in system if d not in o and d not in self.pinned))
                for o in owned
                if o is not None
            )
            key = tuple(frozenset(cut.owned.items()) for cut in cuts)
            if len(cuts) == len(sides) and key not in seen:
                seen.add(key)
                yield cuts

    def _permuted(self) -> Iterator[tuple[float, _Build]]:
        """Meetings whose halfway types have the same tiles: they join by a permute."""
        known: dict[object, list[tuple[float, _Use]]] = {}
        sides = [list(islice(self._cuts(side), MAX_CUTS)) for side in (0, 1)]
        for (first,), (last,) in islice(product(*sides), MAX_PAIRS):
            if self.pricing.left <= 0:
                return
            self.pricing.left -= STEPS_OF_A_PAIR
            blocks = self._blocks(first, last)
            kinds: dict[Kind, list[Block]] = {}
            for block in blocks:
                kinds.setdefault(block.kind, []).append(block)
            sizes = [sizes_of(cut.owned.values()) for cut in (first, last)]
            available = sizes_of((*first.owned, *first.free))
            key = (*((kind, len(kinds[kind])) for kind in sorted(kinds)), *sizes)
            if key not in known:
                numbers = {kind: len(kinds[kind]) for kind in sorted(kinds)}
                known[key] = list(self._uses(numbers, sizes[0], sizes[1], available))
            for floor, use in known[key]:
                yield floor, partial(self._build_permuted, first, last, kinds, use)

    def _blocks(self, first: Cut, last: Cut) -> list[Block]:
        """The runs of dimensions that both can own halfway, each by digits of its own.

        Between neighbouring bounds that go with every digit of both ends.
        """
        blocks = []
        fixed = [index for _, index in self.fixed]
        factors = {d.size for d in (*first.owned, *first.free)}
        for dim, n in enumerate(self.src.shape):
            sides = [[i for i in cut.owned.values() if i.dim == dim] for cut in (first, last)]
            bounds = {1, *(b for i in (*sides[0], *sides[1]) for b in (i.pre, i.end))}
            bounds |= {b for i in fixed if i.dim == dim for b in (i.pre, i.end)}
            candidates = bounds | {f(a, b) for a, b in combinations(bounds, 2) for f in (lcm, gcd)}
            chain: list[int] = []
            for c in sorted(candidates):
                if n % c == 0 and all(c % b == 0 or b % c == 0 for b in (*bounds, *chain)):
                    chain.append(c)
            for low, high in pairwise(chain):
                inside = [[i for i in digits if low <= i.pre < high] for digits in sides]
                if any(inside) and factors.issuperset(primes(high // low)):
                    run = IndexDigit(dim, low, high // low)
                    blocks.append(Block(run, (tuple(inside[0]), tuple(inside[1]))))
        return blocks

    def _uses(
        self, kinds: Mapping[Kind, int], first: Sizes, last: Sizes, available: Sizes
    ) -> Iterator[tuple[float, _Use]]:
        """How many blocks of each kind to own halfway, and how many digits of each prime elsewhere.

        With the seconds that this takes on the fastest links.
        """
        sizes = [p for p, _ in available]
        most = [count for _, count in available]
        ends = [[dict(end).get(p, 0) for p in sizes] for end in (first, last)]
        # Per part of a block, all of it or what either end owns inside, and per prime: its digits
        # in each kind of block.
        parts = [[[dict(kind[n]).get(p, 0) for kind in kinds] for p in sizes] for n in range(3)]
        least_tile = self.size // prod(map(pow, sizes, most))
        for used in islice(product(*(range(n, -1, -1) for n in kinds.values())), MAX_USES):
            self.pricing.left -= 1
            if self.pricing.left < 0:
                return
            held, *inside = ([sum(map(mul, used, column)) for column in part] for part in parts)
            least = list(map(max, *ends, held))
            if any(map(gt, least, most)):
                continue
            groups = [
                prod(map(pow, sizes, map(sub, end, kept)))
                for end, kept in zip(ends, inside, strict=True)
            ]
            if self._floor(least_tile, groups, 1, permuted=True) >= self.bound:
                self._pruned = True
                continue
            for counts in product(*map(sorted, map(set, zip(least, most, strict=True)))):
                tile = self.size // prod(map(pow, sizes, counts))
                gathered = prod(map(pow, sizes, map(sub, counts, ends[1])))
                floor = self._floor(tile, groups, gathered, permuted=True)
                self.pricing.left -= 1
                if floor >= self.bound:
                    self._pruned = True
                    continue
                elsewhere = dict(zip(sizes, map(sub, counts, held), strict=True))
                yield floor, _Use(dict(zip(kinds, used, strict=True)), elsewhere)

    def _floor(self, tile: int, groups: Sequence[int], gathered: int, *, permuted: bool) -> float:
        """Seconds of all_to_alls over groups of so many devices, a permute, and a gather."""
        moved = sum(tile // group * (group - 1) for group in groups)
        steps = sum(group > 1 for group in groups) + permuted + (gathered > 1)
        moving, permuting, gathering = self._seconds_of
        total = self._latency * steps + moved * moving + tile * (gathered - 1) * gathering
        if permuted:
            total += tile * permuting
        return total * (1 - 1e-12)

    def _build_permuted(
        self, first: Cut, last: Cut, kinds: Mapping[Kind, list[Block]], use: _Use
    ) -> tuple[Halfway, Halfway] | None:
        owner = {i: d for cut in (last, first) for d, i in cut.owned.items()}
        used = []
        for kind, blocks in kinds.items():
            # What moves had better move over fast links.
            speed = {
                b: max(self._speed(owner[i]) for i in (*b.inside[0], *b.inside[1])) for b in blocks
            }
            used += sorted(blocks, key=lambda b: (speed[b], b.run), reverse=True)[
                : use.blocks[kind]
            ]
        room = self._room(use.elsewhere, (first, last), [block.run for block in used])
        if room is None:
            return None
        ends: list[Halfway] = []
        for side, cut in enumerate((first, last)):
            kept = {i for block in used for i in block.inside[side]}
            stay = {d: i for d, i in cut.owned.items() if i in kept}
            gaps = [i for block in used for i in block.gaps(side)]
            # The second goes where the first went, if it can: then there is less to permute.
            ends.append(self._fill(cut, stay, [*gaps, *room], (ends[0] if ends else last).owned))
        return ends[0], ends[1]

    def _speed(self, device: DeviceDigit) -> tuple[float, float]:
        link = self.links.link_of(device)
        return -link.bandwidth, link.latency

    def _fill(self, cut: Cut, stay: Owned, places: Sequence[IndexDigit], like: Owned) -> Halfway:
        """The halfway type of an end that keeps some digits and owns these places beside them."""
        moved = [d for d in cut.owned if d not in stay]
        owned = dict(stay)
        for p in sorted({i.size for i in places}):
            free = sorted((d for d in cut.free if d.size == p), key=lambda d: (self._speed(d), d))
            todo = [i for i in places if i.size == p]
            devices = [d for d in moved if d.size == p]
            devices += free[: len(todo) - len(devices)]
            for device in [d for d in devices if like.get(d) in todo]:
                owned[device] = like[device]
                todo.remove(like[device])
                devices.remove(device)
            owned |= dict(zip(devices, todo, strict=True))
        added = tuple(d for d in owned if d not in cut.owned)
        return Halfway(owned, added, tuple((d, cut.owned[d]) for d in moved))

    def _equal(self) -> Iterator[tuple[float, _Build]]:
        """Meetings whose halfway types are the same, with and without the digits idle on both."""
        for first, last in islice(self._cuts(0, 1), MAX_CUTS):
            changed = [
                d
                for d in dict.fromkeys((*first.owned, *last.owned))
                if first.owned.get(d) != last.owned.get(d)
            ]
            options: list[list[IndexDigit | None]] = []
            for device in changed:
                start, end = first.owned.get(device), last.owned.get(device)
                places: list[IndexDigit | None] = []
                if end is not None and self.compatible(end, first.owned.values()):
                    places.append(end)
                if start is not None and self.compatible(start, last.owned.values()):
                    places.append(start)
                options.append(places or [None])
            idle = _subsets([d for d in first.free if d not in last.owned])
            for chosen in islice(product(*options), MAX_USES):
                owned = dict(zip(changed, chosen, strict=True))
                for more in idle:
                    self.pricing.left -= 1
                    if self.pricing.left < 0:
                        return
                    halfway = owned | dict.fromkeys(more)
                    yield (
                        self._floor_equal(first, last, halfway),
                        partial(self._build_equal, first, last, halfway),
                    )

    def _floor_equal(self, first: Cut, last: Cut, owned: _Places) -> float:
        groups = [
            prod(d.size for d, i in owned.items() if d in cut.owned and cut.owned[d] != i)
            for cut in (first, last)
        ]
        stay = [d for d in first.owned if d not in owned]
        tile = self.size // prod(d.size for d in (*owned, *stay))
        gathered = prod(d.size for d in owned if d not in last.owned)
        return self._floor(tile, groups, gathered, permuted=False)

    def _build_equal(
        self, first: Cut, last: Cut, chosen: _Places
    ) -> tuple[Halfway, Halfway] | None:
        elsewhere = [d for d, index in chosen.items() if index is None]
        room = self._room(Counter(d.size for d in elsewhere), (first, last))
        if room is None:
            return None
        owned = {d: i for d, i in first.owned.items() if d not in chosen}
        owned |= {d: i for d, i in chosen.items() if i is not None}
        remaining = list(room)
        for device in elsewhere:
            index = next(i for i in remaining if i.size == device.size)
            remaining.remove(index)
            owned[device] = index
        ends = []
        for cut in (first, last):
            moved = tuple((d, i) for d, i in cut.owned.items() if owned[d] != i)
            ends.append(Halfway(owned, tuple(d for d in owned if d not in cut.owned), moved))
        return ends[0], ends[1]

    def _room(
        self, counts: Mapping[int, int], cuts: tuple[Cut, Cut], blocks: Sequence[IndexDigit] = ()
    ) -> list[IndexDigit] | None:
        """Local index digits, so many of each prime, beside all that either end owns.

        From a bound that either end suggests, one prime further, or after one another.
        """
        wanted = tuple(p for p, count in sorted(counts.items()) for _ in range(count))
        known = self._rooms.setdefault((id(cuts[0]), id(cuts[1]), *blocks), {})
        if wanted not in known:
            if any(self._room({p: 1}, cuts) is None for p in set(wanted) if len(wanted) > 1):
                known[wanted] = None
            else:
                taken = [*blocks, *(i for cut in cuts for i in cut.owned.values())]
                known[wanted] = self._place(wanted, [*taken, *(i for _, i in self.fixed)])
        return known[wanted]

    def _place(self, wanted: Sequence[int], taken: list[IndexDigit]) -> list[IndexDigit] | None:
        factors = sorted({p for _, size in self.src.mesh.axes for p in primes(size)})
        starts = []
        for dim in range(len(self.src.shape)):
            bounds = {1, *(b for i in taken if i.dim == dim for b in (i.pre, i.end))}
            starts.append({*bounds, *(b * p for b in bounds for p in factors)})
        tries = MAX_TRIES
        beside: dict[IndexDigit, bool] = {}

        def place(number: int, chosen: list[IndexDigit]) -> list[IndexDigit] | None:
            nonlocal tries
            if number == len(wanted):
                return chosen
            for dim, n in enumerate(self.src.shape):
                for pre in sorted({*starts[dim], *(i.end for i in chosen if i.dim == dim)}):
                    if n % (pre * wanted[number]):
                        continue
                    index = IndexDigit(dim, pre, wanted[number])
                    # Places of equal primes in ascending order: each set of them once.
                    if number and wanted[number - 1] == wanted[number] and index < chosen[-1]:
                        continue
                    tries -= 1
                    if tries < 0:
                        return None
                    self.work.left -= 1
                    if index not in beside:
                        beside[index] = self.compatible(index, taken)
                    if beside[index] and self.compatible(index, chosen):
                        result = place(number + 1, [*chosen, index])
                        if result is not None:
                            return result
            return None

        return place(0, [])

    def _seconds(self, first: Halfway, last: Halfway) -> float:
        """Seconds of a meeting, with no table made."""
        total, held = 0.0, self.src.tile_size
        changed = merge_state(first.owned) ^ merge_state(last.owned)
        for step in (*forwards(first), None, *backwards(last)):
            if step is not None:
                _, held, seconds = price_step(step, held, self.src.itemsize, self.links)
                total += seconds
            elif changed:
                devices = sorted({device for device, _ in changed})
                size, name = held * self.src.itemsize, CollectivePermute.collective
                total += self.links.seconds(devices, size, collective=name)
        return total

    def _steps(self, first: Halfway, last: Halfway) -> list[Collective]:
        before, after = (
            with_placements(self.src, (*self.fixed, *half.owned.items())) for half in (first, last)
        )
        joint = [CollectivePermute((), permute_table(before, after))] if before != after else []
        return [*forwards(first), *joint, *backwards(last)]


_Places = Mapping[DeviceDigit, IndexDigit | None]


def _subsets(digits: Sequence[DeviceDigit]) -> list[list[DeviceDigit]]:
    """None or all of the digits of each size."""
    by_size = [[d for d in digits if d.size == p] for p in sorted({d.size for d in digits})]
    return [
        [d for same, taken in zip(by_size, chosen, strict=True) if taken for d in same]
        for chosen in product((False, True), repeat=len(by_size))
    ]
