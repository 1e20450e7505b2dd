"""Candidates, and the one place that prices them and keeps the cheapest.

Example: two proposals of one all_gather at 2 us and of one exchange at 3 us. `cheapest` has the
first solve, tells the second that 2 us are to beat, and answers the first; of equals it keeps the
first. A proposal that is a search is not even asked where the best candidate takes no longer than
`Problem.floor`, a latency and the bytes that some device must receive: no plan beats that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from redistrib.errors import InfeasibleError, LayoutError, RedistribError
from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.price import Cost, StepCost, total_cost, total_seconds
from redistrib.synth.planner.problem import Problem, StrategyLike
from redistrib.types.padding import padded

ROUNDING = 1e-9
"""What is cheaper is so by more than this fraction."""

Steps = Sequence[Collective]


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
            problem.target,
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


def from_steps(
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


def cheapest(
    problem: Problem,
    proposed: Iterable[Proposal],
    tried: Callable[[Proposal, Candidate | str | None], None] | None = None,
) -> Candidate:
    """The cheapest candidate of some proposals; of equals, the first.

    `tried` is told what became of each proposal: its candidate, a text that says why there is none,
    or None where one that is no search gave nothing cheaper than the best so far.
    """
    best: Candidate | None = None
    floor: float | None = None
    reasons: list[RedistribError] = []
    for proposal in proposed:
        bound = inf if best is None else best.seconds
        # With partial sums there are many proposals, each of them slow to make.
        if best is not None and (proposal.search or (problem.partial and tried is None)):
            if floor is None:
                floor = problem.floor() if bound else 0.0
            if bound * (1 - ROUNDING) <= floor:
                if tried is None:
                    break
                tried(proposal, f"not searched: no plan takes less than {floor * 1e6:.3g} us")
                continue
        try:
            candidate = proposal.solve(best)
        except (InfeasibleError, LayoutError) as error:
            reasons.append(error)
            if tried is not None:
                tried(proposal, str(error))
            continue
        if tried is not None:
            below = "" if best is None else f" below {bound * 1e6:.3g} us"
            nothing = f"searched, found nothing{below}" if proposal.search else None
            tried(proposal, nothing if candidate is None else candidate)
        if candidate is not None and (best is None or candidate.seconds < bound):
            best = candidate
    if best is None:
        raise min(reasons, key=lambda error: error.__dict__.get("least_bytes", inf))
    return best


def wrapped(
    problem: Problem, opening: Steps, between: Iterator[Proposal], closing: Steps
) -> Iterator[Proposal]:
    """Proposals for what lies between some steps, with these steps."""
    # Where digits do not match, what is too dear has been found all the same: see `feasible`.
    aligned = problem.refinement.aligned
    spent = total_seconds(problem.step_costs(opening)) if aligned else 0.0
    for inner in between:
        alone = not (opening or closing)
        yield inner if alone else on_whole(problem, inner, opening, closing, spent)


def on_whole(
    problem: Problem,
    inner: Proposal,
    opening: Steps = (),
    closing: Steps = (),
    spent: float = 0.0,
) -> Proposal:
    """A proposal for a part of a problem as one for the whole, where its steps are priced anew.

    It is not asked where the opening alone, `spent` seconds, takes as long as the best candidate.
    """

    def solve(best: Candidate | None) -> Candidate | None:
        if best is not None and spent and spent >= best.seconds:
            return None
        part = inner.solve(best)
        if part is None:
            return None
        steps = [*opening, *part.make(), *closing]
        return Candidate(part.name, problem.step_costs(steps), lambda: steps)

    return Proposal(inner.name, solve, inner.search)
