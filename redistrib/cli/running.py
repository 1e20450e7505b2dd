"""`redistrib run`: how much memory a run needs, and the run itself on each backend."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from redistrib.backends.registry import BACKENDS, Processes, find_backend
from redistrib.cli.values import Array
from redistrib.errors import RedistribError
from redistrib.report.figures import format_bytes
from redistrib.synth.plan.data import Plan

NAMES = tuple(backend.name for backend in BACKENDS)


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

    With a process per device those of one; else those of all devices, with a copy of source and
    target tile.
    """
    arrays = 2 * plan.src.size * plan.src.itemsize
    if find_backend(backend).processes is Processes.RANKS:
        return arrays + plan.live_bytes
    ends = plan.src.tile_bytes + plan.dst.tile_bytes
    return arrays + plan.src.mesh.num_devices * (plan.live_bytes + ends)


def check_memory(plan: Plan, backend: str) -> str:
    """The estimate as text. Raises RedistribError where the machine has less memory than that."""
    needed, available = needed_bytes(plan, backend), available_bytes()
    ranks = find_backend(backend).processes is Processes.RANKS
    tiles = "a tile" if ranks else f"the tiles of {plan.src.mesh.num_devices} devices"
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
    entry = find_backend(backend)
    module = entry.load()
    if entry.processes is Processes.RANKS:
        measured = module.measure_array(plan, array, repeat=repeat)
        figures = {
            "rank_received_bytes": measured.received_bytes,
            "gigabytes_per_second": measured.received_bytes / median(measured.seconds) / 1e9,
            "rank_peak_bytes": measured.peak_bytes,
            "rank_extra_bytes": measured.extra_bytes,
            "fused_into": measured.phases,
        }
        return Run(measured.array, list(measured.seconds), figures)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = module.run_array(plan, array)
        seconds.append(time.perf_counter() - start)
    return Run(result, seconds)


def figures_text(figures: dict[str, Any]) -> str:
    """The figures of a run under mpi."""
    text = (
        f"mpi: fused into communicating phases: {figures['fused_into']}; a rank receives "
        f"{format_bytes(figures['rank_received_bytes'])}, "
        f"{figures['gigabytes_per_second']:.3g} GB/s"
    )
    if figures["rank_peak_bytes"] is not None:
        text += (
            f"; its memory peaks at {format_bytes(figures['rank_peak_bytes'])}, "
            f"{format_bytes(figures['rank_extra_bytes'])} beside the array and its tiles"
        )
    return text
