"""A profile of the devices that jax has here, from programs that run between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from redistrib.backends.calibration import MOVES, ROUNDS, TILES, calibrated, moves, timed
from redistrib.backends.jax.programs import compile_stacked, virtual_devices
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import Execution, Profile
from redistrib.types.mesh import Mesh

EXCHANGE: Execution = "rounds"
"""How an exchange runs here, in the words of a profile."""


def calibrate(
    mesh: Mesh,
    devices: Sequence[Any] | None = None,
    name: str = "calibrated",
    *,
    tiles: Sequence[int] = TILES,
    count: int = MOVES,
    rounds: int = ROUNDS,
) -> Profile:
    """The profile of these devices, in the order of a mesh's positions, from random moves.

    By default they are the first that jax has, or virtual ones of the CPU where jax has not
    started. `count` moves, of tiles of about so many bytes, are compiled and take turns for so many
    rounds, each from the call until the result is there. In one process.

    Raises BackendError where there are fewer devices, or only one: it has no link to measure.
    """
    plans = moves(mesh, EXCHANGE, tiles, count)
    return calibrated(plans, timed(prepared(plans, devices), rounds), EXCHANGE, name)


def prepared(
    plans: Sequence[Plan], devices: Sequence[Any] | None = None
) -> list[Callable[[], float]]:
    """A compiled run of each plan: it gives the seconds until the result is there."""
    count = plans[0].src.mesh.num_devices
    mesh_devices = virtual_devices(count) if devices is None else list(devices)
    sharding = NamedSharding(jax.sharding.Mesh(np.array(mesh_devices), "p"), PartitionSpec("p"))
    stacks: dict[tuple[int, ...], Any] = {}
    runs: list[Callable[[], float]] = []
    for plan in plans:
        shape = (count, *plan.src.tile_shape)
        if shape not in stacks:
            stacks[shape] = jax.device_put(np.zeros(shape, plan.src.numpy_dtype), sharding)
        runs.append(partial(_seconds, compile_stacked(plan, mesh_devices), stacks[shape]))
    return runs


def _seconds(program: Any, array: Any) -> float:
    start = time.perf_counter()
    program(array).block_until_ready()
    return time.perf_counter() - start
