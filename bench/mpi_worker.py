"""One job of bench.mpi_exchange on all ranks: python -m mpi4py -m bench.mpi_worker JOB.json

Every method moves the same tiles; they take turns, and the time of a round is that of the slowest
rank. Rank 0 prints one JSON object: median seconds by method, and extra memory by method.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import numpy as np
from mpi4py import MPI

import redistrib as rd
from bench import mpi_peers
from bench.mpi_job import CannotError, Job, nonempty, subarray
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi.memory import peak_extra
from redistrib.types.tile import same_bits

SLAB_RUNS = 1024


def alltoallw(job: Job) -> Callable[[], None]:
    """One Alltoallw with subarray types: what a good program does today."""
    ends = []
    for array, sending in ((job.tile, True), (job.out, False)):
        boxes = job.boxes(sending)
        types = [subarray(array, b) if nonempty(b) else MPI.BYTE for b in boxes]
        counts = [int(nonempty(b)) for b in boxes]
        ends.append([array.view(np.uint8), counts, [0] * len(boxes), types])
    return lambda: job.comm.Alltoallw(*ends)


def pack_alltoallv(job: Job) -> Callable[[], None]:
    """Copy into one buffer, Alltoallv, copy out; buffers reused."""
    sends, receives = job.boxes(True), job.boxes(False)
    counts = [[job.tile[b].nbytes for b in sends], [job.out[b].nbytes for b in receives]]
    offsets = [[sum(c[:k]) for k in range(len(c))] for c in counts]
    packed, arrived = (np.empty(sum(c), np.uint8) for c in counts)
    dtype = job.tile.dtype

    def run() -> None:
        for box, count, start in zip(sends, counts[0], offsets[0], strict=True):
            part = packed[start : start + count].view(dtype)
            part.reshape(job.tile[box].shape)[...] = job.tile[box]
        job.comm.Alltoallv(
            [packed, counts[0], offsets[0], MPI.BYTE], [arrived, counts[1], offsets[1], MPI.BYTE]
        )
        for box, count, start in zip(receives, counts[1], offsets[1], strict=True):
            job.out[box] = arrived[start : start + count].view(dtype).reshape(job.out[box].shape)

    return run


def point_to_point(job: Job, runs: int | None) -> Callable[[], None]:
    """Irecv and Isend of subarray types, the own piece too; `runs`: at most so many per message.

    Both sides cut at the same rows.
    """
    messages: list[tuple[bool, int, list[Any]]] = []
    for sending, array in ((False, job.out), (True, job.tile)):
        for peer, box in enumerate(job.boxes(sending)):
            if not nonempty(box):
                continue
            inner = int(np.prod([s.stop - s.start for s in box[1:-1]]))
            step = box[0].stop - box[0].start if runs is None else max(1, runs // inner)
            for low in range(box[0].start, box[0].stop, step):
                part = (slice(low, min(low + step, box[0].stop)), *box[1:])
                message = [array.view(np.uint8), 1, subarray(array, part)]
                messages.append((sending, peer, message))

    def run() -> None:
        comm = job.comm
        MPI.Request.Waitall(
            [
                comm.Isend(message, peer) if sending else comm.Irecv(message, peer)
                for sending, peer, message in messages
            ]
        )

    return run


def memcpy(job: Job) -> Callable[[], None]:
    copy = np.empty_like(job.tile)
    return lambda: np.copyto(copy, job.tile)


def ours(job: Job) -> Callable[[], None]:
    redistribution = rmpi.Redistribution(job.src, job.dst, job.comm)
    return lambda: redistribution(job.tile, out=job.out)


def shared(job: Job) -> Callable[[], None]:
    """Ours into tiles that the ranks of the node share."""
    redistribution = rmpi.Redistribution(job.src, job.dst, job.comm, shared=True)

    def run() -> None:
        redistribution(job.tile)

    run.result = redistribution.out  # type: ignore[attr-defined]
    return run


OURS = ("redistrib", "redistrib, shared")
Method = Callable[[Job], Callable[[], None]]
HAND_WRITTEN: dict[str, Method] = {
    "Alltoallw": alltoallw,
    "pack+Alltoallv": pack_alltoallv,
    "Isend/Irecv": lambda job: point_to_point(job, None),
    "slabs": lambda job: point_to_point(job, SLAB_RUNS),
}
LIBRARIES: dict[str, Method] = dict(mpi_peers.METHODS)
METHODS: dict[str, Method] = {
    "redistrib": ours,
    "redistrib, shared": shared,
    **HAND_WRITTEN,
    **LIBRARIES,
    "memcpy": memcpy,
}


def run(description: dict[str, Any]) -> dict[str, Any]:
    comm = MPI.COMM_WORLD
    mesh = rd.Mesh(description["mesh"])
    src, dst = (rd.ArrayType.parse(description[end], mesh) for end in ("src", "dst"))
    rng = np.random.default_rng(comm.rank)
    tile = rng.random(src.tile_shape).astype(src.numpy_dtype)
    job = Job(comm, src, dst, tile, np.empty(dst.tile_shape, dst.numpy_dtype))
    calls = {}
    for name, method in METHODS.items():
        try:
            call = method(job)
        except CannotError as reason:
            if comm.rank == 0:
                print(f"{name}: {reason}", file=sys.stderr)
            continue
        calls[name] = call
    ours(job)()
    expected = job.out.copy()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(description["rounds"] + 1):
        # In another order each round, the same on all ranks: a method finds the caches as the one
        # before left them.
        for name in random.Random(number).sample(list(calls), len(calls)):
            if number == 0:
                job.out[...] = 0
            comm.Barrier()
            start = time.perf_counter()
            calls[name]()
            spent = comm.allreduce(time.perf_counter() - start, MPI.MAX)
            if number:
                seconds[name].append(spent)
            elif name != "memcpy" and not getattr(calls[name], "own_result", False):
                result = getattr(calls[name], "result", job.out)
                same = comm.allreduce(same_bits(result, expected), MPI.LAND)
                assert same, f"{name} ends in other data"
    extra = {}
    for name in (*OURS, "Alltoallw"):
        comm.Barrier()
        extra[name] = comm.allreduce(peak_extra(calls[name]), MPI.MAX)
    ratios = [a / b for a, b in zip(seconds["redistrib"], seconds["Alltoallw"], strict=True)]
    return {
        "library": MPI.Get_library_version().split("\n")[0].strip("\0"),
        "seconds": {name: median(times) for name, times in seconds.items()},
        "quartiles": quantiles(ratios, n=4)[::2],
        "extra_bytes": extra,
        "tile_bytes": max(src.tile_bytes, dst.tile_bytes),
        "runs": max(job.runs(sending) for sending in (True, False)),
    }


if __name__ == "__main__":
    answer = run(json.loads(sys.argv[1]))
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(answer))
