"""What two tiles have in common: a product over parts.

A *part* is runs of dimensions and the device digits that own them, with no bearing on other parts.
A part whose digits match is settled by its digits, whatever its size; the others are enumerated,
each alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from math import gcd, lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.checker.claims import require
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    apart,
    digit_values,
    inside,
    object_of,
    split_at,
    with_digits,
)
from redistrib.types.mesh import whole_axes

MAX_ENUMERATED = 1 << 24  # coordinates times elements of one part


@dataclass(frozen=True, slots=True)
class Part:
    """Runs of dimensions and the digits that own them, with no bearing on other parts.

    `spans` are disjoint parts of axes with all digits, `there` those of the receivers, which have
    the coordinates `home` over `spans`, or -1. A part is `plain` if every digit is a span and owns
    a whole run: then all its digits, and the runs they own, have one size.
    """

    runs: list[IndexDigit]
    spans: list[DeviceDigit]
    src: dict[DeviceDigit, IndexDigit]
    dst: dict[DeviceDigit, IndexDigit]
    plain: bool
    there: list[DeviceDigit]
    home: NDArray[np.intp]
    unit: int = 1  # elements that an index of the runs stands for

    def has(self, digit: DeviceDigit) -> bool:
        """Whether a device digit lies in the spans."""
        return any(inside(digit, span) for span in self.spans)

    def least_overlap(self) -> int:
        """Elements that a device has on both sides: the least over devices."""
        if not self.plain:
            return self.unit * int(np.prod([x.sum(axis=1) for x in self.both()], axis=0).min())
        owner = {index: device for device, index in self.src.items()}
        if any(owner.get(index, device) != device for device, index in self.dst.items()):
            return 0
        return size_of(run for run in self.runs if run not in {*owner, *self.dst.values()})

    def held(self) -> Fraction:
        """The fraction of the elements that some device has on both sides."""
        if self.plain:  # a digit that owns on both sides asks for equal indices in two runs
            return Fraction(1, size_of(self.runs[1:]))
        found = np.zeros([run.size for run in self.runs], bool)
        for masks in zip(*self.both(), strict=True):
            found[np.ix_(*masks)] = True
        return Fraction(int(found.sum()), found.size)

    def both(self) -> list[NDArray[np.bool_]]:
        """Per run [coordinate over spans, index]: whether a device has it on both sides."""
        at, count = self.spans, len(self.home) * max((r.size for r in self.runs), default=0)
        require(count <= MAX_ENUMERATED, f"{count} entries are few enough to be enumerated")
        held = (_tiles(r, self.src, at)[self.home] & (self.home >= 0)[:, None] for r in self.runs)
        return [a & _tiles(r, self.dst, self.there) for a, r in zip(held, self.runs, strict=True)]

    def loads(self, replicas: Any, tables: Any) -> tuple[set[tuple[int, int]], int]:
        """Elements that a device sends in all and to itself, for all devices; senders of one."""
        require(all(self.has(name) for _, name in replicas), "a part names its own replicas")
        if self.plain:
            # A digit of the sender is one of the receiver, or an index of the element.
            owner = {index: device for device, index in self.dst.items()}
            known = {d: owner.get(index, index) for d, index in self.src.items()}
            senders = {known.get(d, dict(replicas).get(d, d)) for d in self.spans}
            require(len(senders) == len(self.spans), "all replicas serve the same amount")
            sent = size_of(run for run in self.runs if run not in owner)
            gathered = size_of(index for index in self.src.values() if index not in owner)
            return {(sent, self.least_overlap())}, gathered
        spans, wanted = self.spans, np.ones(len(self.home), bool)
        for run in self.runs:
            mask = _tiles(run, self.dst, self.there)
            wanted = wanted[..., None] & mask.reshape(-1, *(1,) * (wanted.ndim - 1), run.size)
        receiver, *indices = np.nonzero(wanted)
        home, held = self.home[receiver], {}
        sender, own = np.maximum(home, 0), home >= 0
        for device, index in self.src.items():
            at = next(at for at, run in enumerate(self.runs) if inside(index, run))
            held[device] = indices[at] // (self.runs[at].end // index.end) % index.size
            sender = with_digits(sender, [device], held[device], spans)
            own &= digit_values([device], home, spans) == held[device]
        for device, name in replicas:
            sender = with_digits(sender, [device], digit_values([name], receiver, spans), spans)
        for axes, owners, rows in tables:
            here = digit_values(axes, receiver, spans) if self.there is spans else receiver
            asked = (here, digit_values(owners, sender, spans))
            found = np.array([rows[a][b] for a, b in np.transpose(asked).tolist()])
            fits = len(rows) == 1 + here.max() and found.min() >= 0 and found.max() < size_of(axes)
            require(fits, "the rows and senders of a table are coordinates over its axes")
            sender = with_digits(sender, axes, found, spans)
        right = (np.array_equal(digit_values([d], sender, spans), held[d]) for d in held)
        require(all(right), "who sends an element holds it")
        require(np.array_equal(own, sender == home), "a device keeps what it already holds")
        counts = [np.bincount(who, minlength=size_of(spans)) for who in (sender, sender[own])]
        values = digit_values(list(self.src), sender, spans)
        tiles = np.unique(np.stack([receiver, values]), axis=1)[0]
        peers = int(np.bincount(tiles).max())
        return {(a * self.unit, b * self.unit) for a, b in np.transpose(counts).tolist()}, peers


def parts_of(src: ArrayType, dst: ArrayType, named: Any = (), tables: Any = ()) -> list[Part]:
    """The parts of two types; `named` digits are in spans, the axes of a table in one part."""
    if src.mesh != dst.mesh:  # all is one part, whose indices are blocks that no tile cuts
        block = [gcd(a, b) for a, b in zip(src.block_shape, dst.block_shape, strict=True)]
        runs = [IndexDigit(dim, 1, n // block[dim]) for dim, n in enumerate(src.shape)]
        place = {device: at for at, device in enumerate(src.mesh.ids)}
        home = np.array([place.get(device, -1) for device in dst.mesh.ids])
        here, there = ([*whole_axes(t.mesh)] for t in (src, dst))
        a, b = (dict(t.placements) for t in (src, dst))
        return [Part(runs or [IndexDigit(0, 1, 1)], here, a, b, False, there, home, prod(block))]
    sides, before = [list(src.placements), list(dst.placements)], None
    while sides != before:  # a cut splits what it falls into, which may cut the other side
        before = sides
        for kind in (1, 0):  # cuts of dimensions, then of axes
            cuts = _cuts(placement[kind] for placement in sides[0] + sides[1])
            sides = [split_at(side, cuts) for side in sides]
    ends = {(dim, end) for dim, n in enumerate(src.shape) for end in (1, n)}
    ends |= _cuts(index for _, index in sides[0] + sides[1])
    runs = [IndexDigit(d, a, b // a) for (d, a), (e, b) in pairwise(sorted(ends)) if d == e]
    spans = {*named, *(d for d, _ in sides[0] + sides[1]), *(d for axes in tables for d in axes)}
    while clash := next((p for p in combinations(sorted(spans), 2) if not apart(*p)), None):
        low, high = gcd(*(d.pre for d in clash)), lcm(*(d.end for d in clash))
        spans = spans - {*clash} | {DeviceDigit(clash[0].axis, low, high // low)}
    items: list[Any] = [*runs, *sorted(spans)]
    groups: list[set[Any]] = [{run} for run in runs]
    for link in (*sides[0], *sides[1], *tables, *([digit] for digit in named)):
        whole = {item for item in items if any(inside(digit, item) for digit in link)}
        whole = whole.union(*(group for group in groups if group & whole))
        groups = [group for group in groups if not group & whole] + [whole]
    parts = []
    for group in groups:
        ours = [span for span in sorted(spans) if span in group]
        one, two = ({d: i for d, i in side if any(inside(d, s) for s in ours)} for side in sides)
        plain = {*one, *two} == {*ours} and {*one.values(), *two.values()} <= group
        plain = plain and not any(inside(d, s) for axes in tables for d in axes for s in ours)
        runs_of, home = (
            [run for run in runs if run in group],
            np.arange(size_of(ours) * (not plain)),
        )
        parts.append(Part(runs_of, ours, one, two, plain, ours, home))
    return parts


def _cuts(digits: Iterable[DeviceDigit | IndexDigit]) -> set[tuple[Any, int]]:
    """Ends of digits that divide, or are divided by, all ends on their axis or dimension."""
    ends: dict[Any, set[int]] = {}
    for digit in digits:
        ends.setdefault(object_of(digit), {1}).update((digit.pre, digit.end))
    every = {(obj, cut) for obj, found in ends.items() for cut in (*found, lcm(*found))}
    return {(o, c) for o, c in every if all(c % end == 0 or end % c == 0 for end in ends[o])}


def _tiles(run: IndexDigit, owns: Any, spans: Sequence[DeviceDigit]) -> NDArray[np.bool_]:
    """Which indices of a run [coordinate over spans, index] belong to a device."""
    at, indices = np.arange(size_of(spans))[:, None], np.arange(run.size)
    mask = np.ones((len(at), run.size), bool)
    for device, index in ((d, i) for d, i in owns.items() if inside(i, run)):
        mask &= indices // (run.end // index.end) % index.size == digit_values([device], at, spans)
    return mask


def size_of(digits: Iterable[DeviceDigit | IndexDigit]) -> int:
    """The product of the sizes of digits."""
    return prod(digit.size for digit in digits)
