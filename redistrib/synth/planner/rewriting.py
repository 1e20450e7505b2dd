"""Problems are planned between other types than their own; the steps are rewritten back.

Example: `f32[64{x}, 64] -> f32[64, 64{x}]` on x=32 over nodes of 8 devices is planned on two axes,
one of 4 across the nodes and one of 8 inside them; the steps that come back name the parts of x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from redistrib.synth.plan.collectives import Collective
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.cut_axes import on_cut_axes
from redistrib.synth.planner.normal_form import NormalForm, normal_form
from redistrib.synth.planner.ordered import Ordered, ordered
from redistrib.synth.planner.problem import Problem
from redistrib.types.array_type import ArrayType
from redistrib.types.refinement import refine

Steps = Sequence[Collective]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A problem, and the types between which it is planned.

    Axes are cut where their links change, types with partial sums are in normal form, and types
    whose digits do not match have their axes and dimensions in an order of their own.
    `restore` makes steps between the planned types steps between the types of the problem; None
    where they are the same. Where an axis is cut at some of its links only, `partly_cut`, steps may
    cross others there than here, so that they are priced anew.
    """

    problem: Problem
    src: ArrayType
    dst: ArrayType
    links: Profile
    restore: Callable[[Steps], Steps] | None
    partly_cut: bool = False

    @classmethod
    def of(cls, problem: Problem) -> Rewriting:
        """A problem with the types between which it is planned."""
        src, dst, links, common = problem.src, problem.dst, problem.links, problem.common
        if common is None or problem.uneven:
            return cls.unchanged(problem)
        cut = on_cut_axes(links, (src, dst))
        if cut is not None:
            axes, (src, dst) = cut
            links, common = axes.links, refine(src, dst)
        start = src
        normal: NormalForm | Ordered | None = None
        if src.size and not common.aligned:
            normal = ordered(src, dst, links)
        elif problem.partial and src.size:
            normal = normal_form(src, dst, common, links)
        if normal is not None:
            src, dst, links = normal.src, normal.dst, normal.links
        if cut is None and normal is None:
            return cls.unchanged(problem)

        def restore(steps: Steps) -> Steps:
            steps = steps if normal is None else normal.steps(start, steps)
            return steps if cut is None else cut[0].steps(problem.src, steps)

        partly_cut = cut is not None and cut[0].links.cuts_axes
        return cls(problem, src, dst, links, restore, partly_cut)

    @classmethod
    def unchanged(cls, problem: Problem) -> Rewriting:
        """A problem that is planned between its own types."""
        return cls(problem, problem.src, problem.dst, problem.links, None)

    def planned(self) -> Problem:
        """The problem between the planned types."""
        if self.restore is None:
            return self.problem
        src, dst, links = self.src, self.dst, self.links
        between = replace(self.problem, src=src, dst=dst, target=dst, common=refine(src, dst))
        return replace(between, profile=links, links=links)
