"""Misaligned pairs with collectives only (docs/theory.md, section 3).

Where digits do not match, two types still meet halfway. From the source, a slice and one all_to_all
bring digits in or move them out of the way; from the target backwards, an all_to_all and a gather
undo the like. Halfway types with the same tiles join by one table permute, equal ones at once;
`meeting.py` finds them. The tile is constant between the slice and the gather, so none exceeds an
end.

Where the ends do not meet, a few digits are gathered early or sliced late. Example: x=6,
`f32[12{x}] -> f32[12{_2,x}]` has nowhere to move a digit to; with all of x gathered, the target is
sliced out of the 12 elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from math import inf

from redistrib.errors import InfeasibleError
from redistrib.synth.plan.collectives import AllGather, Collective, DynamicSlice
from redistrib.synth.plan.price import price_step
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.halfway_type import with_placements
from redistrib.synth.planner.meeting import MeetingSearch
from redistrib.synth.planner.prime_digits import prime_systems, split_state
from redistrib.synth.planner.three_phase import plan_aligned
from redistrib.synth.planner.work import Work
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import Placement
from redistrib.types.refinement import refine

MAX_GATHERED = 2  # digits that are gathered early or sliced late where the ends do not meet
MAX_RELAXED = 24  # such ends that are tried, smallest tiles first, within the limit or not


def plan_misaligned(
    src: ArrayType,
    dst: ArrayType,
    limit: int,
    links: Profile,
    bound: float,
    work: Work,
) -> list[Collective] | None:
    """The cheapest steps through halfway types, between two types with one partial set.

    None where they take `bound` seconds or more. Where the ends do not meet, some digits are
    gathered early or sliced late, as few as will do, at worst all of them. `limit` bounds tiles on
    the way, in elements per device.

    Raises InfeasibleError, with the least memory that this takes, where that exceeds the limit.
    """
    with work.share(2) as part:
        search = MeetingSearch(src, dst, links, bound, part)
        steps = search.run()
    if steps is not None or search.met:
        return steps
    steps = _in_two(src, dst, limit, links, bound, work)
    if steps is not None:
        return steps
    sides = list(_relaxed(src)), list(_relaxed(dst))
    ends = sorted(product(*sides), key=lambda pair: max(pair[0][1].tile_size, pair[1][1].tile_size))
    for (gathered, start), (sliced, end) in ends[1 : MAX_RELAXED + 1]:
        size = max(start.tile_size, end.tile_size)
        if size > limit and bound < inf:
            break
        tile, opening = src.tile_size, [AllGather(gathered)] if gathered else []
        spent = sum(price_step(step, tile, src.itemsize, links)[2] for step in opening)
        with work.share(4) as part:
            search = MeetingSearch(start, end, links, bound - spent, part)
            meeting = [] if start == end else search.run() if spent < bound else None
        if meeting is None:
            continue
        if size > limit:
            raise _too_large(src, limit, size)
        return [*opening, *meeting, *([DynamicSlice(sliced)] if sliced else [])]
    if src.size > limit:
        raise _too_large(src, limit, src.size)
    return [AllGather(src.placements), DynamicSlice(dst.placements)]


def _in_two(
    src: ArrayType, dst: ArrayType, limit: int, links: Profile, bound: float, work: Work
) -> list[Collective] | None:
    """The misaligned components and the aligned ones one after the other, if either order fits."""
    components = refine(src, dst).components()
    for aligned_first in (False, True):
        placed = [c.dst if c.aligned == aligned_first else c.src for c in components]
        middle = with_placements(src, (p for placements in placed for p in placements))
        if middle.tile_size > limit or middle in (src, dst):
            continue
        ends, aligned_ends = [(src, middle), (middle, dst)][:: -1 if aligned_first else 1]
        meeting = MeetingSearch(*ends, links, bound, work).run()
        if meeting is not None:
            aligned = plan_aligned(*aligned_ends, refine(*aligned_ends), limit, links) or []
            return [*aligned, *meeting] if aligned_first else [*meeting, *aligned]
    return None


def _too_large(src: ArrayType, limit: int, size: int) -> InfeasibleError:
    least = size * src.itemsize
    return InfeasibleError(
        f"collectives were found through tiles of {least} bytes per device; the limit is "
        f"{limit * src.itemsize}; strategy 'direct' needs less",
        memory_limit=limit * src.itemsize,
        least_bytes=least,
    )


def _relaxed(end: ArrayType) -> Iterator[tuple[tuple[Placement, ...], ArrayType]]:
    """An end with a few of its owned prime digits made local, or all, and those digits."""
    for system in prime_systems(end.mesh, end.partial):
        owned = split_state(end.placements, system)
        if owned is not None:
            break
    else:
        raise AssertionError("some order of the primes fits one type")
    for count in sorted({*range(min(MAX_GATHERED, len(owned)) + 1), len(owned)}):
        for group in combinations(owned.items(), count):
            kept = [placement for placement in owned.items() if placement not in group]
            yield group, with_placements(end, kept)
