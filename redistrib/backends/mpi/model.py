"""Plans of whole models under MPI: each rank derives its transfers alone and moves bytes.

The device ids of the plan are ranks. What a rank does is decided in `backends/model_messages.py`,
for every transport; here are messages over MPI, and ranks that fail together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Generator, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from itertools import chain, islice, repeat, zip_longest
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.model_messages import (
    BATCH,
    Batch,
    Pace,
    Phase,
    Progress,
    batches,
    completed_everywhere,
    lacking,
    messages,
    needed,
    phases,
)
from redistrib.backends.model_tiles import fill, packed, put
from redistrib.backends.mpi.agreement import Watch
from redistrib.backends.mpi.communicators import claimed, private
from redistrib.backends.mpi.redistribution import Redistribution
from redistrib.backends.mpi.requests import Outstanding
from redistrib.backends.wire import wire_of
from redistrib.errors import BackendError
from redistrib.models.model_plan import ModelPlan
from redistrib.models.moves import PHASES
from redistrib.models.transfers import Transfer as View
from redistrib.text import brief, is_kind
from redistrib.types.dtypes import numpy_dtype

Array = NDArray[Any]
Tiles = dict[str, Array]
Messages = list[tuple[list[View], list[View]]]
"""Of each exchange between two pairs of ranks, what is given and what is taken."""
END = "the end of a model's call"


class ModelRedistribution:
    """Moves the arrays of a model between the ranks of a communicator, as a plan says.

    Made and called collectively. Rank n is device n of the plan, so the communicator has a rank for
    every device id; ranks that are no device take part with nothing.

    timeout: seconds without progress, the same on all ranks, after which a call raises on those
        that wait. By default it waits for ever, as MPI does.
    batch_bytes: bytes of target tiles that move together. Beside sources and targets a rank holds
        at most one message to and one from another rank, which together keep to the scratch of the
        plan. So sources, targets and messages stay within `plan.peak_bytes`.
    wire_dtype: "bf16" or "int8": floats that cross are rounded to it on the way. int8 has a scale
        for each 256 elements that cross after each other; see redistrib.backends.wire for how much
        each may change. What a rank has itself, and integers, stay as they are.

    Raises on every rank, the same error, if it fails on one or the ranks have different plans:
    BackendError, with the attribute `rank`. What `progress` raises, or what ends an iterator of
    `chunks` before its time, is such an error too; on its own rank it is raised as it is.
    """

    completed: Tiles
    """The targets of this rank that are whole: all of them after a call, and those that were whole
    before its error after one that failed. Given to the next call, they are not moved again."""
    live_bytes: int
    """The most that this rank has held at a time in its calls: sources, targets and messages."""

    def __init__(
        self,
        plan: ModelPlan,
        comm: MPI.Intracomm,
        *,
        timeout: float | None = None,
        batch_bytes: int = BATCH,
        wire_dtype: str | None = None,
    ) -> None:
        self.plan, self.completed, self.live_bytes = plan, {}, 0
        self._comm, self._timeout = comm, timeout
        with claimed(comm) as contended:
            self._private = private(comm, timeout)
            self._watch = Watch(self._private, timeout)
            self._watch.attempt(
                lambda: self._described(batch_bytes, wire_dtype),
                "the agreement on the model",
                contended,
            )
            self._number = self._private.next_number()
        self._wire = wire_of(wire_dtype)
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

        Under a plan with `keep_sources=False` each tile is taken out of `tiles`, a dict, after its
        last use, once all ranks have its last target, so that nothing is lost by an error.
        `completed`: targets that an earlier call has made, the same names on all ranks that have
        them; sources that only these need may be gone. `progress` is called after each batch.
        """
        for _ in self._steps(tiles, completed, progress, aligned=False):
            pass
        return self.completed

    def chunks(
        self,
        tiles: Mapping[str, Any],
        *,
        completed: Mapping[str, Array] | None = None,
        bandwidth: float | None = None,
    ) -> Iterator[Progress]:
        """A call in pieces: moves a message or two at each step, and then waits for the next.

        So a model moves between pieces of computation. Collective: all ranks take the same steps,
        up to the end, and may meet otherwise between them. The targets are then in `completed`;
        each is there once it is whole. `bandwidth`: bytes per second that this rank receives at
        most; after a step it sleeps.
        """
        if bandwidth is not None and not (is_kind(bandwidth, int | float) and bandwidth > 0):
            raise BackendError(f"bandwidth is bytes per second, above 0; got {bandwidth!r}")
        start = time.monotonic()
        for done in self._steps(tiles, completed, None, aligned=True):
            yield done
            if bandwidth is not None:
                until = start + done.received_bytes / bandwidth
                time.sleep(max(0.0, until - time.monotonic()))

    def _steps(
        self,
        tiles: Mapping[str, Any],
        completed: Mapping[str, Array] | None,
        progress: Callable[[Progress], None] | None,
        *,
        aligned: bool,
    ) -> Iterator[Progress]:
        """A call step by step: after each exchange, and after each batch.

        `aligned`: those of a number are of the same messages on all ranks, some of them with none.
        """
        self.completed = dict(completed or {})
        with claimed(self._comm) as contended:
            self._watch.attempt(self._resumed, "the agreement before the model moves", contended)
        used = needed(self.plan, self._skipped)
        sources = self._checked(tiles, used)
        for name, reduction in self._reductions.items():
            if name in used:
                reduced = reduction(sources.get(name))
                if reduced is not None:
                    sources[name] = reduced
        counts = self._counts() if aligned else None
        with self._operation_of_all():
            last = yield from self._moved(tiles, sources, counts, progress)
        if last is not None:
            yield last

    @contextmanager
    def _operation_of_all(self) -> Iterator[None]:
        """A call from its first message on: it ends in a meeting of all ranks, an error too.

        A rank that fails tells the others. These end the batches that it has had its part in, and
        raise where they wait for it, or in the meeting.
        """
        self._begin()
        try:
            yield
        except BaseException as error:
            with claimed(self._comm):
                self._watch.parted(self._operation, error, END)
            raise
        with claimed(self._comm):
            self._watch.meet(END)

    def _begin(self) -> None:
        """Begin the next operation of all ranks: a batch, and what is done before it."""
        with claimed(self._comm):
            self._operation = self._watch.begin(f"a batch of model {self._number}")

    def _moved(
        self,
        tiles: Mapping[str, Any],
        sources: Tiles,
        counts: NDArray[np.int64] | None,
        progress: Callable[[Progress], None] | None,
    ) -> Generator[Progress, None, Progress | None]:
        """All batches, one after the other; ends in how far the last one is, which is not given."""
        received, moved, done = 0, 0, None
        pace = Pace(self.plan, self._skipped)
        for number, batch in enumerate(self._batches):
            if done is not None:
                yield done
            for bytes_ in self._move(batch, sources, None if counts is None else counts[number]):
                received += bytes_
                yield pace.progress(moved, received)
            moved += len(batch.moves)
            if batch.released:  # on all ranks, so that after an error on one nothing is lost
                with claimed(self._comm):
                    self._watch.meet("the release of sources")
                for name in batch.released:
                    sources.pop(name, None)
                    tiles.pop(name, None)  # type: ignore[attr-defined]
            self._begin()
            done = pace.progress(moved, received)
            if progress is not None:
                progress(done)
        return done

    def _described(self, batch_bytes: int, wire_dtype: object) -> tuple[str, str, int]:
        wire_of(wire_dtype)
        last = max(self.plan.devices, default=0)
        if last >= self._private.comm.size:
            raise BackendError(
                f"device ids of a plan are ranks; it has device {last}, and the communicator "
                f"{self._private.comm.size} ranks",
                device=last,
            )
        return f"{batch_bytes} {wire_dtype} {self.plan.to_json()}", "a model plan", 0

    def _resumed(self) -> tuple[str, str, int]:
        """What all ranks skip: the targets that are completed on every device that has them."""
        lacks = lacking(self.plan, self.completed, self._private.comm.rank)
        self._skipped = completed_everywhere(self.plan, self._private.comm.allgather(lacks))
        for name in set(self.completed) - self._skipped:
            del self.completed[name]
        return "", "", 0

    def _checked(self, tiles: Mapping[str, Any], names: Container[str]) -> Tiles:
        """This rank's source tiles, contiguous. Raises on all ranks if one has the wrong tiles."""
        checked: Tiles = {}

        def check() -> None:
            rank = self._private.comm.rank
            if not (self.plan.keep_sources or isinstance(tiles, MutableMapping)):
                raise BackendError(
                    f"sources that are released are taken out of a mapping that can be changed; "
                    f"got {brief(tiles)}"
                )
            for name, t in self.plan.src.items():
                if rank not in t.mesh.ids or name not in names:
                    continue
                shape = t.tile_shape_at(t.mesh.ids.index(rank))
                tile = np.asarray(tiles[name]) if name in tiles else None
                if tile is None or tile.shape != shape or tile.dtype != numpy_dtype(t.dtype):
                    actual = "none" if tile is None else f"shape {list(tile.shape)}, {tile.dtype}"
                    raise BackendError(
                        f"a tile of {name} has shape {list(shape)} and dtype {t.dtype}; "
                        f"got {actual}",
                        name=name,
                    )
                checked[name] = np.ascontiguousarray(tile).reshape(tile.shape)  # also a scalar

        with claimed(self._comm) as contended:
            self._watch.attempt(check, "the agreement on the tiles", contended)
        return checked

    def _phases(self, batch: Batch) -> Iterator[tuple[Phase, dict[int, Messages]]]:
        """The phases of a batch, each with what is given and taken, by the distance of ranks."""
        comm, most = self._private.comm, batch.message_bytes
        moves = [move for move in batch.moves if move.target not in self._skipped]
        for phase in phases(self.plan, moves, comm.rank):
            rounds: dict[int, Messages] = {}
            for receiver, sender in phase.rounds(comm.rank, comm.size):
                sent = messages(phase.sends.get(receiver, []), most)
                received = messages(phase.receives.get(sender, []), most)
                rounds[(receiver - comm.rank) % comm.size] = [
                    *zip_longest(sent, received, fillvalue=[])
                ]
            yield phase, rounds

    def _counts(self) -> NDArray[np.int64]:
        """The most exchanges between two ranks, by batch, phase and distance. Collective."""
        comm = self._private.comm
        counts = np.zeros((len(self._batches), PHASES, comm.size), np.int64)
        most = np.empty_like(counts)

        def count() -> None:
            for n, batch in enumerate(self._batches):
                for number, (_, rounds) in enumerate(self._phases(batch)):
                    for distance, pairs in rounds.items():
                        counts[n, number, distance] = len(pairs)

        with claimed(self._comm) as contended:
            self._watch.attempt(count, "the steps of a model", contended)
            self._watch.together(comm.Iallreduce(counts, most, MPI.MAX), "the steps of a model")
        return most

    def _move(
        self, batch: Batch, sources: Tiles, counts: NDArray[np.int64] | None
    ) -> Iterator[int]:
        """Make the targets of a batch; gives the bytes that this rank receives in each step.

        As many steps as `counts` says by phase and distance; by default those with messages.
        """
        comm, most = self._private.comm, batch.message_bytes
        moves = [move for move in batch.moves if move.target not in self._skipped]
        targets = dict(self.completed)
        for move in moves:
            t = self.plan.dst[move.target]
            if comm.rank in t.mesh.ids:
                shape = t.tile_shape_at(t.mesh.ids.index(comm.rank))
                targets[move.target] = np.empty(shape, numpy_dtype(t.dtype))
        held_bytes = sum(tile.nbytes for tiles in (sources, targets) for tile in tiles.values())
        for number, (phase, rounds) in enumerate(self._phases(batch)):
            held = targets if phase.passed_on else sources
            for view in phase.local:
                if view.sender is None:
                    fill(view, targets[view.target])
                    continue
                for piece in view.cut(most):
                    put(piece, targets[view.target], packed(piece, held[str(view.source)]))
            for distance in range(1, comm.size):
                pairs = rounds.get(distance, [])
                count = len(pairs) if counts is None else int(counts[number, distance])
                peers = (comm.rank + distance) % comm.size, (comm.rank - distance) % comm.size
                for sent, received in islice(chain(pairs, repeat(([], []))), count):
                    if sent or received:
                        with claimed(self._comm):
                            exchange = self._exchange(sent, received, *peers, held, targets)
                            step = moves[0].target
                            staged = self._watch.drive(exchange, step, self._operation) or 0
                        self.live_bytes = max(self.live_bytes, held_bytes + staged)
                    yield sum(map(self._size, received))
        self.live_bytes = max(self.live_bytes, held_bytes)
        self.completed = targets

    def _size(self, view: View) -> int:
        """Bytes of a view on the wire."""
        return self._wire.size(view.view.distinct, view.wire)

    def _exchange(
        self,
        sent: list[View],
        received: list[View],
        receiver: int,
        sender: int,
        held: Tiles,
        targets: Tiles,
    ) -> Generator[Outstanding, list[int], int]:
        """One message to a rank, and one from another; gives the bytes of both."""
        message, joined = (
            np.empty(sum(map(self._size, views)), np.uint8) for views in (received, sent)
        )
        start = 0
        for view in sent:
            end = start + self._size(view)
            joined[start:end] = self._wire.encoded(packed(view, held[str(view.source)]))
            start = end
        tag = self._private.tag(self._number)  # another one after each error
        with Outstanding(self._private.comm, tag, message, joined) as outstanding:
            if received:
                outstanding.receive([message, message.size, MPI.BYTE], sender)
            if sent:
                outstanding.send([joined, joined.size, MPI.BYTE], receiver)
            outstanding.last = True
            while outstanding.requests:
                outstanding.remove((yield outstanding))
        start = 0
        for view in received:
            end = start + self._size(view)
            dtype = numpy_dtype(view.wire)
            values = self._wire.decoded(message[start:end], view.view.distinct, dtype)
            put(view, targets[view.target], values)
            start = end
        return message.nbytes + joined.nbytes
