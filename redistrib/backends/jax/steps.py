"""One step of a plan as a function of the tile, with the collectives of jax.lax."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, assert_never

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from redistrib.backends.jax import shardings
from redistrib.backends.jax.choices import MAX_GROUP, Choices, Use, as_bits, from_bits
from redistrib.backends.jax.colouring import padded_shape, rounds
from redistrib.backends.jax.rounds import Window
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
from redistrib.synth.plan.pieces import pieces_of
from redistrib.synth.plan.routing import permute_sources
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.reduction import identity
from redistrib.types.tile import groups, numbers, split

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
        self.step, self.before, self.after, self.axes = step, before, after, axes
        self.choose = choose
        self.mesh = before.mesh
        self.everywhere = shardings.axis_names(self.mesh, axes)

    @property
    def reduces(self) -> bool:
        """Whether elements are computed with, and not only moved."""
        return isinstance(
            self.step, ReduceScatter | AllReduce | ReplicatedToPartial | ShardedToPartial
        )

    def as_exchange(self, alone: bool = False) -> Exchange | None:
        """The step as an exchange to be run in rounds; None where it is a collective of XLA.

        `alone`: no other step of the plan communicates.
        """
        match self.step:
            case Exchange():
                return self.step
            case DynamicSlice():
                return Exchange(self.after.placements)
            case AllGather(placements):
                use = self.choose.all_gather
                splits = [split(self.after, [i for _, i in placements])]
            case AllToAll(moves):
                use = self.choose.all_to_all
                splits = [
                    split(self.before, [move.target for move in moves]),
                    split(self.after, [move.source for move in moves]),
                ]
            case _:
                return None
        group = prod(axis.size for axis in self.step.axes)
        if group > MAX_GROUP:
            return None
        if alone and group == 2:
            use = self.choose.pairs or use
        in_order = all(found.order == tuple(sorted(found.order)) for found in splits)
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
        moved = self._moved(tile)
        if into is None:
            return moved
        target, window = into
        return lax.dynamic_update_slice_in_dim(target, moved, window.start, window.dim)

    def _moved(self, tile: Tile) -> Tile:
        before, after = self.before, self.after
        match self.step:
            case DynamicSlice(placements):
                pieces = split(before, [i for _, i in placements]).pieces(tile)
                return lax.dynamic_index_in_dim(
                    pieces, self._number(self.step.axes), keepdims=False
                )
            case AllGather(placements):
                gathered = lax.all_gather(tile, **self._over(self.step.axes))
                return split(after, [i for _, i in placements]).tile(gathered)
            case AllToAll(moves):
                pieces = split(before, [move.target for move in moves]).pieces(tile)
                arrived = self._all_to_all(pieces, self.step.axes)
                return split(after, [move.source for move in moves]).tile(arrived)
            case CollectivePermute():
                sources = permute_sources(self.mesh, self.step).tolist()
                return self._send(tile, [(source, to) for to, source in enumerate(sources)])
            case ReduceScatter(placements):
                pieces = split(before, [i for _, i in placements]).pieces(tile)
                return self._reduce_scatter(pieces, self.step.axes, before.reduction or "sum")
            case AllReduce(digits):
                return self._all_reduce(tile, digits, before.reduction or "sum")
            case Exchange():
                return self._exchange(tile)
            case ReplicatedToPartial(digits, reduction):
                kept = self._number(digits) == 0
                return jnp.where(kept, tile, _identity(tile, reduction))
            case ShardedToPartial(placements, reduction):
                target = split(after, [i for _, i in placements])
                rest = jnp.broadcast_to(
                    _identity(tile, reduction), (target.count, *target.piece_shape)
                )
                number = self._number(self.step.axes)
                return target.tile(lax.dynamic_update_index_in_dim(rest, tile, number, 0))
            case _:
                assert_never(self.step)

    def _over(self, digits: Sequence[DeviceDigit]) -> dict[str, Any]:
        """The keywords that make a collective run over these digits, its members in their order."""
        names: list[str] = []
        for digit in digits:
            parts = shardings.covering(digit, self.axes)
            if parts is None:
                # Digits cut otherwise than the mesh: name the devices of each group.
                return {
                    "axis_name": self.everywhere,
                    "axis_index_groups": groups(self.mesh, digits).tolist(),
                }
            names += shardings.axis_names(self.mesh, parts)
        return {"axis_name": tuple(names)}

    def _position(self) -> Tile:
        return lax.axis_index(self.everywhere)

    def _number(self, digits: Sequence[DeviceDigit]) -> Tile:
        """The row-major value of these digits on this device."""
        over = self._over(digits)
        if "axis_index_groups" in over:
            return jnp.asarray(numbers(self.mesh, digits), np.int32)[self._position()]
        return lax.axis_index(over["axis_name"])

    def _send(self, tile: Tile, routes: Sequence[tuple[int, int]]) -> Tile:
        """Tiles along (from, to) pairs of positions; where nothing arrives, zeros."""
        # The axes are named in mesh order: ppermute counts positions so, whatever order it is
        # given.
        return lax.ppermute(tile, self.everywhere, list(routes))

    def _all_to_all(self, pieces: Tile, digits: Sequence[DeviceDigit]) -> Tile:
        return lax.all_to_all(pieces, **self._over(digits), **_FRONT)

    def _reduce_scatter(self, pieces: Tile, digits: Sequence[DeviceDigit], reduction: str) -> Tile:
        if reduction == "sum" and pieces.dtype != bool:
            return lax.psum_scatter(pieces, **self._over(digits), scatter_dimension=0)
        arrived = from_bits(self._all_to_all(as_bits(pieces, self.choose), digits), pieces.dtype)
        return _reduce(arrived, reduction)

    def _all_reduce(self, tile: Tile, digits: Sequence[DeviceDigit], reduction: str) -> Tile:
        if reduction in _ALL_REDUCE and tile.dtype != bool:
            return _ALL_REDUCE[reduction](tile, **self._over(digits))
        # Each member reduces one chunk and sends it around: no more bytes than a native reduction.
        group = prod(digit.size for digit in digits)
        chunk = -(-tile.size // group)
        flat = jnp.pad(tile.reshape(-1), (0, group * chunk - tile.size)).reshape(group, chunk)
        own = self._reduce_scatter(flat, digits, reduction)
        whole = lax.all_gather(own, **self._over(digits)).reshape(-1)
        return whole[: tile.size].reshape(tile.shape)

    def _exchange(self, tile: Tile) -> Tile:
        """Rounds of permutes; what a device keeps does not travel."""
        assert isinstance(self.step, Exchange)
        found = pieces_of(self.step, self.before, self.after)
        rank = len(found.block)
        if 0 in found.block:
            return tile.reshape(self.after.tile_shape)
        # Blocks in front and their elements behind, so that blocks are picked by leading indices.
        front = [2 * dim for dim in range(rank)] + [2 * dim + 1 for dim in range(rank)]
        source = tile.reshape(_interleave(found.before, found.block)).transpose(front)
        target = jnp.zeros((*found.after, *found.block), tile.dtype)
        away = [piece for piece in found.pieces if piece.sender != piece.receiver]
        kept = [piece for piece in found.pieces if piece.sender == piece.receiver]
        for pieces in [kept, *rounds(away, found.elements * self.before.itemsize)]:
            if not pieces:
                continue
            shape = padded_shape(pieces)
            sent = source[self._blocks([(p.sender, p.take) for p in pieces], shape, 0)]
            if pieces is not kept:
                routes = [(piece.sender, piece.receiver) for piece in pieces]
                sent = lax.ppermute(sent, self.everywhere, routes)
            # Padding goes out of bounds, where it is dropped.
            nowhere = max(found.after, default=0)
            at = self._blocks([(p.receiver, p.put) for p in pieces], shape, nowhere)
            target = target.at[at].set(sent, mode="drop")
        back = [axis for dim in range(rank) for axis in (dim, rank + dim)]
        return target.transpose(back).reshape(self.after.tile_shape)

    def _blocks(
        self,
        chosen: Sequence[tuple[int, tuple[NDArray[np.intp], ...]]],
        shape: tuple[int, ...],
        padding: int,
    ) -> tuple[Tile, ...]:
        """This device's blocks per dimension, padded to a shape, as an index like numpy.ix_."""
        index = []
        for dim, length in enumerate(shape):
            table = np.full((self.mesh.num_devices, length), padding, np.int32)
            for position, blocks in chosen:
                table[position, : len(blocks[dim])] = blocks[dim]
            expand = tuple(slice(None) if d == dim else None for d in range(len(shape)))
            index.append(jnp.asarray(table)[self._position()][expand])
        return tuple(index)


