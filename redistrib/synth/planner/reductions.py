"""Partial axes: which are reduced, which are kept, which are made, and how on their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

from redistrib.errors import LayoutError
from redistrib.synth.plan.collectives import (
    AllReduce,
    Collective,
    DynamicSlice,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Local,
    Placement,
    inside,
    is_chain,
    piece_of,
    split_off,
)


@dataclass(frozen=True, slots=True)
class PartialRoles:
    """The digits that a pair must `reduce`, those that stay partial, and those that become so.

    `reduction` is that of the target; digits are cut like the axes they were asked for.
    """

    reduce: frozenset[DeviceDigit]
    kept: frozenset[DeviceDigit]
    produce: frozenset[DeviceDigit]
    reduction: str

    def reduced(self, device: DeviceDigit) -> bool:
        """Whether a digit is part of one that must be reduced."""
        return any(inside(device, whole) for whole in self.reduce)

    def produced(self, device: DeviceDigit) -> bool:
        """Whether a digit is part of one that must become partial."""
        return any(inside(device, whole) for whole in self.produce)

    @staticmethod
    def rest(
        digits: Iterable[DeviceDigit], parts: Iterable[DeviceDigit]
    ) -> tuple[DeviceDigit, ...]:
        """What is left of digits when parts of them are taken out, in order."""
        left = [(d, IndexDigit(0, d.pre, d.size)) for d in sorted(digits)]
        for part in parts:
            for at, whole in enumerate(left):
                if inside(part, whole[0]):
                    left[at : at + 1] = split_off(whole, part)
                    break
        return tuple(device for device, _ in left)


def partial_roles(
    src: ArrayType, dst: ArrayType, axes: Iterable[DeviceDigit] | None = None
) -> PartialRoles:
    """The roles of the digits `axes`, a cut of all axes that respects both partial sets.

    Without `axes` the partial sets are cut at their common bounds, where these are nested.
    """
    if not (src.partial or dst.partial):
        return PartialRoles(frozenset(), frozenset(), frozenset(), "sum")
    if axes is None:
        axes = _common_cut(src, dst)
    before = frozenset(d for d in axes if any(inside(d, p) for p in src.partial))
    after = frozenset(d for d in axes if any(inside(d, p) for p in dst.partial))
    kept = before & after if src.reduction == dst.reduction else frozenset()
    return PartialRoles(before - kept, kept, after - kept, dst.reduction or "sum")


def _common_cut(src: ArrayType, dst: ArrayType) -> list[DeviceDigit]:
    digits = []
    for axis in {d.axis for d in (*src.partial, *dst.partial)}:
        sides = [[d for d in t.partial if d.axis == axis] for t in (src, dst)]
        bounds = sorted({b for side in sides for d in side for b in (d.pre, d.end)})
        if is_chain(bounds):
            digits += [DeviceDigit(axis, a, b // a) for a, b in pairwise(bounds)]
        else:
            digits += [d for side in sides for d in side]
    return sorted(digits)


def reduce_partial(
    src: ArrayType, dst: ArrayType, roles: PartialRoles
) -> tuple[list[Collective], ArrayType]:
    """Steps that reduce what must be, and the type that they end in.

    What the target slices anyway is sliced first, and a reduced digit goes where the target wants
    it, else to any local place; only where there is none is it an all_reduce.
    """
    steps: list[Collective] = []
    if not roles.reduce:
        return steps, src

    def step(collective: Collective) -> bool:
        nonlocal src
        try:
            src = collective.apply(src)
        except LayoutError:
            return False
        steps.append(collective)
        return True

    for device, index in dst.placements:
        step(DynamicSlice(((device, index),)))
    wanted = dict(dst.placements)
    placed = {
        device
        for device in sorted(roles.reduce & wanted.keys())
        if step(ReduceScatter(((device, wanted[device]),)))
    }
    for device in sorted(roles.reduce - placed):
        whole = device
        for run in local_runs(src):
            size = gcd(whole.size, run.size)
            if size > 1:
                part = DeviceDigit(whole.axis, whole.pre, size)
                if step(ReduceScatter(((part, IndexDigit(run.dim, run.pre, size)),))):
                    whole = DeviceDigit(whole.axis, part.end, whole.size // size)
        if whole.size > 1:
            step(AllReduce((whole,)))
    return steps, src


def make_partial(
    start: ArrayType, dst: ArrayType, roles: PartialRoles
) -> tuple[ArrayType, list[Collective]]:
    """The type, partial only over what stays so, from which the steps given lead to `dst`.

    A digit that owns something local in the target keeps it until the end.
    """
    if not roles.produce:
        return dst, []
    end = dst.replace(partial=roles.kept)
    spread: list[Placement] = []
    for device in sorted(roles.produce):
        for placement in start.placements:
            index = piece_of(placement, device)
            if index is not None:
                try:
                    end = DynamicSlice(((device, index),)).apply(end)
                except LayoutError:
                    continue
                spread.append((device, index))
    free = tuple(d for d in sorted(roles.produce) if d not in [d for d, _ in spread])
    steps: list[Collective] = []
    if spread:
        steps.append(ShardedToPartial(tuple(spread), roles.reduction))
    if free:
        steps.append(ReplicatedToPartial(free, roles.reduction))
    return end, steps


def local_runs(t: ArrayType) -> list[IndexDigit]:
    """The local factors of a type, with the trailing ones."""
    runs = []
    for dim, (n, factors) in enumerate(zip(t.shape, t.dims, strict=True)):
        pre = 1
        for factor in factors:
            if isinstance(factor, Local):
                runs.append(IndexDigit(dim, pre, factor.size))
            pre *= factor.size
        if n > pre:
            runs.append(IndexDigit(dim, pre, n // pre))
    return runs
