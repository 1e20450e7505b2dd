"""A repeated call, on the tiles of the call before it: its messages are started again, no more.

    for _ in range(steps):
        to_columns(rows, out=columns)  # from the third time on

In loops that give the same tile and `out` each time, where all travels straight from tile to tile
and a call is no meeting. That the two arrays are what they were is looked at unless `check="none"`.
It keeps addresses and weak references, so no array lives longer for it.

It is one of the operations that all ranks count (faults.py), whether or not another rank takes this
way; where an error is known, a call was started, or the ranks were given up, the full way is taken.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from redistrib.backends.mpi.agreement import LISTEN, YIELDS, Watch
from redistrib.backends.mpi.calls import call_of, forwards, seen
from redistrib.backends.mpi.communicators import Slot
from redistrib.backends.mpi.datatypes import Tile, address_of
from redistrib.backends.mpi.exchange import Phase, TileExchange
from redistrib.backends.mpi.faults import Operation
from redistrib.backends.mpi.lifetime import alive
from redistrib.backends.mpi.requests import Outstanding

_GONE = object()

Reference = Callable[[], object]
"""Gives an array; something else once nobody else has it."""
Ends = tuple[Tile | None, Tile | None]
"""A tile of the source and one of the target."""


class RepeatedCall:
    """The messages and copies of one call of an exchange, for calls on the same two arrays.

    seen_ends: the tiles as the phase sees them. text: what the call is, for others that ask.
    looks: whether each call looks at the arrays, whose shape a program may have changed in place.
    """

    def __init__(
        self,
        watch: Watch,
        slot: Slot,
        phase: TileExchange,
        ends: Ends,
        seen_ends: Ends,
        text: str,
        looks: bool,
    ) -> None:
        self._watch, self._slot, self._text = watch, slot, text
        self._tile, self._out = (reference(array) for array in ends)
        self._looks = [_look(array) for array in ends] if looks else []
        self._messages, copies = phase.prepared(*seen_ends)
        self._requests = self._messages.requests
        self._copies = [(_without_owner(a), _without_owner(b)) for a, b in copies]
        self._cleared = watch.private.faults.cleared

    @classmethod
    def of(
        cls,
        watch: Watch,
        slot: Slot,
        phase: Phase,
        tile: Tile | None,
        out: Tile | None,
        number: int,
        *,
        looks: bool,
    ) -> RepeatedCall | None:
        """The call that a redistribution just ran, to be repeated; None where more is needed."""
        backwards = forwards(tile) is not tile or forwards(out) is not out
        if not isinstance(phase, TileExchange) or backwards or watch.timeout is not None:
            return None
        seen_ends = seen(phase, [tile, out])
        both = (tile, out), (seen_ends[0], seen_ends[1])
        return cls(watch, slot, phase, *both, call_of(number, 1), looks)

    def __call__(self, tile: Tile | None, out: Tile | None) -> bool:
        """Whether the call was done; if not, nothing was, and the full way is to be taken."""
        if self._tile() is not tile or self._out() is not out or self._stale:
            return False
        if self._looks and self._looks != [_look(tile), _look(out)]:
            return False
        private = self._watch.private
        faults, slot = private.faults, self._slot
        if not alive() or private is not slot.private or private.lost or private.abandoned:
            return False
        if not slot.busy.acquire(False):
            return False
        try:
            faults.listen()
            if faults.raised or faults.known is not None or faults.cleared != self._cleared:
                return False
            self._run(faults.begin(self._text))
            slot.check_alone()
        finally:
            slot.busy.release()
        return True

    @property
    def _stale(self) -> bool:
        """Whether the messages are under way, or were released for those of other tiles."""
        return self._messages.under_way or self._messages.requests is not self._requests

    def _run(self, operation: Operation) -> None:
        requests, listed = self._requests, False
        try:
            if requests:
                MPI.Prequest.Startall(requests)
            for target, source in self._copies:
                target[...] = source
            for _ in range(LISTEN if requests else 0):
                if MPI.Request.Testall(requests):
                    return
                if YIELDS:
                    os.sched_yield()
            with self._outstanding() as outstanding:
                listed = outstanding.last = True
                while outstanding.requests:
                    outstanding.remove(self._watch.some(outstanding, operation))
        except BaseException as error:  # also one that a signal's handler raises
            if not listed:
                outstanding = self._outstanding()
                outstanding.all_complete()
                outstanding.give_up()
                self._messages.under_way = self._messages.given_up
            self._watch.left(operation, error)
            raise

    def _outstanding(self) -> Outstanding:
        """The messages, which are started, with the arrays that they read and write."""
        outstanding = Outstanding(self._watch.comm, 0, self._tile(), self._out())
        outstanding.repeat(self._messages, started=True)
        return outstanding


def _look(array: Tile | None) -> object:
    """Where an array lies, its shape, strides and dtype, and whether it may be written."""
    return None if array is None else (array.__array_interface__, array.dtype)


def reference(array: Tile | None) -> Callable[[], Any]:
    """A function that gives the array; `_GONE`, which is no tile, once nobody else has it."""
    if array is None:
        return lambda: None
    reference = weakref.ref(array)
    return lambda: _GONE if (referent := reference()) is None else referent


def _without_owner(view: Tile) -> Tile:
    """The same memory as an array that keeps nothing alive."""
    extent = view.itemsize + sum(
        (n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True)
    )
    memory: Any = MPI.buffer.fromaddress(address_of(view), extent)
    return np.ndarray(view.shape, view.dtype, memory, 0, view.strides)
