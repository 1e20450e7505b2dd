"""Requests that are under way: whom they wait for, and how they are given up.

A transfer is a generator: it yields what is outstanding and is sent the indices of the requests
that are complete, so that the same code serves blocking calls, polling and time limits.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Self

from mpi4py import MPI

from redistrib.backends.mpi.communicators import alive, keep

Message = list[Any]
"""What a send or receive takes: buffer, count and datatype."""
Owner = tuple[int, int]
"""A flow by its number, and the slot of it that a request fills or empties."""


class Outstanding:
    """Requests in the order in which they were started, and what belongs to each.

    Left by an exception, or with the generator that it is in, it gives up what is open.

    arrays: what the requests read and write, which must live as long as they do.
    peers: the rank that each waits for; -1 for all ranks.
    last: whether nothing is to be done before all of them are complete.
    """

    def __init__(self, comm: MPI.Intracomm, tag: int, *arrays: object) -> None:
        self.comm, self.tag, self.arrays = comm, tag, arrays
        self.requests: list[MPI.Request] = []
        self.peers: list[int] = []
        self.last = False
        self._receives: list[bool] = []
        self._owners: list[Owner | None] = []

    def send(self, message: Message, peer: int, owner: Owner | None = None) -> None:
        """Start to send a message."""
        self._add(self.comm.Isend(message, peer, self.tag), peer, False, owner)

    def receive(self, message: Message, peer: int, owner: Owner | None = None) -> None:
        """Start to receive one."""
        self._add(self.comm.Irecv(message, peer, self.tag), peer, True, owner)

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
        owners = [owner for at in done if (owner := self._owners[at]) is not None]
        for at in sorted(done, reverse=True):
            for column in (self.requests, self.peers, self._receives, self._owners):
                del column[at]
        return owners

    def give_up(self) -> None:
        """Cancel what can be cancelled, and keep the rest with its arrays.

        A receive that no message has come for can be cancelled; a send, or what is half received,
        cannot, and may read and write its memory as long as the process lives.
        """
        if not self.requests or not alive():
            return
        for request, receives in zip(self.requests, self._receives, strict=True):
            if receives and request != MPI.REQUEST_NULL:
                request.Cancel()
        if not MPI.Request.Testall(self.requests):
            keep(self.requests, self.arrays)
        for column in (self.peers, self._receives, self._owners):
            column.clear()
        self.requests = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.give_up()


Transfer = Generator[Outstanding, list[int], None]
