"""A profile of the ranks of a process group, or of processes on this machine, from programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from redistrib.backends.calibration import MOVES, ROUNDS, TILES, calibrated, moves, timed
from redistrib.backends.torch.arrays import forked
from redistrib.backends.torch.dtypes import torch_dtype
from redistrib.backends.torch.primitives import Placed
from redistrib.backends.torch.programs import Program
from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import Execution, Profile
from redistrib.types.mesh import Mesh

EXCHANGE: Execution = "call"
"""How an exchange runs here, in the words of a profile: all its messages are posted at once."""


def calibrate(
    mesh: Mesh,
    name: str = "calibrated",
    *,
    device: Any = None,
    tiles: Sequence[int] = TILES,
    count: int = MOVES,
    rounds: int = ROUNDS,
) -> Profile:
    """The profile of this machine, from random moves over ranks as the positions of a mesh.

    Of the default process group, if there is one; else of processes forked for it, over gloo.
    `device` is where tiles are, by default the CPU. `count` moves, of tiles of about so many bytes,
    take turns for so many rounds; a time is that of the slowest rank. Collective; the same profile
    on every rank.

    Raises BackendError unless there is one rank for each position, and more than one: a rank alone
    has no link to measure.
    """
    plans = moves(mesh, EXCHANGE, tiles, count)
    if not dist.is_initialized():
        measured = torch.empty((len(plans), rounds), dtype=torch.float64).share_memory_()

        def work(rank: int) -> None:
            times = torch.tensor(timed(prepared(plans, device), rounds), dtype=torch.float64)
            if rank == 0:
                measured.copy_(times)

        forked(mesh.num_devices, work)
        return calibrated(plans, measured.tolist(), EXCHANGE, name)
    if mesh.num_devices != dist.get_world_size():
        raise BackendError(
            f"one rank for each position is measured; got a mesh of {mesh.num_devices} and "
            f"{dist.get_world_size()} ranks"
        )
    return calibrated(plans, timed(prepared(plans, device), rounds), EXCHANGE, name)


def prepared(plans: Sequence[Plan], device: Any = None) -> list[Callable[[], float]]:
    """A run of each plan, from one buffer: it gives the seconds of the slowest rank."""
    where = torch.device("cpu" if device is None else device)
    buffer = torch.zeros(max(p.src.tile_bytes for p in plans), dtype=torch.uint8, device=where)
    runs: list[Callable[[], float]] = []
    for plan in plans:
        tile = buffer[: plan.src.tile_bytes].view(torch_dtype(plan.src.dtype))
        placed = Placed(dist.get_rank(), {t.mesh: tuple(t.mesh.ids) for t in plan.types})
        program = Program(plan, placed)
        runs.append(partial(_seconds, program, tile.view(plan.src.tile_shape), where))
    return runs


def _seconds(program: Program, tile: Any, where: Any) -> float:
    dist.barrier()
    start = time.perf_counter()
    program(tile)
    if where.type == "cuda":
        torch.cuda.synchronize(where)
    seconds = torch.tensor(time.perf_counter() - start, device=where)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return float(seconds)
