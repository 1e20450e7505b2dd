"""Any question within a budget: pairs as large as it allows, and what planning them may take.

At most 8 axes, rank 8, 2**60 elements and 65,536 devices, on one mesh or two. Calls of Python are
counted, not seconds, so that the load of a machine does not matter: a tenth of a second of a quiet
core is about 400,000 of them.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from math import lcm, prod

import redistrib as rd
from redistrib.errors import LayoutError
from tests.generators import random_layout

AXES, RANK, ELEMENTS = 8, 8, 1 << 60
DEVICES = (8, 64, 512, 4096, 65536)
SIZES = (2, 2, 2, 3, 4, 4, 5, 6, 7, 8, 8, 10, 12, 16, 24, 28, 32, 48, 64, 128, 256, 720, 1024)
RULES = ("ceil", "balanced", "nested")
PROFILES = (None, "tpu-v5e", "dgx-h100", "mpi-cluster")
CALLS = {"plan": 400_000, "cost": 400_000, "check": 1_000_000}


def budget_mesh(rng: random.Random, prefix: str, first: int | None = None) -> rd.Mesh:
    """A mesh of up to 65,536 devices; with `first`, on devices that may be others or shuffled."""
    most, sizes = rng.choice(DEVICES), list[int]()
    for _ in range(rng.randint(1, AXES)):
        size = rng.choice(SIZES)
        if prod(sizes) * size <= most:
            sizes.append(size)
    total = prod(sizes)
    ids = None
    if first is not None:
        start = rng.choice((first, first // 2))
        ids = rng.choice((range(start, start + total), rng.sample(range(total), total), None))
    return rd.Mesh({f"{prefix}{at}": size for at, size in enumerate(sizes)}, devices=ids)


def budget_pair(seed: int) -> tuple[rd.ArrayType, rd.ArrayType]:
    """Two types of one array, on one mesh or two; digits may match or not, sums be partial."""
    rng = random.Random(seed)
    while True:
        mesh = budget_mesh(rng, "x")
        onto = mesh if rng.random() < 0.6 else budget_mesh(rng, "a", mesh.num_devices)
        rank, partial = rng.randint(1, RANK), rng.random() < 0.4
        layouts = [random_layout(rng.choice, m, rank, partial) for m in (mesh, onto)]
        shape = [
            lcm(a, b) * rng.choice((1, 2, 3, 4, 8, 128, 1000))
            for a, b in zip(layouts[0][2], layouts[1][2], strict=True)
        ]
        dtype = rng.choice(("f32", "bf16", "i8", "i64"))
        if prod(shape) > ELEMENTS:
            continue
        try:
            src, dst = (
                rd.ArrayType(m, dtype, shape, dims, sums, rng.choice(("sum", "max")))
                for m, (dims, sums, _) in zip((mesh, onto), layouts, strict=True)
            )
        except LayoutError:
            continue  # sub-axes of one axis that are not nested
        return src, dst


def uneven_pair(seed: int) -> tuple[rd.ArrayType, rd.ArrayType]:
    """Two types of one array, mostly on two meshes, in blocks that need not be equal."""
    rng = random.Random(seed)
    while True:
        mesh = budget_mesh(rng, "x")
        onto = mesh if rng.random() < 0.25 else budget_mesh(rng, "a", mesh.num_devices)
        rank, partial = rng.randint(1, RANK), rng.random() < 0.3
        layouts = [random_layout(rng.choice, m, rank, partial) for m in (mesh, onto)]
        most = [max(a, b) for a, b in zip(layouts[0][2], layouts[1][2], strict=True)]
        shape = [rng.randrange(1, size * rng.choice((2, 8, 128, 1000)) + 1) for size in most]
        if prod(shape) > ELEMENTS:
            continue
        try:
            src, dst = (
                rd.ArrayType(m, "i32", shape, dims, sums, "sum", dict(enumerate(_rules(rng, dims))))
                for m, (dims, sums, _) in zip((mesh, onto), layouts, strict=True)
            )
        except LayoutError:
            continue  # sub-axes of one axis that are not nested
        return src, dst


def _rules(rng: random.Random, dims: Sequence[Sequence[str]]) -> list[str]:
    """A rule for each dimension; local factors are under `ceil` alone."""
    return [
        "ceil" if any(f.startswith("_") for f in factors) else rng.choice(RULES) for factors in dims
    ]


def calls_of(work: Callable[[], object]) -> int:
    """How many Python functions some work calls."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def verify_budget(seed: int, *, uneven: bool = False) -> Counter[str]:
    """Plan, price and check a pair within the budget; what kind of pair it was."""
    src, dst = uneven_pair(seed) if uneven else budget_pair(seed)
    profile = PROFILES[seed % len(PROFILES)]
    plans: list[rd.Plan] = []
    work = {
        "plan": lambda: plans.append(rd.plan(src, dst, profile=profile)),
        "cost": lambda: rd.cost(src, dst, profile=profile),
        "check": lambda: rd.check(plans[0].to_json()),
    }
    for name, ask in work.items():
        calls = calls_of(ask)
        assert calls <= CALLS[name], f"seed {seed}: {name} of {src} -> {dst} takes {calls} calls"
    crosses, partial = src.mesh != dst.mesh, bool(src.partial or dst.partial)
    blocks = bool(src.uneven or dst.uneven)
    return Counter({"pairs": 1, "two meshes": crosses, "partial": partial, "uneven": blocks})
