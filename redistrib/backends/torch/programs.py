"""A plan as a program of each rank: made once, called with its tile.

The plan's tile program is walked operation by operation. Where one has posted messages, a call that
was started returns, and `wait` goes on: of a plan of one exchange all that is then left to do is
to put pieces in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from redistrib.backends.torch.agreement import Agreement
from redistrib.backends.torch.choices import choices
from redistrib.backends.torch.dtypes import torch_dtype
from redistrib.backends.torch.graphs import InGraph, move
from redistrib.backends.torch.messages import Posted, Traffic
from redistrib.backends.torch.primitives import Placed, TilePrimitives
from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.tile_program import interpret, tile_program
from redistrib.types.mesh import Mesh

Tensor = Any
DeviceMesh = Any


class Program:
    """The part of one rank in a plan, called with its tile of the source.

    A call is collective: all ranks of both meshes take part. A rank without a tile of the source
    passes None; one without a tile of the target gets None. Tiles are tensors of the plan's tile
    shapes and dtype, with any strides; the result is contiguous, and is the tile that was passed
    where a plan has no steps; else it shares no memory with it.

    It has no gradient; `redistribute` does. torch.compile has it in its graph, but on ranks that
    lack a tile of an end.

    The first call is agreed on: a wrong tile or another plan on one rank is an error on all of
    them. For a wrong tile of a later call the others wait until the timeout, and name its rank.

    timeout: seconds that a message may take; by default those of the process group.
    """

    def __init__(self, plan: Plan, placed: Placed, timeout: float | None = None) -> None:
        self.plan, self.placed, self.timeout = plan, placed, timeout
        self._operations = [
            operation
            for step in tile_program(plan.steps, plan.types)
            if any(placed.position(t.mesh) is not None for t in (step.before, step.after))
            for operation in step.operations
        ]
        self._primitives = TilePrimitives(placed, choices(backend_of(placed.device)))
        position = placed.position(plan.dst.mesh)
        self.graph: InGraph | None = None
        if position is not None and placed.position(plan.src.mesh) is not None:
            shape = plan.dst.tile_shape_at(position)
            self.graph = InGraph(self._run, shape, torch_dtype(plan.dst.dtype))
        ranks = {rank for of_mesh in placed.ranks.values() for rank in of_mesh}
        self._agreement = Agreement(
            f"{plan.src} -> {plan.dst}",
            f"{sorted(map(str, placed.ranks.items()))} {plan.to_json()}",
            tuple(ranks),
            placed.device,
            timeout,
        )

    @property
    def traffic(self) -> Traffic:
        """What this rank has received and sent in all its calls, in bytes."""
        return self._primitives.traffic

    def __call__(self, tile: Tensor | None) -> Tensor | None:
        """The tile of the target. Raises BackendError for a wrong tile, or a rank that is lost."""
        if tile is None or self.graph is None or not torch.compiler.is_compiling():
            return self._run(tile)
        return move(tile.detach(), self.graph.number)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _run(self, tile: Tensor | None) -> Tensor | None:
        return self.start(tile).wait()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def start(self, tile: Tensor | None) -> Running:
        """Begin a call: the first messages are on their way; `wait` ends it."""
        tile = None if tile is None else tile.detach()
        call = self._agreement.enter(lambda: self._check(tile))
        return Running(self._with_cause(self._walk(tile), call))

    def _with_cause(self, walk: Iterator[Tensor | None], call: int) -> Iterator[Tensor | None]:
        """A walk whose errors name the rank at fault, where that has reported an error."""
        try:
            yield from walk
        except BackendError as error:
            raise self._agreement.cause(call, error) from error

    def _walk(self, source: Tensor | None) -> Iterator[Tensor | None]:
        """Yields where messages are on their way, and at the end, last, the tile."""
        tile = self._padded(source)
        for operation in self._operations:
            value = interpret((operation,), self._primitives, tile)
            while isinstance(value, Posted):
                yield None
                value = value.finish(self.timeout)
            tile = value
        tile = self._cut(tile)
        if tile is not None and self._operations:
            tile = tile.contiguous()
            if source is not None and _share(tile, source):
                tile = tile.clone()
        yield tile

    def _padded(self, tile: Tensor | None) -> Tensor | None:
        """An uneven tile as the corner of an even one, where the plan is of the padded array."""
        shape = self.plan.types[0].tile_shape
        if tile is None or self.plan.padded_shape is None or tuple(tile.shape) == shape:
            return tile
        padded = tile.new_zeros(shape)
        padded[tuple(map(slice, tile.shape))] = tile
        return padded

    def _cut(self, tile: Tensor | None) -> Tensor | None:
        """The corner of a padded tile that this rank holds of the target."""
        position = self.placed.position(self.plan.dst.mesh)
        if tile is None or position is None or self.plan.padded_shape is None:
            return tile
        return tile[tuple(map(slice, self.plan.dst.tile_shape_at(position)))]

    def _check(self, tile: Tensor | None) -> None:
        """Raise BackendError unless it is this rank's tile of the source."""
        src = self.plan.src
        position = self.placed.position(src.mesh)
        if position is None:
            if tile is not None:
                raise BackendError(
                    f"a rank outside the source's mesh passes None; rank {self.placed.rank} passed "
                    f"a tensor of shape {list(tile.shape)}",
                    rank=self.placed.rank,
                )
            return
        meant = in_words(src.tile_shape_at(position), src.dtype, self.placed.device)
        got = "None" if tile is None else tile_in_words(tile)
        if got != meant:
            raise BackendError(
                f"a tile of {src} has {meant}; got {got}", type=src, rank=self.placed.rank
            )


