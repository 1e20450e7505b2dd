"""The planner: propose, price, choose. `plan`, `cost`, `explain` and the oracle all ask here.

Example: x=2,y=4, `f32[4096{x}, 4096{y}] -> f32[4096{y}, 4096{x}]`. `proposals` yields what `auto`
chooses from: three phases (a permute and an all_to_all), one gather with a slice, one exchange; see
`proposals.py`. `choose` has `cheapest` price each, and the exchange wins. With effort "best" it
also asks for ways through other layouts: plans in a row, with stops between them (`detours/`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import get_args

from redistrib.display import to_html
from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.synth.plan.bounds import lower_bound_elements
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.price import Cost, StepCost, total_seconds
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.candidate import ROUNDING, Candidate, Proposal, cheapest, from_steps
from redistrib.synth.planner.detours.through import stops_between
from redistrib.synth.planner.paper.derivation import paper_steps
from redistrib.synth.planner.problem import (
    Effort,
    Problem,
    Strategy,
    StrategyLike,
    check_name,
    make_problem,
)
from redistrib.synth.planner.proposals import alone, collectives, custom, direct, exact, nothing
from redistrib.synth.planner.rewriting import Rewriting
from redistrib.synth.planner.uneven import block_steps
from redistrib.synth.planner.work import Work
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import divisors
from redistrib.types.named_sharding import TypeLike
from redistrib.types.padding import common_padding, padded

STRATEGIES = get_args(Strategy)


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
    >>> chosen = plan(source, target, strategy="collectives")
    >>> [step.collective for step in chosen.steps], chosen.received_bytes, chosen.lower_bound_bytes
    (['collective_permute', 'all_to_all'], 12582912, 8388608)

    Raises LayoutError if the types do not fit each other, InfeasibleError if the limit allows no
    plan (`least_bytes` is the least that does), RedistribError for an unknown strategy, effort or
    profile, and for a search that would be too large.
    """
    problem = make_problem(src, dst, memory_limit, profile, effort)
    chosen = choose(problem, strategy)
    with _naming(problem):
        return chosen.plan(problem, strategy)


def cost(
    src: TypeLike,
    dst: TypeLike,
    *,
    strategy: StrategyLike = "auto",
    effort: Effort = "fast",
    memory_limit: int | str | None = None,
    profile: Profile | str | None = None,
) -> Cost:
    """The cost of the plan that `plan` gives for the same arguments; raises what it raises.

    Seconds, and bytes per device. No routes of an exchange are made for it, so it takes less time.
    """
    problem = make_problem(src, dst, memory_limit, profile, effort)
    return choose(problem, strategy).cost(problem)


def choose(problem: Problem, strategy: StrategyLike = "auto") -> Candidate:
    """The cheapest candidate of a strategy; of equals, the first.

    Raises InfeasibleError or LayoutError where there is none, RedistribError for an unknown name.
    """
    if callable(strategy):
        return custom(problem, strategy)
    check_name("strategy", strategy, STRATEGIES)
    with _naming(problem):
        return _chosen(problem, strategy)


@contextmanager
def _naming(problem: Problem) -> Iterator[None]:
    """Errors name the types that were asked for.

    What raises them may know others only, of axes in an order of their own, and so it names none.
    """
    try:
        yield
    except RedistribError as error:
        between = f"from {problem.src} to {problem.target}"
        raise type(error)(f"{between}: {error}", **vars(error)) from None


def _chosen(problem: Problem, strategy: Strategy) -> Candidate:
    """`choose`, for a strategy with a name; its errors name no types."""
    # The paper's route leads between the types of the caller; of sums it says that it has none.
    rewriting = Rewriting.unchanged(problem) if strategy == "paper" else Rewriting.of(problem)
    planned = rewriting.planned()
    try:
        return _answer(rewriting, cheapest(planned, _proposals_of(planned, strategy)))
    except InfeasibleError as error:
        if strategy != "collectives":
            raise
        raise _least_limit(planned, error) from None


def _answer(rewriting: Rewriting, candidate: Candidate) -> Candidate:
    """A candidate between the planned types as one between the types of the problem."""
    if (restore := rewriting.restore) is None:
        return candidate
    if rewriting.partly_cut:
        steps = restore(candidate.make())
        costs = rewriting.problem.step_costs(steps)
        return replace(candidate, costs=costs, make=lambda: steps)
    return replace(candidate, make=lambda: restore(candidate.make()))


@lru_cache(maxsize=1 << 14)
def _of_sums(
    src: ArrayType, dst: ArrayType, links: Profile, memory_limit: int | None, effort: Effort
) -> Candidate:
    """The cheapest candidate between types with partial sums, without those that are searched for.

    In normal form there are few such problems, but a search for each would take too long.
    """
    problem = make_problem(src, dst, memory_limit, links, effort)
    return cheapest(problem, alone(problem, searched=False))


