"""Ranks that wait for one another: in meetings, for messages, and no longer than a time limit.

In a meeting all ranks agree, in one small Allreduce, that no rank has an error and all are about to
do the same; else all raise the same error. What else a rank waits for are messages of those it
exchanges with (faults.py). It polls: between two polls it hears of faults, and on a crowded node it
sleeps.

The numbers of a meeting, of which all ranks get the least, for 3 ranks of which 1 has an error:

    rank   same       -same       failed   raised   teller   vote   -operation
    0      h*M + 0    -(h*M+2)    3        0        3        0      -7
    1      h*M + 1    -(h*M+1)    1        0        3        0      -7
    2      h*M + 2    -(h*M+0)    3        0        3        0      -7
    least  h*M + 0    -(h*M+2)    1        0        3        0      -7

h is a hash of what is to be the same, and M is 2^20. One h, so the problem is one; rank 1 has an
error, which it sends to the others. A rank that knows of a fault is a `teller`; `raised`: whether
it has raised it. Unless all have, all do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from redistrib.backends.mpi.communicators import NAP, ROLL_CALL, TEXT, Private
from redistrib.backends.mpi.faults import Fault, Operation
from redistrib.backends.mpi.lifetime import advance_all, alive, keep
from redistrib.backends.mpi.requests import Outstanding, Transfer
from redistrib.errors import BackendError, RedistribError

GRACE = 1.0
"""Seconds in which the others answer a roll call, or come to a meeting about a fault."""
PATIENCE = 1000
"""Polls in vain before a rank on a crowded node sleeps between them: polls also move data."""
LISTEN = 64
"""Polls in vain between two looks at what others tell."""
STARVED = 0.25
"""Seconds of waiting after which a rank asks those it waits for what they are at."""
YIELDS = MPI.get_vendor()[0] == "MPICH"
"""Whether a poll in vain is to give the processor away; Open MPI does so by itself."""
MOST_RANKS = 1 << 20

T = TypeVar("T")

Action = Callable[[], tuple[str, str, int] | None]
Agreeing = Generator[Outstanding, list[int], int]
"""A transfer that ends in the least vote of all ranks."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a rank has told in a meeting, and what it will hear once the request is complete.

    fault: its error, or the one that it has raised. intent: what it is about to do.
    """

    request: MPI.Request
    told: NDArray[np.int64]
    heard: NDArray[np.int64]
    fault: Fault | None
    intent: str


@dataclass(slots=True)
class Watch:
    """Waits for the other ranks, for ever or for `timeout` seconds without any progress.

    step: what the call under way is at.
    """

    private: Private
    timeout: float | None
    step: str = ""

    @property
    def comm(self) -> MPI.Intracomm:
        """Where messages go."""
        return self.private.comm

    def drive(
        self,
        transfer: Generator[Outstanding, list[int], int | None],
        step: str,
        operation: Operation | None = None,
    ) -> int | None:
        """Run a transfer to its end. Raises BackendError if a rank does not take part in time."""
        self.step = step
        try:
            outstanding = next(transfer)
            while True:
                outstanding = transfer.send(self.some(outstanding, operation))
        except StopIteration as end:
            result: int | None = end.value
            return result

    def together(self, request: MPI.Request, step: str) -> None:
        """Wait for a request in which every rank takes part."""
        self.drive(_together(self.comm, request), step)

    def some(self, outstanding: Outstanding, operation: Operation | None = None) -> list[int]:
        """The indices of requests that are complete, at least one.

        Raises the fault for which a rank cannot do its part of this operation.
        """
        requests = outstanding.requests
        # One request after the other, where all are to be complete: cheaper than all in each poll.
        one_by_one = outstanding.last and self.timeout is None
        start = time.monotonic()
        polls = 0
        questioned = operation is not None and operation.meeting  # which finds out by itself
        while True:
            if one_by_one:
                if outstanding.all_complete():
                    return list(range(len(requests)))
            else:
                done = MPI.Request.Testsome(requests)
                if self.timeout is not None:
                    late = not done and time.monotonic() - start > self.timeout
                    # Also where all is complete: who gave up may have changed what it was to send.
                    if late or self.comm.Iprobe(MPI.ANY_SOURCE, ROLL_CALL):
                        outstanding.remove(done or [])
                        self._give_up(outstanding)
                if done is None or done:
                    return done or []
            polls += 1
            sleeps = polls >= PATIENCE and self.private.crowded
            if sleeps or polls % LISTEN == 0:
                advance_all()
                if operation is not None:
                    self.listen(outstanding, operation)
                    if not questioned and time.monotonic() - start > STARVED:
                        questioned = True
                        self.private.faults.ask(operation, outstanding.peers)
            if sleeps:
                time.sleep(NAP)
            elif YIELDS:
                os.sched_yield()

    def listen(self, outstanding: Outstanding, operation: Operation) -> None:
        """Leave an operation that cannot end, and raise the fault.

        A meeting is left when others have had a second to come. A call after the one that failed,
        or one that is another on other ranks, is left to meet.
        """
        faults = self.private.faults
        faults.listen()
        fault = faults.concerning(operation)
        if fault is None or (operation.meeting and time.monotonic() < faults.heard + GRACE):
            return
        outstanding.give_up()
        if operation.cleared == faults.cleared:
            if not operation.meeting and (fault.meets or fault.number < operation.number):
                # Which raises it, unless it is left too; also where all have raised it before.
                meeting = self._meeting(operation, fault, "", operation.text, 0)
                self.drive(meeting, self.step, operation)
            faults.raised = True
        raise fault.error()

    def _give_up(self, outstanding: Outstanding) -> NoReturn:
        """Find out who answers, and raise. The communicator is lost."""
        comm, step = self.comm, self.step
        waited_for = set(outstanding.peers)
        outstanding.give_up()
        others = [rank for rank in range(comm.size) if rank != comm.rank]
        nothing = np.empty(0, np.uint8)
        keep([comm.Isend([nothing, MPI.BYTE], rank, ROLL_CALL) for rank in others])
        silent = set(others) if -1 in waited_for else waited_for
        status = MPI.Status()
        end = time.monotonic() + GRACE
        while silent and time.monotonic() < end:
            if comm.Iprobe(MPI.ANY_SOURCE, ROLL_CALL, status):
                comm.Recv([nothing, MPI.BYTE], status.source, ROLL_CALL)
                silent.discard(status.source)
            else:
                time.sleep(0.001)
        missing = sorted(silent)
        names = ", ".join(map(str, missing)) or "none: the network is slower than the limit"
        message = (
            f"{step} made no progress for {self.timeout:g} s; "
            f"rank {comm.rank} got no answer from ranks: {names}"
        )
        values = {"step": step, "ranks": tuple(missing), "timeout": self.timeout}
        self.private.lost = message, values
        raise BackendError(message, **values)

    def check_open(self) -> None:
        """Raise BackendError if the ranks were given up before."""
        if self.private.lost is not None:
            message, values = self.private.lost
            raise BackendError(message, **values)

    def begin(self, text: str) -> Operation:
        """The next operation of all ranks. Raises BackendError if ranks were given up before."""
        self.check_open()
        self._end_abandoned(text)
        return self.private.faults.begin(text)

    def _end_abandoned(self, step: str) -> None:
        """Wait for the outcome of meetings that this rank has left."""
        while self.private.abandoned:
            agreement = self.private.abandoned[0]
            self.drive(_together(self.comm, agreement.request), step)
            self.private.abandoned.pop(0)
            with contextlib.suppress(RedistribError):  # raised when it was left
                self._outcome(agreement)

    def attempt(self, action: Action, step: str, error: Exception | None = None) -> int:
        """Do something on each rank; if it fails on one, raise that error on all. A meeting.

        The action returns what all ranks must agree on, in full and for people, and its vote, if
        anything. With an `error` there is one already, and nothing is done. Gives the least vote.
        """
        operation = self.begin(step)
        try:
            entered = self.entered(operation, action, error, meets=True)
            return self.drive(entered, step, operation) or 0
        finally:
            del error

    def meet(self, step: str, error: Exception | None = None) -> None:
        """Meet all ranks; the error of one, an earlier fault too, is raised on all."""
        self.attempt(lambda: None, step, error)

    def entered(
        self,
        operation: Operation,
        action: Action,
        error: BaseException | None,
        *,
        meets: bool,
    ) -> Agreeing:
        """Do what a rank does before an operation; if it fails, raise, and let others know.

        In a meeting, on all ranks: where it `meets`, and after an error. Else the others are told,
        and the vote is that of this rank. Raises if ranks were given up since it was started.
        """
        self.check_open()
        told = "", "", 0
        meets |= self.private.faults.entering(operation)
        try:
            if error is None:
                told = action() or told
        except Exception as raised:  # noqa: BLE001 - the other ranks must hear of it
            error = raised
        try:
            if meets:
                return (yield from self._meeting(operation, error, *told))
            if error is not None:
                raise self.failed(operation, error) from _cause(error)
            return told[2]
        finally:
            # Its traceback leads here, and so would keep itself and the arrays of the caller.
            del error

    def failed(self, operation: Operation, error: BaseException) -> BaseException:
        """Tell the others that an operation has failed here; gives what is raised."""
        faults = self.private.faults
        fault = Fault.of(operation, self.comm.rank, error)
        faults.tell(fault)
        faults.raised = True
        return fault.error()

    def left(self, operation: Operation, error: BaseException) -> None:
        """Tell the others of an operation that this rank leaves, unless they know why."""
        faults = self.private.faults
        known = faults.known is not None and faults.known.number <= operation.number
        if alive() and not (known or self._met(operation) or self.private.lost):
            self.failed(operation, error)

    def parted(self, operation: Operation, error: BaseException, step: str) -> None:
        """Leave, by an error, an operation that all ranks end in a meeting: tell them, and meet.

        Not if they have met about it, where the error was raised. What ends the program, or drops
        an iterator, waits for nobody: the next operation does. Raises nothing of the meeting.
        """
        self.left(operation, error)
        if not alive() or self.private.lost:
            return
        with contextlib.suppress(RedistribError):
            if isinstance(error, Exception):
                self._end_abandoned(step)
                if not self._met(operation):
                    self.meet(step)
            elif not (self._met(operation) or self.private.abandoned):
                meeting = self.private.faults.begin(step)
                self.private.abandoned.append(self._agree(meeting, None, "", "", 0))

    def _met(self, operation: Operation) -> bool:
        """Whether all ranks have raised in a meeting since an operation began."""
        faults = self.private.faults
        return faults.cleared != operation.cleared or faults.ended >= operation.number

    def _meeting(
        self,
        operation: Operation,
        error: BaseException | Fault | None,
        token: str,
        intent: str,
        vote: int,
    ) -> Agreeing:
        """Raise the same error on every rank if one has an error or the tokens differ.

        `intent` is what this rank is about to do, for the message. On the rank of the error and
        elsewhere its class is the same where it is one of this library's. Ends in the least vote.
        """
        agreement = self._agree(operation, error, token, intent, vote)
        operation.meeting = True
        try:
            yield from _together(self.comm, agreement.request)
        except BaseException:
            self.private.abandoned.append(agreement)
            raise
        finally:
            operation.meeting = False
        try:
            return self._outcome(agreement)
        finally:
            operation.cleared = self.private.faults.cleared

    def _agree(
        self,
        operation: Operation,
        error: BaseException | Fault | None,
        token: str,
        intent: str,
        vote: int,
    ) -> Agreement:
        """Begin an agreement."""
        comm, faults = self.comm, self.private.faults
        digest = hashlib.sha256(token.encode()).digest()
        same = (int.from_bytes(digest[:8], "big") >> 22) * MOST_RANKS
        failed = comm.size if error is None else comm.rank
        # A fault of a later operation is left to that one.
        knows = faults.known is not None and faults.known.number <= operation.number
        told = np.array(
            [
                same + comm.rank,
                -(same + comm.size - 1 - comm.rank),
                failed,
                knows and faults.raised,
                comm.rank if knows else comm.size,
                vote,
                -operation.number,
            ],
            np.int64,
        )
        heard = np.empty_like(told)
        request = comm.Iallreduce(told, heard, MPI.MIN)
        fault = faults.known if error is None else _fault(operation, comm.rank, error)
        return Agreement(request, told, heard, fault, intent)

    def _outcome(self, agreement: Agreement) -> int:
        """The least vote. Raises if a rank had an error, or some but not all have raised one."""
        comm, faults = self.comm, self.private.faults
        least, most, failed, raised, teller, vote, number = agreement.heard.tolist()
        faults.number = max(faults.number, -number)
        ends = faults.ended
        faults.ended = -int(agreement.told[-1])
        fault = None
        if failed < comm.size or (teller < comm.size and not raised):
            fault = self._said_by(failed if failed < comm.size else teller, agreement.fault)
        if teller < comm.size:
            self.private.clear_faults(fault)
        if fault is not None:
            raise fault.error()
        (same, first), (other, last) = divmod(least, MOST_RANKS), divmod(-most, MOST_RANKS)
        if same != other:
            ranks = sorted((first, comm.size - 1 - last))
            intents = [self._said_by(rank, agreement.intent) for rank in ranks]
            difference = "; ".join(
                f"rank {r}: {text}" for r, text in zip(ranks, intents, strict=True)
            )
            if intents[0] == intents[1]:
                difference = "their strategy, limit, scratch or plan differ"
            raise BackendError(
                f"the ranks were given different problems: {difference}", rank=ranks[1]
            )
        faults.ended = ends
        return int(vote)

    def _said_by(self, rank: int, message: T) -> T:
        """The message of one rank, on all of them, in a meeting that ends in an error."""
        comm = self.comm
        if comm.rank != rank:
            received: T = comm.recv(source=rank, tag=TEXT)
            return received
        others = (other for other in range(comm.size) if other != rank)
        keep([comm.isend(message, other, TEXT) for other in others])
        return message


def _together(comm: MPI.Intracomm, request: MPI.Request) -> Transfer:
    """Wait for one request in which every rank takes part."""
    if request == MPI.REQUEST_NULL:
        return
    with Outstanding(comm, ROLL_CALL) as outstanding:
        outstanding.collective(request)
        while outstanding.requests:
            outstanding.remove((yield outstanding))


def _fault(operation: Operation, rank: int, error: BaseException | Fault) -> Fault:
    return error if isinstance(error, Fault) else Fault.of(operation, rank, error)


def _cause(error: BaseException) -> BaseException | None:
    """What an error is said to come from: its text says all if it is one of this library's."""
    return None if isinstance(error, RedistribError) else error
