"""Which pairs of types have the same price, for many pairs at once, on digits (docs/oracle.md).

Law: the price of an aligned pair is a function of its *signature*: its chains, each as the sizes,
links and roles of its device digits along the way; its idle digits; the sizes of the local runs
that nobody names, in order; and the source tile. Dimensions, positions inside them, and names of
axes with one link do not matter. Of the digits for which the planner has one choice only (a slice,
a gather, a move that no free digit can close) only the product over each link matters. So some
hundred signatures price half a million pairs, and nothing but numpy touches the pairs.

On x=2,y=2 with equal links, moving x from rows to columns and moving y there are one signature, and
gathering x is another:

>>> from redistrib.synth.plan.profile import DEFAULT_PROFILE
>>> from redistrib.types.mesh import Mesh
>>> texts = "f32[8{x}, 8]", "f32[8, 8{x}]", "f32[8{y}, 8]", "f32[8, 8{y}]", "f32[8, 8]"
>>> types = [ArrayType.parse(text, Mesh(x=2, y=2)) for text in texts]
>>> pairs = np.array([0, 2, 0]), np.array([1, 3, 4])
>>> find_signatures(types, *pairs, DEFAULT_PROFILE).of_pair.tolist()
[0, 0, 1]
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
from redistrib.synth.planner.detours.numbered import Bools, Ints, NumberedTypes
from redistrib.synth.planner.detours.price_keys import price_keys
from redistrib.synth.planner.detours.symmetry import orbits
from redistrib.synth.planner.detours.threads import in_threads
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import prime_of, primes

CHUNK = 1 << 14  # pairs at a time: what stays in the cache


@dataclass(frozen=True, slots=True)
class Signatures:
    """Per pair the number of its signature, -1 if it has none; per signature its first pair.

    Misaligned pairs have none. A signature is `symmetric` if its pairs keep it when dimensions or
    axes trade places. `keys` say the same of it in every batch, None where that cannot be said.
    """

    of_pair: Ints | Smalls
    first: Ints
    symmetric: Bools
    keys: Sequence[Hashable | None] = ()


def find_signatures(
    types: Sequence[ArrayType], src: Ints, dst: Ints, profile: Profile
) -> Signatures:
    """The signatures of the pairs `types[src[p]]`, `types[dst[p]]`, of one mesh, shape and dtype.

    Raises OverflowError where the types make more cuts than a mask holds.
    """
    numbered = NumberedTypes(types, profile)
    signatures = _in_chunks(numbered, len(src), lambda pairs: (src[pairs], dst[pairs]))
    first = signatures.first
    return replace(signatures, keys=price_keys(numbered, src[first], dst[first]))


def matrix_signatures(
    types: Sequence[ArrayType], profile: Profile, progress: Progress = no_progress
) -> Signatures:
    """The signatures of all pairs of some types, row by row.

    Where the types are closed under trading dimensions of one size, or axes of one size and link,
    one row of each orbit is looked at, and the others copy what is symmetric.

    Raises OverflowError where the types make more cuts than a mask holds.
    """
    numbered, count = NumberedTypes(types, profile), len(types)
    generators = numbered.symmetries()
    if not generators:
        every = _in_chunks(numbered, count * count, lambda pairs: divmod(pairs, count), progress)
        return replace(every, keys=price_keys(numbered, *divmod(every.first, count)))
    origin, images = orbits(generators, count)
    seen, row = np.unique(origin, return_inverse=True)

    def of_seen(pairs: Ints) -> tuple[Ints, Ints]:
        return seen[pairs // count], pairs % count

    of_origins = _in_chunks(numbered, len(seen) * count, of_seen, progress)
    of_pair = np.empty((count, count), dtype=np.int32)
    rows = of_origins.of_pair.reshape(-1, count)
    for n, image in enumerate(images):
        of_pair[n, image] = rows[row[n]]
    first = seen[of_origins.first // count] * count + of_origins.first % count
    copied = np.append(of_origins.symmetric, False)[of_pair]
    copied[seen] = True
    apart = np.flatnonzero(~copied)
    numbers, symmetric = of_pair.ravel(), of_origins.symmetric
    if len(apart):
        alone = _in_chunks(
            numbered, len(apart), lambda pairs: divmod(apart[pairs], count), progress
        )
        first = np.concatenate([first, apart[alone.first]])
        renumbered, merged = _merge(numbered, *divmod(first, count), [of_origins, alone])
        numbers = renumbered[0][numbers]
        numbers[apart] = renumbered[1][alone.of_pair]
        first, symmetric = first[merged.first], merged.symmetric
    return Signatures(numbers, first, symmetric, price_keys(numbered, *divmod(first, count)))


def _in_chunks(
    numbered: NumberedTypes,
    count: int,
    ends: Callable[[Ints], tuple[Ints, Ints]],
    progress: Progress = no_progress,
) -> Signatures:
    """The signatures of so many pairs; `ends` are the types of some of them."""

    def of_chunk(start: int) -> Signatures:
        part = _signatures(numbered, *ends(np.arange(start, min(start + CHUNK, count))))
        return replace(part, of_pair=part.of_pair.astype(np.int32))

    parts: list[Signatures] = []
    with in_threads(count // CHUNK) as each:
        for part in each(of_chunk, range(0, count, CHUNK)):
            progress("signatures", len(parts) * CHUNK / count)
            parts.append(part)
    if len(parts) == 1:
        return parts[0]
    first = np.concatenate([n * CHUNK + part.first for n, part in enumerate(parts)])
    numbers, merged = _merge(numbered, *ends(first), parts)
    of_pair = np.empty(count, dtype=np.int32)
    for n, (new, part) in enumerate(zip(numbers, parts, strict=True)):
        of_pair[n * CHUNK : (n + 1) * CHUNK] = new[part.of_pair]
    return Signatures(of_pair, first[merged.first], merged.symmetric)


def _merge(
    numbered: NumberedTypes, src: Ints, dst: Ints, parts: Sequence[Signatures]
) -> tuple[list[Smalls], Signatures]:
    """One numbering for several parts, and per part its new numbers, the last for no signature.

    The first pairs of all signatures stand for the others: these are few, and compared anew.
    """
    merged = _signatures(numbered, src, dst)
    ends = np.cumsum([len(part.first) for part in parts])
    each = np.split(merged.of_pair.astype(np.int32), ends[:-1])
    return [np.append(new, np.int32(-1)) for new in each], merged


def _signatures(numbered: NumberedTypes, src: Ints, dst: Ints) -> Signatures:
    """The signatures of some pairs, numbered among themselves."""
    mask, aligned = numbered.cuts_of(src, dst)
    partial = numbered.summed[src] | numbered.summed[dst]
    of_pair, first = np.full(len(src), -1), np.zeros(0, dtype=np.int64)
    symmetric = np.zeros(0, dtype=bool)
    for group, key_of in ((~partial, _key), (partial, _key_of_sums)):
        chosen = np.flatnonzero(aligned & group)
        if len(chosen):
            key, alike = key_of(numbered, src[chosen], dst[chosen], mask[chosen])
            _, place, numbers = np.unique(dense(key), return_index=True, return_inverse=True)
            of_pair[chosen] = numbers + len(first)
            first, symmetric = np.append(first, chosen[place]), np.append(symmetric, alike[place])
    return Signatures(of_pair, first, symmetric)


def _key(numbered: NumberedTypes, src: Ints, dst: Ints, mask: Ints) -> tuple[Ints, Bools]:
    """Of pairs without partial sums a number for each signature, and which are symmetric."""
    digits = numbered.merge(src, dst, numbered.digits(src, dst, mask))
    chains = numbered.chains(src, digits)
    spares, roomy, alike = numbered.spares(src, dst, mask, digits.need)
    any_order = digits.any_order(roomy)
    chains = np.where(any_order[:, None], np.sort(chains, axis=1), chains)
    symmetric = any_order & alike
    key = numbered.tile[src] * 2 + symmetric
    for column in (*digits.merged, *chains.T, spares):
        key = join(key, column)
    return key, symmetric


def _key_of_sums(numbered: NumberedTypes, src: Ints, dst: Ints, mask: Ints) -> tuple[Ints, Bools]:
    """Of pairs with partial sums what their normal form has; all are symmetric."""
    digits = numbered.digits(src, dst, mask)
    before, after, size = digits.before, digits.after, digits.size
    # In nobody's way, of powers of one prime: of those that are alike the product counts.
    alone = numbered.loose(src, dst, digits)
    roles = numbered.role(src, before) * 3 + numbered.role(dst, after)
    products, active = [], digits.active
    sizes = [n for n in np.unique(size).tolist() if n > 1]
    for prime in sorted({p for n in sizes for p in primes(n)}):
        powers = alone & np.isin(size, [prime**k for k in range(1, int(MAX_BITS / log2(prime)))])
        active = active & ~powers
        for linked, role in product(numbered.links, np.unique(roles[powers]).tolist()):
            products.append(np.where(powers & linked & (roles == role), size, 1).prod(axis=1))
    chains = np.sort(numbered.chains(src, replace(digits, active=active)), axis=1)
    # Digits of one prime each find room wherever it lies, others in one run or another.
    places = [digits.fixed] if all(map(prime_of, sizes)) else numbered.runs(src, dst, mask)
    key = numbered.reduction[src] * (int(numbered.reduction.max()) + 1) + numbered.reduction[dst]
    for column in (*products, *chains.T, *np.sort(places, axis=0)):
        key = join(key, column)
    return key, np.ones(len(src), dtype=bool)
