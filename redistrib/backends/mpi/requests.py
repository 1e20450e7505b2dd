"""Requests that are under way: whom they wait for, and how they are given up.

A transfer is a generator: it yields what is outstanding and is sent the indices of the requests
that are complete, so that the same code serves blocking calls, polling and time limits.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Self

from mpi4py import MPI

from redistrib.backends.mpi.lifetime import alive, keep

Message = list[Any]
"""What a send or receive takes: buffer, count and datatype."""
Owner = tuple[int, int]
"""A flow by its number, and the slot of it that a request fills or empties."""


class Repeated:
    """Messages for the same memory in every call: made once, and started together.

    given_up: one of them is under way for ever, so none is freed. under_way: started by a call that
    is not at its end.
    """

    def __init__(self, comm: MPI.Intracomm, tag: int) -> None:
        self._comm, self._tag = comm, tag
        self.requests: list[MPI.Prequest] = []
        self.peers: list[int] = []
        self.receives: list[bool] = []
        self.given_up = self.under_way = False

    def add(self, message: Message, peer: int, *, receives: bool) -> None:
        """One more message."""
        make = self._comm.Recv_init if receives else self._comm.Send_init
        self.requests.append(make(message, peer, self._tag))
        self.peers.append(peer)
        self.receives.append(receives)

    def free(self) -> None:
        """Release them, between two calls. Nothing after Finalize."""
        if alive() and not self.given_up:
            for request in self.requests:
                request.Free()
        self.requests = []

    def __del__(self) -> None:
        self.free()


class Outstanding:
    """Requests in the order in which they were started, and what belongs to each.

    Left by an exception, or with the generator that it is in, it gives up what is open.

    arrays: what the requests read and write, which must live as long as they do.
    peers: the rank that each waits for; -1 for all ranks.
    last: whether nothing is to be done before all of them are complete.
    given_up: whether one of them is under way for ever, so that the arrays are not to be used.
    """

    last = given_up = False

    def __init__(self, comm: MPI.Intracomm, tag: int, *arrays: object) -> None:
        self.comm, self.tag, self.arrays = comm, tag, arrays
        self.requests: list[MPI.Request] = []
        self.peers: list[int] = []
        self._receives: list[bool] = []
        self._owners: list[Owner | None] = []
        self._repeated: Repeated | None = None
        self._complete = 0

    def send(self, message: Message, peer: int, owner: Owner | None = None) -> None:
        """Start to send a message."""
        self._add(self.comm.Isend(message, peer, self.tag), peer, False, owner)

    def receive(self, message: Message, peer: int, owner: Owner | None = None) -> None:
        """Start to receive one."""
        self._add(self.comm.Irecv(message, peer, self.tag), peer, True, owner)

    def repeat(self, messages: Repeated, *, started: bool = False) -> None:
        """Start messages that were made for several calls, unless they are `started`."""
        if messages.requests and not started:
            MPI.Prequest.Startall(messages.requests)
        self._repeated = messages
        messages.under_way = True
        for request, peer, receives in zip(
            messages.requests, messages.peers, messages.receives, strict=True
        ):
            self._add(request, peer, receives, None)

    def collective(self, request: MPI.Request) -> None:
        """Wait for all ranks too."""
        self._add(request, -1, False, None)

    def _add(self, request: MPI.Request, peer: int, receives: bool, owner: Owner | None) -> None:
        self.requests.append(request)
        self.peers.append(peer)
        self._receives.append(receives)
        self._owners.append(owner)

    def remove(self, done: Sequence[int]) -> list[Owner]:
        """Forget requests that are complete; gives the owners of those that have one."""
        self._complete = 0
        owners = [owner for index in done if (owner := self._owners[index]) is not None]
        for index in sorted(done, reverse=True):
            for column in (self.requests, self.peers, self._receives, self._owners):
                del column[index]
        return owners

    def all_complete(self) -> bool:
        """Whether all are; each is looked at until it is."""
        while self._complete < len(self.requests):
            if not self.requests[self._complete].Test():
                return False
            self._complete += 1
        return True

    def give_up(self) -> None:
        """Cancel what can be cancelled, and keep the rest with its arrays.

        A receive that no message has come for can be cancelled; a send, or what is half received,
        cannot, and may read and write its memory as long as the process lives.
        """
        if not alive():
            return
        # A repeated message that is complete is at rest: there is nothing to cancel.
        self.remove(range(self._complete))
        if not self.requests:
            return
        for request, receives in zip(self.requests, self._receives, strict=True):
            if receives and request != MPI.REQUEST_NULL:
                request.Cancel()
        if not MPI.Request.Testall(self.requests):
            keep(self.requests, self.arrays)
            self.given_up = True
            if self._repeated is not None:
                self._repeated.given_up = True
        for column in (self.peers, self._receives, self._owners):
            column.clear()
        self.requests = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.give_up()
        if self._repeated is not None and not self._repeated.given_up:
            self._repeated.under_way = False
        self.arrays = ()  # whoever holds this still keeps no tiles alive


Transfer = Generator[Outstanding, list[int], None]
