"""Moves that are alike: the checker follows one of them, and compares the others with it.

Layer 0 of a model takes `t.0: f32[8, 6{y}]` on devices 2, 3 from `w.0: f32[8{x}, 6]` on 0, 1; layer
1, in the next stage of a pipeline, takes `t.1` on devices 6, 7 from `w.1` on 4, 5. The map says the
same of both, their types differ in devices alone, and their transfers come from the same routes:

    w.0 -> w.1    t.0 -> t.1        0, 1, 2, 3 -> 4, 5, 6, 7

so, with these names and devices, the transfers of layer 0 are those of layer 1. DeepSeek-V3's 58
layers, of 768 arrays each, are two kinds of moves.

What makes moves alike is derived here from types, devices and the map. That the transfers then
differ in names and devices alone is what the plan says (`ModelMoves.pattern`): they are compared on
two devices of each move, others each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from redistrib.models.moves import ModelMoves, Move
from redistrib.models.segments import AnyType, parts_of
from redistrib.models.transfers import Transfer
from redistrib.types.mesh import Mesh

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Kind:
    """A move as one of its kind: its sources and its devices, in the same order for all of them."""

    move: Move
    key: object
    sources: tuple[str, ...]
    devices: Numbers

    @cached_property
    def place(self) -> dict[int, int]:
        """The number of each device."""
        return {device: n for n, device in enumerate(self.devices.tolist())}


@dataclass(slots=True)
class Kinds:
    """The kinds of the moves of a plan; devices are numbered once for each choice of meshes."""

    plan: ModelMoves
    _numbered: dict[tuple[Mesh, ...], tuple[object, Numbers]] = field(default_factory=dict)

    def of(self, move: Move, meaning: object, sources: Sequence[str]) -> Kind:
        """The kind of a move that takes these sources, in the order in which the map has them.

        `meaning` is what the map makes of them. A move that takes from other targets, or from other
        sources than the map's, is a kind of its own.
        """
        plan = self.plan
        number = {name: n for n, name in enumerate(sources)}
        types = [plan.dst[move.target], *map(plan.source_type, sources)]
        meshes = {mesh: n for n, mesh in enumerate(dict.fromkeys(t.mesh for t in types))}
        numbering, devices = self._number(tuple(meshes))
        alone = any(step.earlier for step in move.steps)
        alone |= any(name not in number for name, _ in move.sources)
        key = (
            move.target if alone else None,
            meaning,
            numbering,
            tuple((meshes[t.mesh], _layout(t)) for t in types),
            tuple((number.get(name), part) for name, part in move.sources),
            plan.pattern(move),
        )
        return Kind(move, key, tuple(sources), devices)

    def _number(self, meshes: tuple[Mesh, ...]) -> tuple[object, Numbers]:
        """The devices of some meshes, each once, and which of them each position has."""
        if meshes not in self._numbered:
            ids = np.concatenate([np.array(mesh.ids, np.int64) for mesh in meshes])
            _, first, of_id = np.unique(ids, return_index=True, return_inverse=True)
            order = np.argsort(first)
            number = np.empty_like(order)
            number[order] = np.arange(len(order))
            sizes = tuple(mesh.num_devices for mesh in meshes)
            numbering = sizes, number[of_id.reshape(-1)].tobytes()
            self._numbered[meshes] = numbering, ids[np.sort(first)]
        return self._numbered[meshes]


def same_transfers(plan: ModelMoves, first: Kind, other: Kind, turn: int) -> bool:
    """Whether two moves of a kind have the same transfers on two devices: which, is by `turn`."""
    count = len(first.devices)
    for n in dict.fromkeys((turn % count, count - 1 - turn % count)):
        device, counterpart = (int(kind.devices[n]) for kind in (first, other))
        renamed = _renamed(plan.transfers(first.move, device), first, other)
        if list(renamed) != list(plan.transfers(other.move, counterpart)):
            return False
    return True


def _renamed(transfers: Iterator[Transfer], first: Kind, other: Kind) -> Iterator[Transfer]:
    """The transfers with the names and the devices of the other move."""
    names: dict[str | None, str | None] = dict(zip(first.sources, other.sources, strict=True))
    names[None] = None
    device_of: dict[int | None, int | None] = {None: None}
    device_of |= zip(first.place, other.devices.tolist(), strict=True)
    for transfer in transfers:
        yield transfer._replace(
            sender=device_of[transfer.sender],
            receiver=int(other.devices[first.place[transfer.receiver]]),
            target=other.move.target,
            source=other.move.target if transfer.phase else names[transfer.source],
        )


def _layout(t: AnyType) -> object:
    """All of a type but the devices of its mesh."""
    return tuple(
        (t.mesh.axes, t.dtype, t.shape, t.dims, t.uneven, t.partial, t.reduction, part.start)
        for part in parts_of(t)
        for t in [part.type]
    )
