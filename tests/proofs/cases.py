"""Random types and steps, and what their definitions say of devices and digits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import prod

import redistrib as rd
from proofs import transposition as transposes
from redistrib.synth.plan import collectives as c
from redistrib.types.digits import DeviceDigit, apart, inside
from tests.generators import random_pair
from tests.problems import random_mesh, random_shape, random_step, random_type


def value(digit: DeviceDigit, position: int, mesh: rd.Mesh) -> int:
    """The coordinate of the device at a position on a digit, from the definition."""
    names = [name for name, _ in mesh.axes]
    below = prod(size for _, size in mesh.axes[names.index(digit.axis) + 1 :])
    axis = mesh.axis_size(digit.axis)
    return position // below % axis // (axis // digit.end) % digit.size


def moved_to(position: int, digit: DeviceDigit, wanted: int, mesh: rd.Mesh) -> int:
    """The position that differs in one digit, which has this value."""
    same = [
        other
        for other in range(mesh.num_devices)
        if value(digit, other, mesh) == wanted
        and all(
            value(part, other, mesh) == value(part, position, mesh)
            for name, size in mesh.axes
            for part in (DeviceDigit(name, 1, size),)
            if name != digit.axis
        )
        and _rest(digit, other, mesh) == _rest(digit, position, mesh)
    ]
    assert len(same) == 1
    return same[0]


def _rest(digit: DeviceDigit, position: int, mesh: rd.Mesh) -> tuple[int, int]:
    axis = mesh.axis_size(digit.axis)
    whole = value(DeviceDigit(digit.axis, 1, axis), position, mesh)
    return whole // (axis // digit.pre), whole % (axis // digit.end)


def role(t: rd.ArrayType, digit: DeviceDigit) -> int | None:
    """The role of a digit that a type does not cut, from its text."""
    if any(inside(digit, device) for device, _ in t.placements):
        return transposes.OWNER
    if any(inside(digit, device) for device in t.partial):
        return transposes.PARTIAL
    used = [*(device for device, _ in t.placements), *t.partial]
    return transposes.FREE if all(apart(digit, device) for device in used) else None


def pairs(count: int) -> Iterator[tuple[rd.ArrayType, rd.ArrayType]]:
    """Random pairs of types with elements and without partial axes."""
    for seed in range(count):
        src, dst = random_pair(random.Random(seed).choice, partial=False)
        if src.size and src.mesh.num_devices > 1:
            yield src, dst


def steps(count: int) -> Iterator[tuple[random.Random, rd.ArrayType, c.Collective]]:
    """Random types with a collective that is legal for them."""
    for seed in range(count):
        rng = random.Random(seed)
        mesh = random_mesh(rng)
        t = random_type(rng, mesh, random_shape(rng, mesh), partial=None)
        step = random_step(rng, t) if t.size else None
        if step is not None:
            yield rng, t, step
