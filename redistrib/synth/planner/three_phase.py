"""The three-phase form of an aligned pair, with collectives only (docs/theory.md, section 5).

    dynamic_slice, reduce_scatter      shrink to the tile t
    exchange phase                     at constant tile: all_to_all, permute, or both
    all_gather, sharded_to_partial     grow to the target tile

The exchange is made of chains (`chains.py`); choices per chain are enumerated and priced. A digit
that is partial in the source is one that is free there, but slicing it is a reduce_scatter, and not
slicing it an all_reduce; gathering one that is partial in the target is a sharded_to_partial, and
leaving it free a replicated_to_partial.

Example: `f32[8{x}, 8, 8] -> f32[8, 8{x}, 8{y}]` on x=2,y=2: a dynamic_slice over y gives
`f32[8{x}, 8, 8{y}]`, an all_to_all of x the target, and nothing has to grow.

Laws: paths of length one take ONE merged all_to_all, t (1 - 1/K); cycles take ONE permute, t; a
permute also shortens every path to length one. No tile of this form exceeds either end; a late
slice or an early gather may, and are tried within the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, product
from math import inf, prod

from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    Collective,
    DynamicSlice,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.by_link import add_steps
from redistrib.synth.planner.chains import (
    Chain,
    Choice,
    chain_choices,
    devices_of,
    find_chains,
    idle_choices,
)
from redistrib.synth.planner.exchange_phase import ADDENDS, lowerings, place_spares
from redistrib.synth.planner.floors import Floor
from redistrib.synth.planner.reductions import PartialRoles, partial_roles
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement
from redistrib.types.refinement import Refinement

# Above this many combinations of choices, each chain is improved in turn with the others fixed.
MAX_COMBINATIONS = 1024

_Priced = tuple[float, list[Collective]]


def plan_aligned(
    src: ArrayType,
    dst: ArrayType,
    refinement: Refinement,
    limit: int,
    profile: Profile,
    bound: float = inf,
) -> list[Collective] | None:
    """The cheapest steps between an aligned pair through tiles of at most `limit` elements.

    None where none take less than `bound` seconds.
    """
    roles = partial_roles(src, dst, refinement.axes)
    best = _plan_roles(src, refinement, roles, limit, profile, bound)
    for renamed, remaining in _renamed(src, refinement, roles):
        most = bound if best is None else best[0]
        best = _plan_roles(src, renamed, remaining, limit, profile, most) or best
    return None if best is None else best[1]


def _renamed(
    src: ArrayType, refinement: Refinement, roles: PartialRoles
) -> Iterator[tuple[Refinement, PartialRoles]]:
    """Addends that a permute brings to other devices instead of reducing them there.

    A digit to reduce and one of its size to become partial own one digit of a dimension that no
    array has, the one in the source and the other in the target; so they are part of a chain.
    """
    if src.reduction != roles.reduction:
        return
    reduce, produce = sorted(roles.reduce), sorted(roles.produce)
    pairs: list[tuple[DeviceDigit, DeviceDigit]] = []
    for old in reduce:
        new = next((d for d in produce if d.size == old.size), None)
        if new is not None:
            produce.remove(new)
            pairs.append((old, new))
    for count in range(1, len(pairs) + 1):
        before, after = dict(refinement.src), dict(refinement.dst)
        for number, (old, new) in enumerate(pairs[:count]):
            before[old] = after[new] = IndexDigit(ADDENDS, number + 1, old.size)
        renamed = replace(refinement, src=before, dst=after)
        olds, news = zip(*pairs[:count], strict=True)
        remaining = replace(roles, reduce=roles.reduce - {*olds}, produce=roles.produce - {*news})
        yield renamed, remaining


def _plan_roles(
    src: ArrayType,
    refinement: Refinement,
    roles: PartialRoles,
    limit: int,
    profile: Profile,
    bound: float,
) -> _Priced | None:
    """Seconds and steps of the cheapest combination of choices, for given roles of digits."""
    chains, idle = find_chains(refinement, roles.kept)
    named = {*refinement.src.values(), *refinement.dst.values()}
    spares = [run for dim in refinement.dims for run in dim if run not in named]
    closers = [Chain((d,), (None, None)) for d in idle]
    closers += [c for c in chains if c.indices[0] is None and c.indices[-1] is None]
    options = [[*chain_choices(n, moved, closers)] for n, moved in enumerate(chains)]
    if any(index.dim == ADDENDS for index in named):
        options = [[choice for choice in choices if _movable(choice)] for choices in options]
    options += [list(idle_choices(len(chains) + n, d, spares)) for n, d in enumerate(idle)]

    def price(choices: Sequence[Choice]) -> _Priced | None:
        return _price(src, roles, choices, spares, limit, profile)

    return _cheapest(options, price, Floor(src, roles, options, profile), bound)


def _movable(choice: Choice) -> bool:
    """Whether addends only change devices in a choice: nothing else reduces or makes them."""
    ends = choice.indices[:1] if choice.indices[:1] != choice.indices[-1:] else ()
    placings = choice.slices + choice.gathers + choice.early + choice.late
    touched = [*ends, *choice.indices[-1:][: len(ends)], *(index for _, index in placings)]
    return all(index.dim != ADDENDS for index in touched)


def gather_once(
    src: ArrayType, refinement: Refinement, limit: int, profile: Profile
) -> list[Collective] | None:
    """Gather all that changes, slice the target out of it: one latency. None if it cannot be."""
    before, after = refinement.src, refinement.dst
    gathers = tuple((d, b) for d, b in before.items() if after.get(d) != b)
    vacated = {b for _, b in gathers}
    taken = tuple((d, b) for d, b in after.items() if before.get(d) != b)
    free = taken if refinement.aligned else ()  # elsewhere what is sliced may be in use
    slices = tuple((d, b) for d, b in free if d not in before and b not in vacated)
    late = tuple(p for p in taken if p not in slices)
    if not late or src.tile_size // devices_of(slices) * devices_of(gathers) > limit:
        return None
    steps: list[Collective] = [DynamicSlice(slices)] if slices else []
    steps += [AllGather(gathers), DynamicSlice(late)]
    return add_steps(steps, 0.0, src.tile_size, src.itemsize, profile)[0]


def _price(
    src: ArrayType,
    roles: PartialRoles,
    choices: Sequence[Choice],
    spares: list[IndexDigit],
    limit: int,
    profile: Profile,
) -> _Priced | None:
    """Seconds and steps of one combination; None if it does not fit the limit or the spares."""
    placed = _spares_of(choices, spares)
    if placed is None:
        return None

    def collect(entries: Iterable[tuple[Placement, ...]]) -> tuple[Placement, ...]:
        placements = tuple(chain.from_iterable(entries))
        if not placed:
            return placements
        return tuple((device, placed.get(index, index)) for device, index in placements)

    slices = collect([choice.slices for choice in choices])
    early = collect([choice.early for choice in choices])
    late = collect([choice.late for choice in choices])
    gathers = collect([choice.gathers for choice in choices])
    scatters, slices = roles.part_reduced(slices)
    late_scatters, late = roles.part_reduced(late)
    early_spreads, early = roles.part_produced(early)
    spreads, gathers = roles.part_produced(gathers)
    if late_scatters and early_spreads and src.reduction != roles.reduction:
        return None

    sliced = src.tile_size // devices_of(slices)
    scattered = sliced // devices_of(scatters)
    tile = scattered * devices_of(early) * devices_of(early_spreads)
    shrunk = tile // devices_of(late) // devices_of(late_scatters)
    exceeds = ((slices or scatters) and scattered > limit) or (gathers and shrunk > limit)
    exceeds = exceeds or (slices and sliced > limit)
    if exceeds or ((early or early_spreads or late or late_scatters) and tile > limit):
        return None

    reduces = roles.without(roles.reduce, [d for d, _ in scatters + late_scatters])
    replicates = roles.without(roles.produce, [d for d, _ in spreads + early_spreads])
    opening = _opening(slices, scatters, reduces, early, early_spreads, roles.reduction)
    closing = _closing(late, late_scatters, gathers, spreads, replicates, roles.reduction)
    return _moved(src, choices, placed, spares, opening, closing, profile)


_Placings = tuple[Placement, ...]
_Digits = tuple[DeviceDigit, ...]


def _spares_of(
    choices: Sequence[Choice], spares: list[IndexDigit]
) -> dict[IndexDigit, IndexDigit] | None:
    """Places for the spare digits of choices; None if they do not fit, or take a chain twice."""
    taken = [choice.takes for choice in choices if choice.takes]
    if taken and len(set(taken)) < len(taken):
        return None
    if any(choice.leaves and choice.leaves not in taken for choice in choices):
        return None
    return place_spares([i for choice in choices for i in choice.spares], spares)


def _opening(
    slices: _Placings,
    scatters: _Placings,
    reduces: _Digits,
    early: _Placings,
    spreads: _Placings,
    reduction: str,
) -> list[Collective]:
    steps: list[Collective] = []
    if slices:
        steps.append(DynamicSlice(slices))
    if scatters:
        steps.append(ReduceScatter(scatters))
    if reduces:
        steps.append(AllReduce(reduces))
    if early:
        steps.append(AllGather(early))
    if spreads:
        steps.append(ShardedToPartial(spreads, reduction))
    return steps


def _closing(
    late: _Placings,
    scatters: _Placings,
    gathers: _Placings,
    spreads: _Placings,
    replicates: _Digits,
    reduction: str,
) -> list[Collective]:
    steps: list[Collective] = []
    if late:
        steps.append(DynamicSlice(late))
    if scatters:
        steps.append(ReduceScatter(scatters))
    if gathers:
        steps.append(AllGather(gathers))
    if spreads:
        steps.append(ShardedToPartial(spreads, reduction))
    if replicates:
        steps.append(ReplicatedToPartial(replicates, reduction))
    return steps


def _moved(
    src: ArrayType,
    choices: Sequence[Choice],
    placed: dict[IndexDigit, IndexDigit],
    spares: list[IndexDigit],
    opening: list[Collective],
    closing: list[Collective],
    profile: Profile,
) -> _Priced | None:
    """Seconds and steps with the cheapest exchange phase between an opening and a closing."""
    moving = [
        (
            choice.devices,
            tuple(placed.get(i, i) for i in choice.indices) if placed else choice.indices,
        )
        for choice in choices
        if choice.devices
    ]
    best: _Priced | None = None
    itemsize = src.itemsize
    before, opened, opened_tile = add_steps(opening, 0.0, src.tile_size, itemsize, profile)
    for rounds in lowerings(moving, list(placed.values()), spares, profile):
        after, seconds, _ = add_steps([*rounds, *closing], opened, opened_tile, itemsize, profile)
        if best is None or seconds < best[0]:
            best = (seconds, [*before, *after])
    return best


def _cheapest(
    options: list[list[Choice]],
    price: Callable[[Sequence[Choice]], _Priced | None],
    floor: Floor,
    bound: float,
) -> _Priced | None:
    """Seconds and steps of the cheapest combination of one choice per list; of equals, the first.

    Only combinations whose floor is below the best price so far, at first `bound`, are priced.
    """
    if prod(len(choices) for choices in options) <= MAX_COMBINATIONS:
        cheapest: _Priced | None = None
        for combination in product(*options):
            priced = price(combination) if floor.seconds(combination) < bound else None
            if priced is not None and priced[0] < bound:
                cheapest, bound = priced, priced[0]
        return cheapest
    current = [choices[0] for choices in options]
    best = price(current)
    assert best is not None  # slicing first and gathering last fits any limit and needs no spare
    improved = True
    while improved:
        improved = False
        for number, choices in enumerate(options):
            for choice in choices:
                tried = [*current[:number], choice, *current[number + 1 :]]
                priced = price(tried) if floor.seconds(tried) < best[0] else None
                if priced is not None and priced[0] < best[0]:
                    best, current, improved = priced, tried, True
    return best if best[0] < bound else None
