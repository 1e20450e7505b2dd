"""Times redistributions of DTensors: python -m bench.workers.torch_ranks RANKS PAIRS TURNS SKIPPED

One JSON object per pair on stdout, but for the first SKIPPED, which a run before has measured;
imports torch, so it runs where that is.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from math import prod
from random import Random
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor import _redistribute as torch_planner
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

from redistrib.backends import torch as rtorch
from redistrib.synth.planner.choose import plan

SHAPE = (4096, 4096)
MESHES = {4: ((4,), (2, 2)), 8: ((8,), (2, 4), (4, 2), (2, 2, 2))}
FOUR = (2, 2, 2, 2)
PLANNED = 10
TURNS = 5


def random_placements(random: Random, mesh: DeviceMesh, partial: bool) -> list[Any]:
    """A placement for each mesh dimension."""
    kinds = [Replicate(), Shard(0), Shard(1), *([Partial()] if partial else [])]
    return [random.choice(kinds) for _ in range(mesh.ndim)]


def measured(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call on the slowest rank, and of processors on all; they begin together."""
    dist.barrier()
    start, cpu = time.perf_counter(), time.process_time()
    function()
    seconds = torch.tensor(time.perf_counter() - start)
    used = torch.tensor(time.process_time() - cpu)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    dist.all_reduce(used)
    return seconds.item(), used.item()


def timed(mesh: DeviceMesh, src: list[Any], dst: list[Any], turns: int) -> dict[str, Any]:
    """Both, turn by turn; the first calls, which connect and plan, do not count."""
    array = torch.arange(float(prod(SHAPE))).reshape(SHAPE)
    held = [Replicate() if p.is_partial() else p for p in src]
    local = distribute_tensor(array, mesh, held, src_data_rank=None).to_local().clone()
    del array
    x = DTensor.from_local(local, mesh, src, run_check=False)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    with torch.no_grad():
        for turn in range(turns + 1):
            both = [
                (ours, lambda: rtorch.redistribute(x, mesh, dst)),
                (theirs, lambda: x.redistribute(mesh, dst)),
            ]
            for seconds, call in both if turn % 2 else reversed(both):
                seconds.append(measured(call))
    names = ["".join(map(str, placements)) for placements in (src, dst)]
    text = "x".join(map(str, mesh.shape))
    return {"mesh": text, "src": names[0], "dst": names[1], "ours": ours[1:], "torch": theirs[1:]}


def planning() -> dict[str, Any]:
    """Seconds to plan a pair on a mesh of four dimensions, with no memo of either planner.

    Turn by turn each plans all pairs in a row, as for the arrays of a model; and then one pair
    after the other planner's, whose work has emptied the processor's caches.
    """
    mesh = DeviceMesh("cpu", torch.arange(prod(FOUR)).reshape(FOUR), _init_backend=False, _rank=0)
    random = Random(1)
    meta = TensorMeta(torch.Size(SHAPE), (SHAPE[1], 1), torch.float32)
    pairs: list[tuple[DTensorSpec, DTensorSpec]] = []
    while len(pairs) < PLANNED:
        src, dst = (random_placements(random, mesh, partial=False) for _ in range(2))
        if src != dst:
            ends = [DTensorSpec(mesh, tuple(end), tensor_meta=meta) for end in (src, dst)]
            pairs.append((ends[0], ends[1]))
    in_a_row: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for times, planner in zip(in_a_row, (ours_planned, theirs_planned), strict=True):
            times += [planner(*pair) for pair in pairs]
    by_turns = [[planner(*pair) for planner in (ours_planned, theirs_planned)] for pair in pairs]
    return {
        "mesh": "x".join(map(str, FOUR)),
        "pairs": PLANNED,
        "planning": [*map(median, in_a_row)],
        "planning, cold": [*map(median, zip(*by_turns, strict=True))],
    }


def ours_planned(source: DTensorSpec, target: DTensorSpec) -> float:
    """Seconds of our planner, for types of its own, so that nothing is remembered."""
    src, dst = rtorch.layout_of(source).type, rtorch.layout_of(target).type
    assert src is not None
    assert dst is not None
    start = time.perf_counter()
    plan(src, dst)
    return time.perf_counter() - start


def theirs_planned(source: DTensorSpec, target: DTensorSpec) -> float:
    """Seconds of DTensor's graph planner."""
    start = time.perf_counter()
    torch_planner._gen_transform_infos_non_cached(source, target, True)  # noqa: SLF001
    return time.perf_counter() - start


def serve(rank: int, ranks: int, pairs: int, turns: int, skipped: int, path: str) -> None:
    """What one rank does; the first prints."""
    store = dist.FileStore(path, ranks)
    dist.init_process_group("gloo", rank=rank, world_size=ranks, store=store)
    meshes = [DeviceMesh("cpu", torch.arange(ranks).reshape(shape)) for shape in MESHES[ranks]]
    random = Random(ranks)
    done = 0
    while done < pairs:
        mesh = random.choice(meshes)
        src = random_placements(random, mesh, partial=random.random() < 0.25)
        dst = random_placements(random, mesh, partial=False)
        moved = any(not p.is_replicate() and p != q for p, q in zip(src, dst, strict=True))
        if not moved:
            continue
        done += 1
        if done <= skipped:
            continue
        row = timed(mesh, src, dst, turns)
        if rank == 0:
            print(json.dumps(row), flush=True)
    if rank == 0 and ranks == max(MESHES):
        print(json.dumps(planning()), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Fork the ranks, and wait for them."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    ranks, pairs, turns, skipped = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as directory:
        children = []
        for rank in range(ranks):
            child = os.fork()
            if not child:
                status = 1
                try:
                    serve(rank, ranks, pairs, turns, skipped, f"{directory}/store")
                    status = 0
                finally:
                    sys.stdout.flush()
                    os._exit(status)
            children.append(child)
        failed = sum(os.waitpid(child, 0)[1] != 0 for child in children)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
