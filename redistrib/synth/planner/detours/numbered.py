"""The types of a batch in numbers, and the digits of pairs of them as rows of arrays.

The cuts that some type of a batch makes, closed under all their uses, are numbered; a digit is
known by the cut that it starts at. The cuts of a pair are a mask of bits, closed under the uses of
its two types; the pair is aligned iff no two cuts of the mask are incomparable. On x=2,y=4 with
types `[8{x}, 8]` and `[8, 8{y}]` the device digits x and y have the numbers 0 and 1, the index
digits 0:(1)2, 0:(2)4, 1:(1)4 and 1:(4)2 the numbers 0 to 3:

>>> from redistrib.synth.plan.profile import DEFAULT_PROFILE
>>> types = [ArrayType.parse(text, Mesh(x=2, y=4)) for text in ("f32[8{x}, 8]", "f32[8, 8{y}]")]
>>> numbered = NumberedTypes(types, DEFAULT_PROFILE)
>>> list(numbered.index)  # a dimension, and the positions before the digit
[(0, 1), (0, 2), (1, 1), (1, 4)]
>>> src, dst = np.array([0]), np.array([1])
>>> mask, aligned = numbered.cuts_of(src, dst)
>>> digits = numbered.digits(src, dst, mask)
>>> digits.before.tolist(), digits.after.tolist(), aligned.tolist()
([[0, -1]], [[-1, 2]], [True])
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from redistrib.synth.plan.links import Link
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.detours.codes import MAX_BITS, dense, join, times
from redistrib.synth.planner.detours.symmetry import places
from redistrib.synth.planner.three_phase import MAX_COMBINATIONS
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, primes
from redistrib.types.mesh import Mesh
from redistrib.types.refinement import common_cuts

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Cut = tuple[int | str, int]  # a dimension or an axis, and the positions before the cut

FREE, PARTIAL, OWNER = range(3)  # what a device digit is on one side


@dataclass(frozen=True, slots=True)
class PairDigits:
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

    def any_order(self, roomy: Bools) -> Bools:
        """Whether the order of digits is nothing to the price.

        Spares fit in any order, and all choices are tried.
        """
        return np.asarray((roomy | self.alike) & (self.ways <= MAX_COMBINATIONS))

    @property
    def fixed(self) -> Ints:
        """Per pair the product of the digits that stay: what takes no part in a move."""
        return np.asarray(np.where(self.active, 1, self.size).prod(axis=1))


class NumberedTypes:
    """Some types in numbers: device digits are known as a, index digits as b, by their first cuts.

    Per type t: `owned[t, a]` is the index digit that a owns and `owner[t, b]` the reverse, -1 for
    none; `partial[t, a]`; `named[t]` is one number for the types that name the same index digits;
    `mask[t]` are the cuts that the type makes, as bits; `tied[t, n]` says whether a use of t makes
    one cut of the two bits `ties[n]`.
    """

    def __init__(self, types: Sequence[ArrayType], profile: Profile) -> None:
        self.profile, mesh = profile, types[0].mesh
        cuts = common_cuts(types)
        self.axis_cuts: dict[str, list[int]] = {axis: cuts[axis] for axis, _ in mesh.axes}
        self.dim_cuts = {dim: cuts[dim] for dim in range(len(types[0].shape))}
        self.device = _number((axis, c) for axis, ends in self.axis_cuts.items() for c in ends[:-1])
        self.index = _number((dim, c) for dim, ends in self.dim_cuts.items() for c in ends[:-1])
        self.bit = _number((obj, c) for obj, ends in cuts.items() for c in ends[1:-1])
        if len(self.bit) > MAX_BITS:
            raise OverflowError(f"a batch makes at most {MAX_BITS} cuts; got {len(self.bit)}")
        self.owned = np.full((len(types), len(self.device)), -1)
        self.owner = np.full((len(types), len(self.index) + 1), -1)  # of no digit: nobody
        self.partial = np.zeros((len(types), len(self.device)), dtype=bool)
        self.mask = np.zeros(len(types), dtype=np.int64)
        users: dict[tuple[int, int], list[int]] = {}
        for t, array_type in enumerate(types):
            own_cuts: set[Cut] = set()
            for digit in array_type.partial:
                own_cuts |= {(digit.axis, digit.pre), (digit.axis, digit.end)}
                for c in _inside(digit, self.axis_cuts[digit.axis]):
                    self.partial[t, self.device[digit.axis, c]] = True
            for digit, index in array_type.placements:
                own_cuts |= {(digit.axis, digit.pre), (digit.axis, digit.end)}
                own_cuts |= {(index.dim, index.pre), (index.dim, index.end)}
                for c in _inside(digit, self.axis_cuts[digit.axis]):
                    of_axis, of_dim = (digit.axis, c), (index.dim, index.pre * (c // digit.pre))
                    a, b = self.device[of_axis], self.index[of_dim]
                    self.owned[t, a], self.owner[t, b] = b, a
                    if c > digit.pre:
                        users.setdefault((self.bit[of_axis], self.bit[of_dim]), []).append(t)
            self.mask[t] = sum(1 << self.bit[cut] for cut in own_cuts if cut in self.bit)
        self.ties = list(users)
        self.tied = np.zeros((len(types), len(users)), dtype=bool)
        for n, using in enumerate(users.values()):
            self.tied[using, n] = True
        _, self.named = np.unique(self.owner >= 0, axis=0, return_inverse=True)
        tiles: dict[int, int] = {}
        self.size, self.tiles = types[0].size, [t.tile_size for t in types]
        self.tile = np.array([tiles.setdefault(tile, len(tiles)) for tile in self.tiles])
        kinds: dict[object, int] = {}
        self.reductions = [t.reduction for t in types]
        self.reduction = np.array([kinds.setdefault(name, len(kinds)) for name in self.reductions])
        self.summed = np.array([bool(t.partial) for t in types])
        self._number_links(mesh, profile)

    def _number_links(self, mesh: Mesh, profile: Profile) -> None:
        """The link of each device digit, who has each link, and their figures.

        On a ring digits have other links where they start elsewhere, whatever their sizes.
        """
        axes = {name: DeviceDigit(name, 1, size) for name, size in mesh.axes}
        numbers: dict[Link, int] = {}
        links = [profile.link_of(axes[str(axis)]).below(cut) for axis, cut in self.device]
        self.speeds = [(link.latency, link.bandwidth, link.where) for link in links]
        self.link = np.array([numbers.setdefault(link, len(numbers)) for link in links], np.int64)
        self.links = [self.link == n for n in range(len(numbers))]  # per link who has it
        self.by_link = tuple((link.latency, link.bandwidth, link.where) for link in numbers)

    def symmetries(self) -> list[Ints]:
        """The numbers of the types when two dimensions or axes trade places, where all have one.

        Dimensions of one size, and axes of one size and link.
        """
        alike: dict[object, list[int | str]] = {}
        for dim, cuts in self.dim_cuts.items():
            alike.setdefault(tuple(cuts), []).append(dim)
        for axis, ends in self.axis_cuts.items():
            link = self.profile.link_of(DeviceDigit(axis, 1, ends[-1]))
            alike.setdefault((*ends, link), []).append(axis)
        rows = np.hstack([self.owned, self.partial, self.reduction[:, None]])
        generators = []
        for a, b in (two for same in alike.values() for two in pairwise(same)):
            trade = {a: b, b: a}
            devices = [self.device[trade.get(axis, axis), c] for axis, c in self.device]
            indices = [self.index[trade.get(dim, dim), c] for dim, c in self.index]
            traded = rows.copy()
            traded[:, devices] = np.array([*indices, -1])[self.owned]
            traded[:, [len(devices) + device for device in devices]] = self.partial
            images = places(rows, traded)
            if images is not None:
                generators.append(images)
        return generators

    def alone(self, src: Ints, dst: Ints, digits: PairDigits) -> Bools:
        """Which digits take what nobody has and leave what nobody wants."""
        wanted = np.take_along_axis(self.owner[src], digits.after, axis=1) < 0
        left = np.take_along_axis(self.owner[dst], digits.before, axis=1) < 0
        return np.asarray(digits.active & wanted & left)

    def loose(self, src: Ints, dst: Ints, digits: PairDigits) -> Bools:
        """Which of them are free on a side: of those that are alike only the product counts."""
        return self.alone(src, dst, digits) & ((digits.before < 0) | (digits.after < 0))

    def runs(self, src: Ints, dst: Ints, mask: Ints) -> list[Ints]:
        """Per pair the sizes of the runs that nobody names, in order; 1 for none."""
        named = self.owner >= 0
        runs = []
        for dim, cuts in self.dim_cuts.items():
            for c, is_cut, end in self.cuts_along(mask, dim, cuts):
                b = self.index[dim, c]
                nobody = is_cut & ~(named[src, b] | named[dst, b])
                runs.append(np.where(nobody, (np.array(cuts) // c)[end], 1))
        return runs

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
        for (obj, c), (other, d) in combinations(self.bit, 2):
            if obj == other and d % c and c % d:
                aligned &= (mask >> self.bit[obj, c] & mask >> self.bit[obj, d] & 1) == 0
        return mask, aligned

    def cuts_along(
        self, mask: Ints, obj: int | str, cuts: Sequence[int]
    ) -> list[tuple[int, Bools, Ints]]:
        """Per cut but the last: the cut, which pairs make it, which of `cuts` is their next."""
        rows = []
        end = np.full(len(mask), len(cuts) - 1)
        for n, c in reversed(list(enumerate(cuts[:-1]))):
            bit = self.bit.get((obj, c))
            is_cut = np.ones(len(mask), bool) if bit is None else (mask >> bit & 1).astype(bool)
            rows.append((c, is_cut, end))
            end = np.where(is_cut, n, end)
        return rows[::-1]

    def digits(self, src: Ints, dst: Ints, mask: Ints) -> PairDigits:
        """What the device digits of each pair are."""
        before, after = self.owned[src], self.owned[dst]
        size = np.ones_like(before)
        kind = self.role(src, before) * 3 + self.role(dst, after)
        for axis, cuts in self.axis_cuts.items():
            for c, is_cut, end in self.cuts_along(mask, axis, cuts):
                size[:, self.device[axis, c]] = np.where(is_cut, (np.array(cuts) // c)[end], 1)
        kind = dense(kind + 9 * (self.link + len(self.links) * size))
        return PairDigits(
            before, after, size, kind, (size > 1) & ((before != after) | (before < 0))
        )

    def merge(self, src: Ints, dst: Ints, digits: PairDigits) -> PairDigits:
        """The digits without those that have one choice: only their products matter.

        A digit that is sliced where nobody was, one that is gathered from where nobody comes, and
        one that moves between such places, if no digit of the pair can close its path.
        """
        before, after, active = digits.before, digits.after, digits.active
        free = self.partial[src] == 0
        alone = self.alone(src, dst, digits)
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
            np.where(kind & linked, digits.size, 1).prod(axis=1)
            for kind in kinds
            for linked in self.links
        )
        return replace(digits, active=active & ~np.logical_or.reduce(kinds), merged=merged)

    def chains(self, src: Ints, digits: PairDigits) -> Ints:
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
        reached, code, closed = start, np.zeros_like(kind), np.zeros(kind.shape, dtype=bool)
        for _ in range(count):
            place = row + reached
            code = times(code, base) + kinds[place]
            reached = lead[place]
            back = reached == start
            closed |= back
            reached = np.where(back, count, reached)
        code = times(code, 2) + closed
        return np.where(digits.active, dense(code) + 1, 0)

    def role(self, numbers: Ints, owned: Ints) -> Ints:
        """FREE, PARTIAL or OWNER: of the digits of the types with these numbers, which own so."""
        return np.where(owned >= 0, OWNER, np.where(self.partial[numbers], PARTIAL, FREE))

    def spares(self, src: Ints, dst: Ints, mask: Ints, need: Ints) -> tuple[Ints, Bools, Bools]:
        """The runs that nobody names, in order, as a code.

        And whether the first run with room has all it takes, and whether each of them has. Spare
        digits are cut off the first run that has room. All together take a divisor of `need`, so of
        a run only the common divisor with it matters, and nothing after a run with all of it.
        """
        # Many pairs name the same runs: one of each kind is looked at.
        key = join(dense(mask), np.minimum(self.named[src], self.named[dst]))
        key = join(join(key, np.maximum(self.named[src], self.named[dst])), need)
        _, first, kind = np.unique(key, return_index=True, return_inverse=True)
        code, roomy, alike = self._spares(src[first], dst[first], mask[first], need[first])
        return code[kind], roomy[kind], alike[kind]

    def _spares(self, src: Ints, dst: Ints, mask: Ints, need: Ints) -> tuple[Ints, Bools, Bools]:
        """`spares`, pair by pair."""
        named = self.owner >= 0
        which, needs = dense(need), np.unique(need)
        sizes = [e // c for cuts in self.dim_cuts.values() for c, e in combinations(cuts, 2)]
        rooms = np.unique(np.gcd.outer(needs, np.array([0, 1, *sizes])))  # gcd(n, 0) is n
        base = len(rooms)
        in_order = base ** len(self.index) < 1 << MAX_BITS
        code, full = np.zeros(len(src), np.int64), need == 1
        roomy, first, alike = full.copy(), np.ones(len(src), bool), np.ones(len(src), bool)
        for dim, cuts in self.dim_cuts.items():
            for c, is_cut, end in self.cuts_along(mask, dim, cuts):
                b = self.index[dim, c]
                room = np.searchsorted(rooms, np.gcd.outer(needs, np.array(cuts) // c))
                all_of_it = rooms[room] == needs[:, None]
                nobody = is_cut & ~(named[src, b] | named[dst, b])
                alike &= ~nobody | (room[which, end] == 0) | all_of_it[which, end]
                spare = nobody & ~full
                taken = np.where(spare, room[which, end], 0)  # 0: a common divisor of 1 is no room
                if in_order:
                    code = np.where(taken > 0, code * base + taken, code)
                else:  # by place: finer than it needs to be, but no code outgrows its integer
                    code = times(code, base) + taken
                enough = spare & all_of_it[which, end]
                roomy |= enough & first
                first &= taken == 0
                full |= enough
        return np.where(roomy, 0, code + 1), roomy, alike | (need == 1)


def _number(cuts: Iterable[Cut]) -> dict[Cut, int]:
    return {cut: n for n, cut in enumerate(dict.fromkeys(cuts))}


def _inside(digit: DeviceDigit, cuts: Sequence[int]) -> list[int]:
    """The cuts of an axis at which a part of the digit starts."""
    return [c for c in cuts if digit.pre <= c < digit.end and not (c % digit.pre or digit.end % c)]
