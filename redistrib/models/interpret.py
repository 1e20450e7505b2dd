"""What an expression makes of arrays of any kind.

`interpret` walks an expression and checks what it is given, once for all kinds of array:
numpy arrays give its meaning (`NumpyArrays`), shapes alone its shape and dtype (`Shapes`), atoms
its normal form (`redistrib.models.atoms`).

    concat(0, q, k)  with q of shape (4, 8) and k of (2, 8)  calls  concat(0, [q, k])
    q[{i}, 2:]       with {"i": 1}                          calls  index(q, [1:2, 2:8], dropped=[0])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import WeightMapError
from redistrib.models.expression import (
    Cast,
    Concat,
    Expression,
    Index,
    Pad,
    Rearrange,
    Source,
    Span,
    Stack,
)
from redistrib.models.names import Binding, Number, number
from redistrib.models.pattern import Regrouping
from redistrib.text import brief, is_kind
from redistrib.types.canonical import as_shape
from redistrib.types.dtypes import dtype_name, numpy_dtype


class Shaped(Protocol):
    """Whatever has a shape and the short name of a dtype."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the dimensions."""

    @property
    def dtype(self) -> Any:
        """The dtype."""


A = TypeVar("A", bound=Shaped)


class Arrays(Protocol[A]):
    """What `interpret` needs of a kind of array. Arguments are checked before these are called."""

    def dtype_of(self, array: A) -> str:
        """The short name of an array's dtype."""

    def index(self, array: A, spans: Sequence[range], dropped: Sequence[int]) -> A:
        """The indices of `spans`, a range per dimension; `dropped` dimensions, of one, go."""

    def concat(self, dim: int, parts: Sequence[A]) -> A:
        """The parts one after the other."""

    def stack(self, dim: int, parts: Sequence[A]) -> A:
        """The parts along a new dimension."""

    def rearrange(self, array: A, regrouping: Regrouping) -> A:
        """The array split, transposed, repeated and merged."""

    def pad(self, array: A, dim: int, size: int) -> A:
        """The array with zeros up to a size."""

    def cast(self, array: A, dtype: str) -> A:
        """The array in a dtype given by its short name."""


def interpret(
    expression: Expression, get: Callable[[str], A], arrays: Arrays[A], binding: Binding
) -> A:
    """What an expression makes of arrays of any kind.

    `get` gives a source array by name. Raises WeightMapError, with the line and column where these
    are known, for what does not fit: an index out of range, parts of unequal shapes or dtypes, a
    pattern that does not fit a shape, a size that is too small.
    """
    try:
        return _interpret(expression, get, arrays, binding)
    except WeightMapError as error:
        raise located(error, expression) from error.__cause__


def located(error: WeightMapError, node: Expression) -> WeightMapError:
    """The error, with the position of a node, unless it has one or there is none."""
    if node.position is None or "line" in vars(error):
        return error
    line, column = node.position
    return WeightMapError(
        f"line {line}, column {column}: {error}", **vars(error), line=line, column=column
    )


