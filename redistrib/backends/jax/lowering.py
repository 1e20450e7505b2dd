"""A plan as a function of one device's tile, for use inside shard_map: collectives of jax.lax.

With a plan from f32[8{x}, 8] to f32[8, 8{x}] on x=4, and a jax mesh of that axis,

    columns = jax.shard_map(
        tile_program(plan), mesh=mesh, in_specs=P("x"), out_specs=P(None, "x"), check_vma=False
    )(rows)

takes a tile [2, 8] on each device and makes one of [8, 2]. A plan is cut into stages: a step that
is a collective of XLA is one, and so is a run of steps that go in rounds of permutes (`choices`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from redistrib.backends.jax import shardings
from redistrib.backends.jax.choices import Choices, as_bits, choices, from_bits
from redistrib.backends.jax.rounds import INDEX, Rounds, Window, find_rounds
from redistrib.backends.jax.steps import Step, gathers_in_turn
from redistrib.errors import BackendError
from redistrib.synth.plan.collectives import AllGather, Collective, DynamicSlice
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit

# jax.lax is typed in parts only, and its arrays are traced values here.
lax: Any = jax.lax
Tile = Any
Program = Callable[[Tile], Tile]


def tile_program(
    plan: Plan,
    axes: Sequence[DeviceDigit] | None = None,
    platform: str | None = None,
    *,
    in_rounds: bool = False,
) -> Program:
    """A device's tile of the plan's source -> its tile of the target, inside shard_map.

    The mesh of that shard_map has the axes of the plan's mesh, in its order; or, with `axes`, the
    digits that these axes are cut into, named as in the text of a type: `x`, `y:(1)2`, `y:(2)2`.
    `platform` is the one that it will run on, by default that of this process. `in_rounds` takes
    the least memory beside the tiles: what gathers and exchanges goes in rounds of permutes.
    """
    choose = choices(platform).in_rounds() if in_rounds else choices(platform)
    stages = _stages(plan, axes, choose)

    def program(tile: Tile) -> Tile:
        dtype = tile.dtype
        for number, stage in enumerate(stages):
            if number and choose.barriers and isinstance(stage, _InRounds):
                # Else XLA may compute a part of the last stage twice, and keep its input for that.
                # Another stage reads all of it once: two transposes become one.
                tile = lax.optimization_barrier(tile)
            tile = stage.run(_prepared(tile, stage, dtype, choose))
        return from_bits(tile, dtype)

    return program


def chunk_dim(plan: Plan, chunks: int) -> int | None:
    """The dimension along which a plan can run in so many chunks; None if there is none.

    It is the first of those that the plan does not touch: what is owned in it is the same in all
    types of the plan. The nearer to the front, the longer the runs of elements that a chunk is.
    The memory of a TPU is tiled by the last two, and parts that cut these tiles are copies.
    """
    fit = [
        dim
        for dim, n in enumerate(plan.src.tile_shape)
        if n and n % chunks == 0 and len({t.dims[dim] for t in plan.types}) == 1
    ]
    return min(fit, default=None)


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
    choose = choices(platform).in_rounds()
    stages = _stages(part, axes, choose)
    if not stages:
        return lambda tile: tile
    size = types[0].tile_shape[dim]
    apart = any(t.tile_shape[-1] % choose.lanes for t in (types[0], types[-1]))

    def program(tile: Tile) -> Tile:
        dtype = tile.dtype
        source = _prepared(tile, stages[0], dtype, choose)

        def chunk(index: Tile, target: Tile) -> Tile:
            window = Window(dim, (index * size).astype(INDEX))
            read, into = (None, None) if apart else (window, (target, window))
            moved = _taken(source, window, size) if apart else source
            for number, stage in enumerate(stages):
                moved = stage.run(
                    _prepared(moved, stage, dtype, choose),
                    read=read if number == 0 else None,
                    into=into if number == len(stages) - 1 else None,
                )
            return _put(target, moved, window) if apart else moved

        kind = _prepared(tile, stages[-1], dtype, choose).dtype
        shape = plan.dst.tile_shape
        target = jnp.empty(shape, kind) if apart else stages[-1].empty(shape, kind, dim)
        result = lax.fori_loop(0, chunks, chunk, target)
        return from_bits(result.reshape(shape), dtype)

    return program


def stacked_program(
    program: Program, plan: Plan, platform: str | None = None
) -> Callable[[Sequence[Tile]], list[Tile]]:
    """The program of a plan of stacked arrays as one of the arrays' tiles.

    What only moves is stacked as bits: else XLA widens small floats there, which changes a NaN.
    """
    choose = choices(platform)

    def of_tiles(tiles: Sequence[Tile]) -> list[Tile]:
        if plan.src.partial:
            return list(program(jnp.stack(tiles)))
        moved = program(jnp.stack([as_bits(tile, choose) for tile in tiles]))
        return [from_bits(tile, tiles[0].dtype) for tile in moved]

    return of_tiles


def _prepared(tile: Tile, stage: _Stage, dtype: Any, choose: Choices) -> Tile:
    """The tile as a stage takes it: as floats to compute with, else as what moves unchanged."""
    return from_bits(tile, dtype) if stage.reduces else as_bits(tile, choose)


def _taken(tile: Tile, window: Window, size: int) -> Tile:
    """A copy of a window of so many elements."""
    part = lax.dynamic_slice_in_dim(tile, window.start, size, window.dim)
    return lax.optimization_barrier(_row_major(part))


def _put(tile: Tile, part: Tile, window: Window) -> Tile:
    """The tile with a window of it replaced."""
    part = _row_major(part)
    return _row_major(lax.dynamic_update_slice_in_dim(tile, part, window.start, window.dim))


def _row_major(tile: Tile) -> Tile:
    """The tile, in memory in the order of its dimensions."""
    return with_layout_constraint(tile, Layout(tuple(range(tile.ndim))))


def _chunk(t: ArrayType, dim: int, chunks: int) -> ArrayType:
    shape = [n // chunks if d == dim else n for d, n in enumerate(t.shape)]
    return ArrayType(t.mesh, t.dtype, shape, t.dims, t.partial, t.reduction)


class _Stage(Protocol):
    """A part of a program: the tile before it -> the tile after it.

    With `read` the tile is a part of the one given, with `into` the result is put into a larger
    one, which is given back. `empty` makes that one, for a window along `dim`, as it is carried.
    """

    @property
    def reduces(self) -> bool: ...

    def empty(self, shape: Sequence[int], dtype: Any, dim: int) -> Tile: ...

    def run(
        self, tile: Tile, *, read: Window | None = None, into: tuple[Tile, Window] | None = None
    ) -> Tile: ...


def _parts(
    step: Collective, before: ArrayType, after: ArrayType
) -> Iterator[tuple[Collective, ArrayType, ArrayType]]:
    """The collectives that a step is run as, with the types before and after each."""
    if not isinstance(step, AllGather):
        yield step, before, after
        return
    for part in gathers_in_turn(step, after):
        reached = part.apply(before)
        yield part, before, reached
        before = reached


def _stages(plan: Plan, axes: Sequence[DeviceDigit] | None, choose: Choices) -> list[_Stage]:
    """The steps of a plan; slices are taken together with the rounds that follow them."""
    axes = shardings.named_axes(plan.src.mesh) if axes is None else tuple(axes)
    names = shardings.axis_names(plan.src.mesh, axes)
    steps = [
        Step(part, start, end, axes, choose)
        for step, (before, after) in zip(plan.steps, pairwise(plan.types), strict=True)
        for part, start, end in _parts(step, before, after)
    ]
    alone = plan.num_collectives == 1
    stages: list[_Stage] = []
    slices: list[Step] = []
    for step, following in zip_longest(steps, steps[1:]):
        slicing = isinstance(step.step, DynamicSlice)
        if slicing and following and following.as_exchange(alone):
            slices.append(step)
            continue
        held = slices[0].before if slices else step.before
        exchange = step.as_exchange(alone)
        rounds = exchange and find_rounds(
            exchange, step.before, step.after, held, choose.cuts, choose.halves
        )
        if rounds:
            stages.append(_InRounds(rounds, names, choose))
        else:
            stages += [*slices, step]
        slices = []
    return stages


@dataclass(frozen=True, slots=True)
class _InRounds:
    """A step, with the slices before it, as rounds of permutes."""

    rounds: Rounds
    names: tuple[str, ...]
    choose: Choices

    @property
    def reduces(self) -> bool:
        return False

    def empty(self, shape: Sequence[int], dtype: Any, dim: int) -> Tile:
        return self.rounds.empty(shape, dtype, dim)

    def run(
        self, tile: Tile, *, read: Window | None = None, into: tuple[Tile, Window] | None = None
    ) -> Tile:
        return self.rounds.run(tile, self.names, self.choose, read, into)
