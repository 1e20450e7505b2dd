"""The numpy functions that a trace follows, on traced arrays (redistrib.models.tracing).

Each does what numpy's function of that name does, in terms of the methods of a traced array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from string import ascii_lowercase
from typing import Any, NoReturn

import numpy as np

from redistrib.errors import WeightMapError
from redistrib.models.expression import Concat, Pad, Stack
from redistrib.models.pattern import Group
from redistrib.text import is_kind

Traced = Any
"""A traced array."""


def axis_of(axis: int, rank: int) -> int:
    """The number of an axis that may be counted from the end. Raises ValueError, as numpy does."""
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of bounds for array of dimension {rank}")
    return axis % rank


def letters(count: int) -> list[str]:
    """Names for so many dimensions in a pattern."""
    return [ascii_lowercase[n] if n < 26 else f"d{n}" for n in range(count)]


def refuse(operation: str) -> NoReturn:
    """Raise WeightMapError for what does not only move elements."""
    raise WeightMapError(
        f"a weight map moves elements and casts them; the loading function uses {operation}, "
        f"which a trace cannot follow",
        operation=operation,
    )


def methodcaller_of(name: str) -> Callable[..., Traced]:
    """A function that calls the method of its name."""
    return lambda array, *args, **options: getattr(array, name)(*args, **options)


def traced(arrays: Sequence[Any]) -> list[Traced]:
    """The arrays, if all of them are traced. Raises WeightMapError."""
    if is_kind(arrays, Sequence) and not arrays:
        raise ValueError("need at least one array")
    for array in arrays:
        if not hasattr(array, "made_by"):
            refuse(f"a {type(array).__name__} of its own as part of a target")
    return list(arrays)


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Traced:
    """np.concatenate."""
    parts = traced(arrays)
    if axis is None:
        parts, axis = [part.ravel() for part in parts], 0
    place = axis_of(axis, parts[0].ndim)
    expression = Concat(place, tuple(part.expression for part in parts))
    return parts[0].made_by(expression)


def stack(arrays: Sequence[Any], axis: int = 0) -> Traced:
    """np.stack."""
    parts = traced(arrays)
    place = axis_of(axis, parts[0].ndim + 1)
    return parts[0].made_by(Stack(place, tuple(part.expression for part in parts)))


def vstack(arrays: Sequence[Any]) -> Traced:
    """np.vstack."""
    return concatenate([a if a.ndim > 1 else a.reshape(1, -1) for a in traced(arrays)], 0)


def hstack(arrays: Sequence[Any]) -> Traced:
    """np.hstack."""
    return concatenate(arrays, 0 if traced(arrays)[0].ndim == 1 else 1)


def array_split(array: Traced, parts: Any, axis: int = 0) -> list[Traced]:
    """np.array_split."""
    place = axis_of(axis, array.ndim)
    size = array.shape[place]
    if isinstance(parts, int | np.integer):
        length, longer = divmod(size, int(parts))
        sizes = [length + 1] * longer + [length] * (int(parts) - longer)
        cuts = [0, *np.cumsum(sizes).tolist()]
    else:
        cuts = [0, *parts, size]
    before = (slice(None),) * place
    return [array[(*before, slice(a, b))] for a, b in pairwise(cuts)]


def split(array: Traced, parts: Any, axis: int = 0) -> list[Traced]:
    """np.split."""
    is_count = isinstance(parts, int | np.integer)
    if is_count and parts < 1:
        raise ValueError("number sections must be larger than 0.")
    if is_count and array.shape[axis_of(axis, array.ndim)] % parts:
        raise ValueError("array split does not result in an equal division")
    return array_split(array, parts, axis)


def expand_dims(array: Traced, axis: int) -> Traced:
    """np.expand_dims."""
    place = axis_of(axis, array.ndim + 1)
    names = [(name,) for name in letters(array.ndim)]
    after: list[Group] = [*names[:place], (), *names[place:]]
    return array.rearranged(names, after, {})


def moveaxis(array: Traced, source: int, destination: int) -> Traced:
    """np.moveaxis, of one axis."""
    order = [d for d in range(array.ndim) if d != axis_of(source, array.ndim)]
    order.insert(axis_of(destination, array.ndim), axis_of(source, array.ndim))
    return array.transpose(order)


def tile(array: Traced, repeats: Any) -> Traced:
    """np.tile."""
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    counts = [1] * (array.ndim - len(counts)) + counts
    for _ in range(len(counts) - array.ndim):
        array = expand_dims(array, 0)
    for dim, count in enumerate(counts):
        if count != 1:
            names = letters(array.ndim + 1)
            before: list[Group] = [(name,) for name in names[:-1]]
            after = [*before]
            after[dim] = (names[-1], names[dim])
            array = array.rearranged(before, after, {names[-1]: count})
    return array


def pad(array: Traced, widths: Any, mode: str = "constant", **options: Any) -> Traced:
    """np.pad, with zeros at the end of dimensions."""
    if mode != "constant" or any(np.any(value) for value in options.values()):
        refuse("np.pad with anything but zeros")
    pairs = np.broadcast_to(np.asarray(widths), (array.ndim, 2)).tolist()
    if any(before for before, _ in pairs):
        refuse("np.pad before the start of a dimension")
    for dim, (_, after) in enumerate(pairs):
        if after:
            expression = Pad(array.expression, dim, array.shape[dim] + after)
            array = array.made_by(expression)
    return array


FUNCTIONS: Mapping[Any, Callable[..., Any]] = {
    np.concatenate: concatenate,
    np.stack: stack,
    np.vstack: vstack,
    np.hstack: hstack,
    np.split: split,
    np.array_split: array_split,
    np.expand_dims: expand_dims,
    np.moveaxis: moveaxis,
    np.tile: tile,
    np.pad: pad,
    **{
        getattr(np, name): methodcaller_of(name)
        for name in ("reshape", "transpose", "swapaxes", "squeeze", "ravel", "repeat", "copy")
    },
    np.shape: lambda array: array.shape,
    np.ndim: lambda array: array.ndim,
    np.size: lambda array: array.size,
}
"""The numpy functions that a trace follows; any other is refused by name."""
