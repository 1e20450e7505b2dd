"""What the exchanges of many pairs carry: `exchange_traffic` at once, without who serves whom.

Law: a device receives its target tile less what it holds of it, and has a peer for each source tile
that meets its target tile, its own included. Both counts are products over dimensions, so two
tables per dimension, over the ways to own it, answer for all pairs; digits need not match.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.synth.plan.price import exchange_seconds
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.detours.codes import join
from redistrib.synth.planner.detours.stops import Held, layout_of
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import IndexDigit, Placement, digit_values
from redistrib.types.mesh import whole_axes
from redistrib.types.overlap import run_meetings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_ENTRIES = 1 << 22
"""Of a table, and of what it is counted from."""
CHUNK = 1 << 16  # pairs times devices that are looked at at once


class Exchanges:
    """The types of a batch, of one mesh and shape and without partial axes, dimension by dimension.

    Raises OverflowError where their tables would be too large.
    """

    def __init__(self, types: Sequence[ArrayType]) -> None:
        like = types[0]
        layouts = [layout_of(t) for t in types]
        self._held = np.empty((len(like.shape), len(types)), dtype=np.int64)
        self._tables = []
        known: dict[tuple[int, tuple[Held, ...]], tuple[Ints, Ints]] = {}
        for dim, size in enumerate(like.shape):
            of_types = [_in_first(layout[dim]) for layout in layouts]
            ways = tuple(sorted({*of_types}))
            number = {held: n for n, held in enumerate(ways)}
            self._held[dim] = [number[held] for held in of_types]
            if (size, ways) not in known:  # dimensions of one size are often owned alike
                known[size, ways] = _tables(like, ways, IndexDigit(0, 1, size))
            self._tables.append(known[size, ways])
        self._devices = like.mesh.num_devices

    def counts(self, src: Ints, dst: Ints) -> tuple[Ints, Ints]:
        """Per pair elements that the worst device holds of its target tile, and the most peers."""
        held, peers = np.empty_like(src), np.empty_like(src)
        step = max(1, CHUNK // self._devices)
        for n in range(0, len(src), step):
            pairs = slice(n, n + step)
            both = [
                tuple(table[ways[src[pairs]], ways[dst[pairs]]] for table in tables)
                for tables, ways in zip(self._tables, self._held, strict=True)
            ]
            held[pairs] = np.multiply.reduce([overlap for overlap, _ in both]).min(axis=1)
            peers[pairs] = np.multiply.reduce([met for _, met in both]).max(axis=1)
        return held, peers


def _in_first(held: Held) -> Held:
    """What is owned of a dimension, as if it were the first."""
    return tuple((device, IndexDigit(0, index.pre, index.size)) for device, index in held)


def _tables(like: ArrayType, ways: Sequence[Held], whole: IndexDigit) -> tuple[Ints, Ints]:
    """Per source, target and device: what it holds of what it needs, and source tiles needed."""
    axes = whole_axes(like.mesh)
    shape = (len(ways), len(ways), like.mesh.num_devices)
    if prod(shape) > MAX_ENTRIES:
        raise OverflowError(f"tables have at most {MAX_ENTRIES} entries; got {prod(shape)}")
    positions = np.arange(shape[2])
    overlap, tiles = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
    for n, m in product(range(len(ways)), repeat=2):
        try:
            met = run_meetings(whole, ways[n], ways[m])
        except LayoutError as error:
            raise OverflowError(str(error)) from None
        cells = met.cells(positions, axes)
        overlap[n, m] = np.where(cells >= 0, met.sizes[cells], 0)
        tiles[n, m] = np.bincount(met.needed)[digit_values(met.targets, positions, axes)]
    return overlap, tiles


def exchange_prices(
    types: Sequence[ArrayType], src: Ints, dst: Ints, profile: Profile
) -> tuple[Ints, Floats]:
    """Per pair the number of its price, -1 for none, and the prices, the seconds of one exchange.

    There is none where a type is partial or nothing crosses, nor where tables would be too large.
    """
    price = np.full(len(src), -1)
    whole = np.array([not t.partial for t in types])
    chosen = np.flatnonzero(whole[src] & whole[dst])
    try:
        exchanges = Exchanges(types)
    except OverflowError:
        chosen = chosen[:0]
    if not len(chosen):
        return price, np.zeros(0)
    src, dst = src[chosen], dst[chosen]
    held, peers = exchanges.counts(src, dst)
    sizes = {t.tile_size: n for n, t in enumerate(types)}
    tile = np.array([sizes[t.tile_size] for t in types])[dst]
    key = np.stack([tile, held, peers, _links(types, src, dst, profile)])
    _, first, number = np.unique(key, axis=1, return_index=True, return_inverse=True)
    seconds = np.zeros(len(first))
    for n, p in enumerate(first):
        before, after = types[src[p]], types[dst[p]]
        received = after.tile_size - int(held[p])
        if received:
            seconds[n] = exchange_seconds(before, after, received, int(peers[p]), profile)
    price[chosen] = np.where(seconds[number] > 0, number, -1)
    return price, seconds


def _links(types: Sequence[ArrayType], src: Ints, dst: Ints, profile: Profile) -> Ints:
    """Per pair a code of the axes that are owned otherwise after than before, whose links count.

    On a ring it counts which of their digits are.
    """
    code = np.zeros(len(src), dtype=np.int64)
    if profile.uniform:
        return code
    rings = any(link.place for link in profile.used_links(types[0].mesh))
    for axis, _ in types[0].mesh.axes:
        number: dict[tuple[Placement, ...], int] = {}
        of_type = np.array(
            [
                number.setdefault(tuple(p for p in t.placements if p[0].axis == axis), len(number))
                for t in types
            ]
        )
        changed = of_type[src] != of_type[dst]
        if rings:
            code = join(join(code, of_type[src] * changed), of_type[dst] * changed)
        code = code * 2 + changed
    return code
