"""Routing where no digits match, by a table or by indices: finite, so it is enumerated."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import gcd, lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.checker.certificate.solver import require
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    apart,
    digit_values,
    inside,
    piece_of,
    split_at,
    with_digits,
)
from redistrib.types.digits import parse_device_digit as device_digit

MAX_ENUMERATED = 1 << 24  # coordinates times elements of one table


class Table:
    """A table, found right by enumeration; `runs` are the index digits that its axes decide.

    To the rest of the step it is one more owner of each run, with one value: that of the element.
    """

    def __init__(self, table: Any, kind: str, before: ArrayType, after: ArrayType) -> None:
        self.axes = [device_digit(axis) for axis in table["axes"]]
        self.count = prod(axis.size for axis in self.axes)
        fits = all(before.mesh.axis_size(a.axis) % a.end == 0 for a in self.axes)
        require(fits, "the axes of a table are parts of axes of the mesh")
        nested = all(apart(a, b) for a, b in combinations(self.axes, 2))
        require(nested, "the axes of a table are disjoint")
        ends = {(a.axis, end) for a in self.axes for end in (a.pre, a.end)}
        self.old, self.new = (
            [p for p in split_at(t.placements, ends) if self.has(p[0])] for t in (before, after)
        )
        for device in (*(d for d, _ in (*self.old, *self.new)), *before.partial, *after.partial):
            within = any(inside(device, axis) for axis in self.axes)
            require(within or not self.has(device), f"{device} is inside an axis of the table")
        require(not any(map(self.has, before.partial)), "a table routes no partial axis")
        runs = {index for _, index in (*self.old, *self.new)}
        while clash := next((p for p in combinations(sorted(runs), 2) if not apart(*p)), None):
            low, high = gcd(*(i.pre for i in clash)), lcm(*(i.end for i in clash))
            runs = runs - {*clash} | {IndexDigit(clash[0].dim, low, high // low)}
        self.runs = sorted(runs)
        size = prod(run.size for run in self.runs)
        require(self.count * size <= MAX_ENUMERATED, "a table can be enumerated")
        if kind == "exchange":
            self.note = self._exchange(table)
        else:
            self.note = self._permute(table)

    def has(self, device: DeviceDigit) -> bool:
        """Whether the table decides something of a device digit."""
        return not all(apart(device, axis) for axis in self.axes)

    @property
    def stand_ins(self) -> list[Placement]:
        """The table as an owner of each of its runs."""
        return [(DeviceDigit(f"(table {run})", 1, run.size), run) for run in self.runs]

    def _mask(self, run: IndexDigit, placements: Sequence[Placement]) -> NDArray[np.bool_]:
        """Which indices of a run [coordinate, index] belong to a coordinate over the axes."""
        coordinates, indices = np.arange(self.count)[:, None], np.arange(run.size)
        mask = np.ones((self.count, run.size), bool)
        for device, index in (p for p in placements if inside(p[1], run)):
            stride = run.end // index.end
            mask &= indices // stride % index.size == digit_values([device], coordinates, self.axes)
        return mask

    def _permute(self, table: Any) -> str:
        """Each coordinate receives a whole tile, and it is the one that it wants."""
        sources = list(table["sources"])
        right = sorted(sources) == [*range(self.count)]
        require(right, "the sources of a table are a permutation")
        for run in self.runs:
            held, wanted = self._mask(run, self.old)[sources], self._mask(run, self.new)
            wrong = np.argwhere((held != wanted).any(axis=1))
            require(
                not len(wrong),
                f"every coordinate receives the tile that it wants; {run} is wrong at coordinate "
                f"{wrong.flatten()[:1]} of {[str(axis) for axis in self.axes]}",
            )
        return f"by a table, all {self.count} coordinates enumerated"

    def _exchange(self, table: Any) -> str:
        """Each wanted element is asked of a coordinate that holds it.

        Without rows: of the one that is like the receiver in all digits that own nothing.
        """
        implied = "rows" not in table
        owners = [d for d, _ in self.old] if implied else [*map(device_digit, table["owners"])]
        wanted = np.ones(self.count, bool)
        for run in self.runs:
            mask = self._mask(run, self.new)
            wanted = wanted[..., None] & mask.reshape(-1, *(1,) * (wanted.ndim - 1), run.size)
        receiver, *indices = np.nonzero(wanted)
        value = np.zeros_like(receiver)
        held = []
        for owner in owners:
            index = next((i for p in self.old if (i := piece_of(p, owner)) is not None), None)
            require(index is not None, f"{owner} owns something in the source")
            assert index is not None
            number, run = next((n, r) for n, r in enumerate(self.runs) if inside(index, r))
            held.append(indices[number] // (run.end // index.end) % index.size)
            value = value * owner.size + held[-1]
        owned = prod(owner.size for owner in owners)
        require(owned == prod(d.size for d, _ in self.old), "the owners of a table are all")
        sender = receiver
        if implied:
            for owner, digit in zip(owners, held, strict=True):
                sender = with_digits(sender, [owner], digit, self.axes)
        else:
            senders = np.full((self.count, owned), -1)
            for a, row in enumerate(table["rows"]):
                for b, source in row:
                    senders[a, b] = source
            sender = senders[receiver, value]
        right = (sender >= 0) & (sender < self.count)
        for owner, digit in zip(owners, held, strict=True):
            right &= digit_values([owner], sender, self.axes) == digit
        wrong = receiver[~right][:1]
        require(
            not len(wrong),
            f"every element is asked of a device that holds it; not so for receiver {wrong} over "
            f"{[str(axis) for axis in self.axes]}",
        )
        method = "by their indices" if implied else "by a table"
        return f"{method}, all {len(receiver)} elements at {self.count} coordinates enumerated"
