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
    z3.Z3_OP_IMPLIES: lambda condition, then: not condition or then,
    z3.Z3_OP_SELECT: lambda array, place: array[place],
}

Values = Mapping[str, Any]
"""Per variable a number, a truth value, a callable for a function, a mapping for an array."""


def evaluate(term: Term, values: Values) -> Any:
    """What a term or formula is with these values."""
    if not z3.is_expr(term):
        return term
    if z3.is_int_value(term):
        return term.as_long()
    if z3.is_rational_value(term):
        return term.as_fraction()
    kind = term.decl().kind()
    if kind == z3.Z3_OP_ITE:  # the other branch need not have a value
        condition, then, otherwise = term.children()
        return evaluate(then if evaluate(condition, values) else otherwise, values)
    if kind == z3.Z3_OP_IMPLIES and not evaluate(term.arg(0), values):
        return True
    arguments = [evaluate(child, values) for child in term.children()]
    if kind == z3.Z3_OP_UNINTERPRETED:
        value = values[term.decl().name()]
        return value(*arguments) if arguments else value
    return OPERATIONS[kind](*arguments)


@cache
def goal_of(obligation: Callable[[], Goal]) -> tuple[tuple[Term, ...], Term]:
    """What is given and what is claimed."""
    goal = obligation()
    return tuple(goal.given), goal.claim


def require(obligation: Callable[[], Goal], **values: Any) -> None:
    """Raise AssertionError unless the hypotheses and the claim are true of these values."""
    given, claim = goal_of(obligation)
    name = getattr(obligation, "__name__", "")
    for fact in given:
        assert evaluate(fact, values), f"{name}, given {fact}, is false of {values}"
    assert evaluate(claim, values), f"{name}, claim {claim}, is false of {values}"


def sides(obligation: Callable[[], Goal], **values: Any) -> tuple[Any, Any]:
    """The two sides of a claim that is an equation, where `require` holds."""
    require(obligation, **values)
    claim = goal_of(obligation)[1]
    return evaluate(claim.arg(0), values), evaluate(claim.arg(1), values)


def written(name: str, number: int, *sizes: int) -> dict[str, int]:
    """The variables of `harness.write` for a number: its digits, major first, and its prefixes."""
    values, rest = {}, number
    for place in reversed(range(len(sizes))):
        if 1 <= place < len(sizes) - 1:
            values[f"{name} prefix {place + 1}"] = rest
        size = sizes[place]
        values[f"{name}{place}"], rest = (rest % size, rest // size) if place else (rest, 0)
    return values
