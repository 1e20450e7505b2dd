"""A small network trained three ways: torch's DDP, our sums of gradients, and sharded updates.

    python examples/ddp_torch.py

Four processes over gloo, each with its own batches. DDP reduces gradients itself. In the second
way `GradientSync` does, bucket by bucket while the backward pass runs: a plan from `f32[n] sum{dp}`
to `f32[n]`. In the third, a rank gets a quarter of every bucket (`f32[n{dp}]`), keeps the state of
the optimizer for that quarter only, and after its step the parameters are gathered: ZeRO. Every two
batches make a step, of which only the second communicates. It prints the loss of each step, and the
largest difference between the parameters of ours and of DDP.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from redistrib.backends import torch as rtorch

RANKS = 4
STEPS = 20
BATCHES = 2
"""Of a step: gradients add up over them."""


def network() -> nn.Module:
    """The same parameters on every rank."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )


def batch(step: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What this rank sees: other points on each, of one function."""
    seed = (step * BATCHES + number) * RANKS + dist.get_rank()
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(seed))
    return x, x.prod(dim=1, keepdim=True).sin() + x.sum(dim=1, keepdim=True)


def optimizer(parameters: object) -> torch.optim.Optimizer:
    """Adam, whose state is twice the parameters that it is given."""
    return torch.optim.Adam(parameters, lr=1e-2)


def train_ddp() -> tuple[list[float], nn.Module]:
    """torch's own."""
    model = DistributedDataParallel(network())
    adam = optimizer(model.parameters())
    losses = []
    for step in range(STEPS):
        adam.zero_grad()
        for number in range(BATCHES):
            last = number == BATCHES - 1
            with contextlib.nullcontext() if last else model.no_sync():
                x, y = batch(step, number)
                loss = ((model(x) - y) ** 2).mean()
                (loss / BATCHES).backward()
        adam.step()
        losses.append(float(loss.detach()))
    return losses, model.module


def train_ours(*, shard: bool) -> tuple[list[float], nn.Module]:
    """Sums of gradients by plans; with `shard`, each rank updates a part of the parameters."""
    model = network()
    mesh = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("dp",))
    sync = rtorch.GradientSync(model.parameters(), mesh, shard=shard, bucket_bytes=8 << 10)
    adam = optimizer(sync.shards if shard else model.parameters())
    losses = []
    for step in range(STEPS):
        model.zero_grad()
        for number in range(BATCHES):
            last = number == BATCHES - 1
            with contextlib.nullcontext() if last else sync.no_sync():
                x, y = batch(step, number)
                loss = ((model(x) - y) ** 2).mean()
                (loss / BATCHES).backward()
        sync.wait()
        adam.step()
        if shard:
            sync.gather()
        losses.append(float(loss.detach()))
    if dist.get_rank() == 0:
        states = [n for state in adam.state.values() for n in state.values()]
        size = sum(n.numel() for n in states if n.numel() > 1)
        print(f"the optimizer keeps {size} numbers on a rank")
    sync.close()
    return losses, model


def difference(a: nn.Module, b: nn.Module) -> float:
    """The largest between their parameters, relative to the largest of these."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(((p - q).abs().max() / q.abs().max()).item() for p, q in pairs)


def run(rank: int, store: str) -> None:
    """What one process does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=RANKS, store=dist.FileStore(store, RANKS))
    expected, ddp = train_ddp()
    for shard in (False, True):
        losses, model = train_ours(shard=shard)
        error = difference(model, ddp)
        name = "sharded updates" if shard else "whole gradients"
        if rank == 0:
            steps = zip(expected, losses, strict=True)
            apart = max(abs(a - b) / abs(a) for a, b in steps)
            print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, DDP's {expected[-1]:.4f}")
            print(f"{name}: losses differ by {apart:.1e}, parameters by {error:.1e}")
        if error > 1e-3:
            sys.exit(f"{name} are not those of DDP: parameters differ by {error}")
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as directory:
        arguments = (f"{directory}/store",)
        torch.multiprocessing.start_processes(run, arguments, RANKS, start_method="fork")
    print("all three agree")
