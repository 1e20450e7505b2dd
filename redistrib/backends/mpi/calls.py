"""A call under way: its phases in turn, waited for, polled, or given up.

A program computes while its messages travel:

    call = redistribution.start(tile)  # a `Running`
    while not call.test():  # what can be done without waiting is done
        work()
    [result] = call.wait()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI

from redistrib.backends.mpi.agreement import GRACE, Watch
from redistrib.backends.mpi.communicators import NAP, Private
from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.exchange import Phase, Tiles
from redistrib.backends.mpi.faults import Operation
from redistrib.backends.mpi.lifetime import advance_all, advancing, at_rest, under_way
from redistrib.backends.mpi.requests import Outstanding, Transfer
from redistrib.errors import BackendError


def fused(
    watch: Watch,
    phases: Sequence[Phase],
    levels: Sequence[Tiles],
    results: Tiles,
) -> Transfer:
    """All phases of a call, between the arrays before, between and after them."""
    for number, phase in enumerate(phases):
        watch.step = f"{phase.name} ({number + 1} of {len(phases)})"
        sources, targets = (seen(phase, level) for level in levels[number : number + 2])
        yield from phase.run(sources, targets)
    _put(levels[-1] if phases else levels[0], results)


def by_steps(
    watch: Watch,
    phases: Sequence[Phase],
    tiles: Tiles,
    results: list[Tile | None],
    make: Callable[[Phase | None], list[Tile | None]],
) -> Transfer:
    """All steps of a call, each into tiles that `make` makes when its turn comes.

    `make` is given the phase; None stands for the last, and what it makes are the results.
    """
    held, written = [forwards(tile) for tile in tiles], list(results)

    def take_memory(phase: Phase | None) -> None:
        written[:] = make(phase)
        if phase is None:
            results[:] = written
            written[:] = [forwards(result) for result in results]

    for number, phase in enumerate(phases, 1):
        last = number == len(phases)
        watch.step = f"{phase.name} (step {number} of {len(phases)})"
        watch.attempt(partial(take_memory, None if last else phase), watch.step)
        yield from phase.run(held, written)
        phase.free()  # what is kept for other calls keeps these tiles alive
        held = list(written)
    if not phases:
        take_memory(None)
    _put(held, results)


def call_of(number: int, arrays: int) -> str:
    """What a call is, the same on all ranks."""
    return f"a call of redistribution {number} with {arrays} arrays"


def end_all(under_way: Sequence[Running], *, soon: bool) -> None:
    """End calls in the order in which they were started; `soon`: or give them up."""
    for running in tuple(under_way):
        running.end_soon() if soon else running.wait()


def settle_meetings(watch: Watch) -> None:
    """Where an error is known, wait for the meetings of calls that were started since.

    A rank that knows the outcome of one has cleared the error: it has other tags, and meets no more
    in the next call. So all begin that call after it.
    """
    if watch.private.faults.unsettled():
        for call in under_way():
            if isinstance(call, Running) and call.meets_on(watch.private):
                call.settle()


def seen(phase: Phase, tiles: Tiles) -> list[Tile | None]:
    """The tiles as a phase sees them: with their dimensions in reverse, if so."""
    return [tile.T if tile is not None and phase.after.reverse else tile for tile in tiles]


def _put(arrays: Tiles, results: Tiles) -> None:
    """Copy what is not in its result yet."""
    for result, array in zip(results, arrays, strict=True):
        if result is not None and result is not array:
            result[...] = array


def forwards(tile: Tile | None) -> Tile | None:
    """The tile, or a copy in memory order if it runs backwards.

    Open MPI 5.0 sends reversed bytes in their order in memory, whatever the datatype says.
    """
    if tile is not None and any(stride < 0 for stride in tile.strides):
        return np.ascontiguousarray(tile)
    return tile


class Running:
    """A call that was started.

    One that is dropped before its end, or left by an exception, is given up: what of it can still
    read or write memory keeps that memory as long as the process lives.

    Calls of one redistribution share its tag, so one begins when that before it is `settled`: MPI
    keeps the messages of two ranks in order. Where the one before is left, they would be taken for
    those of the next, so that one is left too.

    under_way: the calls of which the program has not seen the end; this one is there until it has.
    before: the call after which this one may begin, if any.
    at_once: whether all messages of a call are on their way once it has begun, and need no buffer.
    """

    def __init__(
        self,
        transfer: Transfer,
        results: list[Tile | None],
        watch: Watch,
        operation: Operation,
        under_way: list[Running],
        before: Running | None,
        at_once: Callable[[], bool],
    ) -> None:
        self._under_way, self._at_once = under_way, at_once
        self._transfer, self._results, self._watch = transfer, results, watch
        self._operation = operation
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._outstanding: Outstanding | None = None
        self.spoilt = False
        self._before = before
        if self._may_begin():
            self._step(None)
        if not self.done:
            advancing(self)

    @property
    def done(self) -> bool:
        """Whether the call is known to be at its end."""
        return self._outstanding is None and self._before is None

    @property
    def settled(self) -> bool:
        """Whether the next call may begin: all messages of this one are complete or in order."""
        if self.done:
            return True
        begun = self._before is None and not self._operation.meeting
        return begun and self._at_once() and not self.spoilt

    @property
    def begun(self) -> bool:
        """Whether messages of it may be on their way."""
        return self._outstanding is not None

    def settle(self) -> None:
        """Wait until the next call may begin. Raises nothing."""
        try:
            self._drive(lambda: self.settled)
        except Exception as error:  # noqa: BLE001 - the wait for this call raises it
            self._error = error

    def meets_on(self, private: Private) -> bool:
        """Whether it is in a meeting of the ranks of this communicator."""
        return self._watch.private is private and self._operation.meeting

    def _may_begin(self) -> bool:
        """Whether the call before lets this one begin, which it does then."""
        if self._before is None or not self._before.settled:
            return self._before is None
        self._before = None
        return True

    def test(self) -> bool:
        """Whether the call is at its end, after what can be done without waiting."""
        with self._lock:
            self._go_on_unless_spoilt()
            if self._before is not None and self._before.spoilt:
                self._follow()
            elif self._before is not None:
                self._before.advance()
                if self._may_begin():
                    self._step(None)
            while self._outstanding is not None:
                done = MPI.Request.Testsome(self._outstanding.requests)
                if not done:
                    with self._left_on_errors():
                        self._watch.listen(self._outstanding, self._operation)
                    break
                self._step(done)
        if not self.done:
            advance_all()
            return False
        self._check()
        return True

    def wait(self) -> list[Any]:
        """The results, once they are complete. Raises BackendError if a rank takes no part."""
        self._drive(lambda: self.done)
        self._check()
        return self._results

    def _drive(self, enough: Callable[[], bool]) -> None:
        """Wait until the call is so far."""
        with self._lock:
            self._go_on_unless_spoilt()
            self._follow()
            while self._outstanding is not None and not enough():
                with self._left_on_errors():
                    done = self._watch.some(self._outstanding, self._operation)
                self._step(done)

    def _follow(self) -> None:
        """Begin, once the call before lets this one."""
        if (before := self._before) is not None:
            before.settle()
            self._before = None
            self._step(None)

    def _go_on_unless_spoilt(self) -> None:
        """Leave the call if the one before it was left: its messages may have come for this one."""
        if self.spoilt and self._outstanding is not None:
            with self._left_on_errors():
                self._watch.listen(self._outstanding, self._operation)
                raise BackendError("a call before this one was given up")

    def advance(self) -> None:
        """Do what can be done without waiting, unless a thread is at it. Raises nothing."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._before is not None and self._may_begin():
                self._step(None)
            if self._outstanding is not None and not self.spoilt:
                done = MPI.Request.Testsome(self._outstanding.requests)
                if done:
                    self._step(done)
        except Exception as error:  # noqa: BLE001 - the wait for this call raises it
            self._error = error
        finally:
            self._lock.release()

    def end_soon(self) -> None:
        """Bring the call to its end if the others do their part at once, or give it up."""
        end = time.monotonic() + GRACE
        while not self.done and time.monotonic() < end:
            if not self.test():
                time.sleep(NAP)
        self.give_up()

    def give_up(self) -> None:
        """Leave a call that is under way, and say so; nothing if it is at its end."""
        if not self.done:
            self._leave(BackendError("the call was given up"))

    def _leave(self, error: BaseException) -> None:
        self._transfer.close()
        self._outstanding, self._before, self._results = None, None, []
        if self in self._under_way:
            for later in self._under_way[self._under_way.index(self) + 1 :]:
                later.spoilt = later.begun
        self._error = BackendError("the call was given up before its end")
        self._end()
        self._watch.left(self._operation, error)

    def _end(self) -> None:
        at_rest(self)
        if self in self._under_way:
            self._under_way.remove(self)

    @contextmanager
    def _left_on_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._leave(error)
            raise

    def _check(self) -> None:
        """The program sees the end."""
        self._end()
        if self._error is not None:
            raise self._error

    def _step(self, done: list[int] | None) -> None:
        with self._left_on_errors():
            try:
                self._outstanding = self._transfer.send(done)  # type: ignore[arg-type]
            except StopIteration:
                self._outstanding = None
