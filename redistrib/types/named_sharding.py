"""The mesh and the type that a JAX sharding stands for, read without importing jax.

A NamedSharding is a mesh with names and a spec with an entry per dimension: None, an axis, or axes
major to minor, which is the order of our factors. `unreduced` axes of a spec are partial axes,
`reduced` ones are replicated: the mark says how cotangents are laid out, not where the data is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

TypeLike = ArrayType | tuple[Sequence[int], object, Any]
"""A type, or the shape and dtype of an array and its NamedSharding."""


def as_type(given: TypeLike) -> ArrayType:
    """The type that is given as one, or as (shape, dtype, NamedSharding). Raises LayoutError."""
    if isinstance(given, ArrayType):
        return given
    try:
        shape, dtype, sharding = given
    except (TypeError, ValueError):
        raise LayoutError(
            f"a type is an ArrayType or (shape, dtype, NamedSharding); got {given!r}", given=given
        ) from None
    return type_of(shape, dtype, sharding)


def mesh_of(jax_mesh: Any) -> Mesh:
    """The mesh of a jax Mesh, with the ids of its devices; positions alone for an AbstractMesh."""
    axes = [(str(name), int(size)) for name, size in jax_mesh.shape.items()]
    try:
        devices = jax_mesh.devices
    except ValueError:  # an AbstractMesh has none
        return Mesh(axes)
    return Mesh(axes, devices=[device.id for device in np.asarray(devices).flat])


def type_of(shape: Sequence[int], dtype: object, sharding: Any) -> ArrayType:
    """The type of an array with a NamedSharding, given as such or as anything with `mesh`, `spec`.

    Raises LayoutError for other shardings, for unconstrained or unknown axes, and where the
    axes of a dimension do not divide it.

    >>> from types import SimpleNamespace as Like
    >>> spec = Like(partitions=(("y", "x"), None), unreduced=frozenset({"z"}))
    >>> mesh = Like(shape={"x": 2, "y": 4, "z": 2}, devices=np.array([]))
    >>> mesh.devices = np.array([Like(id=i) for i in range(16)])
    >>> str(type_of((8, 3), "float32", Like(mesh=mesh, spec=spec)))
    'f32[8{y,x}, 3] sum{z}'
    """
    try:
        jax_mesh, spec = sharding.mesh, sharding.spec
    except AttributeError:
        raise LayoutError(
            f"a sharding is a NamedSharding; got {type(sharding).__name__}", sharding=sharding
        ) from None
    entries = entries_of(spec)
    if len(entries) > len(shape):
        raise LayoutError(
            f"a spec has at most one entry for each of the {len(shape)} dimensions; got {spec}",
            sharding=sharding,
        )
    dims = [_axes(entry, spec) for entry in entries] + [()] * (len(shape) - len(entries))
    partial = [str(name) for name in getattr(spec, "unreduced", ())]
    return ArrayType(mesh_of(jax_mesh), dtype, shape, dims, partial)


def entries_of(spec: Any) -> tuple[Any, ...]:
    """The entries of a PartitionSpec, one per dimension that it names."""
    # Newer specs with unreduced axes refuse to be iterated over; older ones have no `partitions`.
    return tuple(spec.partitions if hasattr(spec, "partitions") else spec)


def _axes(entry: object, spec: object) -> tuple[str, ...]:
    match entry:
        case None:
            return ()
        case str():
            return (entry,)
        case tuple():
            return tuple(str(name) for name in entry)
        case _:
            raise LayoutError(
                f"an entry of a spec is an axis, axes or None; got {entry!r} in {spec}", spec=spec
            )
