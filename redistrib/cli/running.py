"""`redistrib run`: how much memory a run needs, and the run itself on each backend."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from redistrib.cli.values import Array
from redistrib.errors import BackendError, RedistribError
from redistrib.report import format_bytes
from redistrib.synth.plan.data import Plan

BACKENDS = ("simulator", "jax", "mpi")


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run.

    array: the result; None on a rank other than 0.
    seconds: of each repetition; under mpi on the slowest rank.
    figures: bytes of the worst rank and its rate, under mpi only.
    """

    array: Array | None
    seconds: list[float]
    figures: dict[str, Any] = field(default_factory=dict)


def needed_bytes(plan: Plan, backend: str) -> int:
    """About the memory of one process: the array before and after, and the tiles that are live.

    Under mpi those of one rank; else those of all devices, with a copy of source and target tile.
    """
    arrays = 2 * plan.src.size * plan.src.itemsize
    if backend == "mpi":
        return arrays + plan.live_bytes
    ends = plan.src.tile_bytes + plan.dst.tile_bytes
    return arrays + plan.src.mesh.num_devices * (plan.live_bytes + ends)


def check_memory(plan: Plan, backend: str) -> str:
    """The estimate as text. Raises RedistribError where the machine has less memory than that."""
    needed, available = needed_bytes(plan, backend), available_bytes()
    tiles = "a tile" if backend == "mpi" else f"the tiles of {plan.src.mesh.num_devices} devices"
    text = f"about {format_bytes(needed)} of memory: the array twice, and {tiles} during the plan"
    if available is not None and needed > available:
        raise RedistribError(
            f"a run on {backend} needs {text}; {format_bytes(available)} are available. "
            "`redistrib plan` and `redistrib check` need no array",
            needed=needed,
            available=available,
        )
    return text


def available_bytes() -> int | None:
    """Bytes of memory that the machine could give; None where that is not known."""
    path = Path("/proc/meminfo")
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    kib = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kib is None else int(kib) * 1024


def run(plan: Plan, backend: str, array: Array, repeat: int) -> Run:
    """Split the array, run the plan and put it together, `repeat` times. Raises BackendError."""
    module = load_backend(backend)
    if backend == "mpi":
        measured = module.measure_array(plan, array, repeat=repeat)
        figures = {
            "rank_received_bytes": measured.received_bytes,
            "gigabytes_per_second": measured.received_bytes / median(measured.seconds) / 1e9,
            "rank_peak_bytes": measured.peak_bytes,
            "rank_extra_bytes": measured.extra_bytes,
        }
        return Run(measured.array, list(measured.seconds), figures)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        if backend == "simulator":
            result = module.gather(module.run(plan, module.scatter(array, plan.src)), plan.dst)
        else:
            result = module.run_array(plan, array)
        seconds.append(time.perf_counter() - start)
    return Run(result, seconds)


def load_backend(backend: str) -> Any:
    """The module of a backend. Raises BackendError where it, or the MPI below it, is missing."""
    try:
        return importlib.import_module(f"redistrib.backends.{backend}")
    except (ImportError, RuntimeError) as error:  # mpi4py without an MPI raises the latter
        extra = {"mpi": "mpi,mpich"}.get(backend, backend)
        hint = "; leave mpich out where the machine has an MPI" if backend == "mpi" else ""
        raise BackendError(
            f"the backend {backend} is not installed: pip install 'redistrib[{extra}]'{hint} "
            f"({error})",
            backend=backend,
        ) from error


def figures_text(figures: dict[str, Any]) -> str:
    """The figures of a run under mpi."""
    text = (
        f"mpi: a rank receives {format_bytes(figures['rank_received_bytes'])}, "
        f"{figures['gigabytes_per_second']:.3g} GB/s"
    )
    if figures["rank_peak_bytes"] is not None:
        text += (
            f"; its memory peaks at {format_bytes(figures['rank_peak_bytes'])}, "
            f"{format_bytes(figures['rank_extra_bytes'])} beside the array and its tiles"
        )
    return text
