"""The problems that a certificate covers, with names for the sizes that are arbitrary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import lcm, prod

from redistrib.checker.certificate.views import View
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, inside, is_chain
from redistrib.types.mesh import Mesh
from redistrib.types.notation import format_factor


def family(src: ArrayType, dst: ArrayType, views: Sequence[View]) -> str:
    """The ends of a plan, with names for the sizes that are arbitrary.

    Where the digits of a dimension are not nested over all steps, only what trails is arbitrary.
    """
    names = _names(src.mesh)
    used: list[str] = []
    dims: list[list[str]] = [[], []]
    for dim in range(len(src.shape)):
        sizes = _sizes(dim, src, dst, views, names)
        dimension = [*sizes.values(), next(names)]  # the last one trails
        used += [size for size in dimension if not size.isdecimal()]
        for t, texts in zip((src, dst), dims, strict=True):
            texts.append(_product(dimension) + _factors(t, dim, sizes))
    ends = []
    for t, texts in zip((src, dst), dims, strict=True):
        partial = ",".join(format_factor(d, t.mesh) for d in t.partial)
        tail = f" {t.reduction}{{{partial}}}" if partial else ""
        ends.append(f"{t.dtype}[{', '.join(texts)}]{tail}")
    sizes_text = f"for all sizes {', '.join(used)}: " if used else ""
    return f"{sizes_text}{ends[0]} -> {ends[1]} on {src.mesh}"


def _sizes(
    dim: int, src: ArrayType, dst: ArrayType, views: Sequence[View], names: Iterator[str]
) -> dict[IndexDigit, str]:
    """The digits of a dimension, minor first: a number for those that someone owns, else a name."""
    owned = {i for view in views for i in view.fixed if i.dim == dim and i.size > 1}
    owned |= {i for t in (src, dst) for _, i in t.placements if i.dim == dim}
    cuts = sorted({1, *(end for i in owned for end in (i.pre, i.end))})
    sizes: dict[IndexDigit, str] = {}
    for low, high in pairwise(cuts if is_chain(cuts) else (1, lcm(*cuts))):
        digit = IndexDigit(dim, low, high // low)
        fixed = not is_chain(cuts) or any(inside(digit, i) for i in owned)
        sizes[digit] = str(digit.size) if fixed else next(names)
    return sizes


def _factors(t: ArrayType, dim: int, sizes: Mapping[IndexDigit, str]) -> str:
    """The factors of a dimension of a type in braces, local ones by the sizes inside them."""
    factors, pre = [], 1
    for factor in t.dims[dim]:
        part = IndexDigit(dim, pre, factor.size)
        inner = [size for digit, size in sizes.items() if inside(digit, part)]
        if isinstance(factor, DeviceDigit) or not inner:
            factors.append(format_factor(factor, t.mesh))
        else:
            factors.append(f"_{_product(inner)}")
        pre = part.end
    return f"{{{','.join(factors)}}}" if factors else ""


def _names(mesh: Mesh) -> Iterator[str]:
    """Names of sizes: letters, then n22, n23, ..., without the names of axes."""
    letters = "abcdefghijklmnopqrstuvw"
    number = 0
    while True:
        name = letters[number] if number < len(letters) else f"n{number}"
        if name not in mesh.sizes:
            yield name
        number += 1


def _product(sizes: Sequence[str]) -> str:
    """A product of numbers and names, the number first.

    >>> _product(["2", "a", "4", "b"]), _product([])
    ('8*a*b', '1')
    """
    number = prod(int(size) for size in sizes if size.isdecimal())
    named = [size for size in sizes if not size.isdecimal()]
    return "*".join(([str(number)] if number > 1 or not named else []) + named)
