"""A plan as a function of one device's tile, for use inside shard_map: collectives of jax.lax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, assert_never

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from redistrib.backends.boxes import boxes, padded_shape, rounds
from redistrib.backends.delivery import identity
from redistrib.backends.jax import shardings
from redistrib.backends.local import groups, numbers, permute_sources, split
from redistrib.synth.collectives import (
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
from redistrib.synth.plan import Plan
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit

# jax.lax is typed in parts only, and its arrays are traced values here.
lax: Any = jax.lax
Tile = Any
Program = Callable[[Tile], Tile]

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


def tile_program(plan: Plan, axes: Sequence[DeviceDigit] | None = None) -> Program:
    """A device's tile of the plan's source -> its tile of the target, inside shard_map.

    The mesh of that shard_map has the axes of the plan's mesh, in its order; or, with `axes`, the
    digits that these axes are cut into, named as in the text of a type: `x`, `y:(1)2`, `y:(2)2`.
    """
    axes = shardings.whole_axes(plan.src.mesh) if axes is None else tuple(axes)
    steps = [
        _Step(step, before, after, axes).run
        for step, (before, after) in zip(plan.steps, pairwise(plan.types), strict=True)
    ]

    def program(tile: Tile) -> Tile:
        for step in steps:
            tile = step(tile)
        return tile

    return program


class _Step:
    """One step of a plan as a function of the tile, with the collectives of jax.lax."""

    def __init__(
        self, step: Collective, before: ArrayType, after: ArrayType, axes: tuple[DeviceDigit, ...]
    ) -> None:
        self.step, self.before, self.after, self.axes = step, before, after, axes
        self.mesh = before.mesh
        self.everywhere = shardings.axis_names(self.mesh, axes)

    def run(self, tile: Tile) -> Tile:
        before, after = self.before, self.after
        match self.step:
            case DynamicSlice(placements):
                pieces = split(before, [i for _, i in placements]).pieces(tile)
                return lax.dynamic_index_in_dim(
                    pieces, self._number(self.step.axes), keepdims=False
                )
            case AllGather(placements):
                gathered = _opaque(lambda x: lax.all_gather(x, **self._over(self.step.axes)), tile)
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
                return _opaque(self._exchange, tile)
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
        return _opaque(lambda x: lax.ppermute(x, self.everywhere, list(routes)), tile)

    def _all_to_all(self, pieces: Tile, digits: Sequence[DeviceDigit]) -> Tile:
        return _opaque(lambda x: lax.all_to_all(x, **self._over(digits), **_FRONT), pieces)

    def _reduce_scatter(self, pieces: Tile, digits: Sequence[DeviceDigit], reduction: str) -> Tile:
        if reduction == "sum" and pieces.dtype != bool:
            return lax.psum_scatter(pieces, **self._over(digits), scatter_dimension=0)
        return _reduce(self._all_to_all(pieces, digits), reduction)

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
        found = boxes(self.step, self.before, self.after)
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


_FRONT = {"split_axis": 0, "concat_axis": 0}


def _interleave(outer: Sequence[int], inner: Sequence[int]) -> list[int]:
    return [size for pair in zip(outer, inner, strict=True) for size in pair]


def _opaque(move: Program, tile: Tile) -> Tile:
    """Run a program that only moves elements, on bits where XLA would widen them on the way."""
    if tile.dtype.itemsize > 2 or tile.dtype.kind in "iub" or tile.dtype == np.float16:
        return move(tile)
    bits = lax.bitcast_convert_type(tile, f"uint{8 * tile.dtype.itemsize}")
    return lax.bitcast_convert_type(move(bits), tile.dtype)


def _identity(tile: Tile, reduction: str) -> Tile:
    return jnp.asarray(identity(np.dtype(tile.dtype), reduction), tile.dtype)


def _reduce(pieces: Tile, reduction: str) -> Tile:
    table = _BOOL_REDUCE if pieces.dtype == bool else _LOCAL_REDUCE
    return table[reduction](pieces, axis=0).astype(pieces.dtype)
