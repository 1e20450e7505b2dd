"""Weight maps from a program's own loading function.

    def load(get):
        q, k, v = np.split(get("attn.qkv"), 3)
        return {"wq": q.T, "wk": k.T, "wv": v.T}

`trace(load, {"attn.qkv": ((12, 4), "f32")})` calls it with arrays that have a shape and a dtype but
no elements, and records what is done with them:

    wq = rearrange(attn.qkv[0:4], "a b -> b a")

What moves elements is recorded: slices, reshapes, transposes, concatenations, stacks, repeats,
zeros at the end, casts. Anything else, such as arithmetic, is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import pairwise
from math import prod
from typing import Any, NoReturn

import numpy as np

from redistrib.errors import LayoutError, WeightMapError
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
from redistrib.models.interpret import Shape, Shapes, interpret
from redistrib.models.names import Name
from redistrib.models.pattern import Group, Pattern
from redistrib.models.rule import Rule
from redistrib.models.weight_map import WeightMap
from redistrib.types.dtypes import dtype_name, numpy_dtype

Get = Callable[[str], "TracedArray"]


def trace(
    load: Callable[[Get], Mapping[str, Any]],
    shapes: Mapping[str, tuple[tuple[int, ...], object]],
) -> WeightMap:
    """The weight map that a loading function follows.

    `load` takes a function that gives a source array by name, and returns the targets by name.
    `shapes` has the shape and the dtype of every source. The rules of the map are in the order of
    the targets, one each, without placeholders. Raises WeightMapError for what cannot be followed.

    >>> print(trace(lambda get: {"t": get("a").T.reshape(2, -1)}, {"a": ((3, 4), "f32")}))
    t = rearrange(rearrange(rearrange(a, "a b -> b a"), "a b -> (a b)"), "(a b) -> a b", a=2, b=6)
    """
    known = {
        name: Shape(tuple(shape), dtype_name(dtype)) for name, (shape, dtype) in shapes.items()
    }

    def get(name: str) -> TracedArray:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            raise WeightMapError(
                f"the loading function asks for {name!r}, which is no source"
                + (f"; did it mean {near[0]!r}?" if near else ""),
                name=name,
            )
        return TracedArray(Source(_plain_name(name)), known)

    rules = []
    for name, made in load(get).items():
        if not isinstance(made, TracedArray):
            raise WeightMapError(
                f"a target is made of sources; {name!r} is {type(made).__name__}", name=name
            )
        rules.append(Rule(_plain_name(name), made.expression))
    return WeightMap(rules)


def _plain_name(name: str) -> Name:
    return Name((name,))


class TracedArray:
    """An array without elements that records what is done with it, as an expression."""

    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expression: Expression, sources: Mapping[str, Shape]) -> None:
        self.expression = expression
        self._sources = sources
        found = interpret(expression, sources.__getitem__, Shapes(), {})
        self.shape = found.shape
        self._dtype = found.dtype

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype."""
        return numpy_dtype(self._dtype)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the elements would take."""
        return self.size * self.dtype.itemsize

    @property
    def T(self) -> TracedArray:  # noqa: N802
        """The array with its dimensions reversed."""
        return self.transpose()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> Iterator[TracedArray]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, index: Any) -> TracedArray:
        entries = list(index) if isinstance(index, tuple) else [index]
        if (count := sum(entry is Ellipsis for entry in entries)) > 1:
            raise IndexError("an index can only have a single ellipsis ('...')")
        taken = sum(entry is not None and entry is not Ellipsis for entry in entries)
        if count:
            place = next(n for n, entry in enumerate(entries) if entry is Ellipsis)
            entries[place : place + 1] = [slice(None)] * (self.ndim - taken)
        kept = [entry for entry in entries if entry is not None]
        if len(kept) > self.ndim:
            raise IndexError(f"too many indices for an array of rank {self.ndim}; got {len(kept)}")
        spans = [_entry(entry, n) for entry, n in zip(kept, self.shape, strict=False)]
        whole = all(span == Span(0, n) for span, n in zip(spans, self.shape, strict=False))
        result = self if whole else self._with(Index(self.expression, tuple(spans)))
        place = 0  # of the result's next dimension
        for entry in entries:
            if entry is None:
                result = expand_dims(result, place)
            place += entry is None or isinstance(entry, slice)
        return result

    def reshape(self, *shape: Any, order: str = "C") -> TracedArray:
        """The elements in row-major order under another shape."""
        if order != "C":
            _refuse(f"reshape in order {order!r}")
        sizes = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        if -1 in sizes:
            rest = prod(n for n in sizes if n != -1)
            if sizes.count(-1) > 1 or not rest or self.size % rest:
                raise ValueError(f"cannot reshape array of size {self.size} into shape {sizes}")
            sizes[sizes.index(-1)] = self.size // rest
        if prod(sizes) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {sizes}")
        return self._reshaped(tuple(int(n) for n in sizes))

    def transpose(self, *axes: Any) -> TracedArray:
        """The array with its dimensions in another order; reversed without one."""
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = [*range(self.ndim)][::-1] if not given else [_axis(a, self.ndim) for a in given]
        if sorted(order) != [*range(self.ndim)]:
            raise ValueError("axes don't match array")
        if order == sorted(order):
            return self
        names = _names(self.ndim)
        return self._rearranged([(n,) for n in names], [(names[d],) for d in order], {})

    def swapaxes(self, first: int, second: int) -> TracedArray:
        """The array with two dimensions exchanged."""
        order = list(range(self.ndim))
        a, b = _axis(first, self.ndim), _axis(second, self.ndim)
        order[a], order[b] = order[b], order[a]
        return self.transpose(order)

    def squeeze(self, axis: Any = None) -> TracedArray:
        """The array without dimensions of size 1."""
        if axis is None:
            dims = {dim for dim, n in enumerate(self.shape) if n == 1}
        else:
            dims = {_axis(a, self.ndim) for a in (axis if isinstance(axis, tuple) else (axis,))}
        if any(self.shape[dim] != 1 for dim in dims):
            raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
        return self._reshaped(tuple(n for dim, n in enumerate(self.shape) if dim not in dims))

    def ravel(self, order: str = "C") -> TracedArray:
        """The elements in row-major order, in one dimension."""
        return self.reshape(-1, order=order) if self.size else self._reshaped((0,))

    flatten = ravel

    def astype(self, dtype: object, **_: object) -> TracedArray:
        """The array in another dtype."""
        try:  # as numpy reads it, to which i8 is a number of eight bytes
            name = dtype_name(np.dtype(dtype))  # type: ignore[call-overload]
        except TypeError:
            name = dtype_name(dtype)
        except LayoutError as error:
            raise WeightMapError(str(error), dtype=dtype) from error
        return self if name == self._dtype else self._with(Cast(self.expression, name))

    def repeat(self, repeats: int, axis: int | None = None) -> TracedArray:
        """Each slice of a dimension that many times, one after the other."""
        if not isinstance(repeats, int | np.integer):
            _refuse("repeat with a number for each element")
        if axis is None:
            return self.ravel().repeat(repeats, 0)
        place, names = _axis(axis, self.ndim), _names(self.ndim + 1)
        before: list[Group] = [(n,) for n in names[:-1]]
        after = [*before]
        after[place] = (names[place], names[-1])
        return self._rearranged(before, after, {names[-1]: int(repeats)})

    def copy(self, order: str = "C") -> TracedArray:
        """The array."""
        del order
        return self

    def view(self, *_: object) -> NoReturn:
        """Refused: the bytes of elements are not moved apart."""
        _refuse("view")

    def __array__(self, *_: object, **__: object) -> NoReturn:
        _refuse("np.asarray, or assigning to a part of a numpy array: it needs the elements")

    def __array_ufunc__(self, ufunc: Any, *_: object, **__: object) -> NoReturn:
        _refuse(f"np.{ufunc.__name__}")

    def __array_function__(
        self, function: Any, types: Any, args: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        known = FUNCTIONS.get(function)
        if known is None:
            _refuse(f"np.{function.__name__}")
        return known(*args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(name)
        return _refuse(f"ndarray.{name}")

    def _arithmetic(self, *_: object) -> NoReturn:
        _refuse("arithmetic")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _arithmetic
    __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _arithmetic
    __iadd__ = __isub__ = __imul__ = __itruediv__ = __abs__ = _arithmetic
    __lt__ = __le__ = __gt__ = __ge__ = _arithmetic

    def __eq__(self, other: object) -> bool:
        _refuse("a comparison of elements")

    def __ne__(self, other: object) -> bool:
        _refuse("a comparison of elements")

    def __bool__(self) -> NoReturn:  # noqa: PLE0304
        _refuse("a test of elements")

    def __setitem__(self, index: object, value: object) -> None:
        _refuse("assigning to a part of a source")

    def _with(self, expression: Expression) -> TracedArray:
        return TracedArray(expression, self._sources)

    def _rearranged(
        self, before: Sequence[Group], after: Sequence[Group], sizes: dict[str, int]
    ) -> TracedArray:
        pattern = Pattern(tuple(before), tuple(after))
        return self._with(Rearrange(self.expression, pattern, tuple(sizes.items())))

    def _reshaped(self, shape: tuple[int, ...]) -> TracedArray:
        """Dimensions merged until both shapes have the same, then split."""
        runs = _common_runs(self.shape, shape)
        names = iter(_names(len(self.shape) + len(shape)))
        result = self
        if any(len(old) > 1 for old, _ in runs):
            before = [[(next(names),) for _ in old] for old, _ in runs]
            merged = [tuple(name for (name,) in group) for group in before]
            result = result._rearranged([n for group in before for n in group], merged, {})
        elif any(not old for old, _ in runs):
            before = [[(next(names),) for _ in old] for old, _ in runs]
            after = [group[0] if group else () for group in before]
            result = result._rearranged([n for group in before for n in group], after, {})  # noqa: SLF001
        if any(len(new) != 1 for _, new in runs):
            names = iter(_names(len(shape) + len(runs)))
            split = [[(next(names), n) for n in new] for _, new in runs]
            sizes = {name: n for group in split if len(group) > 1 for name, n in group}
            left = [tuple(name for name, _ in group) for group in split]
            right = [(name,) for group in split for name, _ in group]
            result = result._rearranged(left, right, sizes)  # noqa: SLF001
        return result


def _common_runs(
    before: tuple[int, ...], after: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Two shapes of one size as runs of equal products, each as short as can be.

    >>> _common_runs((2, 3, 4), (6, 2, 2))
    [((2, 3), (6,)), ((4,), (2, 2))]
    """
    if 0 in before:
        return [(before, after)]
    runs = []
    old: list[int] = []
    new: list[int] = []
    left, right = list(before), list(after)
    while left or right:
        if left and (prod(old) <= prod(new) or not right):
            old.append(left.pop(0))
        else:
            new.append(right.pop(0))
        if old and new and prod(old) == prod(new):
            runs.append((tuple(old), tuple(new)))
            old, new = [], []
    if old or new:  # dimensions of size 1 at the end
        runs.append((tuple(old), tuple(new)))
    return runs


