"""Who sends what to whom in one step of a plan, within one group of devices that do alike.

On x=2,y=2 an all_gather over y runs in two groups, and in the first of them devices 0 and 1 send
each other their tiles of 16 bytes:

>>> from redistrib.synth.plan.collectives import AllGather
>>> from redistrib.types.digits import IndexDigit
>>> from redistrib.types.mesh import Mesh
>>> before = ArrayType.parse("f32[8{y}]", Mesh(x=2, y=2))
>>> step = AllGather(((DeviceDigit("y", 1, 2), IndexDigit(0, 1, 2)),))
>>> moved = movement(step, before, step.apply(before))
>>> moved.words
'In each of 2 groups of 2, every device sends 16 B to every other.'
>>> moved.shown, moved.flows
('a group', {(0, 1): 16, (1, 0): 16})
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd, prod
from typing import assert_never

import numpy as np

from redistrib.report.figures import format_bytes
from redistrib.synth.plan.blocks import messages_of
from redistrib.synth.plan.collectives import (
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
from redistrib.synth.plan.pieces import pieces_of
from redistrib.synth.plan.routing import permute_sources
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, coalesce, with_digits
from redistrib.types.mesh import whole_axes

MAX_SHOWN = 8
"""Devices of a group that are shown."""
MAX_TRACED = 64
"""Devices up to which all pieces of an exchange are looked at."""
MAX_BLOCKS = 1 << 12
"""Blocks of a receiver's tile up to which its senders in a larger exchange are looked at."""
MAX_ROUTED = 1 << 20
"""Devices up to which the routes of a permute are followed."""

Flows = dict[tuple[int, int], int]
"""Bytes by sender and receiver, two device ids."""


@dataclass(frozen=True, slots=True)
class Movement:
    """What one step moves: in words for all devices, and as flows between those that are `shown`.

    These are one group, as far as it fits, or of an exchange all who are connected, or one receiver
    with its senders.
    """

    words: str
    shown: str
    flows: Flows


