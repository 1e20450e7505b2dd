"""Whether MPI runs, what must live as long as the process does, and what is under way in it."""

from __future__ import annotations

import weakref
from typing import Protocol

from mpi4py import MPI


class Advancing(Protocol):
    """What can go on a step by itself, if what it waits for has come."""

    def advance(self) -> None:
        """Do what can be done without waiting. Raises nothing."""


_KEPT: list[object] = []
_UNDER_WAY: weakref.WeakSet[Advancing] = weakref.WeakSet()
"""Calls that were started, on any communicator.

Ranks may wait for two in different orders: each of them is to go on in the wait for the other.
"""


def keep(*things: object) -> None:
    """Keep arrays and requests for the life of the process: MPI may still write to them."""
    _KEPT.append(things)


def alive() -> bool:
    """Whether MPI is between Init and Finalize."""
    return MPI.Is_initialized() and not MPI.Is_finalized()


def advancing(call: Advancing) -> None:
    """From now on a call goes on in any wait of this process."""
    _UNDER_WAY.add(call)


def under_way() -> tuple[Advancing, ...]:
    """The calls that were started and are not at their end."""
    return tuple(_UNDER_WAY)


def at_rest(call: Advancing) -> None:
    """A call is at its end."""
    _UNDER_WAY.discard(call)


def advance_all() -> None:
    """Let all that is under way go on; what a thread is at work on is left to it."""
    for call in under_way():
        call.advance()
