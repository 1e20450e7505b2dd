"""Redistribution of DTensors: from one layout to another, on one DeviceMesh or between two.

Law: on global tensors it is the identity, so its derivative is itself, and a gradient goes back by
the plan from its own layout to the source's. As DTensor has it, the gradient of what was partial is
replicated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.distributed.tensor.placement_types import _StridedShard

from redistrib.backends.torch.choices import planned
from redistrib.backends.torch.graphs import InGraph, move, registered
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

    It is differentiable, any number of times. torch.compile has it in its graph as one operator;
    the graph breaks for `async_op`, and on a rank outside of either mesh. No tile on the way is
    larger than the larger of the two ends. Raises LayoutError for what is no layout of elements,
    and for uneven strided shards that stand for no order of shards.

        y = rtorch.redistribute(x, mesh, [Replicate(), Shard(1)])
    """
    if torch.compiler.is_compiling() and not async_op:
        to = x.device_mesh if mesh is None else mesh
        target = [Replicate()] * to.ndim if placements is None else placements
        number = _traced(
            x.device_mesh, x.placements, tuple(x.shape), x.stride(), x.dtype, to, tuple(target)
        )
        if number is not None:
            tile = move(x.to_local(), number)
            return DTensor.from_local(
                tile, to, target, run_check=False, shape=x.shape, stride=x.stride()
            )
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
"""What torch.compile cannot have in its graph, which ends before it."""


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]  # noqa: SLF001
def _traced(
    mesh: DeviceMesh,
    placements: tuple[Placement, ...],
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    dtype: Any,
    to: DeviceMesh,
    target: tuple[Placement, ...],
) -> int | None:
    """The number of a move in a graph; None on a rank outside of either mesh."""
    # Where a graph is traced meshes are wrapped.
    mesh, to = (getattr(m, "real_obj", m) for m in (mesh, to))
    meta = TensorMeta(torch.Size(shape), stride, dtype)
    specs = (DTensorSpec(on, p, tensor_meta=meta) for on, p in ((mesh, placements), (to, target)))
    graph = find_move(*specs).graph
    return None if graph is None else registered(graph)


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
    graph: InGraph | None = None
    """It as a graph has it, where this rank has a tile of both ends."""

    def __call__(self, tile: Tensor | None) -> Tensor | None:
        """This rank's tile of the target."""
        return self.scaled(self.program(tile))

    def start(self, tile: Tensor | None) -> Running:
        """Begin a call; what `wait` gives is to be `scaled`."""
        running: Running = self.program.start(tile)
        return running

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
    plan = planned(src.type, dst.type, backend_of(device))
    ends = {t.mesh for t in (plan.src, *plan.types, plan.dst)}
    groups = groups_of(meshes.src) | groups_of(meshes.dst)
    placed = Placed(dist.get_rank(), {mesh: mesh.ids for mesh in ends}, device, groups)
    move = Move(Program(plan, placed), dst.averaged, src.averaged)
    if (graph := move.program.graph) is None:
        return move

    def transposed() -> InGraph:
        reverse = _find_move(
            without_addends(dst), without_addends(src), Meshes(meshes.dst, meshes.src, meshes.job)
        )
        assert reverse.graph is not None
        return reverse.graph

    return replace(move, graph=InGraph(move, graph.shape, graph.dtype, transposed))


def without_addends(layout: Layout) -> Layout:
    """Where the gradient of a tensor goes: as the tensor is, what was partial replicated."""
    return replace(layout, type=layout.type.replace(partial=[]), averaged=1)


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
        ctx.spec, ctx.target = x._spec, target  # noqa: SLF001
        move = find_move(ctx.spec, target)
        tile = move(local_of(x)) if running is None else move.scaled(running.wait())
        if tile is None:
            tile = torch.empty(0, dtype=x.dtype, device=move.program.placed.device)
        elif tile is x._local_tensor:  # noqa: SLF001
            tile = tile.view_as(tile)
        return DTensor(tile, target, requires_grad=x.requires_grad)

    @staticmethod
    def backward(ctx: Any, gradient: DTensor) -> tuple[DTensor, None, None]:
        if ctx.target.mesh != ctx.spec.mesh:
            # On ranks outside of its mesh a gradient has any layout: all go on from one they know.
            gradient = _Redistribute.apply(gradient, gradient_spec(ctx.target, gradient), None)
        return _Redistribute.apply(gradient, gradient_spec(ctx.spec, gradient), None), None, None


def gradient_spec(of: DTensorSpec, gradient: DTensor) -> DTensorSpec:
    """Where the gradient of a tensor goes: as the tensor is, what was partial replicated."""
    placements = [Replicate() if isinstance(p, Partial) else p for p in of.placements]
    return DTensorSpec(
        of.mesh,
        tuple(placements),
        tensor_meta=gradient._spec.tensor_meta,  # noqa: SLF001
        **({} if of.use_strided_shard_as_shard_order else {"shard_order": of.shard_order}),
    )
