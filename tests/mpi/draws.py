"""Random redistributions on all ranks: types, dtype, memory order, and every way to streams."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

import redistrib as rd
from redistrib.backends import mpi as rmpi
from redistrib.backends.mpi import streams
from redistrib.backends.mpi.communicators import Private
from redistrib.types.tile import same_bits, tile_of
from tests.problems import random_type
from tests.random_plans import (
    example,
    expected_tiles,
    random_mesh,
    random_plan,
    random_tiles,
)

DTYPES = [
    "f32",
    "bf16",
    "f8e4m3fn",
    "f8e5m2",
    "i8",
    "bool",
    "c64",
    "f64",
    "u16",
    "c128",
    "f16",
    "i64",
]
SHAPES = ((24,), (12, 24), (48, 6), (8, 12, 6), (16, 48), (840,), (2, 3, 4, 12), (36, 40))


def reorder(rng: random.Random, array: np.ndarray) -> np.ndarray:
    """The same elements in a random memory order."""
    axes = rng.sample(range(array.ndim), array.ndim)
    gap = rng.choice((1, 1, 2))
    shape = [array.shape[axis] for axis in axes]
    if shape:
        shape[-1] *= gap
    whole = np.empty(shape, array.dtype)
    found = (whole[..., ::gap] if shape else whole).transpose(np.argsort(axes))
    if rng.random() < 0.2:
        found = found[tuple(slice(None, None, -1) for _ in axes)]
    found[...] = array
    return found


def draw(comm: MPI.Intracomm, seed: int) -> None:
    """One random redistribution under random limits, against the meaning of its types."""
    rng = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        # Small arrays would all go one way: these figures choose the way, and never the result.
        patch.setattr(streams, "SHORT_RUN", rng.choice((0, 64, 1 << 30)))
        patch.setattr(streams, "FEW_RUNS", rng.choice((0, 0, 100)))
        patch.setattr(streams, "PACKED", rng.choice((1, 1 << 20)))
        patch.setattr(Private, "packs", rng.choice((range(comm.size), ())))
        patch.setattr(streams, "SLAB_RUNS", rng.choice((None, 1, 3)))
        patch.setattr(streams, "LEAST_CHUNK", rng.choice((1, 40, 4096)))
        patch.setattr(streams, "DEPTH_DIRECT", rng.choice((1, 3, 64)))
        options: dict[str, Any] = {"scratch": rng.choice((1, 1000, 1 << 20))}
        if rng.random() < 0.2:
            options["timeout"] = 60.0
        options["shared"] = rng.random() < 0.3
        if seed % 4 == 3:
            plan = random_plan(rng, comm.size, reduce=True)
            tile = random_tiles(plan, seed)[comm.rank]
            expected = expected_tiles(plan, seed)[comm.rank]
        else:
            mesh, dtype, shape = random_mesh(rng, comm.size), rng.choice(DTYPES), rng.choice(SHAPES)
            src, dst = (random_type(rng, mesh, shape, dtype) for _ in range(2))
            plan = rd.plan(src, dst, strategy=rng.choice(("direct", "auto")))
            array = example(shape, src.numpy_dtype, np.random.default_rng(seed), exact=False)
            tile, expected = (tile_of(array, t, comm.rank) for t in (src, dst))
        given = reorder(rng, tile)
        kept = given.copy()
        own = not options["shared"] and rng.random() < 0.5
        out = reorder(rng, np.zeros_like(expected)) if own else None
        with rmpi.Redistribution.from_plan(plan, comm, **options) as redistribution:
            result = redistribution(given, out)
        what = f"seed {seed}: {plan.src.mesh}: {plan.src} -> {plan.dst}"
        assert same_bits(result, expected), what
        assert same_bits(given, kept), f"{what}: the source is not intact"
        assert out is None or result is out
