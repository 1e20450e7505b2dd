"""Seeded random problems: meshes, types over one shape, and arrays for them."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from math import prod
from typing import TypeVar

import numpy as np

import redistrib as rd
from redistrib.synth import collectives as c
from redistrib.synth.plan import make_plan
from redistrib.synth.routing import exchange_traffic
from redistrib.synth.tables import permute_table
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


def random_step(rng: random.Random, t: rd.ArrayType) -> c.Collective | None:
    """A random legal collective for arrays of type `t`; None where the draw leads nowhere."""
    owned = [(d, i) for d, i in t.placements]
    rng.shuffle(owned)
    owned = [_part(rng, p) for p in owned[: rng.randint(1, 2)]]
    free = [_part_of(rng, d) for d in _free(t)]
    local = [_part_of(rng, i) for i in _local(t)]
    rng.shuffle(free)
    rng.shuffle(local)
    pairs = tuple((d, i) for d, i in zip(free, local, strict=False) if d.size == i.size)
    partial = [_part_of(rng, d) for d in t.partial]
    reduction = t.reduction or rng.choice(["sum", "max", "min", "prod"])
    steps: list[c.Collective] = []
    if pairs:
        steps.append(c.DynamicSlice(pairs))
    if owned:
        steps += [c.AllGather(tuple(owned)), c.ShardedToPartial(tuple(owned), reduction)]
        moves = [
            c.Move(d, i, j) for (d, i), j in zip(owned, local, strict=False) if d.size == j.size
        ]
        if moves:
            steps += [c.AllToAll(tuple(moves))] * 2
    olds = [*(d for d, _ in owned), *free, *partial]
    olds = [d for d in olds if d.size == olds[0].size]
    if olds:
        news = rng.sample(olds, len(olds))
        permute = c.CollectivePermute(tuple(zip(olds, news, strict=True)))
        steps += [permute] * 2
        with contextlib.suppress(rd.LayoutError):
            moved = permute.apply(t)
            if moved != t and moved.partial == t.partial:
                steps.append(c.CollectivePermute((), permute_table(t, moved)))
    if free:
        steps.append(c.ReplicatedToPartial(tuple(free), reduction))
    if partial:
        steps += [c.AllReduce(tuple(partial))] * 2
        scattered = [(d, i) for d, i in zip(partial, local, strict=False) if d.size == i.size]
        if scattered:
            steps += [c.ReduceScatter(tuple(scattered))] * 3
    to = random_type(rng, t.mesh, t.shape, t.dtype, t.partial, t.reduction or "sum")
    if to != t:
        steps.append(exchange_traffic(t, to).exchange)
    return rng.choice(steps) if steps else None


def random_walk(rng: random.Random, t: rd.ArrayType, length: int) -> rd.Plan:
    """A plan of up to `length` random steps from `t`."""
    steps = []
    at = t
    for _ in range(length):
        step = random_step(rng, at)
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
    return replace(digit, pre=digit.pre * prod(factors[:at]), size=factors[at])


def _free(t: rd.ArrayType) -> list[DeviceDigit]:
    """The runs of the mesh axes that a type does not use."""
    used = [*(d for d, _ in t.placements), *t.partial]
    free = []
    for name, size in t.mesh.axes:
        end = 1
        for digit in sorted(d for d in used if d.axis == name):
            if digit.pre > end:
                free.append(DeviceDigit(name, end, digit.pre // end))
            end = digit.end
        if size > end:
            free.append(DeviceDigit(name, end, size // end))
    return free


def _local(t: rd.ArrayType) -> list[IndexDigit]:
    """The runs of the dimensions that stay on the device."""
    local = []
    for dim, n in enumerate(t.shape):
        end = 1
        for _, index in sorted((p for p in t.placements if p[1].dim == dim), key=lambda p: p[1]):
            if index.pre > end:
                local.append(IndexDigit(dim, end, index.pre // end))
            end = index.end
        if n > end:
            local.append(IndexDigit(dim, end, n // end))
    return local
