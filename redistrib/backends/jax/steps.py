"""The primitive operations with the collectives of jax.lax, and a step of a plan run with them.

The all_to_all from f32[4{x}, 6] to f32[4, 6{x}] on 2 devices is, on the tile of one of them, a
reshape to [2, 2, 3], a transpose that brings the digit of columns to the front,
`jax.lax.all_to_all` over x, and a reshape to [4, 3]. Where `choices` says so, it is rounds of
permutes instead (`rounds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from redistrib.backends.jax import shardings
from redistrib.backends.jax.blocks import cut, join
from redistrib.backends.jax.choices import MAX_GROUP, Choices, Use, as_bits, from_bits
from redistrib.backends.jax.colouring import rounds
from redistrib.backends.jax.rounds import Window
from redistrib.synth.plan.collectives import (
    AllGather,
    AllToAll,
    Collective,
    DynamicSlice,
    Exchange,
)
from redistrib.synth.plan.tile_program import (
    Fetch,
    Groups,
    KeepFirst,
    Place,
    Reduce,
    Scatter,
    Send,
    Shape,
    Transpose,
    interpret,
    operations_of,
)
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import Mesh
from redistrib.types.reduction import identity
from redistrib.types.tile import split

# jax.lax is typed in parts only, and its arrays are traced values here.
lax: Any = jax.lax
Tile = Any

_LOCAL_REDUCE: dict[str, Any] = {
    "sum": jnp.sum,
    "prod": jnp.prod,
    "max": jnp.max,
    "min": jnp.min,
}
# On bool, jax has no sum or product; they are "or" and "and" of numpy.
_BOOL_REDUCE: dict[str, Any] = {
    "sum": jnp.any,
    "max": jnp.any,
    "prod": jnp.all,
    "min": jnp.all,
}
_ALL_REDUCE: dict[str, Any] = {"sum": lax.psum, "max": lax.pmax, "min": lax.pmin}


class LaxPrimitives:
    """The operations on one device's tile, in a shard_map over `axes`, digits of the mesh."""

    def __init__(self, mesh: Mesh, axes: tuple[DeviceDigit, ...], choose: Choices) -> None:
        self.axes, self.choose = axes, choose
        self.everywhere = shardings.axis_names(mesh, axes)

    def reshape(self, tile: Tile, shape: Shape) -> Tile:
        """A reshape: no copy, where memory is row-major."""
        return tile.reshape(shape)

    def transpose(self, tile: Tile, order: tuple[int, ...]) -> Tile:
        """A transpose, which the compiler may merge with what is beside it."""
        return tile.transpose(order)

    def pick(self, pieces: Tile, groups: Groups) -> Tile:
        """A dynamic slice."""
        return lax.dynamic_index_in_dim(pieces, self._place(groups), keepdims=False)

    def place(self, piece: Tile, groups: Groups, reduction: str) -> Tile:
        """A dynamic update of an array that holds the identity."""
        identity = jnp.broadcast_to(_identity(piece, reduction), (groups.size, *piece.shape))
        return lax.dynamic_update_index_in_dim(identity, piece, self._place(groups), 0)

    def gather(self, tile: Tile, groups: Groups) -> Tile:
        """An all_gather along a new leading dimension."""
        return lax.all_gather(tile, **self._over(groups))

    def swap(self, pieces: Tile, groups: Groups) -> Tile:
        """An all_to_all of the leading dimension."""
        return lax.all_to_all(pieces, **self._over(groups), split_axis=0, concat_axis=0)

    def scatter(self, pieces: Tile, groups: Groups, reduction: str) -> Tile:
        """A psum_scatter; what jax has none for is swapped and then reduced."""
        if reduction == "sum" and pieces.dtype != bool:
            return lax.psum_scatter(pieces, **self._over(groups), scatter_dimension=0)
        arrived = from_bits(self.swap(as_bits(pieces, self.choose), groups), pieces.dtype)
        return _reduce(arrived, reduction)

    def reduce(self, tile: Tile, groups: Groups, reduction: str) -> Tile:
        """A psum, pmax or pmin; what jax has none for is scattered and then gathered."""
        if reduction in _ALL_REDUCE and tile.dtype != bool:
            return _ALL_REDUCE[reduction](tile, **self._over(groups))
        # Each member reduces one chunk and sends it around: no more bytes than a native reduction.
        chunk = -(-tile.size // groups.size)
        padding = groups.size * chunk - tile.size
        flat = jnp.pad(tile.reshape(-1), (0, padding)).reshape(groups.size, chunk)
        reduced = self.gather(self.scatter(flat, groups, reduction), groups).reshape(-1)
        return reduced[: tile.size].reshape(tile.shape)

    def keep_first(self, tile: Tile, groups: Groups, reduction: str) -> Tile:
        """A choice between the tile and the identity."""
        return jnp.where(self._place(groups) == 0, tile, _identity(tile, reduction))

    def send(self, tile: Tile, operation: Send) -> Tile:
        """A ppermute."""
        sources = operation.sources().tolist()
        return self._permuted(tile, [(source, to) for to, source in enumerate(sources)])

    def fetch(self, tile: Tile, operation: Fetch) -> Tile:
        """Rounds of ppermutes of padded pieces; what a device keeps does not travel."""
        pieces = operation.pieces()
        if 0 in pieces.block:
            return tile.reshape(operation.after.tile_shape)
        away = [piece for piece in pieces.pieces if piece.sender != piece.receiver]
        kept = [piece for piece in pieces.pieces if piece.sender == piece.receiver]
        turns = rounds(away, pieces.block_size * operation.before.itemsize)
        devices, position = operation.after.mesh.num_devices, lax.axis_index(self.everywhere)
        local = [kept] if kept else []
        arrived = cut(pieces, [*local, *turns], devices, position, tile)
        for number, turn in enumerate(turns, len(local)):
            routes = [(piece.sender, piece.receiver) for piece in turn]
            arrived[number] = self._permuted(arrived[number], routes)
        return join(pieces, [*local, *turns], devices, position, arrived)

    def _over(self, groups: Groups) -> dict[str, Any]:
        """The keywords that make a collective run over these groups, by place."""
        names: list[str] = []
        for digit in groups.digits:
            parts = shardings.covering(digit, self.axes)
            if parts is None:
                # Digits cut otherwise than the mesh: name the devices of each group.
                return {
                    "axis_name": self.everywhere,
                    "axis_index_groups": groups.members().tolist(),
                }
            names += shardings.axis_names(groups.mesh, parts)
        return {"axis_name": tuple(names)}

    def _place(self, groups: Groups) -> Tile:
        """This device's place in its group."""
        over = self._over(groups)
        if "axis_index_groups" in over:
            table = jnp.asarray(groups.places(), np.int32)
            return table[lax.axis_index(self.everywhere)]
        return lax.axis_index(over["axis_name"])

    def _permuted(self, tile: Tile, routes: Sequence[tuple[int, int]]) -> Tile:
        """Tiles along (from, to) pairs of positions; where nothing arrives, zeros."""
        # The axes are named in mesh order: ppermute counts positions so, whatever order it is
        # given.
        return lax.ppermute(tile, self.everywhere, list(routes))


class Step:
    """One step of a plan as a function of the tile, with the collectives of jax.lax."""

    def __init__(
        self,
        step: Collective,
        before: ArrayType,
        after: ArrayType,
        axes: tuple[DeviceDigit, ...],
        choose: Choices,
    ) -> None:
        self.step, self.before, self.after, self.choose = step, before, after, choose
        self.operations = tuple(operations_of(step, before, after))
        self.primitives = LaxPrimitives(before.mesh, axes, choose)

    @property
    def reduces(self) -> bool:
        """Whether elements are computed with, and not only moved."""
        return any(isinstance(op, Scatter | Reduce | KeepFirst | Place) for op in self.operations)

    def as_exchange(self, alone: bool = False) -> Exchange | None:
        """The step as an exchange to be run in rounds; None where it is a collective of XLA.

        `alone`: no other step of the plan communicates.
        """
        match self.step:
            case Exchange():
                return self.step
            case DynamicSlice():
                return Exchange(self.after.placements)
            case AllGather():
                use = self.choose.all_gather
            case AllToAll():
                use = self.choose.all_to_all
            case _:
                return None
        group = prod(axis.size for axis in self.step.axes)
        if group > MAX_GROUP:
            return None
        if alone and group == 2:
            use = self.choose.pairs or use
        in_order = not any(isinstance(operation, Transpose) for operation in self.operations)
        native = use is Use.ALWAYS or (use is Use.WITHOUT_TRANSPOSE and in_order)
        # Every element comes from its owner in the group, as in an exchange that names no replicas.
        return None if native else Exchange(self.after.placements)

    def empty(self, shape: Sequence[int], dtype: Any, dim: int) -> Tile:  # noqa: ARG002 - a stage
        """A target tile to write into, for a window along any dimension."""
        return jnp.empty(shape, dtype)

    def run(
        self, tile: Tile, *, read: Window | None = None, into: tuple[Tile, Window] | None = None
    ) -> Tile:
        """The tile after the step; with `read` and `into` as for any stage of a program."""
        if read is not None:
            size = self.before.tile_shape[read.dim]
            tile = lax.dynamic_slice_in_dim(tile, read.start, size, read.dim)
        moved = interpret(self.operations, self.primitives, tile)
        if into is None:
            return moved
        target, window = into
        return lax.dynamic_update_slice_in_dim(target, moved, window.start, window.dim)


def gathers_in_turn(step: AllGather, after: ArrayType) -> list[AllGather]:
    """The gather in the order of the tile; as two, if that leaves less to transpose.

    What comes to lie in front of the tile is gathered last, and is in place at once. The bytes are
    the same. On GPU and TPU these are fewer launches than one gather, which would be rounds because
    of its transpose; on CPU it is one launch more, and takes less time.
    """
    order = split(after, [index for _, index in step.placements]).order
    placed = sorted(zip(order, step.placements, strict=False), key=lambda pair: pair[0])
    front = [place for number, (axis, place) in enumerate(placed) if axis == number]
    others = [place for _, place in placed[len(front) :]]
    return [AllGather(tuple(places)) for places in (others, front) if places]


def _identity(tile: Tile, reduction: str) -> Tile:
    return jnp.asarray(identity(np.dtype(tile.dtype), reduction), tile.dtype)


def _reduce(pieces: Tile, reduction: str) -> Tile:
    table = _BOOL_REDUCE if pieces.dtype == bool else _LOCAL_REDUCE
    return table[reduction](pieces, axis=0).astype(pieces.dtype)
