"""Prices of many pairs at once: one for each signature, and one for each exchange.

Pairs whose digits match have a signature (`signatures.py`), which the planner prices once. Of the
others a few are searched one by one; of many, each has the price of its exchange (`exchanges.py`).
Where a type is uneven, each pair is priced for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from redistrib.synth.plan.price import StepCost
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.detours.closure import Progress, Smalls, no_progress
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

The third argument is the key of the pair (`price_keys`): pairs of one key have one answer, and None
is that of a pair like no other.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """Per pair its seconds, the number of its answer, and whether that is one exchange.

    Per answer the seconds of its steps. These are 13 bytes a pair.
    """

    seconds: Floats
    answer: Ints | Smalls
    exchanged: Bools
    steps: Floats


def price_pairs(
    types: Sequence[ArrayType],
    pairs: tuple[Ints, Ints] | None,
    strategy: str,
    profile: Profile,
    limit: float,
    price: Price,
    most_searched: float = inf,
    progress: Progress = no_progress,
    *,
    singly: bool = False,
) -> Prices:
    """What pairs of types cost, infinite where a tile is above `limit`, in bytes.

    The pairs are numbers of types; None for every type with every type, row by row. `auto` searches
    at most so many pairs without a signature for collectives; of more, those that can have one
    exchange. Where `price` looks at more than the signature, each pair is priced `singly`.
    """
    count = len(types) ** 2 if pairs is None else len(pairs[0])
    if not count:
        nothing = np.zeros(0, dtype=np.int32)
        return Prices(np.zeros(0), nothing, nothing >= 0, np.zeros((0, 0)))

    def ends(numbers: Ints) -> tuple[Ints, Ints]:
        if pairs is None:
            return divmod(numbers, len(types))
        return pairs[0][numbers], pairs[1][numbers]

    answer: Ints | Smalls = np.full(count, -1, dtype=np.int32)
    first = np.zeros(0, dtype=np.int64)
    keys: Sequence[Hashable | None] = ()
    even = not any(t.uneven for t in types)
    # Where links cut axes each pair is cut for itself.
    if even and strategy in BY_SIGNATURE and not (profile.cuts_axes or singly):
        with suppress(OverflowError):  # too many cuts for a mask: each pair for itself
            if pairs is None:
                signatures = matrix_signatures(types, profile, progress)
            else:
                signatures = find_signatures(types, pairs[0], pairs[1], profile)
            answer, first, keys = signatures.of_pair, signatures.first, signatures.keys
    fits = np.array([t.tile_bytes <= limit for t in types])
    none = np.flatnonzero(answer < 0)
    src, dst = ends(none)
    alone = none[fits[src] & fits[dst]]
    exchange, of_exchanges = np.full(len(alone), -1), np.zeros(0)
    many = strategy == "direct" or (strategy == "auto" and len(alone) > most_searched)
    if even and many and not profile.cuts_axes:
        exchange, of_exchanges = exchange_prices(types, *ends(alone), profile)
    by_exchange, alone = alone[exchange >= 0], alone[exchange < 0]
    exchanged = np.zeros(count, dtype=bool)
    exchanged[by_exchange] = True
    each: list[tuple[StepCost, ...] | None] = []
    keys = [*keys, *(None for _ in alone)]
    sources, targets = (end.tolist() for end in ends(np.concatenate([first, alone])))
    for a, b, key in zip(sources, targets, keys, strict=True):
        progress("prices", len(each) / len(keys))
        each.append(price(types[a], types[b], key))
    answer[alone] = np.arange(len(first), len(each))
    over = none[answer[none] < 0]
    over = over[~exchanged[over]]
    if len(over):
        answer[over] = len(each)
        each.append(None)  # no plan holds an end that does not fit
    answer[by_exchange] = len(each) + exchange[exchange >= 0]
    steps, seconds = _added(each, of_exchanges)
    return Prices(seconds[answer], answer, exchanged, steps)


def _added(
    each: Sequence[tuple[StepCost, ...] | None], of_exchanges: Floats
) -> tuple[Floats, Floats]:
    """Per answer the seconds of its steps, and their sum: infinite where there is no plan."""
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
    return steps, seconds


def all_pairs(count: int) -> tuple[Ints, Ints]:
    """Every number below `count` with every one, row by row."""
    each = np.arange(count)
    return np.repeat(each, count), np.tile(each, count)
