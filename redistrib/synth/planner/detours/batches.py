"""Prices of many pairs at once: one for each signature, and one for each exchange.

Pairs whose digits match have a signature (`signatures.py`), which the planner prices once. Of the
others a few are searched one by one; of many, each has the price of its exchange (`exchanges.py`).
Where a type is uneven, each pair is priced for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import inf

import numpy as np
from numpy.typing import NDArray

from redistrib.synth.plan.price import StepCost
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.detours.exchanges import exchange_prices
from redistrib.synth.planner.detours.signatures import find_signatures, matrix_signatures
from redistrib.types.array_type import ArrayType

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BY_SIGNATURE = ("auto", "collectives", "direct")
"""Strategies whose price of an aligned pair is a function of its signature."""
MAX_SEARCHED = 128
"""Pairs without a signature that a matrix of `auto` searches for collectives, 12 ms each."""

Price = Callable[[ArrayType, ArrayType, Hashable | None], tuple[StepCost, ...] | None]
"""What each step of the planner's answer costs; None where nothing fits the memory limit.

Pairs that ask the same, by the third argument, have one answer; None for what has none like it.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Per pair its seconds, the number of its answer, and whether that is one exchange.

    Per answer the seconds of its steps.
    """

    seconds: Floats
    answer: Ints
    exchanged: Bools
    steps: Floats


def price_pairs(
    types: Sequence[ArrayType],
    pairs: tuple[Ints, ...] | None,
    strategy: str,
    profile: Profile,
    limit: float,
    price: Price,
    most_searched: float = inf,
) -> Prices:
    """What pairs of types cost, infinite where a tile is above `limit`, in bytes.

    The pairs are numbers of types; None for every type with every type, row by row. `auto` searches
    at most so many pairs without a signature for collectives; of more, those that can have one
    exchange.
    """
    src, dst = pairs or all_pairs(len(types))
    answer, first = np.full(len(src), -1), np.zeros(0, dtype=np.int64)
    asked: Sequence[Hashable | None] = ()
    if not len(src):
        return Prices(np.zeros(0), answer, answer >= 0, np.zeros((0, 0)))
    even = not any(t.uneven for t in types)
    if (
        even and strategy in BY_SIGNATURE and not profile.cuts_axes
    ):  # else each pair is cut for itself
        with suppress(OverflowError):  # too many cuts for a mask: each pair for itself
            if pairs is None:
                signatures = matrix_signatures(types, profile)
            else:
                signatures = find_signatures(types, src, dst, profile)
            answer, first, asked = signatures.of_pair, signatures.first, signatures.asked
    fits = np.array([t.tile_bytes <= limit for t in types])
    alone = np.flatnonzero((answer < 0) & fits[src] & fits[dst])
    exchange, of_exchanges = np.full(len(src), -1), np.zeros(0)
    many = strategy == "direct" or (strategy == "auto" and len(alone) > most_searched)
    if even and many and not profile.cuts_axes:
        exchange[alone], of_exchanges = exchange_prices(types, src[alone], dst[alone], profile)
        alone = alone[exchange[alone] < 0]
    exchanged = exchange >= 0
    questions = chain(zip(first, asked, strict=True), ((p, None) for p in alone))
    each = [price(types[src[p]], types[dst[p]], question) for p, question in questions]
    answer[alone] = np.arange(len(first), len(each))
    if (over := (answer < 0) & ~exchanged).any():
        answer[over] = len(each)
        each.append(None)  # no plan holds an end that does not fit
    answer[exchanged] = len(each) + exchange[exchanged]
    most = max([1, *(len(costs or ()) for costs in each)])
    steps = np.zeros((len(each) + len(of_exchanges), most))
    for n, costs in enumerate(each):
        steps[n, : len(costs or ())] = [step.seconds for step in costs or ()]
    # Added in the order of the steps, as the seconds of a plan are.
    seconds = np.zeros(len(steps))
    for step in steps.T:
        seconds += step
    seconds[: len(each)][[costs is None for costs in each]] = inf
    steps[len(each) :, 0] = seconds[len(each) :] = of_exchanges
    return Prices(seconds[answer], answer, exchanged, steps)


def all_pairs(count: int) -> tuple[Ints, Ints]:
    """Every number below `count` with every one, row by row."""
    each = np.arange(count)
    return np.repeat(each, count), np.tile(each, count)
