"""Redistributions without an object, and meshes of what programs have already.

    tile = redistribute(tile, ("f32[8{x}, 8]", mesh), "f32[8, 8{x}]", comm)

makes a `Redistribution` in the first call and keeps it with the communicator for the next ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpi4py import MPI

from redistrib.backends.mpi.communicators import claimed, private
from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.errors import BackendError
from redistrib.text import brief
from redistrib.types.mesh import Mesh
from redistrib.types.named_sharding import TypeLike

KEPT = 32
"""Redistributions that are kept for each communicator; the one longest not used goes first."""
NAMES = "xyzuvw"


def redistribute(
    tile: Tile | None,
    src: TypeLike,
    dst: TypeLike,
    comm: MPI.Intracomm,
    out: Tile | None = None,
    **options: Any,
) -> Any:
    """This rank's tile of `dst` from its tile of `src`. Collective.

    The types, options and errors are those of `Redistribution`; options that cannot be a key of a
    dictionary make a new one in each call, so give tuples of ranks, not lists.
    """
    with claimed(comm) as contended:
        if contended is not None:
            raise contended
        kept = private(comm).redistributions
    key = src, dst, *sorted(options.items())
    try:
        cached = kept.pop(key, None)
    except TypeError:
        with Redistribution(src, dst, comm, **options) as redistribution:
            return redistribution(tile, out)
    if cached is None:
        cached = Redistribution(src, dst, comm, **options)
        while len(kept) >= KEPT:
            kept.pop(next(iter(kept))).free()
    kept[key] = cached
    return cached(tile, out)


def mesh_of(comm: MPI.Cartcomm, names: Sequence[str] | None = None) -> Mesh:
    """The mesh of a Cartesian communicator: an axis for each dimension, x, y, z, ... or as named.

    Its ranks are the positions, row-major, as MPI numbers them. Raises BackendError for any other
    communicator, and unless there is a name for each dimension.
    """
    if not isinstance(comm, MPI.Cartcomm):
        raise BackendError(
            f"a mesh is that of a Cartcomm (comm.Create_cart); got {brief(comm)}", comm=comm
        )
    chosen = list(NAMES[: comm.ndim] if names is None else names)
    if len(chosen) != comm.ndim:
        raise BackendError(
            f"there is a name for each of the {comm.ndim} dimensions; got {chosen}", names=chosen
        )
    return Mesh(list(zip(chosen, comm.dims, strict=True)))
