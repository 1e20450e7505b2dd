"""Misaligned pairs with collectives only (docs/theory.md, section 3).

Where digits do not match, two types still meet halfway. From the source, slices and one all_to_all
bring factors in or move them out of the way; from the target backwards, one all_to_all and a gather
undo the like. Halfway types that are the same join at once; halfway types with the same tiles on
other devices join by one table permute. All are tried, on prime digits, in the positions that the
two ends suggest. The tile is constant between the slices and the gather, so none exceeds an end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from math import prod

from redistrib.errors import InfeasibleError
from redistrib.synth.plan.collectives import (
    AllGather,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Move,
)
from redistrib.synth.plan.price import price_step
from redistrib.synth.plan.profile import Profile
from redistrib.synth.plan.tables import owned_runs, permute_table
from redistrib.synth.planner.prime_digits import (
    PrimePlaces,
    State,
    merge_state,
    prime_systems,
    split_state,
)
from redistrib.synth.planner.three_phase import plan_aligned
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, primes
from redistrib.types.refinement import refine

MAX_MOVED = 2  # digits that one side moves at once; more only where fewer do not meet
MAX_HALFWAY = 6000  # halfway types per side: a bound on time
MAX_RELAXED = 24  # relaxed ends tried, smallest tiles first, within the limit or not

_Owned = dict[DeviceDigit, IndexDigit]
_Runs = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Halfway:
    """A type one all_to_all away from an end: `added` digits are free there, `moved` are not."""

    owned: _Owned
    added: tuple[DeviceDigit, ...]
    moved: tuple[tuple[DeviceDigit, IndexDigit], ...]  # with what they own at the end

    @property
    def group(self) -> int:
        """Devices that the all_to_all joins."""
        return prod(device.size for device, _ in self.moved)


@dataclass(frozen=True, slots=True)
class Join:
    """Two halfway types that are the same, or have the same tiles and differ in `permuted`."""

    first: Halfway
    last: Halfway
    permuted: tuple[DeviceDigit, ...]


def plan_misaligned(
    src: ArrayType, dst: ArrayType, limit: int, profile: Profile
) -> list[Collective]:
    """Cheap steps between two types with one partial set.

    Where the ends do not meet halfway, the components whose digits match are planned apart from the
    others; failing that, some digits are gathered early or sliced late, as few as will do, at worst
    all of them. `limit` bounds intermediate tiles, in elements per device.

    Raises InfeasibleError, with the least memory that this takes, where that exceeds the limit.
    """
    meeting = _meet(src, dst, profile) or _in_two(src, dst, limit, profile)
    if meeting is not None:
        return meeting
    ends = sorted(
        (
            (max(start.tile_size, end.tile_size), n, gathered, start, end, sliced)
            for n, ((gathered, start), (sliced, end)) in enumerate(
                product(list(_relaxed(src)), list(_relaxed(dst)))
            )
        ),
        key=lambda entry: entry[:2],
    )
    for size, _, gathered, start, end, sliced in ends[:MAX_RELAXED]:
        meeting = _meet(start, end, profile, [MAX_MOVED])
        if meeting is not None and size <= limit:
            return [
                *([AllGather(gathered)] if gathered else []),
                *meeting,
                *([DynamicSlice(sliced)] if sliced else []),
            ]
        if meeting is not None:
            break
    else:
        size = src.size
        if size <= limit:
            return [AllGather(src.placements), DynamicSlice(dst.placements)]
    least = size * src.itemsize
    raise InfeasibleError(
        f"collectives from {src} to {dst} were found through tiles of {least} bytes per device; "
        f"the limit is {limit * src.itemsize}; strategy 'direct' needs less",
        memory_limit=limit * src.itemsize,
        least_bytes=least,
    )


def _in_two(
    src: ArrayType, dst: ArrayType, limit: int, profile: Profile
) -> list[Collective] | None:
    """The misaligned components and the aligned ones one after the other, if either order fits."""
    components = refine(src, dst).components()
    for aligned_first in (False, True):
        placed = [c.dst if c.aligned == aligned_first else c.src for c in components]
        middle = _with_placements(src, (p for placements in placed for p in placements))
        if middle.tile_size > limit or middle in (src, dst):
            continue
        ends = (middle, dst) if aligned_first else (src, middle)
        meeting = _meet(*ends, profile)
        if meeting is not None:
            rest = (src, middle) if aligned_first else (middle, dst)
            aligned = plan_aligned(*rest, refine(*rest), limit, profile)
            return [*aligned, *meeting] if aligned_first else [*meeting, *aligned]
    return None


def _relaxed(end: ArrayType) -> Iterator[tuple[tuple[Placement, ...], ArrayType]]:
    """An end with a few of its owned prime digits made local, or all, and those digits."""
    for system in prime_systems(end.mesh, frozenset(end.partial)):
        owned = split_state(end.placements, system)
        if owned is not None:
            break
    else:
        raise AssertionError("some order of the primes fits one type")
    for count in sorted({*range(min(MAX_MOVED, len(owned)) + 1), len(owned)}):
        for group in combinations(owned.items(), count):
            kept = [placement for placement in owned.items() if placement not in group]
            yield group, _with_placements(end, kept)


def _meet(
    src: ArrayType,
    dst: ArrayType,
    profile: Profile,
    moves: Sequence[int] = (MAX_MOVED, MAX_MOVED + 1),
) -> list[Collective] | None:
    """The cheapest steps through halfway types; None if none of them meet."""
    fixed = frozenset(src.placements) & frozenset(dst.placements)
    kept = frozenset(src.partial)
    places = _places(src, dst, fixed)
    for most in moves:
        best: tuple[float, Join] | None = None
        ahead = _by_runs(src, fixed, kept, places, most)
        back = _by_runs(dst, fixed, kept, places, most)
        for runs in sorted(ahead.keys() & back.keys()):
            for join in _joins(ahead[runs], back[runs]):
                seconds = _price(join, src, profile)
                if best is None or seconds < best[0]:
                    best = (seconds, join)
        if best is not None:
            return _steps(best[1], src)
    return None


def _places(src: ArrayType, dst: ArrayType, fixed: frozenset[Placement]) -> PrimePlaces:
    """Where digits may go: from a bound that either end suggests, or one prime further."""
    factors = {p for _, size in src.mesh.axes for p in primes(size)}
    starts = []
    for dim in range(len(src.shape)):
        found = {1}
        for _, index in (*src.placements, *dst.placements):
            if index.dim == dim:
                found |= {index.pre * q for q in range(1, index.size + 1) if index.size % q == 0}
        starts.append({*found, *(b * p for b in found for p in factors)})
    # What both ends share stays in one piece, of any size.
    return PrimePlaces(src.shape, factors | {i.size for _, i in fixed}, starts)


def _by_runs(
    end: ArrayType,
    fixed: frozenset[Placement],
    kept: frozenset[DeviceDigit],
    places: PrimePlaces,
    most: int,
) -> dict[_Runs, list[Halfway]]:
    """Halfway types of an end by what is owned in them."""
    found: dict[_Runs, list[Halfway]] = {}
    runs_of: dict[frozenset[int], _Runs] = {}
    for owned_places, halfway in islice(_halfways(end, fixed, kept, places, most), MAX_HALFWAY):
        if owned_places not in runs_of:
            runs_of[owned_places] = tuple(owned_runs(tuple(halfway.owned.items())))
        found.setdefault(runs_of[owned_places], []).append(halfway)
    return found


def _halfways(
    end: ArrayType,
    fixed: frozenset[Placement],
    kept: frozenset[DeviceDigit],
    places: PrimePlaces,
    most: int,
) -> Iterator[tuple[frozenset[int], Halfway]]:
    """All halfway types of an end with at most `most` moved digits, fewest changes first.

    Each comes with the numbers of the index digits owned in it.
    """
    pinned = {*(d for d, _ in fixed), *kept}
    cuts: list[tuple[_Owned, list[DeviceDigit]]] = []
    for system in prime_systems(end.mesh, pinned):
        owned = split_state(end.placements, system)
        if owned is not None:
            cuts.append((owned, [d for d in system if d not in owned and d not in kept]))
    most_added = max((len(free) for _, free in cuts), default=0)
    for changes in range(most + most_added + 1):
        for owned, free in cuts:
            numbers = {d: places.number[i] for d, i in owned.items()}
            local = places.beside_all(numbers.values())
            movable = [d for d in owned if d not in pinned]
            for count in range(max(0, changes - len(free)), min(most, changes) + 1):
                groups = product(combinations(movable, count), combinations(free, changes - count))
                for moved, added in groups:
                    stay = [d for d in owned if d not in moved]
                    allowed = local & places.beside_all(numbers[d] for d in stay)
                    for chosen in _place((*moved, *added), places, allowed):
                        at = dict(zip((*moved, *added), chosen, strict=True))
                        halfway = Halfway(
                            {d: owned[d] for d in stay}
                            | {d: places.indices[n] for d, n in at.items()},
                            added,
                            tuple((d, owned[d]) for d in moved),
                        )
                        yield frozenset({*chosen, *(numbers[d] for d in stay)}), halfway


def _place(
    devices: tuple[DeviceDigit, ...], places: PrimePlaces, allowed: int
) -> Iterator[tuple[int, ...]]:
    """All ways to give each device digit an index digit among those allowed."""
    if not devices:
        yield ()
        return
    for at in places.options(allowed, devices[0].size):
        for rest in _place(devices[1:], places, allowed & places.beside[at]):
            yield (at, *rest)


def _joins(ahead: list[Halfway], back: list[Halfway]) -> Iterator[Join]:
    """Halfway types with the same tiles: all that are equal, and the cheapest, permuted."""
    by_state: dict[State, Halfway] = {}
    for halfway in ahead:
        state = merge_state(halfway.owned)
        if state not in by_state or halfway.group < by_state[state].group:
            by_state[state] = halfway
    for halfway in back:
        first = by_state.get(merge_state(halfway.owned))
        if first is not None:
            yield Join(first, halfway, ())
    first = min(ahead, key=lambda halfway: halfway.group)
    last = min(back, key=lambda halfway: halfway.group)
    changed = merge_state(first.owned) ^ merge_state(last.owned)
    if changed:
        yield Join(first, last, tuple(sorted({device for device, _ in changed})))


def _price(join: Join, src: ArrayType, profile: Profile) -> float:
    """Seconds of a join, with no table made."""
    total, held = 0.0, src.tile_size
    for step in _forwards(join.first):
        _, held, seconds = price_step(step, held, src.itemsize, profile)
        total += seconds
    if join.permuted:
        total += profile.seconds(
            join.permuted, held * src.itemsize, collective=CollectivePermute.collective
        )
    for step in _backwards(join.last):
        _, held, seconds = price_step(step, held, src.itemsize, profile)
        total += seconds
    return total


def _steps(join: Join, src: ArrayType) -> list[Collective]:
    steps = list(_forwards(join.first))
    if join.permuted:
        before, after = (_with_placements(src, h.owned.items()) for h in (join.first, join.last))
        steps.append(CollectivePermute((), permute_table(before, after)))
    return [*steps, *_backwards(join.last)]


def _with_placements(like: ArrayType, placements: Iterable[Placement]) -> ArrayType:
    return ArrayType.from_placements(
        like.mesh, like.dtype, like.shape, placements, like.partial, like.reduction
    )


def _forwards(halfway: Halfway) -> Iterator[Collective]:
    if halfway.added:
        yield DynamicSlice(tuple((d, halfway.owned[d]) for d in halfway.added))
    if halfway.moved:
        yield AllToAll(tuple(Move(d, i, halfway.owned[d]) for d, i in halfway.moved))


def _backwards(halfway: Halfway) -> Iterator[Collective]:
    if halfway.moved:
        yield AllToAll(tuple(Move(d, halfway.owned[d], i) for d, i in halfway.moved))
    if halfway.added:
        yield AllGather(tuple((d, halfway.owned[d]) for d in halfway.added))
