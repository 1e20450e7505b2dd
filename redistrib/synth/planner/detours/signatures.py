"""Which pairs of types have the same price, for many pairs at once, on digits (DESIGN: section 4).

Law: the price of an aligned pair is a function of its *signature*: its chains, each as the sizes,
links and roles of its device digits along the way; its idle digits; the sizes of the local runs
that nobody names, in order; and the source tile. Dimensions, positions inside them, and names of
axes with one link do not matter. Of the digits for which the planner has one choice only (a slice,
a gather, a move that no free digit can close) only the product over each link matters. So some
hundred signatures price half a million pairs, and nothing but numpy touches the pairs.

The cuts that some type of a batch makes, closed under all their uses, are numbered; a digit is
known by the cut that it starts at. The cuts of a pair are a mask of bits, closed under the uses of
its two types; the pair is aligned iff no two cuts of the mask are incomparable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise, product
from math import log2

import numpy as np
from numpy.typing import NDArray

from redistrib.synth.plan.profile import Link, Profile
from redistrib.synth.planner.detours.codes import MAX_BITS, dense, join, times
from redistrib.synth.planner.detours.symmetry import orbits, places
from redistrib.synth.planner.three_phase import MAX_COMBINATIONS
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, primes
from redistrib.types.refinement import common_cuts

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Cut = tuple[int | str, int]  # a dimension or an axis, and the positions before the cut

CHUNK = 1 << 14  # pairs at a time: what stays in the cache
FREE, PARTIAL, OWNER = range(3)  # what a device digit is on one side


@dataclass(frozen=True, slots=True)
class Signatures:
    """Per pair the number of its signature, -1 if it has none; per signature its first pair.

    Misaligned pairs have none. A signature is `symmetric` if its pairs keep it when dimensions or
    axes trade places.
    """

    of_pair: Ints
    first: Ints
    symmetric: Bools


def find_signatures(
    types: Sequence[ArrayType], src: Ints, dst: Ints, profile: Profile
) -> Signatures:
    """The signatures of the pairs `types[src[p]]`, `types[dst[p]]`, of one mesh, shape and dtype.

    Raises OverflowError where the types make more cuts than a mask holds.
    """
    return _in_chunks(_Codes(types, profile), src, dst)


def matrix_signatures(types: Sequence[ArrayType], profile: Profile) -> Signatures:
    """The signatures of all pairs of some types, row by row.

    Where the types are closed under trading dimensions of one size, or axes of one size and link,
    one row of each orbit is looked at, and the others copy what is symmetric.

    Raises OverflowError where the types make more cuts than a mask holds.
    """
    codes, count = _Codes(types, profile), len(types)
    each = np.arange(count)
    origin, images = orbits(codes.symmetries(), count)
    seen, row = np.unique(origin, return_inverse=True)
    own = _in_chunks(codes, np.repeat(seen, count), np.tile(each, len(seen)))
    of_pair = np.empty((count, count), dtype=np.int64)
    np.put_along_axis(of_pair, images, own.of_pair.reshape(-1, count)[row], axis=1)
    first = seen[own.first // count] * count + own.first % count
    copied = np.append(own.symmetric, False)[of_pair]
    copied[seen] = True
    rest = np.flatnonzero(~copied)
    if not len(rest):
        return Signatures(of_pair.ravel(), first, own.symmetric)
    other = _in_chunks(codes, rest // count, rest % count)
    first = np.concatenate([first, rest[other.first]])
    (of_own, of_other), merged = _merge(codes, first // count, first % count, [own, other])
    numbers = of_own[of_pair].ravel()
    numbers[rest] = of_other[other.of_pair]
    return Signatures(numbers, first[merged.first], merged.symmetric)


def _in_chunks(codes: _Codes, src: Ints, dst: Ints) -> Signatures:
    starts = range(0, len(src), CHUNK)
    parts = [codes.signatures(src[n : n + CHUNK], dst[n : n + CHUNK]) for n in starts]
    if len(parts) == 1:
        return parts[0]
    first = np.concatenate([n + part.first for n, part in zip(starts, parts, strict=True)])
    numbers, merged = _merge(codes, src[first], dst[first], parts)
    of_pair = [new[part.of_pair] for new, part in zip(numbers, parts, strict=True)]
    return Signatures(np.concatenate(of_pair), first[merged.first], merged.symmetric)


def _merge(
    codes: _Codes, src: Ints, dst: Ints, parts: Sequence[Signatures]
) -> tuple[list[Ints], Signatures]:
    """One numbering for several parts, and per part its new numbers, the last for no signature.

    The first pairs of all signatures stand for the others: these are few, and compared anew.
    """
    merged = codes.signatures(src, dst)
    ends = np.cumsum([len(part.first) for part in parts])
    return [np.append(new, -1) for new in np.split(merged.of_pair, ends[:-1])], merged


@dataclass(frozen=True, slots=True)
class _Digits:
    """The device digits of some pairs: [pair, digit].

    What they own `before` and `after`, their `size` (1: not a digit of this pair), a number for
    size, link and roles, and which are `active`: all but those that stay where they are, and those
    that `merged` counts, the products of what has one choice.
    """

    before: Ints
    after: Ints
    size: Ints
    kind: Ints
    active: Bools
    merged: tuple[Ints, ...] = ()

    @property
    def need(self) -> Ints:
        """Per pair a multiple of what all spare digits of a plan take together.

        Each active digit takes one at most, each chain that is free on both sides one more.
        """
        takes = np.where(self.active, self.size, 1)
        opens = (self.before < 0) & (self.after >= 0)
        return np.asarray((takes * np.where(opens, takes, 1)).prod(axis=1))

    @property
    def alike(self) -> Bools:
        """Whether the active digits of a pair are of one prime size, and so their spares."""
        takes = np.where(self.active, self.size, 1)
        most = takes.max(axis=1, initial=1)
        prime = np.array([len(primes(n)) <= 1 for n in np.unique(most).tolist()])[dense(most)]
        return np.asarray(prime & ((takes == 1) | (takes == most[:, None])).all(axis=1))

    @property
    def ways(self) -> NDArray[np.float64]:
        """Per pair at least as many as the combinations of choices that the planner has.

        Where it does not try them all, the order of the digits decides which it tries.
        """
        sizes = np.unique(self.size).tolist()
        divisors = np.array([sum(n % d == 0 for d in range(1, n + 1)) for n in sizes])
        idle = self.active & (self.before < 0) & (self.after < 0)
        closers = (self.active & (self.before < 0)).sum(axis=1)[:, None] + 1
        of_mover = np.where((self.before >= 0) & (self.after >= 0), closers, 3)
        ways = np.where(idle, divisors[dense(self.size)], np.where(self.active, of_mover, 1))
        return np.asarray(ways.prod(axis=1, dtype=np.float64))


class _Codes:
    """Some types in numbers: device digits are known as a, index digits as b, by their first cuts.

    Per type t: `owned[t, a]` is the index digit that a owns and `owner[t, b]` the reverse, -1 for
    none; `partial[t, a]`; `mask[t]` are the cuts that the type makes, as bits; `tied[t, n]` says
    whether a use of t makes one cut of the two bits `ties[n]`.
    """

    def __init__(self, types: Sequence[ArrayType], profile: Profile) -> None:
        self.profile, mesh = profile, types[0].mesh
        cuts = common_cuts(types)
        self.axis_cuts: dict[str, list[int]] = {axis: cuts[axis] for axis, _ in mesh.axes}
        self.dim_cuts = {dim: cuts[dim] for dim in range(len(types[0].shape))}
        self.device = _number((axis, c) for axis, at in self.axis_cuts.items() for c in at[:-1])
        self.index = _number((dim, c) for dim, at in self.dim_cuts.items() for c in at[:-1])
        self.bit = _number((obj, c) for obj, at in cuts.items() for c in at[1:-1])
        if len(self.bit) > MAX_BITS:
            raise OverflowError(f"a batch makes at most {MAX_BITS} cuts; got {len(self.bit)}")
        self.owned = np.full((len(types), len(self.device)), -1)
        self.owner = np.full((len(types), len(self.index) + 1), -1)  # of no digit: nobody
        self.partial = np.zeros((len(types), len(self.device)), dtype=bool)
        self.mask = np.zeros(len(types), dtype=np.int64)
        users: dict[tuple[int, int], list[int]] = {}
        for t, array_type in enumerate(types):
            made: set[Cut] = set()
            for digit in array_type.partial:
                made |= {(digit.axis, digit.pre), (digit.axis, digit.end)}
                for c in _inside(digit, self.axis_cuts[digit.axis]):
                    self.partial[t, self.device[digit.axis, c]] = True
            for digit, index in array_type.placements:
                made |= {(digit.axis, digit.pre), (digit.axis, digit.end)}
                made |= {(index.dim, index.pre), (index.dim, index.end)}
                for c in _inside(digit, self.axis_cuts[digit.axis]):
                    of_axis, of_dim = (digit.axis, c), (index.dim, index.pre * (c // digit.pre))
                    a, b = self.device[of_axis], self.index[of_dim]
                    self.owned[t, a], self.owner[t, b] = b, a
                    if c > digit.pre:
                        users.setdefault((self.bit[of_axis], self.bit[of_dim]), []).append(t)
            self.mask[t] = sum(1 << self.bit[cut] for cut in made if cut in self.bit)
        self.ties = list(users)
        self.tied = np.zeros((len(types), len(users)), dtype=bool)
        for n, using in enumerate(users.values()):
            self.tied[using, n] = True
        tiles: dict[int, int] = {}
        self.tile = np.array([tiles.setdefault(t.tile_size, len(tiles)) for t in types])
        axes = {name: DeviceDigit(name, 1, size) for name, size in mesh.axes}
        numbers: dict[Link, int] = {}
        self.link = np.array(
            [
                numbers.setdefault(profile.link_of(axis), len(numbers))
                for axis in axes.values()
                for _ in self.axis_cuts[axis.axis][:-1]
            ],
            dtype=np.int64,
        )
        self.links = [self.link == n for n in range(len(numbers))]  # per link who has it
        kinds: dict[object, int] = {}
        self.reduction = np.array([kinds.setdefault(t.reduction, len(kinds)) for t in types])
        self.summed = np.array([bool(t.partial) for t in types])

    def symmetries(self) -> list[Ints]:
        """The numbers of the types when two dimensions or axes trade places, where all have one.

        Dimensions of one size, and axes of one size and link.
        """
        alike: dict[object, list[int | str]] = {}
        for dim, cuts in self.dim_cuts.items():
            alike.setdefault(tuple(cuts), []).append(dim)
        for axis, at in self.axis_cuts.items():
            alike.setdefault((*at, self.profile.link_of(DeviceDigit(axis, 1, at[-1]))), []).append(
                axis
            )
        rows = np.hstack([self.owned, self.partial, self.reduction[:, None]])
        found = []
        for one, other in (two for same in alike.values() for two in pairwise(same)):
            name = {one: other, other: one}
            devices = [self.device[name.get(axis, axis), c] for axis, c in self.device]
            indices = [self.index[name.get(dim, dim), c] for dim, c in self.index]
            traded = rows.copy()
            traded[:, devices] = np.array([*indices, -1])[self.owned]
            traded[:, [len(devices) + a for a in devices]] = self.partial
            images = places(rows, traded)
            if images is not None:
                found.append(images)
        return found

    def signatures(self, src: Ints, dst: Ints) -> Signatures:
        """The signatures of some pairs, numbered among themselves."""
        mask, aligned = self.cuts_of(src, dst)
        partial = self.summed[src] | self.summed[dst]
        of_pair, first = np.full(len(src), -1), np.zeros(0, dtype=np.int64)
        symmetric = np.zeros(0, dtype=bool)
        for group, key_of in ((~partial, self.key), (partial, self.key_of_sums)):
            chosen = np.flatnonzero(aligned & group)
            if len(chosen):
                key, alike = key_of(src[chosen], dst[chosen], mask[chosen])
                _, at, numbers = np.unique(dense(key), return_index=True, return_inverse=True)
                of_pair[chosen] = numbers + len(first)
                first, symmetric = np.append(first, chosen[at]), np.append(symmetric, alike[at])
        return Signatures(of_pair, first, symmetric)

    def key(self, src: Ints, dst: Ints, mask: Ints) -> tuple[Ints, Bools]:
        """Of pairs without partial sums a number for each signature, and which are symmetric."""
        digits = self.merge(src, dst, self.digits(src, dst, mask))
        chains = self.chains(src, digits)
        spares, roomy, alike = self.spares(src, dst, mask, digits.need)
        # The price does not depend on the order of digits where spares fit in any order and all
        # choices are tried.
        any_order = (roomy | digits.alike) & (digits.ways <= MAX_COMBINATIONS)
        chains = np.where(any_order[:, None], np.sort(chains, axis=1), chains)
        symmetric = any_order & alike
        key = self.tile[src] * 2 + symmetric
        for column in (*digits.merged, *chains.T, spares):
            key = join(key, column)
        return key, symmetric

    def key_of_sums(self, src: Ints, dst: Ints, mask: Ints) -> tuple[Ints, Bools]:
        """Of pairs with partial sums what their normal form has; all are symmetric."""
        digits = self.digits(src, dst, mask)
        before, after, size = digits.before, digits.after, digits.size
        # In nobody's way, of powers of one prime: of those that are alike the product counts.
        alone = digits.active & ((before < 0) | (after < 0))
        alone &= np.take_along_axis(self.owner[src], after, axis=1) < 0
        alone &= np.take_along_axis(self.owner[dst], before, axis=1) < 0
        roles = self._role(src, before) * 3 + self._role(dst, after)
        products, active = [], digits.active
        for prime in sorted({p for n in np.unique(size).tolist() for p in primes(n)}):
            powers = alone & np.isin(
                size, [prime**k for k in range(1, int(MAX_BITS / log2(prime)))]
            )
            active = active & ~powers
            for on, role in product(self.links, np.unique(roles[powers]).tolist()):
                products.append(np.where(powers & on & (roles == role), size, 1).prod(axis=1))
        chains = np.sort(self.chains(src, replace(digits, active=active)), axis=1)
        named = self.owner >= 0
        runs = []
        for dim, cuts in self.dim_cuts.items():
            for c, made, end in self._cuts(mask, dim, cuts):
                b = self.index[dim, c]
                nobody = made & ~(named[src, b] | named[dst, b])
                runs.append(np.where(nobody, (np.array(cuts) // c)[end], 1))
        key = self.reduction[src] * (int(self.reduction.max()) + 1) + self.reduction[dst]
        for column in (*products, *chains.T, *np.sort(runs, axis=0)):
            key = join(key, column)
        return key, np.ones(len(src), dtype=bool)

    def cuts_of(self, src: Ints, dst: Ints) -> tuple[Ints, Bools]:
        """Per pair its cuts, closed under the uses of both types, and whether it is aligned."""
        mask = self.mask[src] | self.mask[dst]
        uses = [self.tied[src, n] | self.tied[dst, n] for n in range(len(self.ties))]
        growing = bool(uses)
        while growing:
            before = mask.copy()
            for (a, b), used in zip(self.ties, uses, strict=True):
                cut = (mask >> a | mask >> b) & used
                mask |= cut << a | cut << b
            growing = bool((mask != before).any())
        aligned = np.ones(len(src), dtype=bool)
        for (one, c), (other, d) in combinations(self.bit, 2):
            if one == other and d % c and c % d:
                aligned &= (mask >> self.bit[one, c] & mask >> self.bit[other, d] & 1) == 0
        return mask, aligned

    def _cuts(
        self, mask: Ints, obj: int | str, cuts: Sequence[int]
    ) -> list[tuple[int, Bools, Ints]]:
        """Per cut but the last: the cut, which pairs make it, which of `cuts` is their next."""
        found = []
        end = np.full(len(mask), len(cuts) - 1)
        for n, c in reversed(list(enumerate(cuts[:-1]))):
            bit = self.bit.get((obj, c))
            made = np.ones(len(mask), bool) if bit is None else (mask >> bit & 1).astype(bool)
            found.append((c, made, end))
            end = np.where(made, n, end)
        return found[::-1]

    def digits(self, src: Ints, dst: Ints, mask: Ints) -> _Digits:
        """What the device digits of each pair are."""
        before, after = self.owned[src], self.owned[dst]
        size = np.ones_like(before)
        kind = self._role(src, before) * 3 + self._role(dst, after)
        for axis, cuts in self.axis_cuts.items():
            for c, made, end in self._cuts(mask, axis, cuts):
                size[:, self.device[axis, c]] = np.where(made, (np.array(cuts) // c)[end], 1)
        kind = dense(kind + 9 * (self.link + len(self.links) * size))
        return _Digits(before, after, size, kind, (size > 1) & ((before != after) | (before < 0)))

    def merge(self, src: Ints, dst: Ints, digits: _Digits) -> _Digits:
        """The digits without those that have one choice: only their products matter.

        A digit that is sliced where nobody was, one that is gathered from where nobody comes, and
        one that moves between such places, if no digit of the pair can close its path.
        """
        before, after, active = digits.before, digits.after, digits.active
        free = self.partial[src] == 0
        alone = active & (np.take_along_axis(self.owner[src], after, axis=1) < 0)
        alone &= np.take_along_axis(self.owner[dst], before, axis=1) < 0
        owns, will = before >= 0, after >= 0
        # A chain that is free on both sides closes paths; it has an end of each kind.
        opens, ends = free & active & ~owns, free & active & ~will
        closers = (opens & ~alone).any(axis=1) & (ends & ~alone).any(axis=1)
        closers |= (opens & ends).any(axis=1)
        kinds = (
            alone & free & ~owns & will,
            alone & free & owns & ~will,
            alone & owns & will & ~closers[:, None],
        )
        merged = tuple(
            np.where(kind & on, digits.size, 1).prod(axis=1) for kind in kinds for on in self.links
        )
        return replace(digits, active=active & ~np.logical_or.reduce(kinds), merged=merged)

    def chains(self, src: Ints, digits: _Digits) -> Ints:
        """The chains and idle digits of each pair as codes; `find_chains` for many pairs.

        Each digit that moves has the code of the chain from itself on, so that a chain shows with
        all its ends, and a cycle with all its rotations.
        """
        kind = digits.kind + 1
        pairs, count = kind.shape
        base = int(kind.max(initial=0)) + 1

        # Who has what a digit wants; one more column stands for the end of a path.
        stop = np.full((pairs, 1), count)
        leads = np.take_along_axis(self.owner[src], digits.after, axis=1)
        lead = np.hstack([np.where(leads < 0, count, leads), stop]).ravel()
        kinds = np.hstack([kind, np.zeros_like(stop)]).ravel()
        row = np.arange(pairs)[:, None] * (count + 1)
        start = np.arange(count)
        at, code, closed = start, np.zeros_like(kind), np.zeros(kind.shape, dtype=bool)
        for _ in range(count):
            place = row + at
            code = times(code, base) + kinds[place]
            at = lead[place]
            back = at == start
            closed |= back
            at = np.where(back, count, at)
        code = times(code, 2) + closed
        return np.where(digits.active, dense(code) + 1, 0)

    def _role(self, of: Ints, owned: Ints) -> Ints:
        return np.where(owned >= 0, OWNER, np.where(self.partial[of], PARTIAL, FREE))

    def spares(self, src: Ints, dst: Ints, mask: Ints, need: Ints) -> tuple[Ints, Bools, Bools]:
        """The runs that nobody names, in order, as a code.

        And whether the first run with room has all it takes, and whether each of them has. Spare
        digits are cut off the first run that has room. All together take a divisor of `need`, so of
        a run only the common divisor with it matters, and nothing after a run with all of it.
        """
        named = self.owner >= 0
        which, needs = dense(need), np.unique(need)
        sizes = [e // c for cuts in self.dim_cuts.values() for c, e in combinations(cuts, 2)]
        rooms = np.unique(np.gcd.outer(needs, np.array([0, 1, *sizes])))  # gcd(n, 0) is n
        base = len(rooms)
        in_order = base ** len(self.index) < 1 << MAX_BITS
        code, full = np.zeros(len(src), np.int64), need == 1
        roomy, first, alike = full.copy(), np.ones(len(src), bool), np.ones(len(src), bool)
        for dim, cuts in self.dim_cuts.items():
            for c, made, end in self._cuts(mask, dim, cuts):
                b = self.index[dim, c]
                room = np.searchsorted(rooms, np.gcd.outer(needs, np.array(cuts) // c))
                all_of_it = rooms[room] == needs[:, None]
                nobody = made & ~(named[src, b] | named[dst, b])
                alike &= ~nobody | (room[which, end] == 0) | all_of_it[which, end]
                spare = nobody & ~full
                found = np.where(spare, room[which, end], 0)  # 0: a common divisor of 1 is no room
                if in_order:
                    code = np.where(found > 0, code * base + found, code)
                else:  # by place: finer than it needs to be, but no code outgrows its integer
                    code = times(code, base) + found
                enough = spare & all_of_it[which, end]
                roomy |= enough & first
                first &= found == 0
                full |= enough
        return np.where(roomy, 0, code + 1), roomy, alike | (need == 1)


def _number(cuts: Iterable[Cut]) -> dict[Cut, int]:
    return {cut: n for n, cut in enumerate(dict.fromkeys(cuts))}


def _inside(digit: DeviceDigit, cuts: Sequence[int]) -> list[int]:
    """The cuts of an axis at which a part of the digit starts."""
    return [c for c in cuts if digit.pre <= c < digit.end and not (c % digit.pre or digit.end % c)]
