"""Bytes alive on every device while the arrays of a model move.

Devices that are in the same meshes are alike: they are one *class*, and memory is counted by class.
Of a model whose arrays go from a mesh of devices 0 to 63 to one of devices 32 to 95 there are three
classes: 0 to 31, which have sources alone, 32 to 63, which have both, and the rest. A tile of an
uneven type counts as the largest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from redistrib.models.order import Bytes, Demand, Order, alive_bytes, order_of
from redistrib.models.segments import AnyType
from redistrib.synth.plan.data import Plan

LEAST_CHUNK = 1 << 20
"""Bytes of scratch below which a move is not cut further."""


class Moving(Protocol):
    """A target and the sources that it is made of."""

    @property
    def target(self) -> str:
        """The name of the target."""

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        """Names of sources, each with the number of a part."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes alive while each array moves: without scratch, and the most scratch it can use."""

    alive: Bytes  # [move, class of devices]
    scratch: Bytes
    targets: Bytes  # of all targets, by class
    allocated: Bytes  # targets allocated up to and with each move

    @classmethod
    def of(
        cls,
        src: Mapping[str, AnyType],
        dst: Mapping[str, AnyType],
        reductions: Mapping[str, Plan],
        moves: Sequence[Moving],
        *,
        keep: bool,
    ) -> Memory:
        """The memory of moves in their order."""
        sources, demands = demands_of(src, dst, reductions, moves)
        alive = alive_bytes(demands, sources, range(len(moves)), keep=keep)
        scratch = np.array([d.scratch for d in demands]).reshape(alive.shape)
        targets = np.array([d.target for d in demands]).reshape(alive.shape)
        return cls(alive, scratch, targets.sum(axis=0), np.cumsum(targets, axis=0))

    def together(self, first: int, last: int, chunk: int, *, into_targets: bool) -> tuple[int, int]:
        """Bytes on the worst class of devices where moves `first` to `last` run as one.

        All their targets are there, and none of their sources is released. The second figure is the
        scratch that every class may use that needs some.
        """
        scratch = np.minimum(self.scratch[first : last + 1].sum(axis=0), chunk)
        alive = self.alive[first] - self.allocated[first]
        alive = alive + (self.targets if into_targets else self.allocated[last])
        room = int(scratch[scratch > 0].min(initial=chunk))
        return int((alive + scratch).max(initial=0)), room

    def peak(self, chunk: int, *, into_targets: bool) -> int:
        """The largest sum on any class of devices, with at most so much scratch."""
        bytes_ = self.alive + np.minimum(self.scratch, chunk)
        if into_targets:
            bytes_ = bytes_ - self.allocated + self.targets
        return int(bytes_.max(initial=0))


def ordered(
    src: Mapping[str, AnyType],
    dst: Mapping[str, AnyType],
    reductions: Mapping[str, Plan],
    moves: Sequence[Moving],
    *,
    keep: bool,
    into_targets: bool,
) -> Order:
    """The order in which moves fit the smallest budget; its peak is with the least scratch."""
    sources, demands = demands_of(src, dst, reductions, moves)
    demands = [replace(d, scratch=np.minimum(d.scratch, LEAST_CHUNK)) for d in demands]
    if into_targets and demands:  # they are there throughout, as sources are that nothing uses
        sources.append(sum((d.target for d in demands), 0 * demands[0].target))
        demands = [replace(d, target=0 * d.target) for d in demands]
    return order_of(demands, sources, keep=keep)


def demands_of(
    src: Mapping[str, AnyType],
    dst: Mapping[str, AnyType],
    reductions: Mapping[str, Plan],
    moves: Sequence[Moving],
) -> tuple[list[Bytes], list[Demand]]:
    """Bytes of sources, and demands of moves, by class of devices."""
    meshes = list(dict.fromkeys(t.mesh for t in (*src.values(), *dst.values())))
    members: dict[int, set[int]] = {}
    for n, mesh in enumerate(meshes):
        for device in mesh.ids:
            members.setdefault(device, set()).add(n)
    classes = sorted({frozenset(numbers) for numbers in members.values()}, key=sorted)
    on = {mesh: np.array([n in c for c in classes], np.int64) for n, mesh in enumerate(meshes)}
    number = {name: n for n, name in enumerate(src)}
    sources = []
    for name, t in src.items():
        bytes_ = t.tile_bytes
        if name in reductions:  # both the addends and their sum are there for a while
            bytes_ += reductions[name].dst.tile_bytes
        sources.append(bytes_ * on[t.mesh])
    demands = []
    for move in moves:
        t = dst[move.target]
        target = t.tile_bytes * on[t.mesh]
        used = dict.fromkeys(name for name, _ in move.sources)
        source = sum((src[name].tile_bytes * on[src[name].mesh] for name in used), 0 * target)
        demands.append(
            Demand(target, np.maximum(target, source), tuple(number[name] for name in used))
        )
    return sources, demands
