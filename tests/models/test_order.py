"""The order of a model's arrays, against the best of all orders."""

from __future__ import annotations

import itertools
import random

import numpy as np
from numpy.typing import NDArray

import redistrib as rd
from redistrib.models.memory import LEAST_CHUNK, Memory
from redistrib.models.order import Demand, Order, order_of
from tests.models.random_moves import random_case
from tests.repetitions import repetitions

Bytes = NDArray[np.int64]


def demands(rng: random.Random, count: int, given: int) -> tuple[list[Demand], list[Bytes]]:
    """Arrays with a source each, or with shared ones, on one to three classes of devices."""
    classes, most = rng.choice((1, 1, 2, 3)), rng.choice((3, 9, 100))
    apart = rng.random() < 0.5  # not every array is on devices of every class

    def bytes_() -> Bytes:
        there = [not apart or rng.random() < 0.8 for _ in range(classes)]
        return np.array([rng.randint(0, most) * here for here in there])

    own = rng.random() < 0.3
    sources = [bytes_() for _ in range(max(count, given) if own else given)]
    found = []
    for n in range(count):
        used = rng.choice((1, rng.randint(0, min(3, given))))
        which = (n,) if own else tuple(sorted(rng.sample(range(given), used)))
        found.append(Demand(bytes_(), bytes_(), which))
    return found, sources


def least_peak(found: list[Demand], sources: list[Bytes], *, keep: bool) -> int:
    """The least peak of all orders: of every set of arrays, over which was the last."""
    users: dict[int, int] = {}
    for n, demand in enumerate(found):
        for source in demand.sources:
            users[source] = users.get(source, 0) | 1 << n

    def alive(done: int) -> Bytes:
        live = sum(sources, np.zeros_like(sources[0]))
        live = live + sum(d.target for n, d in enumerate(found) if done >> n & 1)
        gone = [s for s, used in users.items() if used & done == used and not keep]
        return live - sum(sources[s] for s in gone)

    peaks = [0]
    for done in range(1, 1 << len(found)):
        last = [n for n in range(len(found)) if done >> n & 1]
        peaks.append(
            min(
                max(
                    peaks[done & ~(1 << n)],
                    int((alive(done & ~(1 << n)) + found[n].target + found[n].scratch).max()),
                )
                for n in last
            )
        )
    return peaks[-1]


def peak(found: list[Demand], sources: list[Bytes], order: Order, *, keep: bool) -> int:
    """The peak of an order, array by array."""
    live, left, worst = sum(sources, np.zeros_like(sources[0])), [*order.items], 0
    while left:
        item = found[left.pop(0)]
        live = live + item.target
        worst = max(worst, int((live + item.scratch).max()))
        for source in item.sources:
            if not keep and not any(source in found[n].sources for n in left):
                live = live - sources[source]
    return worst


def test_small_sets_have_the_best_of_all_orders() -> None:
    rng = random.Random("orders")
    for _ in range(repetitions(120, 2000)):
        found, sources = demands(rng, rng.randint(1, 6), rng.randint(1, 6))
        keep = rng.random() < 0.1
        order = order_of(found, sources, keep=keep)
        assert sorted(order.items) == list(range(len(found)))
        best = least_peak(found, sources, keep=keep)
        assert best == order.least == order.peak == peak(found, sources, order, keep=keep)


def test_where_the_search_is_cut_off_the_gap_is_stated_and_small() -> None:
    rng = random.Random("cut off")
    gaps = []
    for count in (24, *(16, 40) * repetitions(0, 15)):
        found, sources = demands(rng, count, count)
        order = order_of(found, sources, keep=False)
        assert order.peak == peak(found, sources, order, keep=False)
        gaps.append(order.peak / order.least)
    assert 1 <= max(gaps) <= 1.1


def test_many_arrays_are_ordered_by_the_law_of_one_class() -> None:
    rng = random.Random("many")
    found, sources = demands(rng, 0, 300)
    for classes in (1, 3):
        sources = [np.array([rng.randint(0, 99)] * classes) for _ in range(300)]
        found = [
            Demand(np.array([rng.randint(0, 99)] * classes), 0 * sources[0], (n,))
            for n in range(300)
        ]
        order = order_of(found, sources, keep=False)
        assert order.peak == peak(found, sources, order, keep=False)
        assert order.peak <= 1.01 * order.least


def test_plans_have_the_least_budget_of_all_orders() -> None:
    for seed in range(repetitions(8, 300)):
        drawn = random_case(seed, targets=4).plan
        for keep, into in itertools.product((False, True), repeat=2):
            plan = rd.plan_model(
                drawn.src, drawn.dst, weights=drawn.weights, keep_sources=keep, into_targets=into
            )
            ends = plan.src, plan.dst, plan.reductions
            best = min(
                Memory.of(*ends, moves, keep=keep).peak(LEAST_CHUNK, into_targets=into)
                for moves in itertools.permutations(plan.moves)
            )
            assert plan.least_budget_bytes == plan.order_bound_bytes == best, seed
