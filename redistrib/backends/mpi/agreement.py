"""Ranks that fail together: agreement before anything is sent, and a watchdog while it is.

A rank that raises alone, or was given another problem, would leave the others waiting for ever, or
let them take its data for something else. So each operation first agrees, in one small Allreduce,
that no rank has an error and all are about to do the same.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from mpi4py import MPI

from redistrib import errors
from redistrib.backends.mpi.communicators import NAP, Private, keep
from redistrib.backends.mpi.requests import Outstanding, Transfer
from redistrib.errors import BackendError, RedistribError

ROLL_CALL = 0
"""The tag by which a rank says that it has waited too long."""
GRACE = 1.0
"""Seconds in which the others answer a roll call."""
PATIENCE = 1000
"""Polls in vain before a rank on a crowded node sleeps between them: polls also move data."""


@dataclass(slots=True)
class Watch:
    """Waits for the other ranks, for ever or for `timeout` seconds without any progress.

    agreed: whether the ranks are known to have the same timeout. A collective that blocks on one
        and not on another would be two kinds of it, which never end.
    step: what the call under way is at.
    """

    private: Private
    timeout: float | None
    agreed: bool = False
    step: str = ""

    @property
    def comm(self) -> MPI.Intracomm:
        """Where messages go."""
        return self.private.comm

    def drive(self, transfer: Transfer, step: str) -> None:
        """Run a transfer to its end. Raises BackendError if a rank does not take part in time."""
        try:
            outstanding = next(transfer)
            while True:
                outstanding = transfer.send(self.some(outstanding, step))
        except StopIteration:
            return

    def together(self, request: MPI.Request, step: str) -> None:
        """Wait for a request in which every rank takes part."""
        self.drive(_together(self.comm, request), step)

    def some(self, outstanding: Outstanding, step: str) -> list[int]:
        """The indices of requests that are complete, at least one."""
        requests = outstanding.requests
        if self.timeout is None and outstanding.last:
            MPI.Request.Waitall(requests)
            return list(range(len(requests)))
        start = time.monotonic()
        polls = 0
        while True:
            done = MPI.Request.Testsome(requests)
            if self.timeout is not None:
                late = not done and time.monotonic() - start > self.timeout
                # Also where all is complete: who gave up may have changed what it was to send.
                if late or self.comm.Iprobe(MPI.ANY_SOURCE, ROLL_CALL):
                    self._give_up(outstanding, step)
            if done is None or done:
                return done or []
            polls += 1
            if polls < PATIENCE or not self.private.crowded:
                os.sched_yield()
            else:
                time.sleep(NAP)

    def _give_up(self, outstanding: Outstanding, step: str) -> NoReturn:
        """Find out who answers, and raise. The communicator is lost."""
        comm = self.comm
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

    def attempt(
        self,
        action: Callable[[], tuple[str, str, int] | None],
        step: str,
        error: Exception | None = None,
    ) -> int:
        """Do something on each rank; if it fails on one, raise that error on all. Collective.

        The action returns what all ranks must agree on, in full and for people, and its vote, if
        anything. With an `error` there is one already, and nothing is done. Gives the least vote.
        """
        token, given, vote = "", "", 0
        try:
            if error is None:
                token, given, vote = action() or ("", "", 0)
        except Exception as raised:  # noqa: BLE001 - the other ranks must hear of it
            error = raised
        try:
            return self.agree(error, token, step, given, vote)
        finally:
            # Its traceback leads here, and so would keep itself and the arrays of the caller.
            del error

    def agree(
        self, error: Exception | None, token: str, step: str, given: str = "", vote: int = 0
    ) -> int:
        """Raise the same error on every rank if one has an error or the tokens differ. Collective.

        `given` is what this rank was given, for the message. On the ranks of the error and
        elsewhere its class is the same where it is one of this library's. Gives the least vote.
        """
        self.check_open()
        comm = self.comm
        digest = hashlib.sha256(token.encode()).digest()
        number = int.from_bytes(digest[:8], "big") >> 2
        # The least of x and of -x tell whether all are equal; the third is the first rank in error.
        failed = comm.size if error is None else comm.rank
        told = np.array([number, -number, failed, vote], np.int64)
        heard = np.empty_like(told)
        if self.agreed and self.timeout is None and not self.private.crowded:
            comm.Allreduce(told, heard, MPI.MIN)
        else:
            self.together(comm.Iallreduce(told, heard, MPI.MIN), step)
        least, most, failed, vote = int(heard[0]), -int(heard[1]), int(heard[2]), int(heard[3])
        if failed < comm.size:
            self._raise_everywhere(error, failed)
        if least != most:
            texts = comm.allgather(given)
            odd = next((r for r, text in enumerate(texts) if text != texts[0]), None)
            said = "their strategy, limit, scratch or plan differ"
            if odd is not None:
                said = f"rank 0: {texts[0]}; rank {odd}: {texts[odd]}"
            raise BackendError(f"the ranks were given different problems: {said}", rank=odd)
        return vote

    def _raise_everywhere(self, error: Exception | None, failed: int) -> NoReturn:
        """Raise the error of one rank on all of them."""
        here = self.comm.rank == failed
        ours = isinstance(error, RedistribError)
        said = (
            (type(error).__name__, f"rank {failed}: {error}")
            if ours
            else (
                "BackendError",
                f"rank {failed}: {type(error).__name__}: {error}",
            )
        )
        name, message = self.comm.bcast(said, root=failed)
        values = vars(error) if here and ours else {}
        raise getattr(errors, name)(message, **{**values, "rank": failed}) from error


def _together(comm: MPI.Intracomm, request: MPI.Request) -> Transfer:
    """Wait for one request in which every rank takes part."""
    with Outstanding(comm, ROLL_CALL) as outstanding:
        outstanding.collective(request)
        while outstanding.requests:
            outstanding.remove((yield outstanding))
