"""Record what DTensor's placements give each rank of an uneven dimension, as torch itself cuts.

    .venv-torch/bin/python tests/data/record_uneven_dtensor.py

writes uneven_dtensor.json: per layout the sizes of the mesh, the size of the dimension, the
placements, the order in which mesh dimensions cut it, and per rank the indices it has, as runs.
Every rank's tensor is cut by `Shard` and `_StridedShard` themselves, one mesh dimension after the
other; no process group is needed.
"""

from __future__ import annotations

import json
import random
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import Shard
from torch.distributed.tensor.placement_types import _StridedShard

SEED, LAYOUTS = 0, 1000


def runs_of(indices: list[int]) -> list[list[int]]:
    """Indices as runs [start, stop)."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1][1] += 1
        else:
            runs.append([index, index + 1])
    return runs


def cut(placement: Any, local: torch.Tensor, count: int, coordinate: int) -> torch.Tensor:
    """What the rank at a coordinate keeps of its tensor."""
    return placement._split_tensor(local, count, with_padding=False, contiguous=True)[0][coordinate]


def record(rng: random.Random) -> dict[str, Any]:
    sizes = [rng.choice((1, 2, 2, 3, 4, 5)) for _ in range(rng.choice((1, 2, 2, 3)))]
    n = rng.choice((rng.randrange(1, 8), rng.randrange(1, 40)))
    shards = [rng.random() < 0.8 for _ in sizes]
    by = [at for at, taken in enumerate(shards) if taken]
    order = rng.sample(by, len(by))
    strided = rng.random() < 0.4
    words, steps = [], []
    for at, taken in enumerate(shards):
        if not taken:
            words.append("Replicate()")
            continue
        # A strided shard goes before those to its right that cut first.
        first = [other for other in order[: order.index(at)] if other > at]
        factor = prod(sizes[other] for other in first)
        if strided and factor > 1:
            words.append(f"_StridedShard(dim=0, sf={factor})")
            steps.append((at, _StridedShard(0, split_factor=factor)))
        else:
            place = f"[{order.index(at)}]" if not strided else ""
            words.append(f"Shard(dim=0){place}")
            steps.append((at, Shard(0)))
    if not strided:
        steps.sort(key=lambda step: order.index(step[0]))
    ranks = []
    for coordinates in product(*(range(size) for size in sizes)):
        local = torch.arange(n)
        for at, placement in steps:
            local = cut(placement, local, sizes[at], coordinates[at])
        ranks.append(runs_of(local.tolist()))
    return {"mesh": sizes, "size": n, "placements": f"[{', '.join(words)}]", "ranks": ranks}


if __name__ == "__main__":
    rng = random.Random(SEED)
    layouts = [record(rng) for _ in range(LAYOUTS)]
    page = {"torch": torch.__version__, "seed": SEED, "layouts": layouts}
    text = json.dumps(page, separators=(",", ":")).replace('{"mesh"', '\n{"mesh"')
    Path(__file__).with_name("uneven_dtensor.json").write_text(text + "\n", encoding="utf-8")
