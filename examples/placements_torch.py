"""The oracle as DTensor's cost: operators then choose layouts by what our plans cost.

    python examples/placements_torch.py

Matrix products on 2 x 4 devices, in one process and without messages. It prints in how many of them
the layout that DTensor picks is another once `redistribute_cost` is ours, and how often a detour is
cheaper than the direct way: never by ours, which is a distance; by torch's at times.
"""

from __future__ import annotations

from itertools import product
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._collective_utils import redistribute_cost
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.distributed.tensor._op_schema import OpSchema
from torch.testing._internal.distributed.fake_pg import FakeStore

import redistrib as rd
from redistrib.backends import torch as rtorch


def our_cost(src: DTensorSpec, dst: DTensorSpec) -> float:
    """Microseconds of the cheapest plan; infinite where there is none, as torch has it."""
    try:
        ends = rtorch.layout_of(src).type, rtorch.layout_of(dst).type
        return 1e6 * rd.cost(*ends, effort="best").seconds
    except rd.RedistribError:
        return float("inf")


def picked(specs: list[DTensorSpec]) -> list[tuple[object, ...]]:
    """The layouts of the products of all pairs of matrices."""
    propagator = DTensor._op_dispatcher.sharding_propagator  # noqa: SLF001
    schemas = (OpSchema(torch.ops.aten.mm.default, pair, {}) for pair in product(specs, repeat=2))
    return [propagator.propagate_op_sharding_non_cached(s).output_spec.placements for s in schemas]


dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
mesh = init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
meta = TensorMeta(torch.Size((1024, 1024)), (1024, 1), torch.float32)
layouts = product([Replicate(), Shard(0), Shard(1)], repeat=2)
specs = [DTensorSpec(mesh, layout, tensor_meta=meta) for layout in layouts]

theirs = picked(specs)
with patch("torch.distributed.tensor._ops.utils.redistribute_cost", our_cost):
    ours = picked(specs)
changed = [n for n, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b]
print(f"{len(changed)} of {len(ours)} products get another layout")
for cost in (redistribute_cost, our_cost):
    ways = product(specs, repeat=3)
    shorter = sum(cost(a, c) > cost(a, b) + cost(b, c) + 1e-9 for a, b, c in ways)
    print(f"{cost.__name__}: {shorter} detours are cheaper than the direct way")