def _entry(entry: object, size: int) -> int | Span:
    if isinstance(entry, slice):
        start, stop, step = entry.indices(size)
        if step < 1:
            _refuse("a slice with a negative step")
        return Span(start, max(start, stop), step)
    if isinstance(entry, bool | np.bool_) or not isinstance(entry, int | np.integer):
        _refuse("an index that is no integer and no slice")
    number = int(entry)
    if not -size <= number < size:
        raise IndexError(f"index {number} is out of bounds for size {size}")
    return number % size


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of bounds for array of dimension {rank}")
    return axis % rank


def _names(count: int) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [letters[n] if n < len(letters) else f"d{n}" for n in range(count)]


def _refuse(what: str) -> NoReturn:
    raise WeightMapError(
        f"a weight map moves elements and casts them; the loading function uses {what}, which a "
        f"trace cannot follow",
        operation=what,
    )


def _traced(arrays: Sequence[Any]) -> list[TracedArray]:
    for array in arrays:
        if not isinstance(array, TracedArray):
            _refuse(f"a {type(array).__name__} of its own as part of a target")
    return list(arrays)


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> TracedArray:
    """np.concatenate."""
    parts = _traced(arrays)
    if axis is None:
        parts, axis = [part.ravel() for part in parts], 0
    place = _axis(axis, parts[0].ndim)
    expression = Concat(place, tuple(part.expression for part in parts))
    return parts[0]._with(expression)  # noqa: SLF001


