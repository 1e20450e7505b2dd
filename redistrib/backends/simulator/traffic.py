"""What a plan moves and holds, counted from data that moved.

Every tile holds the id of its device instead of data, so an element that arrives says who sent it.
All elements of such a tile are alike: along its dimensions it has stride 0, and what is counted
grows with the number of devices and senders, not with the array.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.backends.simulator.blocks import count_blocks
from redistrib.backends.simulator.tiles import Array, Tiles, Views
from redistrib.synth.plan.collectives import AllReduce, Exchange
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.tile_program import TileStep, interpret, tile_program


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a plan moves and holds, in bytes per device, counted from the data that moved.

    Per step, received and sent are those of the step's worst device; the totals are their sums.
    Live is the source, the input of a step unless it is the source, and the output of the step.
    """

    received_bytes: int
    sent_bytes: int
    live_bytes: int
    peak_tile_bytes: int
    received_bytes_per_step: tuple[int, ...]
    sent_bytes_per_step: tuple[int, ...]
    live_bytes_per_step: tuple[int, ...]


def measure(plan: Plan) -> Measurement:
    """Bytes that the plan moves and holds, counted on tiles that name the device they are on.

    >>> import redistrib as rd
    >>> mesh = rd.Mesh(x=4)
    >>> src, dst = (rd.ArrayType.parse(text, mesh) for text in ("f32[8{x}]", "f32[8]"))
    >>> m = measure(rd.plan(src, dst))
    >>> m.received_bytes, m.sent_bytes, m.live_bytes, m.peak_tile_bytes
    (24, 24, 40, 32)
    """
    itemsize = plan.src.numpy_dtype.itemsize
    source = held = plan.types[0].tile_size * itemsize
    peak = source
    received: list[int] = []
    sent: list[int] = []
    live: list[int] = []
    for part in tile_program(plan.steps, plan.types):
        if isinstance(part.step, Exchange) and part.step.blocks is not None:
            counts = count_blocks(part.before, part.after)
            produced = part.after.tile_size * itemsize
        else:
            counts, produced = _measured(part, itemsize)
        received.append(counts[0] * itemsize)
        sent.append(counts[1] * itemsize)
        live.append(source + (held if live else 0) + produced)
        held, peak = produced, max(peak, produced)
    return Measurement(
        received_bytes=sum(received),
        sent_bytes=sum(sent),
        live_bytes=max(live, default=source),
        peak_tile_bytes=peak,
        received_bytes_per_step=tuple(received),
        sent_bytes_per_step=tuple(sent),
        live_bytes_per_step=tuple(live),
    )


def _measured(part: TileStep, itemsize: int) -> tuple[tuple[int, int], int]:
    """Elements that the worst device receives and sends in a step, and bytes of the tile made."""
    ids = np.array(part.before.mesh.ids).reshape(-1, *(1 for _ in part.before.shape))
    origins = Tiles.stacked(ids, part.before.mesh, part.before.tile_shape)
    arrived = interpret(part.operations, _Origins(), origins)
    return _traffic(arrived, isinstance(part.step, AllReduce)), prod(arrived.shape) * itemsize


class _Origins(Views):
    """The operations on tiles that hold the id of their device instead of data."""

    def fill(self, tiles: Tiles, reduction: str) -> Array:  # noqa: ARG002
        """What is filled in was never sent: it comes from the device itself."""
        return np.array(tiles.mesh.ids).reshape(-1, *(1 for _ in tiles.dims))

    def combine(self, tiles: Tiles, reduction: str) -> Tiles:  # noqa: ARG002
        """Addends stay apart, to be counted."""
        return tiles


def _traffic(tiles: Tiles, chunked: bool) -> tuple[int, int]:
    """Elements that the worst device receives and sends; the tiles hold the ids they are from.

    `chunked` is an all_reduce: every member of a group reduces one chunk of the tile, then sends it
    to the others. Chunks differ by one element at most.
    """
    size = prod(tiles.shape) * prod(n for n, _ in tiles.addends)
    if not size:
        return 0, 0
    # Along an axis of stride 0 all elements come from one device: one of them stands for all.
    dims = tuple(tuple(axis for axis in axes if axis[1]) for axes in tiles.dims)
    receivers = np.array(tiles.mesh.ids)[:, None]
    origins = replace(tiles, dims=dims).view().reshape(len(receivers), -1)
    weights: NDArray[np.int64] = np.full_like(origins, size // origins.shape[1])
    if chunked:
        tile, group = prod(tiles.shape), origins.shape[1]
        chunk = np.array([tile // group + (c < tile % group) for c in range(group)])
        own_chunk = chunk[np.argmax(origins == receivers, axis=1)]
        weights = np.hstack(
            [np.broadcast_to(part, origins.shape) for part in (own_chunk[:, None], chunk)]
        )
        origins = np.hstack([origins, origins])
    away = origins != receivers
    received = (weights * away).sum(axis=1)
    sent = np.bincount(origins[away], weights[away], minlength=1)
    return int(received.max()), int(sent.max())
