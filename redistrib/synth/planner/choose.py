"""The planner: propose, price, choose. `plan`, `cost`, `explain` and the oracle all ask here.

Example: x=2,y=4, `f32[4096{x}, 4096{y}] -> f32[4096{y}, 4096{x}]`. `proposals` yields, in turn,

    collectives: three phases   a permute and an all_to_all, 12 MiB received
    collectives: gather once    gather all that changes, slice the target out of it
    direct                      one exchange at the lower bound, 8 MiB received, 4 peers

and `choose` prices each and keeps the cheapest, of equals the first. A proposal is only made when
it is its turn, and a search is only started where it can win: no plan beats `Problem.floor`, one
latency and the bytes that some device must receive. Where digits do not match `direct` comes first,
because it is at once known, and what is proposed after it is a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import inf
from typing import get_args

from redistrib.display import to_html
from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.price import (
    Cost,
    StepCost,
    exchange_seconds,
    total_cost,
    total_seconds,
)
from redistrib.synth.plan.profile import Profile
from redistrib.synth.plan.routing import Traffic, exchange_size, exchange_traffic
from redistrib.synth.planner.across import plan_across
from redistrib.synth.planner.detours.through import stops_between
from redistrib.synth.planner.exact import exact_size, exact_steps
from redistrib.synth.planner.halfway import plan_misaligned
from redistrib.synth.planner.paper.derivation import paper_steps
from redistrib.synth.planner.problem import (
    Effort,
    Problem,
    Strategy,
    StrategyLike,
    check_name,
    make_problem,
)
from redistrib.synth.planner.reductions import (
    make_partial,
    partial_roles,
    reduce_last,
    reduce_once,
    reduce_partial,
)
from redistrib.synth.planner.three_phase import gather_once, plan_aligned
from redistrib.synth.planner.uneven import block_steps
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import divisors
from redistrib.types.named_sharding import TypeLike
from redistrib.types.padding import common_padding, padded

STRATEGIES = get_args(Strategy)
MAX_PROOF_TYPES = 2000  # so many types take a tenth of a second
MAX_ONLY_TYPES = 20_000  # and so many about one
ROUNDING = 1e-9
"""What is cheaper is so by more than this fraction."""

Steps = Sequence[Collective]


def plan(
    src: TypeLike,
    dst: TypeLike,
    *,
    strategy: StrategyLike = "auto",
    effort: Effort = "fast",
    memory_limit: int | str | None = None,
    profile: Profile | str | None = None,
) -> Plan:
    """A plan from `src` to `dst`, two types of one shape and dtype.

    Either may be given as (shape, dtype, NamedSharding); jax is not imported for that. On two
    meshes of the same devices it is planned on that of the source where the target has a type
    there. Else the array is reduced on the source mesh, crosses in one exchange and may be gathered
    on the target mesh; only `auto` and `direct` can do that.

    `strategy`:
        "auto"         the cheapest of all that follow but "exact" on large meshes; see `explain`
        "collectives"  slices, all_to_alls, permutes, gathers and reductions; no exchange
        "direct"       one exchange at the lower bound, beside the reductions
        "exact"        a shortest path over whole types, for small meshes
        "paper"        the search of the paper on its own types, the baseline of the others
        a function     Problem -> steps of your own; they are typed and priced like any others
    `effort`:
        "fast"         under a millisecond where digits match
        "best"         also tiles up to the larger end over equal links, and stops at another layout
                       on the way, where bounds say that they may pay; milliseconds more
    `memory_limit`: bytes per device that no tile of the plan exceeds, both ends included; copies
        inside a collective and the source, which is kept, come on top (`Plan.live_bytes`). Without
        it no tile exceeds the larger end.
    `profile`: a `Profile`, the name of one that is shipped, or the path of a TOML file; it gives
        latencies and bandwidths. None: all axes 1 us and 100 GB/s.

    >>> from redistrib.types.array_type import ArrayType
    >>> from redistrib.types.mesh import Mesh
    >>> mesh = Mesh(x=2, y=4)
    >>> source = ArrayType.parse("f32[4096{x}, 4096{y}]", mesh)
    >>> target = ArrayType.parse("f32[4096{y}, 4096{x}]", mesh)
    >>> found = plan(source, target, strategy="collectives")
    >>> [step.collective for step in found.steps], found.received_bytes, found.lower_bound_bytes
    (['collective_permute', 'all_to_all'], 12582912, 8388608)

    Raises LayoutError if the types do not fit each other, InfeasibleError if the limit allows no
    plan (`least_bytes` is the least that does), RedistribError for an unknown strategy, effort or
    profile, and for a search that would be too large.
    """
    problem = make_problem(src, dst, memory_limit, profile, effort)
    return choose(problem, strategy).plan(problem, strategy)


def cost(
    src: TypeLike,
    dst: TypeLike,
    *,
    strategy: StrategyLike = "auto",
    effort: Effort = "fast",
    memory_limit: int | str | None = None,
    profile: Profile | str | None = None,
) -> Cost:
    """The cost of the plan that `plan` gives for the same arguments; raises what it raises."""
    problem = make_problem(src, dst, memory_limit, profile, effort)
    return choose(problem, strategy).cost(problem)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Steps that solve a problem, with what each of them costs.

    They are made when `make` is called: the price of an exchange needs no route.
    """

    name: str
    costs: tuple[StepCost, ...]
    make: Callable[[], Steps]
    padded_shape: tuple[int, ...] | None = None
    """Of the array that the steps are of, where the ends are uneven."""

    @property
    def seconds(self) -> float:
        """What all steps take."""
        return total_seconds(self.costs)

    def cost(self, problem: Problem) -> Cost:
        """What the plan of these steps costs in all."""
        shape = self.padded_shape
        start = problem.src if shape is None else padded(problem.src, shape)
        return total_cost(start, self.costs)

    def plan(self, problem: Problem, strategy: StrategyLike) -> Plan:
        """The plan of these steps, as one of a strategy."""
        return make_plan(
            problem.src,
            problem.asked,
            strategy if isinstance(strategy, str) else "custom",
            self.make(),
            problem.profile,
            problem.memory_limit,
            problem.common,
            self.padded_shape,
        )


