"""A plan as a program on one device's tile: of eleven primitive operations, as data.

A collective works on the leading dimension of an array of pieces. Before it, reshapes and a
transposition bring the digits that it moves to the front; after it, others put them where they are
local. Every backend runs this program, and every printer prints it: each supplies the `Primitives`,
and `interpret` walks the operations.

On 2 devices, the rows of a 4 x 6 array become its columns. A tile of 2 x 6 elements is seen as 2
pieces of 2 x 3, one for each device; the pieces that arrive are the upper and the lower half of the
new tile, in order already:

>>> from redistrib.synth.plan.collectives import Move
>>> from redistrib.types.digits import IndexDigit
>>> mesh = Mesh(x=2)
>>> rows, columns = (ArrayType.parse(text, mesh) for text in ("f32[4{x}, 6]", "f32[4, 6{x}]"))
>>> move = Move(DeviceDigit("x", 1, 2), IndexDigit(0, 1, 2), IndexDigit(1, 1, 2))
>>> seen, turned, swapped, whole = operations_of(AllToAll((move,)), rows, columns)
>>> seen, turned, whole
(Reshape(shape=(2, 2, 3)), Transpose(order=(1, 0, 2)), Reshape(shape=(4, 3)))
>>> type(swapped).__name__, swapped.groups.members().tolist()
('Swap', [[0, 1]])
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise, product
from math import prod
from operator import mul
from typing import Protocol, TypeVar, assert_never

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
from redistrib.synth.plan.pieces import Pieces, pieces_of
from redistrib.synth.plan.routing import permute_sources
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Positions, coalesce
from redistrib.types.mesh import Mesh
from redistrib.types.tile import Split, groups, numbers, split

T = TypeVar("T")
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of devices of a mesh that differ in some digits only.

    A device's place in its group is the row-major value of the digits.
    """

    mesh: Mesh
    digits: tuple[DeviceDigit, ...]

    @property
    def size(self) -> int:
        """Devices in a group."""
        return prod(digit.size for digit in self.digits)

    def members(self) -> Positions:
        """The positions of the devices of each group, `[group, place]`."""
        return groups(self.mesh, self.digits)

    def places(self) -> Positions:
        """The place in its group of the device at each position."""
        return numbers(self.mesh, self.digits)


@dataclass(frozen=True, slots=True)
class Reshape:
    """The same elements in row-major order under another shape."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Transpose:
    """Dimension i of the result is dimension `order[i]`."""

    order: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pick:
    """Of `[k, *piece]` the piece whose number is the device's place in its group of k."""

    groups: Groups


@dataclass(frozen=True, slots=True)
class Place:
    """`[*piece]` to `[k, *piece]`: at the device's place in its group; elsewhere the identity."""

    groups: Groups
    reduction: str


@dataclass(frozen=True, slots=True)
class Gather:
    """`[*tile]` to `[k, *tile]`: the tiles of all devices of the group, by place."""

    groups: Groups


@dataclass(frozen=True, slots=True)
class Swap:
    """`[k, *piece]` to `[k, *piece]`: piece i goes to place i of the group."""

    groups: Groups


@dataclass(frozen=True, slots=True)
class Scatter:
    """`[k, *piece]` to `[*piece]`: at place i the reduction of piece i over the group."""

    groups: Groups
    reduction: str


@dataclass(frozen=True, slots=True)
class Reduce:
    """The reduction of the tile over the group, on every device of it."""

    groups: Groups
    reduction: str


@dataclass(frozen=True, slots=True)
class KeepFirst:
    """The tile at place 0 of each group; the identity of the reduction elsewhere."""

    groups: Groups
    reduction: str


@dataclass(frozen=True, slots=True)
class Send:
    """Whole tiles to other devices of the mesh."""

    mesh: Mesh
    step: CollectivePermute

    def sources(self) -> Positions:
        """Per position, the one that it receives its tile from."""
        return permute_sources(self.mesh, self.step)


