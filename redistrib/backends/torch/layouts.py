"""DTensor's layouts as types: mesh, placements and the order of shards.

On a DeviceMesh of 2 x 2 ranks, `[Shard(0), Shard(0)]` of 8 rows gives rank 1 rows 2 and 3, as the
type `f32[8{dp,tp}]` does on the mesh dp=2,tp=2. An average is a sum that is divided at the end; a
dimension that its mesh dimensions do not divide is cut as torch.chunk cuts (uneven.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec
from torch.distributed.tensor.placement_types import _StridedShard

from redistrib.backends.torch.dtypes import short_name, torch_dtype
from redistrib.backends.torch.uneven import UnevenType
from redistrib.errors import LayoutError
from redistrib.interop.dtensor import parse_dtensor
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh
from redistrib.types.reduction import REDUCTIONS

DeviceMesh = Any
Placement = Any
Order = tuple[tuple[int, tuple[int, ...]], ...]
"""Per tensor dimension the mesh dimensions that shard it, first to last."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a DTensor's ranks hold.

    type: None where a dimension is cut unevenly. nested: the same layout by successive cuts, None
    where a strided shard is none. averaged: by how much its addends are too large, where they are
    averaged.
    """

    type: ArrayType | None
    nested: UnevenType | None
    averaged: int = 1


def layout_of(spec: DTensorSpec) -> Layout:
    """The layout that a DTensorSpec describes.

    Raises LayoutError for placements that are no layout of elements, as partial norms and masks.
    """
    meta, placements = spec.tensor_meta, tuple(spec.placements)
    for placement in placements:
        if type(placement) not in (Shard, _StridedShard, Replicate, Partial):
            raise LayoutError(
                f"placements are Shard, Replicate or Partial of elements; got {placement}",
                placement=placement,
            )
    order: Order | None = None
    if any(isinstance(placement, _StridedShard) for placement in placements):
        order = DTensorSpec._maybe_convert_StridedShard_to_shard_order(placements, spec.mesh)  # noqa: SLF001
    else:
        order = spec.shard_order
    mesh = mesh_of(spec.mesh)
    given = None if order is None else tuple((dim, tuple(by)) for dim, by in order)
    return _layout(mesh, tuple(meta.shape), short_name(meta.dtype), placements, given)


@lru_cache(maxsize=1024)
def mesh_of(mesh: DeviceMesh) -> Mesh:
    """The mesh of a DeviceMesh; device ids are ranks, axes have its names or m0, m1, ..."""
    names = mesh.mesh_dim_names or [f"m{n}" for n in range(mesh.ndim)]
    axes = list(zip(names, mesh.mesh.shape, strict=True))
    return Mesh(axes, devices=mesh.mesh.flatten().tolist())


@lru_cache(maxsize=4096)
def _layout(
    mesh: Mesh,
    shape: tuple[int, ...],
    dtype: str,
    placements: tuple[Placement, ...],
    order: Order | None,
) -> Layout:
    """`order` is that of all shards, None where strided shards have none."""
    averaged = 1
    for (_, size), placement in zip(mesh.axes, placements, strict=True):
        if isinstance(placement, Partial) and placement.reduce_op == "avg":
            averaged *= size
    if averaged > 1 and torch_dtype(dtype) in _WHOLE:
        raise LayoutError(f"averages are of floats; got dtype {dtype}", dtype=dtype)
    nested = None if order is None else _nested(mesh, shape, dtype, placements, dict(order))
    if nested is not None and not nested.even:
        return Layout(None, nested, averaged)
    orders = {}
    if not any(isinstance(placement, _StridedShard) for placement in placements):
        orders = {n: at for _, by in order or () for at, n in enumerate(by)}
    words = [_word(placement, orders.get(n)) for n, placement in enumerate(placements)]
    even = parse_dtensor(f"[{', '.join(words)}]", mesh, shape, dtype)
    return Layout(even, nested, averaged)


_WHOLE = frozenset(
    {torch.bool, *(getattr(torch, f"{u}int{n}") for u in ("", "u") for n in (8, 16, 32, 64))}
)


def _word(placement: Placement, order: int | None) -> str:
    """A placement as interop reads it; an average is a sum, which is divided at the end."""
    if isinstance(placement, Partial):
        return "Partial(sum)" if placement.reduce_op == "avg" else f"Partial({placement.reduce_op})"
    if isinstance(placement, _StridedShard):
        return f"_StridedShard(dim={placement.dim}, sf={placement.split_factor})"
    if isinstance(placement, Shard):
        return f"Shard(dim={placement.dim})" + ("" if order is None else f"[{order}]")
    return "Replicate()"


def _nested(
    mesh: Mesh,
    shape: tuple[int, ...],
    dtype: str,
    placements: Sequence[Placement],
    order: dict[int, tuple[int, ...]],
) -> UnevenType:
    names = [name for name, _ in mesh.axes]
    shards = tuple(tuple(names[at] for at in order.get(dim, ())) for dim in range(len(shape)))
    partial = [at for at, placement in enumerate(placements) if isinstance(placement, Partial)]
    kinds = {"avg": "sum", "product": "prod"}
    reductions = [kinds.get(placements[at].reduce_op, placements[at].reduce_op) for at in partial]
    if len(set(reductions)) > 1 or not set(reductions) <= set(REDUCTIONS):
        raise LayoutError(
            f"a type has one reduction, of {', '.join(REDUCTIONS)}; got {list(placements)}"
        )
    reduction = reductions[0] if reductions else None
    return UnevenType(mesh, dtype, shape, shards, tuple(names[at] for at in partial), reduction)
