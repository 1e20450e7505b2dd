"""Peak: no tile of a plan exceeds its ends.

Induction over the steps of each phase, so plans of any length are covered. Sizes are reals: whole
tiles and group sizes are among them.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, false, proved, z3

t, after, before, src, dst, k = z3.Reals("t after before src dst k")
SIZES = [src >= 1, dst >= 1, t >= 1, k >= 1]


def larger(a: Term, b: Term) -> Term:
    """The larger of two sizes."""
    return z3.If(a >= b, a, b)


def smaller(a: Term, b: Term) -> Term:
    """The smaller of two sizes."""
    return z3.If(a <= b, a, b)


@proved
def slices_shrink() -> Goal:
    """Step, from the source on: after a slice or reduce_scatter of a tile within the source, the
    tile is within the source."""
    return Goal([*SIZES, t <= src, t == k * after], after <= src)


@proved
def moves_keep() -> Goal:
    """Step: after an all_to_all, permute or exchange of equal tiles the tile is what it was."""
    facts = [*SIZES, t <= src, after == t / k * k]
    return Goal(facts, z3.And(after == t, after <= src))


@proved
def gathers_grow_to_the_target() -> Goal:
    """Step, from the target back: the tile before a gather or sharded_to_partial into a tile within
    the target is within the target."""
    return Goal([*SIZES, t <= dst, t == k * before], before <= dst)


@proved
def three_phases_within_the_smaller_end() -> Goal:
    """With all slices in one step (or first) and ONE gather, last, every tile between is the tile t
    of the moves or one of the slices before it: t is within both ends."""
    s, g = z3.Reals("s g")
    facts = [*SIZES, s >= 1, g >= 1, src == s * t, dst == g * t]
    return Goal(facts, t <= smaller(src, dst))


@proved
def live_tiles() -> Goal:
    """Source, input and output of a step (the source counts once) are within source + target + t
    in each phase: slice, move, gather."""
    facts = [*SIZES, t <= src, t <= dst]
    limit = src + dst + t
    return Goal(facts, z3.And(src + t <= limit, src + t + t <= limit, src + t + dst <= limit))


@proved
def normal_form_within_the_larger_end() -> Goal:
    """Slices by a, moves, gathers by g: the tile after some of the slices, by a part of a, and that
    after some of the gathers are both within the larger end."""
    sliced, unsliced, gathered, more = z3.Reals("sliced unsliced gathered more")
    facts = [x >= 1 for x in (sliced, unsliced, gathered, more, t)]
    facts += [src == t * unsliced * sliced, dst == t * gathered * more]
    ends = larger(src, dst)
    return Goal(facts, z3.And(t * unsliced <= ends, t <= ends, t * gathered <= ends))


@false
def two_gathers_keep_the_smaller_end() -> Goal:
    """FALSE: with two gathers in a row, too, no tile between is above the smaller end."""
    x, y, tile = z3.Ints("x y tile")

    def problem(number: Numbers) -> tuple[str, str, str]:
        total = number(x) * number(y)
        return f"x={number(x)},y={number(y)}", f"f32[{total}{{x,y}}]", f"f32[{total}]"

    facts = [x >= 2, y >= 2, x <= 4, y <= 4, tile == 1]
    return Goal(facts, tile * y <= smaller(tile, tile * x * y), problem)
