"""Which device gets which target tiles, where the caller leaves it open.

With `f32[8{x,y}]` to `f32[8{y,x}]` on one mesh each device holds the tile that another one is asked
to hold: given to those that have them, the tiles need not move at all. The assignment that keeps
most bytes in place in all is a linear assignment problem (scipy): what a device lacks of the tiles
asked of another depends on these two alone, so the best of all assignments is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import BackendError, LayoutError
from redistrib.models.copies import Copy
from redistrib.models.loads import coordinate, holds_value, solved, walked
from redistrib.models.moves import Move
from redistrib.models.schedule import Route, narrowest
from redistrib.models.segments import AnyType, SegmentedType, parts_of
from redistrib.models.tiles import Tiles
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import itemsize
from redistrib.types.mesh import Mesh

MAX_DEVICES = 4096
"""Whose assignment is searched: the table of what they keep has a row and a column for each."""


def best_labels(
    moves: Iterable[Move], src: Mapping[str, AnyType], dst: Mapping[str, AnyType]
) -> dict[int, int]:
    """For each device of the targets, the device that gets the tiles asked of it.

    What crosses once for two targets counts once. Of assignments that keep as much in place, one
    in which most devices get their own. Raises BackendError without scipy, LayoutError for too many
    devices.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise BackendError(
            "relabel=True needs the package scipy (pip install redistrib[relabel])"
        ) from error
    devices = sorted({device for t in dst.values() for device in t.mesh.ids})
    if len(devices) > MAX_DEVICES:
        raise LayoutError(
            f"at most {MAX_DEVICES} devices are relabelled; the targets are on {len(devices)}",
            devices=len(devices),
        )
    place = {device: n for n, device in enumerate(devices)}
    kept = np.zeros((len(devices), len(devices)), np.int64)
    for move in moves:
        for step in move.steps:
            if step.copy.number is None or step.earlier is not None:
                continue
            name, part = move.sources[step.copy.number]
            source = Tiles(parts_of(src[name])[part].type)
            target = Tiles(parts_of(dst[move.target])[step.part].type)
            shared = [n for n, device in enumerate(source.ids) if device in place]
            columns = [place[source.ids[n]] for n in shared]
            rows = [place[device] for device in target.ids]
            bytes_ = _kept(step.copy, source, target)[:, shared]
            kept[np.ix_(rows, columns)] += bytes_ * itemsize(narrowest(step.copy.dtypes))
    labels, holders = linear_sum_assignment(
        kept * (len(devices) + 1) + np.eye(len(devices), dtype=np.int64), maximize=True
    )
    return {devices[a]: devices[b] for a, b in zip(labels, holders, strict=True)}


def relabelled(t: AnyType, labels: Mapping[int, int]) -> AnyType:
    """The type on a mesh of the devices that get the tiles."""
    if isinstance(t, SegmentedType):
        parts = tuple(relabelled(part, labels) for part in t.parts)
        return SegmentedType(tuple(p for p in parts if isinstance(p, ArrayType)), t.dim)
    mesh = Mesh(t.mesh.axes, devices=[labels[device] for device in t.mesh.ids])
    return t.replace(mesh=mesh)


def _kept(copy: Copy, source: Tiles, target: Tiles) -> NDArray[np.int64]:
    """Elements that a source position [column] holds of what a target position [row] needs."""
    route = Route(copy, source, target)
    target_positions, source_positions = np.arange(len(target.ids)), np.arange(len(source.ids))
    known, takes_part = solved(route, target_positions)
    wanted = takes_part & holds_value(target, target_positions)
    kept = np.zeros((len(target.ids), len(source.ids)), np.int64)
    size = prod(d.size for d in route.inside if d.source.stride)
    for values in product(*(range(d.size) for d in route.pieces)):
        held = np.repeat(wanted[:, None], len(source_positions), axis=1)
        for owner, first in copy.source.coordinates:
            value = first + walked(route, known, values, owner)
            values_of_target = np.broadcast_to(value, len(target.ids))
            held &= (
                values_of_target[:, None] == coordinate(source, owner, source_positions)[None, :]
            )
        kept += size * held
    return kept
