"""An exchange to another mesh without a table: what each device sends, and keeps.

On x=2,y=4, f32[8{x}], to a=4,b=2, f32[8{a}], let y:(1)2 of the sender be b of the receiver. The
first four elements are the tile of x=0, and a=0 and a=1 want two of them each. The device (0, 0)
serves those receivers with b=0, so it sends 2 + 2 elements; (0, 2) serves those with b=1. The
devices with y:(2)2 = 1 serve none, because no pair says what that digit is, so it is 0.

Tiles are products over dimensions, so what is asked of a device is a product of counts: per
dimension, of the indices that it has and that receivers with its values of the named digits want.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from redistrib.checker.claims import Effort, require
from redistrib.checker.parts import size_of
from redistrib.checker.senders import Loads, worst
from redistrib.checker.shared import Numbers, Shared, shared_of
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, apart, digit_values, inside, with_digits
from redistrib.types.mesh import home_positions, whole_axes

Pairs = Sequence[tuple[DeviceDigit, DeviceDigit]]


def crossing(
    t: ArrayType, after: ArrayType, replicas: Pairs, effort: Effort
) -> tuple[int, Loads, int]:
    """The least that a device has on both sides, what devices send and keep, and the most senders.

    Each pair of `replicas` is a digit of the sender and the digit of the receiver that it is.
    """
    owners = after.owners
    for _, name in replicas:
        alone = all(apart(name, owner) or inside(name, owner) for owner in owners)
        require(alone, "{} is free or an owner in {}", name, after)
    effort.spend(t.mesh.num_devices + after.mesh.num_devices)
    sides = t.placements, after.placements
    large = t.size * after.mesh.num_devices >= 1 << 62
    runs = [shared_of(IndexDigit(dim, 1, n), sides, effort, large) for dim, n in enumerate(t.shape)]
    served = _served(t, after, replicas, runs)
    most = prod(int(np.diff(run.starts).max()) for run in runs)
    if not t.mesh.shares_devices(after.mesh):
        return 0, {(int(served.max()), 0)}, most
    homes = home_positions(t.mesh, after.mesh)
    receivers = np.flatnonzero(homes >= 0)
    home = homes[receivers]
    spans, receiver_spans = whole_axes(t.mesh), whole_axes(after.mesh)
    # What a device keeps is not asked of the one that would serve it.
    overlap: Any = np.ones(len(home), served.dtype)
    sender = home * 0
    for run in runs:
        before = digit_values(run.src, home, spans)
        overlap = overlap * run.count(before, digit_values(run.dst, receivers, receiver_spans))
        sender = with_digits(sender, run.src, before, spans)
    for digit, name in replicas:
        copy = digit_values([name], receivers, receiver_spans)
        sender = with_digits(sender, [digit], copy, spans)
    kept = served * 0
    np.subtract.at(served, sender, overlap)
    np.add.at(served, home, overlap)
    np.add.at(kept, home, overlap)
    least = int(overlap.min()) if len(home) == len(homes) else 0
    return least, worst({*zip(served.tolist(), kept.tolist(), strict=True)}), most


def _served(t: ArrayType, after: ArrayType, replicas: Pairs, runs: Sequence[Shared]) -> Any:
    """Elements that are asked of each device, what receivers have themselves included."""
    axes, positions = whole_axes(t.mesh), np.arange(t.mesh.num_devices)
    named = [*(owner for owner, _ in t.placements), *(digit for digit, _ in replicas)]
    served: Any = with_digits(positions, named, positions * 0, axes) == 0
    for run in runs:
        mine = [pair for pair in replicas if any(inside(pair[1], owner) for owner in run.dst)]
        value = digit_values([*run.src, *(digit for digit, _ in mine)], positions, axes)
        served = served * _asked_counts(run, [name for _, name in mine])[value]
    owners = after.owners
    free = [name for _, name in replicas if all(apart(name, owner) for owner in owners)]
    return served * (after.mesh.num_devices // size_of(owners) // size_of(free))


def _asked_counts(run: Shared, names: Sequence[DeviceDigit]) -> Numbers:
    """Indices of a run that are asked for, per value of its owners before and of named digits."""
    after, before = run.keys // run.base, run.keys % run.base
    counts = np.zeros(run.base * size_of(names), run.counts.dtype)
    np.add.at(counts, before * size_of(names) + digit_values(names, after, run.dst), run.counts)
    return counts
