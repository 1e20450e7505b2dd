"""Random meshes, types and pairs of types; one source for hypothesis and for the seeded drivers.

Every function takes `choose`, which picks one item of a sequence: `random.Random(seed).choice`, or
a draw of hypothesis, so that a failing example shrinks towards the first items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations, product
from math import lcm, prod
from typing import Any

from redistrib import ArrayType, Mesh
from redistrib.errors import LayoutError

Choose = Callable[[Sequence[Any]], Any]

AXIS_SIZES = (2, 1, 3, 4, 5, 6, 8, 12)
MAX_DEVICES = 96
MAX_ELEMENTS = 1 << 16


def random_mesh(choose: Choose) -> Mesh:
    """A mesh of up to five axes and MAX_DEVICES devices."""
    sizes: list[int] = []
    for _ in range(choose((1, 2, 3, 4, 5))):
        size = choose(AXIS_SIZES)
        if prod(sizes) * size <= MAX_DEVICES:
            sizes.append(size)
    return Mesh({f"{name}": size for name, size in zip("xyzvw", sizes, strict=False)})


def random_layout(
    choose: Choose, mesh: Mesh, rank: int, partial: bool
) -> tuple[list[list[str]], list[str], list[int]]:
    """Factors per dimension, partial axes, and the product of the factors of each dimension."""
    digits = []
    for name, size in mesh.axes:
        parts = [p for p in range(1, size + 1) if size % p == 0]
        pre = choose(parts) if choose((False, False, True)) else 1
        if pre in (1, size):
            digits.append((name, size))
        else:
            digits += [(f"{name}:(1){pre}", pre), (f"{name}:({pre}){size // pre}", size // pre)]
    dims: list[list[str]] = [[] for _ in range(rank)]
    products = [1] * rank
    partials: list[str] = []
    for text, size in digits:
        place = choose(
            (*range(rank), "free", "free", "partial") if partial else (*range(rank), "free")
        )
        if place == "partial":
            partials.append(text)
        elif place != "free":
            at = choose(range(len(dims[place]) + 1))
            dims[place].insert(at, text)
            products[place] *= size
    for dim in range(rank):
        if choose((False, False, False, True)):
            k = choose((2, 3, 4, 6))
            dims[dim].insert(choose(range(len(dims[dim]) + 1)), f"_{k}")
            products[dim] *= k
    return dims, partials, products


def random_pair(choose: Choose, partial: bool = True) -> tuple[ArrayType, ArrayType]:
    """A source and a target type over one shape on one mesh, at most MAX_ELEMENTS elements."""
    while True:
        mesh = random_mesh(choose)
        rank = choose((1, 2, 3, 0, 4))
        src = random_layout(choose, mesh, rank, partial)
        dst = random_layout(choose, mesh, rank, partial)
        shape = [lcm(a, b) * choose((1, 1, 2, 3, 4)) for a, b in zip(src[2], dst[2], strict=True)]
        if rank and choose((False,) * 19 + (True,)):
            shape[choose(range(rank))] = 0
        if prod(shape) > MAX_ELEMENTS:
            continue
        dtype = choose(("f32", "i8", "f64", "i32"))
        kinds = ("sum", "max", "min") if partial else ("sum",)
        try:
            return (
                ArrayType(mesh, dtype, shape, src[0], src[1], choose(kinds)),
                ArrayType(mesh, dtype, shape, dst[0], dst[1], choose(kinds)),
            )
        except LayoutError:
            continue  # sub-axes of one axis that are not nested


def whole_axis_layouts(mesh: Mesh, shape: Sequence[int], dtype: str = "f32") -> Iterator[ArrayType]:
    """Every type that gives each axis, whole, to some dimension or to none, in every order."""
    names = [name for name, _ in mesh.axes]
    for places in product(range(-1, len(shape)), repeat=len(names)):
        groups = [
            [n for n, p in zip(names, places, strict=True) if p == d] for d in range(len(shape))
        ]
        for dims in product(*(list(permutations(group)) for group in groups)):
            try:
                yield ArrayType(mesh, dtype, shape, dims)
            except LayoutError:
                continue  # the axes do not divide the dimension


def partial_layouts(mesh: Mesh, shape: Sequence[int], dtype: str = "f32") -> Iterator[ArrayType]:
    """Every whole-axis layout with every set of its free axes as the axes of a partial sum."""
    for t in whole_axis_layouts(mesh, shape, dtype):
        free = [digit.axis for digit in t.free_digits]
        for chosen in product((False, True), repeat=len(free)):
            partial = [axis for axis, taken in zip(free, chosen, strict=True) if taken]
            yield ArrayType(mesh, dtype, shape, t.dims, partial)
