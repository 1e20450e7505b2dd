"""Plans of whole models under MPI: each rank derives its transfers alone and moves bytes.

The device ids of the plan are ranks. What a rank does is decided in `backends/model_messages.py`,
for every transport; here are messages over MPI, and ranks that fail together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.model_messages import (
    BATCH,
    Progress,
    batches,
    completed_everywhere,
    lacking,
    phases,
)
from redistrib.backends.model_tiles import fill, packed, put
from redistrib.backends.mpi.agreement import Watch
from redistrib.backends.mpi.communicators import claimed, private
from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.backends.mpi.requests import Outstanding, Transfer
from redistrib.errors import BackendError
from redistrib.models.model_plan import ModelPlan
from redistrib.models.moves import Move
from redistrib.models.transfers import Transfer as View
from redistrib.types.dtypes import numpy_dtype

Array = NDArray[Any]
Tiles = dict[str, Array]


class ModelRedistribution:
    """Moves the arrays of a model between the ranks of a communicator, as a plan says.

    Made and called collectively. Rank n is device n of the plan, so the communicator has a rank for
    every device id; ranks that are no device take part with nothing.

    timeout: seconds without progress, the same on all ranks, after which a call raises on those
        that wait. By default it waits for ever, as MPI does.
    batch_bytes: bytes of target tiles that move together. Beside sources and targets a rank holds
        at most one message to and one from another rank, of what they exchange in a batch.

    Raises on every rank, the same error, if it fails on one or the ranks have different plans:
    BackendError, with the attribute `rank`.
    """

    completed: Tiles
    """The targets of this rank that are whole: all of them after a call, and those that were whole
    before its error after one that failed. Given to the next call, they are not moved again."""

    def __init__(
        self,
        plan: ModelPlan,
        comm: MPI.Intracomm,
        *,
        timeout: float | None = None,
        batch_bytes: int = BATCH,
    ) -> None:
        self.plan, self.completed = plan, {}
        self._comm, self._timeout = comm, timeout
        with claimed(comm) as contended:
            self._private = private(comm, timeout)
            self._watch = Watch(self._private, timeout)
            self._watch.attempt(
                lambda: self._described(batch_bytes), "the agreement on the model", contended
            )
            self._tag = self._private.tag(self._private.next_number())
        self._batches = list(batches(plan, batch_bytes))
        self._reductions = {}
        for name, reduction in plan.reductions.items():
            ranks = reduction.src.mesh.ids
            self._reductions[name] = Redistribution(
                reduction.src,
                reduction.dst,
                comm,
                src_ranks=ranks,
                dst_ranks=ranks,
                timeout=timeout,
            )

    def __call__(
        self,
        tiles: Mapping[str, Any],
        *,
        completed: Mapping[str, Array] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> Tiles:
        """The tiles of this rank's targets, by name, from those of its sources. Collective.

        `completed`: targets that an earlier call has made, the same names on all ranks that have
        them. `progress` is called after each batch.
        """
        self.completed = dict(completed or {})
        sources = self._checked(tiles)
        for name, reduction in self._reductions.items():
            reduced = reduction(sources.get(name))
            if reduced is not None:
                sources[name] = reduced
        received, done = 0, 0
        with claimed(self._comm) as contended:
            self._watch.attempt(self._resumed, "the agreement before the model moves", contended)
            for moves in self._batches:
                left = [move for move in moves if move.target not in self._skipped]
                received += self._move(left, sources)
                done += len(moves)
                if progress is not None:
                    progress(Progress(done, len(self.plan.moves), received))
        return self.completed

    def _described(self, batch_bytes: int) -> tuple[str, str, int]:
        last = max(self.plan.devices, default=0)
        if last >= self._private.comm.size:
            raise BackendError(
                f"device ids of a plan are ranks; it has device {last}, and the communicator "
                f"{self._private.comm.size} ranks",
                device=last,
            )
        return f"{batch_bytes} {self.plan.to_json()}", "a model plan", 0

    def _resumed(self) -> tuple[str, str, int]:
        """What all ranks skip: the targets that are completed on every device that has them."""
        mine = lacking(self.plan, self.completed, self._private.comm.rank)
        self._skipped = completed_everywhere(self.plan, self._private.comm.allgather(mine))
        for name in set(self.completed) - self._skipped:
            del self.completed[name]
        return "", "", 0

    def _checked(self, tiles: Mapping[str, Any]) -> Tiles:
        """This rank's source tiles, contiguous. Raises on all ranks if one has the wrong tiles."""
        checked: Tiles = {}

        def check() -> None:
            rank = self._private.comm.rank
            for name, t in self.plan.src.items():
                if rank not in t.mesh.ids:
                    continue
                shape = t.tile_shape_at(t.mesh.ids.index(rank))
                tile = np.asarray(tiles[name]) if name in tiles else None
                if tile is None or tile.shape != shape or tile.dtype != numpy_dtype(t.dtype):
                    given = "none" if tile is None else f"shape {list(tile.shape)}, {tile.dtype}"
                    raise BackendError(
                        f"a tile of {name} has shape {list(shape)} and dtype {t.dtype}; "
                        f"got {given}",
                        name=name,
                    )
                checked[name] = np.ascontiguousarray(tile).reshape(tile.shape)  # also a scalar

        with claimed(self._comm) as contended:
            self._watch.attempt(check, "the agreement on the tiles", contended)
        return checked

    def _move(self, moves: list[Move], sources: Tiles) -> int:
        """Make the targets of some moves; gives the bytes that this rank received."""
        comm = self._private.comm
        targets = dict(self.completed)
        for move in moves:
            t = self.plan.dst[move.target]
            if comm.rank in t.mesh.ids:
                shape = t.tile_shape_at(t.mesh.ids.index(comm.rank))
                targets[move.target] = np.empty(shape, numpy_dtype(t.dtype))
        received = 0
        for phase in phases(self.plan, moves, comm.rank):
            held = targets if phase.passed_on else sources
            received += phase.received_bytes
            for view in phase.own:
                if view.sender is None:
                    fill(view, targets[view.target])
                else:
                    put(view, targets[view.target], packed(view, held[str(view.source)]))
            for to, come in phase.rounds(comm.rank, comm.size):
                messages = phase.given.get(to, []), phase.taken.get(come, [])
                exchange = self._exchange(*messages, to, come, held, targets)
                self._watch.drive(exchange, moves[0].target)
        self.completed = targets
        return received

    def _exchange(
        self, given: list[View], taken: list[View], to: int, come: int, held: Tiles, targets: Tiles
    ) -> Transfer:
        """One message to a rank, and one from another."""
        message = np.empty(sum(view.wire_bytes for view in taken), np.uint8)
        pieces = [packed(v, held[str(v.source)]).reshape(-1).view(np.uint8) for v in given]
        joined = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
        with Outstanding(self._private.comm, self._tag, message, joined) as outstanding:
            if taken:
                outstanding.receive([message, message.size, MPI.BYTE], come)
            if given:
                outstanding.send([joined, joined.size, MPI.BYTE], to)
            outstanding.last = True
            while outstanding.requests:
                outstanding.remove((yield outstanding))
        start = 0
        for view in taken:
            end = start + view.wire_bytes
            values = message[start:end].view(numpy_dtype(view.wire))
            put(view, targets[view.target], values)
            start = end