@dataclass(frozen=True, slots=True)
class Fetch:
    """A tile of `before` to one of `after`: each piece of it from a device that holds it."""

    step: Exchange
    before: ArrayType
    after: ArrayType

    def pieces(self) -> Pieces:
        """Who sends what to whom."""
        return pieces_of(self.step, self.before, self.after)


Operation = (
    Reshape | Transpose | Pick | Place | Gather | Swap | Scatter | Reduce | KeepFirst | Send | Fetch
)


class Primitives(Protocol[T]):
    """What a backend supplies: every operation on a value that stands for tiles.

    For a backend that holds all devices the value is all tiles; inside a program of one device it
    is that device's tile; for a printer it is the name of a variable.
    """

    def reshape(self, tile: T, shape: Shape) -> T:
        """The same elements in row-major order under another shape."""

    def transpose(self, tile: T, order: tuple[int, ...]) -> T:
        """Dimension i of the result is dimension `order[i]`."""

    def pick(self, pieces: T, groups: Groups) -> T:
        """`[k, *piece] -> [*piece]`: the piece whose number is the device's place."""

    def place(self, piece: T, groups: Groups, reduction: str) -> T:
        """`[*piece] -> [k, *piece]`: at the device's place; elsewhere the identity."""

    def gather(self, tile: T, groups: Groups) -> T:
        """`[*tile] -> [k, *tile]`: the tiles of the group, by place."""

    def swap(self, pieces: T, groups: Groups) -> T:
        """`[k, *piece] -> [k, *piece]`: piece i goes to place i."""

    def scatter(self, pieces: T, groups: Groups, reduction: str) -> T:
        """`[k, *piece] -> [*piece]`: at place i the reduction of piece i over the group."""

    def reduce(self, tile: T, groups: Groups, reduction: str) -> T:
        """The reduction over the group, on every device of it."""

    def keep_first(self, tile: T, groups: Groups, reduction: str) -> T:
        """The tile at place 0; the identity elsewhere."""

    def send(self, tile: T, operation: Send) -> T:
        """The tile of another device, `operation.sources()`."""

    def fetch(self, tile: T, operation: Fetch) -> T:
        """A tile of another type, in pieces: `operation.pieces()`."""


def interpret(operations: Iterable[Operation], primitives: Primitives[T], tile: T) -> T:
    """What the operations make of a value, one after the other."""
    for operation in operations:
        match operation:
            case Reshape(shape):
                tile = primitives.reshape(tile, shape)
            case Transpose(order):
                tile = primitives.transpose(tile, order)
            case Pick(groups):
                tile = primitives.pick(tile, groups)
            case Place(groups, reduction):
                tile = primitives.place(tile, groups, reduction)
            case Gather(groups):
                tile = primitives.gather(tile, groups)
            case Swap(groups):
                tile = primitives.swap(tile, groups)
            case Scatter(groups, reduction):
                tile = primitives.scatter(tile, groups, reduction)
            case Reduce(groups, reduction):
                tile = primitives.reduce(tile, groups, reduction)
            case KeepFirst(groups, reduction):
                tile = primitives.keep_first(tile, groups, reduction)
            case Send():
                tile = primitives.send(tile, operation)
            case Fetch():
                tile = primitives.fetch(tile, operation)
            case _:
                assert_never(operation)
    return tile


@dataclass(frozen=True, slots=True)
class TileStep:
    """A step of a plan with the types before and after it, as operations on a tile."""

    step: Collective
    before: ArrayType
    after: ArrayType
    operations: tuple[Operation, ...]


@lru_cache(maxsize=1024)
def tile_program(
    steps: tuple[Collective, ...], types: tuple[ArrayType, ...]
) -> tuple[TileStep, ...]:
    """The program of a plan: of its steps, with the types before, between and after them."""
    return tuple(
        TileStep(step, before, after, tuple(operations_of(step, before, after)))
        for step, (before, after) in zip(steps, pairwise(types), strict=True)
    )


