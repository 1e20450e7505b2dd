"""DTensor's own tests of redistribution, restated by behaviour: torch's wheel does not ship them.

Each runs as torch has it and with our planner in place, and must give the same local tensors.
"""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import torch
import torch.distributed.tensor._api as torch_api
import torch.distributed.tensor._dispatch as torch_dispatch
import torch.distributed.tensor._redistribute as torch_redistribute
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

from redistrib.backends import torch as rtorch
from redistrib.backends.torch import drop_in
from tests.torch.cases import case, rank
from tests.torch.dtensor_cases import MESHES, device_mesh, random_placements, random_tensor


def holders() -> list[Any]:
    named = [torch_redistribute, torch_api, torch_dispatch]
    return [*(module.redistribute_local_tensor for module in named), DTensor.redistribute]


def same(a: DTensor, b: DTensor) -> bool:
    return a.placements == b.placements and torch.equal(a.to_local(), b.to_local())


@case
def it_is_off_again_without_traces() -> None:
    before = holders()
    try:
        with rtorch.redistribution():
            assert all(a is not b for a, b in zip(before, holders(), strict=True))
            with rtorch.redistribution():
                pass
            raise InterruptedError
    except InterruptedError:
        pass
    assert all(a is b for a, b in zip(before, holders(), strict=True))


@case
def shards_and_replicas_become_each_other() -> None:
    """test_shard_to_replicate_forward_backward, replicate_to_shard, shard_dim_alltoall, uneven."""
    mesh = device_mesh((8,))
    for size in ((24, 3), (3, 26), (5, 7, 9)):
        whole = torch.randn(size, generator=torch.Generator().manual_seed(1))
        kinds = [Replicate(), *(Shard(dim) for dim in range(len(size)))]
        for before, after in product(kinds, kinds):
            results = []
            for ours in (False, True):
                x = distribute_tensor(whole, mesh, [before], src_data_rank=None).requires_grad_()
                if ours:
                    with rtorch.redistribution():
                        y = x.redistribute(mesh, [after])
                        y.sum().backward()
                else:
                    y = x.redistribute(mesh, [after])
                    y.sum().backward()
                results.append((y, x.grad))
            (y, gradient), (ours_y, ours_gradient) = results
            assert same(y, ours_y), (size, before, after)
            assert same(gradient, ours_gradient), (size, before, after)


@case
def partial_tensors_are_reduced() -> None:
    """test_partial_to_replicate, test_partial_to_shard, with every reduction, uneven too."""
    mesh = device_mesh((8,))
    for size, kind in product(((24, 3), (25, 3), (3, 26)), ("sum", "max", "min", "avg")):
        local = (torch.arange(float(size[0] * size[1])).reshape(size) % 11) * (rank() + 1)
        for after in (Replicate(), Shard(0), Shard(1), Partial(kind)):
            x = DTensor.from_local(local, mesh, [Partial(kind)], run_check=False).requires_grad_()
            theirs = x.redistribute(mesh, [after])
            with rtorch.redistribution():
                ours = x.redistribute(mesh, [after])
                (ours.sum() if after.is_partial() else (ours * 2).sum()).backward()
            assert same(theirs, ours), (size, kind, after)
            assert x.grad is not None


@case
def random_pairs_are_torchs(seed: int, count: int) -> None:
    """On meshes of up to three dimensions, as multi_dim_mesh and shard_dim_multi_dim_mesh do."""
    meshes = [device_mesh(shape) for shape in MESHES]
    random = Random(seed)
    for _ in range(count):
        mesh = random.choice(meshes)
        x = random_tensor(random, mesh)
        placements = random_placements(random, mesh, x.ndim, partial=False)
        strided = "_StridedShard" in f"{[type(p).__name__ for p in (*x.placements, *placements)]}"
        if mesh.get_coordinate() is None or strided:  # torch is wrong where these are uneven
            continue
        theirs = x.redistribute(mesh, placements)
        with rtorch.redistribution():
            ours = x.redistribute(mesh, placements)
        assert same(theirs, ours), (x, placements)


@case
def operators_redistribute_with_it() -> None:
    """Implicit redistributions: operands of other layouts, a reduction, an unshardable operator."""
    mesh = device_mesh((2, 4))
    whole = torch.arange(64.0).reshape(8, 8)
    a = distribute_tensor(whole, mesh, [Shard(0), Shard(1)], src_data_rank=None)
    b = distribute_tensor(whole, mesh, [Shard(1), Replicate()], src_data_rank=None)
    calls = []
    with rtorch.redistribution():
        made = torch_dispatch.redistribute_local_tensor

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments[1:])
            return made(*arguments, **options)

        torch_dispatch.redistribute_local_tensor = counted
        total, matrix = a + b, a @ b
        ordered = torch.sort(a, dim=1).values
        assert torch.equal(total.full_tensor(), whole + whole)
        assert torch.equal(matrix.full_tensor(), whole @ whole)
        assert torch.equal(ordered.full_tensor(), whole)
    assert len(calls) >= 3


@case
def it_goes_to_other_meshes() -> None:
    first, second = device_mesh((4,)), device_mesh((4,), 4)
    whole = torch.arange(64.0).reshape(8, 8)
    x = distribute_tensor(whole, first, [Shard(0)], src_data_rank=None)
    with rtorch.redistribution():
        y = x.redistribute(second, [Shard(0)])
    assert y.device_mesh == second
    if rank() >= 4:
        assert torch.equal(y.full_tensor(), whole)


@case
def what_torch_keeps() -> None:
    """Masks, bitwise reductions, what becomes partial, strided shards that it cuts otherwise."""
    mesh = device_mesh((8,))
    bits = DTensor.from_local(torch.tensor([1 << rank()]), mesh, [Partial("bor")], run_check=False)
    with rtorch.redistribution():
        assert bits.redistribute(mesh, [Replicate()]).to_local().item() == 255
        embedded = torch.nn.functional.embedding(
            distribute_tensor(torch.arange(8), mesh, [Replicate()], src_data_rank=None),
            distribute_tensor(torch.eye(8), mesh, [Shard(0)], src_data_rank=None),
        )
        assert torch.equal(embedded.full_tensor(), torch.eye(8))
    grid, whole = device_mesh((4, 2)), torch.arange(18).view(9, 2)  # row 8 is of tp 0, not of tp 1
    strided = [_StridedShard(0, split_factor=2), Shard(0)]
    x = distribute_tensor(whole, grid, strided, src_data_rank=None)
    assert drop_in._move(x._spec, rtorch.target_spec(x, grid, None)) is None
