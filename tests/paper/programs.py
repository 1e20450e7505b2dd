"""What tests of the paper's calculus share: checked rewriting, random programs, a pair verified."""

from __future__ import annotations

import random
from collections import Counter

import redistrib as rd
from redistrib.synth.plan.data import make_plan
from redistrib.synth.planner.paper.calculus import (
    Gather,
    Move,
    PaperType,
    ReplaceTop,
    Slice,
    Step,
    SwapTops,
    SwapWithin,
    apply,
    describe,
    interpret,
    prime_system,
)
from redistrib.synth.planner.paper.derivation import lower
from redistrib.synth.planner.paper.normal_form import Program, Rule, easy, normal_form, rewrite
from tests.verify import verify_plan


def checked(rule: Rule = rewrite) -> Rule:
    """A rewrite rule that interprets what it replaces and what it puts there, and compares.

    A rule must keep the meaning, and no type between may be larger than before.
    """

    def check(t: PaperType, first: Step, second: Step) -> Program | None:
        replacement = rule(t, first, second)
        if replacement is None:
            return None
        old = interpret(t, (first, second))
        context = (
            f"on {t.mesh}, from {t}: {describe(t, first)}; {describe(old[1], second)} "
            f"became {replacement}"
        )
        try:
            new = interpret(t, replacement)
        except rd.LayoutError as error:
            raise AssertionError(f"the new program does not type: {error}; {context}") from error
        assert new[-1] == old[-1], f"changed semantics, {new[-1]} for {old[-1]}; {context}"
        peak = max(u.tile_size for u in old)
        assert all(u.tile_size <= peak for u in new), f"raised the peak; {context}"
        return replacement

    return check


def is_normal(program: Program) -> bool:
    """Whether slices come first and gathers last."""
    phases = [0 if isinstance(s, Slice) else 2 if isinstance(s, Gather) else 1 for s in program]
    return phases == sorted(phases)


def verify_normal_form(t: PaperType, program: Program) -> Program:
    """Rewrite a program with every rewrite checked; the result has all it should have."""
    result = normal_form(t, program, checked())
    assert is_normal(result)
    types = interpret(t, result)
    assert types[-1] == interpret(t, program)[-1]
    peak = max(t.tile_size, types[-1].tile_size)
    assert all(u.tile_size <= peak for u in types)
    return result


def verify_paper(src: rd.ArrayType, dst: rd.ArrayType) -> Counter[str]:
    """Strategy `paper` and the normal form on a pair: right, and within both ends.

    The search is never dearer than the normal form.
    """
    plan = rd.plan(src, dst, strategy="paper")
    verify_plan(plan, aligned=False)
    system = prime_system(src, dst)
    start, end = PaperType.of(src, system), PaperType.of(dst, system)
    program = verify_normal_form(start, easy(start, end))
    rewritten = make_plan(src, dst, "paper", lower(start, program, src.dtype))
    rd.check(rewritten)
    ours, theirs = ((found.received_bytes, found.num_collectives) for found in (plan, rewritten))
    assert ours <= theirs
    permutes = sum(step.collective == "collective_permute" for step in plan.steps)
    return Counter(pairs=1, permutes=permutes, cheaper_than_normal_form=ours < theirs)


def random_program(rng: random.Random, t: PaperType, length: int) -> Program:
    """Steps drawn one after the other from those that apply."""
    program: list[Step] = []
    for _ in range(length):
        steps = [step for step in _candidates(t) if _applies(t, step)]
        if not steps:
            break
        # By kind first: there are far more swaps than gathers.
        kind = rng.choice(sorted({type(step).__name__ for step in steps}))
        step = rng.choice([step for step in steps if type(step).__name__ == kind])
        program.append(step)
        t = apply(t, step)
    return tuple(program)


def _candidates(t: PaperType) -> list[Step]:
    dims = range(len(t.dims))
    tops = {dim: d.axes[0] for dim, d in enumerate(t.dims) if d.axes}
    steps: list[Step] = []
    for dim, top in tops.items():
        steps.append(Gather(dim, top))
        steps += [Move(dim, other, top) for other in dims if other != dim]
        steps += [SwapTops(dim, other, top, b) for other, b in tops.items() if other != dim]
        steps += [ReplaceTop(dim, top, new) for new in t.replicated]
        axes = t.dims[dim].axes
        steps += [SwapWithin(dim, a, b) for a in axes for b in axes if a != b]
    steps += [Slice(dim, axis) for dim in dims for axis in t.replicated]
    return steps


def _applies(t: PaperType, step: Step) -> bool:
    try:
        apply(t, step)
    except rd.LayoutError:
        return False
    return True
