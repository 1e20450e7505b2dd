"""What one rank does to move a batch of a model's arrays: for every transport.

A batch goes phase by phase. In a phase a rank fills and copies on its own, and packs what it has
for another into one message. Rank 3 of 8 sends in turn to 4, 5, ... and receives from 2, 1, ...: in
round r it meets rank + r and rank - r. Both sides of a message take its transfers in one order, by
what is in them, so a message needs no header.

Law: no deadlock. Messages are ordered by batch, phase and round. Of those that are not complete the
first has been started on both sides, since each side has completed all before it.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from redistrib.models.figures import ModelFigures
from redistrib.models.moves import PHASES, Move
from redistrib.models.transfers import Transfer

BATCH = 16 << 20
"""Bytes of target tiles that move together: small arrays share messages."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call is: arrays, and bytes of their tiles, one of each array, of so many.

    What an earlier call has completed counts among the arrays, not among the bytes.
    `received_bytes` have come to this rank, in `seconds` since its call began to move.
    """

    arrays: int
    of_arrays: int
    received_bytes: int
    bytes: int = 0
    of_bytes: int = 0
    seconds: float = 0.0

    @property
    def bytes_per_second(self) -> float:
        """What this rank has received, by the time that it took."""
        return self.received_bytes / self.seconds if self.seconds else 0.0

    @property
    def remaining_seconds(self) -> float | None:
        """The time that the other bytes take if they go on like those so far; None before any.

        >>> Progress(1, 4, 50, 100, 400, 2.0).remaining_seconds
        6.0
        """
        if not self.bytes:
            return None if self.of_bytes else 0.0
        return self.seconds * (self.of_bytes - self.bytes) / self.bytes


class Pace:
    """Says how far a call is that begins now, in which some targets are skipped."""

    def __init__(self, plan: ModelFigures, skipped: Container[str] = ()) -> None:
        tiles = (
            0 if move.target in skipped else plan.dst[move.target].tile_bytes for move in plan.moves
        )
        self._bytes = list(accumulate(tiles, initial=0))
        self._start = time.monotonic()

    def progress(self, arrays: int, received_bytes: int) -> Progress:
        """How far it is after so many arrays, and bytes that have come."""
        seconds = time.monotonic() - self._start
        of_arrays, bytes_, of_bytes = len(self._bytes) - 1, self._bytes[arrays], self._bytes[-1]
        return Progress(arrays, of_arrays, received_bytes, bytes_, of_bytes, seconds)


@dataclass(frozen=True, slots=True)
class Phase:
    """The transfers of a rank in one phase of a batch.

    local: its fills, and copies between its own tiles. sends: what it sends, by the receiving rank.
    receives: what it receives, by the sending rank.
    passed_on: whether what is sent or copied is of targets, and not of sources.
    """

    passed_on: bool
    local: list[Transfer] = field(default_factory=list)
    sends: dict[int, list[Transfer]] = field(default_factory=dict)
    receives: dict[int, list[Transfer]] = field(default_factory=dict)

    @property
    def received_bytes(self) -> int:
        """What comes from other ranks."""
        return sum(view.wire_bytes for views in self.receives.values() for view in views)

    def rounds(self, rank: int, size: int) -> Iterator[tuple[int, int]]:
        """The receiver to send to and the sender to receive from at the same time, by round."""
        for distance in range(1, size):
            receiver, sender = (rank + distance) % size, (rank - distance) % size
            if receiver in self.sends or sender in self.receives:
                yield receiver, sender


def phases(plan: ModelFigures, moves: Iterable[Move], rank: int) -> Iterator[Phase]:
    """What a rank does for some moves, phase by phase."""
    transfers = [
        transfer
        for move in moves
        for transfer in sorted(plan.transfers(move, rank), key=Transfer.place)
    ]
    for number in range(PHASES):
        phase = Phase(passed_on=number > 0)
        for transfer in transfers:
            if transfer.phase != number:
                continue
            if transfer.sender in (None, transfer.receiver):
                phase.local.append(transfer)
            elif transfer.sender == rank:
                phase.sends.setdefault(transfer.receiver, []).append(transfer)
            else:
                assert transfer.sender is not None
                phase.receives.setdefault(transfer.sender, []).append(transfer)
        yield phase


def messages(transfers: Iterable[Transfer], most: int) -> Iterator[list[Transfer]]:
    """What goes from one rank to another as messages of at most so many bytes, or of one element.

    Both ranks cut and join the same transfers, so they agree without a word.
    """
    message: list[Transfer] = []
    bytes_ = 0
    for piece in (piece for transfer in transfers for piece in transfer.cut(most)):
        if message and bytes_ + piece.wire_bytes > most:
            yield message
            message, bytes_ = [], 0
        message.append(piece)
        bytes_ += piece.wire_bytes
    if message:
        yield message


class Batch(NamedTuple):
    """Moves that run together, and the sources that no later one reads.

    message_bytes: of a message, so that one to and one from another rank fit in the scratch.
    """

    moves: list[Move]
    released: list[str]
    message_bytes: int


def batches(plan: ModelFigures, batch_bytes: int) -> Iterator[Batch]:
    """Moves in order, together as long as their target tiles stay within so many bytes.

    Nor do they hold more together than the peak of the plan, so its budget is kept.
    """
    last = {name: n for n, move in enumerate(plan.moves) for name, _ in move.sources}
    first, bytes_, peak = 0, 0, plan.peak_bytes
    for n, move in enumerate(plan.moves):
        tile = plan.dst[move.target].tile_bytes
        above = bytes_ + tile > batch_bytes or plan.together(first, n)[0] > peak
        if n > first and above:
            yield _batch(plan, first, n, last)
            first, bytes_ = n, 0
        bytes_ += tile
    if plan.moves:
        yield _batch(plan, first, len(plan.moves), last)


def _batch(plan: ModelFigures, first: int, end: int, last: Mapping[str, int]) -> Batch:
    moves = [*plan.moves[first:end]]
    used = {name: None for move in moves for name, _ in move.sources}
    released = [name for name in used if last[name] < end and not plan.keep_sources]
    return Batch(moves, released, plan.together(first, end - 1)[1] // 2)


def needed(plan: ModelFigures, skipped: Container[str]) -> set[str]:
    """The sources that targets are made of, but for those that are skipped."""
    return {n for move in plan.moves if move.target not in skipped for n, _ in move.sources}


def lacking(plan: ModelFigures, completed: Iterable[str], rank: int) -> list[str]:
    """The targets that a rank has to get still."""
    whole = set(completed)
    return sorted(n for n, t in plan.dst.items() if rank in t.mesh.ids and n not in whole)


def completed_everywhere(plan: ModelFigures, lacks: Iterable[Iterable[str]]) -> set[str]:
    """The targets that no rank lacks; `lacks` are the targets that each rank does."""
    return set(plan.dst) - {name for names in lacks for name in names}
