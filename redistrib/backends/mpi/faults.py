"""Errors in calls: who is told, who is not waited for, and where all ranks meet again.

A call has no global step: a rank sends its messages at once and waits for those it needs. A rank
that cannot take part says so to each other rank, in a small message under a tag of its own.

Example: 3 ranks, of which 0 and 1 exchange halves and 2 keeps what it has. In call 7 rank 1 is
given a wrong tile, and the program catches the error.

    rank 0    call 7: sends its half to rank 1, waits for the other half, is told of the fault:
              cancels its receive and raises. Call 8: meets first.
    rank 1    call 7: sends no data, tells ranks 0 and 2 "call 7: rank 1: ..." and raises.
              Call 8: meets first.
    rank 2    call 7: exchanges with nobody, and returns a right tile. Call 8: is told of the fault
              of an earlier call, so it meets too. It has not raised: all three raise in call 8.

Call 9 is as if nothing had been. Had ranks 0 and 1 been all there are, both would have raised in
call 7, and call 8 would be right.

A meeting is one agreement of all ranks (agreement.py). Making a redistribution, its first call, a
batch, `check_calls`, and the call after an error are meetings. So these laws hold:

1. What a rank returns is right. It has all messages of its call: no others come under the tag of
   this redistribution, and MPI keeps those in order. A call that failed may leave some behind, so
   with every fault that the ranks have met about all tags change (`cleared`). What was sent to a
   rank in error, and nobody receives, is kept as long as MPI may read it.
2. Nobody waits for ever. Of those that a rank waits for in call n, each has its call n still to
   come, is in it, or has raised in it or before. The first two go on; of the third all are told. A
   fault of a later call is left to that call: its rank has done its part of this one. A call that
   was started before the fault of an earlier one was known is left too, raised or not: the rank in
   error meets before its part of it. All raise the fault in that meeting.
3. All end with the error: who has not raised by the next meeting does so there. A rank that was
   told, and has waited in a meeting for a second, raises alone; the meeting goes on without it.

Ranks that share no elements exchange nothing, so nothing of theirs can be lost. Where results are
in shared memory a rank writes into another's tile once that one has said that it is in the call;
one in error never says so. A time limit is apart from this: it counts all waiting.

Ranks may also be in different calls, as their programs differ. Then their tags do, so nothing is
taken for something else, and those that exchange wait. Who has waited for a quarter of a second
asks whom it waits for, once: "operation 7: a call of redistribution 3". Who was at something else
in its own seventh operation answers with a fault, and all meet.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mpi4py import MPI

from redistrib import errors
from redistrib.errors import RedistribError

NOTICE = 1
"""The tag of faults and questions."""
REMEMBERED = 64
"""Operations that a rank can still be asked about."""


@dataclass(slots=True)
class Operation:
    """What all ranks of a communicator are to do together, by its number among such.

    cleared: how many faults the ranks had met about. meeting: whether it is in a meeting now.
    """

    number: int
    text: str
    cleared: int
    meeting: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of one rank in an operation: its class and text, and there its values.

    meets: whether ranks are at different operations, so that those in this one leave it to meet.
    """

    number: int
    rank: int
    name: str
    message: str
    meets: bool = False
    values: dict[str, Any] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, operation: Operation, rank: int, error: BaseException) -> Fault:
        """The fault that an error of this rank is; one of another library is a BackendError."""
        if isinstance(error, RedistribError):
            name_and_text = type(error).__name__, str(error)
            return cls(operation.number, rank, *name_and_text, values=dict(vars(error)))
        return cls(operation.number, rank, "BackendError", f"{type(error).__name__}: {error}")

    def error(self) -> RedistribError:
        """What is raised, the same on all ranks."""
        values = {**self.values, "rank": self.rank}
        text = self.message if self.meets else f"rank {self.rank}: {self.message}"
        error: RedistribError = getattr(errors, self.name)(text, **values)
        return error


