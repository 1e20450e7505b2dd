"""The types that callers give: as objects, as texts, or as JAX shardings, read without jax.

>>> mesh = Mesh(x=2, y=4)
>>> [str(t) for t in as_types(("f32[8{x}, 8]", mesh), "f32[8, 8{x}]")]
['f32[8{x}, 8]', 'f32[8, 8{x}]']

A NamedSharding is a mesh with names and a spec with an entry per dimension: None, an axis, or axes
major to minor, as the factors of a type are. `unreduced` axes of a spec are partial axes,
`reduced` ones are replicated: the mark says how cotangents are laid out, not where the data is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from redistrib.errors import LayoutError
from redistrib.text import brief
from redistrib.types.array_type import ArrayType
from redistrib.types.canonical import as_list, as_shape
from redistrib.types.mesh import Mesh
from redistrib.types.uneven import CEIL

TypeLike = ArrayType | tuple[str, Mesh] | str | tuple[Sequence[int], object, Any]
"""A type; its text with its mesh, or alone where the mesh is known; or the shape and dtype of an
array with its NamedSharding."""


def as_type(value: TypeLike, mesh: Mesh | None = None) -> ArrayType:
    """The type that is given in any of these ways; `mesh` is that of a text alone.

    >>> str(as_type(("f32[8{x}]", Mesh(x=2)))), str(as_type("f32[8{x}]", Mesh(x=2)))
    ('f32[8{x}]', 'f32[8{x}]')

    Raises LayoutError, and TypeSyntaxError for malformed text.
    """
    match value:
        case ArrayType():
            return value
        case str():
            if mesh is not None:
                return ArrayType.parse(value, mesh)
        case (str(text), Mesh() as given_mesh):
            return ArrayType.parse(text, given_mesh)
        case (shape, dtype, sharding):
            return type_of(shape, dtype, sharding, uneven=True)
    raise LayoutError(
        "a type is an ArrayType, a text where the other end or an oracle has the mesh, "
        f"(text, mesh) or (shape, dtype, NamedSharding); got {brief(value)}",
        given=value,
    )


def as_types(src: TypeLike, dst: TypeLike) -> tuple[ArrayType, ArrayType]:
    """The types of the two ends of a redistribution; a text alone is on the mesh of the other end.

    >>> mesh = Mesh(x=2, y=4)
    >>> [str(t) for t in as_types(("f32[8{x}]", mesh), "f32[8{y}]")]
    ['f32[8{x}]', 'f32[8{y}]']
    """
    if isinstance(src, str):
        target = as_type(dst)
        return as_type(src, target.mesh), target
    source = as_type(src)
    return source, as_type(dst, source.mesh)


def mesh_of(jax_mesh: Any) -> Mesh:
    """The mesh of a jax Mesh, with the ids of its devices; positions alone for an AbstractMesh."""
    try:
        axes = [(str(name), int(size)) for name, size in jax_mesh.shape.items()]
    except (AttributeError, TypeError, ValueError):
        raise LayoutError(f"a jax mesh has a shape; got {brief(jax_mesh)}", mesh=jax_mesh) from None
    try:
        devices = jax_mesh.devices
    except ValueError:  # an AbstractMesh has none
        return Mesh(axes)
    return Mesh(axes, devices=[device.id for device in np.asarray(devices).flat])


def type_of(
    shape: Sequence[int], dtype: object, sharding: Any, *, uneven: bool = False
) -> ArrayType:
    """The type of an array with a NamedSharding, given as such or as anything with `mesh`, `spec`.

    Raises LayoutError for other shardings, for unconstrained or unknown axes, and where the
    axes of a dimension do not divide it; with `uneven` that is blocks by the rule `ceil`, as XLA
    pads.

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
    entries, rank = entries_of(spec), len(as_shape(shape))
    if len(entries) > rank:
        raise LayoutError(
            f"a spec has at most one entry for each of the {rank} dimensions; got {spec}",
            sharding=sharding,
        )
    dims = [_axes(entry, spec) for entry in entries] + [()] * (rank - len(entries))
    partial = [str(name) for name in as_list(getattr(spec, "unreduced", ()), "axes", ordered=False)]
    rules = dict.fromkeys(range(rank), CEIL) if uneven else None
    return ArrayType(mesh_of(jax_mesh), dtype, shape, dims, partial, uneven=rules)


def entries_of(spec: Any) -> tuple[Any, ...]:
    """The entries of a PartitionSpec, one per dimension that it names."""
    # Newer specs with unreduced axes refuse to be iterated over; older ones have no `partitions`.
    rule = "a spec has an entry per dimension"
    return tuple(as_list(spec.partitions if hasattr(spec, "partitions") else spec, rule))


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