def movement(step: Collective, before: ArrayType, after: ArrayType) -> Movement | None:
    """What a step between two types moves; None where nothing moves."""
    tile, k = before.tile_bytes, step.group_size
    match step:
        case DynamicSlice() | ReplicatedToPartial() | ShardedToPartial():
            return None
        case AllGather():
            return _among_all(step, before, tile, 0)
        case AllToAll() | ReduceScatter():
            return _among_all(step, before, tile // k, 0)
        case AllReduce():
            # A reduce_scatter of chunks, whose sizes differ by one element, and an all_gather.
            return _among_all(step, before, 0, before.tile_size)
        case CollectivePermute():
            return _permuted(step, before)
        case Exchange():
            return _exchanged(step, before, after)
        case _:
            assert_never(step)


def _among_all(step: Collective, before: ArrayType, share: int, reduced: int) -> Movement | None:
    """Every member sends `share` bytes to every other, and its chunks of `reduced` elements."""
    k, mesh = step.group_size, before.mesh
    digits = [digit for digit in coalesce(step.axes) if isinstance(digit, DeviceDigit)]
    places = np.arange(min(k, MAX_SHOWN))
    positions = with_digits(np.zeros_like(places), digits, places, whole_axes(mesh))
    members = [_device(before, int(position)) for position in positions]
    chunks = [(reduced // k + (place < reduced % k)) * before.itemsize for place in range(k)]
    flows = {
        (sender, receiver): share + chunks[i] + chunks[j]
        for i, sender in enumerate(members)
        for j, receiver in enumerate(members)
        if i != j and share + chunks[i] + chunks[j]
    }
    if not flows:
        return None
    most = format_bytes(share + 2 * chunks[0])
    groups = mesh.num_devices // k
    words = f"In each of {groups} groups of {k}" if groups > 1 else f"Among all {k} devices"
    shown = f"the first {len(members)} of a group" if len(members) < k else "a group"
    return Movement(f"{words}, every device sends {most} to every other.", shown, flows)


def _permuted(step: CollectivePermute, before: ArrayType) -> Movement | None:
    """The first devices that pass their tiles round in a circle."""
    words = f"Devices send their whole tile, {format_bytes(before.tile_bytes)}, to one other"
    total = before.mesh.num_devices
    if total > MAX_ROUTED:
        return Movement(f"{words}.", "", {})
    sources = permute_sources(before.mesh, step)
    moved = np.flatnonzero(sources != np.arange(total))
    if not len(moved):
        return None
    circle = [int(moved[0])]
    while len(circle) < MAX_SHOWN and (sender := int(sources[circle[-1]])) != circle[0]:
        circle.append(sender)
    flows = {
        (_device(before, int(sources[position])), _device(before, position)): before.tile_bytes
        for position in circle
        if int(sources[position]) in circle
    }
    return Movement(f"{words}: {len(moved)} of {total} do.", "the first of them", flows)


def _exchanged(step: Exchange, before: ArrayType, after: ArrayType) -> Movement | None:
    """All who are connected with the first receiver, or the first receiver and its senders."""
    words = "Every device fetches what it lacks straight from devices that hold it."
    few = max(before.mesh.num_devices, after.mesh.num_devices) <= MAX_TRACED
    if not few and _blocks(before, after) > MAX_BLOCKS:
        return Movement(words, "", {})
    flows = _flows(step, before, after, None if few else range(MAX_SHOWN))
    if not flows:
        return None
    first = next(iter(flows))[1]
    members = _connected(flows, first)
    shown = f"all connected with device {first}"
    if not few or len(members) > MAX_SHOWN:
        received = [(ends, moved) for ends, moved in flows.items() if ends[1] == first]
        flows = dict(received[:MAX_SHOWN])
        shown = f"what device {first} receives"
        if len(received) > MAX_SHOWN:
            shown += f", from {MAX_SHOWN} of {len(received)} senders"
    else:
        flows = {ends: moved for ends, moved in flows.items() if members.issuperset(ends)}
    return Movement(words, shown, flows)


def _blocks(before: ArrayType, after: ArrayType) -> int:
    """In how many blocks a receiver's tile may come, each from another sender at most."""
    sides = zip(before.block_shape, after.block_shape, strict=True)
    return after.tile_size // max(prod(gcd(*sizes) for sizes in sides), 1)


def _flows(
    step: Exchange, before: ArrayType, after: ArrayType, receivers: Iterable[int] | None
) -> Flows:
    if step.blocks is not None:
        return _block_flows(before, after)
    exchanged = pieces_of(step, before, after, receivers=receivers)
    size = exchanged.block_size * before.itemsize
    flows: Flows = {}
    for piece in exchanged.pieces:
        ends = _device(before, piece.sender), _device(after, piece.receiver)
        if ends[0] != ends[1]:
            flows[ends] = flows.get(ends, 0) + prod(piece.shape) * size
    return flows


def _block_flows(before: ArrayType, after: ArrayType) -> Flows:
    """The messages of an exchange of blocks."""
    messages = messages_of(before, after)
    flows: Flows = {}
    moved = (messages.sender.tolist(), messages.receiver.tolist(), messages.elements.tolist())
    for sender, receiver, elements in zip(*moved, strict=True):
        ends = _device(before, sender), _device(after, receiver)
        if ends[0] != ends[1]:
            flows[ends] = flows.get(ends, 0) + elements * before.itemsize
    return flows


def _connected(flows: Flows, first: int) -> set[int]:
    """The devices that flows connect with a device, directly or through others."""
    reached, new = {first}, {first}
    while new:
        new = {end for ends in flows if new.intersection(ends) for end in ends} - reached
        reached |= new
    return reached


def _device(t: ArrayType, position: int) -> int:
    return position if t.mesh.devices is None else t.mesh.devices[position]
