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
    given = [*AROUND, a == 1]
    return Goal(
        given,
        horner([(prefix, size), (major, a), (suffix, weight)])
        == horner([(prefix, size), (suffix, weight)]),
    )


@proved
def local_neighbours_merge() -> Goal:
    """`_a,_b` is `_ab`: the two positions are one of the product, and of every index."""
    merged = horner([(major, a), (minor, b)])
    apart = horner([(prefix, size), (major, a), (minor, b), (suffix, weight)])
    one = horner([(prefix, size), (merged, a * b), (suffix, weight)])
    return Goal(AROUND, z3.And(apart == one, *bounded((merged, a * b))))


@proved
def parts_of_an_axis_merge() -> Goal:
    """`x:(p)a,x:(pa)b` is `x:(p)ab`: the merged part has the value that both parts write, as a
    coordinate has one digit of that size at that weight (and the parts write it, as above)."""
    coordinate, ab = z3.Ints("coordinate ab")
    parts = write("parts", coordinate, size, ab, weight)
    merged = write("merged", coordinate, size, ab, weight)
    given = [*parts.facts, *merged.facts, *same_digits(parts, merged)]
    return Goal(given, parts.digits[1] == merged.digits[1])


@proved
def a_trailing_local_factor_drops() -> Goal:
    """A trailing `_b` and the rest of the dimension are one rest: positions and elements agree."""
    given = AROUND
    rest = horner([(minor, b), (suffix, weight)])
    return Goal(
        given,
        z3.And(
            horner([(prefix, size), (minor, b), (suffix, weight)]) == prefix * (b * weight) + rest,
            *bounded((rest, b * weight)),
        ),
    )


@proved
def the_order_of_partial_digits_is_free() -> Goal:
    """Sums over two partial digits may be taken in either order: step of the induction over both.

    With columns A and B of addends, (A + x) + (B + y) is (A + B) + (x + y) for an associative,
    commutative reduction; an instance of each law is all it takes."""
    value = z3.DeclareSort("Addend")
    op = z3.Function("reduce", value, value, value)
    first, second, x, y = z3.Consts("A B x y", value)
    law = [
        op(op(first, x), op(second, y)) == op(first, op(x, op(second, y))),
        op(x, op(second, y)) == op(op(x, second), y),
        op(x, second) == op(second, x),
        op(op(second, x), y) == op(second, op(x, y)),
        op(first, op(second, op(x, y))) == op(op(first, second), op(x, y)),
    ]
    return Goal(law, op(op(first, x), op(second, y)) == op(op(first, second), op(x, y)))


@false
def minor_then_major_merges() -> Goal:
    """FALSE: `x:(a)b,x:(1)a`, the minor part first, merges into `x`."""
    given = [*bounded((major, a), (minor, b)), a <= 3, b <= 3]

    def problem(number: Numbers) -> tuple[str, str, str]:
        i, j = number(a), number(b)
        return f"x={i * j}", f"f32[{i * j}{{x:({i}){j},x:(1){i}}}]", f"f32[{i * j}{{x}}]"

    return Goal(
        given, horner([(minor, b), (major, a)]) == horner([(major, a), (minor, b)]), problem
    )
