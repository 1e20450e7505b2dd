"""The figures of a model plan, re-derived from its transfers and types.

The checker adds up the bytes of all transfers by device; here the worst of them is compared with
what the plan states. The peak is derived from types alone: move by move, the tiles that are there
then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import CheckError
from redistrib.models.figures import ModelFigures
from redistrib.models.segments import AnyType
from redistrib.types.dtypes import itemsize
from redistrib.types.mesh import Mesh

Bytes = NDArray[np.int64]
"""By device, in the order of the plan's."""


def check_totals(plan: ModelFigures, totals: Bytes) -> None:
    """What the worst device receives and sends, with the reductions.

    `totals` are without: received and sent, by device in the order of the plan's.
    """
    place = {device: n for n, device in enumerate(plan.devices)}
    for reduction in plan.reductions.values():
        places = [place[device] for device in reduction.src.mesh.ids]
        totals[:, places] += [[reduction.received_bytes], [reduction.sent_bytes]]
    for name, bytes_ in zip(("received_bytes", "sent_bytes"), totals, strict=True):
        worst = int(bytes_.max(initial=0))
        if getattr(plan, name) != worst:
            raise CheckError(f"{name} is {worst}; the plan has {getattr(plan, name)}")


def check_peak(plan: ModelFigures) -> None:
    """Sources not yet released, targets and scratch: the worst moment of the worst device."""
    place = {device: n for n, device in enumerate(plan.devices)}
    on: dict[Mesh, Bytes] = {}

    def of(mesh: Mesh) -> Bytes:
        if mesh not in on:
            on[mesh] = np.array([place[device] for device in mesh.ids])
        return on[mesh]

    def add(bytes_: Bytes, names: Iterable[str], held: Callable[[str], int]) -> None:
        by_mesh: dict[Mesh, int] = {}
        for name in names:
            mesh = plan.src[name].mesh
            by_mesh[mesh] = by_mesh.get(mesh, 0) + held(name)
        for mesh, total in by_mesh.items():
            bytes_[of(mesh)] += total

    def whole(name: str) -> int:
        reduced = plan.reductions.get(name)
        return _tile_bytes(plan.src[name]) + (0 if reduced is None else _tile_bytes(reduced.dst))

    last = {name: n for n, move in enumerate(plan.moves) for name, _ in move.sources}
    alive = np.zeros(len(place), np.int64)
    add(alive, plan.src, whole)
    if plan.into_targets:
        for t in plan.dst.values():
            alive[of(t.mesh)] += _tile_bytes(t)
    worst, chunk = 0, plan.chunk_bytes
    for n, move in enumerate(plan.moves):
        names = list(dict.fromkeys(name for name, _ in move.sources))
        target, source = np.zeros((2, len(place)), np.int64)
        target[of(plan.dst[move.target].mesh)] = _tile_bytes(plan.dst[move.target])
        alive += 0 if plan.into_targets else target
        add(source, names, lambda name: _tile_bytes(plan.src[name]))
        scratch = np.minimum(chunk, np.maximum(target, source))
        worst = max(worst, int((alive + scratch).max()))
        if not plan.keep_sources:
            freed = np.zeros(len(place), np.int64)
            add(freed, (name for name in names if last[name] == n), whole)
            alive -= freed
    if plan.peak_bytes != worst:
        raise CheckError(f"peak_bytes is {worst}; the plan has {plan.peak_bytes}")


def _tile_bytes(t: AnyType) -> int:
    """Bytes of a tile; all are counted as the largest."""
    return prod(t.tile_shape) * itemsize(t.dtype)
