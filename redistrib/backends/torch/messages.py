"""Messages between pairs of ranks: posted together, waited for together.

All of a process go over the default process group, so no group has to be made for a plan, which all
ranks of a job would have to do together. Two ranks match their messages by order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from redistrib.errors import BackendError

Tensor = Any


@dataclass(slots=True)
class Posted:
    """What is on its way, and what makes the next tile of it once it is there."""

    works: list[Any]
    then: Callable[[], Tensor | Posted]
    peers: tuple[int, ...] = ()

    def finish(self, timeout: float | None) -> Tensor | Posted:
        """Wait, and go on. Raises BackendError if a rank does not take part in time."""
        try:
            for work in self.works:
                if timeout is None:
                    work.wait()
                else:
                    work.wait(timedelta(seconds=timeout))
        except RuntimeError as error:
            among = ", ".join(map(str, self.peers))
            raise BackendError(
                f"rank {dist.get_rank()} waited for ranks {among}: {error}",
                rank=dist.get_rank(),
                ranks=self.peers,
            ) from error
        return self.then()


@dataclass(slots=True)
class Traffic:
    """Bytes of messages, counted as they are posted."""

    received: int = 0
    sent: int = 0

    def add(self, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> None:
        """Count messages to and from other ranks."""
        self.sent += sum(tensor.nbytes for tensor in sends.values())
        self.received += sum(tensor.nbytes for tensor in receives.values())


def post(
    sends: Mapping[int, Tensor],
    receives: Mapping[int, Tensor],
    then: Callable[[], Tensor | Posted],
    traffic: Traffic,
) -> Posted:
    """Send contiguous tensors to ranks and receive into others. Empty ones do not travel."""
    sends = {rank: tensor for rank, tensor in sends.items() if tensor.numel()}
    receives = {rank: tensor for rank, tensor in receives.items() if tensor.numel()}
    traffic.add(sends, receives)
    this_rank = dist.get_rank()
    # Each begins with its next rank: nobody is everybody's first.
    size = dist.get_world_size()
    operations = [
        dist.P2POp(dist.irecv, as_bytes(receives[rank]), rank)
        for rank in sorted(receives, key=lambda rank: (this_rank - rank) % size)
    ]
    operations += [
        dist.P2POp(dist.isend, as_bytes(sends[rank]), rank)
        for rank in sorted(sends, key=lambda rank: (rank - this_rank) % size)
    ]
    try:
        works = dist.batch_isend_irecv(operations) if operations else []
    except RuntimeError as error:
        raise BackendError(
            f"rank {this_rank} cannot send or receive: {error}", rank=this_rank
        ) from error
    return Posted(works, then, tuple(sorted({*sends, *receives})))


def as_bytes(tensor: Tensor) -> Tensor:
    """A contiguous tensor as bytes: not every backend sends every dtype."""
    # A view of one element may have any stride, and be contiguous.
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)