@dataclass(frozen=True, slots=True)
class Proposal:
    """A way to solve a problem, not yet tried.

    `solve` is given the cheapest candidate so far, and answers None where it finds nothing cheaper.
    It raises InfeasibleError or LayoutError where it has no plan at all.
    """

    name: str
    solve: Callable[[Candidate | None], Candidate | None]
    search: bool = False
    """Whether it takes so long that it only starts where it can win."""


def choose(problem: Problem, strategy: StrategyLike = "auto") -> Candidate:
    """The cheapest candidate of a strategy; of equals, the first.

    Raises InfeasibleError or LayoutError where there is none, RedistribError for an unknown name.
    """
    try:
        return _cheapest(problem, _proposals_of(problem, strategy))
    except InfeasibleError as error:
        if strategy != "collectives":
            raise
        raise _least_limit(problem, error) from None


def _least_limit(problem: Problem, error: InfeasibleError) -> InfeasibleError:
    """The error with the least limit at which collectives have a plan.

    A tile is the array over as many devices as divide the mesh, so there are few limits to try.
    """
    src, dst = problem.src, problem.dst
    sizes = {src.size // k for k in divisors(src.mesh.num_devices) if src.size % k == 0}
    for least in sorted(size * src.itemsize for size in sizes):
        if least > error.memory_limit:
            larger = replace(problem, memory_limit=least)
            try:
                _cheapest(larger, _collectives(larger))
            except InfeasibleError:
                continue
            return InfeasibleError(
                f"collectives from {src} to {dst} need tiles of {least} bytes per device; the "
                f"limit is {error.memory_limit}; strategy 'direct' needs less",
                memory_limit=error.memory_limit,
                least_bytes=least,
            )
    return error


def _cheapest(
    problem: Problem,
    proposed: Iterable[Proposal],
    tried: Callable[[str, Candidate | str], None] = lambda _name, _found: None,
) -> Candidate:
    """`choose` among some proposals; `tried` is told what became of each."""
    best: Candidate | None = None
    floor: float | None = None
    reasons: list[RedistribError] = []
    for proposal in proposed:
        bound = inf if best is None else best.seconds
        if proposal.search and best is not None:
            floor = problem.floor() if floor is None else floor
            if bound * (1 - ROUNDING) <= floor:
                tried(proposal.name, f"not searched: no plan takes less than {floor * 1e6:.3g} us")
                continue
        try:
            found = proposal.solve(best)
        except (InfeasibleError, LayoutError) as error:
            reasons.append(error)
            tried(proposal.name, str(error))
            continue
        tried(proposal.name, f"nothing below {bound * 1e6:.3g} us" if found is None else found)
        if found is not None and (best is None or found.seconds < bound):
            best = found
    if best is None:
        raise min(reasons, key=lambda error: error.__dict__.get("least_bytes", inf))
    return best


def choose_without_stops(problem: Problem, strategy: Strategy = "auto") -> Candidate:
    """`choose` without layouts to stop at on the way: what a part of such a way costs."""
    if strategy == "auto" and not problem.uneven:
        return _cheapest(problem, _alone(problem))
    return choose(problem, strategy)


def _proposals_of(problem: Problem, strategy: StrategyLike) -> Iterator[Proposal]:
    """What a strategy proposes. Raises RedistribError for an unknown one."""
    if callable(strategy):
        return iter([Proposal("custom", lambda _: _custom(problem, strategy))])
    check_name("strategy", strategy, STRATEGIES)
    if problem.uneven:
        return _uneven(problem, strategy)
    match strategy:
        case "auto":
            return proposals(problem)
        case "collectives":
            return _collectives(problem)
        case "direct":
            return iter([Proposal("direct", lambda _: _direct(problem))])
        case "exact":
            return iter([_from_steps("exact", problem, lambda _: _exact(problem))])
        case "paper":
            # In normal form no tile exceeds both ends, so every limit that is let through is kept.
            return iter(
                [_from_steps("paper", problem, lambda _: paper_steps(problem.src, problem.dst))]
            )


def proposals(problem: Problem) -> Iterator[Proposal]:
    """All that `auto` chooses from, the cheapest-looking first."""
    if problem.uneven:
        yield from _uneven(problem, "auto")
        return
    yield from _alone(problem)
    if problem.effort == "best" and not (problem.across or problem.partial):
        yield Proposal("stops on the way", lambda best: _with_stops(problem, best), search=True)


def _with_stops(problem: Problem, best: Candidate | None) -> Candidate | None:
    """Plans in a row with stops between them, where that is cheaper than the best plan alone."""
    if best is None:
        return None
    communicating = sum(step.communicates for step in best.costs)
    stops = stops_between(problem, best.seconds, communicating, _leg_costs)
    if not stops:
        return None
    legs = [
        _leg(start, end, problem.profile, problem.memory_limit)
        for start, end in pairwise((problem.src, *stops, problem.dst))
    ]
    found = [leg for leg in legs if leg is not None]
    if len(found) < len(legs):
        return None
    costs = tuple(cost for leg in found for cost in leg.costs)
    if total_seconds(costs) * (1 + ROUNDING) >= best.seconds:
        return None
    through = f"stops at {', '.join(map(str, stops))}"
    return Candidate(through, costs, lambda: [step for leg in found for step in leg.make()])


@lru_cache(maxsize=1 << 12)
def _leg(
    src: ArrayType, dst: ArrayType, profile: Profile, memory_limit: int | None
) -> Candidate | None:
    """The plan to or from a stop; a search where digits do not match would take too long."""
    try:
        problem = make_problem(src, dst, memory_limit, profile, "best")
        return choose_without_stops(problem, "auto" if problem.refinement.aligned else "direct")
    except InfeasibleError:
        return None


def _leg_costs(
    src: ArrayType, dst: ArrayType, profile: Profile, memory_limit: int | None
) -> tuple[StepCost, ...] | None:
    found = _leg(src, dst, profile, memory_limit)
    return None if found is None else found.costs


def _alone(problem: Problem) -> Iterator[Proposal]:
    """Plans that stop at no layout on the way."""
    if problem.across:
        yield from _across(problem)
        return
    direct = Proposal("direct", lambda _: _direct(problem))
    if problem.refinement.aligned:
        yield from _collectives(problem)
        yield direct
    else:
        yield direct
        yield from _collectives(problem)


def _from_steps(
    name: str,
    problem: Problem,
    make: Callable[[float], Steps | None],
    search: bool = False,
) -> Proposal:
    """A proposal whose steps are made before they are priced."""

    def solve(best: Candidate | None) -> Candidate | None:
        steps = make(inf if best is None else best.seconds)
        if steps is None:
            return None
        return Candidate(name, problem.step_costs(steps), lambda: steps)

    return Proposal(name, solve, search)


def _custom(problem: Problem, strategy: Callable[[Problem], Steps]) -> Candidate:
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


def _across(problem: Problem) -> Iterator[Proposal]:
    """Between two meshes: every replica of the target receives its tile, or a part and gathers.

    The second crosses once to each group of replicas. No profile has a link between two meshes.
    """
    src, dst = problem.src, problem.dst
    yield _from_steps(
        "direct: spread over replicas", problem, lambda _: plan_across(src, dst, spread=True)
    )
    yield Proposal("direct", lambda _: _direct(problem))


def _uneven(problem: Problem, strategy: Strategy) -> Iterator[Proposal]:
    """Between uneven types: as even types of a padded array, or an exchange of blocks.

    The padded tiles, too, are no larger than the larger end.
    """
    src, dst = problem.src, problem.dst
    shape = common_padding(src, dst)
    if shape is not None and strategy != "direct":

        def solve(best: Candidate | None) -> Candidate:
            del best
            limit = problem.memory_limit or max(src.tile_bytes, dst.tile_bytes)
            ends = padded(src, shape), padded(dst, shape)
            even = make_problem(*ends, limit, problem.profile, problem.effort)
            found = choose(even, strategy)
            return replace(found, name=f"padded, {found.name}", padded_shape=shape)

        yield Proposal("padded", solve)
    if strategy in ("auto", "direct"):
        yield _from_steps("blocks", problem, lambda _: block_steps(src, dst))
    elif shape is None:
        raise LayoutError(
            f"strategy {strategy!r} is of types that padding makes even; those from {src} to "
            f"{dst} exchange blocks, under auto or direct",
            src=src,
            dst=dst,
        )


def _collectives(problem: Problem) -> Iterator[Proposal]:
    """Plans without an exchange.

    Where digits do not match, reductions come first and last, on their own; the partial set stays
    between them.
    """
    feasible: list[str] = []
    if problem.refinement.aligned:
        ways = _three_phases(problem, problem.limit(aligned=True))
    else:
        ways = _around(problem)
    for proposal in ways:
        yield _noted(proposal, feasible)
    if not problem.partial and problem.refinement.aligned:
        return
    src, dst, limit = problem.src, problem.dst, problem.limit(problem.refinement.aligned)
    if src.partial or src.dtype[0] in "iu":
        roles = partial_roles(src, dst)
        yield _from_steps(
            "collectives: reduce once", problem, lambda _: reduce_once(src, dst, roles, limit)
        )
    yield from _shortest(problem, feasible)


def _around(problem: Problem) -> Iterator[Proposal]:
    """Between types whose digits do not match: reductions first, or last, and moves beside them."""
    src, dst = problem.src, problem.dst
    roles = partial_roles(src, dst)
    opening, start = reduce_partial(src, dst, roles)
    end, closing = make_partial(start, dst, roles)
    yield from _wrapped(problem, opening, _middle(problem, start, end), closing)
    late = reduce_last(src, dst, roles, problem.limit(aligned=False))
    if late is not None:
        yield from _wrapped(problem, [], _middle(problem, src, late[0]), late[1])


def _middle(problem: Problem, start: ArrayType, end: ArrayType) -> Iterator[Proposal]:
    """Proposals between two types with one partial set, on the way."""
    common = problem.refined(start, end)
    middle = replace(problem, src=start, dst=end, asked=end, common=common)
    limit = problem.limit(common.aligned)
    return _three_phases(middle, limit) if common.aligned else _misaligned(middle, limit)


def _noted(proposal: Proposal, feasible: list[str]) -> Proposal:
    """A proposal that notes its name where it is feasible, though it may be too dear."""

    def solve(best: Candidate | None) -> Candidate | None:
        candidate = proposal.solve(best)
        feasible.append(proposal.name)
        return candidate

    return replace(proposal, solve=solve)


def _wrapped(
    problem: Problem, opening: Steps, between: Iterator[Proposal], closing: Steps
) -> Iterator[Proposal]:
    """Proposals for what lies between some steps, with these steps."""
    for inner in between:
        if not (opening or closing):
            yield inner
            continue

        def solve(best: Candidate | None, inner: Proposal = inner) -> Candidate | None:
            found = inner.solve(best)
            if found is None:
                return None
            steps = [*opening, *found.make(), *closing]
            return Candidate(inner.name, problem.step_costs(steps), lambda: steps)

        yield Proposal(inner.name, solve, inner.search)


def _three_phases(problem: Problem, limit: int) -> Iterator[Proposal]:
    """Between types whose digits match, through tiles of at most `limit` elements."""
    src, refinement = problem.src, problem.refinement
    yield _from_steps(
        "collectives: three phases",
        problem,
        lambda _: plan_aligned(src, problem.dst, refinement, limit, problem.links),
    )
    if src.partial == problem.dst.partial and src.reduction == problem.dst.reduction:
        yield _from_steps(
            "collectives: gather once",
            problem,
            lambda _: gather_once(src, refinement, limit, problem.links),
        )


def _misaligned(problem: Problem, limit: int) -> Iterator[Proposal]:
    """Between types whose digits do not match: halfway types."""
    src, dst, profile = problem.src, problem.dst, problem.links
    yield _from_steps(
        "collectives: gather once",
        problem,
        lambda _: gather_once(src, problem.refinement, limit, profile),
    )
    yield _from_steps(
        "collectives: halfway",
        problem,
        lambda bound: plan_misaligned(src, dst, limit, profile, bound),
        search=True,
    )


def _shortest(problem: Problem, feasible: Sequence[str]) -> Iterator[Proposal]:
    """On small meshes, a shortest path: it proves that nothing is cheaper, or finds it.

    Where no other collectives are `feasible`, it may search longer.
    """
    src, dst, limit = problem.src, problem.dst, problem.limit(problem.refinement.aligned)

    def shortest(bound: float) -> Steps | None:
        if exact_size(src, dst) > (MAX_PROOF_TYPES if feasible else MAX_ONLY_TYPES):
            return None
        return exact_steps(src, dst, limit, problem.links, bound * (1 - ROUNDING))

    yield _from_steps("collectives: exact", problem, shortest, search=True)


def _direct(problem: Problem) -> Candidate:
    """One exchange at the lower bound, beside the reductions."""
    exchange = _exchange_cost(problem)
    if exchange is not None:
        return Candidate("direct", (exchange,), lambda: _direct_steps(problem)[0])
    steps, traffic = _direct_steps(problem)
    return Candidate("direct", problem.step_costs(steps, traffic), lambda: steps)


def _direct_steps(problem: Problem) -> tuple[Steps, Traffic | None]:
    """The steps of `direct`, and the traffic of the exchange if there is one."""
    if problem.across:
        return plan_across(problem.src, problem.dst, spread=False), None
    roles = partial_roles(problem.src, problem.dst)
    opening, start = reduce_partial(problem.src, problem.dst, roles)
    end, closing = make_partial(start, problem.dst, roles)
    if start == end:
        return [*opening, *closing], None
    common = problem.refined(start, end)
    traffic = exchange_traffic(start, end, common)
    if traffic.received == 0:
        local = replace(problem, src=start, dst=end, asked=end, memory_limit=None, common=common)
        return [*opening, *choose(local, "collectives").make(), *closing], None
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
    return StepCost(seconds, received * src.itemsize, dst.tile_bytes, True)


def _exact(problem: Problem) -> Steps:
    limit = problem.limit(problem.refinement.aligned)
    steps = exact_steps(problem.src, problem.dst, limit, problem.links)
    assert steps is not None  # where no cheaper sequence is asked for, there is one or an error
    return steps


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that a plan was chosen from: per proposal its plan, or why there is none.

    `chosen` is the number of the alternative whose plan is `plan`.
    """

    plan: Plan
    alternatives: tuple[tuple[str, Plan | str], ...]
    chosen: int

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.alternatives)
        lines = [f"{self.plan.src} -> {self.plan.dst}"]
        for at, (name, found) in enumerate(self.alternatives):
            mark = "*" if at == self.chosen else " "
            text = found if isinstance(found, str) else _summary(found)
            lines.append(f"{mark} {name:{width}}  {text}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return to_html(self)


def explain(
    src: TypeLike,
    dst: TypeLike,
    *,
    effort: Effort = "fast",
    memory_limit: int | str | None = None,
    profile: Profile | str | None = None,
) -> Explanation:
    """Why this plan: all that `auto` chooses from, with the one that it chose. Raises as `plan`."""
    problem = make_problem(src, dst, memory_limit, profile, effort)
    tried: list[tuple[str, Candidate | str]] = []
    best = _cheapest(problem, proposals(problem), lambda name, found: tried.append((name, found)))
    plans = [
        (name, found if isinstance(found, str) else found.plan(problem, "auto"))
        for name, found in tried
    ]
    chosen = next(at for at, (_, found) in enumerate(tried) if found is best)
    made = plans[chosen][1]
    assert isinstance(made, Plan)
    return Explanation(made, tuple(plans), chosen)


def _summary(found: Plan) -> str:
    steps = ", ".join(step.collective for step in found.steps) or "nothing to do"
    return (
        f"{found.seconds * 1e6:.3g} us, {found.received_bytes} bytes received (bound "
        f"{found.lower_bound_bytes}), peak tile {found.peak_tile_bytes} bytes: {steps}"
    )
