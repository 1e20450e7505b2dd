"""The planner: from two types to a plan, by strategy.

auto         the cheapest of collectives and direct
collectives  slices, all_to_alls, permutes, gathers and reductions; no point-to-point exchange
direct       one exchange at the lower bound, beside the reductions
exact        a shortest path over whole types, for small meshes
paper        the search of the paper on its own types, the baseline of the others
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf, prod

from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.price import (
    Cost,
    StepCost,
    exchange_seconds,
    price_steps,
    total_cost,
    total_seconds,
)
from redistrib.synth.plan.profile import Profile, find_profile
from redistrib.synth.plan.routing import Traffic, exchange_size, exchange_traffic
from redistrib.synth.planner.across import plan_across
from redistrib.synth.planner.exact import MAX_STATES, ExactSearch, exact_steps
from redistrib.synth.planner.halfway import plan_misaligned
from redistrib.synth.planner.paper.derivation import paper_steps
from redistrib.synth.planner.reductions import make_partial, partial_roles, reduce_partial
from redistrib.synth.planner.three_phase import plan_aligned
from redistrib.types.array_type import ArrayType
from redistrib.types.equivalence import on_mesh
from redistrib.types.mesh import check_enumerable
from redistrib.types.named_sharding import TypeLike, as_type
from redistrib.types.refinement import Refinement, check_array, refine

MAX_EXACT_STATES = 2000  # so many types take well under a second


def plan(
    src: TypeLike,
    dst: TypeLike,
    *,
    strategy: str = "auto",
    memory_limit: int | None = None,
    profile: Profile | str | None = None,
) -> Plan:
    """A plan from `src` to `dst`, two types of one shape and dtype.

    Either may be given as (shape, dtype, NamedSharding); jax is not imported for that.

    On two meshes of the same devices it is planned on that of the source where the target has a
    type there. Else the array is reduced on the source mesh, crosses in one exchange and is
    gathered on the target mesh; only `auto` and `direct` can do that.

    `memory_limit` is in bytes per device and holds for every tile of the plan. Without it no tile
    exceeds the larger end, and between aligned types without partial axes no intermediate tile
    exceeds the smaller one.

    >>> from redistrib.types.mesh import Mesh
    >>> mesh = Mesh(x=2, y=4)
    >>> source = ArrayType.parse("f32[4096{x}, 4096{y}]", mesh)
    >>> target = ArrayType.parse("f32[4096{y}, 4096{x}]", mesh)
    >>> found = plan(source, target, strategy="collectives")
    >>> [step.collective for step in found.steps], found.received_bytes, found.lower_bound_bytes
    (['collective_permute', 'all_to_all'], 12582912, 8388608)

    Raises LayoutError if the types do not fit each other, InfeasibleError if the limit allows no
    plan, RedistribError for an unknown strategy.
    """
    profile = find_profile(profile)
    problem = make_problem(src, dst, memory_limit, profile)
    steps = find_strategy(strategy)(problem)
    return make_plan(
        problem.src, problem.asked, strategy, steps, profile, memory_limit, problem.common
    )


def cost(
    src: TypeLike,
    dst: TypeLike,
    *,
    strategy: str = "auto",
    memory_limit: int | None = None,
    profile: Profile | str | None = None,
) -> Cost:
    """The cost of the plan that `plan` gives for the same arguments; raises what it raises."""
    problem = make_problem(src, dst, memory_limit, profile)
    return total_cost(problem.src, price(problem, strategy))


@dataclass(frozen=True, slots=True)
class Explanation:
    """The plan of `auto`, and what every strategy gives: its plan, or why it has none."""

    plan: Plan
    alternatives: tuple[tuple[str, Plan | str], ...]

    def __str__(self) -> str:
        lines = [f"{self.plan.src} -> {self.plan.dst}: {_summary(self.plan)}"]
        for name, found in self.alternatives:
            text = found if isinstance(found, str) else _summary(found)
            lines.append(f"  {name:12} {text}")
        return "\n".join(lines)


def explain(
    src: TypeLike,
    dst: TypeLike,
    *,
    memory_limit: int | None = None,
    profile: Profile | str | None = None,
) -> Explanation:
    """Why this plan: the plan of `auto` beside those of the strategies it chose from."""
    alternatives: list[tuple[str, Plan | str]] = []
    for strategy in ("collectives", "direct"):
        try:
            found: Plan | str = plan(
                src, dst, strategy=strategy, memory_limit=memory_limit, profile=profile
            )
        except (InfeasibleError, LayoutError) as error:
            found = str(error)
        alternatives.append((strategy, found))
    return Explanation(
        plan(src, dst, memory_limit=memory_limit, profile=profile), tuple(alternatives)
    )


def _summary(found: Plan) -> str:
    steps = ", ".join(step.collective for step in found.steps) or "nothing to do"
    return (
        f"{found.seconds * 1e6:.3g} us, {found.received_bytes} bytes received (bound "
        f"{found.lower_bound_bytes}), peak tile {found.peak_tile_bytes} bytes: {steps}"
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """What a strategy is asked; `memory_limit` is in bytes per device.

    `dst` is the target `asked` for, on the mesh of the source where it has a type there. `common`
    is the refinement of the two, None between two meshes.
    """

    src: ArrayType
    dst: ArrayType
    asked: ArrayType
    memory_limit: int | None
    profile: Profile
    common: Refinement | None

    @property
    def across(self) -> bool:
        """Whether nothing but an exchange leads from one mesh to the other."""
        return self.common is None

    @property
    def refinement(self) -> Refinement:
        """The common refinement. Raises LayoutError between two meshes."""
        if self.common is None:
            raise LayoutError(
                f"only an exchange leads from mesh {self.src.mesh!r} to {self.dst.mesh!r}; "
                f"strategies that have it: auto, direct",
                src=self.src,
                dst=self.dst,
            )
        return self.common

    def refined(self, start: ArrayType, end: ArrayType) -> Refinement:
        """The refinement of two types on the way, which mostly are the ends."""
        if start is self.src and end == self.dst:
            return self.refinement
        return refine(start, end)

    def step_costs(
        self, steps: Sequence[Collective], traffic: Traffic | None = None
    ) -> tuple[StepCost, ...]:
        """What each step of a plan costs; `traffic` is that of its exchange, where known."""
        known = traffic or self.common
        return price_steps(self.src, self.dst, steps, self.profile, known)

    def limit(self, aligned: bool, wide: bool = False) -> int:
        """Elements that an intermediate tile may have.

        Without a memory limit none exceeds the larger end; where digits match and no axis is slower
        than another, it pays to stay below the smaller one, unless latencies dominate: `wide`.
        """
        if self.memory_limit is not None:
            return self.memory_limit // self.src.itemsize
        sizes = self.src.tile_size, self.dst.tile_size
        small = aligned and self.profile.uniform and not (self.src.partial or self.dst.partial)
        small &= not wide
        return min(sizes) if small else max(sizes)


MAX_BITS = 900
"""Of a count that is priced: a float holds 2**1023, and prices multiply it by small numbers."""

Strategy = Callable[[Problem], list[Collective]]


def make_problem(
    src: TypeLike, dst: TypeLike, memory_limit: int | None, profile: Profile | str | None
) -> Problem:
    """What a strategy is asked. Raises LayoutError, InfeasibleError where an end is too large."""
    src, dst = as_type(src), as_type(dst)
    check_array(src, dst)
    _check_priceable(src.size * src.itemsize, src.mesh.num_devices, dst.mesh.num_devices)
    least = max(src.tile_bytes, dst.tile_bytes)
    if memory_limit is not None and memory_limit < least:
        raise InfeasibleError(
            f"a plan holds the tiles of both ends, so it needs at least {least} bytes per device; "
            f"the memory limit is {memory_limit}",
            memory_limit=memory_limit,
            least_bytes=least,
        )
    links = find_profile(profile).on(src.mesh)
    target = on_mesh(dst, src.mesh)
    common = None if target is None else refine(src, target)
    if common is not None and not common.aligned:
        for component in common.components():
            if not component.aligned:
                check_enumerable(prod(axis.size for axis in component.axes))
    return Problem(src, target or dst, dst, memory_limit, links, common)


def _check_priceable(*counts: int) -> None:
    """Raise LayoutError for bytes or devices too many for a price."""
    most = max(counts).bit_length()
    if most > MAX_BITS:
        raise LayoutError(
            f"seconds are floats: the bytes of an array and the devices of a mesh are below "
            f"2**{MAX_BITS}; got a number of {most} bits",
            bits=most,
        )


def find_strategy(name: str) -> Strategy:
    """A strategy by name. Raises RedistribError for an unknown one."""
    if name not in STRATEGIES:
        raise RedistribError(
            f"unknown strategy {name!r}; known: {', '.join(STRATEGIES)}", strategy=name
        )
    return STRATEGIES[name]


def _collectives(problem: Problem, wide: bool = False) -> list[Collective]:
    src, dst, refinement = problem.src, problem.dst, problem.refinement
    if refinement.aligned:
        return plan_aligned(src, dst, refinement, problem.limit(True, wide), problem.profile)
    # Reductions come first and last, on their own; between them the partial set stays.
    roles = partial_roles(src, dst)
    opening, start = reduce_partial(src, dst, roles)
    end, closing = make_partial(start, dst, roles)
    return [*opening, *_between(start, end, problem), *closing]


def _between(start: ArrayType, end: ArrayType, problem: Problem) -> list[Collective]:
    """Collectives between two types with one partial set.

    Misaligned pairs are planned through halfway types and by the paper's search; on small state
    spaces it is then proved that nothing is cheaper, or the cheaper sequence found.
    """
    refinement = problem.refined(start, end)
    limit, profile = problem.limit(refinement.aligned), problem.profile
    if refinement.aligned:
        return plan_aligned(start, end, refinement, limit, profile)
    found: list[list[Collective]] = []
    infeasible: InfeasibleError | None = None
    try:
        found.append(plan_misaligned(start, end, limit, profile))
    except InfeasibleError as error:
        infeasible = error
    if start.partial:  # the searches below take types without
        if infeasible is not None:
            raise infeasible
        return found[0]
    with suppress(LayoutError):  # where the paper's type system cannot express one of the ends
        found.append(paper_steps(start, end))

    def seconds(steps: list[Collective]) -> float:
        return total_seconds(price_steps(start, end, steps, profile))

    best = min(found, key=seconds, default=None)
    bound = inf if best is None else seconds(best) * (1 - 1e-9)
    search = ExactSearch(start, end, limit, profile, bound)
    if search.size <= (MAX_STATES if best is None else MAX_EXACT_STATES):
        best = search.run() or best
    if best is None:
        assert infeasible is not None
        raise infeasible
    return best


def _direct(problem: Problem) -> list[Collective]:
    return _direct_steps(problem)[0]


def _direct_steps(problem: Problem) -> tuple[list[Collective], Traffic | None]:
    """The steps of `direct`, and the traffic of the exchange if there is one."""
    if problem.across:
        return plan_across(problem.src, problem.dst, spread=False), None
    roles = partial_roles(problem.src, problem.dst)
    opening, start = reduce_partial(problem.src, problem.dst, roles)
    end, closing = make_partial(start, problem.dst, roles)
    if start == end:
        return [*opening, *closing], None
    refinement = problem.refined(start, end)
    traffic = exchange_traffic(start, end, refinement)
    if traffic.received == 0:
        local = Problem(start, end, end, None, problem.profile, refinement)
        return [*opening, *_collectives(local), *closing], None
    return [*opening, traffic.exchange, *closing], traffic


def _exact(problem: Problem) -> list[Collective]:
    src, dst = problem.src, problem.dst
    if src.partial or dst.partial:
        raise RedistribError(
            f"strategy 'exact' takes types without partial axes; got {src} and {dst}"
        )
    limit = problem.limit(problem.refinement.aligned)
    return exact_steps(src, dst, limit, problem.profile)


def _paper(problem: Problem) -> list[Collective]:
    # In normal form no tile exceeds both ends, so every limit that `plan` lets through is kept.
    return paper_steps(problem.src, problem.dst)


def _auto(problem: Problem) -> list[Collective]:
    return solve(problem, "auto")[0]


Solution = tuple[list[Collective], tuple[StepCost, ...]]
"""Steps, and what each of them costs."""


def solve(problem: Problem, strategy: str, wide: bool = False) -> Solution:
    """The steps of a strategy with what each costs in a plan; no plan is made.

    `wide`: tiles of `auto` up to the larger end, which pays where latencies dominate.
    """
    if strategy == "auto" and problem.across:
        # No profile has a link between two meshes: what crosses is least with `spread`.
        steps = plan_across(problem.src, problem.dst, spread=True)
        return steps, problem.step_costs(steps)
    if strategy != "auto":
        steps = find_strategy(strategy)(problem)
        return steps, problem.step_costs(steps)
    try:
        collectives = _collectives(problem, wide)
    except InfeasibleError:
        return _priced_direct(problem)
    costs = problem.step_costs(collectives)
    seconds = total_seconds(costs)
    exchange = _exchange_cost(problem)
    if not seconds or (exchange is not None and seconds <= exchange.seconds):
        return collectives, costs
    direct, direct_costs = _priced_direct(problem)
    if seconds <= total_seconds(direct_costs):
        return collectives, costs
    return direct, direct_costs


def price(problem: Problem, strategy: str, wide: bool = False) -> tuple[StepCost, ...]:
    """What each step of `solve` costs. An exchange is not routed where its price needs no route."""
    exchange = _exchange_cost(problem)
    if exchange is None or strategy not in ("auto", "direct"):
        return solve(problem, strategy, wide)[1]
    if strategy == "auto":
        with suppress(InfeasibleError):
            costs = problem.step_costs(_collectives(problem, wide))
            if total_seconds(costs) <= exchange.seconds:
                return costs
    return (exchange,)


def _priced_direct(problem: Problem) -> Solution:
    direct, traffic = _direct_steps(problem)
    return direct, problem.step_costs(direct, traffic)


def _exchange_cost(problem: Problem) -> StepCost | None:
    """What `direct` costs where it is one exchange between types whose digits match."""
    src, dst, refinement = problem.src, problem.dst, problem.common
    if refinement is None or not refinement.aligned or src.partial or dst.partial:
        return None
    received, peers = exchange_size(dst, refinement)
    if not received:
        return None
    seconds = exchange_seconds(src, dst, received, peers, problem.profile)
    return StepCost(seconds, received * src.itemsize, dst.tile_bytes, True)


STRATEGIES: dict[str, Strategy] = {
    "auto": _auto,
    "collectives": _collectives,
    "direct": _direct,
    "exact": _exact,
    "paper": _paper,
}
