"""An exchange as rounds of ppermute between boxes of the tiles, in place.

In a round each device takes a box of its source tile (dynamic_slice), sends it, and writes the one
that it receives into its target tile (dynamic_update_slice). Laws: nothing is padded, so the bytes
are those of the exchange; and a round begins when the box of the last one has arrived, so beside
source and target only the boxes of one round are alive, one sent and one received.

On 2 devices, from f32[4{x}, 6] to f32[4, 6{x}], in tiles of [2, 6] and [4, 3] with boxes of [2, 3]:

    round 0   device 0 takes the box at [0, 0] of its tile and puts it at [0, 0] of the target,
              device 1 that at [0, 3] at [2, 0]: each keeps its own, so nothing is sent
    round 1   device 0 sends device 1 its box at [0, 3], which goes to [0, 0] there; device 1 sends
              device 0 that at [0, 0], which goes to [2, 0]

Nothing is transposed. Where a piece is no box of the tiles as they are, because a local digit lies
beside it, it is cut into boxes or the tiles are viewed with an axis per digit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from redistrib.backends.jax.choices import Choices
from redistrib.backends.jax.colouring import edge_colouring, stays
from redistrib.synth.plan.collectives import Exchange
from redistrib.synth.plan.pieces import Piece, Pieces, pieces_of
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import Positions, is_chain

lax: Any = jax.lax  # typed in parts only
Tile = Any
INDEX = np.uint32
"""Of starts: jax sees to numbers below zero, one by one, where there can be any."""
Sizes = tuple[int, ...]
View = tuple[Sizes, ...]
"""Per dimension of a tile the sizes of the axes that it is viewed with, major to minor."""


@dataclass(frozen=True, slots=True)
class Round:
    """Pieces of one shape: each device sends at most one and receives at most one.

    `taken` and `placed` are the shape of the boxes in the two views, in elements; `take` and `put`
    their starts, `[device, axis]`; `routes` are (sender, receiver).
    """

    taken: Sizes
    placed: Sizes
    take: Positions
    put: Positions
    routes: tuple[tuple[int, int], ...]

    @property
    def receivers(self) -> NDArray[np.bool_]:
        """Which devices receive."""
        result = np.zeros(len(self.put), bool)
        result[[receiver for _, receiver in self.routes]] = True
        return result


@dataclass(frozen=True, slots=True)
class Window:
    """A tile as the part of a larger one that begins at `start` along `dim`, which nobody cuts."""

    dim: int
    start: Any


@dataclass(frozen=True, slots=True)
class Rounds:
    """The rounds between two tiles, and the views in which every piece is a box."""

    source: View
    target: View
    rounds: tuple[Round, ...]

    def run(
        self,
        tile: Tile,
        axes: Sequence[str],
        choose: Choices,
        read: Window | None = None,
        into: tuple[Tile, Window] | None = None,
    ) -> Tile:
        """The target tile; in a shard_map over `axes`, all axes of its mesh in order.

        With `read` the source is a part of a larger tile; with `into` the target is, which `empty`
        has made and which is given back.
        """
        source = tile.reshape(_viewed(self.source, tile.shape, read))
        shape = [prod(sizes) for sizes in self.target]
        large = prod(self.rounds[0].placed) * tile.dtype.itemsize >= choose.ordered
        few = large and len(self.rounds) <= choose.selected
        if into is None and few and self.whole_rows() and self.fills():
            return self._selected(source, axes).reshape(shape)
        target, write = into or (self.empty(shape, tile.dtype), None)
        tables = [
            np.concatenate([step.take, step.put, step.receivers[:, None]], 1)
            for step in self.rounds
        ]
        now = INDEX(0)
        for step, entries in zip(self.rounds, _entries(tables, axes), strict=True):
            ends = len(step.taken), len(entries) - 1
            take = _shifted(entries[: ends[0]], self.source, read)
            put = _shifted(entries[ends[0] : ends[1]], self.target, write)
            wait(take, now, step.taken, source.shape)
            wait(put, now, step.placed, target.shape)
            arrived = _moved(source, take, step, axes)
            box = arrived.reshape(step.placed)
            if not step.receivers.all():
                kept = lax.dynamic_slice(target, put, step.placed)
                box = jnp.where(entries[-1] == 1, box, kept)
            if step.placed == target.shape:
                target = box
                continue
            target = lax.dynamic_update_slice(target, box, put)
            now, target = after(arrived, target, choose)
        return target if into else target.reshape(shape)

    def fills(self) -> bool:
        """Whether every device receives in every round, boxes that are a grid of the target."""
        shape, box = self._viewed_target, self.rounds[0].placed
        return prod(shape) == prod(box) * len(self.rounds) and all(
            step.placed == box and step.receivers.all() and not (step.put % box).any()
            for step in self.rounds
        )

    def whole_rows(self) -> bool:
        """Whether no box is cut along the last dimension of several.

        One pass over boxes that are takes longer than to write each (`choices`).
        """
        if len(self.target) <= 1:
            return True
        inner = self.target[-1]
        outer = len(self._viewed_target) - len(inner)
        return all(step.placed[outer:] == inner for step in self.rounds)

    def _selected(self, source: Tile, axes: Sequence[str]) -> Tile:
        """The target where `fills`, as one pass over it that selects each place's box.

        Three boxes of 2 columns, [n, 3, 2] -> [n, 6], on a device that gets the third one first:
        place 2 is the first box, place 0 the second, place 1 the third.
        """
        shape, box = self._viewed_target, self.rounds[0].placed
        grid = [length // part for length, part in zip(shape, box, strict=True)]
        view = [size for sizes in zip(grid, box, strict=True) for size in sizes]
        places = jnp.arange(prod(grid), dtype=INDEX).reshape([n for g in grid for n in (g, 1)])
        tables = [
            np.concatenate([step.take, _place(step.put // box, grid)[:, None]], 1)
            for step in self.rounds
        ]
        target = None
        for step, entries in zip(self.rounds, _entries(tables, axes), strict=True):
            arrived = _moved(source, entries[:-1], step, axes)
            spread = arrived.reshape([n for b in box for n in (1, b)])
            target = (
                jnp.broadcast_to(spread, view)
                if target is None
                else jnp.where(places == entries[-1], spread, target)
            )
        return target

    @property
    def _viewed_target(self) -> Sizes:
        return tuple(size for sizes in self.target for size in sizes)

    def empty(self, shape: Sequence[int], dtype: Any, dim: int | None = None) -> Tile:
        """A target tile of this shape to write into, with the axes of the view.

        Along `dim` it may be larger than the rounds know. A loop carries it so: were it viewed
        inside, XLA would copy it in every turn.
        """
        return jnp.empty(
            _viewed(self.target, shape, None if dim is None else Window(dim, 0)), dtype
        )


def _entries(tables: Sequence[Positions], axes: Sequence[str]) -> Iterator[list[Any]]:
    """For each of some tables, `[device, column]`, the entries of this device."""
    # All that differs between devices is one row of one table: looked up once.
    row = looked_up(np.concatenate(tables, 1), lax.axis_index(axes))
    start = 0
    for table in tables:
        yield [
            row(n) if np.ptp(column) else INDEX(column[0])
            for n, column in enumerate(table.T, start)
        ]
        start += table.shape[1]


def _moved(source: Tile, take: Sequence[Any], step: Round, axes: Sequence[str]) -> Tile:
    """The box that arrives in a round."""
    box = lax.dynamic_slice(source, take, step.taken)
    return box if stays(step.routes) else lax.ppermute(box, axes, step.routes)


def _place(cells: Positions, grid: Sequence[int]) -> Positions:
    """The numbers of cells, `[device, axis]`, of a grid, in its order."""
    places: Positions = np.ravel_multi_index(tuple(cells.T), tuple(grid))
    return places


def looked_up(table: Positions, device: Any) -> Callable[[int], Any]:
    """The entries of a device's row of a table, each as a number."""
    row = lax.dynamic_index_in_dim(jnp.asarray(table, INDEX), device.astype(INDEX), keepdims=False)
    return lambda n: lax.index_in_dim(row, n, keepdims=False)