def stack(arrays: Sequence[Any], axis: int = 0) -> TracedArray:
    """np.stack."""
    parts = _traced(arrays)
    place = _axis(axis, parts[0].ndim + 1)
    return parts[0]._with(Stack(place, tuple(part.expression for part in parts)))  # noqa: SLF001


def vstack(arrays: Sequence[Any]) -> TracedArray:
    """np.vstack."""
    return concatenate([a if a.ndim > 1 else a.reshape(1, -1) for a in _traced(arrays)], 0)


def hstack(arrays: Sequence[Any]) -> TracedArray:
    """np.hstack."""
    return concatenate(arrays, 0 if _traced(arrays)[0].ndim == 1 else 1)


def array_split(array: TracedArray, parts: Any, axis: int = 0) -> list[TracedArray]:
    """np.array_split."""
    place = _axis(axis, array.ndim)
    size = array.shape[place]
    if isinstance(parts, int | np.integer):
        each, more = divmod(size, int(parts))
        sizes = [each + 1] * more + [each] * (int(parts) - more)
        cuts = [0, *np.cumsum(sizes).tolist()]
    else:
        cuts = [0, *parts, size]
    before = (slice(None),) * place
    return [array[(*before, slice(a, b))] for a, b in pairwise(cuts)]


def split(array: TracedArray, parts: Any, axis: int = 0) -> list[TracedArray]:
    """np.split."""
    whole = isinstance(parts, int | np.integer)
    if whole and array.shape[_axis(axis, array.ndim)] % parts:
        raise ValueError("array split does not result in an equal division")
    return array_split(array, parts, axis)


