"""Whether types on different meshes mean the same."""

from __future__ import annotations

import numpy as np

from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor
from redistrib.types.mesh import Mesh
from redistrib.types.positions import with_digits


def equivalent(a: ArrayType, b: ArrayType) -> bool:
    """Whether every device holds the same under both types, whatever their meshes call its axes.

    >>> flat, square = Mesh(x=8), Mesh(a=2, b=4)
    >>> equivalent(ArrayType.parse("f32[8{x}]", flat), ArrayType.parse("f32[8{a,b}]", square))
    True
    """
    if (a.dtype, a.shape, a.reduction) != (b.dtype, b.shape, b.reduction):
        return False
    if _devices(a.mesh) == _devices(b.mesh):
        return _flat(a) == _flat(b)
    return _holdings(a) == _holdings(b)


def _devices(mesh: Mesh) -> tuple[int, ...] | int:
    return mesh.num_devices if mesh.devices is None else mesh.devices


def _flat(t: ArrayType) -> ArrayType:
    """The type on the mesh of one axis over the same devices in the same order.

    Sub-axes of a row-major mesh are sub-axes of that one axis, so no device is enumerated, and the
    canonical form there decides.
    """
    before = {}
    count = 1
    for name, size in t.mesh.axes:
        before[name] = count
        count *= size

    def flat(factor: Factor) -> Factor:
        if not isinstance(factor, DeviceDigit):
            return factor
        return DeviceDigit("d", before[factor.axis] * factor.pre, factor.size)

    dims = [[flat(factor) for factor in factors] for factors in t.dims]
    partial = [DeviceDigit("d", before[f.axis] * f.pre, f.size) for f in t.partial]
    return ArrayType(Mesh(d=count), t.dtype, t.shape, dims, partial, t.reduction)


def _holdings(t: ArrayType) -> dict[int, tuple[object, object]]:
    """Per device id, the indices it holds, and the devices among which its addends are summed."""
    ids = t.mesh.devices or tuple(range(t.mesh.num_devices))
    axes = [DeviceDigit(name, 1, size) for name, size in t.mesh.axes]
    # Devices of one group differ in partial digits only, so the rest of the position names it.
    rests = with_digits(np.arange(len(ids)), t.partial, np.zeros(1, np.intp), axes).tolist()
    groups: dict[int, set[int]] = {}
    for device, rest in zip(ids, rests, strict=True):
        groups.setdefault(rest, set()).add(device)
    return {
        device: (
            tuple(tuple(indices.tolist()) for indices in t.tile(position)),
            frozenset(groups[rests[position]]),
        )
        for position, device in enumerate(ids)
    }
