"""The figures of a model plan, re-derived from its transfers and types."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from redistrib.errors import CheckError
from redistrib.models.moves import ModelMoves
from redistrib.models.segments import AnyType
from redistrib.types.dtypes import itemsize


def check_totals(plan: ModelMoves, totals: Mapping[int, list[int]]) -> None:
    """What the worst device receives and sends, with the reductions; `totals` are without."""
    received, sent = ({device: total[k] for device, total in totals.items()} for k in (0, 1))
    for reduction in plan.reductions.values():
        for device in reduction.src.mesh.ids:
            received[device] += reduction.received_bytes
            sent[device] += reduction.sent_bytes
    for name, found in (("received_bytes", received), ("sent_bytes", sent)):
        if getattr(plan, name) != max(found.values(), default=0):
            raise CheckError(
                f"{name} is {max(found.values(), default=0)}; the plan has {getattr(plan, name)}"
            )


def check_peak(plan: ModelMoves) -> None:
    """Sources not yet released, targets and scratch: the worst moment of the worst device."""
    worst = 0
    last = {name: n for n, move in enumerate(plan.moves) for name, _ in move.sources}
    for device in plan.devices:
        alive = sum(_bytes_on(plan, name, device) for name in plan.src)
        if plan.into_targets:
            alive += sum(_tile_bytes(t, device) for t in plan.dst.values())
        for n, move in enumerate(plan.moves):
            names = list(dict.fromkeys(name for name, _ in move.sources))
            target = _tile_bytes(plan.dst[move.target], device)
            alive += 0 if plan.into_targets else target
            given = sum(_tile_bytes(plan.src[name], device) for name in names)
            worst = max(worst, alive + min(plan.chunk_bytes, max(target, given)))
            if not plan.keep_sources:
                alive -= sum(_bytes_on(plan, name, device) for name in names if last[name] == n)
    if plan.peak_bytes != worst:
        raise CheckError(f"peak_bytes is {worst}; the plan has {plan.peak_bytes}")


def _bytes_on(plan: ModelMoves, name: str, device: int) -> int:
    bytes_ = _tile_bytes(plan.src[name], device)
    if name in plan.reductions:
        bytes_ += _tile_bytes(plan.reductions[name].dst, device)
    return bytes_


def _tile_bytes(t: AnyType, device: int) -> int:
    """Bytes of a tile; all are counted as the largest."""
    return prod(t.tile_shape) * itemsize(t.dtype) if device in t.mesh.ids else 0
