"""Ranks that fail together: agreement before anything is sent, and a watchdog while it is.

A rank that raises alone, or was given another problem, would leave the others waiting for ever, or
let them take its data for something else. So each operation first agrees, in one small Allreduce,
that no rank has an error and all are about to do the same.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
from mpi4py import MPI

from redistrib import errors
from redistrib.backends.mpi.transport import Transfer, Waiting
from redistrib.errors import BackendError, RedistribError

ROLL_CALL = 0
"""The tag by which a rank says that it has waited too long."""
TAGS = 32_000
"""Every MPI allows tags up to 32767."""
GRACE = 1.0
"""Seconds in which the others answer a roll call."""
PATIENCE = 1000
"""Polls in vain before a rank on a crowded node sleeps between them: polls also move data."""
NAP = 0.0001
"""Seconds that it sleeps."""


@dataclass(slots=True)
class Private:
    """A communicator of our own, so that no message of the program's meets one of ours.

    node: the ranks that share memory with this one, which are `near` by their numbers in `comm`.
    crowded: whether some node has more ranks than processors that these may run on. A rank that
        waits inside MPI polls, and so takes a processor from one that works; there ours sleep.
    """

    comm: MPI.Intracomm
    node: MPI.Comm
    near: tuple[int, ...]
    crowded: bool
    made: int = 0

    def next_tag(self) -> int:
        """A tag for one more redistribution; ranks make them in the same order."""
        self.made += 1
        return self.made % TAGS + 1


def _release(comm: MPI.Comm, keyval: int, private: Private) -> None:  # noqa: ARG001
    private.node.Free()
    private.comm.Free()


_PRIVATE = MPI.Comm.Create_keyval(delete_fn=_release)


def private(comm: MPI.Intracomm) -> Private:
    """The duplicate of a communicator that all its redistributions share. Collective."""
    found = comm.Get_attr(_PRIVATE)
    if not isinstance(found, Private):
        own = comm.Dup()
        node = own.Split_type(MPI.COMM_TYPE_SHARED)
        # Together, for a launcher may have bound each rank to a processor of its own.
        usable = set().union(*node.allgather(_processors()))
        crowded = own.allreduce(node.size > len(usable), MPI.LOR)
        found = Private(own, node, tuple(node.allgather(own.rank)), crowded)
        comm.Set_attr(_PRIVATE, found)
    return found


def _processors() -> set[int]:
    """The processors that this process may run on; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


@dataclass(slots=True)
class Watch:
    """Waits for the other ranks, for ever or for `timeout` seconds without any progress.

    agreed: whether the ranks are known to have the same timeout. A collective that blocks on one
        and not on another would be two kinds of it, which never end.
    """

    private: Private
    timeout: float | None
    agreed: bool = False
    given_up: list[BackendError] = field(default_factory=list)

    @property
    def comm(self) -> MPI.Intracomm:
        """Where messages go."""
        return self.private.comm

    def drive(self, transfer: Transfer, step: str) -> None:
        """Run a transfer to its end. Raises BackendError if a rank does not take part in time."""
        try:
            waiting = next(transfer)
            while True:
                waiting = transfer.send(self.some(waiting, step))
        except StopIteration:
            return

    def some(self, waiting: Waiting, step: str) -> list[int]:
        """The indices of requests that are complete, at least one."""
        requests = waiting.requests
        if self.timeout is None and waiting.last:
            MPI.Request.Waitall(requests)
            return list(range(len(requests)))
        start = time.monotonic()
        polls = 0
        while True:
            done = MPI.Request.Testsome(requests)
            if done is None or done:
                return done or []
            if self.timeout is not None:
                late = time.monotonic() - start > self.timeout
                if late or self.comm.Iprobe(MPI.ANY_SOURCE, ROLL_CALL):
                    self._give_up(waiting.peers, step)
            polls += 1
            if polls < PATIENCE or not self.private.crowded:
                os.sched_yield()
            else:
                time.sleep(NAP)

    def _give_up(self, peers: Collection[int], step: str) -> NoReturn:
        """Find out who answers, and raise. The requests stay open: the communicator is lost."""
        comm = self.comm
        others = [rank for rank in range(comm.size) if rank != comm.rank]
        nothing = np.empty(0, np.uint8)
        _sent = [comm.Isend([nothing, MPI.BYTE], rank, ROLL_CALL) for rank in others]
        waited_for = set(others) if -1 in peers else set(peers)
        status = MPI.Status()
        end = time.monotonic() + GRACE
        while waited_for and time.monotonic() < end:
            if comm.Iprobe(MPI.ANY_SOURCE, ROLL_CALL, status):
                comm.Recv([nothing, MPI.BYTE], status.source, ROLL_CALL)
                waited_for.discard(status.source)
            else:
                time.sleep(0.001)
        missing = sorted(waited_for)
        names = ", ".join(map(str, missing)) or "none: the network is slower than the limit"
        error = BackendError(
            f"{step} made no progress for {self.timeout:g} s; "
            f"rank {comm.rank} got no answer from ranks: {names}",
            step=step,
            ranks=tuple(missing),
            timeout=self.timeout,
        )
        self.given_up.append(error)
        raise error

    def agree(self, error: Exception | None, token: str, step: str, given: str = "") -> None:
        """Raise the same error on every rank if one has an error or the tokens differ. Collective.

        `given` is what this rank was given, for the message. On the ranks of the error and
        elsewhere its class is the same where it is one of this library's.
        """
        if self.given_up:
            raise self.given_up[0]
        comm = self.comm
        digest = hashlib.sha256(token.encode()).digest()
        number = int.from_bytes(digest[:8], "big") >> 2
        # The least of x and of -x tell whether all are equal; the last is the first rank in error.
        told = np.array([number, -number, comm.size if error is None else comm.rank], np.int64)
        heard = np.empty_like(told)
        if self.agreed and self.timeout is None and not self.private.crowded:
            comm.Allreduce(told, heard, MPI.MIN)
        else:
            self.drive(_once(comm.Iallreduce(told, heard, MPI.MIN)), step)
        least, most, failed = int(heard[0]), -int(heard[1]), int(heard[2])
        if failed < comm.size:
            self._raise_everywhere(error, failed)
        if least != most:
            texts = comm.allgather(given)
            odd = next((r for r, text in enumerate(texts) if text != texts[0]), None)
            said = "their strategy, limit, scratch or plan differ"
            if odd is not None:
                said = f"rank 0: {texts[0]}; rank {odd}: {texts[odd]}"
            raise BackendError(f"the ranks were given different problems: {said}", rank=odd)

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


def _once(request: MPI.Request) -> Transfer:
    """Wait for one request in which every rank takes part."""
    while request != MPI.REQUEST_NULL:
        yield Waiting([request], [-1], last=False)
