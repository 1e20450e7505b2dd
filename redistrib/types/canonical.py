"""The canonical form of a layout, and the rules that a layout obeys.

Each meaning has one form on a mesh, so that `==` is equivalence. In this order: a dimension of size
0 drops its factors, and an array without elements its partial set; factors and partial axes of size
1 go; major-then-minor neighbours merge (`_a,_b` into `_ab`, parts of an axis likewise); a trailing
local factor goes; the partial set is in the order of the mesh. Then, per axis, what all dimensions
and the partial set use of it is disjoint, and the bounds of the parts form a divisibility chain.

>>> mesh = Mesh(x=4, y=1)
>>> factors = [as_factor(text, mesh) for text in ("_2", "_3", "y", "x:(1)2", "x:(2)2", "_5")]
>>> [str(factor) for factor in canonical_dim(factors, 120, mesh)]
['_6', 'x:(1)4']
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import pairwise
from math import prod
from typing import Any

from redistrib.errors import LayoutError
from redistrib.text import as_integer, brief, is_number
from redistrib.types.digits import (
    DeviceDigit,
    Factor,
    Local,
    coalesce,
    is_chain,
    parse_device_digit,
)
from redistrib.types.mesh import MAX_POSITIONS, Mesh
from redistrib.types.notation import format_factor, format_factors
from redistrib.types.reduction import REDUCTIONS
from redistrib.types.uneven import RULES, Rule, as_rule

MAX_SIZE = MAX_POSITIONS
"""Positions of a dimension: numpy counts them in 64 bits."""
MAX_ELEMENTS = 1 << 240
"""Elements of an array: prices are floats, which hold their bytes times any number of devices."""


def as_list(value: object, rule: str, *, ordered: bool = True) -> list[Any]:
    """The entries of a collection. Raises LayoutError for a text, and for a set if `ordered`."""
    if isinstance(value, (list, tuple)):
        return value if isinstance(value, list) else [*value]
    if not isinstance(value, (str, bytes, Mapping, *((Set,) if ordered else ()))):
        try:
            return [*value]  # type: ignore[misc]
        except TypeError:
            pass
    raise LayoutError(f"{rule}; got {brief(value)}", given=value)


def as_shape(shape: object) -> tuple[int, ...]:
    """The sizes of an array. Raises LayoutError unless they are whole numbers, none negative."""
    rule = "a shape is a list of whole numbers, the sizes of the dimensions"
    sizes: list[int] = []
    for entry in as_list(shape, rule):
        size = as_integer(entry)
        if size is None:
            raise LayoutError(f"{rule}; got {brief(entry)} in {brief(shape)}", shape=shape)
        if size < 0:
            raise LayoutError(f"dimensions are not negative; got {brief(shape)}", shape=shape)
        sizes.append(size)
    if max(sizes, default=0) > MAX_SIZE or prod(sizes) > MAX_ELEMENTS:
        raise LayoutError(
            f"a dimension has at most {MAX_SIZE} positions, and an array at most 2**240 elements; "
            f"got {brief(shape)}",
            shape=shape,
        )
    return tuple(sizes)


def as_dims(dims: object, rank: int, mesh: Mesh) -> list[list[Factor]]:
    """The factors of each dimension. Raises LayoutError unless there is a list for each."""
    rule = f"each of the {rank} dimensions has a list of factors"
    lists = as_list(dims, rule)
    if len(lists) != rank:
        raise LayoutError(f"{rule}; got {len(lists)} lists", rank=rank, dims=dims)
    return [[as_factor(factor, mesh) for factor in as_list(dim, rule)] for dim in lists]


def as_factor(factor: object, mesh: Mesh) -> Factor:
    """A factor given as one or as its text. Raises LayoutError for anything else."""
    if isinstance(factor, DeviceDigit):
        return as_device_digit(factor, mesh)
    if isinstance(factor, str) and factor[:1] == "_" and is_number(factor[1:]):
        factor = Local(int(factor[1:]))
    if isinstance(factor, Local):
        size = as_integer(factor.size)
        if size is None or size < 1:
            raise LayoutError(
                f"a local factor is positive; got {brief(factor.size)}", factor=brief(factor)
            )
        return factor if size is factor.size else Local(size)
    return as_device_digit(factor, mesh)


def as_device_digit(factor: object, mesh: Mesh) -> DeviceDigit:
    """A device digit given as one or as its text. Raises LayoutError for anything else."""
    if isinstance(factor, str):
        factor = parse_device_digit(factor, mesh.axis_size(factor.partition(":")[0]))
    if not isinstance(factor, DeviceDigit):
        raise LayoutError(
            f"a factor is an axis 'x', a part of one 'x:(m)k' or, in a dimension, a local factor "
            f"'_k'; got {brief(factor)}",
            factor=factor,
        )
    axis, pre, size = factor
    axis_size = mesh.axis_size(axis)
    if type(pre) is not int or type(size) is not int:
        pre, size = as_integer(pre) or 0, as_integer(size) or 0
        factor = DeviceDigit(axis, pre, size)
    if pre < 1 or size < 1 or axis_size % (pre * size):
        raise LayoutError(
            f"a sub-axis {axis}:(m)k needs m*k to divide the size of the axis, {axis_size}; "
            f"got {factor}",
            axis=axis,
            factor=str(factor),
        )
    return factor


def as_uneven(uneven: object, rank: int) -> dict[int, Rule]:
    """The rules of dimensions. Raises LayoutError unless it is a mapping from some of them."""
    rule = f"uneven maps dimensions, of {rank}, to rules: {RULES}"
    if not isinstance(uneven, Mapping):
        raise LayoutError(f"{rule}; got {brief(uneven)}", uneven=uneven)
    rules = {}
    for key, kind in uneven.items():
        dim = as_integer(key)
        if dim is None or not 0 <= dim < rank:
            raise LayoutError(f"{rule}; got the dimension {brief(key)}", uneven=uneven)
        rules[dim] = as_rule(kind)
    return {dim: rules[dim] for dim in sorted(rules)}


def as_reduction(reduction: object, *, partial: bool) -> str | None:
    """The reduction of a partial set, None where there is none. Raises LayoutError for others."""
    if not (isinstance(reduction, str) and reduction in REDUCTIONS):
        if reduction is not None or partial:
            raise LayoutError(
                f"a reduction is one of {', '.join(REDUCTIONS)}; got {brief(reduction)}",
                reduction=reduction,
            )
        return None
    return reduction if partial else None


def canonical_dim(factors: Sequence[Factor], n: int, mesh: Mesh) -> tuple[Factor, ...]:
    """The factors of a dimension of size n in canonical form. Raises LayoutError if uneven."""
    if not n or not factors:
        return ()
    split = prod([factor.size for factor in factors])
    if n % split:
        raise uneven(n, split, f"{n}{{{format_factors(factors, mesh)}}}")
    kept = [factor for factor in factors if factor.size > 1]
    merged = coalesce(kept) if len(kept) > 1 else kept
    if merged and isinstance(merged[-1], Local):
        merged.pop()
    return tuple(merged)


def canonical_partial(partial: Sequence[DeviceDigit], mesh: Mesh) -> tuple[DeviceDigit, ...]:
    """The partial set in canonical form."""
    if not partial:
        return ()
    order = {name: i for i, (name, _) in enumerate(mesh.axes)}
    kept = sorted((d for d in partial if d.size > 1), key=lambda d: (order[d.axis], d.pre))
    return tuple([d for d in coalesce(kept) if isinstance(d, DeviceDigit)])


def check_uses(
    dims: Iterable[Iterable[Factor]], partial: Iterable[DeviceDigit], mesh: Mesh
) -> None:
    """Raise LayoutError unless the parts used of each axis are disjoint and nested."""
    digits = [f for factors in (*dims, partial) for f in factors if isinstance(f, DeviceDigit)]
    used: dict[str, list[DeviceDigit]] = {digit.axis: [] for digit in digits}
    if len(used) == len(digits):
        return
    for digit in digits:
        used[digit.axis].append(digit)
    for axis, digits in used.items():
        if len(digits) == 1:
            continue
        digits.sort(key=lambda d: (d.pre, d.end))
        for a, b in pairwise(digits):
            if b.pre < a.end and (a.pre == b.pre or b.pre % a.pre == 0):
                raise LayoutError(
                    f"an axis is used once over all dimensions and the partial set; "
                    f"got {format_factor(a, mesh)} and {format_factor(b, mesh)}",
                    axis=axis,
                )
        bounds = sorted({1, mesh.axis_size(axis), *(b for d in digits for b in (d.pre, d.end))})
        if not is_chain(bounds):
            raise LayoutError(
                f"the sub-axes of an axis are nested: each bound divides the next; "
                f"got {format_factors(digits, mesh)} with bounds {bounds}",
                axis=axis,
            )


def uneven(size: int, product: int, text: str) -> LayoutError:
    """The error for a dimension that its factors, of this product, do not divide."""
    below, above = size // product * product, (size // product + 1) * product
    legal = f"sizes: {below} and {above}" if below else f"size: {above}"
    cut = text if text.endswith("}") else f"{size}{{x}}"
    return LayoutError(
        f"the factors of a dimension divide its size, unless a rule says how it is cut: write "
        f"{cut}:ceil (JAX, XLA), :balanced (numpy.array_split), :nested (torch.chunk, DTensor) or "
        f":sizes(...); got {text} with product {product}; nearest legal {legal}",
        size=size,
        product=product,
    )