def gathers_in_turn(step: AllGather, after: ArrayType) -> list[AllGather]:
    """The gather in the order of the tile; as two, if that leaves less to transpose.

    What comes to lie in front of the tile is gathered last, and is in place at once. The bytes are
    the same. On GPU and TPU these are fewer launches than one gather, which would be rounds because
    of its transpose; on CPU it is one launch more, and takes less time.
    """
    order = split(after, [index for _, index in step.placements]).order
    placed = sorted(zip(order, step.placements, strict=False), key=lambda pair: pair[0])
    front = [place for number, (axis, place) in enumerate(placed) if axis == number]
    rest = [place for _, place in placed[len(front) :]]
    return [AllGather(tuple(places)) for places in (rest, front) if places]


_FRONT = {"split_axis": 0, "concat_axis": 0}


def _interleave(outer: Sequence[int], inner: Sequence[int]) -> list[int]:
    return [size for pair in zip(outer, inner, strict=True) for size in pair]


def _identity(tile: Tile, reduction: str) -> Tile:
    return jnp.asarray(identity(np.dtype(tile.dtype), reduction), tile.dtype)


def _reduce(pieces: Tile, reduction: str) -> Tile:
    table = _BOOL_REDUCE if pieces.dtype == bool else _LOCAL_REDUCE
    return table[reduction](pieces, axis=0).astype(pieces.dtype)
