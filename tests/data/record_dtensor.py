"""Records which elements torch's DTensor puts on every rank: writes dtensor.json beside this file.

Needs torch and numpy alone (2026-11-20: torch 2.13.0, CPU); nothing of this project is imported.

    pip install torch==2.13.0 numpy && python tests/data/record_dtensor.py

Per layout the text that DTensor prints, the mesh, the shape, and per rank the flat indices of its
local shard. A third of the layouts has strided shards with split factors that no shard order has,
a third an explicit shard order, written both as such and as the strided shards that torch converts
it to.
"""

from __future__ import annotations

import json
import random
from math import prod
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor._dtensor_spec import DTensorSpec, ShardOrderEntry
from torch.distributed.tensor.placement_types import Partial, Replicate, Shard, _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

MESHES = ((4,), (6,), (2, 2), (2, 4), (3, 2), (4, 3), (2, 2, 2), (2, 3, 2), (1, 4), (2, 2, 2, 2))
PER_MESH = 53


def layouts(sizes, rng):
    """Random layouts on a mesh: text, text with shard order, placements, shape."""
    while True:
        rank = rng.choice((1, 2, 2, 3))
        kind = rng.choice(("plain", "strided", "ordered"))
        reduction = rng.choice(("sum", "max", "product", "min"))
        placements, split = [], [1] * rank
        for size in sizes:
            choice = rng.choice(("shard", "shard", "shard", "replicate", "partial"))
            dim = rng.randrange(rank)
            if choice == "replicate":
                placements.append(Replicate())
            elif choice == "partial":
                placements.append(Partial(reduction))
            else:
                factor = rng.choice((1, 1, 2, 3, 4)) if kind == "strided" else 1
                placements.append(
                    _StridedShard(dim, split_factor=factor) if factor > 1 else Shard(dim)
                )
                split[dim] *= size * factor
        shape = [s * rng.choice((1, 1, 2, 3)) for s in split]
        if prod(shape) > 144:
            continue
        ordered = None
        if kind == "ordered":
            order = []
            for dim in range(rank):
                dims = [
                    at for at, p in enumerate(placements) if isinstance(p, Shard) and p.dim == dim
                ]
                rng.shuffle(dims)
                if dims:
                    order.append(ShardOrderEntry(tensor_dim=dim, mesh_dims=tuple(dims)))
            ordered = tuple(order)
        yield placements, ordered, shape


def main():
    rng = random.Random(20261120)
    records = []
    for sizes in MESHES:
        count = prod(sizes)
        source = layouts(sizes, rng)
        drawn = [next(source) for _ in range(PER_MESH)]
        tiles = [[] for _ in drawn]
        texts = [[] for _ in drawn]
        for rank in range(count):
            dist.init_process_group("fake", rank=rank, world_size=count, store=FakeStore())
            mesh = DeviceMesh("cpu", torch.arange(count).reshape(sizes))
            for at, (stated, order, shape) in enumerate(drawn):
                placements = stated
                texts[at] = ["".join(map(str, placements)), repr(placements)]
                if order is not None:
                    texts[at] = [DTensorSpec.format_shard_order_str(tuple(placements), order)]
                    placements = DTensorSpec._convert_shard_order_to_StridedShard(
                        order, tuple(placements), mesh
                    )
                    texts[at].append(repr(list(placements)))
                local = torch.arange(prod(shape)).reshape(shape)
                for mesh_dim, placement in enumerate(placements):
                    if isinstance(placement, (Shard, _StridedShard)):
                        local = placement._shard_tensor(local, mesh, mesh_dim, None)
                tiles[at].append(local.flatten().tolist())
            dist.destroy_process_group()
        for (_, _, shape), text, found in zip(drawn, texts, tiles, strict=True):
            records.append({"mesh": list(sizes), "shape": shape, "texts": text, "tiles": found})
    rows = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    head = json.dumps({"torch": torch.__version__, "layouts": len(records)})
    Path(__file__).with_name("dtensor.json").write_text(f'{head[:-1]}, "records": [\n{rows}\n]}}\n')
    print(len(records))


if __name__ == "__main__":
    main()
