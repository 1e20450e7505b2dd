"""z3: how a claim is decided, and how numbers are written for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from redistrib.errors import BackendError, CheckError

TIMEOUT_SECONDS = 20

Term = Any
"""An integer, of z3 or of Python."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What z3 found: the claim is proved, a model refutes it, or neither within the time."""

    kind: Literal["proved", "counter-model", "unknown"]
    seconds: float
    model: Any = None
    reason: str = ""


def load_z3() -> Any:
    """The module z3. Raises BackendError where it is not installed."""
    try:
        import z3  # type: ignore[import-untyped]
    except ImportError as error:
        raise BackendError(
            f"proofs need the extra z3: pip install 'redistrib[z3]' ({error})", backend="z3"
        ) from error
    return z3


def decide(facts: Iterable[Any], claim: Any, seconds: float = TIMEOUT_SECONDS) -> Outcome:
    """Whether the claim follows from what is given; all in z3's one main context."""
    z3 = load_z3()
    solver = z3.Solver()
    solver.set("timeout", int(seconds * 1000))
    solver.add(*facts)
    solver.add(z3.Not(claim))
    start = time.perf_counter()
    verdict = solver.check()
    took = time.perf_counter() - start
    if verdict == z3.unsat:
        return Outcome("proved", took)
    if verdict == z3.sat:
        return Outcome("counter-model", took, solver.model())
    return Outcome("unknown", took, reason=solver.reason_unknown())


def horner(digits: Iterable[tuple[Term, Term]]) -> Term:
    """The number that (value, size) digits write, major to minor.

    >>> horner([(1, 2), (0, 3), (4, 5)])
    19
    """
    total: Term = 0
    for value, size in digits:
        total = total * size + value
    return total


def below(value: Term, size: Term) -> list[Any]:
    """The facts that a digit lies in its range."""
    return [value >= 0, value < size]


def numbers(model: Any) -> Callable[[Term], int]:
    """A function that gives the number of a term in a model."""

    def number(term: Term) -> int:
        return term if isinstance(term, int) else int(model.eval(term, True).as_long())

    return number


def require(holds: bool, claim: str) -> None:
    """Raise CheckError with the claim unless it holds."""
    if not holds:
        raise CheckError(f"does not hold: {claim}")
