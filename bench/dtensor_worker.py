"""Times DTensor's graph-based planner, in whatever Python has torch. Imports nothing of redistrib.

One problem per line on stdin as JSON, nanoseconds of one call per line on stdout; the first line
says the version. A fake process group: no device and no message, only planning.
"""

from __future__ import annotations

import time

import torch
import torch.distributed as dist
from torch.distributed.tensor import _redistribute

from bench.workers.dtensor import mesh_of, spec
from bench.workers.protocol import requests, speaker

WORLD = 64  # at least the devices of any mesh that is asked


def main() -> None:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    say = speaker()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=WORLD)
    say({"torch": torch.__version__})
    for problem in requests():
        mesh = mesh_of(tuple(problem["axes"]))
        ends = [spec(mesh, problem["shape"], problem[end], torch.float32) for end in ("src", "dst")]
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        _redistribute._gen_transform_infos_non_cached(*ends, True)  # noqa: SLF001
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        say({"cpu": cpu, "wall": wall})


if __name__ == "__main__":
    main()
