"""Typing rules: each collective takes every element to where its rule says, at any position.

A dimension is: what lies above the digit b that the rule is about, b of size k, what lies below.
Above and below there may be any number of digits, owned ones and local ones: they contribute
`above(h, c)` and `under(low, c)` to the index, unknown functions of the local positions h < H and
low < L and of the coordinate c on all other device digits, which the step leaves alone. A tile is a
row of offsets: (h*k + m)*L + low where b is local, h*L + low where it is owned.

A program reads an offset o of the output as its own (h, m, low), and asks a sender for an offset of
his tile; each type reads offsets by itself. That readings agree is what `digits` proves.
"""

from __future__ import annotations

from typing import Any

from proofs.harness import (
    Goal,
    Numbers,
    Term,
    Written,
    bounded,
    false,
    horner,
    proved,
    same_digits,
    write,
    z3,
)

Int = z3.IntSort()
above = z3.Function("above", Int, Int, Int)
under = z3.Function("under", Int, Int, Int)
between = z3.Function("between", Int, Int, Int)
H, L, M, k, S, W, u, c = z3.Ints("H L M k S W u c")


def asked(offset: Term, *digits: tuple[Term, Term]) -> Written:
    """The offset that a program asks for, written in digits (value, size)."""
    return write(f"asked {offset} ", offset, *(d[1] for d in digits), digits=[d[0] for d in digits])


def step(out: list[Written], sent: list[Written]) -> list[Any]:
    """All facts of a step: output offsets are read by the program and the type after, sent ones
    are asked for by the program and read by the type before."""
    facts = [fact for written in (*out, *sent) for fact in written.facts]
    return facts + same_digits(*out) + same_digits(*sent)


def index(high: Term, digit: Term, low: Term) -> Term:
    """The global index of (above, b, below); S is the number of indices below b."""
    return horner([(above(high, c), 1), (digit, k), (under(low, c), S)])


@proved
def dynamic_slice() -> Goal:
    """dynamic_slice: a device with coordinate u cuts out the part u of b; that is what u owns."""
    o, s = z3.Ints("o s")
    program, after = write("program", o, H, L), write("after", o, H, L)
    before = write("before", s, H, k, L)
    h1, low1 = program.digits
    facts = step([program, after], [asked(s, (h1, H), (u, k), (low1, L)), before])
    h, low = after.digits
    return Goal(facts, index(*before.digits) == index(h, u, low))


@proved
def all_gather() -> Goal:
    """all_gather: part m of b comes from the device whose coordinate is m; then b is local."""
    o, s = z3.Ints("o s")
    program, after = write("program", o, H, k, L), write("after", o, H, k, L)
    before = write("before", s, H, L)
    h1, m1, low1 = program.digits
    facts = step([program, after], [asked(s, (h1, H), (low1, L)), before])
    h, low = before.digits
    return Goal(facts, index(h, m1, low) == index(*after.digits))


@proved
def offsets_stay_in_the_tile() -> Goal:
    """The offsets that a slice and a gather ask for lie in the sender's tile, and the sender on
    the mesh."""
    h, m, low, p = z3.Ints("h m low p")
    # `one_more_is_bounded` for the prefix of the slice, which lies below H*k.
    facts = [*bounded((h, H), (m, k), (low, L), (u, k), (p, H * k)), p == h * k + u]
    inside = bounded((horner([(h, H), (low, L)]), H * L), (p * L + low, (H * k) * L), (m, k))
    return Goal(facts, z3.And(inside))


def two_digits(high: Term, first: Term, mid: Term, second: Term, low: Term) -> Term:
    """The index of a dimension with two digits of size k; W indices between, S below."""
    return horner(
        [(above(high, c), 1), (first, k), (between(mid, c), W), (second, k), (under(low, c), S)]
    )


@proved
def all_to_all_to_a_minor_digit() -> Goal:
    """all_to_all inside a dimension: b, owned, becomes local, and the minor b' becomes owned."""
    o, s = z3.Ints("o s")
    program, after = write("program", o, H, k, M, L), write("after", o, H, k, M, L)
    before = write("before", s, H, M, k, L)
    h1, m1, e1, low1 = program.digits
    facts = step([program, after], [asked(s, (h1, H), (e1, M), (u, k), (low1, L)), before])
    (h2, e2, n2, low2), (h, m, e, low) = before.digits, after.digits
    return Goal(facts, two_digits(h2, m1, e2, n2, low2) == two_digits(h, m, e, u, low))


@proved
def all_to_all_to_a_major_digit() -> Goal:
    """all_to_all inside a dimension: b, owned, becomes local, and the major b' becomes owned."""
    o, s = z3.Ints("o s")
    program, after = write("program", o, H, M, k, L), write("after", o, H, M, k, L)
    before = write("before", s, H, k, M, L)
    h1, e1, m1, low1 = program.digits
    facts = step([program, after], [asked(s, (h1, H), (u, k), (e1, M), (low1, L)), before])
    (h2, n2, e2, low2), (h, e, m, low) = before.digits, after.digits
    return Goal(facts, two_digits(h2, n2, e2, m1, low2) == two_digits(h, u, e, m, low))


