"""Gradients in buckets, against what torch's DDP makes of the same steps."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from redistrib.backends import torch as rtorch
from tests.torch.cases import case, rank, ranks
from tests.torch.dtensor_cases import device_mesh


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 10), nn.Linear(10, 3))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * step + rank())
    return torch.randn(5, 6, generator=generator), torch.randn(5, 3, generator=generator)


def loss(model: nn.Module, step: int) -> torch.Tensor:
    x, y = batch(step)
    return ((model(x) - y) ** 2).mean()


@case
def steps_are_those_of_ddp() -> None:
    """Whole and sharded, in one bucket and in many, with gradients that add up between steps."""
    mesh = device_mesh((8,))
    ddp = DistributedDataParallel(network())
    theirs = torch.optim.SGD(ddp.parameters(), lr=0.1, momentum=0.9)
    ours = []
    for shard in (False, True):
        for bucket_bytes in (1, 300, 1 << 20):
            model = network()
            sync = rtorch.GradientSync(
                model.parameters(), mesh, shard=shard, bucket_bytes=bucket_bytes
            )
            stepped = sync.shards if shard else list(model.parameters())
            ours.append((model, sync, torch.optim.SGD(stepped, lr=0.1, momentum=0.9)))
    for step in range(4):
        theirs.zero_grad()
        with ddp.no_sync():
            loss(ddp, 10 * step).backward()
        loss(ddp, 10 * step + 1).backward()
        theirs.step()
        for model, sync, optimizer in ours:
            model.zero_grad()
            with sync.no_sync():
                loss(model, 10 * step).backward()
            loss(model, 10 * step + 1).backward()
            sync.wait()
            optimizer.step()
            sync.gather()
            for p, q in zip(model.parameters(), ddp.module.parameters(), strict=True):
                torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@case
def unused_parameters_and_other_orders() -> None:
    """A parameter without a gradient counts as zeros; hooks are gone after close."""
    mesh = device_mesh((8,))
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    sync = rtorch.GradientSync([used, unused], mesh, average=False, bucket_bytes=1)
    (used * float(rank() + 1)).sum().backward()
    sync.wait()
    assert torch.equal(used.grad, torch.full((3,), float(sum(range(1, ranks() + 1)))))
    assert torch.equal(unused.grad, torch.zeros(2))
    sync.close()
    used.grad = None
    used.sum().backward()
    assert torch.equal(used.grad, torch.ones(3))
