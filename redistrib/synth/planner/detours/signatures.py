"""Which pairs of types have the same price, for many pairs at once, on digits (docs/oracle.md).

Law: the price of an aligned pair is a function of its *signature*: its chains, each as the sizes,
links and roles of its device digits along the way; its idle digits; the sizes of the local runs
that nobody names, in order; and the source tile. Dimensions, positions inside them, and names of
axes with one link do not matter. Of the digits for which the planner has one choice only (a slice,
a gather, a move that no free digit can close) only the product over each link matters. So some
hundred signatures price half a million pairs, and nothing but numpy touches the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import log2

import numpy as np

from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.detours.closure import Progress, Smalls, no_progress
from redistrib.synth.planner.detours.codes import MAX_BITS, dense, join
from redistrib.synth.planner.detours.numbered import Bools, Ints, Numbered
from redistrib.synth.planner.detours.questions import questions
from redistrib.synth.planner.detours.symmetry import orbits
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import prime_of, primes

CHUNK = 1 << 14  # pairs at a time: what stays in the cache


@dataclass(frozen=True, slots=True)
class Signatures:
    """Per pair the number of its signature, -1 if it has none; per signature its first pair.

    Misaligned pairs have none. A signature is `symmetric` if its pairs keep it when dimensions or
    axes trade places. `asked` is what it asks in every batch, where that can be said.
    """

    of_pair: Ints | Smalls
    first: Ints
    symmetric: Bools
    asked: Sequence[Hashable | None] = ()


def find_signatures(
    types: Sequence[ArrayType], src: Ints, dst: Ints, profile: Profile
) -> Signatures:
    """The signatures of the pairs `types[src[p]]`, `types[dst[p]]`, of one mesh, shape and dtype.

    Raises OverflowError where the types make more cuts than a mask holds.
    """
    codes = Numbered(types, profile)
    found = _in_chunks(codes, len(src), lambda pairs: (src[pairs], dst[pairs]))
    return replace(found, asked=questions(codes, src[found.first], dst[found.first]))


def matrix_signatures(
    types: Sequence[ArrayType], profile: Profile, progress: Progress = no_progress
) -> Signatures:
    """The signatures of all pairs of some types, row by row.

    Where the types are closed under trading dimensions of one size, or axes of one size and link,
    one row of each orbit is looked at, and the others copy what is symmetric.

    Raises OverflowError where the types make more cuts than a mask holds.
    """
    codes, count = Numbered(types, profile), len(types)
    generators = codes.symmetries()
    if not generators:
        found = _in_chunks(codes, count * count, lambda pairs: divmod(pairs, count), progress)
        return replace(found, asked=questions(codes, *divmod(found.first, count)))
    origin, images = orbits(generators, count)
    seen, row = np.unique(origin, return_inverse=True)

    def of_seen(pairs: Ints) -> tuple[Ints, Ints]:
        return seen[pairs // count], pairs % count

    own = _in_chunks(codes, len(seen) * count, of_seen, progress)
    of_pair = np.empty((count, count), dtype=np.int32)
    rows = own.of_pair.reshape(-1, count)
    for n, image in enumerate(images):
        of_pair[n, image] = rows[row[n]]
    first = seen[own.first // count] * count + own.first % count
    copied = np.append(own.symmetric, False)[of_pair]
    copied[seen] = True
    rest = np.flatnonzero(~copied)
    numbers, symmetric = of_pair.ravel(), own.symmetric
    if len(rest):
        other = _in_chunks(codes, len(rest), lambda pairs: divmod(rest[pairs], count), progress)
        first = np.concatenate([first, rest[other.first]])
        (of_own, of_other), merged = _merge(codes, *divmod(first, count), [own, other])
        numbers = of_own[numbers]
        numbers[rest] = of_other[other.of_pair]
        first, symmetric = first[merged.first], merged.symmetric
    return Signatures(numbers, first, symmetric, questions(codes, *divmod(first, count)))


def _in_chunks(
    codes: Numbered,
    count: int,
    ends: Callable[[Ints], tuple[Ints, Ints]],
    progress: Progress = no_progress,
) -> Signatures:
    """The signatures of so many pairs; `ends` are the types of some of them."""
    parts = []
    for start in range(0, count, CHUNK):
        progress("signatures", start / count)
        part = _signatures(codes, *ends(np.arange(start, min(start + CHUNK, count))))
        parts.append(replace(part, of_pair=part.of_pair.astype(np.int32)))
    if len(parts) == 1:
        return parts[0]
    first = np.concatenate([n * CHUNK + part.first for n, part in enumerate(parts)])
    numbers, merged = _merge(codes, *ends(first), parts)
    of_pair = np.empty(count, dtype=np.int32)
    for n, (new, part) in enumerate(zip(numbers, parts, strict=True)):
        of_pair[n * CHUNK : (n + 1) * CHUNK] = new[part.of_pair]
    return Signatures(of_pair, first[merged.first], merged.symmetric)


def _merge(
    codes: Numbered, src: Ints, dst: Ints, parts: Sequence[Signatures]
) -> tuple[list[Smalls], Signatures]:
    """One numbering for several parts, and per part its new numbers, the last for no signature.

    The first pairs of all signatures stand for the others: these are few, and compared anew.
    """
    merged = _signatures(codes, src, dst)
    ends = np.cumsum([len(part.first) for part in parts])
    each = np.split(merged.of_pair.astype(np.int32), ends[:-1])
    return [np.append(new, np.int32(-1)) for new in each], merged


def _signatures(codes: Numbered, src: Ints, dst: Ints) -> Signatures:
    """The signatures of some pairs, numbered among themselves."""
    mask, aligned = codes.cuts_of(src, dst)
    partial = codes.summed[src] | codes.summed[dst]
    of_pair, first = np.full(len(src), -1), np.zeros(0, dtype=np.int64)
    symmetric = np.zeros(0, dtype=bool)
    for group, key_of in ((~partial, _key), (partial, _key_of_sums)):
        chosen = np.flatnonzero(aligned & group)
        if len(chosen):
            key, alike = key_of(codes, src[chosen], dst[chosen], mask[chosen])
            _, at, numbers = np.unique(dense(key), return_index=True, return_inverse=True)
            of_pair[chosen] = numbers + len(first)
            first, symmetric = np.append(first, chosen[at]), np.append(symmetric, alike[at])
    return Signatures(of_pair, first, symmetric)


def _key(codes: Numbered, src: Ints, dst: Ints, mask: Ints) -> tuple[Ints, Bools]:
    """Of pairs without partial sums a number for each signature, and which are symmetric."""
    digits = codes.merge(src, dst, codes.digits(src, dst, mask))
    chains = codes.chains(src, digits)
    spares, roomy, alike = codes.spares(src, dst, mask, digits.need)
    any_order = digits.any_order(roomy)
    chains = np.where(any_order[:, None], np.sort(chains, axis=1), chains)
    symmetric = any_order & alike
    key = codes.tile[src] * 2 + symmetric
    for column in (*digits.merged, *chains.T, spares):
        key = join(key, column)
    return key, symmetric


def _key_of_sums(codes: Numbered, src: Ints, dst: Ints, mask: Ints) -> tuple[Ints, Bools]:
    """Of pairs with partial sums what their normal form has; all are symmetric."""
    digits = codes.digits(src, dst, mask)
    before, after, size = digits.before, digits.after, digits.size
    # In nobody's way, of powers of one prime: of those that are alike the product counts.
    alone = codes.loose(src, dst, digits)
    roles = codes.role(src, before) * 3 + codes.role(dst, after)
    products, active = [], digits.active
    sizes = [n for n in np.unique(size).tolist() if n > 1]
    for prime in sorted({p for n in sizes for p in primes(n)}):
        powers = alone & np.isin(size, [prime**k for k in range(1, int(MAX_BITS / log2(prime)))])
        active = active & ~powers
        for on, role in product(codes.links, np.unique(roles[powers]).tolist()):
            products.append(np.where(powers & on & (roles == role), size, 1).prod(axis=1))
    chains = np.sort(codes.chains(src, replace(digits, active=active)), axis=1)
    # Digits of one prime each find room wherever it lies, others in one run or another.
    places = [digits.fixed] if all(map(prime_of, sizes)) else codes.runs(src, dst, mask)
    key = codes.reduction[src] * (int(codes.reduction.max()) + 1) + codes.reduction[dst]
    for column in (*products, *chains.T, *np.sort(places, axis=0)):
        key = join(key, column)
    return key, np.ones(len(src), dtype=bool)
