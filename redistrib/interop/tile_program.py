"""A plan as operations on one device's tile: what StableHLO and jax.lax programs both print.

A collective works on the leading dimension of an array of pieces. Before it, reshapes and a
transposition bring the digits that it moves to the front; after it, others put them where they are
local. A plan between two meshes of the same devices is written on that of its source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import assert_never

from redistrib.errors import LayoutError
from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Exchange,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, merge_factors
from redistrib.types.tile import Split, split

Digits = tuple[DeviceDigit, ...]


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same elements in row-major order under another shape."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transpose:
    """Dimension i of the result is dimension `order[i]`."""

    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pick:
    """Of `[k, *piece]` the piece that has the number of this device, the value of the digits."""

    digits: Digits


@dataclass(frozen=True, slots=True)
class Place:
    """`[*piece]` to `[k, *piece]`: at the number of this device; elsewhere the identity."""

    digits: Digits
    reduction: str


@dataclass(frozen=True, slots=True)
class Gather:
    """`[*tile]` to `[k, *tile]`, from all devices of the group."""

    digits: Digits


@dataclass(frozen=True, slots=True)
class Swap:
    """`[k, *piece]` to `[k, *piece]`: piece i goes to device i of the group."""

    digits: Digits


@dataclass(frozen=True, slots=True)
class Scatter:
    """`[k, *piece]` to `[*piece]`: the reduction of piece i on device i of the group."""

    digits: Digits
    reduction: str


@dataclass(frozen=True, slots=True)
class Reduce:
    """The reduction over the group, on every device of it."""

    digits: Digits
    reduction: str


@dataclass(frozen=True, slots=True)
class KeepFirst:
    """The tile where the digits are 0; the identity of the reduction elsewhere."""

    digits: Digits
    reduction: str


@dataclass(frozen=True, slots=True)
class Send:
    """Whole tiles to other devices."""

    step: CollectivePermute


Operation = Reshape | Transpose | Pick | Place | Gather | Swap | Scatter | Reduce | KeepFirst | Send


def operations(step: Collective, before: ArrayType, after: ArrayType) -> list[Operation]:
    """One step as operations on the tile.

    Raises LayoutError for an exchange: no single collective of these programs is one.
    """
    return list(_operations(step, before, after))


def _operations(step: Collective, before: ArrayType, after: ArrayType) -> Iterator[Operation]:
    # Neighbours that make up a larger part of an axis have the same value together.
    digits = tuple(d for d in merge_factors(step.axes) if isinstance(d, DeviceDigit))
    reduction = before.reduction or "sum"
    match step:
        case DynamicSlice(placements):
            yield from _to_pieces(split(before, [index for _, index in placements]))
            yield Pick(digits)
        case AllGather(placements):
            yield Gather(digits)
            yield from _to_tile(split(after, [index for _, index in placements]), before.tile_shape)
        case AllToAll(moves):
            pieces = split(before, [move.target for move in moves])
            yield from _to_pieces(pieces)
            yield Swap(digits)
            yield from _to_tile(split(after, [move.source for move in moves]), pieces.piece_shape)
        case CollectivePermute():
            yield Send(step)
        case ReduceScatter(placements):
            yield from _to_pieces(split(before, [index for _, index in placements]))
            yield Scatter(digits, reduction)
        case AllReduce():
            yield Reduce(digits, reduction)
        case ReplicatedToPartial(_, kind):
            yield KeepFirst(digits, kind)
        case ShardedToPartial(placements, kind):
            yield Place(digits, kind)
            yield from _to_tile(split(after, [index for _, index in placements]), before.tile_shape)
        case Exchange():
            raise LayoutError(
                "no single collective of StableHLO or jax.lax is an exchange, point to point; a "
                "plan with the strategy 'collectives' has none",
                step=step,
            )
        case _:
            assert_never(step)


def _to_pieces(found: Split) -> Iterator[Operation]:
    """From the tile to `[k, *piece]`."""
    yield from _regroup(
        found.tile_shape, found.digits, found.order, (found.count, *found.piece_shape)
    )


def _to_tile(found: Split, piece: Sequence[int]) -> Iterator[Operation]:
    """From `[k, *piece]` to the tile."""
    inverse = sorted(range(len(found.order)), key=found.order.__getitem__)
    digits = tuple(found.digits[axis] for axis in found.order)
    yield from _regroup((found.count, *piece), digits, tuple(inverse), found.tile_shape)


def _regroup(
    shape: tuple[int, ...], digits: tuple[int, ...], order: tuple[int, ...], result: tuple[int, ...]
) -> Iterator[Operation]:
    """Seen digit by digit, transposed, seen as `result`: as few operations as that takes."""
    # Digits of size 1 and neighbours that stay neighbours need not be told apart.
    runs: list[list[int]] = []
    for axis in order:
        if digits[axis] == 1:
            continue
        skipped = runs and prod(digits[runs[-1][-1] + 1 : axis]) == 1 and runs[-1][-1] < axis
        if skipped:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    first = sorted(range(len(runs)), key=lambda at: runs[at][0])
    if first == list(range(len(runs))):
        if shape != result:
            yield Reshape(result)
        return
    split_shape = tuple(prod(digits[axis] for axis in runs[at]) for at in first)
    moved = tuple(first.index(at) for at in range(len(runs)))
    if split_shape != shape:
        yield Reshape(split_shape)
    yield Transpose(moved)
    if tuple(split_shape[at] for at in moved) != result:
        yield Reshape(result)


def shape_after(operation: Operation, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that an operation makes of an array of this shape."""
    match operation:
        case Reshape(result):
            return result
        case Transpose(order):
            return tuple(shape[axis] for axis in order)
        case Pick() | Scatter():
            return shape[1:]
        case Place(digits) | Gather(digits):
            return (prod(digit.size for digit in digits), *shape)
        case Swap() | Reduce() | KeepFirst() | Send():
            return shape
        case _:
            assert_never(operation)


def with_shapes(
    steps: Sequence[Collective], types: Sequence[ArrayType]
) -> Iterator[
    tuple[Collective, ArrayType, list[tuple[Operation, tuple[int, ...], tuple[int, ...]]]]
]:
    """Per step its type before and its operations, each with the shapes before and after it."""
    for step, (before, after) in zip(steps, pairwise(types), strict=True):
        shape = before.tile_shape
        found = []
        for operation in operations(step, before, after):
            result = shape_after(operation, shape)
            found.append((operation, shape, result))
            shape = result
        assert shape == after.tile_shape
        yield step, before, found
