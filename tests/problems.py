"""Seeded random problems: meshes, types over one shape, and arrays for them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable
from math import prod
from typing import TypeVar

import numpy as np

import redistrib as rd
from redistrib.synth.plan import collectives as c
from redistrib.synth.plan.data import make_plan
from redistrib.synth.plan.routing import exchange_traffic
from redistrib.synth.plan.tables import permute_table
from redistrib.synth.planner.reductions import local_runs
from redistrib.types.digits import DeviceDigit, IndexDigit, Local, Placement, piece_of, primes

_D = TypeVar("_D", DeviceDigit, IndexDigit)

SIZES = (1, 2, 3, 4, 5, 6, 8, 12)


def random_mesh(rng: random.Random, max_devices: int = 24) -> rd.Mesh:
    """A mesh of up to four axes, size 1 and no axes at all included."""
    axes: list[tuple[str, int]] = []
    for name in "xyzw"[: rng.randint(0, 4)]:
        size = rng.choice(SIZES)
        if prod(s for _, s in axes) * size <= max_devices:
            axes.append((name, size))
    return rd.Mesh(axes)


def random_shape(rng: random.Random, mesh: rd.Mesh, max_elements: int = 4096) -> tuple[int, ...]:
    """A shape with room for some axes of the mesh in each dimension."""
    shape: list[int] = []
    for _ in range(rng.randint(0, 3)):
        n = rng.choice((1, 2, 3, 4))
        for _, size in mesh.axes:
            if rng.random() < 0.7:
                n *= size
        if prod(shape) * n <= max_elements:
            shape.append(n if rng.random() < 0.98 else 0)
    return tuple(shape)


def random_digits(rng: random.Random, mesh: rd.Mesh) -> list[DeviceDigit]:
    """The axes of the mesh, some of them cut into sub-axes in a random order of primes."""
    digits = []
    for name, size in mesh.axes:
        factors = primes(size)
        rng.shuffle(factors)
        if rng.random() < 0.6:
            factors = [prod(factors)]
        pre = 1
        for k in factors:
            digits.append(DeviceDigit(name, pre, k))
            pre *= k
    rng.shuffle(digits)
    return digits


def random_type(
    rng: random.Random,
    mesh: rd.Mesh,
    shape: tuple[int, ...],
    dtype: str = "i32",
    partial: tuple[DeviceDigit, ...] | None = (),
    reduction: str = "sum",
) -> rd.ArrayType:
    """A random legal type; `partial` None draws a partial set too."""
    dims: list[list[DeviceDigit | Local]] = [[] for _ in shape]
    left = list(shape)
    drawn = []
    for digit in random_digits(rng, mesh):
        if any(p.axis == digit.axis for p in partial or ()):
            continue
        if partial is None and rng.random() < 0.2:
            drawn.append(digit)
            continue
        fits = [d for d, n in enumerate(left) if n and n % digit.size == 0]
        if not fits or rng.random() < 0.2:
            continue
        dim = rng.choice(fits)
        if rng.random() < 0.3:
            local = rng.choice([k for k in (1, 2, 3, 4) if left[dim] // digit.size % k == 0])
            dims[dim].append(Local(local))
            left[dim] //= local
        dims[dim].append(digit)
        left[dim] //= digit.size
    return rd.ArrayType(
        mesh, dtype, shape, dims, partial if partial is not None else drawn, reduction
    )


def array_of(rng: random.Random, t: rd.ArrayType) -> np.ndarray:
    """Data of a type in which every element differs, small integers where it is partial."""
    if t.partial:
        values = np.array([rng.randint(-3, 3) for _ in range(t.size)])
    else:
        values = np.arange(t.size)
    return values.reshape(t.shape).astype(t.numpy_dtype)


def expected_tiles(array: np.ndarray, t: rd.ArrayType) -> list[np.ndarray]:
    """What every device holds by the definition of the type, one device after the other."""
    return [array[np.ix_(*t.tile(position))] for position in range(t.mesh.num_devices)]


def random_step(
    rng: random.Random, t: rd.ArrayType, *, reductions: bool = True
) -> c.Collective | None:
    """A random legal collective for arrays of type `t`; None where the draw leads nowhere.

    Without `reductions` none makes the array partial.
    """
    owned = [(d, i) for d, i in t.placements]
    rng.shuffle(owned)
    owned = [_part(rng, p) for p in owned[: rng.randint(1, 2)]]
    free = [_part_of(rng, d) for d in t.free_digits]
    rng.shuffle(free)
    pairs = _places(rng, free, local_runs(t))
    partial = [_part_of(rng, d) for d in t.partial]
    reduction = t.reduction or rng.choice(["sum", "max", "min", "prod"])
    steps: list[c.Collective] = []
    if pairs:
        steps.append(c.DynamicSlice(pairs))
    if owned:
        steps.append(c.AllGather(tuple(owned)))
        if reductions:
            steps.append(c.ShardedToPartial(tuple(owned), reduction))
        held = dict(owned)
        places = _places(rng, held, local_runs(t))
        if places:
            steps.append(c.AllToAll(tuple(c.Move(d, held[d], place) for d, place in places)))
    olds = [*(d for d, _ in owned), *free, *partial]
    olds = [d for d in olds if d.size == olds[0].size]
    if olds:
        news = rng.sample(olds, len(olds))
        permute = c.CollectivePermute(tuple(zip(olds, news, strict=True)))
        steps.append(permute)
        with contextlib.suppress(rd.LayoutError):
            moved = permute.apply(t)
            if moved != t and moved.partial == t.partial:
                steps.append(c.CollectivePermute((), permute_table(t, moved)))
    with contextlib.suppress(rd.LayoutError):
        steps.append(c.CollectivePermute((), permute_table(t, _same_tiles(rng, t))))
    if free and reductions:
        steps.append(c.ReplicatedToPartial(tuple(free), reduction))
    if partial:
        steps.append(c.AllReduce(tuple(partial)))
        scattered = _places(rng, partial, local_runs(t))
        if scattered:
            steps.append(c.ReduceScatter(scattered))
    to = random_type(rng, t.mesh, t.shape, t.dtype, t.partial, t.reduction or "sum")
    if to != t:
        steps.append(exchange_traffic(t, to).exchange)
    if not steps:
        return None
    # By kind first: some kinds have several steps.
    kind = rng.choice(sorted({step.collective for step in steps}))
    return rng.choice([step for step in steps if step.collective == kind])


def _places(
    rng: random.Random, devices: Iterable[DeviceDigit], local: list[IndexDigit]
) -> tuple[Placement, ...]:
    """Device digits with local index digits of their sizes, for as many as there is room for."""
    found = []
    rng.shuffle(local)
    for device in devices:
        for at, run in enumerate(local):
            if run.size % device.size == 0:
                room = run.size // device.size
                before = rng.choice([b for b in range(1, room + 1) if room % b == 0])
                found.append((device, IndexDigit(run.dim, run.pre * before, device.size)))
                del local[at]
                break
    return tuple(found)


def _same_tiles(rng: random.Random, t: rd.ArrayType) -> rd.ArrayType:
    """A type whose dimensions are owned by whole axes, as many devices as in `t`, if it can be."""
    names = rng.sample([name for name, _ in t.mesh.axes], len(t.mesh.axes))
    dims: list[list[str]] = []
    for n, tile in zip(t.shape, t.tile_shape, strict=True):
        dims.append([])
        left = n // tile if tile else 1
        for name in names:
            if left % t.mesh.axis_size(name) == 0 and not any(name in dim for dim in dims):
                dims[-1].append(name)
                left //= t.mesh.axis_size(name)
    return rd.ArrayType(t.mesh, t.dtype, t.shape, dims, t.partial, t.reduction)


def random_walk(
    rng: random.Random, t: rd.ArrayType, length: int, *, reductions: bool = True
) -> rd.Plan:
    """A plan of up to `length` random steps from `t`."""
    steps = []
    at = t
    for _ in range(length):
        step = random_step(rng, at, reductions=reductions)
        if step is None:
            continue
        try:
            at = step.apply(at)
        except rd.LayoutError:  # parts of two digits of one axis need not be nested
            continue
        steps.append(step)
    return make_plan(t, at, "collectives", steps)


def _part(rng: random.Random, placement: Placement) -> Placement:
    part = _part_of(rng, placement[0])
    index = piece_of(placement, part)
    assert index is not None
    return part, index


def _part_of(rng: random.Random, digit: _D) -> _D:
    """A digit or, at times, one prime factor of it."""
    if rng.random() < 0.5 or digit.size == 1:
        return digit
    factors = primes(digit.size)
    rng.shuffle(factors)
    at = rng.randrange(len(factors))
    return digit._replace(pre=digit.pre * prod(factors[:at]), size=factors[at])
