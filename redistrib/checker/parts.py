"""What two tiles have in common: a product over parts.

A *part* is runs of dimensions and the device digits that own them, with no bearing on other parts.
A part whose digits match is settled by its digits, whatever its size. In the others it is counted,
run by run, how many indices have each pair of values of their owners before and after: tiles are
products over runs, so all else is a product of such counts.

On x=4,y=6,z=2 the first dimension of f32[12{x}, 8{z}] -> f32[12{y}, 8{z}] is a part with x and y:
it is counted how many indices each pair of values of x and y shares (`shared` has the table). The
second is a part whose digits match: z owns the same on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise, product
from math import gcd, lcm, prod
from typing import Any

import numpy as np

from redistrib.checker.claims import Effort
from redistrib.checker.shared import Numbers, Shared, shared_of
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    apart,
    digit_values,
    inside,
    is_chain,
    object_of,
    split_at,
)
from redistrib.types.mesh import home_positions, whole_axes

Cut = tuple[str | int, int]
"""An axis or a dimension, and the positions before the cut."""


@dataclass(frozen=True)
class Part:
    """Runs of dimensions and the digits that own them, with no bearing on other parts.

    `spans` are disjoint parts of axes with all digits of the senders, `receiver_spans` those of the
    receivers. A receiver is a row-major coordinate over `receiver_spans`; the same device has the
    coordinate `home` over `spans`, or -1. A part is `plain` if every digit is a span and owns a
    whole run: then all its digits, and the runs they own, have one size, and no coordinate is
    looked at.
    """

    runs: list[IndexDigit]
    spans: list[DeviceDigit]
    src: dict[DeviceDigit, IndexDigit]
    dst: dict[DeviceDigit, IndexDigit]
    plain: bool
    receiver_spans: list[DeviceDigit]
    effort: Effort
    homes: Numbers | None = None

    @property
    def changed(self) -> list[DeviceDigit]:
        """The digits that own something else afterwards."""
        return [d for d in {*self.src, *self.dst} if self.src.get(d) != self.dst.get(d)]

    def has(self, digit: DeviceDigit) -> bool:
        """Whether a device digit of the senders is one of this part."""
        return _in_any(digit, self.spans)

    @cached_property
    def home(self) -> Numbers:
        """The coordinate of each receiver over `spans`, or -1."""
        if self.homes is not None:
            return self.homes
        self.effort.spend(size_of(self.spans))
        return np.arange(size_of(self.spans))

    @cached_property
    def shared(self) -> list[Shared]:
        """Per run, the pairs of values of its owners."""
        sides = [*self.src.items()], [*self.dst.items()]
        large = prod(run.size for run in self.runs) >= 1 << 62
        return [shared_of(run, sides, self.effort, large) for run in self.runs]

    @cached_property
    def overlap(self) -> Numbers:
        """Per receiver, the elements that it has on both sides."""
        elements: Any = 1
        for run in self.shared:
            before = digit_values(run.src, np.maximum(self.home, 0), self.spans)
            elements = elements * run.count(before, self.wants(run))
        return np.where(self.home >= 0, elements, 0)

    def wants(self, run: Shared) -> Numbers:
        """Per receiver, its value of the owners of a run after."""
        return digit_values(run.dst, np.arange(len(self.home)), self.receiver_spans)

    def least_overlap(self) -> int:
        """Elements that a device has on both sides: the least over devices."""
        if not self.plain:
            return int(self.overlap.min())
        owner = {index: device for device, index in self.src.items()}
        if any(owner.get(index, device) != device for device, index in self.dst.items()):
            return 0
        return size_of(run for run in self.runs if run not in {*owner, *self.dst.values()})

    def held(self) -> Fraction:
        """The fraction of the elements that some device has on both sides, on one mesh."""
        if self.plain:  # a digit that owns on both sides asks for equal indices in two runs
            return Fraction(1, size_of(self.runs[1:]))
        # Devices of one value before and one after have the same elements, others other ones.
        before, after = (digit_values(list(d), self.home, self.spans) for d in (self.src, self.dst))
        first = np.unique(after * size_of(self.src) + before, return_index=True)[1]
        return Fraction(int(self.overlap[first].sum()), size_of(self.runs))


def parts_of(
    src: ArrayType,
    dst: ArrayType,
    effort: Effort,
    named: Sequence[DeviceDigit] = (),
    tables: Sequence[Sequence[DeviceDigit]] = (),
) -> list[Part]:
    """The parts of two types; `named` digits are in spans, the axes of a table in one part."""
    if src.mesh != dst.mesh:
        return [_across(src, dst, effort)]
    routed = [axis for axes in tables for axis in axes]
    named = [*named, *routed]
    sides, cuts = _split([[*src.placements], [*dst.placements]], named)
    runs = []
    for dim, n in enumerate(src.shape):
        ends = sorted({1, n} | {end for obj, end in cuts if obj == dim})
        runs += [IndexDigit(dim, a, b // a) for a, b in pairwise(ends)]
    spans = _disjoint({*named, *(device for device, _ in sides[0] + sides[1])})
    links = (*sides[0], *sides[1], *tables, *([digit] for digit in named))
    parts = []
    for group in _groups([*runs, *spans], links):
        ours = [span for span in spans if span in group]
        before, after = ({d: i for d, i in side if _in_any(d, ours)} for side in sides)
        plain = {*before, *after} == {*ours} and {*before.values(), *after.values()} <= group
        plain = plain and not any(_in_any(axis, ours) for axis in routed)
        runs_of = [run for run in runs if run in group]
        parts.append(Part(runs_of, ours, before, after, plain, ours, effort))
    return parts


def _groups(items: Sequence[Any], links: Iterable[Sequence[Any]]) -> list[set[Any]]:
    """The items in groups: those that hold digits of one link are in one."""
    groups = [{item} for item in items]
    for link in links:
        merged = {item for item in items if any(inside(digit, item) for digit in link)}
        merged = merged.union(*(group for group in groups if group & merged))
        groups = [group for group in groups if not group & merged] + [merged]
    return groups


def _in_any(digit: DeviceDigit, spans: Iterable[DeviceDigit]) -> bool:
    return any(inside(digit, span) for span in spans)


def _across(src: ArrayType, dst: ArrayType, effort: Effort) -> Part:
    """All of two types on two meshes: the receivers are positions of the second."""
    effort.spend(src.mesh.num_devices + dst.mesh.num_devices)
    runs = [IndexDigit(dim, 1, n) for dim, n in enumerate(src.shape)]
    spans, receiver_spans = ([*whole_axes(t.mesh)] for t in (src, dst))
    before, after = (dict(t.placements) for t in (src, dst))
    homes = home_positions(src.mesh, dst.mesh)
    return Part(runs, spans, before, after, False, receiver_spans, effort, homes)


def _split(
    sides: list[list[Placement]], named: Sequence[DeviceDigit]
) -> tuple[list[list[Placement]], set[Cut]]:
    """The placements of both sides, cut wherever all of them can be, and these cuts.

    A cut inside a placement is one of its axis and one of its dimension. It is made if on both, and
    wherever else it falls from there, it divides or is divided by all ends. Tables and replicas
    name ends, too.
    """
    ends = {(digit.axis, end) for digit in named for end in (digit.pre, digit.end)}
    before, cuts = None, set[Cut]()
    sides = [split_at(side, ends) for side in sides] if ends else sides
    while sides != before:
        before, placements = sides, [*sides[0], *sides[1]]
        digits = [[digit for placement in side for digit in placement] for side in sides]
        ends_of = _ends([[*digits[0], *named], digits[1]])
        cuts = {*_proposed(ends_of)}
        new, images = [*cuts], dict[Cut, set[Cut]]()
        while new:
            cut = new.pop()
            images[cut] = _images(cut, placements)
            more = {image for image in images[cut] if image not in cuts}
            more = {(obj, position) for obj, position in more if _nested(position, *ends_of[obj])}
            cuts |= more
            new += more
        while wrong := {cut for cut in cuts if not images[cut] <= cuts}:
            cuts -= wrong
        sides = [split_at(side, cuts) for side in sides]
    return sides, cuts


def _ends(sides: Sequence[Sequence[DeviceDigit | IndexDigit]]) -> dict[Any, list[set[int]]]:
    """Per axis and dimension, the ends of the digits of each side."""
    ends: dict[Any, list[set[int]]] = {}
    for number, side in enumerate(sides):
        for digit in side:
            ends.setdefault(object_of(digit), [{1}, {1}])[number] |= {digit.pre, digit.end}
    return ends


def _nested(cut: int, ours: set[int], theirs: set[int]) -> bool:
    """Whether a cut divides, or is divided by, all ends of both sides."""
    return not any(cut % end and end % cut for ends in (ours, theirs) for end in ends)


def _proposed(ends_of: dict[Any, list[set[int]]]) -> Iterator[Cut]:
    """All ends, and cuts between them, that are nested with all ends.

    Between two ends a, b of one side and two ends c, d of the other one can cut at the least
    multiple of a and c and at the greatest divisor of b and d, if the one divides the other.
    """
    for obj, sides in ends_of.items():
        every = sorted(sides[0] | sides[1])
        if is_chain(every):
            yield from ((obj, end) for end in every)
            continue
        last = lcm(*every)
        ours, theirs = (pairwise(sorted({*side, last})) for side in sides)
        between = ((lcm(a, c), gcd(b, d)) for (a, b), (c, d) in product(ours, theirs))
        cuts = {
            *every,
            last,
            *(cut for low, high in between if high % low == 0 for cut in (low, high)),
        }
        yield from ((obj, cut) for cut in cuts if _nested(cut, *sides))


def _images(cut: Cut, placements: Iterable[Placement]) -> set[Cut]:
    """Where a cut inside placements falls on the other side of them."""
    obj, position = cut
    inner = ((d, i) for d, i in placements if d.axis == obj and d.pre < position < d.end)
    images: set[Cut] = {(i.dim, i.pre * position // d.pre) for d, i in inner}
    inner = ((d, i) for d, i in placements if i.dim == obj and i.pre < position < i.end)
    return images | {(d.axis, d.pre * position // i.pre) for d, i in inner}


def _disjoint(digits: Iterable[DeviceDigit]) -> list[DeviceDigit]:
    """Digits that overlap are joined to the least one that has both."""
    spans: list[DeviceDigit] = []
    for digit in sorted(digits):
        span = digit
        while spans and not apart(spans[-1], span):
            last = spans.pop()
            low, high = gcd(last.pre, span.pre), lcm(last.end, span.end)
            span = DeviceDigit(span.axis, low, high // low)
        spans.append(span)
    return spans


def size_of(digits: Iterable[DeviceDigit | IndexDigit]) -> int:
    """The product of the sizes of digits."""
    return prod(digit.size for digit in digits)