@proved
def all_to_all_between_dimensions() -> Goal:
    """all_to_all: b of one dimension becomes local and b' of another one owned."""
    o, s, o2, s2, high2, low2 = z3.Ints("o s o2 s2 high2 low2")
    above2 = z3.Function("above2", Int, Int, Int)
    under2 = z3.Function("under2", Int, Int, Int)

    def index2(high: Term, digit: Term, low: Term) -> Term:
        return horner([(above2(high, c), 1), (digit, k), (under2(low, c), W)])

    program, after = write("program", o, H, k, L), write("after", o, H, k, L)
    before = write("before", s, H, L)
    program2, after2 = write("program'", o2, high2, low2), write("after'", o2, high2, low2)
    before2 = write("before'", s2, high2, k, low2)
    h1, m1, low1 = program.digits
    g1, r1 = program2.digits
    facts = [
        *step([program, after], [asked(s, (h1, H), (low1, L)), before]),
        *step([program2, after2], [asked(s2, (g1, high2), (u, k), (r1, low2)), before2]),
    ]
    (h, low), (g, r) = before.digits, after2.digits
    same_element = index(h, m1, low) == index(*after.digits)
    return Goal(facts, z3.And(same_element, index2(*before2.digits) == index2(g, u, r)))


@proved
def moves_of_an_all_to_all_commute() -> Goal:
    """Two moves at once are one after the other: neither reads a digit that the other sets. The
    sender's coordinates and digits come out the same in both orders."""
    x, y, i, j = z3.Ints("x y i j")
    digits = z3.Array("digits", Int, Int)
    coordinates = z3.Array("coordinates", Int, Int)
    b1, b2, t1, t2 = z3.Ints("b1 b2 t1 t2")

    def move(state: Term, device: Term, source: Term, target: Term) -> Term:
        coordinate, position = state
        return (
            z3.Store(coordinate, device, position[source]),
            z3.Store(position, target, coordinate[device]),
        )

    xy = move(move((coordinates, digits), x, b1, t1), y, b2, t2)
    yx = move(move((coordinates, digits), y, b2, t2), x, b1, t1)
    facts = [x != y, z3.Distinct(b1, b2, t1, t2)]
    return Goal(facts, z3.And(xy[0][i] == yx[0][i], xy[1][j] == yx[1][j]))


@proved
def collective_permute() -> Goal:
    """collective_permute: what `old` owned, `new` owns; the receiver's coordinate on new is the
    sender's on old, and the offset is the same."""
    o = z3.Int("o")
    receiver, sender = z3.Array("receiver", Int, Int), z3.Array("sender", Int, Int)
    old, new = z3.Ints("old new")
    before, after = write("before", o, H, L), write("after", o, H, L)
    (h, low), (h2, low2) = before.digits, after.digits
    facts = [*before.facts, *after.facts, *same_digits(before, after)]
    facts += [*bounded((receiver[new], k)), sender[old] == receiver[new]]
    return Goal(facts, index(h, sender[old], low) == index(h2, receiver[new], low2))


@proved
def a_permute_is_a_permutation_of_devices() -> Goal:
    """If routes permute digits, receivers with the same sender are one device: for any digit j,
    which is `new` for some `old`."""
    c1, c2, s1, s2 = (z3.Array(name, Int, Int) for name in ("c1", "c2", "s1", "s2"))
    route, inverse = z3.Function("route", Int, Int), z3.Function("inverse", Int, Int)
    j, old = z3.Ints("j old")
    facts = [
        old == inverse(j),
        route(inverse(j)) == j,
        s1[old] == c1[route(old)],
        s2[old] == c2[route(old)],
        s1[old] == s2[old],
    ]
    return Goal(facts, c1[j] == c2[j])


@proved
def table_permute() -> Goal:
    """A table permute: if the owned runs of the sender before and of the receiver after have one
    value, as the table is checked for, the tiles are the same; outside the runs nothing changes."""
    o, run, size = z3.Ints("o run size")
    before, after = write("before", o, H, L), write("after", o, H, L)
    (h, low), (h2, low2) = before.digits, after.digits
    value_before, value_after = z3.Ints("value_before value_after")
    facts = [*before.facts, *after.facts, *same_digits(before, after)]
    facts += [*bounded((run, size)), value_before == run, value_after == run]
    return Goal(facts, index(h, value_before, low) == index(h2, value_after, low2))


@false
def gathered_parts_go_last() -> Goal:
    """FALSE: a gather may put the parts in the minor-most place, (h*L + low)*k + m, for any b."""
    o = z3.Int("o")
    program, after = write("program", o, H, L, k), write("after", o, H, k, L)
    (h1, low1, m1), (h, m, low) = program.digits, after.digits
    sizes = [H >= 1, k >= 2, L >= 1, H <= 3, k <= 3, L <= 3, S == L]
    plain = [above(p, c) == p for p in (h1, h)] + [under(p, c) == p for p in (low1, low)]
    facts = [*program.facts, *after.facts, *sizes, *plain]

    def problem(number: Numbers) -> tuple[str, str, str]:
        n = number(H) * number(k) * number(L)
        return f"x={number(k)}", f"f32[{n}{{_{number(H)},x}}]", f"f32[{n}]"

    return Goal(facts, index(h1, m1, low1) == index(h, m, low), problem)
