"""Obligations, and how one is decided.

An obligation is a function whose docstring is the claim in plain words and whose result is the
formula. It is `@proved`, or deliberately `@false`: then z3 must find a counter-model, which shows
that the family's formulas can fail. Hypotheses that contradict each other prove anything, so a
proved obligation whose hypotheses have no model counts as unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import redistrib as rd
from redistrib.checker.certificate.solver import Outcome, below, decide, horner, load_z3, numbers

z3 = load_z3()
Term = Any
Numbers = Callable[[Term], int]
Problem = Callable[[Numbers], tuple[str, str, str]]

__all__ = [
    "Goal",
    "Numbers",
    "Obligation",
    "Result",
    "Term",
    "Written",
    "below",
    "bounded",
    "command",
    "false",
    "horner",
    "obligations",
    "proved",
    "run",
    "same_digits",
    "write",
    "z3",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Goal:
    """Facts and the claim to follow from them; `problem` makes a mesh and types of a counter-model.

    It is called with a function that gives the number of a term in the model.
    """

    facts: Iterable[Any]
    claim: Any
    problem: Problem | None = None


Kind = Literal["proved", "false"]


@dataclass(frozen=True, slots=True)
class Obligation:
    """A named claim in words, and what makes its formula."""

    family: str
    name: str
    words: str
    kind: Kind
    make: Callable[[], Goal]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of an obligation; `problem` is a command line that shows the counter-model."""

    obligation: Obligation
    outcome: Outcome
    seconds: float
    problem: str | None = None

    @property
    def passed(self) -> bool:
        """Whether a claim is proved, and a false one refuted."""
        wanted = "proved" if self.obligation.kind == "proved" else "counter-model"
        return self.outcome.kind == wanted


def proved(make: Callable[[], Goal]) -> Callable[[], Goal]:
    """Mark an obligation that must be proved."""
    make.kind = "proved"  # type: ignore[attr-defined]
    return make


def false(make: Callable[[], Goal]) -> Callable[[], Goal]:
    """Mark a deliberately false obligation, which must have a counter-model."""
    make.kind = "false"  # type: ignore[attr-defined]
    return make


def obligations(module: ModuleType) -> Iterator[Obligation]:
    """The obligations of a module, in its order."""
    family = module.__name__.rpartition(".")[2]
    for name, make in vars(module).items():
        kind = getattr(make, "kind", None)
        if kind in ("proved", "false") and make.__module__ == module.__name__:
            words = " ".join((make.__doc__ or "").split())
            yield Obligation(family, name, words, kind, make)


def run(obligation: Obligation) -> Result:
    """Decide an obligation."""
    start = time.perf_counter()
    goal = obligation.make()
    facts = list(goal.facts)
    outcome = decide(facts, goal.claim)
    problem = None
    if outcome.kind == "proved" and decide(facts, z3.BoolVal(False)).kind != "counter-model":
        outcome = Outcome("unknown", outcome.seconds, reason="the hypotheses have no known model")
    if outcome.kind == "counter-model" and goal.problem is not None:
        problem = command(*goal.problem(numbers(outcome.model)))
    return Result(obligation, outcome, time.perf_counter() - start, problem)


def command(mesh: str, src: str, dst: str) -> str:
    """The command line of a problem. Raises RedistribError if it is not a legal one."""
    ends = [rd.ArrayType.parse(text, rd.Mesh.parse(mesh)) for text in (src, dst)]
    if ends[0].shape != ends[1].shape:
        raise rd.LayoutError(f"a counter-model has two types of one shape; got {src} and {dst}")
    return f"redistrib plan --mesh {mesh} '{src}' '{dst}'"


def bounded(*pairs: tuple[Term, Term]) -> list[Any]:
    """Digits that lie in their ranges, given as (value, size)."""
    return [fact for value, size in pairs for fact in below(value, size)]


@dataclass(frozen=True, slots=True)
class Written:
    """A number written in digits, one digit at a time: each prefix is a variable of its own.

    `facts` say that it is so written. z3 decides such formulas; in one formula of several products
    it often does not.
    """

    digits: list[Term]
    facts: list[Any]
    steps: list[tuple[Term, Term, Term, Term]]  # number = prefix * size + digit, major first


def write(name: str, number: Term, *sizes: Term, digits: Iterable[Term] | None = None) -> Written:
    """Write a number with these sizes, in fresh digits or in given ones."""
    values = [z3.Int(f"{name}{n}") for n in range(len(sizes))] if digits is None else [*digits]
    facts, steps = bounded(*zip(values, sizes, strict=True)), []
    prefix = values[0]
    for n, (value, size) in enumerate(zip(values[1:], sizes[1:], strict=True), start=2):
        longer = number if n == len(sizes) else z3.Int(f"{name} prefix {n}")
        facts.append(longer == prefix * size + value)
        steps.append((longer, prefix, size, value))
        prefix = longer
    return Written(values, facts, steps)


def same_digits(first: Written, second: Written) -> list[Any]:
    """Instances of `digits.one_more_is_unique` for two ways to write a number, last digit first."""
    facts = []
    for (n, p, size, a), (m, q, _, b) in zip(first.steps[::-1], second.steps[::-1], strict=True):
        facts.append(
            z3.Implies(
                z3.And(
                    n == m, n == p * size + a, m == q * size + b, *bounded((a, size), (b, size))
                ),
                z3.And(p == q, a == b),
            )
        )
    return facts
