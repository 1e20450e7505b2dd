"""What tiles before and after share of a run of a dimension, without a look at each index.

On x=4,y=6 take f32[12{x}] -> f32[12{y}], one run of 12 indices. The tile of value a of x is the
indices 3a to 3a+2, that of value b of y the indices 2b and 2b+1. They share

    (a, b)   (0, 0)  (0, 1)  (1, 1)  (1, 2)  (2, 3)  (2, 4)  (3, 4)  (3, 5)
    indices     2       1       1       2       2       1       1       2

A digit of stride s and size k has the value i // s % k at index i: it is constant on blocks of s
indices and repeats after s k. Digits of large strides are taken by blocks, those of small ones by
their common period, of which a block has so many whole ones and a rest. Or every place is looked at
where a digit of either side changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd, lcm, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from redistrib.checker.claims import Effort
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, inside, merged

Numbers = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Shared:
    """Of one run, the pairs of values of its owners before (`src`) and after (`dst`).

    `keys`, ascending, are `b * base + a` for the values b after and a before that some index has,
    row-major over the owners; `counts` says how many indices have them. Those of b begin at
    `starts[b]`.
    """

    src: list[DeviceDigit]
    dst: list[DeviceDigit]
    keys: Numbers
    counts: Numbers
    starts: Numbers
    base: int

    def count(self, before: Numbers, after: Numbers) -> Numbers:
        """How many indices have these values, elementwise."""
        wanted = after * self.base + before
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.counts[place], 0)


class _Digit(NamedTuple):
    device: DeviceDigit
    side: int  # 0 before, 1 after
    stride: int


def shared_of(
    run: IndexDigit, sides: Sequence[Iterable[Placement]], effort: Effort, large: bool
) -> Shared:
    """The pairs of values in a run, of the placements in it; `large`: of any size of integers."""
    digits = [
        _Digit(device, side, run.end // index.end)
        for side, placements in enumerate(sides)
        for device, index in placements
        if inside(index, run)
    ]
    digits.sort(key=lambda digit: -digit.stride)
    unit = gcd(run.size, *(digit.stride for digit in digits))
    splits = [_Split(run.size, unit, digits[:n], digits[n:]) for n in range(len(digits) + 1)]
    split = min(splits, key=lambda split: split.cost)
    steps = [gcd(run.size, *(d.stride for d in digits if d.side == side)) for side in (0, 1)]
    changes = sum(run.size // step for step in steps)
    effort.spend(min(split.cost, changes))
    if split.cost <= changes:
        before, after, counts = split.pairs(effort, large)
    else:
        places = merged(*(np.arange(0, run.size, step) for step in steps))
        before, after, _, _ = _values(digits, places, 1)
        counts = np.diff(np.append(places, run.size)).astype(object if large else np.int64)
    src, dst = ([digit.device for digit in digits if digit.side == side] for side in (0, 1))
    base, top = (prod(device.size for device in side) for side in (src, dst))
    keys, place = np.unique(after * base + before, return_inverse=True)
    totals = np.zeros(len(keys), counts.dtype)
    np.add.at(totals, place, counts)
    starts = np.searchsorted(keys, np.arange(top + 1) * base)
    return Shared(src, dst, keys, totals, starts, base)


@dataclass(frozen=True, slots=True)
class _Split:
    """The digits of a run of `size` indices, those of large strides and those of small ones.

    Nothing changes within `unit` indices.
    """

    size: int
    unit: int
    coarse: list[_Digit]
    fine: list[_Digit]

    @property
    def block(self) -> int:
        """Indices in which no coarse digit changes."""
        return gcd(self.size, *(digit.stride for digit in self.coarse))

    @property
    def period(self) -> int:
        """Indices after which the fine digits repeat."""
        return lcm(self.unit, *(digit.stride * digit.device.size for digit in self.fine))

    @property
    def cost(self) -> int:
        """What is enumerated: blocks, a period, and counts of fine values at starts of blocks."""
        starts = self.period // gcd(self.block, self.period)
        values = prod(digit.device.size for digit in self.fine)
        return self.size // self.block + self.period // self.unit + 2 * starts * values

    def pairs(self, effort: Effort, large: bool) -> tuple[Numbers, Numbers, Numbers]:
        """Values before, values after, and how many indices have them, in no order, repeatedly."""
        block, period = self.block, self.period
        step = gcd(block, period)  # blocks start at multiples of it within the period
        steps = period // step
        indices = np.arange(self.size // block)
        before, after, _, tops = _values(self.coarse, indices, block)
        start = indices * (block % period) % period // step
        kinds, times = np.unique((before * tops + after) * steps + start, return_counts=True)
        before, after, start = kinds // steps // tops, kinds // steps % tops, kinds % steps
        indices = np.arange(period // self.unit)
        fine_before, fine_after, bases, tops = _values(self.fine, indices, self.unit)
        effort.spend(len(kinds) * bases * tops)
        kind = indices // (step // self.unit) * (bases * tops) + fine_before * tops + fine_after
        in_step = np.bincount(kind, minlength=steps * bases * tops).reshape(steps, -1)
        in_step = in_step.astype(object if large else np.int64) * self.unit
        until = np.cumsum([in_step[0] * 0, *in_step, *in_step], axis=0)
        incomplete = until[start + block % period // step] - until[start]
        counts = (incomplete + block // period * until[steps]) * times[:, None]
        values = np.arange(bases * tops)
        before = before[:, None] * bases + values // tops
        after = after[:, None] * tops + values % tops
        some = counts != 0
        return before[some], after[some], counts[some]


def _values(
    digits: Sequence[_Digit], indices: Numbers, unit: int
) -> tuple[Numbers, Numbers, int, int]:
    """The values of digits before and after at indices given in units, and how many there are."""
    values, sizes = [np.zeros_like(indices), np.zeros_like(indices)], [1, 1]
    for device, side, stride in digits:
        values[side] = values[side] * device.size + indices // (stride // unit) % device.size
        sizes[side] *= device.size
    return values[0], values[1], sizes[0], sizes[1]
