"""DTensor's layouts as types: mesh, placements and the order of shards.

On a DeviceMesh of 2 x 2 ranks, `[Shard(0), Shard(0)]` of 8 rows gives rank 1 rows 2 and 3, as the
type `f32[8{dp,tp}]` does on the mesh dp=2,tp=2. An average is a sum that is divided at the end; a
dimension that its mesh dimensions do not divide is cut by one after the other, as torch.chunk cuts.

So it is cut under strided shards too, in the order of shards that they stand for, as FSDP2 cuts the
parameters of a tensor parallel module. `distribute_tensor` cuts a few sizes otherwise: of 7 rows on
3 x 2 ranks, tp first, it gives row 6 to tp 0. Where it does, some rank has more rows or fewer, so
a tile of the one is never taken for one of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec
from torch.distributed.tensor.placement_types import _StridedShard

from redistrib.backends.torch.dtypes import short_name, torch_dtype
from redistrib.errors import LayoutError
from redistrib.interop.dtensor import parse_dtensor
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

DeviceMesh = Any
Placement = Any
Order = tuple[tuple[int, tuple[int, ...]], ...]
"""Per tensor dimension the mesh dimensions that shard it, first to last."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The type of a DTensor, and by how much its addends are too large where they are averaged.

    as_torch: whether `distribute_tensor` makes the same tiles.
    """

    type: ArrayType
    averaged: int = 1
    as_torch: bool = True


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
        if isinstance(placement, Partial) and placement.reduce_op not in _REDUCTIONS:
            raise LayoutError(
                f"a reduction of elements is one of {', '.join(_REDUCTIONS)}; got {placement}",
                placement=placement,
            )
    order: Order | None = None
    if any(isinstance(placement, _StridedShard) for placement in placements):
        order = DTensorSpec._maybe_convert_StridedShard_to_shard_order(placements, spec.mesh)  # noqa: SLF001
    else:
        order = spec.shard_order
    mesh = mesh_of(spec.mesh)
    shard_order = None if order is None else tuple((dim, tuple(by)) for dim, by in order)
    return _layout(mesh, tuple(meta.shape), short_name(meta.dtype), placements, shard_order)


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
    orders = {n: place for _, by in order or () for place, n in enumerate(by)}
    words = [_word(placement, orders.get(n)) for n, placement in enumerate(placements)]
    t = parse_dtensor(f"[{', '.join(words)}]", mesh, shape, dtype)
    if not any(isinstance(p, _StridedShard) and p.dim in dict(t.uneven) for p in placements):
        return Layout(t, averaged)
    try:
        words = [_word(placement, None) for placement in placements]
        parse_dtensor(f"[{', '.join(words)}]", mesh, shape, dtype)
    except LayoutError:
        return Layout(t, averaged, as_torch=False)
    return Layout(t, averaged)


_REDUCTIONS = ("sum", "avg", "product", "max", "min")
_WHOLE = frozenset(
    {torch.bool, *(getattr(torch, f"{u}int{n}") for u in ("", "u") for n in (8, 16, 32, 64))}
)


def _word(placement: Placement, order: int | None) -> str:
    """A placement as interop reads it; an average is a sum, which is divided at the end."""
    if isinstance(placement, Partial):
        return "Partial(sum)" if placement.reduce_op == "avg" else f"Partial({placement.reduce_op})"
    if isinstance(placement, Replicate):
        return "Replicate()"
    if order is not None:  # of strided shards too, which are then shards in that order
        return f"Shard(dim={placement.dim})[{order}]"
    if isinstance(placement, _StridedShard):
        return f"_StridedShard(dim={placement.dim}, sf={placement.split_factor})"
    return f"Shard(dim={placement.dim})"
