"""Random moves of random models: maps, layouts and meshes that fit each other."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from redistrib.errors import LayoutError, WeightMapError
from redistrib.models.expression import Expression
from redistrib.models.model_plan import ModelPlan, plan_model
from redistrib.models.segments import AnyType, SegmentedType
from redistrib.models.weight_map import WeightMap
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import numpy_dtype
from redistrib.types.mesh import Mesh
from tests.models.random_maps import RandomMaps


def random_mesh(rng: random.Random, first: int, most: int) -> Mesh:
    """A mesh of at most so many devices, with ids from `first` on, in some order."""
    sizes: list[int] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        size = rng.choice((1, 2, 2, 3, 4))
        if prod(sizes) * size <= most:
            sizes.append(size)
    ids = list(range(first, first + prod(sizes)))
    if rng.random() < 0.3:
        rng.shuffle(ids)
    return Mesh(dict(zip("xyz", sizes, strict=False)), devices=ids)


def random_type(
    rng: random.Random, mesh: Mesh, shape: tuple[int, ...], dtype: str, *, partial: bool
) -> ArrayType:
    """A type of this shape in which every axis, whole or cut, is placed where it divides."""
    dims: list[list[str]] = [[] for _ in shape]
    rest = list(shape)
    partials = []
    for name, size in mesh.axes:
        cuts = [p for p in range(2, size) if size % p == 0]
        pre = rng.choice(cuts) if cuts and rng.random() < 0.3 else size
        digits = (
            [(name, size)]
            if pre == size
            else [(f"{name}:(1){pre}", pre), (f"{name}:({pre}){size // pre}", size // pre)]
        )
        for text, k in digits:
            places = [d for d in range(len(shape)) if rest[d] % k == 0 and rest[d]]
            if partial and rng.random() < 0.2:
                partials.append(text)
            elif places and rng.random() < 0.75:
                dim = rng.choice(places)
                dims[dim].insert(rng.randint(0, len(dims[dim])), text)
                rest[dim] //= k
    for dim, n in enumerate(rest):
        locals_ = [k for k in (2, 3) if n and n % k == 0]
        if locals_ and rng.random() < 0.2:
            dims[dim].insert(rng.randint(0, len(dims[dim])), f"_{rng.choice(locals_)}")
    return ArrayType(mesh, dtype, shape, dims, partials)


def random_uneven_type(
    rng: random.Random, mesh: Mesh, shape: tuple[int, ...], dtype: str, *, partial: bool
) -> ArrayType:
    """A type whose axes are placed wherever they come, with a rule for each dimension."""
    dims: list[list[str]] = [[] for _ in shape]
    partials = []
    for name, _ in mesh.axes:
        if partial and rng.random() < 0.2:
            partials.append(name)
        elif shape and rng.random() < 0.8:
            dim = rng.randrange(len(shape))
            dims[dim].insert(rng.randint(0, len(dims[dim])), name)
    rules = {}
    for dim, n in enumerate(shape):
        rule = rng.choice(("ceil", "ceil", "balanced", "nested", "sizes"))
        if rule == "sizes":
            blocks = prod(mesh.axis_size(name) for name in dims[dim])
            ends = sorted(rng.randint(0, n) for _ in range(blocks - 1))
            sizes = [b - a for a, b in zip([0, *ends], [*ends, n], strict=True)]
            rule = f"sizes({','.join(map(str, sizes))})"
        elif rule == "ceil" and dims[dim] and rng.random() < 0.4:
            dims[dim].insert(rng.randint(0, len(dims[dim]) - 1), f"_{rng.choice((2, 3))}")
        rules[dim] = rule
    return ArrayType(mesh, dtype, shape, dims, partials, uneven=rules)


def random_any_type(
    rng: random.Random,
    mesh: Mesh,
    shape: tuple[int, ...],
    dtype: str,
    *,
    partial: bool,
    uneven: bool,
) -> AnyType:
    """A type, sometimes in two parts along a dimension, or uneven."""
    if uneven and rng.random() < 0.6:
        return random_uneven_type(rng, mesh, shape, dtype, partial=partial)
    long = [d for d, n in enumerate(shape) if n > 1]
    if not long or rng.random() < 0.8:
        return random_type(rng, mesh, shape, dtype, partial=partial)
    dim = rng.choice(long)
    end = rng.randrange(1, shape[dim])
    first = random_type(rng, mesh, (*shape[:dim], end, *shape[dim + 1 :]), dtype, partial=False)
    dims: list[list[Any]] = [list(factors) for factors in first.dims]
    used = [d for factors in (*dims[:dim], *dims[dim + 1 :]) for d in factors]
    rest = (*shape[:dim], shape[dim] - end, *shape[dim + 1 :])
    dims[dim] = []
    free = [n for n, k in mesh.axes if k > 1 and not any(getattr(d, "axis", "") == n for d in used)]
    for name in free:
        if rest[dim] % mesh.axis_size(name) == 0 and rng.random() < 0.7:
            dims[dim] = [name]
            break
    try:
        return SegmentedType((first, ArrayType(mesh, dtype, rest, dims)), dim)
    except LayoutError:
        return random_type(rng, mesh, shape, dtype, partial=partial)


@dataclass
class Case:
    """A move, its source arrays, and what the targets are by numpy."""

    plan: ModelPlan
    arrays: dict[str, np.ndarray[Any, Any]]
    meant: dict[str, np.ndarray[Any, Any]]


def random_case(
    seed: int,
    targets: int = 2,
    depth: int = 3,
    ranks: int = 20,
    *,
    meshes: int = 2,
    uneven: bool = False,
) -> Case:
    """A random move between at most so many meshes a side, with device ids below `ranks`.

    With `uneven`, many types are.
    """
    rng = random.Random(seed)
    maps = RandomMaps(rng)
    made: dict[str, tuple[Expression | None, tuple[int, ...], str]] = {}
    for n in range(rng.randint(1, targets)):
        expression, shape, dtype = maps.expression(rng.randint(0, depth))
        made[f"t{n}"] = (expression, shape, dtype)
    weights = WeightMap({name: e for name, (e, _, _) in made.items() if e is not None})
    each = min(8 if ranks <= 20 else 16, ranks // 2)
    counts = (1, *range(1, meshes + 1))
    shifts = (0, 0, min(3, ranks - each))
    before = [random_mesh(rng, rng.choice(shifts), each) for _ in range(rng.choice(counts))]
    apart = rng.random() < 0.4
    if apart and ranks < 20:
        before = [random_mesh(rng, 0, each) for _ in before]
    after = [
        random_mesh(rng, ranks - each if apart else rng.choice(shifts), each)
        for _ in range(rng.choice(counts))
    ]
    if rng.random() < 0.2:
        after = before
    src = {
        name: random_any_type(rng, rng.choice(before), shape, dtype, partial=True, uneven=uneven)
        for name, (shape, dtype) in maps.shapes.items()
    }
    if rng.random() < 0.3:
        name = rng.choice(sorted(maps.shapes))
        made[name] = (None, *maps.shapes[name])
    dst = {
        name: random_any_type(
            rng, rng.choice(after), shape, dtype, partial=rng.random() < 0.2, uneven=uneven
        )
        for name, (_, shape, dtype) in made.items()
    }
    values = np.random.default_rng(seed)
    arrays = {
        name: values.integers(-3, 4, shape).astype(numpy_dtype(dtype))
        for name, (shape, dtype) in maps.shapes.items()
    }
    plan = plan_model(
        src,
        dst,
        weights=weights,
        keep_sources=rng.random() < 0.5,
        least_part=rng.choice((1, 1 << 16)),
    )
    meant = {**arrays, **weights(arrays)}
    return Case(plan, arrays, {name: meant[name] for name in dst})


__all__ = ["Case", "WeightMapError", "random_case"]