def operations_of(step: Collective, before: ArrayType, after: ArrayType) -> Iterator[Operation]:
    """One step as operations on a tile of `before`, which make one of `after`."""
    # Neighbours that make up a larger part of an axis have the same value together.
    digits = tuple(d for d in coalesce(step.axes) if isinstance(d, DeviceDigit))
    groups = Groups(before.mesh, digits)
    reduction = before.reduction or "sum"
    match step:
        case DynamicSlice(placements):
            yield from _to_pieces(split(before, [index for _, index in placements]))
            yield Pick(groups)
        case AllGather(placements):
            yield Gather(groups)
            yield from _to_tile(split(after, [index for _, index in placements]), before.tile_shape)
        case AllToAll(moves):
            sent = split(before, [move.target for move in moves])
            yield from _to_pieces(sent)
            yield Swap(groups)
            yield from _to_tile(split(after, [move.source for move in moves]), sent.piece_shape)
        case CollectivePermute():
            yield Send(before.mesh, step)
        case ReduceScatter(placements):
            yield from _to_pieces(split(before, [index for _, index in placements]))
            yield Scatter(groups, reduction)
        case AllReduce():
            yield Reduce(groups, reduction)
        case Exchange():
            yield Fetch(step, before, after)
        case ReplicatedToPartial(_, kind):
            yield KeepFirst(groups, kind)
        case ShardedToPartial(placements, kind):
            yield Place(groups, kind)
            yield from _to_tile(split(after, [index for _, index in placements]), before.tile_shape)
        case _:
            assert_never(step)


def _to_pieces(cut: Split) -> Iterator[Operation]:
    """From the tile to `[k, *piece]`."""
    yield from _regroup(cut.tile_shape, cut.digits, cut.order, (cut.count, *cut.piece_shape))


def _to_tile(cut: Split, piece: Sequence[int]) -> Iterator[Operation]:
    """From `[k, *piece]` to the tile."""
    inverse = sorted(range(len(cut.order)), key=cut.order.__getitem__)
    digits = tuple(cut.digits[axis] for axis in cut.order)
    yield from _regroup((cut.count, *piece), digits, tuple(inverse), cut.tile_shape)


def _regroup(
    shape: Shape, digits: tuple[int, ...], order: tuple[int, ...], result: Shape
) -> Iterator[Operation]:
    """Seen digit by digit, transposed, seen as `result`: as few operations as that takes.

    Digits that stay neighbours are one axis of the transposition, unless telling them apart saves a
    reshape: `[2, 3, 4]` with its first dimension last is one transposition to `[3, 4, 2]`.
    """
    starts, ends = (set(accumulate(sizes, mul)) for sizes in (shape, result))
    best: list[Operation] | None = None
    for cuts in product((set(), starts), (set(), ends)):
        operations = _transposed(shape, digits, order, result, *cuts)
        if best is None or len(operations) < len(best):
            best = operations
    yield from best or ()


def _transposed(
    shape: Shape,
    digits: tuple[int, ...],
    order: tuple[int, ...],
    result: Shape,
    starts: set[int],
    ends: set[int],
) -> list[Operation]:
    """A transposition between two reshapes, with an axis for each run of neighbours.

    A run ends where so many elements lie before a digit as `starts` has, or `ends` has of the
    result. Digits of size 1 need not be told apart.
    """
    runs: list[list[int]] = []
    done = 1
    for axis in order:
        if digits[axis] == 1:
            continue
        cut = prod(digits[:axis]) in starts or done in ends
        done *= digits[axis]
        skipped = runs and prod(digits[runs[-1][-1] + 1 : axis]) == 1 and runs[-1][-1] < axis
        if skipped and not cut:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    first = sorted(range(len(runs)), key=lambda run: runs[run][0])
    if first == list(range(len(runs))):
        return [Reshape(result)] if shape != result else []
    split_shape = tuple(prod(digits[axis] for axis in runs[run]) for run in first)
    moved = tuple(first.index(run) for run in range(len(runs)))
    operations: list[Operation] = [Reshape(split_shape)] if split_shape != shape else []
    operations.append(Transpose(moved))
    if tuple(split_shape[axis] for axis in moved) != result:
        operations.append(Reshape(result))
    return operations
