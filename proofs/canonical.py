"""Canonical form: each rewriting keeps which device holds which element.

A dimension is prefix, the factors rewritten, suffix; a factor's value is a local position or the
device's coordinate on a part of an axis. Each rewriting acts on one or two factors, so a list of
any length is covered by the prefix and suffix that it leaves alone.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, bounded, false, horner, proved, same_digits, write, z3

prefix, major, minor, suffix, a, b, size, weight = z3.Ints("prefix major minor suffix a b s w")
AROUND = [*bounded((prefix, size), (major, a), (minor, b), (suffix, weight))]


@proved
def factors_of_size_one_drop() -> Goal:
    """A factor of size 1 has the value 0 and drops out of every index."""
    facts = [*AROUND, a == 1]
    return Goal(
        facts,
        horner([(prefix, size), (major, a), (suffix, weight)])
        == horner([(prefix, size), (suffix, weight)]),
    )


@proved
def local_neighbours_merge() -> Goal:
    """`_a,_b` is `_ab`: the two positions are one of the product, and of every index."""
    merged = horner([(major, a), (minor, b)])
    apart = horner([(prefix, size), (major, a), (minor, b), (suffix, weight)])
    joined = horner([(prefix, size), (merged, a * b), (suffix, weight)])
    return Goal(AROUND, z3.And(apart == joined, *bounded((merged, a * b))))


@proved
def parts_of_an_axis_merge() -> Goal:
    """`x:(p)a,x:(pa)b` is `x:(p)ab`: the merged part has the value that both parts write, as a
    coordinate has one digit of that size at that weight (and the parts write it, as above)."""
    coordinate, ab = z3.Ints("coordinate ab")
    parts = write("parts", coordinate, size, ab, weight)
    merged = write("merged", coordinate, size, ab, weight)
    facts = [*parts.facts, *merged.facts, *same_digits(parts, merged)]
    return Goal(facts, parts.digits[1] == merged.digits[1])


@proved
def a_trailing_local_factor_drops() -> Goal:
    """A trailing `_b` and the rest of the dimension are one rest: positions and elements agree."""
    facts = AROUND
    within = horner([(minor, b), (suffix, weight)])
    return Goal(
        facts,
        z3.And(
            horner([(prefix, size), (minor, b), (suffix, weight)])
            == prefix * (b * weight) + within,
            *bounded((within, b * weight)),
        ),
    )


# Two canonical lists of factors that are equal down to here and differ then. W is the rest of the
# dimension, k and n are the sizes of the next factors; held(i) says whether index i of the rest is
# held by a device that has coordinate 0 on every digit, unless other coordinates are named.

W, k, n, v, w, m, i, g = z3.Ints("W k n v w m i g")
held = z3.Function("held", z3.IntSort(), z3.BoolSort())


@proved
def a_local_factor_is_not_an_owned_one() -> Goal:
    """Uniqueness, one list going on with a device digit of size k and the other with a local factor
    of size n, or ending (n = W): the device with coordinate 0 holds only indices below w = W / k by
    the first, and some index of the last of the n blocks of v by the second."""
    facts = [k >= 2, n >= 2, w >= 1, v >= 1, W == k * w, W == n * v]
    # The products with the sizes above 2, each at least twice the factor.
    facts += [W >= 2 * w, W >= 2 * v, z3.Implies(held(i), z3.And(0 <= i, i < w))]
    facts += [i >= W - v, i < W]
    return Goal(facts, z3.Not(held(i)))


@proved
def two_owners_are_one() -> Goal:
    """Uniqueness, both going on with device digits, of sizes k and n, that share no part: there is
    a device with value 0 of the one and n - 1 of the other. By one list it holds only indices below
    w = W / k, by the other only those of the last of n blocks: none is both."""
    facts = [k >= 2, n >= 2, w >= 1, v >= 1, W == k * w, W == n * v, W >= 2 * w, W >= 2 * v]
    return Goal(facts, z3.Not(z3.And(0 <= i, i < w, W - v <= i, i < W)))


@proved
def local_blocks_repeat_with_their_greatest_common_size() -> Goal:
    """Uniqueness, both going on with local factors, so what is held repeats with blocks of w = W/k
    and of v = W/n around the rest: then it does with any sum of w's and v's, and with the greatest
    common divisor, which is one. Step: one w or v more."""
    number, shift = z3.Ints("number shift")
    same = held(number) == held(number + shift)
    facts = [same]
    facts += [held(number + shift) == held(number + shift + x) for x in (w, v)]
    claim = [held(number) == held(number + (shift + x)) for x in (w, v)]
    return Goal(facts, z3.And(claim))


@proved
def local_factors_are_one() -> Goal:
    """Uniqueness, both going on with local factors of different sizes: in the larger blocks, of w,
    follows a device digit of size m, for local factors merge and a trailing one drops. With
    coordinate 0 only the first w / m of a block are held. What is held repeats with a divisor g of
    w below it, so something of the last g of the block is held: w - g is no less than w / m."""
    parts, part = z3.Ints("parts part")
    facts = [m >= 2, g >= 1, parts >= 2, w == parts * g, w == m * part, part >= 1]
    facts += [w >= 2 * g, w >= 2 * part]  # the products with sizes of 2 and more
    facts += [z3.Implies(held(i), i < part), w - g <= i, i < w]
    return Goal(facts, z3.Not(held(i)))


@proved
def a_digit_of_the_same_start_is_cut() -> Goal:
    """Uniqueness, digits x:(p)k and x:(p)kn of one axis: the second is x:(p)k,x:(pk)n by a cut, and
    the lists go on with x:(pk)n and something else, since x:(p)k,x:(pk)n would have merged. Both
    ways write one value."""
    low, high, whole, other, above = z3.Ints("low high whole other above")
    facts = [*bounded((high, k), (low, n), (other, n)), whole == high * n + low]
    facts += [above == high, whole == above * n + other]
    return Goal(facts, other == low)


@false
def minor_then_major_merges() -> Goal:
    """FALSE: `x:(a)b,x:(1)a`, the minor part first, merges into `x`."""
    facts = [*bounded((major, a), (minor, b)), a <= 3, b <= 3]

    def problem(number: Numbers) -> tuple[str, str, str]:
        i, j = number(a), number(b)
        return f"x={i * j}", f"f32[{i * j}{{x:({i}){j},x:(1){i}}}]", f"f32[{i * j}{{x}}]"

    return Goal(
        facts, horner([(minor, b), (major, a)]) == horner([(major, a), (minor, b)]), problem
    )