def after(box: Tile, target: Tile, choose: Choices) -> tuple[Any, Tile]:
    """A zero that is known when a box has arrived, and the target that it was written into.

    Small boxes may be alive together. Without barriers it is computed from the box, so that the
    compiler cannot tell that it is zero. Not from the target: XLA would fuse that with the write,
    write twice, and copy the target first.
    """
    if box.nbytes < choose.ordered:
        return INDEX(0), target
    if choose.barriers:
        now, target = lax.optimization_barrier((INDEX(0), target))
        return now, target
    first = box[(0,) * box.ndim]
    return jnp.where((first == 0) & (first == 1), INDEX(1), INDEX(0)), target


def wait(start: list[Any], now: Any, box: Sizes, shape: Sizes) -> None:
    """Make the start of a box known no sooner than `now`, where the box is not all there is."""
    for axis, (part, length) in enumerate(zip(box, shape, strict=True)):
        if part < length:
            start[axis] = start[axis] + now
            return


def find_rounds(
    exchange: Exchange,
    before: ArrayType,
    after: ArrayType,
    held: ArrayType,
    cuts: int = 1,
    halves: bool = False,
) -> Rounds | None:
    """The rounds of an exchange from tiles of `held`, of which `before` is a slice.

    A piece is cut into at most so many boxes; where that is too few, the tiles get views. With
    `halves` a box that is not a whole target tile is at most half of the larger tile. None where a
    piece is no box there either: between layouts with local factors whose digits do not match; and
    without elements.
    """
    all_pieces = _cut(pieces_of(exchange, before, after, held), cuts)
    if halves:
        all_pieces = _halved(all_pieces)
    if not all_pieces.pieces:
        return None
    types = held, before, after
    source, target = [], []
    for dim in range(len(held.shape)):
        block = all_pieces.block[dim]
        source_view = _view(
            held, types, dim, block, (piece.take[dim] for piece in all_pieces.pieces)
        )
        target_view = _view(
            after, types, dim, block, (piece.put[dim] for piece in all_pieces.pieces)
        )
        if source_view is None or target_view is None:
            return None
        source.append(source_view)
        target.append(target_view)
    alike: defaultdict[tuple[Sizes, Sizes], list[Piece]] = defaultdict(list)
    starts: dict[int, tuple[Sizes, Sizes]] = {}
    for piece in all_pieces.pieces:
        take, taken = _boxes(piece.take, source, all_pieces.block)
        put, placed = _boxes(piece.put, target, all_pieces.block)
        alike[taken, placed].append(piece)
        starts[id(piece)] = take, put
    rounds = []
    for (taken, placed), pieces in sorted(alike.items(), key=lambda item: -prod(item[0][0])):
        for turn in _schedule(pieces, after.mesh.num_devices):
            taking, putting = (
                np.zeros((after.mesh.num_devices, len(sizes)), np.intp) for sizes in (taken, placed)
            )
            for piece in turn:
                taking[piece.sender], putting[piece.receiver] = starts[id(piece)]
            routes = tuple((piece.sender, piece.receiver) for piece in turn)
            rounds.append(Round(taken, placed, taking, putting, routes))
    return Rounds(tuple(source), tuple(target), tuple(rounds))


