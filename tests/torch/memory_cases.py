"""What a move of a DTensor allocates and receives on each rank, beside what DTensor itself does."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from redistrib.backends import torch as rtorch
from redistrib.backends.torch.redistribute import find_move
from tests.torch.accounting import Allocations, Received, allocations
from tests.torch.cases import case
from tests.torch.dtensor_cases import device_mesh

SHAPE = (64, 96)


def most(value: int) -> int:
    """The largest of what the ranks have."""
    found = torch.tensor(value)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def drawn(random: Random, partial: bool) -> list[Any]:
    kinds = [Replicate(), Shard(0), Shard(1), *([Partial()] if partial else [])]
    return [random.choice(kinds) for _ in range(3)]


def measured(x: DTensor, placements: list[Any], *, ours: bool) -> tuple[DTensor, Allocations, int]:
    """A move, what it allocates on this rank, and what it receives from others."""
    mesh = x.device_mesh
    rtorch.redistribute(x, mesh, placements) if ours else x.redistribute(mesh, placements)
    with Received() as received, allocations() as allocated:
        y = rtorch.redistribute(x, mesh, placements) if ours else x.redistribute(mesh, placements)
    return y, allocated, received.bytes


@case
def moves_stay_within_their_ends_where_dtensor_does_not(seed: int, count: int) -> None:
    """On 2 x 2 x 2, of the pairs for which DTensor allocates a tensor larger than both ends.

    No tensor of a move is larger than the larger end, and beside the source there are at no time
    more than the target and as much again for messages on either side: what a rank sends, packed,
    and what it receives. The worst rank receives what the plan says.
    """
    mesh = device_mesh((2, 2, 2))
    random, exceeded = Random(seed), 0
    while exceeded < count:
        source, target = drawn(random, partial=True), drawn(random, partial=False)
        shape = list(SHAPE)
        for m, placement in enumerate(source):
            if isinstance(placement, Shard):
                shape[placement.dim] //= mesh.size(m)
        x = DTensor.from_local(torch.ones(shape), mesh, source, run_check=False)
        theirs, allocated, _ = measured(x, target, ours=False)
        larger = max(x.to_local().nbytes, theirs.to_local().nbytes)
        if most(allocated.largest) <= larger:
            continue
        exceeded += 1
        y, allocated, received = measured(x, target, ours=True)
        assert torch.equal(y.to_local(), theirs.to_local())
        plan = find_move(x._spec, y._spec).program.plan
        assert most(received) == plan.received_bytes, (source, target)
        assert allocated.largest <= larger, (source, target, allocated, larger)
        assert allocated.peak <= 3 * larger, (source, target, allocated, larger)
