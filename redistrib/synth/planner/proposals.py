"""What each strategy proposes: the lowerings as candidates, the cheapest-looking first.

Example: x=2,y=4, `f32[4096{x}, 4096{y}] -> f32[4096{y}, 4096{x}]`. `alone` yields, in turn,

    collectives: three phases   a permute and an all_to_all, 12 MiB received
    collectives: gather once    gather all that changes, slice the target out of it
    direct                      one exchange at the lower bound, 8 MiB received, 4 peers

Where digits do not match `direct` comes first, because it is at once known, and what is proposed
after it is a search. Partial sums are reduced before, after or while other digits move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from math import inf, nextafter, prod

from redistrib.errors import InfeasibleError, LayoutError
from redistrib.synth.plan.collectives import Collective, DynamicSlice, ShardedToPartial
from redistrib.synth.plan.price import StepCost, exchange_seconds, price_steps, total_seconds
from redistrib.synth.plan.routing import Traffic, exchange_size, exchange_traffic
from redistrib.synth.planner.across import plan_across
from redistrib.synth.planner.candidate import (
    ROUNDING,
    Candidate,
    Proposal,
    Steps,
    cheapest,
    from_steps,
    on_whole,
    wrapped,
)
from redistrib.synth.planner.exact import MAX_COLLECTIVES, MAX_TYPES, exact_size, exact_steps
from redistrib.synth.planner.halfway import plan_misaligned
from redistrib.synth.planner.near import (
    MAX_EDGES,
    MAX_EDGES_ONLY,
    MAX_EDGES_WITHIN,
    near_steps,
)
from redistrib.synth.planner.problem import Problem
from redistrib.synth.planner.reductions import (
    closings,
    make_partial,
    openings,
    partial_roles,
    reduce_last,
    reduce_once,
    reduce_partial,
)
from redistrib.synth.planner.three_phase import gather_once, plan_aligned
from redistrib.synth.planner.work import Work
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh
from redistrib.types.refinement import Refinement, refine

MAX_PROOF_TYPES = 2000  # so many types take a tenth of a second
MAX_ONLY_TYPES = 20_000  # and so many about one
HALFWAY = "collectives: halfway"


def alone(problem: Problem, searched: bool = True) -> Iterator[Proposal]:
    """Plans that stop at no layout on the way; shortest paths are `searched` for, or not."""
    if not problem.src.size and not problem.across:
        yield nothing(problem)
        return
    if problem.across:
        yield from _across(problem)
        return
    aligned = problem.refinement.aligned
    if not aligned:
        yield from _exchanges(problem)
        if searched:
            yield from _on_used_axes(problem, collectives)
    yield from collectives(problem, searched)
    if aligned:
        yield from _exchanges(problem, bounded=not searched)
        if searched and problem.partial:
            yield from _on_used_axes(problem, _shortest)


def _on_used_axes(
    problem: Problem, proposed: Callable[[Problem], Iterator[Proposal]]
) -> Iterator[Proposal]:
    """What is proposed where idle axes are left alone, if types are too many for a proof.

    With an idle axis of 4 `i8[12{z}, 480{_3,y}] -> i8[12, 480{_4,z}]` on y=5,z=6 meets halfway, at
    ten times what it takes without, where it does not meet and gathers first. Searches have as much
    work as on a mesh of these axes alone, so that an
    idle one hides nothing of what they find there.
    """
    src, dst = problem.src, problem.dst
    used = {digit.axis for t in (src, dst) for digit in (*dict(t.placements), *t.partial)}
    axes = [axis for axis in src.mesh.axes if axis[0] in used]
    devices = prod(size for _, size in axes)
    if devices == src.mesh.num_devices or exact_size(src, dst) <= MAX_PROOF_TYPES:
        return
    start, end = (t.replace(mesh=Mesh(axes)) for t in (src, dst))
    smaller = replace(
        problem, src=start, dst=end, target=end, common=refine(start, end), work=Work()
    )
    for inner in proposed(smaller):
        candidate = on_whole(problem, inner)
        yield replace(candidate, name=f"{inner.name}, on used axes")


def nothing(problem: Problem) -> Proposal:
    """Of an array without elements: what moves is local, and so are all steps.

    An owner becomes an addend of a sum of nothing, which is no sum: `f32[0, 6{y}] -> f32[0, 6]`.
    """
    before, after = problem.src.placements, problem.dst.placements
    freed = tuple(placement for placement in before if placement not in after)
    taken = tuple(placement for placement in after if placement not in before)
    steps: list[Collective] = [ShardedToPartial(freed, "sum")] if freed else []
    steps += [DynamicSlice(taken)] if taken else []
    return from_steps("no elements", problem, lambda _: steps)


def _across(problem: Problem) -> Iterator[Proposal]:
    """Between two meshes: every replica of the target receives its tile, or a part and gathers.

    The second crosses once to each group of replicas. No profile has a link between two meshes.
    """
    yield from_steps(
        "direct: spread over replicas", problem, lambda _: _across_steps(problem, spread=True)
    )
    yield Proposal("direct", lambda _: direct(problem))


def _across_steps(problem: Problem, spread: bool) -> Steps:
    links = problem.links, problem.target_links
    return plan_across(problem.src, problem.dst, links, spread=spread)


def _exchanges(problem: Problem, bounded: bool = False) -> Iterator[Proposal]:
    """One exchange. What becomes partial owns something until then, or is copied first.

    Where `bounded` it is not made where it takes as long as the best so far.
    """

    def unless_dearer(
        make: Callable[[Problem], Candidate | None], *, copies: bool = False
    ) -> Proposal:
        def solve(best: Candidate | None) -> Candidate | None:
            if bounded and best is not None and _least_seconds(problem, copies) >= best.seconds:
                return None
            return make(problem)

        return Proposal("direct: copies" if copies else "direct", solve)

    yield unless_dearer(direct)
    if problem.partial:
        yield unless_dearer(_direct_copies, copies=True)


def _least_seconds(problem: Problem, copies: bool) -> float:
    """A lower bound of the seconds of one exchange with its reductions; inf where there is none.

    With `copies`, of the one that sends a whole tile to every copy that becomes an addend.
    """
    src, dst, links = problem.src, problem.dst, problem.links
    roles = partial_roles(src, dst)
    opening, start = reduce_partial(src, dst, roles)
    ways = list(closings(start, dst, roles))
    if copies and len(ways) == 1:
        return inf
    end, closing = ways[int(copies)]
    received, peers = exchange_size(end, problem.refined(start, end))
    moving = exchange_seconds(start, end, received, peers, links) if received else 0.0
    return _around_seconds(problem, opening, moving, end, closing)


def _around_seconds(
    problem: Problem, opening: Steps, between: float, end: ArrayType, closing: Steps
) -> float:
    """The seconds of steps, of so many between them, and of others from the type `end` on."""
    before = total_seconds(problem.step_costs(opening))
    after = total_seconds(price_steps(end, problem.dst, closing, problem.links))
    return (before + between + after) * (1 - ROUNDING)


def direct(problem: Problem) -> Candidate:
    """One exchange at the lower bound, beside the reductions."""
    exchange = _exchange_cost(problem)
    if exchange is not None:
        return Candidate("direct", (exchange,), lambda: _direct_steps(problem)[0])
    steps, traffic = _direct_steps(problem)
    return Candidate("direct", problem.step_costs(steps, traffic), lambda: steps)


def _direct_copies(problem: Problem) -> Candidate | None:
    """An exchange that sends a whole tile to every copy, of which one will be the addend.

    More bytes, from fewer peers. None where that changes nothing.
    """
    src, dst = problem.src, problem.dst
    roles = partial_roles(src, dst)
    opening, start = reduce_partial(src, dst, roles)
    ends = list(closings(start, dst, roles))
    if len(ends) == 1 or ends[1][0] == start:
        return None
    end, closing = ends[1]
    traffic = exchange_traffic(start, end, problem.refined(start, end))
    if not traffic.received:
        return None
    steps = [*opening, traffic.exchange, *closing]
    return Candidate("direct: copies", problem.step_costs(steps, traffic), lambda: steps)


def _direct_steps(problem: Problem) -> tuple[Steps, Traffic | None]:
    """The steps of `direct`, and the traffic of the exchange if there is one."""
    if problem.across:
        return _across_steps(problem, spread=False), None
    roles = partial_roles(problem.src, problem.dst)
    opening, start = reduce_partial(problem.src, problem.dst, roles)
    end, closing = make_partial(start, problem.dst, roles)
    if start == end:
        return [*opening, *closing], None
    common = problem.refined(start, end)
    traffic = exchange_traffic(start, end, common)
    if traffic.received == 0:
        local = replace(problem, src=start, dst=end, target=end, memory_limit=None, common=common)
        return [*opening, *cheapest(local, collectives(local)).make(), *closing], None
    return [*opening, traffic.exchange, *closing], traffic


def _exchange_cost(problem: Problem) -> StepCost | None:
    """What `direct` costs where it is one exchange on one mesh, without partial sums."""
    src, dst, refinement = problem.src, problem.dst, problem.common
    if refinement is None or problem.partial:
        return None
    received, peers = exchange_size(dst, refinement)
    if not received:
        return None
    seconds = exchange_seconds(src, dst, received, peers, problem.links)
    return StepCost(seconds, received * src.itemsize, dst.tile_bytes, True, peers)


def collectives(problem: Problem, searched: bool = True) -> Iterator[Proposal]:
    """Plans without an exchange.

    Where digits do not match, reductions come first and last, on their own; the partial set stays
    between them.
    """
    aligned = problem.refinement.aligned
    ways = _three_phases(problem, problem.limit(aligned)) if aligned else iter(())
    if aligned and not problem.partial:
        yield from ways
        return
    record = _Record()
    for proposal in chain(ways, _around(problem, record, bounded=aligned and not searched)):
        yield _recorded(proposal, record)
    src, dst, limit = problem.src, problem.dst, problem.limit(aligned)
    if src.partial or src.dtype[0] in "iu":
        roles = partial_roles(src, dst)
        yield from_steps(
            "collectives: reduce once", problem, lambda _: reduce_once(src, dst, roles, limit)
        )
    if searched:
        yield from _shortest(problem, bool(record.feasible))


@dataclass(slots=True)
class _Record:
    """What became of proposals so far: the names of feasible ones, the seconds of the best plan."""

    feasible: list[str] = field(default_factory=list)
    seconds: float = inf


def _recorded(proposal: Proposal, record: _Record) -> Proposal:
    """A proposal that is recorded once it is tried; feasible: it gives a plan, or is too dear."""

    def solve(best: Candidate | None) -> Candidate | None:
        candidate = proposal.solve(best)
        if candidate is not None or proposal.name == HALFWAY:
            record.feasible.append(proposal.name)
        if candidate is not None:
            record.seconds = min(record.seconds, candidate.seconds)
        return candidate

    return replace(proposal, solve=solve)


def _around(problem: Problem, record: _Record, bounded: bool) -> Iterator[Proposal]:
    """Between types whose digits do not match, or partial ones: reductions around what moves.

    They come first, the digits scattered or by one all_reduce, or last. Where `bounded` nothing is
    proposed that takes as long as the best on `record`.
    """
    src, dst, fastest = problem.src, problem.dst, problem.fastest
    roles = partial_roles(src, dst)

    def between(
        opening: Steps, start: ArrayType, end: ArrayType, closing: Steps
    ) -> Iterator[Proposal]:
        common = problem.refined(start, end)
        if bounded:
            received = exchange_size(end, common)[0] * src.itemsize
            least = fastest.latency + received / fastest.bandwidth if received else 0.0
            if _around_seconds(problem, opening, least, end, closing) >= record.seconds:
                return
        yield from wrapped(problem, opening, _middle(problem, start, end, common), closing)

    late = reduce_last(src, dst, roles, problem.limit(aligned=False))
    if late is not None:
        yield from between([], src, *late)
    for opening, start in openings(src, dst, roles):
        if bounded and total_seconds(problem.step_costs(opening)) >= record.seconds:
            continue
        for end, closing in closings(start, dst, partial_roles(start, dst)):
            yield from between(opening, start, end, closing)


def _middle(
    problem: Problem, start: ArrayType, end: ArrayType, common: Refinement
) -> Iterator[Proposal]:
    """Proposals between two types with one partial set, on the way."""
    middle = replace(problem, src=start, dst=end, target=end, common=common)
    limit = problem.limit(common.aligned)
    if common.aligned:
        yield from _three_phases(middle, limit)
        return
    yield from _misaligned(middle, limit)
    if problem.partial and exact_size(problem.src, problem.dst) > MAX_PROOF_TYPES:
        yield _near(middle, MAX_EDGES_WITHIN)


def _three_phases(problem: Problem, limit: int) -> Iterator[Proposal]:
    """Between types whose digits match, through tiles of at most `limit` elements."""
    src, refinement = problem.src, problem.refinement
    yield from_steps(
        "collectives: three phases",
        problem,
        lambda bound: plan_aligned(src, problem.dst, refinement, limit, problem.links, bound),
    )
    if src.partial == problem.dst.partial and src.reduction == problem.dst.reduction:
        yield from_steps(
            "collectives: gather once",
            problem,
            lambda _: gather_once(src, refinement, limit, problem.links),
        )


def _misaligned(problem: Problem, limit: int) -> Iterator[Proposal]:
    """Between types whose digits do not match: halfway types."""
    src, dst, profile = problem.src, problem.dst, problem.links

    def halfway(bound: float) -> Steps | None:
        with problem.work.share(2) as work:
            return plan_misaligned(src, dst, limit, profile, bound, work)

    yield from_steps(
        "collectives: gather once",
        problem,
        lambda _: gather_once(src, problem.refinement, limit, profile),
    )
    yield from_steps(
        HALFWAY,
        problem,
        halfway,
        search=True,
    )


def _near(problem: Problem, most_edges: int = MAX_EDGES) -> Proposal:
    """A search near both ends."""
    src, dst, limit = problem.src, problem.dst, problem.limit(problem.refinement.aligned)

    def near(bound: float) -> Steps | None:
        below = bound * (1 - ROUNDING)
        return near_steps(src, dst, limit, problem.links, below, most_edges, problem.work)

    return from_steps("collectives: near the ends", problem, near, search=True)


def _shortest(problem: Problem, feasible: bool = True) -> Iterator[Proposal]:
    """On small meshes, a shortest path: it proves that nothing is cheaper, or finds it.

    On others a search near both ends. Where no other collectives are `feasible`, both look longer,
    the first only where there is no plan at all.
    """
    src, dst, limit = problem.src, problem.dst, problem.limit(problem.refinement.aligned)
    types = exact_size(src, dst)

    def shortest(bound: float) -> Steps | None:
        if types > (MAX_PROOF_TYPES if feasible or bound < inf else MAX_ONLY_TYPES):
            return None
        work = problem.work if bound < inf else Work(MAX_COLLECTIVES)
        return exact_steps(src, dst, limit, problem.links, bound * (1 - ROUNDING), work)

    if types > MAX_PROOF_TYPES and feasible:
        yield _near(problem)
    elif types > MAX_PROOF_TYPES:
        *_, (opening, start) = openings(src, dst, partial_roles(src, dst))
        if opening:
            yield _near(problem)
        if not feasible:
            between = replace(problem, src=start, common=problem.refined(start, dst))
            yield from wrapped(problem, opening, iter([_near(between, MAX_EDGES_ONLY)]), [])
    yield from_steps("collectives: exact", problem, shortest, search=True)


def exact(problem: Problem) -> Steps:
    """A shortest path over whole types. Raises RedistribError where the search is too large.

    What collectives find at once need not be beaten, but nothing dearer is looked at.
    """
    src, dst, limit = problem.src, problem.dst, problem.limit(problem.refinement.aligned)
    known = inf
    if exact_size(src, dst) <= MAX_TYPES:
        with suppress(InfeasibleError, LayoutError):
            fresh = replace(problem, work=Work())
            known = cheapest(fresh, collectives(fresh, searched=False)).seconds
    bound = nextafter(known * (1 + ROUNDING), inf)
    steps = exact_steps(src, dst, limit, problem.links, bound)
    if steps is None:  # around reductions, tiles may be larger than on the whole way
        steps = exact_steps(src, dst, limit, problem.links)
    assert steps is not None  # where no cheaper sequence is asked for, there is one or an error
    return steps


def custom(problem: Problem, strategy: Callable[[Problem], Steps]) -> Candidate:
    """What a caller's own function gives. Raises InfeasibleError where that exceeds the limit."""
    steps = tuple(strategy(problem))
    costs = problem.step_costs(steps)
    limit = problem.memory_limit or max(problem.src.tile_bytes, problem.dst.tile_bytes)
    most = max((step.tile_bytes for step in costs), default=0)
    if most > limit:
        raise InfeasibleError(
            f"no tile exceeds the memory limit, by default the larger end: {limit} bytes per "
            f"device; the steps given have one of {most}",
            memory_limit=limit,
            least_bytes=most,
        )
    return Candidate("custom", costs, lambda: steps)