class Running:
    """A call that has been started."""

    def __init__(self, walk: Iterator[Tensor | None]) -> None:
        self._walk = walk
        self._tile = next(walk)
        self._done = self._tile is not None

    def wait(self) -> Tensor | None:
        """The tile of the target, None on a rank that has none; once, and then again the same."""
        if not self._done:
            for tile in self._walk:
                self._tile = tile
            self._done = True
        return self._tile


def compile(  # noqa: A001 - the public name
    plan: Plan, mesh: DeviceMesh | None = None, *, timeout: float | None = None
) -> Program:
    """The program of a plan on this rank.

    Position p of the plan's mesh is the rank at place p of `mesh`, a DeviceMesh, in row-major
    order. Without one, as it must be for a plan between two meshes, device ids are ranks.

    The tiles are on the device of `mesh`, or else on the CPU. Raises BackendError where torch has
    no process group, or the mesh another size.
    """
    check_initialized()
    meshes = {t.mesh for t in (*plan.types, plan.src, plan.dst)}
    if mesh is None:
        ranks = {m: m.ids for m in meshes}
        placed = Placed(dist.get_rank(), ranks)
    else:
        members = tuple(mesh.mesh.flatten().tolist())
        if len(members) != plan.src.mesh.num_devices:
            raise BackendError(
                f"a mesh for this plan has {plan.src.mesh.num_devices} ranks; got {len(members)}",
                mesh=mesh,
            )
        ids = dict(zip(plan.src.mesh.ids, members, strict=True))
        ranks = {m: tuple(ids[device] for device in m.ids) for m in meshes}
        placed = Placed(dist.get_rank(), ranks, device_of(mesh), groups_of(mesh))
    check_ranks(ranks)
    return Program(plan, placed, timeout)


def in_words(shape: Sequence[int], dtype: str, device: Any) -> str:
    """What a tile is to be, in words that errors show and that `tile_in_words` is compared with."""
    return f"shape {list(shape)}, {torch_dtype(dtype)}, on {torch.device(device).type}"


def tile_in_words(tile: Tensor) -> str:
    """What a tile is, in the words of `in_words`."""
    return f"shape {list(tile.shape)}, {tile.dtype}, on {tile.device.type}"


def check_initialized() -> None:
    """Raise BackendError where torch has no process group."""
    if not dist.is_available() or not dist.is_initialized():
        raise BackendError(
            "plans run over torch.distributed: call torch.distributed.init_process_group first"
        )


def check_ranks(ranks: Mapping[Mesh, Sequence[int]]) -> None:
    """Raise BackendError for a rank that the job does not have."""
    size = dist.get_world_size()
    last = max((rank for of_mesh in ranks.values() for rank in of_mesh), default=0)
    if last >= size:
        raise BackendError(f"ranks are 0 to {size - 1}; the mesh has rank {last}", rank=last)


def device_of(mesh: DeviceMesh) -> Any:
    """Where this rank's tiles of a DeviceMesh are."""
    kind = mesh.device_type
    return torch.device(kind) if kind == "cpu" else torch.device(kind, _current(kind))


def _current(kind: str) -> int:
    return int(torch.get_device_module(kind).current_device())


def groups_of(mesh: DeviceMesh) -> dict[tuple[int, ...], Any]:
    """The process groups that this rank has in a DeviceMesh, by their ranks in order."""
    if mesh.get_coordinate() is None:
        return {}
    groups = {}
    for group in mesh.get_all_groups():
        groups[tuple(dist.get_process_group_ranks(group))] = group
    everyone = tuple(range(dist.get_world_size()))
    groups.setdefault(everyone, dist.group.WORLD)
    return groups


def backend_of(device: Any) -> str:
    """The backend of torch.distributed for tensors on a device."""
    backend = str(dist.get_backend())
    # One that names a backend for each kind of device is written cpu:gloo,cuda:nccl.
    pairs = dict(part.split(":") for part in backend.split(",") if ":" in part)
    return pairs.get(torch.device(device).type, backend)


def _share(a: Tensor, b: Tensor) -> bool:
    return bool(a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr())
