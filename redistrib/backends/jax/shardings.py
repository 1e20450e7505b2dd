"""Types as jax shardings and back, on a mesh that is cut into digits where types need it.

A sub-axis is no axis of a jax mesh, so where the types of the two ends have sub-axes, the mesh is
refined: the same devices in the same order, with an axis per digit. A NamedSharding on the refined
mesh is equivalent to one on the mesh itself. Without sub-axes the user's own mesh serves, which is
what explicit sharding and `jax.set_mesh` demand. On a mesh x=4, f32[8{x:(1)2}] is
P("x:(1)2") on a mesh of the same four devices with the axes "x:(1)2" and "x:(2)2", of 2 each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding

from redistrib.errors import LayoutError
from redistrib.synth.plan.data import Plan
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor, Local, is_chain
from redistrib.types.mesh import Mesh
from redistrib.types.notation import format_factor

PartitionSpec: Any = jax.sharding.PartitionSpec  # typed in parts only


def common_axes(*plans: Plan) -> tuple[DeviceDigit, ...]:
    """The axes of the mesh of these plans, cut wherever the types of their ends cut them.

    Of cuts that do not nest (x=6 by 2 and by 3) those that come first are kept, the source's.
    """
    ends = [t for plan in plans for t in (plan.types[0], plan.types[-1])]
    used = [digit for t in ends for digit in (*(d for d, _ in t.placements), *t.partial)]
    return refined(plans[0].src.mesh, used)


def named_axes(mesh: Mesh) -> tuple[DeviceDigit, ...]:
    """The axes of a mesh as digits, those of size 1 too: a jax mesh names them."""
    return tuple(DeviceDigit(name, 1, size) for name, size in mesh.axes)


def refined(mesh: Mesh, digits: Iterable[DeviceDigit]) -> tuple[DeviceDigit, ...]:
    """The axes of a mesh cut at these digits, as far as the cuts nest."""
    cuts = {name: [1, size] if size > 1 else [1] for name, size in mesh.axes}
    for digit in digits:
        for cut in (digit.pre, digit.end):
            longer = sorted({*cuts[digit.axis], cut})
            if is_chain(longer):
                cuts[digit.axis] = longer
    result = []
    for name, size in mesh.axes:
        bounds = cuts[name]
        result += [DeviceDigit(name, a, b // a) for a, b in pairwise(bounds)] or [
            DeviceDigit(name, 1, size)
        ]
    return tuple(result)


def axis_names(mesh: Mesh, axes: Iterable[DeviceDigit]) -> tuple[str, ...]:
    """The names of digits as axes of a jax mesh: `x` for a whole axis, `x:(1)2` for a part."""
    return tuple(format_factor(axis, mesh) for axis in axes)


def covering(digit: DeviceDigit, axes: Sequence[DeviceDigit]) -> tuple[DeviceDigit, ...] | None:
    """The refined axes that make up a digit, major first; None if they do not."""
    inside = [a for a in axes if a.axis == digit.axis and digit.pre <= a.pre and a.end <= digit.end]
    bounds = [digit.pre, *(axis.end for axis in inside)]
    starts = [axis.pre for axis in inside]
    return tuple(inside) if bounds == [*starts, digit.end] else None


def refined_mesh(
    mesh: Mesh, jax_mesh: jax.sharding.Mesh, axes: Sequence[DeviceDigit]
) -> jax.sharding.Mesh:
    """The devices of a jax mesh in the same order, with an axis per digit of our mesh."""
    if len(axes) == len(mesh.axes):
        return jax_mesh
    devices = np.asarray(jax_mesh.devices).reshape([axis.size for axis in axes])
    kinds = dict(zip(jax_mesh.axis_names, jax_mesh.axis_types, strict=True))
    types = tuple(kinds[axis.axis] for axis in axes)
    return jax.sharding.Mesh(devices, axis_names(mesh, axes), axis_types=types)


def partition_spec(t: ArrayType, axes: Sequence[DeviceDigit] | None = None) -> Any:
    """The PartitionSpec of a type over refined axes; over the whole axes of its mesh without them.

    Partial sums are its unreduced axes. Raises LayoutError for what a PartitionSpec cannot say: a
    local factor before an axis, another reduction, or a sub-axis that is no axis there.
    """
    if t.partial and t.reduction != "sum":
        raise LayoutError(f"unreduced axes of a PartitionSpec are sums; got {t}", type=t)
    axes = axes or named_axes(t.mesh)

    def named(factor: Factor) -> tuple[str, ...]:
        if isinstance(factor, Local):
            raise LayoutError(
                f"a PartitionSpec has no local factor before an axis; got {t}", type=t
            )
        parts = covering(factor, axes)
        if parts is None:
            raise LayoutError(
                f"{factor} of {t} is not made of the axes {', '.join(map(str, axes))}", type=t
            )
        return axis_names(t.mesh, parts)

    entries = [tuple(name for factor in factors for name in named(factor)) for factors in t.dims]
    unreduced = {name for digit in t.partial for name in named(digit)}
    return PartitionSpec(*entries, **({"unreduced": unreduced} if unreduced else {}))


def named(jax_mesh: Any, spec: Any) -> NamedSharding:
    """The NamedSharding of a spec. Raises LayoutError where jax has none: for unknown axes, say."""
    try:
        return NamedSharding(jax_mesh, spec)
    except Exception as error:  # DuplicateSpecError is no ValueError
        raise LayoutError(f"a spec fits its mesh; got {spec} on {jax_mesh}: {error}") from error


def abstract(jax_mesh: Any) -> Any:
    """The AbstractMesh of a jax mesh, which types carry inside jit."""
    return getattr(jax_mesh, "abstract_mesh", jax_mesh)


def context_mesh() -> Any:
    """The AbstractMesh that is in context, an empty one where none is."""
    return jax.sharding.get_abstract_mesh()


def is_explicit(mesh: Any) -> bool:
    """Whether all axes of a mesh are Explicit, so that types inside jit carry shardings."""
    return not mesh.empty and all(kind == AxisType.Explicit for kind in mesh.axis_types)


def has_explicit(mesh: Any) -> bool:
    """Whether some axes of a mesh are Explicit, so that types inside jit carry a part at least."""
    return not mesh.empty and any(kind == AxisType.Explicit for kind in mesh.axis_types)


def check_mesh(mesh: Mesh, jax_mesh: Any) -> None:
    """Raise LayoutError unless a jax mesh has the axes, in order, and the devices of ours."""
    shape = tuple((str(name), int(size)) for name, size in jax_mesh.shape.items())
    if shape != mesh.axes:
        raise LayoutError(
            f"the jax mesh has the axes of the plan, {mesh}; got "
            f"{','.join(f'{name}={size}' for name, size in shape)}",
            mesh=mesh,
        )
    if mesh.devices is not None:
        ids = tuple(device.id for device in np.asarray(jax_mesh.devices).flat)
        if ids != mesh.devices:
            raise LayoutError(
                f"the jax mesh has the devices of the plan, {list(mesh.devices)}; got {list(ids)}",
                mesh=mesh,
            )
