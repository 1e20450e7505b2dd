"""Price keys: all that the price of a pair depends on, the same in every batch (`signatures.py`).

A signature is a number that holds in one batch. Its key says the same by figures, so that an oracle
knows in one batch what another has priced.

Example: x=2,y=4,z=2 with equal links, `[64{z}, 64{y}] sum{x} -> [64{z,x}, 64]`. z stays; x is
partial and owns in the end, y owns at first. Nobody has what x wants or wants what y has, so of
both only the products count: `powers_of` is

    {(2, 1, 2, link): 2, (2, 2, 0, link): 4}    by prime, roles before and after, link

Digits in each other's way are chains: `looks_from` each the kinds of digits along the way. Together
with the size this is the problem in normal form (`planner/normal_form.py`), without any types.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from math import gcd

import numpy as np

from redistrib.synth.planner.detours.numbered import Ints, NumberedTypes, PairDigits
from redistrib.types.digits import prime_of

Kind = tuple[int, int, int, tuple[float, float, tuple[int, ...]]]
"""Of a device digit: its size, its roles before and after, and latency, bandwidth and place of its
link."""


def price_keys(numbered: NumberedTypes, src: Ints, dst: Ints) -> list[Hashable | None]:
    """The keys of pairs, equal for equal signatures of all batches; None where none tells it."""
    keys: list[Hashable | None] = [None] * len(src)
    mask, _ = numbered.cuts_of(src, dst)
    partial = numbered.summed[src] | numbered.summed[dst]
    for group, keys_of in ((~partial, _of_moves), (partial, _of_sums)):
        if len(chosen := np.flatnonzero(group)):
            of_chosen = keys_of(numbered, src[chosen], dst[chosen], mask[chosen])
            for n, key in zip(chosen.tolist(), of_chosen, strict=True):
                keys[n] = key
    return keys


def _of_moves(numbered: NumberedTypes, src: Ints, dst: Ints, mask: Ints) -> Iterator[Hashable]:
    """Without partial sums: what the signature has, and the links by their figures."""
    digits = numbered.merge(src, dst, numbered.digits(src, dst, mask))
    _, roomy, _ = numbered.spares(src, dst, mask, digits.need)
    any_order = digits.any_order(roomy).tolist()
    runs = _rows_of(numbered.runs(src, dst, mask), len(src))
    merged = _rows_of(digits.merged, len(src))
    need, roomy = digits.need.tolist(), roomy.tolist()
    for n, (kinds, leads, active) in enumerate(_rows(numbered, src, dst, digits)):
        looks = looks_from(kinds, leads, active)
        looks = sorted(looks) if any_order[n] else looks
        rooms = () if roomy[n] else rooms_for(need[n], runs[n])
        yield numbered.tiles[src[n]], numbered.by_link, *merged[n], *looks, rooms


def _of_sums(
    numbered: NumberedTypes, src: Ints, dst: Ints, mask: Ints
) -> Iterator[Hashable | None]:
    """With partial sums: the normal form."""
    digits = numbered.digits(src, dst, mask)
    alone = numbered.loose(src, dst, digits)
    size = (numbered.size // digits.fixed).tolist()
    for n, (kinds, leads, active) in enumerate(_rows(numbered, src, dst, digits)):
        if not all(prime_of(kinds[a][0]) for a in active):
            yield None  # digits of several primes find room in one run or another
            continue
        powers = powers_of(kinds[a] for a in active if alone[n, a])
        looks = looks_from(kinds, leads, [a for a in active if not alone[n, a]])
        ends = numbered.reductions[src[n]], numbered.reductions[dst[n]]
        yield ends, size[n], powers, *sorted(looks)


def _rows(
    numbered: NumberedTypes, src: Ints, dst: Ints, digits: PairDigits
) -> Iterator[tuple[list[Kind], list[int], list[int]]]:
    """Per pair the kinds of its digits, who has what each wants, and which are active."""
    leads = np.take_along_axis(numbered.owner[src], digits.after, axis=1).tolist()
    had, has = numbered.role(src, digits.before).tolist(), numbered.role(dst, digits.after).tolist()
    for n, sizes in enumerate(digits.size.tolist()):
        kinds = list(zip(sizes, had[n], has[n], numbered.speeds, strict=True))
        yield kinds, leads[n], np.flatnonzero(digits.active[n]).tolist()


def _rows_of(columns: Sequence[Ints], count: int) -> list[list[int]]:
    rows: list[list[int]] = np.reshape(columns, (len(columns), count)).T.tolist()
    return rows


def looks_from(
    kinds: Sequence[Kind], leads: Sequence[int], starts: Iterable[int]
) -> list[tuple[bool, tuple[Kind, ...]]]:
    """From each digit on the kinds of those along its chain, and whether it comes back.

    `leads` is who has what a digit wants, -1 for nobody.
    """
    looks = []
    for start in starts:
        along, n = [start], leads[start]
        while n >= 0 and n != start:
            along.append(n)
            n = leads[n]
        looks.append((n == start, tuple(kinds[n] for n in along)))
    return looks


def powers_of(kinds: Iterable[Kind]) -> Hashable:
    """The product of digits of one prime, roles and link: each of them is a power of a prime."""
    powers: dict[Hashable, int] = {}
    for size, *kind in kinds:
        key = (prime_of(size), *kind)
        powers[key] = powers.get(key, 1) * size
    return frozenset(powers.items())


def rooms_for(need: int, runs: Iterable[int]) -> tuple[int, ...]:
    """What runs have in common with what is needed, up to the first that has all of it.

    >>> rooms_for(8, (3, 2, 16, 4))
    (2, 8)
    """
    rooms = []
    for run in runs:
        room = gcd(need, run)
        rooms += [room] if room > 1 else []
        if room == need:
            break
    return tuple(rooms)
