"""Common refinement: cuts propagate within divisors, so it ends, and cutting keeps the meaning.

A use says that the part [pre, end) of an axis owns the part [lo, hi) of a dimension. A cut c of the
dimension inside it, c = lo * f, cuts the axis at pre * f, and the reverse. Divisibility is a
witness: a divides b is b = a * w.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, bounded, false, horner, proved, z3

lo, hi, pre, end, n, f, w, rest, k = z3.Ints("lo hi pre end n f w rest k")
POSITIVE = [x >= 1 for x in (lo, hi, pre, end, n, f, w, rest, k)]


@proved
def images_are_divisors() -> Goal:
    """The image of a cut divides the axis, as the use does: all cuts are among its divisors."""
    # hi = lo f w, end = pre f w, n = end rest: the cut lo f has the image pre f.
    given = [*POSITIVE, hi == lo * f * w, end == pre * (f * w), n == end * rest]
    return Goal(given, n == (pre * f) * (w * rest))


@proved
def images_are_inside() -> Goal:
    """The image of a cut strictly inside a use is strictly inside the use on the other side."""
    given = [*POSITIVE, f >= 2, w >= 2, end == pre * (f * w)]
    return Goal(given, z3.And(pre < pre * f, pre * f < end))


@proved
def images_are_inverse() -> Goal:
    """The image of an image is the cut: pre * (c / lo) maps back to lo * (c / lo)."""
    cut, image, back = z3.Ints("cut image back")
    g = z3.Int("g")
    given = [*POSITIVE, cut == lo * f, image == pre * f, image == pre * g, back == lo * g, g >= 1]
    return Goal(given, back == cut)


@proved
def every_round_adds_a_divisor() -> Goal:
    """Termination: the divisors not yet found are finite in number, and each round that goes on
    finds one more. Their number falls and stays at least 0."""
    divisors, found, new = z3.Ints("divisors found new")
    given = [found >= 0, new >= 1, found + new <= divisors]
    before, after = divisors - found, divisors - (found + new)
    return Goal(given, z3.And(after < before, after >= 0))


@proved
def the_least_fixpoint_is_unique() -> Goal:
    """A set of cuts that has the ends of all factors and the images of its members has every cut
    that propagation finds: one propagation more. So the order of propagation does not matter."""
    closed, found = z3.Array("closed", z3.IntSort(), z3.BoolSort()), z3.Bool("found")
    cut = z3.Int("cut")
    image = z3.Function("image", z3.IntSort(), z3.IntSort())
    given = [
        found,
        z3.Implies(found, closed[cut]),  # induction: what was found is in the closed set
        z3.Implies(closed[cut], closed[image(cut)]),
    ]
    return Goal(given, closed[image(cut)])


@proved
def cutting_a_digit_keeps_its_value() -> Goal:
    """A cut splits the device digit and the index digit that it owns alike: the parts' values write
    the digit's on both sides, so the same devices hold the same elements."""
    a, b, device_major, device_minor = z3.Ints("a b device_major device_minor")
    major, minor = z3.Ints("major minor")
    pairs = [(device_major, a), (device_minor, b), (major, a), (minor, b)]
    owns = horner([(device_major, a), (device_minor, b)]) == horner([(major, a), (minor, b)])
    parts = z3.And(device_major == major, device_minor == minor)
    return Goal(bounded(*pairs), owns == parts)


@proved
def cutting_a_local_digit_keeps_the_index() -> Goal:
    """A cut of a local factor writes the same positions in two digits instead of one."""
    a, b, p, major, minor, low, weight = z3.Ints("a b p major minor low weight")
    given = bounded((major, a), (minor, b), (low, weight))
    merged = horner([(p, 1), (horner([(major, a), (minor, b)]), a * b), (low, weight)])
    return Goal(given, horner([(p, 1), (major, a), (minor, b), (low, weight)]) == merged)


@proved
def aligned_digits_are_owned_whole() -> Goal:
    """With all cuts of a dimension in a chain, a use [lo, hi) is a union of digits: a digit [c, d)
    between neighbouring cuts lies inside it or outside, as lo and hi are cuts themselves."""
    c, d = z3.Ints("c d")

    def no_cut_between(cut: Term) -> Term:
        return z3.Or(cut <= c, cut >= d)

    given = [c >= 1, c < d, lo >= 1, lo < hi, no_cut_between(lo), no_cut_between(hi)]
    return Goal(given, z3.Or(z3.And(lo <= c, d <= hi), d <= lo, hi <= c))


@proved
def components_multiply() -> Goal:
    """Runs of different components share no device digit, so how many elements two tiles share is
    a product over components, and the least product is the product of the leasts."""
    one, two, least1, least2 = z3.Ints("one two least1 least2")
    given = [0 <= least1, least1 <= one, 0 <= least2, least2 <= two]
    return Goal(given, least1 * least2 <= one * two)


@false
def cuts_are_always_a_chain() -> Goal:
    """FALSE: the cuts that two uses of one axis make on it always divide each other."""
    a, x, y = z3.Ints("a x y")

    def problem(number: Numbers) -> tuple[str, str, str]:
        size, first = number(x), number(a)
        mesh = f"x={size}"
        return mesh, f"f32[{first * size}{{x}}]", f"f32[{first * size}{{_{first},x}}]"

    # {x} has the axis at [1, x), {_a,x} at [a, a x). a cuts the first use, so the axis at a;
    # x, the end of the first use, cuts the second, so the axis at x / a = y.
    given = [a >= 2, y >= 2, x == a * y, x <= 6]
    return Goal(given, z3.Or(a % y == 0, y % a == 0), problem)
