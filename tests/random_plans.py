"""Random plans, built step by step without the planner, on a given number of devices.

Used by the tests of the backends that run real processes; `tests` are imported there by name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from redistrib.backends import simulator
from redistrib.synth.plan.data import Plan
from redistrib.types.mesh import Mesh
from tests.problems import random_digits, random_type, random_walk

MOVED = ("f32", "bf16", "f8e4m3fn", "i8", "bool", "c64", "f64", "u16")
SUMMED = ("f32", "i32", "bf16", "u8", "bool")


def random_mesh(rng: random.Random, devices: int) -> Mesh:
    """A mesh of that many devices, cut into random axes."""
    sizes = []
    while devices > 1:
        size = rng.choice([d for d in range(2, devices + 1) if devices % d == 0])
        sizes.append(size)
        devices //= size
    rng.shuffle(sizes)
    return Mesh({f"x{i}": size for i, size in enumerate(sizes)})


def random_plan(rng: random.Random, devices: int, *, reduce: bool) -> Plan:
    """A plan of one to four random steps; with `reduce`, from a type with partial axes."""
    mesh = random_mesh(rng, devices)
    dtype = rng.choice(SUMMED if reduce else MOVED)
    shape = rng.choice([(24,), (12, 24), (48, 6), (8, 12, 6), (16, 48)])
    partial = tuple(random_digits(rng, mesh)[:1]) if reduce else ()
    reduction = rng.choice(["sum", "max", "min", "prod"]) if reduce else "sum"
    src = random_type(rng, mesh, shape, dtype, partial, reduction)
    return random_walk(rng, src, rng.randint(1, 4), reductions=reduce)


def random_plans(seed: int, devices: int, count: int) -> Iterator[Plan]:
    """That many plans, every third with reductions."""
    rng = random.Random(seed)
    for number in range(count):
        yield random_plan(rng, devices, reduce=number % 3 == 2)


def random_tiles(plan: Plan, seed: int) -> list[NDArray[np.generic]]:
    """Tiles of the plan's source; replicas agree, partial ones hold small integers of their own."""
    rng = np.random.default_rng(seed)
    t = plan.src
    whole = t.replace(partial=())
    addends = {}
    tiles = []
    for position in range(t.mesh.num_devices):
        key = tuple(t.digit_coordinate(digit, position) for digit in t.partial)
        if key not in addends:
            addends[key] = example(
                t.shape, t.numpy_dtype, rng, exact=bool(t.partial or _partial(plan))
            )
        tiles.append(np.array(addends[key][np.ix_(*whole.tile(position))], order="C"))
    return tiles


def _partial(plan: Plan) -> bool:
    return any(t.partial for t in plan.types)


def example(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], rng: np.random.Generator, *, exact: bool
) -> NDArray[np.generic]:
    """Random bits, without NaNs; where sums are taken, small integers."""
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    if exact:
        return rng.integers(1, 3, shape).astype(dtype)
    return rng.integers(-100, 100, shape).astype(dtype)


def expected_tiles(plan: Plan, seed: int) -> list[NDArray[np.generic]]:
    """What the simulator makes of `random_tiles`."""
    return simulator.run(plan, random_tiles(plan, seed))