def expand_dims(array: TracedArray, axis: int) -> TracedArray:
    """np.expand_dims."""
    place = _axis(axis, array.ndim + 1)
    names = [(name,) for name in _names(array.ndim)]
    after: list[Group] = [*names[:place], (), *names[place:]]
    return array._rearranged(names, after, {})  # noqa: SLF001


def moveaxis(array: TracedArray, source: int, destination: int) -> TracedArray:
    """np.moveaxis, of one axis."""
    order = [d for d in range(array.ndim) if d != _axis(source, array.ndim)]
    order.insert(_axis(destination, array.ndim), _axis(source, array.ndim))
    return array.transpose(order)


def tile(array: TracedArray, repeats: Any) -> TracedArray:
    """np.tile."""
    counts = [repeats] if isinstance(repeats, int) else list(repeats)
    counts = [1] * (array.ndim - len(counts)) + counts
    for _ in range(len(counts) - array.ndim):
        array = expand_dims(array, 0)
    for dim, count in enumerate(counts):
        if count != 1:
            names = _names(array.ndim + 1)
            before: list[Group] = [(name,) for name in names[:-1]]
            after = [*before]
            after[dim] = (names[-1], names[dim])
            array = array._rearranged(before, after, {names[-1]: count})  # noqa: SLF001
    return array


def pad(array: TracedArray, widths: Any, mode: str = "constant", **options: Any) -> TracedArray:
    """np.pad, with zeros at the end of dimensions."""
    if mode != "constant" or any(np.any(value) for value in options.values()):
        _refuse("np.pad with anything but zeros")
    pairs = np.broadcast_to(np.asarray(widths), (array.ndim, 2)).tolist()
    if any(before for before, _ in pairs):
        _refuse("np.pad before the start of a dimension")
    for dim, (_, after) in enumerate(pairs):
        if after:
            expression = Pad(array.expression, dim, array.shape[dim] + after)
            array = array._with(expression)  # noqa: SLF001
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
    np.reshape: TracedArray.reshape,
    np.transpose: TracedArray.transpose,
    np.swapaxes: TracedArray.swapaxes,
    np.squeeze: TracedArray.squeeze,
    np.ravel: TracedArray.ravel,
    np.repeat: TracedArray.repeat,
    np.copy: TracedArray.copy,
    np.shape: lambda array: array.shape,
    np.ndim: lambda array: array.ndim,
    np.size: lambda array: array.size,
}
"""The numpy functions that a trace follows; any other is refused by name."""