def _interpret(node: Expression, get: Callable[[str], A], arrays: Arrays[A], binding: Binding) -> A:
    def inner(part: Expression, also: Binding = binding) -> A:
        return interpret(part, get, arrays, also)

    match node:
        case Source(name=name):
            return get(name.text(binding))
        case Index(array=array, entries=entries):
            value = inner(array)
            return arrays.index(value, *spans(entries, value.shape, binding))
        case Concat(dim=dim, parts=parts):
            values = [inner(part) for part in parts]
            place = _dim(dim, len(values[0].shape), "concat")
            others = [(*v.shape[:place], *v.shape[place + 1 :]) for v in values]
            _require_equal(
                "the parts of a concat agree in all but its dimension",
                others,
                [v.shape for v in values],
            )
            _require_one_dtype("concat", values, arrays)
            return arrays.concat(place, values)
        case Stack(dim=dim, parts=parts, over=over):
            if over is None:
                values = [inner(part) for part in parts]
            else:
                steps = range(over.start, over.stop)
                values = [inner(parts[0], {**binding, over.placeholder: n}) for n in steps]
            if not values:
                raise WeightMapError(f"a stack has at least one part; got none from {over}")
            shapes = [v.shape for v in values]
            _require_equal("the parts of a stack have one shape", shapes, shapes)
            _require_one_dtype("stack", values, arrays)
            return arrays.stack(_dim(dim, len(shapes[0]) + 1, "stack"), values)
        case Rearrange(array=array, pattern=pattern, sizes=sizes):
            value = inner(array)
            known = {name: number(size, binding) for name, size in sizes}
            return arrays.rearrange(value, pattern.fit(value.shape, known))
        case Pad(array=array, dim=dim, size=size):
            value, wanted = inner(array), number(size, binding)
            place = _dim(dim, len(value.shape), "pad")
            if wanted < value.shape[place]:
                raise WeightMapError(
                    f"pad makes a dimension larger; dimension {place} of {list(value.shape)} "
                    f"has {value.shape[place]}, got the size {wanted}",
                    size=wanted,
                )
            return arrays.pad(value, place, wanted)
        case Cast(array=array, dtype=dtype):
            value = inner(array)
            before = arrays.dtype_of(value)
            if before.startswith("c") and not dtype.startswith("c"):
                raise WeightMapError(f"a cast keeps imaginary parts; got {before} to {dtype}")
            return arrays.cast(value, dtype)
        case _:
            assert_never(node)


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape and the short name of a dtype: an array without elements."""

    shape: tuple[int, ...]
    dtype: str


def shapes_of(pairs: Mapping[str, tuple[Sequence[int], object]]) -> dict[str, Shape]:
    """Shape and dtype of arrays by name, from (shape, dtype) pairs.

    Raises WeightMapError unless each name has a (shape, dtype) pair, and LayoutError for what is
    no shape or no dtype.
    """
    rule = "shapes are a mapping from names to (shape, dtype) pairs"
    if not isinstance(pairs, Mapping):
        raise WeightMapError(f"{rule}; got {brief(pairs)}", shapes=pairs)
    shapes = {}
    for name, pair in pairs.items():
        if not is_kind(name, str) or not is_kind(pair, tuple | list) or len(pair) != 2:
            raise WeightMapError(f"{rule}; got {brief(pair)} for {brief(name)}", name=name)
        shapes[name] = Shape(as_shape(pair[0]), dtype_name(pair[1]))
    return shapes


class Shapes:
    """The kind of array that is a shape alone."""

    def dtype_of(self, array: Shape) -> str:
        return array.dtype

    def index(self, array: Shape, spans: Sequence[range], dropped: Sequence[int]) -> Shape:
        kept = tuple(len(span) for dim, span in enumerate(spans) if dim not in dropped)
        return Shape(kept, array.dtype)

    def concat(self, dim: int, parts: Sequence[Shape]) -> Shape:
        shape = list(parts[0].shape)
        shape[dim] = sum(part.shape[dim] for part in parts)
        return Shape(tuple(shape), parts[0].dtype)

    def stack(self, dim: int, parts: Sequence[Shape]) -> Shape:
        shape = parts[0].shape
        return Shape((*shape[:dim], len(parts), *shape[dim:]), parts[0].dtype)

    def rearrange(self, array: Shape, regrouping: Regrouping) -> Shape:
        return Shape(regrouping.shape, array.dtype)

    def pad(self, array: Shape, dim: int, size: int) -> Shape:
        return Shape((*array.shape[:dim], size, *array.shape[dim + 1 :]), array.dtype)

    def cast(self, array: Shape, dtype: str) -> Shape:
        return Shape(array.shape, dtype)


class NumpyArrays:
    """Numpy arrays: the meaning of an expression."""

    def dtype_of(self, array: NDArray[Any]) -> str:
        return dtype_name(array.dtype)

    def index(
        self, array: NDArray[Any], spans: Sequence[range], dropped: Sequence[int]
    ) -> NDArray[Any]:
        slices = tuple(
            span.start if dim in dropped else slice(span.start, span.stop, span.step)
            for dim, span in enumerate(spans)
        )
        return np.asarray(array[slices])

    def concat(self, dim: int, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(parts, axis=dim)

    def stack(self, dim: int, parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.stack(parts, axis=dim)

    def rearrange(self, array: NDArray[Any], regrouping: Regrouping) -> NDArray[Any]:
        digits = array.reshape(regrouping.digits).transpose(regrouping.order)
        for place, size in regrouping.repeats:
            digits = np.repeat(np.expand_dims(digits, place), size, axis=place)
        return digits.reshape(regrouping.shape)

    def pad(self, array: NDArray[Any], dim: int, size: int) -> NDArray[Any]:
        more = list(array.shape)
        more[dim] = size - more[dim]
        return np.concatenate([array, np.zeros(more, array.dtype)], axis=dim)

    def cast(self, array: NDArray[Any], dtype: str) -> NDArray[Any]:
        return array.astype(numpy_dtype(dtype))


def spans(
    entries: Sequence[Number | Span], shape: tuple[int, ...], binding: Binding
) -> tuple[list[range], list[int]]:
    """The range of indices in each dimension of a shape, and the dimensions that are dropped."""
    if len(entries) > len(shape):
        raise WeightMapError(
            f"an index has at most one entry per dimension; got {len(entries)} for {list(shape)}",
            shape=shape,
        )
    ranges, dropped = [], []
    for dim, n in enumerate(shape):
        entry = entries[dim] if dim < len(entries) else Span()
        if isinstance(entry, Span):
            start, stop = (
                default if bound is None else _from_end(number(bound, binding), n)
                for bound, default in ((entry.start, 0), (entry.stop, n))
            )
            if not 0 <= start <= stop <= n:
                raise WeightMapError(
                    f"a slice start:stop is within its dimension; dimension {dim} of {list(shape)} "
                    f"has {n}, got {entry}, which is {start}:{stop}",
                    shape=shape,
                )
            ranges.append(range(start, stop, entry.step))
        else:
            index = _from_end(number(entry, binding), n)
            if not 0 <= index < n:
                raise WeightMapError(
                    f"an index is below the size of its dimension; dimension {dim} of "
                    f"{list(shape)} has {n}, got {number(entry, binding)}",
                    shape=shape,
                )
            ranges.append(range(index, index + 1))
            dropped.append(dim)
    return ranges, dropped


def _from_end(bound: int, size: int) -> int:
    return bound + size if bound < 0 else bound


def _dim(dim: int, rank: int, operation: str) -> int:
    if not -rank <= dim < rank:
        raise WeightMapError(
            f"the dimension of a {operation} is below the rank, {rank}; got {dim}", dim=dim
        )
    return dim % rank


def _require_equal(rule: str, keys: Sequence[object], shapes: Sequence[Sequence[int]]) -> None:
    for n, key in enumerate(keys):
        if key != keys[0]:
            raise WeightMapError(
                f"{rule}; part 0 has the shape {list(shapes[0])}, part {n} {list(shapes[n])}"
            )


def _require_one_dtype(operation: str, values: Sequence[A], arrays: Arrays[A]) -> None:
    names = [arrays.dtype_of(value) for value in values]
    if len(set(names)) > 1:
        raise WeightMapError(
            f"the parts of a {operation} have one dtype; got {', '.join(names)}; a change of dtype "
            f"needs a cast",
            dtypes=names,
        )
