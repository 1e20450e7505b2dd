"""The paper's normal form: the rewrite rules keep the type and the peak, and rewriting ends.

Programs act on stacks of axes, as in `stacks`. Each rule: where the left side is legal, the right
side is legal, ends in the same type, and has no larger tile than the left side's largest.
`swap_within` is of the two top axes; at any depth it is covered by `swaps_at_any_depth`.

Axes are of prime size, so two sizes are equal or coprime. Where |b| divides c |a| the rules need
that |b| divides c if they are coprime: `coprime_divides`. It enters as a witness.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, false, proved, z3
from proofs.stacks import (
    Stack,
    a,
    b,
    c,
    cut,
    gather,
    move,
    r,
    replace_top,
    rule,
    size,
    swap_tops,
    swap_within,
)

Int = z3.IntSort()
q, q2, p, w = z3.Ints("q q2 p w")
POSITIVE = (q >= 1, q2 >= 1, p >= 1, w >= 1)
tile_i, tile_j = z3.Ints("tile_i tile_j")


@proved
def coprime_divides() -> Goal:
    """If |b| divides c |a| and they are coprime (u |a| + v |b| = 1), |b| divides c."""
    tile, size_a, size_b, u, v = z3.Ints("tile size_a size_b u v")
    facts = [tile * size_a == size_b * q, u * size_a + v * size_b == 1, size_a >= 1, size_b >= 1]
    combined = tile * (u * size_a + v * size_b) == u * (tile * size_a) + v * (tile * size_b)
    return Goal([*facts, combined], tile == size_b * (u * q + tile * v))


# --- gather before slice


@proved
def gather_slice_of_one_axis() -> Goal:
    """gather(i, a); slice(i, a) is nothing."""
    return rule([gather("i", a), cut("i", a, q)], [], *POSITIVE)


@proved
def gather_slice_of_equal_sizes() -> Goal:
    """gather(i, a); slice(i, b) with |a| = |b| is replace_top(i, a, b)."""
    return rule(
        [gather("i", a), cut("i", b, q)],
        [replace_top("i", a, b)],
        *POSITIVE,
        a != b,
        size(a) == size(b),
    )


@proved
def gather_slice_of_coprime_sizes() -> Goal:
    """gather(i, a); slice(i, b) else is slice(i, b); swap_within(i); gather(i, a)."""
    # tile = |b| p by coprime_divides; the quotient of the left side is |a| p.
    return rule(
        [gather("i", a), cut("i", b, size(a) * p)],
        [cut("i", b, p), swap_within("i"), gather("i", a)],
        *POSITIVE,
        a != b,
        tile_i == size(b) * p,
    )


@proved
def gather_slice_of_one_axis_elsewhere() -> Goal:
    """gather(i, a); slice(j, a) is move(i, j, a)."""
    return rule([gather("i", a), cut("j", a, q)], [move("i", "j", a, q)], *POSITIVE)


@proved
def gather_slice_elsewhere() -> Goal:
    """gather(i, a); slice(j, b) is slice(j, b); gather(i, a)."""
    return rule(
        [gather("i", a), cut("j", b, q)], [cut("j", b, q), gather("i", a)], *POSITIVE, a != b
    )


# --- gather before a move or permute


@proved
def gather_move_from_the_stack() -> Goal:
    """gather(i, a); move(i, j, b) is swap_within(i); move(i, j, b); gather(i, a)."""
    return rule(
        [gather("i", a), move("i", "j", b, q)],
        [swap_within("i"), move("i", "j", b, q), gather("i", a)],
        *POSITIVE,
    )


@proved
def gather_move_onto_the_stack_of_equal_size() -> Goal:
    """gather(j, a); move(i, j, b) with |a| = |b| is swap_tops(i, j); gather(i, a)."""
    return rule(
        [gather("j", a), move("i", "j", b, q)],
        [swap_tops("i", "j"), gather("i", a)],
        *POSITIVE,
        size(a) == size(b),
    )


@proved
def gather_move_onto_the_stack_of_coprime_size() -> Goal:
    """gather(j, a); move(i, j, b) else is move(i, j, b); swap_within(j); gather(j, a)."""
    return rule(
        [gather("j", a), move("i", "j", b, size(a) * p)],
        [move("i", "j", b, p), swap_within("j"), gather("j", a)],
        *POSITIVE,
        tile_j == size(b) * p,
    )


@proved
def gather_move_elsewhere() -> Goal:
    """gather(i, a); move(j, k, b) commute."""
    return rule(
        [gather("i", a), move("j", "k", b, q)], [move("j", "k", b, q), gather("i", a)], *POSITIVE
    )


@proved
def gather_swap_tops() -> Goal:
    """gather(i, a); swap_tops(i, j) is swap_within(i); swap_tops(i, j); swap_within(i);
    gather(i, a)."""
    return rule(
        [gather("i", a), swap_tops("i", "j")],
        [swap_within("i"), swap_tops("i", "j"), swap_within("i"), gather("i", a)],
    )


@proved
def gather_swap_tops_elsewhere() -> Goal:
    """gather(i, a); swap_tops(j, k) commute."""
    return rule([gather("i", a), swap_tops("j", "k")], [swap_tops("j", "k"), gather("i", a)])


@proved
def gather_replace_top() -> Goal:
    """gather(i, a); replace_top(i, c, r), r not a, is swap_within(i); replace_top(i, c, r);
    swap_within(i); gather(i, a)."""
    return rule(
        [gather("i", a), replace_top("i", c, r)],
        [swap_within("i"), replace_top("i", c, r), swap_within("i"), gather("i", a)],
        r != a,
    )


@proved
def gather_replace_top_by_the_gathered() -> Goal:
    """gather(i, a); replace_top(i, c, a) is swap_within(i); gather(i, c)."""
    return rule(
        [gather("i", a), replace_top("i", c, a)], [swap_within("i"), gather("i", c)], a != c
    )


@proved
def gather_replace_top_elsewhere() -> Goal:
    """gather(i, a); replace_top(j, c, r), r not a, commute."""
    return rule(
        [gather("i", a), replace_top("j", c, r)], [replace_top("j", c, r), gather("i", a)], r != a
    )


@proved
def gather_replace_top_elsewhere_by_the_gathered() -> Goal:
    """gather(i, a); replace_top(j, c, a) is swap_tops(i, j); gather(i, c)."""
    return rule(
        [gather("i", a), replace_top("j", c, a)], [swap_tops("i", "j"), gather("i", c)], a != c
    )


# --- a move or permute before a slice


@proved
def move_slice_of_the_source_of_equal_size() -> Goal:
    """move(i, j, a); slice(i, b) with |a| = |b| is slice(j, b); swap_tops(i, j)."""
    return rule(
        [move("i", "j", a, q), cut("i", b, tile_i)],
        [cut("j", b, q), swap_tops("i", "j")],
        *POSITIVE,
        size(a) == size(b),
    )


@proved
def move_slice_of_the_source() -> Goal:
    """move(i, j, a); slice(i, b) where |b| divides the tile is slice(i, b); swap_within(i);
    move(i, j, a)."""
    return rule(
        [move("i", "j", a, q), cut("i", b, size(a) * p)],
        [cut("i", b, p), swap_within("i"), move("i", "j", a, q)],
        *POSITIVE,
        tile_i == size(b) * p,
    )


@proved
def move_slice_of_the_target() -> Goal:
    """move(i, j, a); slice(j, b) is slice(j, b); move(i, j, a); swap_within(j)."""
    return rule(
        [move("i", "j", a, size(b) * q), cut("j", b, q)],
        [cut("j", b, size(a) * q), move("i", "j", a, q), swap_within("j")],
        *POSITIVE,
    )


@proved
def move_slice_elsewhere() -> Goal:
    """move(i, j, a); slice(k, b) commute."""
    return rule(
        [move("i", "j", a, q), cut("k", b, q2)], [cut("k", b, q2), move("i", "j", a, q)], *POSITIVE
    )


@proved
def swap_tops_slice() -> Goal:
    """swap_tops(i, j); slice(i, b) is slice(i, b); swap_within(i); swap_tops(i, j);
    swap_within(i). A published port leaves the swaps out."""
    return rule(
        [swap_tops("i", "j"), cut("i", b, q)],
        [cut("i", b, q), swap_within("i"), swap_tops("i", "j"), swap_within("i")],
        *POSITIVE,
    )


@proved
def swap_tops_slice_elsewhere() -> Goal:
    """swap_tops(i, j); slice(k, b) commute."""
    return rule(
        [swap_tops("i", "j"), cut("k", b, q)], [cut("k", b, q), swap_tops("i", "j")], *POSITIVE
    )


@proved
def replace_top_slice() -> Goal:
    """replace_top(i, c, r); slice(i, b), b not c, is slice(i, b); swap_within(i);
    replace_top(i, c, r); swap_within(i)."""
    return rule(
        [replace_top("i", c, r), cut("i", b, q)],
        [cut("i", b, q), swap_within("i"), replace_top("i", c, r), swap_within("i")],
        *POSITIVE,
        b != c,
    )


@proved
def replace_top_slice_by_the_replaced() -> Goal:
    """replace_top(i, c, r); slice(i, c) is slice(i, r); swap_within(i)."""
    return rule(
        [replace_top("i", c, r), cut("i", c, q)], [cut("i", r, q), swap_within("i")], *POSITIVE
    )


@proved
def replace_top_slice_elsewhere() -> Goal:
    """replace_top(i, c, r); slice(j, b), b not c, commute."""
    return rule(
        [replace_top("i", c, r), cut("j", b, q)],
        [cut("j", b, q), replace_top("i", c, r)],
        *POSITIVE,
        b != c,
    )


@proved
def replace_top_slice_elsewhere_by_the_replaced() -> Goal:
    """replace_top(i, c, r); slice(j, c) is slice(j, r); swap_tops(i, j)."""
    return rule(
        [replace_top("i", c, r), cut("j", c, q)], [cut("j", r, q), swap_tops("i", "j")], *POSITIVE
    )


# --- swaps at any depth of a stack


@proved
def swaps_at_any_depth() -> Goal:
    """A swap under the top axis leaves it: what it does to push(x, rest) is push(x, what it does to
    rest, one higher). So after gather(i, a) or slice(i, b) it commutes with them one lower or
    higher."""
    swap, lower = z3.Function("swap", Stack, Stack), z3.Function("lower", Stack, Stack)
    stack = z3.Const("stack", Stack)
    facts = [
        Stack.is_push(stack),
        lower(stack) == Stack.push(Stack.top(stack), swap(Stack.under(stack))),
    ]
    pushed = Stack.push(b, stack)
    facts.append(lower(pushed) == Stack.push(b, swap(stack)))
    gathered = Stack.under(lower(stack)) == swap(Stack.under(stack))
    sliced = lower(pushed) == Stack.push(b, swap(stack))
    return Goal(facts, z3.And(gathered, sliced, Stack.top(lower(stack)) == Stack.top(stack)))


# --- rewriting ends

inversions, weight, unit, s, g = z3.Ints("inversions weight unit s g")
"""inversions: how often a gather stands before a slice; weight: the sum over moves and permutes of
4 to the power of (slices after it + gathers before it), of which `unit` is a fourth of one."""


@proved
def gather_slice_rules_lower_the_inversions() -> Goal:
    """With g gathers before the pair and s slices after it, `gather; slice` has s + g + 1
    inversions with them and itself; `slice; ...; gather` has s + g, a permute or nothing has 0."""
    before, swapped = s + g + 1, s + g
    return Goal([s >= 0, g >= 0], z3.And(swapped < before, 0 < before))


@proved
def the_other_rules_lower_the_weight() -> Goal:
    """`gather; permute` to at most three permutes and the gather, and `permute; slice` to the slice
    and at most three permutes: the inversions stay, each new permute weighs a fourth of the old."""
    copies, others = z3.Ints("copies others")
    facts = [0 <= copies, copies <= 3, unit >= 1, others >= 0, weight == others + 4 * unit]
    return Goal(facts, z3.And(others + copies * unit < weight, others + copies * unit >= 0))


@proved
def the_measure_is_well_founded() -> Goal:
    """Each rewriting lowers (inversions, weight) in lexicographic order, in which a pair of natural
    numbers can fall finitely often: it never rises again to a pair above an earlier one."""
    i1, w1, i2, w2, i3, w3 = z3.Ints("i1 w1 i2 w2 i3 w3")

    def falls(x: tuple[Term, Term], y: tuple[Term, Term]) -> Term:
        return z3.Or(y[0] < x[0], z3.And(y[0] == x[0], y[1] < x[1]))

    facts = [n >= 0 for n in (i1, w1, i2, w2, i3, w3)]
    facts += [falls((i1, w1), (i2, w2)), falls((i2, w2), (i3, w3))]
    return Goal(facts, z3.And(falls((i1, w1), (i3, w3)), z3.Not(falls((i3, w3), (i1, w1)))))


@proved
def what_no_rule_rewrites_is_in_order() -> Goal:
    """With rank 0 for slices, 1 for moves and permutes, 2 for gathers, the pairs with rules are
    those that fall; a program without one rises throughout, so slices come first, gathers last."""
    rank = z3.Function("rank", Int, Int)
    place, earlier = z3.Ints("place earlier")

    def has_rule(x: Term, y: Term) -> Term:
        return z3.Or(z3.And(x == 2, y == 0), z3.And(x == 2, y == 1), z3.And(x == 1, y == 0))

    facts = [0 <= rank(place), rank(place) <= 2, 0 <= rank(place + 1), rank(place + 1) <= 2]
    # Induction: what comes before `place` ranks no higher than it.
    facts += [rank(earlier) <= rank(place), z3.Not(has_rule(rank(place), rank(place + 1)))]
    return Goal(facts, rank(earlier) <= rank(place + 1))


@proved
def permutes_compose() -> Goal:
    """Permutes in a row are one permute: if two of them send no two devices to one, neither does
    one after the other. So one all_permute at most is left."""
    device, other = z3.Ints("device other")
    first, second = z3.Function("first", Int, Int), z3.Function("second", Int, Int)
    facts = [z3.Implies(first(device) == first(other), device == other)]
    facts += [
        z3.Implies(second(first(device)) == second(first(other)), first(device) == first(other))
    ]
    facts += [second(first(device)) == second(first(other))]
    return Goal(facts, device == other)


@false
def swap_tops_slice_commute() -> Goal:
    """FALSE: swap_tops(i, j); slice(i, b) commute, as a published port has it."""
    stacks = [z3.Const(f"stack_{i}", Stack) for i in "ij"]
    small = [Stack.under(stack) == Stack.empty for stack in stacks]
    top = size(Stack.top(stacks[0]))
    goal = rule(
        [swap_tops("i", "j"), cut("i", b, q)],
        [cut("i", b, q), swap_tops("i", "j")],
        *POSITIVE,
        *small,
        top <= 3,
        size(b) <= 3,
        q <= 2,
    )

    def problem(number: Numbers) -> tuple[str, str, str]:
        c_size, b_size = number(top), number(size(b))
        n, mesh = c_size * b_size, f"c={c_size},d={c_size},b={b_size}"
        return mesh, f"f32[{n}{{c}}, {n}{{d}}]", f"f32[{n}{{d,b}}, {n}{{c}}]"

    return Goal(goal.facts, goal.claim, problem)


@false
def divisibility_survives_any_sizes() -> Goal:
    """FALSE: where |b| divides c |a|, it divides c, for sizes that are not prime, too."""
    tile, x, y = z3.Ints("tile x y")

    def problem(number: Numbers) -> tuple[str, str, str]:
        n = number(tile) * number(x)
        return f"a={number(x)},b={number(y)}", f"f32[{n}{{a}}]", f"f32[{n}{{b}}]"

    facts = [x >= 2, y >= 2, x != y, tile >= 1, x <= 6, y <= 6, tile <= 6, tile * x == y * q]
    return Goal(facts, tile % y == 0, problem)
