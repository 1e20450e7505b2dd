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
    facts = [*POSITIVE, hi == lo * f * w, end == pre * (f * w), n == end * rest]
    return Goal(facts, n == (pre * f) * (w * rest))


@proved
def images_are_inside() -> Goal:
    """The image of a cut strictly inside a use is strictly inside the use on the other side."""
    facts = [*POSITIVE, f >= 2, w >= 2, end == pre * (f * w)]
    return Goal(facts, z3.And(pre < pre * f, pre * f < end))


@proved
def images_are_inverse() -> Goal:
    """The image of an image is the cut: pre * (c / lo) maps back to lo * (c / lo)."""
    cut, image, inverse = z3.Ints("cut image inverse")
    g = z3.Int("g")
    facts = [
        *POSITIVE,
        cut == lo * f,
        image == pre * f,
        image == pre * g,
        inverse == lo * g,
        g >= 1,
    ]
    return Goal(facts, inverse == cut)


@proved
def every_round_adds_a_divisor() -> Goal:
    """Termination: the divisors not yet found are finite in number, and each round that goes on
    finds one more. Their number falls and stays at least 0."""
    divisors, found, new = z3.Ints("divisors found new")
    facts = [found >= 0, new >= 1, found + new <= divisors]
    before, after = divisors - found, divisors - (found + new)
    return Goal(facts, z3.And(after < before, after >= 0))


@proved
def the_least_fixpoint_is_unique() -> Goal:
    """A set of cuts that has the ends of all factors and the images of its members has every cut
    that propagation finds: one propagation more, of any cut found. So two orders of propagation,
    each of which ends in such a set, end in the same."""
    found, closed = (z3.Function(x, z3.IntSort(), z3.BoolSort()) for x in ("found", "closed"))
    cut, any_cut = z3.Ints("cut any_cut")
    image = z3.Function("image", z3.IntSort(), z3.IntSort())
    facts = [found(cut), z3.Implies(closed(cut), closed(image(cut)))]
    facts += [z3.Implies(found(c), closed(c)) for c in (cut, any_cut)]
    after = z3.Or(found(any_cut), any_cut == image(cut))
    return Goal(facts, z3.Implies(after, closed(any_cut)))


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
    facts = bounded((major, a), (minor, b), (low, weight))
    merged = horner([(p, 1), (horner([(major, a), (minor, b)]), a * b), (low, weight)])
    return Goal(facts, horner([(p, 1), (major, a), (minor, b), (low, weight)]) == merged)


@proved
def aligned_digits_are_owned_whole() -> Goal:
    """With all cuts of a dimension in a chain, a use [lo, hi) is a union of digits: a digit [c, d)
    between neighbouring cuts lies inside it or outside, as lo and hi are cuts themselves."""
    c, d = z3.Ints("c d")

    def no_cut_between(cut: Term) -> Term:
        return z3.Or(cut <= c, cut >= d)

    facts = [c >= 1, c < d, lo >= 1, lo < hi, no_cut_between(lo), no_cut_between(hi)]
    return Goal(facts, z3.Or(z3.And(lo <= c, d <= hi), d <= lo, hi <= c))


@proved
def common_multiples_are_those_of_the_least() -> Goal:
    """Misaligned: a cut c below a and b, a multiple of both, is one of lcm(a, b). The remainder of
    c by the lcm is a common multiple too and smaller, so it is 0."""
    a, b, c, low, r, p, q, u, v = z3.Ints("a b c low r p q u v")
    facts = [a >= 1, b >= 1, low >= 1, low == a * p, low == b * q]
    facts += [c == a * u, c == b * v, c == low * w + r, *bounded((r, low))]
    # `low` is least: of r, which is a (u - p w) and b (v - q w).
    both = z3.And(r == a * (u - p * w), r == b * (v - q * w))
    facts += [z3.Implies(z3.And(r > 0, both), r >= low)]
    return Goal(facts, c == low * w)


@proved
def what_lies_between_lcm_and_gcd_is_inside_both_runs() -> Goal:
    """Misaligned: a multiple c of lcm(a, b) that divides gcd(a', b') is a cut inside the run
    [a, a') of the source and inside [b, b') of the target, so both respect it: c is a multiple of
    a and b and divides a' and b'."""
    a, b, c, low, high, p, q, r, s, u, v = z3.Ints("a b c low high p q r s u v")
    a_next, b_next = z3.Ints("a' b'")
    facts = [low == a * p, low == b * q, c == low * u, high == c * v]
    facts += [a_next == high * r, b_next == high * s]
    claim = [c == a * (p * u), c == b * (q * u), a_next == c * (v * r), b_next == c * (v * s)]
    return Goal(facts, z3.And(claim))


@proved
def common_divisors_are_those_of_the_greatest() -> Goal:
    """Misaligned: a cut c inside both runs divides gcd(a', b'), which is r a' + s b' for some r, s;
    so with the lcm there is no other cut inside both."""
    a_next, b_next, c, high, r, s, u, v = z3.Ints("a' b' c high r s u v")
    facts = [a_next == c * u, b_next == c * v, high == r * a_next + s * b_next, c >= 1, high >= 1]
    return Goal(facts, high == c * (r * u + s * v))


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
    facts = [a >= 2, y >= 2, x == a * y, x <= 6]
    return Goal(facts, z3.Or(a % y == 0, y % a == 0), problem)
