"""Copies of a model plan as one program over all of its devices, sources and targets alike.

A jax program is the same on every device, in any number of processes, so devices that have only
sources or only targets take part in it with tiles that nobody reads. Of w: f32[8, 4{x}] on devices
0 and 1 to f32[8{y}, 4] on devices 1 to 4, on five devices, with `Round`s of

    take    from w, seen as [8, 2], the box [2, 2] that begins at [2 n, 0] for the n-th receiver
    put     into the target, seen as [2, 4], the box [2, 2] that begins at [0, 2 m] of sender m
    routes  first 0 -> 1, 1 -> 2; then 0 -> 2, 1 -> 3; and so on

All pieces of one shape are boxes of one view of a tile, each device's with its own start, which it
looks up in a table by its position. Equal moves share everything: their boxes cross together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from redistrib.backends.jax.choices import Choices, as_bits, from_bits
from redistrib.backends.jax.colouring import edge_colouring, stays
from redistrib.backends.jax.host_copies import Array, transfers_to
from redistrib.backends.jax.rounds import INDEX, after, looked_up, wait
from redistrib.models.moves import ModelMoves, Move
from redistrib.models.tile_views import View
from redistrib.models.transfers import Transfer
from redistrib.synth.plan.pieces import Piece
from redistrib.types.dtypes import numpy_dtype
from redistrib.types.reduction import identity

lax: Any = jax.lax  # typed in parts only
Tile = Any
AXIS = "device"
"""The axis of the mesh of all devices."""
Steps = tuple[tuple[int, int], ...]
"""(count, stride) of the runs of a view on one side."""


@dataclass(frozen=True, slots=True)
class Side:
    """Elements of flat tiles, the same steps from another start on every device.

    `axes` are those of a view of the tile in which the elements are a box, `sizes` its shape, in
    the order of descending strides; without `axes` there is no such view, and elements are picked
    one by one.
    """

    steps: Steps
    axes: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, size: int, steps: Steps, offsets: Iterable[int]) -> Side:
        """The side for tiles of so many elements, where pieces begin at these offsets."""
        strides = [size, *sorted((stride for _, stride in steps), reverse=True), 1]
        nested = all(a % b == 0 for a, b in pairwise(strides))
        axes = tuple(a // b for a, b in pairwise(strides)) if nested else ()
        counts = [count for count, _ in sorted(steps, key=lambda step: -step[1])]
        sizes = (*counts, 1) if nested else ()
        # The last axis is what lies between two elements of the smallest stride.
        side = cls(steps, axes, sizes)
        fits = all(
            start + count <= axis
            for offset in offsets
            for start, count, axis in zip(side.starts(offset), sizes, axes, strict=True)
        )
        return side if fits else replace(side, axes=(), sizes=())

    def starts(self, offset: int) -> tuple[int, ...]:
        """Where a piece begins, by axis."""
        if not self.axes:
            return (offset,)
        return tuple(int(n) for n in np.unravel_index(offset, self.axes))

    @property
    def order(self) -> list[int]:
        """The axes of a box in the order of the steps."""
        return sorted(range(len(self.steps)), key=lambda n: -self.steps[n][1])

    def read(self, tile: Tile, start: list[Any], now: Any) -> Tile:
        """The elements `[*counts of the steps]`, taken no sooner than `now`."""
        counts = [count for count, _ in self.steps]
        if not self.axes:
            return tile[self._places(start[0] + now)]
        wait(start, now, self.sizes, self.axes)
        box = lax.dynamic_slice(tile.reshape(self.axes), start, self.sizes)
        box = box.reshape([counts[n] for n in self.order])
        return box.transpose(np.argsort(self.order).tolist())

    def write(self, tile: Tile, start: list[Any], box: Tile, receives: Any) -> Tile:
        """The flat tile with the elements replaced; left as it is where nothing is received."""
        if not self.axes:
            places = self._places(start[0])
            return tile.at[places].set(jnp.where(receives, box, tile[places]))
        view = tile.reshape(self.axes)
        box = box.transpose(self.order).reshape(self.sizes)
        if receives is not True:
            box = jnp.where(receives, box, lax.dynamic_slice(view, start, self.sizes))
        return lax.dynamic_update_slice(view, box, start).reshape(-1)

    def _places(self, start: Any) -> Any:
        places = start
        for axis, (count, stride) in enumerate(self.steps):
            trailing = [1] * (len(self.steps) - axis - 1)
            places = places + (jnp.arange(count) * stride).reshape(-1, *trailing)
        return places


@dataclass(frozen=True, slots=True)
class Round:
    """Pieces of one shape, of which each device sends at most one and receives at most one.

    `source` is the number of an input; None: the target itself. `counts` is the shape of a piece in
    the target. `table` has per device where its piece is taken from, where the one that it receives
    is put, and whether it receives one.
    """

    source: int | None
    counts: tuple[int, ...]
    take: Side
    put: Side
    transfer: Transfer  # any of them: all have these dtypes
    routes: tuple[tuple[int, int], ...]
    table: NDArray[np.intp]

    def run(
        self, inputs: Sequence[Sequence[Tile]], targets: list[Tile], row: list[Any], now: Any
    ) -> Tile:
        """Replace flat targets, one of each equal move; a piece that has arrived is given back."""
        dtypes = self.transfer.dtypes
        crossing = dtypes.index(self.transfer.wire) + 1
        split = len(self.take.axes) or 1
        boxes = []
        for n, target in enumerate(targets):
            source = target if self.source is None else inputs[n][self.source]
            box = self.take.read(source, row[:split], now)
            for dtype in dtypes[1:crossing]:
                box = box.astype(numpy_dtype(dtype))
            boxes.append(box)
        together = boxes[0] if len(boxes) == 1 else jnp.stack(boxes)
        if not stays(self.routes):
            together = lax.ppermute(together, AXIS, self.routes)
        for n, target in enumerate(targets):
            box = together if len(boxes) == 1 else together[n]
            for dtype in dtypes[crossing:]:
                box = box.astype(numpy_dtype(dtype))
            runs = self.transfer.view.runs
            box = box.reshape([count if stride else 1 for count, _, stride in runs])
            box = jnp.broadcast_to(box, self.counts)
            targets[n] = self.put.write(target, row[split:-1], box, row[-1])
        return together


@dataclass(frozen=True, slots=True)
class UnionProgram:
    """What makes the targets of equal moves, in rounds.

    `fills` are the positions of devices, with what they fill without being sent it.
    """

    size: int  # elements of a target tile
    dtype: Any
    fills: tuple[tuple[int, Transfer], ...]
    rounds: tuple[Round, ...]

    def run(self, inputs: Sequence[Sequence[Tile]], choose: Choices) -> list[Tile]:
        """Flat target tiles of one device, from its flat tiles, of each of equal moves."""
        position = lax.axis_index(AXIS)
        casts = any(len(set(step.transfer.dtypes)) > 1 for step in self.rounds)
        first = jnp.zeros(self.size, self.dtype)
        for place, transfer in self.fills:
            first = jnp.where(position == place, _filled(first, transfer), first)
        if not casts:
            first = as_bits(first, choose)
            inputs = [[as_bits(tile, choose) for tile in tiles] for tiles in inputs]
        targets = [first] * len(inputs)
        now = INDEX(0)
        for step in self.rounds:
            table = step.table
            entry = looked_up(table, position)
            row: list[Any] = [
                entry(n) if np.ptp(column) else INDEX(column[0]) for n, column in enumerate(table.T)
            ]
            row[-1] = True if table[:, -1].all() else entry(table.shape[1] - 1) == 1
            arrived = step.run(inputs, targets, row, now)
            now, targets[0] = after(arrived, targets[0], choose)
        return [from_bits(target, self.dtype) for target in targets]


def union_program(
    plan: ModelMoves, move: Move, inputs: Sequence[Array], devices: Sequence[int], most: int
) -> UnionProgram:
    """The program of a move, or of moves that are equal to it.

    `inputs` are the arrays that it reads. A piece has at most so many bytes, if it can be cut.
    """
    t = plan.dst[move.target]
    size = prod(t.tile_shape)
    place = {device: n for n, device in enumerate(devices)}
    fills: list[tuple[int, Transfer]] = []
    alike: defaultdict[object, list[Transfer]] = defaultdict(list)
    for uncut in transfers_to(plan, move):
        if uncut.sender is None:
            fills.append((place[uncut.receiver], uncut))
            continue
        for transfer in _cut(uncut, most):
            local = transfer.sender == transfer.receiver
            key = transfer.phase, transfer.source, transfer.view.runs, transfer.dtypes, local
            alike[key].append(transfer)
    rounds: list[Round] = []
    for transfers in alike.values():
        first = transfers[0]
        name = first.source
        assert name is not None
        read = Array(name, is_target=first.phase > 0)
        source = None if read == Array(move.target, is_target=True) else list(inputs).index(read)
        read_type = plan.dst[name] if first.phase else plan.source_type(name)
        steps = tuple((count, stride) for count, _, stride in first.view.runs if stride)
        take = Side.of(prod(read_type.tile_shape), steps, {x.view.source_offset for x in transfers})
        steps = tuple((count, stride) for count, stride, _ in first.view.runs)
        put = Side.of(size, steps, {x.view.target_offset for x in transfers})
        counts = tuple(count for count, _, _ in first.view.runs)
        for turn in _turns(transfers):
            table = np.zeros((len(devices), (len(take.axes) or 1) + (len(put.axes) or 1) + 1), int)
            for x in turn:
                assert x.sender is not None
                sender, receiver = place[x.sender], place[x.receiver]
                taken, placed = take.starts(x.view.source_offset), put.starts(x.view.target_offset)
                table[sender, : len(taken)] = taken
                table[receiver, len(taken) :] = (*placed, 1)
            routes = tuple(
                (place[x.sender], place[x.receiver]) for x in turn if x.sender is not None
            )
            rounds.append(Round(source, counts, take, put, first, routes, table))
    return UnionProgram(size, numpy_dtype(t.dtype), tuple(fills), tuple(rounds))


def _turns(transfers: Sequence[Transfer]) -> list[list[Transfer]]:
    """Transfers of one shape in rounds; what a device keeps needs no other device."""
    pieces = [
        Piece(x.sender if x.sender is not None else -1, x.receiver, (np.array([n]),), ())
        for n, x in enumerate(transfers)
    ]
    return [[transfers[piece.take[0][0]] for piece in turn] for turn in edge_colouring(pieces)]


def _cut(transfer: Transfer, most: int) -> list[Transfer]:
    """A transfer in equal parts along its first run, none above so many bytes where that works."""
    runs = transfer.view.runs
    size = transfer.view.distinct * numpy_dtype(transfer.wire).itemsize
    if size <= most or not runs or not runs[0][2]:
        return [transfer]
    (count, target, source), *inner = runs
    parts = next(
        n for n in range(1, count + 1) if count % n == 0 and (size // n <= most or n == count)
    )
    rows = count // parts
    views = (
        View(
            transfer.view.target_offset + n * rows * target,
            transfer.view.source_offset + n * rows * source,
            ((rows, target, source), *inner),
        )
        for n in range(parts)
    )
    return [transfer._replace(view=view) for view in views]


def _filled(tile: Tile, transfer: Transfer) -> Tile:
    """A tile with zeros, or the identity of a reduction, where the transfer writes."""
    view = transfer.view
    steps = tuple((count, stride) for count, stride, _ in view.runs)
    side = Side(steps, (), ())
    value = identity(tile.dtype, transfer.reduction) if transfer.reduction else 0
    box = jnp.full([count for count, _ in steps], value, tile.dtype)
    return side.write(tile, [view.target_offset], box, receives=True)
