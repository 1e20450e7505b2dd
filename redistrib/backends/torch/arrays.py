"""Whole arrays by plans: ranks are forked for a run over gloo, and the target is put together."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from redistrib.backends.simulator.arrays import gather, scatter
from redistrib.backends.torch.dtypes import torch_dtype
from redistrib.backends.torch.primitives import Placed
from redistrib.backends.torch.programs import Program
from redistrib.errors import BackendError
from redistrib.synth.plan.data import Plan
from redistrib.types.dtypes import dtype_name

Tensor = Any
Array = NDArray[Any]
TIMEOUT = 300.0


def run_array(plan: Plan, array: Array, *, timeout: float = TIMEOUT) -> Array:
    """Split an array as the source, run the plan on a process per device, and put it together.

    The processes are forked, and end before it returns. Raises BackendError where one fails, or a
    message takes longer than `timeout` seconds.
    """
    return gather(run(plan, scatter(array, plan.src), timeout=timeout), plan.dst)


def run(plan: Plan, tiles: list[Array], *, timeout: float = TIMEOUT) -> list[Array]:
    """The tiles of the target, by position, from those of the source; see `run_array`."""
    end = plan.dst
    ids = list(dict.fromkeys([*plan.src.mesh.ids, *end.mesh.ids]))
    ranks = {t.mesh: tuple(map(ids.index, t.mesh.ids)) for t in (*plan.types, plan.src, end)}
    inputs = {rank: to_torch(tile) for rank, tile in zip(ranks[plan.src.mesh], tiles, strict=True)}
    results = {}
    for position, rank in enumerate(ranks[end.mesh]):
        result = torch.empty(end.tile_shape_at(position), dtype=torch_dtype(end.dtype))
        results[rank] = result.share_memory_()

    def work(rank: int) -> None:
        output = Program(plan, Placed(rank, ranks))(inputs.get(rank))
        if output is not None:
            results[rank].copy_(output)

    forked(len(ids), work, timeout)
    return [to_numpy(results[rank], end.numpy_dtype) for rank in ranks[end.mesh]]


def forked(size: int, work: Callable[[int], object], timeout: float = TIMEOUT) -> None:
    """Have so many ranks over gloo, forked from this process, do their work; until all have ended.

    Raises BackendError where one fails, or a message takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="redistrib-") as directory:
        children = []
        for rank in range(size):
            if not (child := os.fork()):
                _serve(rank, size, work, directory, timeout)
            children.append(child)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        errors = [Path(directory, f"error-{n}") for n, status in enumerate(statuses) if status]
        if errors:
            reasons = [path.read_text(encoding="utf-8") for path in errors if path.exists()]
            raise BackendError(
                f"a rank of the torch backend failed: {(reasons or ['it ended'])[0]}"
            )


def _serve(
    rank: int, size: int, work: Callable[[int], object], directory: str, timeout: float
) -> None:
    """What a forked rank does; it does not return."""
    status = 1
    try:
        dist.init_process_group(
            "gloo",
            rank=rank,
            world_size=size,
            store=dist.FileStore(f"{directory}/store", size),
            timeout=timedelta(seconds=timeout),
        )
        torch.set_num_threads(1)
        work(rank)
        dist.destroy_process_group()
        status = 0
    except BaseException:  # noqa: BLE001 - the parent raises it
        text = traceback.format_exc().strip().splitlines()[-1]
        Path(directory, f"error-{rank}").write_text(text, encoding="utf-8")
    finally:
        os._exit(status)


def to_torch(tile: Array) -> Tensor:
    """A numpy array of any dtype, those of ml_dtypes included, as a tensor; copied."""
    array = np.array(tile, order="C")
    dtype = torch_dtype(dtype_name(array.dtype))
    if not array.size:
        return torch.empty(array.shape, dtype=dtype)
    return torch.from_numpy(array.reshape(-1).view(np.uint8)).view(dtype).view(array.shape)


def to_numpy(tensor: Tensor, dtype: np.dtype[Any]) -> Array:
    """A tensor as a numpy array of this dtype; it shares memory."""
    if not tensor.numel():
        return np.empty(tuple(tensor.shape), dtype)
    flat = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    return np.asarray(flat.view(dtype).reshape(tuple(tensor.shape)))