def _least_limit(planned: Problem, error: InfeasibleError) -> InfeasibleError:
    """The error with the least limit at which collectives have a plan.

    A tile is the array over as many devices as divide the mesh, so there are few limits to try.
    """
    src = planned.src
    sizes = {src.size // k for k in divisors(src.mesh.num_devices) if src.size % k == 0}
    for least in sorted(size * src.itemsize for size in sizes):
        if least > error.memory_limit:
            larger = replace(planned, memory_limit=least, work=Work())
            try:
                cheapest(larger, collectives(larger))
            except InfeasibleError:
                continue
            return InfeasibleError(
                f"collectives need tiles of {least} bytes per device; the limit is "
                f"{error.memory_limit}; strategy 'direct' needs less",
                memory_limit=error.memory_limit,
                least_bytes=least,
            )
    return error


def choose_without_stops(problem: Problem, strategy: Strategy = "auto") -> Candidate:
    """`choose` without layouts to stop at on the way: what a part of such a way costs."""
    if strategy == "auto" and not problem.uneven:
        rewriting = Rewriting.of(problem)
        if problem.partial and rewriting.restore is not None and problem.refinement.aligned:
            settings = rewriting.links, problem.memory_limit, problem.effort
            return _answer(rewriting, _of_sums(rewriting.src, rewriting.dst, *settings))
        planned = rewriting.planned()
        return _answer(rewriting, cheapest(planned, alone(planned)))
    return choose(problem, strategy)


def _proposals_of(problem: Problem, strategy: Strategy) -> Iterator[Proposal]:
    """What a strategy proposes."""
    if problem.uneven:
        return _uneven(problem, strategy)
    if not problem.src.size and not problem.across:
        return iter([nothing(problem)])
    match strategy:
        case "auto":
            return proposals(problem)
        case "collectives":
            return collectives(problem)
        case "direct":
            return iter([Proposal("direct", lambda _: direct(problem))])
        case "exact":
            return iter([from_steps("exact", problem, lambda _: exact(problem))])
        case "paper":
            # In normal form no tile exceeds both ends, so every limit that is let through is kept.
            return iter(
                [from_steps("paper", problem, lambda _: paper_steps(problem.src, problem.dst))]
            )


def proposals(problem: Problem) -> Iterator[Proposal]:
    """All that `auto` chooses from, the cheapest-looking first."""
    if problem.uneven:
        yield from _uneven(problem, "auto")
        return
    yield from alone(problem)
    if problem.effort == "best" and not (problem.across or problem.partial):
        yield Proposal("stops on the way", lambda best: _with_stops(problem, best), search=True)


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
            least = max(end.tile_bytes for end in ends)
            if least > limit:
                lower_bound_elements(src, dst)  # raises where no limit would help
                allowed = "the memory limit" if problem.memory_limit else "the larger end"
                raise InfeasibleError(
                    f"no tile exceeds {allowed}, {limit} bytes per device; the array padded to "
                    f"{list(shape)} has even tiles of {least} bytes",
                    memory_limit=limit,
                    least_bytes=least,
                )
            even = make_problem(*ends, limit, problem.profile, problem.effort)
            candidate = _chosen(even, strategy)
            return replace(candidate, name=f"padded, {candidate.name}", padded_shape=shape)

        yield Proposal("padded", solve)
    if strategy in ("auto", "direct"):
        yield from_steps("blocks", problem, lambda _: block_steps(src, dst))
    elif shape is None:
        raise LayoutError(
            f"strategy {strategy!r} is of types that padding makes even; these exchange blocks, "
            f"under auto or direct",
            src=src,
            dst=dst,
        )


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
    priced = [leg for leg in legs if leg is not None]
    if len(priced) < len(legs):
        return None
    costs = tuple(cost for leg in priced for cost in leg.costs)
    if total_seconds(costs) * (1 + ROUNDING) >= best.seconds:
        return None
    through = f"stops at {', '.join(map(str, stops))}"
    return Candidate(through, costs, lambda: [step for leg in priced for step in leg.make()])


@lru_cache(maxsize=1 << 14)
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
    leg = _leg(src, dst, profile, memory_limit)
    return None if leg is None else leg.costs


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that a plan was chosen from: per proposal its name and its plan, or why there is none.

    `chosen` is the number of the alternative whose plan is `plan`.
    """

    plan: Plan
    alternatives: tuple[tuple[str, Plan | str], ...]
    chosen: int

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.alternatives)
        lines = [f"{self.plan.src} -> {self.plan.dst}"]
        for number, (name, outcome) in enumerate(self.alternatives):
            mark = "*" if number == self.chosen else " "
            text = outcome if isinstance(outcome, str) else _summary(outcome)
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
    """Why this plan: all that `auto` chooses from, with the one that it chose.

    Takes the options of `plan` but `strategy`, and raises what it raises. `str` of the answer is a
    line for each alternative: seconds, bytes received per device, peak tile and steps.
    """
    problem = make_problem(src, dst, memory_limit, profile, effort)
    tried: list[tuple[Proposal, Candidate | str | None]] = []
    rewriting = Rewriting.of(problem)
    planned = rewriting.planned()
    with _naming(problem):
        best = cheapest(planned, proposals(planned), lambda *entry: tried.append(entry))
    plans = [
        (proposal.name, _alternative(rewriting, problem, proposal, outcome))
        for proposal, outcome in tried
    ]
    chosen = next(number for number, (_, outcome) in enumerate(tried) if outcome is best)
    plan = plans[chosen][1]
    assert isinstance(plan, Plan)
    return Explanation(plan, tuple(plans), chosen)


def _alternative(
    rewriting: Rewriting, problem: Problem, proposal: Proposal, outcome: Candidate | str | None
) -> Plan | str:
    """The plan of a proposal, or why there is none.

    A proposal without an outcome had only to be cheaper than the best; now it may have a plan at
    any price.
    """
    if outcome is None:
        try:
            outcome = proposal.solve(None) or "has no plan for such a pair"
        except (InfeasibleError, LayoutError) as error:
            return str(error)
    return (
        outcome if isinstance(outcome, str) else _answer(rewriting, outcome).plan(problem, "auto")
    )


def _summary(plan: Plan) -> str:
    steps = ", ".join(step.collective for step in plan.steps) or "nothing to do"
    return (
        f"{plan.seconds * 1e6:.3g} us, {plan.received_bytes} bytes received (bound "
        f"{plan.lower_bound_bytes}), peak tile {plan.peak_tile_bytes} bytes: {steps}"
    )
