"""The three-phase form of an aligned pair, with collectives only (docs/theory.md, section 5).

    dynamic_slice, reduce_scatter      shrink to the tile t
    exchange phase                     at constant tile: all_to_all, permute, or both
    all_gather, sharded_to_partial     grow to the target tile

The exchange is made of chains (`chains.py`); choices per chain are enumerated and priced. A digit
that is partial in the source is one that is free there, but slicing it is a reduce_scatter, and not
slicing it an all_reduce; gathering one that is partial in the target is a sharded_to_partial, and
leaving it free a replicated_to_partial.

Laws: paths of length one take ONE merged all_to_all, t (1 - 1/K); cycles take ONE permute, t; a
permute also shortens every path to length one. No tile of this form exceeds either end; a late
slice or an early gather may, and are tried within the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice, product
from math import prod
from typing import TypeVar

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
from redistrib.synth.plan.price import price_step
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.chains import (
    Chain,
    Choice,
    chain_choices,
    find_chains,
    idle_choices,
    spare_digit,
)
from redistrib.synth.planner.reductions import PartialRoles, partial_roles
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement
from redistrib.types.refinement import Refinement

# Above this many combinations of choices, each chain is improved in turn with the others fixed.
MAX_COMBINATIONS = 1024

_Priced = tuple[float, list[Collective]]
_T = TypeVar("_T")


def plan_aligned(
    src: ArrayType, dst: ArrayType, refinement: Refinement, limit: int, profile: Profile
) -> list[Collective]:
    """The cheapest steps between an aligned pair through tiles of at most `limit` elements."""
    roles = partial_roles(src, dst, refinement.axes)
    chains, idle = find_chains(refinement, roles.kept)
    named = {*refinement.src.values(), *refinement.dst.values()}
    spares = [run for dim in refinement.dims for run in dim if run not in named]
    closers = [Chain((d,), (None, None)) for d in idle]
    closers += [c for c in chains if c.indices[0] is None and c.indices[-1] is None]
    options = [list(chain_choices(n, moved, closers)) for n, moved in enumerate(chains)]
    options += [list(idle_choices(len(chains) + n, d, spares)) for n, d in enumerate(idle)]

    def price(choices: Sequence[Choice]) -> _Priced | None:
        return _price(src, roles, choices, spares, limit, profile)

    reducing = roles.reduce or roles.produce
    floor = (lambda _: 0.0) if reducing else _floor(src, options, profile)
    return _cheapest(options, price, floor)[1]


def gather_once(
    src: ArrayType, refinement: Refinement, limit: int, profile: Profile
) -> list[Collective] | None:
    """Gather all that changes, slice the target out of it: one latency. None if it cannot be."""
    before, after = refinement.src, refinement.dst
    gathers = tuple((d, b) for d, b in before.items() if after.get(d) != b)
    vacated = {b for _, b in gathers}
    taken = tuple((d, b) for d, b in after.items() if before.get(d) != b)
    slices = tuple((d, b) for d, b in taken if d not in before and b not in vacated)
    late = tuple(p for p in taken if p not in slices)
    if not late or src.tile_size // _group(slices) * _group(gathers) > limit:
        return None
    steps: list[Collective] = [DynamicSlice(slices)] if slices else []
    steps += [AllGather(gathers), DynamicSlice(late)]
    return _add(steps, 0.0, src.tile_size, src.itemsize, profile)[0]


def _price(
    src: ArrayType,
    roles: PartialRoles,
    choices: Sequence[Choice],
    spares: list[IndexDigit],
    limit: int,
    profile: Profile,
) -> _Priced | None:
    """Seconds and steps of one combination; None if it does not fit the limit or the spares."""
    taken = [choice.takes for choice in choices if choice.takes]
    if taken and len(set(taken)) < len(taken):
        return None
    if any(choice.leaves and choice.leaves not in taken for choice in choices):
        return None
    placed = _place_spares([i for choice in choices for i in choice.spares], spares)
    if placed is None:
        return None

    def collect(entries: Iterable[tuple[Placement, ...]]) -> tuple[Placement, ...]:
        found = tuple(chain.from_iterable(entries))
        if not placed:
            return found
        return tuple((device, placed.get(index, index)) for device, index in found)

    placings = collect([choice.slices for choice in choices])
    slices = placings
    scatters: tuple[Placement, ...] = ()
    reduces: tuple[DeviceDigit, ...] = ()
    if roles.reduce:
        slices = tuple(p for p in placings if not roles.reduced(p[0]))
        scatters = tuple(p for p in placings if roles.reduced(p[0]))
        reduces = roles.rest(roles.reduce, (d for d, _ in scatters))
    early = collect([choice.early for choice in choices])
    late = collect([choice.late for choice in choices])
    releases = collect([choice.gathers for choice in choices])
    gathers = releases
    spreads: tuple[Placement, ...] = ()
    replicates: tuple[DeviceDigit, ...] = ()
    if roles.produce:
        gathers = tuple(p for p in releases if not roles.produced(p[0]))
        spreads = tuple(p for p in releases if roles.produced(p[0]))
        replicates = roles.rest(roles.produce, (d for d, _ in spreads))

    sliced = src.tile_size // _group(slices)
    scattered = sliced // _group(scatters)
    tile = scattered * _group(early)
    shrunk = tile // _group(late)
    exceeds = (placings and scattered > limit) or (gathers and shrunk > limit)
    if exceeds or (slices and sliced > limit) or ((early or late) and tile > limit):
        return None
    moving = [
        (
            choice.devices,
            tuple(placed.get(i, i) for i in choice.indices) if placed else choice.indices,
        )
        for choice in choices
        if choice.devices
    ]

    opening: list[Collective] = []
    if slices:
        opening.append(DynamicSlice(slices))
    if scatters:
        opening.append(ReduceScatter(scatters))
    if reduces:
        opening.append(AllReduce(reduces))
    if early:
        opening.append(AllGather(early))
    closing: list[Collective] = []
    if late:
        closing.append(DynamicSlice(late))
    if gathers:
        closing.append(AllGather(gathers))
    if spreads:
        closing.append(ShardedToPartial(spreads, roles.reduction))
    if replicates:
        closing.append(ReplicatedToPartial(replicates, roles.reduction))

    best: _Priced | None = None
    itemsize = src.itemsize
    before, opened, opened_tile = _add(opening, 0.0, src.tile_size, itemsize, profile)
    for rounds in _lowerings(moving, list(placed.values()), spares, profile):
        after, seconds, _ = _add([*rounds, *closing], opened, opened_tile, itemsize, profile)
        if best is None or seconds < best[0]:
            best = (seconds, [*before, *after])
    return best


def _add(
    steps: list[Collective], seconds: float, tile: int, itemsize: int, profile: Profile
) -> tuple[list[Collective], float, int]:
    """Steps from a tile of so many elements, the seconds up to their end, and the tile there."""
    if profile.axes:
        steps = _by_link(steps, tile, itemsize, profile)
    for step in steps:
        _, tile, cost = price_step(step, tile, itemsize, profile)
        seconds += cost
    return steps, seconds, tile


def _floor(
    src: ArrayType, options: list[list[Choice]], profile: Profile
) -> Callable[[Sequence[Choice]], float]:
    """At most the seconds of a combination that reduces nothing, in less time than its price."""
    links = [profile.link, *(link for _, link in profile.axes)]
    latency = min(link.latency for link in links)
    bandwidth = max(link.bandwidth for link in links)
    groups = {
        id(choice): (
            _group(choice.slices),
            _group(choice.early),
            _group(choice.late),
            _group(choice.gathers),
            choice.devices[0].size if len(choice.devices) == 1 else -len(choice.devices),
        )
        for choices in options
        for choice in choices
    }

    def floor(choices: Sequence[Choice]) -> float:
        held, received, steps = src.tile_size, 0, 0
        early = late = gathers = pieces = 1
        for choice in choices:
            sliced, grown, shrunk, gathered, moved = groups[id(choice)]
            held //= sliced
            early *= grown
            late *= shrunk
            gathers *= gathered
            if moved:
                # what a device of a longer chain needs, another one has
                pieces = moved * pieces if moved > 0 and pieces > 0 else -1
        if early > 1:
            received, held, steps = held * (early - 1), held * early, 1
        if pieces != 1:
            steps += 1
            received += held - held // pieces if pieces > 0 else held
        if gathers > 1:
            steps += 1
            received += held // late * (gathers - 1)
        return (steps * latency + received * src.itemsize / bandwidth) * (1 - 1e-12)

    return floor


def _by_link(
    steps: list[Collective], tile: int, itemsize: int, profile: Profile
) -> list[Collective]:
    """The steps from a tile of so many elements, each cut into one per link where that is cheaper.

    What is slow comes where tiles are small: first in a gather, last in a reduce_scatter.
    """
    found: list[Collective] = []
    for step in steps:
        parts: list[Collective]
        match step:
            case AllGather(placements):
                parts = [AllGather(g) for g in _links(placements, profile, _axis)]
            case ReduceScatter(placements):
                parts = [ReduceScatter(g) for g in _links(placements, profile, _axis)[::-1]]
            case AllToAll(moves):
                parts = [AllToAll(g) for g in _links(moves, profile, lambda m: m.device.axis)]
            case _:
                parts = [step]
        _, after, whole = price_step(step, tile, itemsize, profile)
        if len(parts) > 1:
            held, seconds = tile, 0.0
            for part in parts:
                _, held, cost = price_step(part, held, itemsize, profile)
                seconds += cost
            if seconds >= whole:
                parts = [step]
        found += parts
        tile = after
    return found


def _axis(placement: Placement) -> str:
    return placement[0].axis


def _links(
    moved: Sequence[_T], profile: Profile, axis: Callable[[_T], str]
) -> list[tuple[_T, ...]]:
    """What moves over each link, the slowest first."""
    groups: dict[tuple[float, float], list[_T]] = {}
    for one in moved:
        link = profile.link_of(axis(one))
        groups.setdefault((link.bandwidth, -link.latency), []).append(one)
    return [tuple(groups[speed]) for speed in sorted(groups)]


def _group(placements: tuple[Placement, ...]) -> int:
    return prod([device.size for device, _ in placements]) if placements else 1


def _place_spares(
    wanted: Sequence[IndexDigit], spares: list[IndexDigit], taken: Sequence[IndexDigit] = ()
) -> dict[IndexDigit, IndexDigit] | None:
    """A local index digit for each spare one, cut off the major end of runs that nobody names."""
    placed: dict[IndexDigit, IndexDigit] = {}
    if not wanted:
        return placed
    used = {
        run: prod(i.size for i in taken if i.dim == run.dim and run.pre <= i.pre < run.end)
        for run in spares
    }
    for spare in wanted:
        for run in spares:
            if run.size // used[run] % spare.size == 0:
                placed[spare] = IndexDigit(run.dim, run.pre * used[run], spare.size)
                used[run] *= spare.size
                break
        else:
            return None
    return placed


_Rounds = list[AllToAll | CollectivePermute]
_Moving = tuple[tuple[DeviceDigit, ...], tuple[IndexDigit, ...]]


def _lowerings(
    moving: list[_Moving], taken: list[IndexDigit], spares: list[IndexDigit], profile: Profile
) -> Iterator[_Rounds]:
    """Ways to run the exchange phase; `taken` are the spare index digits already in use."""
    paths = [(u, b) for u, b in moving if b and b[0] != b[-1]]
    rings = [(u, b) for u, b in moving if not b or b[0] == b[-1]]
    if not rings and all(len(u) == 1 for u, _ in paths):
        yield [AllToAll(tuple(Move(u[0], b[0], b[1]) for u, b in paths))] if paths else []
        return
    # One permute closes the rings and leaves each path with its last digit on its first index.
    routes = []
    for u, _ in moving:
        if len(u) > 1:
            routes += [*zip(u[1:], u, strict=False), (u[0], u[-1])]
    last = [Move(u[-1], b[0], b[-1]) for u, b in paths]
    yield [CollectivePermute(tuple(routes)), *([AllToAll(tuple(last))] if last else [])]
    if not all(b for _, b in rings):
        return
    if not profile.uniform:
        yield from _in_turn(paths, rings, taken, spares, profile)
    # Two all_to_alls: the first vacates all that the second needs, if need be to spare places.
    vacate: list[Move] = []
    settle: list[Move] = []
    for u, b in paths:
        settle.append(Move(u[0], b[0], b[1]))
        if len(u) > 1:
            vacate.append(Move(u[-1], b[-2], b[-1]))
    park = [(d, b[k], b[k + 1]) for u, b in paths for k, d in enumerate(u[:-1]) if k]
    park += [(d, b[k], b[k + 1]) for u, b in rings for k, d in enumerate(u)]
    places = _place_spares(
        [spare_digit(n, d.size) for n, (d, _, _) in enumerate(park)], spares, taken
    )
    if places is None:
        return
    for place, (device, start, end) in zip(places.values(), park, strict=True):
        vacate.append(Move(device, start, place))
        settle.append(Move(device, place, end))
    yield [AllToAll(tuple(vacate)), AllToAll(tuple(settle))]


def _in_turn(
    paths: list[_Moving],
    rings: list[_Moving],
    taken: list[IndexDigit],
    spares: list[IndexDigit],
    profile: Profile,
) -> Iterator[_Rounds]:
    """All_to_alls that let every digit move once, over its own link, the last of a path first.

    In a ring the digit with the fastest link steps aside to a spare place and moves twice.
    """
    wanted = [spare_digit(n, u[0].size) for n, (u, _) in enumerate(rings)]
    places = _place_spares(wanted, spares, taken)
    if places is None:
        return
    stages: list[list[Move]] = []

    def at(stage: int, move: Move) -> None:
        while len(stages) <= stage:
            stages.append([])
        stages[stage].append(move)

    for u, b in paths:
        for n, d in enumerate(reversed(range(len(u)))):
            at(n, Move(u[d], b[d], b[d + 1]))
    for (u, b), spare in zip(rings, wanted, strict=True):
        m, place = len(u), places[spare]
        links = [(profile.link_of(d.axis).bandwidth, -profile.link_of(d.axis).latency) for d in u]
        # Of several such digits the one after which the others come in the greatest order, so that
        # the price does not depend on where the ring was entered.
        aside = max(range(m), key=lambda k: [links[k - n] for n in range(m)])
        at(0, Move(u[aside], b[aside], place))
        for n in range(1, m):
            k = (aside - n) % m
            at(n, Move(u[k], b[k], b[k + 1]))
        at(m, Move(u[aside], place, b[aside + 1]))
    yield [AllToAll(tuple(moves)) for moves in stages]


def _cheapest(
    options: list[list[Choice]],
    price: Callable[[Sequence[Choice]], _Priced | None],
    floor: Callable[[Sequence[Choice]], float],
) -> _Priced:
    """Seconds and steps of the cheapest combination of one choice per list; of equals, the first.

    Only combinations whose floor is below the best price so far are priced.
    """
    current = [choices[0] for choices in options]
    best = price(current)
    assert best is not None  # slicing first and gathering last fits any limit and needs no spare
    if prod(len(choices) for choices in options) <= MAX_COMBINATIONS:
        for combination in islice(product(*options), 1, None):  # the first one is priced
            priced = price(combination) if floor(combination) < best[0] else None
            if priced is not None and priced[0] < best[0]:
                best = priced
        return best
    improved = True
    while improved:
        improved = False
        for at, choices in enumerate(options):
            for choice in choices:
                tried = [*current[:at], choice, *current[at + 1 :]]
                priced = price(tried) if floor(tried) < best[0] else None
                if priced is not None and priced[0] < best[0]:
                    best, current, improved = priced, tried, True
    return best
