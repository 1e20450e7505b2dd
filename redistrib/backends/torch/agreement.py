"""What ranks tell each other beside their messages: in the store of the default process group.

A rank that is given a wrong tile sends nothing, and gloo and NCCL have no word for that: whoever
waits for it waits for the timeout, and after it the connections are lost. So the first call of a
plan is agreed on before a message is posted, and later calls, which cost nothing more, are told of
faults where they wait. On ranks 0, 1 and 2, of which 1 is given a wrong tile:

    first call     all put (plan, error or none) into the store; the last to come writes what all
                   raise: "rank 1: a tile of f32[8{x}] has shape [4] ...". Connections are as
                   before, and the next call agrees again.
    a later call   rank 1 writes the same under the plan and the number of the call, and raises; 0
                   and 2 wait for its messages until it ends or the timeout, look there, and raise
                   it. As after every message that does not come, connections are lost then.

Law: calls of a plan are collective, so all its ranks have made as many, and agree in the same ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore
from torch.distributed.distributed_c10d import _get_default_store

from redistrib.errors import BackendError


@dataclass(slots=True)
class _Job:
    """The store of a default process group, and what this rank has agreed on in it.

    calls: of each plan that has been agreed on. meetings: per set of ranks.
    """

    store: Any
    calls: dict[str, int] = field(default_factory=dict)
    meetings: dict[tuple[int, ...], int] = field(default_factory=dict)


@lru_cache(maxsize=1)
def _job(group: Any) -> _Job:
    return _Job(PrefixStore(f"redistrib/{group.group_name}", _get_default_store()))


class Agreement:
    """The calls of a plan by its ranks.

    about: the plan in words. identity: what all ranks are to have alike. timeout: seconds, by
    default those of the process group for tensors on `device`.
    """

    def __init__(
        self, about: str, identity: str, ranks: tuple[int, ...], device: Any, timeout: float | None
    ) -> None:
        self._about, self._ranks, self._rank = about, tuple(sorted(ranks)), dist.get_rank()
        told = f"{self._ranks} {identity}".encode()
        self._plan = hashlib.sha256(told).hexdigest()
        self._device, self._timeout = torch.device(device), timeout

    def enter(self, check: Callable[[], None]) -> int:
        """Begin a call: its number. `check` raises BackendError where this rank cannot take part.

        Raises what it raises; in the first call on all ranks, the same error.
        """
        job = _job(dist.group.WORLD)
        error: BackendError | None = None
        try:
            check()
        except BackendError as raised:
            error = raised
        if self._rank in self._ranks and len(self._ranks) > 1:
            if self._plan not in job.calls:
                self._agree(job, error)
                job.calls[self._plan] = 0
            job.calls[self._plan] += 1
            if error is not None:
                job.store.set(self._fault(job.calls[self._plan]), f"rank {self._rank}: {error}")
        if error is not None:
            raise error
        return job.calls.get(self._plan, 0)

    def cause(self, call: int, error: BackendError) -> BackendError:
        """What to raise for an error of waiting in a call: the fault of a rank, if one told it."""
        store = _job(dist.group.WORLD).store
        with contextlib.suppress(RuntimeError):  # the store may be gone with its rank
            if store.check([self._fault(call)]):
                text = store.get(self._fault(call)).decode()
                return BackendError(text, rank=int(text.split()[1].rstrip(":")))
        return error

    def _fault(self, call: int) -> str:
        return f"fault/{self._plan}/{call}"

    def _agree(self, job: _Job, error: BackendError | None) -> None:
        """Meet the other ranks. Raises BackendError on all if one has an error or another plan."""
        number = job.meetings[self._ranks] = job.meetings.get(self._ranks, 0) + 1
        key = f"meeting/{hashlib.sha256(str(self._ranks).encode()).hexdigest()}/{number}"
        statement = [self._plan, self._about, "" if error is None else str(error)]
        job.store.set(f"{key}/{self._rank}", json.dumps(statement))
        if job.store.add(f"{key}/arrived", 1) == len(self._ranks):
            heard = [json.loads(job.store.get(f"{key}/{rank}")) for rank in self._ranks]
            job.store.set(f"{key}/verdict", json.dumps(_verdict(self._ranks, heard)))
        try:
            job.store.wait([f"{key}/verdict"], self._patience())
            rank, text = json.loads(job.store.get(f"{key}/verdict"))
        except RuntimeError as lost:
            raise self._missing(job, key, lost) from lost
        if job.store.add(f"{key}/left", 1) == len(self._ranks):
            for name in (*self._ranks, "arrived", "verdict", "left"):
                job.store.delete_key(f"{key}/{name}")
        if text:
            raise BackendError(text, rank=rank) from error

    def _missing(self, job: _Job, key: str, lost: RuntimeError) -> BackendError:
        """Who has not come to a meeting."""
        missing: list[int] = []
        with contextlib.suppress(RuntimeError):
            missing = [rank for rank in self._ranks if not job.store.check([f"{key}/{rank}"])]
        among = ", ".join(map(str, missing or self._ranks))
        return BackendError(
            f"rank {self._rank} waited for ranks {among}, to begin {self._about}: {lost}",
            rank=self._rank,
            ranks=missing,
        )

    def _patience(self) -> timedelta:
        if self._timeout is not None:
            return timedelta(seconds=self._timeout)
        backend = dist.group.WORLD._get_backend(self._device)  # noqa: SLF001
        return timedelta(seconds=backend.options._timeout.total_seconds())  # noqa: SLF001


def _verdict(ranks: tuple[int, ...], heard: list[list[str]]) -> tuple[int, str]:
    """The rank at fault and what all raise; no text if all is well.

    >>> _verdict((0, 1), [["a1", "S(0) -> R", ""], ["a1", "S(0) -> R", "no tile"]])
    (1, 'rank 1: no tile')
    >>> _verdict((0, 1), [["a1", "S(0) -> R", ""], ["b2", "S(1) -> R", ""]])[1]
    'the ranks were given different plans: rank 0 S(0) -> R, rank 1 S(1) -> R'
    """
    for rank, (_, _, error) in zip(ranks, heard, strict=True):
        if error:
            return rank, f"rank {rank}: {error}"
    first = heard[0]
    for rank, other in zip(ranks, heard, strict=True):
        if other[0] != first[0]:
            plans = f"rank {ranks[0]} {first[1]}, rank {rank} {other[1]}"
            return rank, f"the ranks were given different plans: {plans}"
    return ranks[0], ""
