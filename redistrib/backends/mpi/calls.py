"""A call under way: its phases in turn, waited for, polled, or given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI

from redistrib.backends.mpi.agreement import GRACE, Watch
from redistrib.backends.mpi.communicators import NAP
from redistrib.backends.mpi.datatypes import Tile
from redistrib.backends.mpi.exchange import Phase, Tiles
from redistrib.backends.mpi.requests import Outstanding, Transfer
from redistrib.errors import BackendError


def fused(
    watch: Watch,
    phases: Sequence[Phase],
    levels: Sequence[Tiles],
    results: Tiles,
    *,
    blocking: bool,
) -> Transfer:
    """All phases of a call, between the arrays before, between and after them."""
    for number, phase in enumerate(phases):
        watch.step = f"{phase.name} ({number + 1} of {len(phases)})"
        sources, targets = (_seen(phase, level) for level in levels[number : number + 2])
        yield from phase.run(sources, targets, blocking=blocking)
    _put(levels[-1] if phases else levels[0], results)


def by_steps(
    watch: Watch,
    phases: Sequence[Phase],
    tiles: Tiles,
    results: list[Tile | None],
    make: Callable[[Phase | None], list[Tile | None]],
    *,
    blocking: bool,
) -> Transfer:
    """All steps of a call, each into tiles that `make` makes when its turn comes.

    `make` is given the phase; None stands for the last, and what it makes are the results.
    """
    held, made = [forwards(tile) for tile in tiles], list(results)

    def take_memory(phase: Phase | None) -> None:
        made[:] = make(phase)
        if phase is None:
            results[:] = made
            made[:] = [forwards(result) for result in results]

    for number, phase in enumerate(phases, 1):
        last = number == len(phases)
        watch.step = f"{phase.name} (step {number} of {len(phases)})"
        watch.attempt(partial(take_memory, None if last else phase), watch.step)
        yield from phase.run(held, made, blocking=blocking)
        held = list(made)
    if not phases:
        take_memory(None)
    _put(held, results)


def _seen(phase: Phase, tiles: Tiles) -> list[Tile | None]:
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
    """

    def __init__(
        self,
        transfer: Transfer,
        results: list[Tile | None],
        watch: Watch,
    ) -> None:
        self._transfer, self._results, self._watch = transfer, results, watch
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
                self._advance(self._watch.some(self._outstanding, self._watch.step))
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
