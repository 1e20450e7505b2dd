"""Long runs of the mpi backend, in units: each is a pool of real ranks that runs one case."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import redistrib as rd
from redistrib.demo.launch import MPICH, OPENMPI, Installation
from tests.generators import whole_axis_layouts
from tests.mpi.pool import Pool

RANKS = (2, 3, 4, 6, 8)
DRAWS = 400
MODELS = 100
PROGRAMS, BLOCK = 5000, 250
SLICES = 16
LARGEST = 256 << 20
OBJECTS = 1000
OVER_2_31 = 2**11 + 1  # MiB
MEMORY = 10 << 30
"""Bytes that the tiles above 2^31 bytes need, two ranks together."""

Unit = tuple[Installation, int, str, tuple[Any, ...]]


def model_units() -> list[Unit]:
    """Per MPI: 500 models."""
    return [
        (mpi, ranks, "models_move_as_numpy_says", (10_000 * ranks, MODELS))
        for mpi in (MPICH, OPENMPI)
        for ranks in RANKS
    ]


def units() -> list[Unit]:
    """Per MPI: 2,000 plans, 5,000 programs; core pairs, real cases, large tiles, 1,000 objects."""
    found: list[Unit] = []
    for mpi in (MPICH, OPENMPI):
        found += [
            (mpi, ranks, "random_draws_are_right", (10_000 * ranks, DRAWS)) for ranks in RANKS
        ]
        found += [
            (mpi, RANKS[at % len(RANKS)], "programs_equal_numpy", (at * BLOCK, BLOCK))
            for at in range(PROGRAMS // BLOCK)
        ]
        for (mesh, shape), at in product(
            (("x=2,y=4", [8, 8, 8]), ("x=2,y=2,z=2", [8, 8, 8])), range(SLICES)
        ):
            found.append((mpi, 8, "core_pairs_are_right", (mesh, shape, at, SLICES)))
        found.append((mpi, 8, "real_world_cases_are_right", (LARGEST,)))
        found.append((mpi, 2, "tiles_may_exceed_two_gibibytes", (OVER_2_31,)))
        found.append((mpi, 2, "gathered_tiles_may_exceed_two_gibibytes", (OVER_2_31,)))
        found.append((mpi, 4, "objects_leave_nothing_behind", (OBJECTS,)))
    return found


def run(unit: int) -> Counter[str]:
    """Run one unit; counts draws, pairs of layouts and other cases."""
    return _run(units()[unit])


def run_models(unit: int) -> Counter[str]:
    """Run one unit of models."""
    return _run(model_units()[unit])


def _run(unit: Unit) -> Counter[str]:
    mpi, ranks, case, arguments = unit
    if case.endswith("exceed_two_gibibytes") and available() < MEMORY:
        return Counter({f"{case}: left out, too little memory": 1})
    with Pool(mpi, ranks) as pool:
        failed = pool.run(case, *arguments, timeout=3600)
    assert failed == {}, f"{mpi.name}, {ranks} ranks: {case}{arguments}: {failed}"
    if case == "core_pairs_are_right":
        mesh, shape, at, step = arguments
        layouts = list(whole_axis_layouts(rd.Mesh.parse(mesh), shape))
        return Counter({case: len(range(at, len(layouts) ** 2, step))})
    counts = {
        "random_draws_are_right": DRAWS,
        "models_move_as_numpy_says": MODELS,
        "programs_equal_numpy": BLOCK,
    }
    return Counter({case: counts.get(case, 1)})


def available() -> int:
    """Bytes of memory that the machine could give."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
