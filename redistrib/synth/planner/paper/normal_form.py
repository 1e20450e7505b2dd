"""The easy redistribution and its normal form (the paper: section 4.3, lemmas 4.6 and 4.7).

Gathering all and slicing all is always right, and holds the whole array on every device. Pairs of
neighbours are rewritten until slices come first and gathers last. Then no tile exceeds both ends:
the tile shrinks from the source, stays, and grows to the target.

Termination: rewrite the leftmost pair out of order. A slice passes what is before it and leaves
permutes behind it, where no rule applies to them but to let later slices through; the steps that it
passes are finite in number, and it is then done. The same holds of gathers from the other end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

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
)

Program = tuple[Step, ...]
Rule = Callable[[PaperType, Step, Step], Program | None]


def easy(src: PaperType, dst: PaperType) -> Program:
    """Gather all, slice all."""
    gathers = [Gather(number, axis) for number, dim in enumerate(src.dims) for axis in dim.axes]
    slices = [
        Slice(number, axis) for number, dim in enumerate(dst.dims) for axis in reversed(dim.axes)
    ]
    return *gathers, *slices


def rewrite(t: PaperType, first: Step, second: Step) -> Program | None:
    """What replaces two neighbours that start from type `t`; None if they are in order."""
    match first:
        case Gather():
            return _delay(first, second)
        case Move() | SwapTops() | ReplaceTop() | SwapWithin():
            return _advance(t, first, second) if isinstance(second, Slice) else None
        case Slice():
            return None
        case _:
            assert_never(first)


def _delay(gather: Gather, step: Step) -> Program | None:
    """A gather goes behind what follows it: in a picture of tile sizes, /- becomes -/."""
    i, a = gather.dim, gather.axis
    match step:
        case Gather():
            return None
        # A peak becomes nothing, a flat line, or a valley.
        case Slice(j, b) if i != j:
            return (Move(i, j, a),) if a == b else (step, gather)
        case Slice(_, b):
            if a == b:
                return ()
            if a.size == b.size:
                return (ReplaceTop(i, a, b),)
            return step, SwapWithin(i, b, a), gather
        case Move(k, m, c):
            if i == k:
                return SwapWithin(i, a, c), step, gather
            if i == m and a.size == c.size:
                return SwapTops(i, k, a, c), Gather(k, a)
            if i == m:
                return step, SwapWithin(i, c, a), gather
            return step, gather
        case SwapTops(k, m, c, d):
            if i == m:
                k, m, c, d = m, k, d, c
            if i == k:
                return SwapWithin(i, a, c), step, SwapWithin(i, a, d), gather
            return step, gather
        case ReplaceTop(k, c, r):
            if i == k and r == a:
                return SwapWithin(i, a, c), Gather(i, c)
            if i == k:
                return SwapWithin(i, a, c), step, SwapWithin(i, r, a), gather
            if r == a:
                return SwapTops(i, k, a, c), Gather(i, c)
            return step, gather
        case SwapWithin():
            return step, gather
        case _:
            assert_never(step)


def _advance(
    t: PaperType, step: Move | SwapTops | ReplaceTop | SwapWithin, following: Slice
) -> Program:
    r"""A slice goes before what it follows: -\ becomes \-."""
    i, b = following.dim, following.axis
    match step:
        case Move(k, m, c):
            if i == k and t.dims[k].tile % b.size:
                # Only the room that the move makes fits b, so b has the size of c: b goes where c
                # would, and the tops swap.
                return Slice(m, b), SwapTops(k, m, c, b)
            if i == k:
                return following, SwapWithin(i, b, c), step
            if i == m:
                return following, step, SwapWithin(i, b, c)
            return following, step
        case SwapTops(k, m, c, d):
            if i == m:
                k, m, c, d = m, k, d, c
            if i == k:
                return following, SwapWithin(i, b, c), step, SwapWithin(i, b, d)
            return following, step
        case ReplaceTop(k, c, r):
            if i == k and b == c:
                return Slice(i, r), SwapWithin(i, r, c)
            if i == k:
                return following, SwapWithin(i, b, c), step, SwapWithin(i, r, b)
            if b == c:
                return Slice(i, r), SwapTops(i, k, r, c)
            return following, step
        case SwapWithin():
            return following, step
        case _:
            assert_never(step)


def normal_form(t: PaperType, program: Program, rule: Rule = rewrite) -> Program:
    """The program with slices first and gathers last, with the same result, from type `t`.

    Raises LayoutError if the program does not apply to `t`.
    """
    steps = list(program)
    types = [t]  # types[n] is the type before step n, known up to the pair that is looked at
    index = 0
    while index + 1 < len(steps):
        replacement = rule(types[index], steps[index], steps[index + 1])
        if replacement is None:
            types.append(apply(types[index], steps[index]))
            index += 1
            continue
        steps[index : index + 2] = replacement
        # The pair before may be out of order now; everything up to it is as it was.
        index = max(index - 1, 0)
        del types[index + 1 :]
    return tuple(steps)
