"""Partial axes: the reduction over all addends stays what it was.

A type that is partial over K devices says that the array is the reduction of their K addends. The
reduction is any associative, commutative operation with an identity (sum, prod, max, min), given by
the instances of its laws that a proof uses. The number of devices is symbolic: `total(n)` is the
reduction of the first n addends, and the proofs go by induction on n.
"""

from __future__ import annotations

from proofs.harness import Goal, Numbers, Term, bounded, false, proved, same_digits, write, z3

Value = z3.DeclareSort("Value")
op = z3.Function("op", Value, Value, Value)
v, e = z3.Consts("v e", Value)
total = z3.Function("total", z3.IntSort(), Value)
addend = z3.Function("addend", z3.IntSort(), Value)
n, m, k, u = z3.Ints("n m k u")


def one_more(count: Term) -> Term:
    """What a reduction is: one addend more."""
    return total(count + 1) == op(total(count), addend(count))


def identity(*values: Term) -> list[Term]:
    """e is the identity for these values."""
    return [fact for value in values for fact in (op(value, e) == value, op(e, value) == value)]


@proved
def replicated_to_partial_base() -> Goal:
    """replicated_to_partial, base: coordinate 0 keeps the data v, so the first addend is v."""
    facts = [total(0) == e, addend(0) == v, one_more(z3.IntVal(0)), *identity(v)]
    return Goal(facts, total(1) == v)


@proved
def replicated_to_partial_step() -> Goal:
    """replicated_to_partial, step: every further addend is the identity, so the total stays v."""
    facts = [n >= 1, total(n) == v, addend(n) == e, one_more(n), *identity(v)]
    return Goal(facts, total(n + 1) == v)


@proved
def sharded_to_partial_base() -> Goal:
    """sharded_to_partial, base: of no addends the total is the identity, and no owner is among
    them."""
    return Goal([total(0) == e, m >= 0], total(0) == z3.If(m < 0, v, e))


@proved
def sharded_to_partial_step() -> Goal:
    """sharded_to_partial, step: only the owner m of the element's digit keeps v; the total of the
    first n addends is v once m is among them, else the identity."""
    facts = [
        n >= 0,
        m >= 0,
        total(n) == z3.If(m < n, v, e),
        addend(n) == z3.If(n == m, v, e),
        one_more(n),
        *identity(v, e),
    ]
    return Goal(facts, total(n + 1) == z3.If(m < n + 1, v, e))


@proved
def sharded_to_partial_reaches_the_owner() -> Goal:
    """sharded_to_partial: the owner is one of the k devices, so all k addends make the element."""
    facts = [*bounded((m, k)), total(k) == z3.If(m < k, v, e)]
    return Goal(facts, total(k) == v)


@proved
def part_of_the_addends_base() -> Goal:
    """all_reduce over some of the partial digits, base: of no rows, both orders give e."""
    rows, columns = z3.Function("rows", z3.IntSort(), Value), z3.Const("columns", Value)
    return Goal([rows(0) == e, columns == e], rows(0) == columns)


@proved
def part_of_the_addends_step() -> Goal:
    """all_reduce, step: with n devices along the reduced digit, reducing (all other digits of each)
    is reducing (the columns' totals). If it holds for n it holds for n + 1, where a column's total
    grows by an addend: op(A, x) op op(B, y) is op(A, B) op op(x, y)."""
    a, x, b, y = z3.Consts("A x B y", Value)
    laws = [
        op(op(a, x), op(b, y)) == op(a, op(x, op(b, y))),
        op(x, op(b, y)) == op(op(x, b), y),
        op(x, b) == op(b, x),
        op(op(b, x), y) == op(b, op(x, y)),
        op(a, op(b, op(x, y))) == op(op(a, b), op(x, y)),
    ]
    return Goal(laws, op(op(a, x), op(b, y)) == op(op(a, b), op(x, y)))


@proved
def reduce_scatter() -> Goal:
    """reduce_scatter: all k addends of the element that a device with coordinate u wants lie at
    one offset of the senders' tiles, that of part u; their total is the element."""
    o, s, high, low, parts = z3.Ints("o s high low parts")
    element = z3.Function("element", z3.IntSort(), z3.IntSort(), z3.IntSort(), Value)
    program, after = write("program", o, high, low), write("after", o, high, low)
    before = write("before", s, high, parts, low)
    h1, low1 = program.digits
    h, minor = after.digits
    sent = write("asked", s, high, parts, low, digits=[h1, u, low1])
    facts = [
        *(fact for written in (program, after, before, sent) for fact in written.facts),
        *same_digits(program, after),
        *same_digits(sent, before),
        total(parts) == element(*before.digits),  # the type before: what the addends add up to
    ]
    return Goal(facts, total(parts) == element(h, u, minor))


@proved
def permuted_addends() -> Goal:
    """A permute of partial digits renames addends: adjacent ones may be swapped, and swaps make
    every permutation."""
    a, x, y = z3.Consts("A x y", Value)
    laws = [
        op(op(a, x), y) == op(a, op(x, y)),
        op(x, y) == op(y, x),
        op(a, op(y, x)) == op(op(a, y), x),
    ]
    return Goal(laws, op(op(a, x), y) == op(op(a, y), x))


@proved
def identities() -> Goal:
    """0, 1, the least and the greatest number are the identities of sum, prod, max and min."""
    x, least, greatest = z3.Reals("x least greatest")
    claim = [
        x + 0 == x,
        x * 1 == x,
        z3.If(x >= least, x, least) == x,
        z3.If(x <= greatest, x, greatest) == x,
    ]
    return Goal([least <= x, x <= greatest], z3.And(claim))


@false
def copies_are_a_partial_sum() -> Goal:
    """FALSE: k copies of the data are a partial sum of it, without anyone turning into zeros."""
    x = z3.Int("x")

    def problem(number: Numbers) -> tuple[str, str, str]:
        return f"x={number(k)}", "i32[1]", "i32[1] sum{x}"

    return Goal([k >= 1, k <= 4, x >= 1], k * x == x, problem)