def _cut(all_pieces: Pieces, cuts: int) -> Pieces:
    """The pieces as boxes of the tiles as they are, if each falls into at most `cuts` of them."""
    pieces: list[Piece] = []
    for piece in all_pieces.pieces:
        runs = [list(_runs(*ends)) for ends in zip(piece.take, piece.put, strict=True)]
        if prod(map(len, runs)) > cuts:
            return all_pieces
        for parts in product(*runs):
            take, put = (tuple(part[end] for part in parts) for end in range(2))
            pieces.append(Piece(piece.sender, piece.receiver, take, put))
    return replace(all_pieces, pieces=tuple(pieces))


def _halved(all_pieces: Pieces) -> Pieces:
    """The pieces in boxes of at most half of the larger tile, where all of them are boxes.

    So are all between types whose digits match, but for those that are a whole tile.
    """
    tile_size = prod(all_pieces.after)
    most = max(prod(all_pieces.before), tile_size) // 2
    pieces: list[Piece] = []
    for piece in all_pieces.pieces:
        ends = list(zip(piece.take, piece.put, strict=True))
        if any(len(list(_runs(*blocks))) > 1 for blocks in ends):
            return all_pieces
        rows = [most * n // prod(piece.shape) for n in piece.shape]
        if prod(piece.shape) <= most or prod(piece.shape) == tile_size or not any(rows):
            pieces.append(piece)
            continue
        dim = next(dim for dim, n in enumerate(rows) if n)
        ends_of_parts = range(rows[dim], piece.shape[dim], rows[dim])
        for part in zip(*(np.split(blocks, ends_of_parts) for blocks in ends[dim]), strict=True):
            cut = [*ends[:dim], part, *ends[dim + 1 :]]
            take, put = (tuple(blocks[end] for blocks in cut) for end in range(2))
            pieces.append(Piece(piece.sender, piece.receiver, take, put))
    return replace(all_pieces, pieces=tuple(pieces))


def _runs(take: Positions, put: Positions) -> Iterator[tuple[Positions, Positions]]:
    """The parts of two sets of blocks that are without gaps in both."""
    gaps = np.flatnonzero((np.diff(take) > 1) | (np.diff(put) > 1)) + 1
    return zip(np.split(take, gaps), np.split(put, gaps), strict=True)


def _schedule(pieces: Sequence[Piece], devices: int) -> list[list[Piece]]:
    """Rounds of pieces of one shape; what a device keeps is a round of its own if that is free."""
    kept = [piece for piece in pieces if piece.sender == piece.receiver]
    away = [piece for piece in pieces if piece.sender != piece.receiver]
    kept_rounds, apart = edge_colouring(kept), edge_colouring(away)
    if all(len(round_of) == devices for round_of in kept_rounds):
        return [*kept_rounds, *apart]
    # Devices that keep a piece send it to themselves while the others are busy, if that takes no
    # more rounds: then every device receives in every round.
    together = edge_colouring([*kept, *away])
    return together if len(together) == len(apart) else [*kept_rounds, *apart]


def _view(
    t: ArrayType, types: Iterable[ArrayType], dim: int, block: int, places: Iterable[Positions]
) -> Sizes | None:
    """The fewest axes of a dimension of a tile of `t` that make all these sets of blocks boxes."""
    sets = list({p.tobytes(): p for p in places}.values())
    owned = [index for _, index in t.placements if index.dim == dim]
    n = t.shape[dim] // block
    cuts = {1, n, *(cut for index in owned for cut in (index.pre, index.end))}
    for other in types:
        for _, index in other.placements:
            for cut in (index.pre, index.end):
                if index.dim == dim and is_chain(sorted({*cuts, cut})):
                    cuts.add(cut)
    digits = tuple(
        high // low
        for low, high in pairwise(sorted(cuts))
        if not any(index.pre <= low and high <= index.end for index in owned)
    )
    for sizes in ((prod(digits),), digits):
        if all(_box(blocks, sizes) for blocks in sets):
            return (*sizes[:-1], sizes[-1] * block)
    return None


def _box(places: Positions, sizes: Sizes) -> tuple[Sizes, Sizes] | None:
    """Start and shape of the box that these positions of a view are; None if they are none."""
    digits = np.unravel_index(places, sizes)
    start = tuple(int(digit.min()) for digit in digits)
    shape = tuple(int(digit.max()) + 1 - low for digit, low in zip(digits, start, strict=True))
    return (start, shape) if prod(shape) == len(places) else None


def _boxes(
    places: Sequence[Positions], view: Sequence[Sizes], block: Sequence[int]
) -> tuple[Sizes, Sizes]:
    """Start and shape over all dimensions, in elements."""
    starts: list[int] = []
    shapes: list[int] = []
    for blocks, sizes, size in zip(places, view, block, strict=True):
        box = _box(blocks, (*sizes[:-1], sizes[-1] // size))
        assert box is not None  # the view was chosen so
        start, shape = box
        starts += [*start[:-1], start[-1] * size]
        shapes += [*shape[:-1], shape[-1] * size]
    return tuple(starts), tuple(shapes)


def _viewed(view: View, shape: Sequence[int], window: Window | None) -> list[int]:
    """The axes of a tile of this shape; along a window's dimension it may be larger than viewed."""
    return [
        size
        for dim, sizes in enumerate(view)
        for size in ((shape[dim],) if window and dim == window.dim else sizes)
    ]


def _shifted(start: list[Any], view: View, window: Window | None) -> list[Any]:
    """A start in a view of the larger tile."""
    if window is not None:
        start[sum(len(sizes) for sizes in view[: window.dim])] = window.start
    return start