class Faults:
    """What this rank knows of faults on a communicator since all ranks met about one.

    known: the first fault, by its operation. raised: whether this rank has raised it.
    last: the fault that they last met about. heard: when a fault became known.
    ended: the last operation in whose meeting all ranks raised.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.number = self.cleared = self.ended = 0
        self.known: Fault | None = None
        self.last: Fault | None = None
        self.raised = False
        self.heard = 0.0
        self._done: deque[tuple[int, str]] = deque(maxlen=REMEMBERED)
        self._asked: list[tuple[int, str, int]] = []
        self._early: list[tuple[str, int, Any]] = []
        self._sent: list[MPI.Request] = []

    def begin(self, text: str) -> Operation:
        """The next operation."""
        self.number += 1
        operation = Operation(self.number, f"operation {self.number}: {text}", self.cleared)
        self._done.append((self.number, operation.text))
        return operation

    def unsettled(self) -> bool:
        """Whether there is an error that the ranks have not met about, as far as this one knows."""
        self.listen()
        return self.raised or self.known is not None

    def entering(self, operation: Operation) -> bool:
        """Whether all ranks meet in an operation that begins: a call before it has failed."""
        self.listen()
        operation.cleared = self.cleared
        return self.raised or (self.known is not None and self.known.number < operation.number)

    def concerning(self, operation: Operation) -> Fault | None:
        """The fault for which this rank must leave an operation, if there is one."""
        if operation.cleared != self.cleared:
            return self.last
        known = self.known
        if known is None or known.number > operation.number:
            return None
        if self.raised and (operation.meeting or known.number == operation.number):
            return None
        return known

    def tell(self, fault: Fault) -> None:
        """Tell all other ranks."""
        self._know(fault)
        others = (rank for rank in range(self.comm.size) if rank != self.comm.rank)
        content = fault.number, fault.rank, fault.name, fault.message, fault.meets
        self._send(("fault", self.cleared, content), others)

    def ask(self, operation: Operation, peers: Iterable[int]) -> None:
        """Have these ranks say if they are, or were, at something else in this operation."""
        content = operation.number, operation.text, self.comm.rank
        self._send(("question", operation.cleared, content), sorted(set(peers)))

    def listen(self) -> None:
        """Take in what others have told, and answer what they have asked."""
        status = MPI.Status()
        while self.comm.Iprobe(MPI.ANY_SOURCE, NOTICE, status):
            self._early.append(self.comm.recv(source=status.source, tag=NOTICE))
        if not (self._early or self._asked):
            return
        # One from before a meeting is void; of the next meeting this rank may not know yet.
        notices, self._early = self._early, []
        for notice in notices:
            kind, cleared, content = notice
            if cleared > self.cleared:
                self._early.append(notice)
            elif cleared == self.cleared and kind == "fault":
                self._know(Fault(*content))
            elif cleared == self.cleared:
                self._asked.append(content)
        self._answer()

    def clear(self, fault: Fault | None) -> None:
        """All ranks have met about the faults so far; what they were told there, if anything."""
        self.cleared += 1
        self.last, self.known, self.raised = fault or self.known, None, False
        self._asked.clear()

    def _answer(self) -> None:
        """A fault for whoever asks about an operation that was another one here."""
        done = dict(self._done)
        later = []
        for number, text, rank in self._asked:
            if number > self.number:
                later.append((number, text, rank))
            elif (own_text := done.get(number, text)) != text:
                texts = sorted([(rank, text), (self.comm.rank, own_text)])
                listing = "; ".join(f"rank {peer}: {question}" for peer, question in texts)
                message = f"the ranks were given different problems: {listing}"
                self.tell(Fault(number, self.comm.rank, "BackendError", message, meets=True))
        self._asked = later

    def _know(self, fault: Fault) -> None:
        if self.known is None or fault.number < self.known.number:
            self.known, self.heard, self.raised = fault, time.monotonic(), False

    def _send(self, message: object, ranks: Iterable[int]) -> None:
        self._sent = [request for request in self._sent if not request.Test()]
        self._sent += [self.comm.isend(message, rank, NOTICE) for rank in ranks]
