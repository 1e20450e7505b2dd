"""The exchange between two meshes by digits: who sends what, and how much, without a table.

Example: x=2,y=4 on devices 0 to 7, `f32[8{x}]`, to a=4,b=2 on devices 8 to 15, `f32[8{a}]`. The
digits of the sender that own something have the values of the element: for 2 and 3, x is 0. The
others are digits of the receiver, so that the copies of a tile share the sending: y:(1)2 is b,
which owns nothing, and y:(2)2 is a:(2)2, which says for which half of a tile a receiver asks. A
tile of 4 elements is wanted by two receivers of each element: 8 elements from four senders, 2 each.
A digit that is none of the receiver's is 0, and those copies are idle.

Every element is wanted by as many receivers as any other, so all copies of all tiles send alike.
Devices on both meshes keep what they hold already, and only for them are positions looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, prod

import numpy as np

from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    Positions,
    digit_values,
    inside,
    is_chain,
    with_digits,
)
from redistrib.types.mesh import home_positions, whole_axes
from redistrib.types.overlap import run_meetings

Pairs = tuple[tuple[DeviceDigit, DeviceDigit], ...]
"""Digits of the sender, free in the source, and the digits of the receiver that they are."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """How an array crosses: elements of the worst device, and its most senders.

    `shared`: no copy of a tile could give a part of its sending to an idle one.
    """

    replicas: Pairs
    received: int
    sent: int
    peers: int
    shared: bool


def crossing(src: ArrayType, dst: ArrayType) -> Crossing:
    """Who serves whom between two types on two meshes that are not partial."""
    idle, asking = src.free_digits, _asking(src, dst)
    replicas = _matched(idle, asking)
    serving = prod(mine.size for mine, _ in replicas)
    shared = serving in [prod(digit.size for digit in digits) for digits in (idle, asking)]
    peers = prod(_senders_in(dim, src, dst) for dim in range(len(src.shape)))
    wanted = src.tile_size * dst.mesh.num_devices * dst.tile_size // src.size // serving
    received, sent = dst.tile_size, wanted
    if src.mesh.shares_devices(dst.mesh):
        received, sent = _with_kept(src, dst, replicas, wanted)
    return Crossing(replicas, received, sent, peers, shared)


def _asking(src: ArrayType, dst: ArrayType) -> list[DeviceDigit]:
    """Digits of the target's mesh whose values all ask a source tile for as much.

    Those that own nothing, and those that own what is local in the source.
    """
    asking = list(dst.free_digits)
    for dim in range(len(src.shape)):
        bounds = _bounds(dim, src, dst)
        if not is_chain(bounds):
            continue
        for low, high in pairwise(bounds):
            run = IndexDigit(dim, low, high // low)
            if not any(inside(run, index) for _, index in src.placements):
                owners = (_owner(placement, run) for placement in dst.placements)
                asking += [owner for owner in owners if owner is not None]
    return asking


def _bounds(dim: int, src: ArrayType, dst: ArrayType) -> list[int]:
    ends = {1}
    for _, index in (*src.placements, *dst.placements):
        if index.dim == dim:
            ends |= {index.pre, index.end}
    return sorted(ends)


def _owner(placement: Placement, run: IndexDigit) -> DeviceDigit | None:
    """The part of a device digit that owns a run inside what it owns."""
    device, index = placement
    if not inside(run, index):
        return None
    return DeviceDigit(device.axis, device.pre * (run.pre // index.pre), run.size)


def _matched(idle: Sequence[DeviceDigit], asking: list[DeviceDigit]) -> Pairs:
    """Parts of equal size of the first digits and of the second, in order."""
    pairs: list[tuple[DeviceDigit, DeviceDigit]] = []
    for digit in idle:
        mine = digit
        remaining: list[DeviceDigit] = []
        for other in asking:
            size = gcd(mine.size, other.size)
            if size == 1:
                remaining.append(other)
                continue
            part, theirs = (DeviceDigit(d.axis, d.pre, size) for d in (mine, other))
            pairs.append((part, theirs))
            mine = DeviceDigit(mine.axis, part.end, mine.size // size)
            if other.size > size:
                remaining.append(DeviceDigit(other.axis, theirs.end, other.size // size))
        asking = remaining
    return tuple(pairs)


def _senders_in(dim: int, src: ArrayType, dst: ArrayType) -> int:
    """How many source tiles a target tile meets along a dimension, at most."""
    bounds = _bounds(dim, src, dst)
    if not is_chain(bounds):
        dimension = IndexDigit(dim, 1, src.shape[dim])
        return int(
            np.bincount(run_meetings(dimension, src.placements, dst.placements).needed).max()
        )
    count = 1
    for low, high in pairwise(bounds):
        run = IndexDigit(dim, low, high // low)
        held, needed = (any(inside(run, index) for _, index in t.placements) for t in (src, dst))
        count *= run.size if held and not needed else 1
    return count


def _with_kept(src: ArrayType, dst: ArrayType, replicas: Pairs, wanted: int) -> tuple[int, int]:
    """What the worst device receives and sends where devices are on both meshes.

    `wanted` is what each serving copy of a tile is asked for, the receiver's own part included.
    """
    src_axes, dst_axes = whole_axes(src.mesh), whole_axes(dst.mesh)
    homes = home_positions(src.mesh, dst.mesh)
    receivers = np.flatnonzero(homes >= 0)
    home = homes[receivers]
    kept = np.ones_like(receivers)
    for dim, n in enumerate(src.shape):
        met = run_meetings(IndexDigit(dim, 1, n), src.placements, dst.placements)
        count = prod(digit.size for digit in met.owners)
        key = met.needed * count + met.held
        mine = digit_values(met.targets, receivers, dst_axes) * count
        mine = mine + digit_values(met.owners, home, src_axes)
        place = np.minimum(np.searchsorted(key, mine), len(key) - 1)
        kept = kept * np.where(key[place] == mine, met.sizes[place], 0)
    owners = src.owners
    sender = _by_digits(
        owners, digit_values(owners, home, src_axes), replicas, receivers, src_axes, dst_axes
    )
    positions = np.arange(src.mesh.num_devices)
    named = [*owners, *(mine for mine, _ in replicas)]
    serves = with_digits(positions, named, np.zeros_like(positions), src_axes) == 0
    served = np.where(serves, wanted, 0).astype(object if wanted >= 1 << 62 else np.int64)
    np.subtract.at(served, sender, kept)
    all_on_both = len(receivers) == dst.mesh.num_devices
    received = dst.tile_size - (int(kept.min()) if all_on_both else 0)
    return received, int(served.max())


def _by_digits(
    owners: Sequence[DeviceDigit],
    values: Positions,
    replicas: Pairs,
    receivers: Positions,
    src_axes: Sequence[DeviceDigit],
    dst_axes: Sequence[DeviceDigit],
) -> Positions:
    """The sender whose owners have these values, its other digits as the replicas say, else 0."""
    senders = with_digits(np.zeros_like(receivers), owners, values, src_axes)
    for mine, theirs in replicas:
        senders = with_digits(
            senders, [mine], digit_values([theirs], receivers, dst_axes), src_axes
        )
    return senders
