"""Types halfway between two ends: what they own, and the steps from and to an end.

Example: x=4,y=6, `f32[24{x}, 24{y}] -> f32[24{y}, 24{x}]`. On prime digits a *cut* of the source is
`owned` x:(1)2, x:(2)2, y:(1)2, y:(2)3 and nothing `free`. A *halfway* type owns some of that still
and has `moved` the rest. A *block*, here the run 0:(1)4, is what it owns there as a whole, and what
each end owns `inside`: the source two digits of 2, the target one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from redistrib.synth.plan.collectives import AllGather, AllToAll, Collective, DynamicSlice, Move
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, primes

Owned = dict[DeviceDigit, IndexDigit]

Sizes = tuple[tuple[int, int], ...]
"""Primes, and how many digits there are of each."""
Kind = tuple[Sizes, ...]
"""The digits of a block, and those that either end owns of them."""


@dataclass(frozen=True, slots=True)
class Cut:
    """An end on prime digits: what those own that may move, and the digits that are free."""

    owned: Owned
    free: tuple[DeviceDigit, ...]


@dataclass(frozen=True, slots=True)
class Halfway:
    """A type one slice and one all_to_all away from an end."""

    owned: Owned
    added: tuple[DeviceDigit, ...]  # free at the end
    moved: tuple[tuple[DeviceDigit, IndexDigit], ...]  # with what they own at the end


@dataclass(frozen=True, slots=True)
class Block:
    """A run of a dimension that is owned halfway, and what either end owns inside it."""

    run: IndexDigit
    inside: tuple[tuple[IndexDigit, ...], tuple[IndexDigit, ...]]

    @property
    def kind(self) -> Kind:
        """How many digits of each prime it has, and how many of them either end owns."""
        sizes = Counter(primes(self.run.size))
        return tuple(sorted(sizes.items())), sizes_of(self.inside[0]), sizes_of(self.inside[1])

    def gaps(self, side: int) -> Iterator[IndexDigit]:
        """What an end does not own of it, as prime digits."""
        bounds = [b for i in sorted(self.inside[side]) for b in (i.pre, i.end)]
        ends = [self.run.pre, *bounds, self.run.end]
        for low, high in zip(ends[::2], ends[1::2], strict=True):
            pre = low
            for p in primes(high // low):
                yield IndexDigit(self.run.dim, pre, p)
                pre *= p


def sizes_of(digits: Iterable[DeviceDigit | IndexDigit]) -> Sizes:
    """How many digits there are of each size."""
    return tuple(sorted(Counter(digit.size for digit in digits).items()))


def with_placements(like: ArrayType, placements: Iterable[Placement]) -> ArrayType:
    """The type with these placements, and the partial set of another."""
    return like.replace(placements=placements)


def forwards(halfway: Halfway) -> Iterator[Collective]:
    """The steps from the source to a halfway type."""
    if halfway.added:
        yield DynamicSlice(tuple((d, halfway.owned[d]) for d in halfway.added))
    if halfway.moved:
        yield AllToAll(tuple(Move(d, i, halfway.owned[d]) for d, i in halfway.moved))


def backwards(halfway: Halfway) -> Iterator[Collective]:
    """The steps from a halfway type to the target."""
    if halfway.moved:
        yield AllToAll(tuple(Move(d, halfway.owned[d], i) for d, i in halfway.moved))
    if halfway.added:
        yield AllGather(tuple((d, halfway.owned[d]) for d in halfway.added))
