"""Whole models over torch.distributed, and state dicts of FSDP2 and tensor parallel modules."""

from __future__ import annotations

from types import MappingProxyType

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
from torch.multiprocessing.reductions import StorageWeakRef

import redistrib as rd
from redistrib.backends import simulator
from redistrib.backends import torch as rtorch
from tests.models.random_moves import random_case
from tests.torch.accounting import allocations
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


@case
def sources_are_released_and_nothing_is_lost() -> None:
    """A source is in the mapping until all ranks have its last target; so it is after an error."""
    mesh, n = rd.Mesh(x=ranks()), 2 * ranks()
    names = [f"w{i}" for i in range(6)]
    plan = rd.plan_model(
        dict.fromkeys(names, (f"f32[{n}{{x}}, {n}]", mesh)),
        {f"{name}.{side}": (f"f32[{n}, {n}{{x}}]", mesh) for name in names for side in "ab"},
        weights=rd.WeightMap.parse("w{i}.a = w{i}\nw{i}.b = w{i}"),
        keep_sources=False,
    )
    tiles = example(plan)
    freed = {name: StorageWeakRef(tile.untyped_storage()) for name, tile in tiles.items()}
    seen: list[rtorch.Progress] = []

    def look(progress: rtorch.Progress) -> None:
        made = {move.target for move in plan.moves[: progress.arrays]}
        for name in names:
            used = {f"{name}.{side}" for side in "ab"} <= made
            assert freed[name].expired() == used == (name not in tiles), (name, made)
        seen.append(progress)
        if progress.arrays == 5:
            raise InterruptedError

    moving = rtorch.ModelRedistribution(plan, batch_bytes=1)
    with pytest.raises(InterruptedError):
        moving(tiles, progress=look)
    assert 0 < len(tiles) < 6
    lost = {name: tile for name, tile in tiles.items() if name != next(iter(tiles))}
    with pytest.raises(rd.BackendError, match=f"rank 0: a tile of {next(iter(tiles))} is missing"):
        moving(lost if rank() == 0 else tiles, completed=moving.completed)
    made = moving(tiles, completed=moving.completed)
    assert not tiles
    expected = rtorch.ModelRedistribution(rd.plan_model(plan.src, plan.dst, weights=plan.weights))(
        example(plan)
    )
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], tile) for name, tile in expected.items())
    with pytest.raises(rd.BackendError, match="rank 7: sources that are released are taken out"):
        moving(MappingProxyType(example(plan)) if rank() == ranks() - 1 else example(plan))


LLAMA = {
    "self_attn.q_proj": (128, 128, 0),
    "self_attn.k_proj": (32, 128, 0),
    "self_attn.v_proj": (32, 128, 0),
    "self_attn.o_proj": (128, 128, 1),
    "mlp.gate_proj": (448, 128, 0),
    "mlp.up_proj": (448, 128, 0),
    "mlp.down_proj": (128, 448, 1),
}
"""Of Llama-3 8B, each size a 32nd: rows, columns, the dimension that tensor parallelism cuts."""


@case
def llama_moves_within_a_tenth_more_than_its_weights(first: int, layers: int) -> None:
    """From FSDP on 8 ranks to TP 8, bytes counted by torch's allocator; 32 layers: 291 arrays."""
    mesh = rd.Mesh(x=ranks())
    src: dict[str, rd.ArrayType] = {}
    dst: dict[str, rd.ArrayType] = {}

    def add(name: str, shape: tuple[int, ...], cut: int | None) -> None:
        src[name] = rd.ArrayType(mesh, "bf16", shape, [["x"], *[[] for _ in shape[1:]]])
        dst[name] = src[name].replace(dims=[["x"] if n == cut else [] for n in range(len(shape))])

    for i in range(first, first + layers):
        for name, (rows, columns, cut) in LLAMA.items():
            add(f"model.layers.{i}.{name}.weight", (rows, columns), cut)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            add(f"model.layers.{i}.{norm}.weight", (128,), None)
    for name in ("model.embed_tokens", "lm_head"):
        add(f"{name}.weight", (4008 * layers // 32 // 8 * 8, 128), 0)
    add("model.norm.weight", (128,), None)
    assert len(src) == 9 * layers + 3

    def tile(name: str, t: rd.ArrayType) -> torch.Tensor:
        whole = (torch.arange(np.prod(t.shape)) % 251 + len(name)).to(torch.bfloat16)
        index = [torch.from_numpy(places) for places in t.tile(rank())]
        return whole.view(t.shape)[torch.meshgrid(*index, indexing="ij")].clone()

    held, needed = (sum(t.tile_bytes for t in types.values()) for types in (src, dst))
    plan = rd.plan_model(src, dst, keep_sources=False)
    moving = rtorch.ModelRedistribution(plan, batch_bytes=layers << 11)
    with allocations():
        tiles = {name: tile(name, t) for name, t in src.items()}
    with allocations() as allocated:
        made = moving(tiles)
    assert not tiles
    assert moving.traffic.received <= plan.received_bytes
    ratio = (held + allocated.peak) / max(held, needed)
    assert ratio <= 1.1, (held, allocated.peak, ratio)
    assert all(torch.equal(made[name], tile(name, t)) for name, t in dst.items())


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
