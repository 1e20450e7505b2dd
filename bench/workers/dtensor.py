"""DTensor on gloo:  python -m bench.workers.dtensor RANKS, in whatever Python has torch.

One process per rank, forked once; rank 0 talks to the harness. Imports nothing of redistrib.

On CPU DTensor gathers where it would use an all-to-all, because gloo has none. Wall-clock times are
of what it runs; its bytes and its largest buffer are counted as if its all-to-all were one, and
`received_bytes_as_run` are those of what it runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from datetime import timedelta
from functools import cache
from math import prod
from typing import Any

from bench.workers.protocol import (
    Figures,
    Run,
    UnsupportedError,
    WrongError,
    limit_memory,
    serve_ranks,
    speaker,
)

warnings.simplefilter("ignore")

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from torch.distributed.device_mesh import DeviceMesh  # noqa: E402
from torch.distributed.tensor import (  # noqa: E402
    Replicate,
    Shard,
    _redistribute,
    placement_types,
)
from torch.distributed.tensor._dtensor_spec import (  # noqa: E402
    DTensorSpec,
    ShardOrderEntry,
    TensorMeta,
)
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

# By itemsize. gloo has no 16-bit integers; float16 holds every number below 2048.
DTYPES = {1: torch.uint8, 2: torch.float16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}

PERIOD = 2039
"""A prime: how many different elements there are."""


class Counter(TorchDispatchMode):
    """Bytes that this rank receives, calls that communicate, and the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.received = self.as_run = self.collectives = self.largest = 0
        self.inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not self.inside:
            self.largest = max(self.largest, result.nbytes)
        name = func.name()
        if name.startswith("_c10d_functional::") and "wait" not in name:
            into, out = args[0].nbytes, result.nbytes
            if "all_reduce" in name:
                k = dist.distributed_c10d._resolve_process_group(args[2]).size()  # noqa: SLF001
                moved = 2 * into * (k - 1) // k
            elif "all_to_all" in name:
                k = dist.distributed_c10d._resolve_process_group(args[3]).size()  # noqa: SLF001
                moved = into * (k - 1) // k
            else:  # all_gather_into_tensor and reduce_scatter_tensor
                moved = abs(out - into)
            self.as_run += moved
            if not self.inside:
                self.received += moved
                self.collectives += 1
        return result

    def all_to_all(self, original: Any) -> Any:
        """DTensor's all-to-all on one dimension of a mesh, counted as one."""

        def call(tile: Any, gather: int, shard: int, mesh: Any, dim: int) -> Any:
            k = mesh.size(dim)
            self.received += tile.nbytes * (k - 1) // k
            self.collectives += 1
            self.inside = True
            try:
                result = original(tile, gather, shard, mesh, dim)
            finally:
                self.inside = False
            self.largest = max(self.largest, result.nbytes)
            return result

        return call


@cache
def mesh_of(axes: tuple[int, ...]) -> DeviceMesh:
    """A mesh over all ranks; each has process groups of its own, so they are made once."""
    names = tuple(f"m{n}" for n in range(len(axes)))
    return DeviceMesh("cpu", torch.arange(prod(axes)).reshape(axes), mesh_dim_names=names)


def spec(mesh: DeviceMesh, shape: list[int], layout: list[list[int]], dtype: Any) -> DTensorSpec:
    """A layout of whole axes, per dimension major to minor."""
    placements = [Replicate()] * mesh.ndim
    for dim, owners in enumerate(layout):
        for axis in owners:
            placements[axis] = Shard(dim)
    order = tuple(
        ShardOrderEntry(tensor_dim=dim, mesh_dims=tuple(owners))
        for dim, owners in enumerate(layout)
        if owners
    )
    strides = tuple(prod(shape[n + 1 :]) for n in range(len(shape)))
    return DTensorSpec(
        mesh,
        tuple(placements),
        tensor_meta=TensorMeta(torch.Size(shape), strides, dtype),
        shard_order=order,
        use_strided_shard_as_shard_order=False,
    )


def tile(array: torch.Tensor, axes: list[int], layout: list[list[int]], rank: int) -> torch.Tensor:
    """What a rank holds of the array."""
    coordinates = [rank // prod(axes[n + 1 :]) % axes[n] for n in range(len(axes))]
    slices = []
    for size, owners in zip(array.shape, layout, strict=True):
        number = 0
        for axis in owners:
            number = number * axes[axis] + coordinates[axis]
        part = size // prod(axes[axis] for axis in owners)
        slices.append(slice(number * part, (number + 1) * part))
    return array[tuple(slices)].contiguous()


def prepare(workload: Figures) -> tuple[Figures, Run | None]:
    """Plan, run, verify; the same on every rank."""
    problem = workload["problem"]
    if problem is None:
        raise UnsupportedError("the layouts are not of whole axes")
    axes, shape = problem["axes"], problem["shape"]
    dtype = DTYPES[workload["itemsize"]]
    mesh = mesh_of(tuple(axes))
    count = prod(shape)
    array = torch.arange(PERIOD).to(dtype).repeat(count // PERIOD + 1)[:count].reshape(shape)
    ends = [spec(mesh, shape, problem[end], dtype) for end in ("src", "dst")]
    local = tile(array, axes, problem["src"], dist.get_rank())
    start = time.perf_counter()
    _redistribute._gen_transform_infos_non_cached(*ends, True)  # noqa: SLF001
    planning = time.perf_counter() - start

    def run() -> torch.Tensor:
        result = _redistribute.redistribute_local_tensor(
            local, *ends, use_graph_based_transform=True
        )
        return result.wait() if hasattr(result, "wait") else result

    counter = Counter()
    original = placement_types.shard_dim_alltoall
    placement_types.shard_dim_alltoall = counter.all_to_all(original)
    try:
        with counter:
            result = run()
    finally:
        placement_types.shard_dim_alltoall = original
    counts = torch.tensor([counter.received, counter.as_run, counter.collectives, counter.largest])
    wrong = not torch.equal(result, tile(array, axes, problem["dst"], dist.get_rank()))
    told = torch.cat([counts, torch.tensor([int(wrong)])])
    dist.all_reduce(told, dist.ReduceOp.MAX)
    received, as_run, collectives, largest, any_wrong = told.tolist()
    if any_wrong:
        raise WrongError("a rank holds other data than its tile of the target")
    return {
        "planning_seconds": planning,
        "received_bytes": received,
        "received_bytes_as_run": as_run,
        "num_collectives": collectives,
        "largest_buffer_bytes": largest,
    }, run


def share(request: Figures | None) -> Figures | None:
    """Rank 0's request on every rank."""
    box = [request]
    dist.broadcast_object_list(box)
    return box[0]


def main(ranks: int) -> None:
    limit_memory()
    say = speaker()
    torch.set_num_threads(1)
    directory = tempfile.mkdtemp(prefix="redistrib-bench-")
    rank = next((n for n in range(1, ranks) if not os.fork()), 0)
    store = dist.FileStore(f"{directory}/store", ranks)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=ranks, timeout=timedelta(hours=12)
    )
    serve_ranks(prepare, rank, share, dist.barrier, say)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]))
