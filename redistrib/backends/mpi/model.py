"""Plans of whole models under MPI: each rank derives its transfers alone and moves bytes.

The device ids of the plan are ranks. Arrays move in batches, phase by phase; in a phase a rank
packs what it has for another into one message. Rank 3 of 8 sends in turn to 4, 5, ... and receives
from 2, 1, ...: in round r it meets rank + r and rank - r. Both sides of a message take its
transfers in one order, by what is in them, so a message needs no header.

Law: no deadlock. Messages are ordered by batch, phase and round. Of those that are not complete the
first has been started on both sides, since each side has completed all before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.model_tiles import fill, packed, put
from redistrib.backends.mpi.agreement import Watch
from redistrib.backends.mpi.communicators import claimed, private
from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.backends.mpi.requests import Outstanding, Transfer
from redistrib.errors import BackendError
from redistrib.models.model_plan import ModelPlan
from redistrib.models.moves import PHASES, Move
from redistrib.models.transfers import Transfer as View
from redistrib.types.dtypes import numpy_dtype

Array = NDArray[Any]
Tiles = dict[str, Array]
BATCH = 16 << 20
"""Bytes of target tiles that move together: small arrays share messages."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call is: arrays and bytes that this rank has received, of so many."""

    arrays: int
    of_arrays: int
    received_bytes: int


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
            self._watch.agreed = True
            self._tag = self._private.next_tag()
        self._batches = list(_batches(plan, batch_bytes))
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
        mine = set(self.completed)
        here = self._private.comm.rank
        lacking = {n for n, t in self.plan.dst.items() if here in t.mesh.ids and n not in mine}
        heard = self._private.comm.allgather(sorted(lacking))
        self._skipped = set(self.plan.dst) - {name for names in heard for name in names}
        for name in mine - self._skipped:
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
                tile = np.asarray(tiles[name]) if name in tiles else None
                if tile is None or tile.shape != t.tile_shape or tile.dtype != numpy_dtype(t.dtype):
                    given = "none" if tile is None else f"shape {list(tile.shape)}, {tile.dtype}"
                    raise BackendError(
                        f"a tile of {name} has shape {list(t.tile_shape)} and dtype {t.dtype}; "
                        f"got {given}",
                        name=name,
                    )
                checked[name] = np.ascontiguousarray(tile)

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
                targets[move.target] = np.empty(t.tile_shape, numpy_dtype(t.dtype))
        views = [
            view
            for move in moves
            for view in sorted(self.plan.transfers(move, comm.rank), key=_place_in_message)
        ]
        received = 0
        for phase in range(PHASES):
            held = targets if phase else sources
            given: dict[int, list[View]] = {}
            taken: dict[int, list[View]] = {}
            for view in (view for view in views if view.phase == phase):
                if view.sender is None:
                    fill(view, targets[view.target])
                elif view.sender == view.receiver:
                    put(view, targets[view.target], packed(view, held[str(view.source)]))
                elif view.sender == comm.rank:
                    given.setdefault(view.receiver, []).append(view)
                else:
                    taken.setdefault(view.sender, []).append(view)
                    received += view.wire_bytes
            for distance in range(1, comm.size):
                to, come = (comm.rank + distance) % comm.size, (comm.rank - distance) % comm.size
                if to in given or come in taken:
                    messages = given.get(to, []), taken.get(come, [])
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


def _place_in_message(view: View) -> tuple[object, ...]:
    """What orders the transfers of a move between two ranks, on both of them."""
    return view.phase, view.view.target_offset, view.view.runs, str(view.source)


def _batches(plan: ModelPlan, batch_bytes: int) -> Iterator[list[Move]]:
    """Moves in order, together as long as their target tiles stay within so many bytes."""
    batch: list[Move] = []
    bytes_ = 0
    for move in plan.moves:
        tile = plan.dst[move.target].tile_bytes
        if batch and bytes_ + tile > batch_bytes:
            yield batch
            batch, bytes_ = [], 0
        batch.append(move)
        bytes_ += tile
    if batch:
        yield batch
