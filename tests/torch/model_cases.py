"""Whole models over torch.distributed, and state dicts of FSDP2 and tensor parallel modules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import redistrib as rd
from redistrib.backends import simulator
from redistrib.backends import torch as rtorch
from tests.models.random_moves import random_case
from tests.torch.cases import case, rank, ranks, same_bits, to_torch
from tests.torch.dtensor_cases import device_mesh


@case
def random_models_move(first: int, count: int) -> None:
    """As numpy says, with the bytes that the plan says, on the worst rank."""
    for seed in range(first, first + count):
        drawn = random_case(seed, ranks=ranks())
        tiles = simulator.scatter_model(drawn.arrays, drawn.plan.src).get(rank(), {})
        moving = rtorch.ModelRedistribution(drawn.plan, batch_bytes=64)
        made = moving({name: to_torch(tile) for name, tile in tiles.items()})
        meant = simulator.scatter_model(drawn.meant, drawn.plan.dst).get(rank(), {})
        assert made.keys() == meant.keys(), seed
        assert all(same_bits(made[name], meant[name]) for name in made), seed
        assert moving.traffic.received <= drawn.plan.received_bytes, seed


def small_model(arrays: int = 6) -> rd.ModelPlan:
    mesh = rd.Mesh(x=ranks())
    n = ranks() * 2
    src = {f"w{i}": (f"f32[{n}{{x}}, {n}]", mesh) for i in range(arrays)}
    dst = {f"w{i}": (f"f32[{n}, {n}{{x}}]", mesh) for i in range(arrays)}
    return rd.plan_model(src, dst)


def example(plan: rd.ModelPlan) -> dict[str, torch.Tensor]:
    arrays = {
        name: np.arange(t.shape[0] * t.shape[1], dtype="f4").reshape(t.shape) + n
        for n, (name, t) in enumerate(plan.src.items())
    }
    tiles = simulator.scatter_model(arrays, plan.src)[rank()]
    return {name: to_torch(tile) for name, tile in tiles.items()}


@case
def wrong_tiles_and_plans_are_errors_on_all() -> None:
    plan = small_model()
    moving = rtorch.ModelRedistribution(plan)
    tiles = example(plan)
    if rank() == ranks() - 1:
        tiles["w1"] = tiles["w1"].double()
    with pytest.raises(rd.BackendError, match=r"rank 7: a tile of w1 has shape .* got .*float64"):
        moving(tiles)
    assert moving(example(plan)).keys() == plan.dst.keys()
    with pytest.raises(rd.BackendError, match="different model plans: rank 1"):
        rtorch.ModelRedistribution(small_model(2 if rank() else 3))
    far = rd.Mesh({"x": 1}, devices=[ranks()])
    beyond = rd.plan_model({"a": ("f32[2]", far)}, {"a": ("f32[2]", far)})
    with pytest.raises(rd.BackendError, match="ranks are 0 to 7; the mesh has rank 8"):
        rtorch.ModelRedistribution(beyond)


@case
def what_is_completed_is_not_moved_again() -> None:
    plan = small_model()
    moving = rtorch.ModelRedistribution(plan, batch_bytes=1)
    tiles, told = example(plan), []

    def stop(progress: rtorch.Progress) -> None:
        told.append(progress)
        if progress.arrays == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        moving(tiles, progress=stop)
    assert [p.arrays for p in told] == [1, 2, 3]
    kept = moving.completed
    assert len(kept) == 3
    again: list[rtorch.Progress] = []
    made = moving(tiles, completed=kept, progress=again.append)
    assert again[-1].received_bytes == told[-1].received_bytes  # the other three of six
    assert all(made[name] is kept[name] for name in kept)
    into = {name: torch.zeros_like(tile) for name, tile in made.items()}
    written = rtorch.ModelRedistribution(plan)(tiles, into=into)
    for name, tile in written.items():
        assert torch.equal(made[name], tile)
        assert tile.data_ptr() == into[name].data_ptr()


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, 16, bias=False) for _ in range(3))
        self.up = nn.Linear(16, 36)
        self.down = nn.Linear(36, 16)


@case
def fsdp_modules_become_tensor_parallel_ones() -> None:
    """From FSDP2 on 8 ranks, of which 36 rows are no multiple, to 2 x 4, with q, k and v fused."""
    torch.manual_seed(0)
    trained, served = Block(), Block()
    meant = {name: p.detach().clone() for name, p in trained.state_dict().items()}
    flat, grid = device_mesh((8,)), device_mesh((2, 4))
    fully_shard(trained, mesh=flat)
    tp = torch.distributed.init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
    parallelize_module(served, tp["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    fused = distribute_tensor(torch.zeros(48, 16), grid, [Shard(1), Shard(0)], src_data_rank=None)
    source = trained.state_dict()
    target = {f"mlp.{n}": p for n, p in served.state_dict().items() if n[0] in "ud"}
    target["qkv"] = fused
    rules = ["qkv = concat(0, q.weight, k.weight, v.weight)"]
    rules += [f"{name} = {name.removeprefix('mlp.')}" for name in target if name != "qkv"]
    plan = rd.plan_model(
        rtorch.types_of(source, flat),
        rtorch.types_of(target, tp),
        weights=rd.WeightMap.parse("\n".join(rules)),
    )
    rtorch.ModelRedistribution(plan)(source, into=target)
    whole = {name: getattr(p, "full_tensor", lambda p=p: p)() for name, p in target.items()}
    assert torch.equal(whole["qkv"], torch.cat([meant[f"{n}.weight"] for n in "qkv"]))
    for name, value in meant.items():
        if name[0] in "ud":
            assert torch.equal(whole[f"mlp.{name}"], value), name
