"""Digits: numbers written with symbolic sizes, major to minor, and parts of axes.

A number with any number of digits is (prefix, last digit); the prefix is one fresh variable below
the product of its sizes. What is shown of it is the inductive step; without digits there is only 0.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, bounded, false, horner, proved, z3

p, q, m, n, k, size = z3.Ints("p q m n k size")


@proved
def no_digits() -> Goal:
    """Base: the only number below 1, the product of no sizes, is 0."""
    return Goal(bounded((n, 1)), n == 0)


@proved
def one_more_is_bounded() -> Goal:
    """Step: if a prefix is below the product of its sizes, so is the number with one digit more."""
    written = horner([(p, size), (m, k)])
    return Goal(bounded((p, size), (m, k)), z3.And(bounded((written, size * k))))


@proved
def one_more_is_unique() -> Goal:
    """Step: equal numbers have equal last digits and equal prefixes."""
    facts = bounded((p, size), (q, size), (m, k), (n, k))
    same = horner([(p, size), (m, k)]) == horner([(q, size), (n, k)])
    return Goal([*facts, same], z3.And(p == q, m == n))


@proved
def one_more_exists() -> Goal:
    """Step: every number below the product has a prefix and a last digit: quotient, remainder."""
    facts = [k >= 1, size >= 1, *bounded((n, size * k))]
    return Goal(
        facts, z3.And(n == horner([(n / k, size), (n % k, k)]), *bounded((n / k, size), (n % k, k)))
    )


@proved
def suffix_by_weight() -> Goal:
    """Step: a list of digits is prefix * (product of the suffix sizes) + suffix, if it was so
    before one more digit was appended to the suffix."""
    number, suffix, weight = z3.Ints("number suffix weight")
    facts = [number == p * weight + suffix]
    return Goal(facts, horner([(number, 1), (m, k)]) == p * (weight * k) + (suffix * k + m))


@proved
def quotient_drops_the_suffix() -> Goal:
    """(prefix * weight + suffix) // weight is the prefix: the first half of a digit's formula."""
    suffix, weight = z3.Ints("suffix weight")
    return Goal([p >= 0, *bounded((suffix, weight))], (p * weight + suffix) / weight == p)


@proved
def remainder_is_the_last_digit() -> Goal:
    """(prefix * k + m) % k is m: the second half of the formula c // (n // end) % k."""
    return Goal([p >= 0, *bounded((m, k))], (p * k + m) % k == m)


@proved
def nested_cuts_have_weights() -> Goal:
    """If the end of a digit divides n, as n = end * weight says, then n // end is that weight."""
    end, weight = z3.Ints("end weight")
    return Goal([end >= 1, weight >= 1, n == weight * end], z3.And(n / end == weight, n % end == 0))


@proved
def disjoint_nested_digits_are_independent() -> Goal:
    """Any two values of two nested disjoint digits of an axis occur together at a coordinate."""
    between, after, pre, other = z3.Ints("between after pre other")
    coordinate = horner([(0, pre), (m, k), (0, between), (n, other), (0, after)])
    facts = [pre >= 1, between >= 1, after >= 1, *bounded((m, k), (n, other))]
    return Goal(facts, z3.And(bounded((coordinate, pre * k * between * other * after))))


@false
def order_does_not_matter() -> Goal:
    """FALSE: two axes that own one dimension may be written in either order."""
    x, y, a, b = z3.Ints("x y a b")

    def problem(number: Numbers) -> tuple[str, str, str]:
        total = number(x) * number(y)
        mesh = f"x={number(x)},y={number(y)}"
        return mesh, f"f32[{total}{{x,y}}]", f"f32[{total}{{y,x}}]"

    facts = [x <= 3, y <= 3, *bounded((a, x), (b, y))]
    return Goal(facts, horner([(a, x), (b, y)]) == horner([(b, y), (a, x)]), problem)
