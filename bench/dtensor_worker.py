"""Times DTensor's graph-based planner, in whatever Python has torch. Imports nothing of redistrib.

One problem per line on stdin as JSON, nanoseconds of one call per line on stdout; the first line
says the version. A fake process group: no device and no message, only planning.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from math import prod

WORLD = 64  # at least the devices of any mesh that is asked


def main() -> None:
    warnings.simplefilter("ignore")
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor import _redistribute as planner
    from torch.distributed.tensor._dtensor_spec import DTensorSpec, ShardOrderEntry, TensorMeta
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=WORLD)
    meshes: dict[tuple[int, ...], DeviceMesh] = {}
    say({"torch": torch.__version__})
    for line in sys.stdin:
        problem = json.loads(line)
        axes, shape = tuple(problem["axes"]), tuple(problem["shape"])
        if axes not in meshes:
            names = tuple(f"m{n}" for n in range(len(axes)))
            devices = torch.arange(prod(axes)).reshape(axes)
            meshes[axes] = DeviceMesh("cpu", devices, mesh_dim_names=names)
        strides = tuple(prod(shape[n + 1 :]) for n in range(len(shape)))
        meta = TensorMeta(torch.Size(shape), strides, torch.float32)
        specs = []
        for layout in (problem["src"], problem["dst"]):
            placements = [Replicate()] * len(axes)
            for dim, owners in enumerate(layout):
                for axis in owners:
                    placements[axis] = Shard(dim)
            order = tuple(
                ShardOrderEntry(tensor_dim=dim, mesh_dims=tuple(owners))
                for dim, owners in enumerate(layout)
                if owners
            )
            specs.append(
                DTensorSpec(
                    meshes[axes],
                    tuple(placements),
                    tensor_meta=meta,
                    shard_order=order,
                    use_strided_shard_as_shard_order=False,
                )
            )
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        planner._gen_transform_infos_non_cached(*specs, True)  # noqa: SLF001
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        say({"cpu": cpu, "wall": wall})


def say(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
