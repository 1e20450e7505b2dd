"""Steps with other digits: the same collectives on another mesh or another array.

Example: where an axis d of 4 stands for x=2 and y=2, and dimension 0 of 4 for the digits 0:(1)2 and
1:(1)2, an all_gather of d from all of dimension 0 is one of x and y from these two, and a part
d:(2)2 of the axis is y.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import assert_never

from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Exchange,
    Move,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.synth.plan.tables import PermuteTable, permute_table
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    apart,
    coalesce,
    cut,
    inside,
    split_at,
)


@dataclass(frozen=True, slots=True)
class Digits:
    """What each axis and each dimension stands for: digits, major to minor.

    Without `dims` dimensions are what they are.
    """

    axes: Mapping[str, Sequence[DeviceDigit]]
    dims: Sequence[Sequence[IndexDigit]] | None = None

    def rows(self, *digits: DeviceDigit | IndexDigit) -> list[list[DeviceDigit | IndexDigit]]:
        """Digits of one size, cut where any of them stands for several, as rows of parts."""
        inside = {end // d.pre for d in digits for end in self._ends(d) if d.pre < end < d.end}
        bounds = [1, *sorted(inside), digits[0].size]
        return [
            [self._part(d._replace(pre=d.pre * a, size=b // a)) for d in digits]
            for a, b in pairwise(bounds)
        ]

    def _whole(self, digit: DeviceDigit | IndexDigit) -> Sequence[DeviceDigit | IndexDigit] | None:
        if isinstance(digit, DeviceDigit):
            return self.axes[digit.axis]
        return None if self.dims is None else self.dims[digit.dim]

    def _ends(self, digit: DeviceDigit | IndexDigit) -> list[int]:
        parts = self._whole(digit) or ()
        return [prod(part.size for part in parts[: n + 1]) for n in range(len(parts))]

    def _part(self, digit: DeviceDigit | IndexDigit) -> DeviceDigit | IndexDigit:
        """What a digit inside one part of its axis or dimension stands for."""
        parts = self._whole(digit)
        if parts is None:
            return digit
        pre = 1
        for part in parts:
            if digit.pre < pre * part.size:
                return type(part)(part[0], part.pre * (digit.pre // pre), digit.size)  # type: ignore[arg-type]
            pre *= part.size
        raise AssertionError(f"{digit} is outside its axis or dimension")


def relabelled(
    start: ArrayType,
    steps: Iterable[Collective],
    digits: Digits,
    fixed: tuple[Placement, ...] = (),
) -> list[Collective]:
    """Steps with their digits replaced, from the type `start` on.

    `fixed` is what is owned beside the digits of the steps.
    """
    result: list[Collective] = []
    t = start
    for step in steps:
        new = _relabel(step, digits)
        if isinstance(new, Exchange):  # routed by the digits of these types
            after = t.replace(placements=(*new.placements, *fixed))
            new = exchange_traffic(t, after).exchange
        if isinstance(new, CollectivePermute):
            new = _among_owners(new, t)
        t = new.apply(t)
        result.append(new)
    return result


def _relabel(step: Collective, digits: Digits) -> Collective:
    def placed(placements: Iterable[Placement]) -> tuple[Placement, ...]:
        return tuple(tuple(row) for p in placements for row in digits.rows(*p))  # type: ignore[misc]

    def devices(parts: Iterable[DeviceDigit]) -> tuple[DeviceDigit, ...]:
        # A row-major number over neighbours is one over the digit that they are.
        return tuple(coalesce(row[0] for d in parts for row in digits.rows(d)))  # type: ignore[misc,arg-type]

    match step:
        case DynamicSlice() | AllGather() | ReduceScatter() | ShardedToPartial() | Exchange():
            return replace(step, placements=placed(step.placements))
        case AllToAll(moves):
            rows = [row for m in moves for row in digits.rows(m.device, m.source, m.target)]
            return AllToAll(tuple(Move(*row) for row in rows))  # type: ignore[arg-type]
        case CollectivePermute(routes, table):
            if table is not None:
                axes, places = devices(table.axes), placed(table.placements)
                return CollectivePermute((), PermuteTable(axes, table.sources, places))
            pairs = [row for route in routes for row in digits.rows(*route)]
            return CollectivePermute(tuple((old, new) for old, new in pairs))  # type: ignore[misc]
        case AllReduce() | ReplicatedToPartial():
            return replace(step, digits=devices(step.digits))
    assert_never(step)


def _among_owners(permute: CollectivePermute, t: ArrayType) -> CollectivePermute:
    """A permute by the owners of a type: where one digit owned here several may, or a part of one.

    Example: d=8 owns all of a dimension of 8, which is 0:(1)2 and 1:(1)4 of an array `[2, 4]`; x,
    which d is, then has two owners, x:(1)2 and x:(2)4, and a route of each. And where d is x:(1)2
    and x owns with all of its 4 devices, a table names all of x.
    """
    table = permute.table
    if table is None:
        routes, owners = dict(permute.routes), t.owners
        ends = {old: {d.end // old.pre for d in owners if inside(d, old)} for old in routes}
        for _ in routes:  # what is cut before it moves is so where it goes, around the whole cycle
            for old, new in routes.items():
                ends[new] |= ends[old]
        parts = [
            [cut(digit, [digit.pre * end for end in ends[digit]]) for digit in route]
            for route in routes.items()
        ]
        return CollectivePermute(
            tuple((old, new) for olds, news in parts for old, new in zip(olds, news, strict=True))
        )
    pieces = split_at(t.placements, [(d.axis, end) for d in table.axes for end in (d.pre, d.end)])
    if len(pieces) == len(t.placements):
        return permute
    others = [(d, i) for d, i in pieces if all(apart(d, axis) for axis in table.axes)]
    after = t.replace(placements=(*others, *table.placements))
    return CollectivePermute((), permute_table(t, after))
