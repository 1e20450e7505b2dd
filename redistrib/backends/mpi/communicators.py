"""The private communicator beside each of the program's: made once, and for one thread at a time.

It is a duplicate, on which the redistributions of a program's communicator send, so that none of
theirs meets a message of the program's. It is an attribute of that communicator, and goes with it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mpi4py import MPI

from redistrib.backends.mpi.faults import NOTICE, Fault, Faults
from redistrib.backends.mpi.lifetime import alive, keep
from redistrib.errors import BackendError

NAP = 0.0001
"""Seconds that a rank sleeps between two polls where it would take a processor from another."""

ROLL_CALL, TEXT = 0, NOTICE + 1
"""The tags by which a rank says that it has waited too long, and what its error is."""

REQUESTS = 8
"""So many receives and sends at once make MPICH 5.0 take its next block of requests."""

FIRST = "the first redistribution on a communicator"


@dataclass(slots=True)
class Private:
    """The duplicate of a communicator that all its redistributions share.

    node: the ranks that share memory with this one; `node_ranks` are their numbers in `comm`.
    crowded: whether some node has more ranks than processors that these may run on. A rank that
        waits inside MPI polls, and so takes a processor from one that works; there ours sleep.
    lost: message and values of the error, once ranks were given up: messages may be on their way.
    abandoned: agreements that this rank has begun, and left without their outcome.
    redistributions: those that are kept for the next call, by their problem.
    """

    comm: MPI.Intracomm
    node: MPI.Comm
    node_ranks: tuple[int, ...]
    crowded: bool
    last_number: int = 0
    lost: tuple[str, dict[str, Any]] | None = None
    faults: Faults = field(init=False)
    abandoned: list[Any] = field(default_factory=list)
    redistributions: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    _shift: int = 0

    def __post_init__(self) -> None:
        self.faults = Faults(self.comm)

    @property
    def packs(self) -> Container[int]:
        """The ranks with which bytes travel faster if they are packed; see `streams.py`."""
        return () if self.crowded or MPI.get_vendor()[0] == "MPICH" else self.node_ranks

    def next_number(self) -> int:
        """The number of one more redistribution; ranks make them in the same order."""
        self.last_number += 1
        return self.last_number

    def tag(self, number: int) -> int:
        """The tag of a redistribution, another one after each fault that was cleared."""
        largest: Any = MPI.COMM_WORLD.Get_attr(MPI.TAG_UB)
        return (self._shift + number) % (int(largest) - TEXT) + TEXT + 1

    def clear_faults(self, fault: Fault | None) -> None:
        """All ranks have met about a fault: no message from before may be taken for a new one."""
        self.faults.clear(fault)
        self._shift += self.last_number


@dataclass(slots=True)
class Slot:
    """What is kept with a communicator: the duplicate once there is one, and who is at work.

    busy: held by the thread that is inside a call. others: threads that came meanwhile.
    """

    private: Private | None = None
    lost: bool = False
    busy: threading.Lock = field(default_factory=threading.Lock)
    others: int = 0

    def check_alone(self) -> None:
        """Raise BackendError if another thread waits for what this one has claimed."""
        if self.others:
            raise _mixed()


_MAKING = threading.Lock()


def check_communicator(comm: object) -> None:
    """Raise BackendError unless this is a communicator of one group of ranks, and MPI runs."""
    if not alive():
        raise BackendError("redistributions are made and called between MPI_Init and MPI_Finalize")
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        kind = "COMM_NULL" if comm in (MPI.COMM_NULL, None) else type(comm).__name__
        raise BackendError(
            "a redistribution is between the ranks of one intracommunicator (that of two groups "
            f"is had by Intercomm.Merge); got {kind}",
            comm=kind,
        )


@cache
def _keyval() -> int:
    """The attribute of ours. Made late: MPI may be initialised after this module is imported."""

    def release(comm: MPI.Comm, keyval: int, slot: Slot) -> None:  # noqa: ARG001
        if slot.private is not None:
            slot.private.node.Free()
            slot.private.comm.Free()
            slot.private = None

    return MPI.Comm.Create_keyval(delete_fn=release)


def slot_of(comm: MPI.Intracomm) -> Slot:
    """What is kept with a communicator."""
    with _MAKING:
        slot = comm.Get_attr(_keyval())
        if not isinstance(slot, Slot):
            slot = Slot()
            comm.Set_attr(_keyval(), slot)
        return slot


@contextmanager
def claimed(comm: MPI.Intracomm) -> Iterator[BackendError | None]:
    """The communicator for this thread alone. Gives the error if it was another's when we came.

    Two threads on one communicator would have their messages mixed up, in another way on each rank.
    The one that comes second waits, and then takes part with an error, which all ranks hear of; the
    first one raises at its end. Raises BackendError for what is no communicator.
    """
    check_communicator(comm)
    slot = slot_of(comm)
    error = None
    if not slot.busy.acquire(blocking=False):
        slot.others += 1
        slot.busy.acquire()
        slot.others -= 1
        error = _mixed()
    try:
        yield error
        slot.check_alone()
    finally:
        slot.busy.release()


def check_alone(comm: MPI.Intracomm) -> None:
    """Raise BackendError if another thread waits for the communicator that this one has claimed."""
    slot_of(comm).check_alone()


def _mixed() -> BackendError:
    return BackendError(
        "two threads were at work on one communicator at once; give each its own (comm.Dup())"
    )


def private(comm: MPI.Intracomm, timeout: float | None = None) -> Private:
    """The duplicate that goes with a communicator. Collective.

    Raises BackendError if it is to be made and not all ranks come within `timeout` seconds; which
    do not cannot be known before there is one.
    """
    slot = slot_of(comm)
    if slot.private is None:
        if slot.lost:
            raise BackendError(f"{FIRST} failed before, as not all ranks came", step=FIRST)
        # Nobody is inside a collective that blocks before all have come.
        _finish(slot, comm.Ibarrier(), timeout)
        duplicate, request = comm.Idup()
        _finish(slot, request, timeout)
        node = duplicate.Split_type(MPI.COMM_TYPE_SHARED)
        # Together, for a launcher may have bound each rank to a processor of its own.
        usable = set().union(*node.allgather(_processors()))
        crowded = duplicate.allreduce(node.size > len(usable), MPI.LOR)
        _take_requests(duplicate)
        slot.private = Private(duplicate, node, tuple(node.allgather(duplicate.rank)), crowded)
    return slot.private


def _take_requests(comm: MPI.Intracomm) -> None:
    """Have a few requests at once: MPICH takes 2 MiB for more of them, here and so in no call."""
    nothing = [None, 0, MPI.BYTE]
    requests = [comm.Recv_init(nothing, comm.rank) for _ in range(REQUESTS)]
    requests += [comm.Send_init(nothing, comm.rank) for _ in range(REQUESTS)]
    MPI.Prequest.Startall(requests)
    MPI.Request.Waitall(requests)
    for request in requests:
        request.Free()


def _finish(slot: Slot, request: MPI.Request, timeout: float | None) -> None:
    """Wait for a request of all ranks, asleep: whoever comes late needs the processor."""
    end = None if timeout is None else time.monotonic() + timeout
    while not request.Test():
        if end is not None and time.monotonic() > end:
            keep(request)
            slot.lost = True
            raise BackendError(
                f"{FIRST} made no progress for {timeout:g} s; not all ranks came",
                step=FIRST,
                ranks=(),
                timeout=timeout,
            )
        time.sleep(NAP)


def _processors() -> set[int]:
    """The processors that this process may run on; all of them where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
