"""The formulas of the proofs with numbers in place of z3's variables.

`require(volume.cycles_are_optimal, t=4, ...)` puts what the product says into an obligation: each
hypothesis must be true of these numbers, and so must the claim. A hypothesis that is false shows
that the product does not do what the proof is about; a variable without a number is an error.

>>> from proofs import digits
>>> require(digits.one_more_is_bounded, p=1, size=2, m=2, k=3)
>>> require(digits.one_more_is_bounded, p=1, size=2, m=3, k=3)
Traceback (most recent call last):
AssertionError: one_more_is_bounded, given m < k, is false of {'p': 1, 'size': 2, 'm': 3, 'k': 3}
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache, reduce
from math import prod
from typing import Any

from proofs.harness import Goal, Term, z3

OPERATIONS: dict[int, Callable[..., Any]] = {
    z3.Z3_OP_TRUE: lambda: True,
    z3.Z3_OP_FALSE: lambda: False,
    z3.Z3_OP_ADD: lambda *terms: sum(terms),
    z3.Z3_OP_SUB: lambda *terms: reduce(operator.sub, terms),
    z3.Z3_OP_UMINUS: operator.neg,
    z3.Z3_OP_MUL: lambda *terms: prod(terms),
    z3.Z3_OP_DIV: Fraction,
    z3.Z3_OP_IDIV: operator.floordiv,  # of a positive divisor, as all of ours are
    z3.Z3_OP_MOD: operator.mod,
    z3.Z3_OP_TO_REAL: lambda number: number,
    z3.Z3_OP_LE: operator.le,
    z3.Z3_OP_LT: operator.lt,
    z3.Z3_OP_GE: operator.ge,
    z3.Z3_OP_GT: operator.gt,
    z3.Z3_OP_EQ: operator.eq,
    z3.Z3_OP_DISTINCT: lambda *terms: len({*terms}) == len(terms),
    z3.Z3_OP_AND: lambda *terms: all(terms),
    z3.Z3_OP_OR: lambda *terms: any(terms),
    z3.Z3_OP_NOT: operator.not_,
    z3.Z3_OP_SELECT: lambda array, place: array[place],
}

Values = Mapping[str, Any]
"""Per variable a number, a truth value, a callable for a function, a mapping for an array."""


Reader = Callable[[Values], Any]


def reader(term: Term) -> Reader:
    """What a term or formula is, as a function of the values; z3 is asked only once."""
    if z3.is_int_value(term) or z3.is_rational_value(term):
        number = term.as_long() if z3.is_int_value(term) else term.as_fraction()
        return lambda _: number
    kind, name = term.decl().kind(), term.decl().name()
    readers = [reader(child) for child in term.children()]
    if kind == z3.Z3_OP_ITE:  # the other branch need not have a value
        condition, then, otherwise = readers
        return lambda values: (then if condition(values) else otherwise)(values)
    if kind == z3.Z3_OP_IMPLIES:
        condition, then = readers
        return lambda values: not condition(values) or then(values)
    if kind == z3.Z3_OP_UNINTERPRETED:
        if not readers:
            return lambda values: values[name]
        return lambda values: values[name](*(read(values) for read in readers))
    operation = OPERATIONS[kind]
    return lambda values: operation(*(read(values) for read in readers))


@cache
def readers_of(obligation: Callable[[], Goal]) -> tuple[list[tuple[str, Reader]], list[Reader]]:
    """The facts, then the claim, in words and as readers; and both sides of the claim."""
    goal = obligation()
    facts = [(f"given {fact}", reader(fact)) for fact in goal.facts]
    claim = ("claim " + str(goal.claim), reader(goal.claim))
    return [*facts, claim], [reader(side) for side in goal.claim.children()]


def require(obligation: Callable[[], Goal], **values: Any) -> None:
    """Raise AssertionError unless the hypotheses and the claim are true of these values."""
    for words, holds in readers_of(obligation)[0]:
        if not holds(values):
            name = getattr(obligation, "__name__", "")
            raise AssertionError(f"{name}, {words}, is false of {values}")


def sides(obligation: Callable[[], Goal], **values: Any) -> tuple[Any, Any]:
    """The two sides of a claim that is an equation, where `require` holds."""
    require(obligation, **values)
    left, right = readers_of(obligation)[1]
    return left(values), right(values)


def written(name: str, number: int, *sizes: int) -> dict[str, int]:
    """The variables of `harness.write` for a number: its digits, major first, and its prefixes."""
    values, rest = {}, number
    for place in reversed(range(len(sizes))):
        if 1 <= place < len(sizes) - 1:
            values[f"{name} prefix {place + 1}"] = rest
        size = sizes[place]
        values[f"{name}{place}"], rest = (rest % size, rest // size) if place else (rest, 0)
    return values
