"""Types on different meshes: whether they mean the same, and a type written on another mesh.

Two meshes over the same devices factor their positions differently. On x=8 the major part of x is
what a=2,b=4 calls a, so the same layout has a text on either:

>>> t = ArrayType.parse("f32[8{a}, 4{b}]", Mesh(a=2, b=4))
>>> str(on_mesh(t, Mesh(x=8))), equivalent(t, ArrayType.parse("f32[8{x:(1)2}, 4]", Mesh(x=8)))
('f32[8{x:(1)2}, 4{x:(2)4}]', False)
"""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd

import numpy as np

from redistrib.errors import LayoutError
from redistrib.text import brief
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor, Positions, digit_values, weight, with_digits
from redistrib.types.mesh import Mesh, home_positions, whole_axes
from redistrib.types.uneven import Nested, Rule, Sizes, block_ends, sizes_of


def equivalent(a: ArrayType, b: ArrayType) -> bool:
    """Whether every device holds the same under both types, whatever their meshes call its axes.

    >>> flat, square = Mesh(x=8), Mesh(a=2, b=4)
    >>> equivalent(ArrayType.parse("f32[8{x}]", flat), ArrayType.parse("f32[8{a,b}]", square))
    True
    """
    for t in (a, b):
        if not isinstance(t, ArrayType):
            raise LayoutError(f"what is compared are types; got {brief(t)}", given=t)
    if (a.dtype, a.shape, a.reduction) != (b.dtype, b.shape, b.reduction):
        return False
    if a.mesh == b.mesh:
        return a == b
    if a.mesh.ids == b.mesh.ids:
        # On one axis the canonical form decides.
        flat = Mesh({"d": a.mesh.num_devices}, devices=a.mesh.ids)
        return on_mesh(a, flat) == on_mesh(b, flat)
    return _holdings(a) == _holdings(b)


def on_mesh(t: ArrayType, mesh: Mesh) -> ArrayType | None:
    """The type on another mesh that means the same; None if that mesh has no such type.

    It has one if it is over the same devices and its axes have the digits that the type uses: if
    it factors them otherwise, or names them in an order that transposes axes.

    >>> square = Mesh(a=2, b=4)
    >>> str(on_mesh(ArrayType.parse("f32[8{b}, 2{a}]", square), Mesh(x=8)))
    'f32[8{x:(2)4}, 2{x:(1)2}]'
    >>> on_mesh(ArrayType.parse("f32[6{x}]", Mesh(x=3, y=2)), Mesh(a=2, b=3)) is None
    True
    """
    if not isinstance(mesh, Mesh):
        raise LayoutError(f"a type is on a Mesh; got {brief(mesh)}", mesh=mesh)
    if t.mesh == mesh:
        return t
    if not t.mesh.same_devices(mesh):
        return None
    positions = home_positions(mesh, t.mesh)
    used = (*t.owners, *t.partial)
    known = {device: _digits(device, t.mesh, positions, mesh) for device in used}

    def written(factors: Iterable[Factor]) -> list[Factor]:
        return [
            part
            for factor in factors
            for part in (known[factor] if isinstance(factor, DeviceDigit) else [factor])
        ]

    if not all(known.values()):
        return None
    partial = [part for device in t.partial for part in known[device]]
    dims = [*map(written, t.dims)]
    rules = {dim: _in_parts(t, dim, rule) for dim, rule in t.uneven}
    return ArrayType(mesh, t.dtype, t.shape, dims, partial, t.reduction, rules)


def _in_parts(t: ArrayType, dim: int, rule: Rule) -> Rule:
    """The rule of a dimension whose factors may be cut into several: `nested` cuts by factors."""
    if not isinstance(rule, Nested):
        return rule
    counts = tuple(factor.size for factor in t.dims[dim])
    return Sizes(tuple(sizes_of(block_ends(t.shape[dim], counts, rule))))


def _digits(
    device: DeviceDigit, before: Mesh, positions: Positions, mesh: Mesh
) -> list[DeviceDigit]:
    """The digits of `mesh`, major to minor, that are `device` of `before`; none if there are none.

    `positions` gives, for each position of the mesh before, the position of that device in `mesh`.
    """
    axes_before, axes = whole_axes(before), whole_axes(mesh)
    digits: list[DeviceDigit] = []
    step, remaining = weight(device, axes_before), device.size
    while remaining > 1:
        # The next digit, minor to major, begins where the next value of `device` leads.
        stride = int(positions[step])
        axis = next((a for a in axes if 1 <= stride // weight(a, axes) < a.size), None)
        if axis is None or axis.size * weight(axis, axes) % stride or stride % weight(axis, axes):
            return []
        room = axis.size * weight(axis, axes) // stride
        size = gcd(room, remaining)
        while size > 1 and (
            gcd(room, remaining) % size
            or not np.array_equal(positions[: step * size : step], stride * np.arange(size))
        ):
            size -= 1
        if size == 1:
            return []
        digits.insert(0, DeviceDigit(axis.axis, room // size, size))
        step, remaining = step * size, remaining // size
    positions_before = np.arange(len(positions))
    right = np.array_equal(
        digit_values([device], positions_before, axes_before), digit_values(digits, positions, axes)
    )
    return digits if right else []


def _holdings(t: ArrayType) -> dict[int, tuple[object, object]]:
    """Per device id, the indices it holds, and the devices among which its addends are summed."""
    ids, axes = t.mesh.ids, whole_axes(t.mesh)
    # Devices of one group differ in partial digits only, so the rest of the position names it.
    group_of = with_digits(np.arange(len(ids)), t.partial, np.zeros(1, np.intp), axes).tolist()
    groups: dict[int, set[int]] = {}
    for device, group in zip(ids, group_of, strict=True):
        groups.setdefault(group, set()).add(device)
    return {
        device: (
            tuple(tuple(indices.tolist()) for indices in t.tile(position)),
            frozenset(groups[group_of[position]]),
        )
        for position, device in enumerate(ids)
    }
