"""Plans of whole models over torch.distributed: each rank derives its transfers and moves bytes.

Device ids of the plan are ranks. What a rank does is decided in `backends/model_messages.py`, for
every transport; here are messages, and the views of tiles in torch. Of a tile of 2 rows of 4, the
view with offset 1 and the run (2, stride 4) is the second column:

>>> tile = torch.arange(8).reshape(2, 4)
>>> strided(tile, 1, [(2, 4)]).tolist()
[1, 5]
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from redistrib.backends.model_messages import (
    BATCH,
    Pace,
    Phase,
    Progress,
    batches,
    completed_everywhere,
    lacking,
    needed,
    phases,
)
from redistrib.backends.torch.dtypes import identity, torch_dtype
from redistrib.backends.torch.layouts import layout_of, mesh_of
from redistrib.backends.torch.messages import Posted, Traffic, as_bytes, post
from redistrib.backends.torch.primitives import Placed
from redistrib.backends.torch.programs import (
    Program,
    check_initialized,
    check_ranks,
    in_words,
    tile_in_words,
)
from redistrib.errors import BackendError
from redistrib.models.model_plan import ModelPlan
from redistrib.models.moves import Move
from redistrib.models.transfers import Transfer
from redistrib.types.array_type import ArrayType

Tensor = Any
DeviceMesh = Any
Tiles = dict[str, Tensor]


class ModelRedistribution:
    """Moves the arrays of a model between ranks, as a plan says.

    Made and called collectively, by all ranks of the job. Rank n is device n of the plan; ranks
    that are no device take part with nothing.

    device: where the tiles are. timeout: seconds that a message may take; by default those of the
        process group. batch_bytes: bytes of target tiles that move together. Beside sources and
        targets a rank holds at most one message to and one from another rank, of what they exchange
        in a batch; `staged_bytes` is the most that it has held.

    A plan with `keep_sources=False` takes sources out of the mapping that it is given, when all
    ranks have made the last target of them: they are freed unless something else has them, and
    what is neither whole in `completed` nor in the mapping is nowhere.

    Raises BackendError on every rank if the ranks have different plans, and on those that wait for
    one that is lost.
    """

    completed: Tiles
    """The targets of this rank that are whole: all of them after a call, and those that were whole
    before its error after one that failed. Given to the next call, they are not moved again."""
    traffic: Traffic
    """What this rank has received and sent in all its calls, in bytes, without reductions."""
    staged_bytes: int

    def __init__(
        self,
        plan: ModelPlan,
        *,
        device: Any = "cpu",
        timeout: float | None = None,
        batch_bytes: int = BATCH,
    ) -> None:
        check_initialized()
        check_ranks({t.mesh: t.mesh.ids for t in (*plan.src.values(), *plan.dst.values())})
        self.plan, self.completed, self.traffic = plan, {}, Traffic()
        self.staged_bytes = 0
        self._reduced: set[str] = set()
        self._rank, self._device, self._timeout = dist.get_rank(), device, timeout
        told = hashlib.sha256(f"{batch_bytes} {plan.to_json()}".encode()).hexdigest()
        heard = _from_all_ranks(told)
        odd = next((rank for rank, text in enumerate(heard) if text != heard[0]), None)
        if odd is not None:
            raise BackendError(
                f"the ranks were given different model plans: rank {odd} has another than rank 0",
                rank=odd,
            )
        self._batches = list(batches(plan, batch_bytes))
        self._reductions = {}
        for name, reduction in plan.reductions.items():
            meshes = {t.mesh for t in reduction.types}
            placed = Placed(self._rank, {m: m.ids for m in meshes}, device)
            self._reductions[name] = Program(reduction, placed, timeout=timeout)

    def __call__(
        self,
        tiles: Mapping[str, Tensor],
        *,
        into: Mapping[str, Tensor] | None = None,
        completed: Mapping[str, Tensor] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Tiles:
        """The tiles of this rank's targets, by name, from those of its sources. Collective.

        `tiles` and `into` hold tensors or DTensors; of a DTensor the local tensor is the tile.
        `into`: where targets are written that exist already, contiguous; others are allocated.
        `completed`: targets that an earlier call has made, the same names on all ranks that have
        them. `progress` is called after each batch. Sources of which all targets are completed on
        all ranks need not be there.
        """
        self.completed, self._reduced = dict(completed or {}), set()
        sources, skipped = self._agreed(tiles, into or {})
        received, done = self.traffic.received, 0
        pace = Pace(self.plan, skipped)
        for batch in self._batches:
            moves = [move for move in batch.moves if move.target not in skipped]
            self._reduce(moves, sources)
            self._move(moves, sources)
            if batch.released:
                Posted([dist.barrier(async_op=True)], lambda: None).finish(self._timeout)
                for name in batch.released:
                    sources.pop(name, None)
                    tiles.pop(name, None)  # type: ignore[attr-defined]
            done += len(batch.moves)
            if progress is not None:
                new = self.traffic.received - received
                progress(pace.progress(done, new))
        return self.completed

    def _agreed(
        self, tiles: Mapping[str, Tensor], into: Mapping[str, Tensor]
    ) -> tuple[Tiles, set[str]]:
        """The checked sources, and the targets that all have. Raises on all if it does on one."""
        sources: Tiles = {}
        error: BackendError | None = None
        try:
            if not (self.plan.keep_sources or isinstance(tiles, MutableMapping)):
                raise BackendError(
                    "sources that are released are taken out of a mapping that can be changed; got "
                    f"{type(tiles).__name__}"
                )
            sources = self._checked(self.plan.src, tiles, contiguous=False)
            self._into = self._checked(self.plan.dst, into, contiguous=True)
        except BackendError as raised:
            error = raised
        missing = [
            name
            for name, t in self.plan.src.items()
            if self._rank in t.mesh.ids and tiles.get(name) is None
        ]
        told = sorted(self.completed), missing, None if error is None else str(error)
        heard = _from_all_ranks(told)
        lacked = (lacking(self.plan, names, rank) for rank, (names, _, _) in enumerate(heard))
        skipped = completed_everywhere(self.plan, lacked)
        used = needed(self.plan, skipped)
        for rank, (_, names, reason) in enumerate(heard):
            lost = [name for name in names if name in used]
            text = reason or (f"a tile of {lost[0]} is missing" if lost else None)
            if text is not None:
                raise BackendError(f"rank {rank}: {text}", rank=rank) from error
        for name in set(self.completed) - skipped:
            del self.completed[name]
        return sources, skipped

    def _checked(
        self, types: Mapping[str, Any], tensors: Mapping[str, Tensor], *, contiguous: bool
    ) -> Tiles:
        """This rank's tiles that are given. Raises BackendError for one that is not of its type."""
        checked: Tiles = {}
        for name, t in types.items():
            tile = tensors.get(name)
            if tile is None or self._rank not in t.mesh.ids:
                continue
            tile = tile.to_local() if isinstance(tile, DTensor) else tile
            shape = t.tile_shape_at(t.mesh.ids.index(self._rank))
            meant, got = in_words(shape, t.dtype, self._device), tile_in_words(tile)
            if got != meant:
                raise BackendError(f"a tile of {name} has {meant}; got {got}", name=name)
            if contiguous and not tile.is_contiguous():
                raise BackendError(
                    f"a target that exists already is contiguous; got {name} with strides "
                    f"{tile.stride()}",
                    name=name,
                )
            checked[name] = tile.detach().contiguous()
        return checked

    def _reduce(self, moves: Sequence[Move], sources: Tiles) -> None:
        """Reduce the partial sources that some moves are the first to use."""
        for name in dict.fromkeys(name for move in moves for name, _ in move.sources):
            reduction = self._reductions.get(name)
            if reduction is not None and name not in self._reduced:
                self._reduced.add(name)
                if (reduced := reduction(sources.get(name))) is not None:
                    sources[name] = reduced

    def _move(self, moves: Sequence[Move], sources: Tiles) -> None:
        """Make the targets of some moves."""
        targets = dict(self.completed)
        for move in moves:
            t = self.plan.dst[move.target]
            if self._rank in t.mesh.ids:
                output = self._into.get(move.target)
                if output is None:
                    shape = t.tile_shape_at(t.mesh.ids.index(self._rank))
                    output = torch.empty(shape, dtype=torch_dtype(t.dtype), device=self._device)
                targets[move.target] = output
        for phase in phases(self.plan, moves, self._rank):
            held = targets if phase.passed_on else sources
            for transfer in phase.local:
                target = targets[transfer.target]
                if transfer.sender is None:
                    fill(transfer, target)
                else:
                    put(transfer, target, packed(transfer, held[str(transfer.source)]))
            for receiver, sender in phase.rounds(self._rank, dist.get_world_size()):
                self._exchange(phase, receiver, sender, held, targets)
        self.completed = targets

    def _exchange(
        self, phase: Phase, receiver: int, sender: int, held: Tiles, targets: Tiles
    ) -> None:
        """One message to a rank, and one from another."""
        sends, receives = phase.sends.get(receiver, []), phase.receives.get(sender, [])
        message = torch.empty(
            sum(transfer.wire_bytes for transfer in receives),
            dtype=torch.uint8,
            device=self._device,
        )
        joined = self._joined([(t, held[str(t.source)]) for t in sends])
        self.staged_bytes = max(self.staged_bytes, message.nbytes + joined.nbytes)
        posted = post({receiver: joined}, {sender: message}, lambda: None, self.traffic)
        posted.finish(self._timeout)
        start = 0
        for transfer in receives:
            end = start + transfer.wire_bytes
            part = message[start:end]
            dtype = torch_dtype(transfer.wire)
            if start % dtype.itemsize:  # behind elements of a narrower dtype
                part = part.clone()
            put(transfer, targets[transfer.target], part.view(dtype))
            start = end

    def _joined(self, parts: Sequence[tuple[Transfer, Tensor]]) -> Tensor:
        """What is sent in one message, as bytes; alone it is not copied where it is one run."""
        if len(parts) == 1:
            return as_bytes(packed(*parts[0]))
        size = sum(transfer.wire_bytes for transfer, _ in parts)
        joined = torch.empty(size, dtype=torch.uint8, device=self._device)
        start = 0
        for transfer, tile in parts:
            end = start + transfer.wire_bytes
            joined[start:end] = as_bytes(packed(transfer, tile))
            start = end
        return joined


