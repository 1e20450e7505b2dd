"""Partial axes: which are reduced, which are kept, which are made, and how on their own.

On x=2,y=4, `f32[16] sum{x,y} -> f32[16{x}] sum{y}` keeps y and reduces x: x owns part of dimension
0 afterwards, so a reduce_scatter does both. `f32[16{y}] -> f32[16] sum{y}` makes y partial: the
owner of each part keeps it as its addend, a sharded_to_partial, which moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import gcd

from redistrib.errors import LayoutError
from redistrib.synth.plan.collectives import (
    AllReduce,
    Collective,
    CollectivePermute,
    DynamicSlice,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Local,
    Placement,
    apart,
    inside,
    is_chain,
    piece_of,
    split_off,
)
from redistrib.types.refinement import refine

_Placings = tuple[Placement, ...]

MAX_REMEMBERED = 64
"""Answers that are kept, since several proposals for one problem begin or end alike."""


@dataclass(frozen=True, slots=True)
class PartialRoles:
    """The digits that a pair must `reduce`, those that stay partial, and those that become so.

    `reduction` is that of the target; digits are cut like the axes they were asked for.
    """

    reduce: frozenset[DeviceDigit]
    kept: frozenset[DeviceDigit]
    produce: frozenset[DeviceDigit]
    reduction: str

    def part_reduced(self, placings: _Placings) -> tuple[_Placings, _Placings]:
        """The placements of digits that must be reduced, and the others."""
        return _parted(placings, self.reduce)

    def part_produced(self, placings: _Placings) -> tuple[_Placings, _Placings]:
        """The placements of digits that must become partial, and the others."""
        return _parted(placings, self.produce)

    @staticmethod
    def without(
        digits: Iterable[DeviceDigit], parts: Iterable[DeviceDigit]
    ) -> tuple[DeviceDigit, ...]:
        """What is left of digits when parts of them are taken out, in order."""
        pieces = [(d, IndexDigit(0, d.pre, d.size)) for d in sorted(digits)]
        for part in parts:
            for number, piece in enumerate(pieces):
                if inside(part, piece[0]):
                    pieces[number : number + 1] = split_off(piece, part)
                    break
        return tuple(device for device, _ in pieces)


def _parted(placings: _Placings, digits: frozenset[DeviceDigit]) -> tuple[_Placings, _Placings]:
    """The placements of parts of some digits, and the others."""
    if not digits or not placings:
        return (), placings
    of_digits = tuple(p for p in placings if any(inside(p[0], digit) for digit in digits))
    return of_digits, tuple(p for p in placings if p not in of_digits)


def partial_roles(
    src: ArrayType, dst: ArrayType, axes: Iterable[DeviceDigit] | None = None
) -> PartialRoles:
    """The roles of the digits `axes`, a cut of all axes that respects both partial sets.

    Without `axes` the partial sets are cut at their common bounds, where these are nested.
    """
    if not (src.partial or dst.partial):
        return PartialRoles(frozenset(), frozenset(), frozenset(), "sum")
    if axes is None:
        axes = _common_cut(src, dst)
    before = frozenset(d for d in axes if any(inside(d, p) for p in src.partial))
    after = frozenset(d for d in axes if any(inside(d, p) for p in dst.partial))
    kept = before & after if src.reduction == dst.reduction else frozenset()
    return PartialRoles(before - kept, kept, after - kept, dst.reduction or "sum")


def _common_cut(src: ArrayType, dst: ArrayType) -> list[DeviceDigit]:
    digits = []
    for axis in {d.axis for d in (*src.partial, *dst.partial)}:
        sides = [[d for d in t.partial if d.axis == axis] for t in (src, dst)]
        bounds = sorted({b for side in sides for d in side for b in (d.pre, d.end)})
        if is_chain(bounds):
            digits += [DeviceDigit(axis, a, b // a) for a, b in pairwise(bounds)]
        else:
            digits += [d for side in sides for d in side]
    return sorted(digits)


@lru_cache(maxsize=MAX_REMEMBERED)
def reduce_partial(
    src: ArrayType, dst: ArrayType, roles: PartialRoles
) -> tuple[tuple[Collective, ...], ArrayType]:
    """Steps that reduce what must be, and the type that they end in.

    What the target slices anyway is sliced first, and a reduced digit goes where the target wants
    it, else to any local place; only where there is none is it an all_reduce.
    """
    if not roles.reduce:
        return (), src

    def step(collective: Collective) -> bool:
        nonlocal src
        try:
            src = collective.apply(src)
        except LayoutError:
            return False
        steps.append(collective)
        return True

    steps, src = _sliced(src, dst)
    wanted = dict(dst.placements)
    placed = {
        device
        for device in sorted(roles.reduce & wanted.keys())
        if step(ReduceScatter(((device, wanted[device]),)))
    }
    for device in sorted(roles.reduce - placed):
        remainder = fill_runs(
            device, local_runs(src), lambda part, index: step(ReduceScatter(((part, index),)))
        )
        if remainder.size > 1:
            step(AllReduce((remainder,)))
    return tuple(steps), src


def _sliced(src: ArrayType, dst: ArrayType) -> tuple[list[Collective], ArrayType]:
    """What the target slices anyway, as far as there is room, and the type after it."""
    steps: list[Collective] = []
    for placement in dst.placements:
        step = DynamicSlice((placement,))
        try:
            src = step.apply(src)
        except LayoutError:
            continue
        steps.append(step)
    return steps, src


def openings(
    src: ArrayType, dst: ArrayType, roles: PartialRoles
) -> Iterator[tuple[Sequence[Collective], ArrayType]]:
    """Ways to reduce what must be, and the types they end in: scattered, or by one all_reduce.

    The latter leaves all places free for what moves: on x=6, y=12,
    `[4{y:(6)2}, 6] max{x,y:(1)6} -> [4{y:(3)4}, 6]` is then one all_to_all and a slice. What the
    target slices may come before it. Where other digits become partial, addends may be handed on.
    """
    yield reduce_partial(src, dst, roles)
    if not roles.reduce:
        return
    step = AllReduce(tuple(sorted(roles.reduce)))
    yield [step], step.apply(src)
    steps, start = _sliced(src, dst)
    if steps:
        yield [*steps, step], step.apply(start)
    handed = _hand_on(src, roles)
    if handed is not None:
        start = handed.apply(src)
        reducing, start = reduce_partial(start, dst, partial_roles(start, dst))
        yield [handed, *reducing], start


def _hand_on(src: ArrayType, roles: PartialRoles) -> CollectivePermute | None:
    """One permute by which digits that become partial take the addends of those to reduce.

    On y=3, z=6, `[] max{y} -> [] max{z}` hands on from y to z:(1)3, and z:(3)2 has copies, where
    an all_reduce would take two latencies. None where no digit can.
    """
    if src.reduction != roles.reduction:
        return None
    taken = [*dict(src.placements), *roles.reduce]
    takers = [d for d in sorted(roles.produce) if all(apart(d, other) for other in taken)]
    routes: list[tuple[DeviceDigit, DeviceDigit]] = []
    for digit in sorted(roles.reduce):
        remainder = digit
        for n, taker in enumerate(takers):
            size = gcd(remainder.size, taker.size)
            if size > 1:
                old, new = (DeviceDigit(d.axis, d.pre, size) for d in (remainder, taker))
                routes += [(old, new), (new, old)]
                remainder = DeviceDigit(remainder.axis, old.end, remainder.size // size)
                takers[n] = DeviceDigit(taker.axis, new.end, taker.size // size)
    return CollectivePermute(tuple(routes)) if routes else None


def closings(
    start: ArrayType, dst: ArrayType, roles: PartialRoles
) -> Iterator[tuple[ArrayType, Sequence[Collective]]]:
    """Ways to end in the partial set of the target: `make_partial`, or all copies at the end."""
    end, steps = make_partial(start, dst, roles)
    yield end, steps
    if any(isinstance(step, ShardedToPartial) for step in steps):
        copied = dst.replace(partial=roles.kept, reduction=dst.reduction)
        yield copied, [ReplicatedToPartial(tuple(sorted(roles.produce)), roles.reduction)]


@lru_cache(maxsize=MAX_REMEMBERED)
def make_partial(
    start: ArrayType, dst: ArrayType, roles: PartialRoles, *, last: bool = False
) -> tuple[ArrayType, tuple[Collective, ...]]:
    """The type, partial only over what stays so, from which the steps given lead to `dst`.

    A digit that becomes partial owns something until the end, so that what moves is smaller: what
    it owns in `start`, where that is local in the target, else any local digits. On x=2, y=3,
    `[6, 6{y}] -> [6, 6{x}] sum{y}` moves to `[6{y}, 6{x}]`, and y becomes partial there. Of local
    digits it takes the first, or the `last`.
    """
    end = dst.replace(partial=roles.kept, reduction=dst.reduction)
    if not roles.produce or end == start:
        free = tuple(sorted(roles.produce))
        return end, (ReplicatedToPartial(free, roles.reduction),) if free else ()
    spread: list[Placement] = []

    def own(device: DeviceDigit, index: IndexDigit) -> bool:
        nonlocal end
        try:
            end = DynamicSlice(((device, index),)).apply(end)
        except LayoutError:
            return False
        spread.append((device, index))
        return True

    for device in sorted(roles.produce):
        pieces = [piece_of(placement, device) for placement in start.placements]
        owned = next((index for index in pieces if index is not None), None)
        if owned is not None and own(device, owned):
            continue
        dim = -1 if owned is None else owned.dim  # where it may take no more than a permute
        runs = local_runs(end)[:: -1 if last else 1]
        fill_runs(device, sorted(runs, key=lambda run: run.dim != dim), own)
    steps: list[Collective] = []
    if spread:
        steps.append(ShardedToPartial(tuple(spread), roles.reduction))
    free = roles.without(roles.produce, [device for device, _ in spread])
    if free:
        steps.append(ReplicatedToPartial(free, roles.reduction))
    return end, tuple(steps)


def reduce_last(
    src: ArrayType, dst: ArrayType, roles: PartialRoles, limit: int
) -> tuple[ArrayType, list[Collective]] | None:
    """A type as partial as the source, from which the steps given lead to `dst`, or None.

    On x=2, y=3, `[6, 6{y}] sum{x} -> [6{y}, 6{x}]` first moves y, to `[6{y}, 6] sum{x}`; then the
    reduction has the place that it needs.
    """
    end, closing = make_partial(src, dst, roles)
    if not roles.reduce or (roles.produce and src.reduction != roles.reduction):
        return None
    stay: list[Placement] = []
    scatters: list[Placement] = []
    for placement in end.placements:
        pieces = [placement]
        for digit in sorted(roles.reduce):
            for part in list(pieces):
                index = piece_of(part, digit)
                if index is not None:
                    scatters.append((digit, index))
                    pieces[pieces.index(part) :] = split_off(part, digit)
                elif inside(part[0], digit):
                    scatters.append(part)
                    pieces.remove(part)
        stay += pieces
    partial = (*roles.kept, *roles.reduce)
    try:
        end = end.replace(placements=stay, partial=partial, reduction=src.reduction)
    except LayoutError:  # a digit to reduce is not nested in what it is to own
        return None
    if end.tile_size > limit:
        return None
    unscattered = roles.without(roles.reduce, [device for device, _ in scatters])
    steps: list[Collective] = [ReduceScatter(tuple(scatters))] if scatters else []
    steps += [AllReduce(unscattered)] if unscattered else []
    return end, [*steps, *closing]


def reduce_once(
    src: ArrayType, dst: ArrayType, roles: PartialRoles, limit: int
) -> list[Collective] | None:
    """One reduction of all that changes; None where tiles do not fit or digits do not split.

    Owners that change become partial beside what is to be reduced: on x=2, y=2,
    `[8, 8{y}] sum{x} -> [8{y}, 8{x}]` is `[8, 8] sum{x,y}` and one reduce_scatter. What becomes
    partial owns a part of the first dimension with room until then, or of the last.
    """
    for last in (False, True):
        end, closing = make_partial(src, dst, roles, last=last)
        steps = _reduced_once(src, end, dst, roles, limit)
        if steps is not None:
            return [*steps, *closing]
        if not roles.produce:
            break
    return None


def _reduced_once(
    src: ArrayType, end: ArrayType, dst: ArrayType, roles: PartialRoles, limit: int
) -> list[Collective] | None:
    """One reduction that leads to the type before something becomes partial."""
    common = refine(src, end)
    reduction = src.reduction or "sum"
    changed = tuple((d, i) for d, i in common.src.items() if common.dst.get(d) != i)
    wanted = [(d, i) for d, i in common.dst.items() if common.src.get(d) != i]
    steps: list[Collective] = []
    t = src

    def step(collective: Collective) -> bool:
        nonlocal t
        try:
            t = collective.apply(t)
        except LayoutError:
            return False
        steps.append(collective)
        return t == dst or t.tile_size <= limit

    def slice_wanted() -> None:
        for placement in list(wanted):
            if step(DynamicSlice((placement,))):
                wanted.remove(placement)

    slice_wanted()
    if changed and not step(ShardedToPartial(changed, reduction)):
        return None
    slice_wanted()
    if wanted and not step(ReduceScatter(tuple(wanted))):
        return None
    remaining = roles.without(t.partial, sorted(roles.kept))
    if remaining and not step(AllReduce(remaining)):
        return None
    return steps if t == end else None


def local_runs(t: ArrayType) -> list[IndexDigit]:
    """The local factors of a type, with the trailing ones."""
    runs = []
    for dim, (n, factors) in enumerate(zip(t.shape, t.dims, strict=True)):
        pre = 1
        for factor in factors:
            if isinstance(factor, Local):
                runs.append(IndexDigit(dim, pre, factor.size))
            pre *= factor.size
        if n > pre:
            runs.append(IndexDigit(dim, pre, n // pre))
    return runs


def fill_runs(
    device: DeviceDigit,
    runs: Iterable[IndexDigit],
    place: Callable[[DeviceDigit, IndexDigit], bool],
) -> DeviceDigit:
    """What is left of a digit, major parts first, after each run took what divides both.

    `place` says whether a part may own the index digit; the next run is offered it where not.
    12 devices in runs of 8 and 6 place a part of 4 in the first and one of 3 in the second.
    """
    remainder = device
    for run in runs:
        size = gcd(remainder.size, run.size)
        part = DeviceDigit(remainder.axis, remainder.pre, size)
        if size > 1 and place(part, IndexDigit(run.dim, run.pre, size)):
            remainder = DeviceDigit(remainder.axis, part.end, remainder.size // size)
    return remainder
