"""A plan as a function of one device's tile, for use inside shard_map: collectives of jax.lax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from math import prod
from typing import Any, Protocol, assert_never

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from redistrib.backends.boxes import boxes, padded_shape, rounds
from redistrib.backends.delivery import identity
from redistrib.backends.jax import shardings
from redistrib.backends.jax.choices import Choices, Use, choices
from redistrib.backends.jax.rounds import Rounds, Window, as_bits, find_rounds, from_bits
from redistrib.backends.local import groups, numbers, permute_sources, split
from redistrib.errors import BackendError
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


def tile_program(
    plan: Plan, axes: Sequence[DeviceDigit] | None = None, platform: str | None = None
) -> Program:
    """A device's tile of the plan's source -> its tile of the target, inside shard_map.

    The mesh of that shard_map has the axes of the plan's mesh, in its order; or, with `axes`, the
    digits that these axes are cut into, named as in the text of a type: `x`, `y:(1)2`, `y:(2)2`.
    `platform` is the one that it will run on, by default that of this process.
    """
    stages = _stages(plan, axes, choices(platform))

    def program(tile: Tile) -> Tile:
        for stage in stages:
            tile = stage.run(tile)
        return tile

    return program


def chunk_dim(plan: Plan, chunks: int) -> int | None:
    """The dimension along which a plan can run in so many chunks; None if there is none.

    It is the one with the largest tile among those that the plan does not touch: what is owned in
    it is the same in all types of the plan.
    """
    fit = [
        dim
        for dim, n in enumerate(plan.src.tile_shape)
        if n and n % chunks == 0 and len({t.dims[dim] for t in plan.types}) == 1
    ]
    return max(fit, key=lambda dim: plan.src.tile_shape[dim], default=None)


def chunked_program(
    plan: Plan,
    axes: Sequence[DeviceDigit] | None = None,
    chunks: int = 8,
    platform: str | None = None,
) -> Program:
    """As `tile_program`, in chunks one after the other along `chunk_dim(plan, chunks)`.

    The same bytes move; beside source and target, what is alive is that of one chunk. Raises
    BackendError if the plan touches every dimension that falls into so many chunks.
    """
    dim = chunk_dim(plan, chunks)
    if dim is None:
        raise BackendError(
            f"chunks are taken along a dimension that the plan does not touch and whose tile "
            f"falls into {chunks}; got {plan.src} -> {plan.dst}",
            chunks=chunks,
        )
    types = [_chunk(t, dim, chunks) for t in plan.types]
    part = replace(plan, src=types[0], dst=types[-1], types=tuple(types))
    stages = _stages(part, axes, choices(platform).in_rounds())
    if not stages:
        return lambda tile: tile
    size = types[0].tile_shape[dim]

    def program(tile: Tile) -> Tile:
        def chunk(at: Tile, target: Tile) -> Tile:
            window = Window(dim, at * size)
            moved = tile
            for number, stage in enumerate(stages):
                moved = stage.run(
                    moved,
                    read=window if number == 0 else None,
                    into=(target, window) if number == len(stages) - 1 else None,
                )
            return moved

        target = stages[-1].empty(plan.dst.tile_shape, tile.dtype, dim)
        whole = lax.fori_loop(np.int32(0), np.int32(chunks), chunk, target)
        return whole.reshape(plan.dst.tile_shape)

    return program


def _chunk(t: ArrayType, dim: int, chunks: int) -> ArrayType:
    shape = [n // chunks if d == dim else n for d, n in enumerate(t.shape)]
    return ArrayType(t.mesh, t.dtype, shape, t.dims, t.partial, t.reduction)


class _Stage(Protocol):
    """A part of a program: the tile before it -> the tile after it.

    With `read` the tile is a part of the one given, with `into` the result is put into a larger
    one, which is given back. That one is made by `empty`, for a window along `dim`.
    """

    def empty(self, shape: Sequence[int], dtype: Any, dim: int) -> Tile: ...

    def run(
        self, tile: Tile, *, read: Window | None = None, into: tuple[Tile, Window] | None = None
    ) -> Tile: ...


def _stages(plan: Plan, axes: Sequence[DeviceDigit] | None, choose: Choices) -> list[_Stage]:
    """The steps of a plan; slices are taken together with the rounds that follow them."""
    axes = shardings.whole_axes(plan.src.mesh) if axes is None else tuple(axes)
    names = shardings.axis_names(plan.src.mesh, axes)
    steps = [
        _Step(step, before, after, axes)
        for step, (before, after) in zip(plan.steps, pairwise(plan.types), strict=True)
    ]
    stages: list[_Stage] = []
    slices: list[_Step] = []
    for step, following in zip_longest(steps, steps[1:]):
        slicing = isinstance(step.step, DynamicSlice)
        if slicing and following and following.as_exchange(choose):
            slices.append(step)
            continue
        held = slices[0].before if slices else step.before
        exchange = step.as_exchange(choose)
        rounds = exchange and find_rounds(exchange, step.before, step.after, held)
        if rounds:
            stages.append(_InRounds(rounds, names, choose.barriers))
        else:
            stages += [*slices, step]
        slices = []
    return stages


@dataclass(frozen=True, slots=True)
class _InRounds:
    """A step, with the slices before it, as rounds of permutes."""

    rounds: Rounds
    names: tuple[str, ...]
    barriers: bool

    def empty(self, shape: Sequence[int], dtype: Any, dim: int) -> Tile:
        return self.rounds.empty(shape, dtype, dim)

    def run(
        self, tile: Tile, *, read: Window | None = None, into: tuple[Tile, Window] | None = None
    ) -> Tile:
        return self.rounds.run(tile, self.names, self.barriers, read, into)


class _Step:
    """One step of a plan as a function of the tile, with the collectives of jax.lax."""

    def __init__(
        self, step: Collective, before: ArrayType, after: ArrayType, axes: tuple[DeviceDigit, ...]
    ) -> None:
        self.step, self.before, self.after, self.axes = step, before, after, axes
        self.mesh = before.mesh
        self.everywhere = shardings.axis_names(self.mesh, axes)

    def as_exchange(self, choose: Choices) -> Exchange | None:
        """The step as an exchange to be run in rounds; None where it is a collective of XLA."""
        match self.step:
            case Exchange():
                return self.step
            case DynamicSlice():
                return Exchange(self.after.placements)
            case AllGather(placements):
                use = choose.all_gather
                splits = [split(self.after, [i for _, i in placements])]
            case AllToAll(moves):
                use = choose.all_to_all
                splits = [
                    split(self.before, [move.target for move in moves]),
                    split(self.after, [move.source for move in moves]),
                ]
            case _:
                return None
        in_order = all(found.order == tuple(sorted(found.order)) for found in splits)
        native = use is Use.ALWAYS or (use is Use.WITHOUT_TRANSPOSE and in_order)
        # Every element comes from its owner in the group, as in an exchange that names no replicas.
        return None if native else Exchange(self.after.placements)

    def empty(self, shape: Sequence[int], dtype: Any, dim: int) -> Tile:  # noqa: ARG002 - a _Stage
        return jnp.empty(shape, dtype)

    def run(
        self, tile: Tile, *, read: Window | None = None, into: tuple[Tile, Window] | None = None
    ) -> Tile:
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
    return from_bits(move(as_bits(tile)), tile.dtype)


def _identity(tile: Tile, reduction: str) -> Tile:
    return jnp.asarray(identity(np.dtype(tile.dtype), reduction), tile.dtype)


def _reduce(pieces: Tile, reduction: str) -> Tile:
    table = _BOOL_REDUCE if pieces.dtype == bool else _LOCAL_REDUCE
    return table[reduction](pieces, axis=0).astype(pieces.dtype)