def types_of(tensors: Mapping[str, Tensor], mesh: DeviceMesh) -> dict[str, ArrayType]:
    """The types of the tensors of a state dict, by name.

    Those of DTensors are their own. One on a slice of `mesh`, as tensor parallel modules have it,
    is replicated over the other dimensions of `mesh`, and any other tensor over all of them.
    """
    full = mesh_of(mesh)
    types = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            dtype = str(tensor.dtype).removeprefix("torch.")
            types[name] = ArrayType(full, dtype, tuple(tensor.shape))
            continue
        t = layout_of(tensor._spec).type  # noqa: SLF001
        sliced = t.mesh != full and set(t.mesh.axes) < set(full.axes)
        types[name] = t.replace(mesh=full) if sliced else t
    return types


def _from_all_ranks(told: Any) -> list[Any]:
    """What each rank tells the others."""
    heard: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(heard, told)
    return heard


def packed(transfer: Transfer, tile: Tensor) -> Tensor:
    """The elements of a source tile as they cross: each once, in the dtype of the wire."""
    view = transfer.view
    values = strided(tile, view.source_offset, [(n, s) for n, _, s in view.runs if s])
    wire = transfer.dtypes.index(transfer.wire)
    for dtype in transfer.dtypes[: wire + 1]:
        values = values.to(torch_dtype(dtype))
    return values.contiguous()


def put(transfer: Transfer, tile: Tensor, values: Tensor) -> None:
    """Write what has crossed into a target tile, through the casts that are left."""
    view = transfer.view
    wire = transfer.dtypes.index(transfer.wire)
    for dtype in transfer.dtypes[wire + 1 :]:
        values = values.to(torch_dtype(dtype))
    written = strided(tile, view.target_offset, [(n, t) for n, t, _ in view.runs])
    written.copy_(values.reshape([n if s else 1 for n, _, s in view.runs]).expand(written.shape))


def fill(transfer: Transfer, tile: Tensor) -> None:
    """Write zeros, or the identity of a reduction."""
    view = transfer.view
    written = strided(tile, view.target_offset, [(n, t) for n, t, _ in view.runs])
    written.fill_(identity(tile.dtype, transfer.reduction) if transfer.reduction else 0)


def strided(tile: Tensor, offset: int, runs: Sequence[tuple[int, int]]) -> Tensor:
    """Elements of a contiguous tile from an offset on, by (count, stride) runs; a view."""
    sizes, strides = [n for n, _ in runs], [stride for _, stride in runs]
    return tile.as_strided(sizes, strides, tile.storage_offset() + offset)
