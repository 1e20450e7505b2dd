"""Redistribution of DTensors: from one layout to another, on one DeviceMesh or between two.

Law: on global tensors it is the identity, so its derivative is itself, and a gradient goes back by
the plan from its own layout to the source's. As DTensor has it, the gradient of what was partial is
replicated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec
from torch.distributed.tensor.placement_types import _StridedShard

from redistrib.backends.torch.choices import planned
from redistrib.backends.torch.layouts import Layout, layout_of
from redistrib.backends.torch.primitives import Placed
from redistrib.backends.torch.programs import (
    Program,
    Running,
    backend_of,
    check_initialized,
    device_of,
    groups_of,
)
from redistrib.errors import LayoutError

Tensor = Any
DeviceMesh = Any
Placement = Any


def redistribute(
    x: DTensor,
    mesh: DeviceMesh | None = None,
    placements: Sequence[Placement] | None = None,
    *,
    async_op: bool = False,
) -> Any:
    """The DTensor with other placements, on the same or another DeviceMesh. Collective.

    mesh: by default that of `x`. placements: one per mesh dimension; by default all `Replicate`.
    All ranks of both meshes take part; on those outside of a mesh the local tensor is empty.
    async_op: the first messages are on their way when it returns, with a `Pending`, whose `wait()`
        gives the DTensor. Until then the local tensor of `x` is not to be written.

    It is differentiable, any number of times; torch.compile breaks its graph there. No tile on the
    way is larger than the larger of the two ends. Raises LayoutError for what is no layout of
    elements, and for uneven strided shards.

        y = rtorch.redistribute(x, mesh, [Replicate(), Shard(1)])
    """
    return _outside_of_graphs(x, mesh, placements, async_op)


def _redistribute(
    x: DTensor,
    mesh: DeviceMesh | None,
    placements: Sequence[Placement] | None,
    async_op: bool,
) -> Any:
    check_initialized()
    mesh = x.device_mesh if mesh is None else mesh
    target = target_spec(x, mesh, placements)
    if not async_op:
        return _Redistribute.apply(x, target, None)
    return Pending(x, target, find_move(x._spec, target).start(local_of(x)))  # noqa: SLF001


_outside_of_graphs: Any = torch.compiler.disable(_redistribute)
"""Planning and messages are no operators that torch.compile could trace: its graph ends before."""


class Pending:
    """A redistribution that has been started."""

    def __init__(self, x: DTensor, target: DTensorSpec, running: Running) -> None:
        self._x, self._target, self._running = x, target, running
        self._result: DTensor | None = None

    def wait(self) -> DTensor:
        """The DTensor in its new layout; again the same when called again."""
        if self._result is None:
            self._result = _Redistribute.apply(self._x, self._target, self._running)
        return self._result


def target_spec(
    x: DTensor, mesh: DeviceMesh, placements: Sequence[Placement] | None
) -> DTensorSpec:
    """The spec of a target: dimensions counted from the end are made positive.

    Raises LayoutError unless there is a placement for each mesh dimension.
    """
    chosen = [Replicate()] * mesh.ndim if placements is None else list(placements)
    if len(chosen) != mesh.ndim:
        raise LayoutError(
            f"there is a placement for each of the {mesh.ndim} mesh dimensions; got {chosen}",
            placements=chosen,
        )
    for n, placement in enumerate(chosen):
        dim = getattr(placement, "dim", 0)
        if not -x.ndim <= dim < max(x.ndim, 1):
            raise LayoutError(
                f"a shard is of one of the {x.ndim} dimensions of the tensor; got {placement}",
                placement=placement,
            )
        if dim < 0 and isinstance(placement, Shard):
            chosen[n] = Shard(dim + x.ndim)
        elif dim < 0:
            chosen[n] = _StridedShard(dim + x.ndim, split_factor=placement.split_factor)
    return DTensorSpec(mesh, tuple(chosen), tensor_meta=x._spec.tensor_meta)  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Move:
    """A program between two layouts, and what the result is multiplied and divided by."""

    program: Program
    times: int
    over: int

    def __call__(self, tile: Tensor | None) -> Tensor | None:
        """This rank's tile of the target."""
        return self.scaled(self.program(tile))

    def start(self, tile: Tensor | None) -> Running:
        """Begin a call; what `wait` gives is to be `scaled`."""
        return self.program.start(tile)

    def scaled(self, tile: Tensor | None) -> Tensor | None:
        """Sums as averages, and the reverse."""
        if tile is None or self.times == self.over:
            return tile
        return tile * self.times / self.over


def find_move(src: DTensorSpec, dst: DTensorSpec) -> Move:
    """The move between two specs, made once per pair."""
    return _find_move(layout_of(src), layout_of(dst), Meshes(src.mesh, dst.mesh, dist.group.WORLD))


@dataclass(frozen=True, slots=True)
class Meshes:
    """The DeviceMeshes at the two ends, in the job of a default process group."""

    src: DeviceMesh
    dst: DeviceMesh
    job: Any


@lru_cache(maxsize=1024)
def _find_move(src: Layout, dst: Layout, meshes: Meshes) -> Move:
    device = device_of(meshes.src)
    found = planned(src.type, dst.type, backend_of(device))
    ends = {t.mesh for t in (found.src, *found.types, found.dst)}
    groups = groups_of(meshes.src) | groups_of(meshes.dst)
    placed = Placed(dist.get_rank(), {mesh: mesh.ids for mesh in ends}, device, groups)
    return Move(Program(found, placed), dst.averaged, src.averaged)


def local_of(x: DTensor) -> Tensor | None:
    """The local tensor, once it is there; None on a rank outside of the mesh."""
    if x.device_mesh.get_coordinate() is None:
        return None
    tile = x._local_tensor  # noqa: SLF001
    return tile.wait() if isinstance(tile, AsyncCollectiveTensor) else tile


class _Redistribute(torch.autograd.Function):
    """The move, and the move of its gradient, which is one too."""

    @staticmethod
    def forward(ctx: Any, x: DTensor, target: DTensorSpec, running: Running | None) -> DTensor:
        ctx.spec = x._spec  # noqa: SLF001
        move = find_move(ctx.spec, target)
        tile = move(local_of(x)) if running is None else move.scaled(running.wait())
        if tile is None:
            tile = torch.empty(0, dtype=x.dtype, device=move.program.placed.device)
        elif tile is x._local_tensor:  # noqa: SLF001
            tile = tile.view_as(tile)
        return DTensor(tile, target, requires_grad=x.requires_grad)

    @staticmethod
    def backward(ctx: Any, gradient: DTensor) -> tuple[DTensor, None, None]:
        return _Redistribute.apply(gradient, gradient_spec(ctx.spec, gradient), None), None, None


def gradient_spec(source: DTensorSpec, gradient: DTensor) -> DTensorSpec:
    """Where the gradient of a source goes: as the source is, what was partial replicated."""
    whole = [Replicate() if isinstance(p, Partial) else p for p in source.placements]
    return DTensorSpec(
        source.mesh,
        tuple(whole),
        tensor_meta=gradient._spec.tensor_meta,  # noqa: SLF001
        **({} if source.use_strided_shard_as_shard_order else {"shard_order": source.shard_order}),
    )
