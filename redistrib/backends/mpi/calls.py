"""A call under way: waited for, polled, or given up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

from redistrib.backends.mpi.agreement import GRACE, Watch
from redistrib.backends.mpi.communicators import NAP
from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.requests import Outstanding, Transfer
from redistrib.errors import BackendError


class Running:
    """A call that was started.

    One that is dropped before its end, or left by an exception, is given up: what of it can still
    read or write memory keeps that memory as long as the process lives.
    """

    def __init__(
        self,
        transfer: Transfer,
        results: list[Tile | None],
        watch: Watch,
        step: Callable[[], str],
    ) -> None:
        self._transfer, self._results, self._watch, self._step = transfer, results, watch, step
        self._given_up = False
        self._outstanding: Outstanding | None = next(transfer, None)

    @property
    def done(self) -> bool:
        """Whether the call is known to be at its end."""
        return self._outstanding is None

    def test(self) -> bool:
        """Whether the call is at its end, after what can be done without waiting."""
        while self._outstanding is not None:
            done = MPI.Request.Testsome(self._outstanding.requests)
            if not done:
                return False
            self._advance(done)
        self._check()
        return True

    def wait(self) -> list[Any]:
        """The results, once they are complete. Raises BackendError if a rank takes no part."""
        try:
            while self._outstanding is not None:
                self._advance(self._watch.some(self._outstanding, self._step()))
        except BaseException:
            self.give_up()
            raise
        self._check()
        return self._results

    def end_soon(self) -> None:
        """Bring the call to its end if the others do their part at once, or give it up."""
        end = time.monotonic() + GRACE
        while not self.done and time.monotonic() < end:
            if not self.test():
                time.sleep(NAP)
        self.give_up()

    def give_up(self) -> None:
        """Leave a call that is under way; nothing if it is at its end."""
        if self._outstanding is not None:
            self._transfer.close()
            self._outstanding, self._given_up, self._results = None, True, []

    def _check(self) -> None:
        if self._given_up:
            raise BackendError("the call was given up before its end")

    def _advance(self, done: list[int]) -> None:
        try:
            self._outstanding = self._transfer.send(done)
        except StopIteration:
            self._outstanding = None
        except BaseException:
            self.give_up()
            raise
