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
from math import prod
from typing import Any, NoReturn

import numpy as np

from redistrib.errors import LayoutError, WeightMapError
from redistrib.models.expression import (
    Cast,
    Expression,
    Index,
    Rearrange,
    Source,
    Span,
)
from redistrib.models.interpret import Shape, Shapes, interpret, shapes_of
from redistrib.models.names import Name
from redistrib.models.numpy_functions import FUNCTIONS, axis_of, expand_dims, letters, refuse
from redistrib.models.pattern import Group, Pattern
from redistrib.models.rule import Rule
from redistrib.models.weight_map import WeightMap
from redistrib.text import brief, is_kind
from redistrib.types.dtypes import dtype_name, numpy_dtype

Get = Callable[[str], "TracedArray"]


def trace(
    load: Callable[[Get], Mapping[str, Any]],
    shapes: Mapping[str, tuple[tuple[int, ...], object]],
) -> WeightMap:
    """The weight map that a loading function follows.

    `load` takes a function that gives a source array by name, and returns the targets by name.
    `shapes` has the shape and the dtype of every source. The rules of the map are in the order of
    the targets, one each, without placeholders. Raises WeightMapError for what cannot be followed;
    what the function raises itself, or numpy would raise in it, passes through.

    >>> print(trace(lambda get: {"t": get("a").T.reshape(2, -1)}, {"a": ((3, 4), "f32")}))
    t = rearrange(rearrange(rearrange(a, "a b -> b a"), "a b -> (a b)"), "(a b) -> a b", a=2, b=6)
    """
    known = shapes_of(shapes)
    if not callable(load):
        raise WeightMapError(f"a loading function is called with get; got {brief(load)}", load=load)

    def get(name: str) -> TracedArray:
        if not is_kind(name, str) or name not in known:
            near = get_close_matches(str(name), known, 1)
            raise WeightMapError(
                f"the loading function asks for {name!r}, which is no source"
                + (f"; did it mean {near[0]!r}?" if near else ""),
                name=name,
            )
        return TracedArray(Source(Name.literal(name)), known)

    rules = []
    targets = load(get)
    if not isinstance(targets, Mapping):
        raise WeightMapError(
            f"a loading function returns the targets by name; got {brief(targets)}", targets=targets
        )
    for name, value in targets.items():
        if not isinstance(value, TracedArray):
            raise WeightMapError(
                f"a target is made of sources; {name!r} is {type(value).__name__}", name=name
            )
        rules.append(Rule(Name.literal(name), value.expression))
    return WeightMap(rules)


class TracedArray:
    """An array without elements that records what is done with it, as an expression."""

    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expression: Expression, sources: Mapping[str, Shape]) -> None:
        self.expression = expression
        self._sources = sources
        result = interpret(expression, sources.__getitem__, Shapes(), {})
        self.shape = result.shape
        self._dtype = result.dtype

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
        uncut = all(span == Span(0, n) for span, n in zip(spans, self.shape, strict=False))
        result = self if uncut else self.made_by(Index(self.expression, tuple(spans)))
        place = 0  # of the result's next dimension
        for entry in entries:
            if entry is None:
                result = expand_dims(result, place)
            place += entry is None or isinstance(entry, slice)
        return result

    def reshape(self, *shape: Any, order: str = "C", **options: Any) -> TracedArray:
        """The elements in row-major order under another shape."""
        if options:
            refuse(f"reshape with {', '.join(options)}")
        if order != "C":
            refuse(f"reshape in order {order!r}")
        sizes = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        if -1 in sizes:
            known = prod(n for n in sizes if n != -1)
            if sizes.count(-1) > 1 or not known or self.size % known:
                raise ValueError(f"cannot reshape array of size {self.size} into shape {sizes}")
            sizes[sizes.index(-1)] = self.size // known
        if prod(sizes) != self.size:
            raise ValueError(f"cannot reshape array of size {self.size} into shape {sizes}")
        return self._reshaped(tuple(int(n) for n in sizes))

    def transpose(self, *axes: Any) -> TracedArray:
        """The array with its dimensions in another order; reversed without one."""
        dims = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        order = [*range(self.ndim)][::-1] if not dims else [axis_of(a, self.ndim) for a in dims]
        if sorted(order) != [*range(self.ndim)]:
            raise ValueError("axes don't match array")
        if order == sorted(order):
            return self
        names = letters(self.ndim)
        return self.rearranged([(n,) for n in names], [(names[d],) for d in order], {})

    def swapaxes(self, first: int, second: int) -> TracedArray:
        """The array with two dimensions exchanged."""
        order = list(range(self.ndim))
        a, b = axis_of(first, self.ndim), axis_of(second, self.ndim)
        order[a], order[b] = order[b], order[a]
        return self.transpose(order)

    def squeeze(self, axis: Any = None) -> TracedArray:
        """The array without dimensions of size 1."""
        if axis is None:
            dims = {dim for dim, n in enumerate(self.shape) if n == 1}
        else:
            dims = {axis_of(a, self.ndim) for a in (axis if isinstance(axis, tuple) else (axis,))}
        if any(self.shape[dim] != 1 for dim in dims):
            raise ValueError("cannot select an axis to squeeze out which has size not equal to one")
        return self._reshaped(tuple(n for dim, n in enumerate(self.shape) if dim not in dims))

    def ravel(self, order: str = "C") -> TracedArray:
        """The elements in row-major order, in one dimension."""
        return self.reshape(-1, order=order) if self.size else self._reshaped((0,))

    flatten = ravel

    def astype(self, dtype: object, **options: object) -> TracedArray:
        """The array in another dtype."""
        if options.get("casting", "unsafe") != "unsafe":
            refuse(f"astype with casting={options['casting']!r}")
        try:  # as numpy reads it, to which i8 is a number of eight bytes
            name = dtype_name(np.dtype(dtype))  # type: ignore[call-overload]
        except TypeError:
            name = dtype_name(dtype)
        except LayoutError as error:
            raise WeightMapError(str(error), dtype=dtype) from error
        return self if name == self._dtype else self.made_by(Cast(self.expression, name))

    def repeat(self, repeats: int, axis: int | None = None) -> TracedArray:
        """Each slice of a dimension that many times, one after the other."""
        if not isinstance(repeats, int | np.integer):
            refuse("repeat with a number for each element")
        if axis is None:
            return self.ravel().repeat(repeats, 0)
        place, names = axis_of(axis, self.ndim), letters(self.ndim + 1)
        before: list[Group] = [(n,) for n in names[:-1]]
        after = [*before]
        after[place] = (names[place], names[-1])
        return self.rearranged(before, after, {names[-1]: int(repeats)})

    def copy(self, order: str = "C") -> TracedArray:
        """The array."""
        del order
        return self

    def view(self, *_: object) -> NoReturn:
        """Refused: the bytes of elements are not moved apart."""
        refuse("view")

    def __array__(self, *_: object, **__: object) -> NoReturn:
        refuse(
            "np.asarray, np.array or np.ascontiguousarray, or assigning to a part of a numpy "
            "array: it needs the elements"
        )

    def __array_ufunc__(self, ufunc: Any, *_: object, **__: object) -> NoReturn:
        refuse(f"np.{ufunc.__name__}")

    def __array_function__(
        self, function: Any, types: Any, args: Sequence[Any], options: Mapping[str, Any]
    ) -> Any:
        known = FUNCTIONS.get(function)
        if known is None:
            refuse(f"np.{function.__name__}")
        try:
            return known(*args, **options)
        except TypeError as error:  # an option of numpy's function that ours has not
            refuse(f"np.{function.__name__} so: {error}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(name)
        return refuse(f"ndarray.{name}")

    def _arithmetic(self, *_: object) -> NoReturn:
        refuse("arithmetic")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _arithmetic
    __truediv__ = __rtruediv__ = __floordiv__ = __mod__ = __pow__ = __matmul__ = _arithmetic
    __iadd__ = __isub__ = __imul__ = __itruediv__ = __abs__ = _arithmetic
    __lt__ = __le__ = __gt__ = __ge__ = __and__ = __or__ = __xor__ = __invert__ = _arithmetic

    def __eq__(self, other: object) -> bool:
        refuse("a comparison of elements")

    def __ne__(self, other: object) -> bool:
        refuse("a comparison of elements")

    def __bool__(self) -> NoReturn:  # noqa: PLE0304
        refuse("a test of elements")

    def _number(self) -> NoReturn:
        refuse("an element as a number")

    __float__ = __int__ = __complex__ = __index__ = _number

    def __setitem__(self, index: object, value: object) -> None:
        refuse("assigning to a part of a source")

    def made_by(self, expression: Expression) -> TracedArray:
        """The array that an expression makes of the sources of this one."""
        return TracedArray(expression, self._sources)

    def rearranged(
        self, before: Sequence[Group], after: Sequence[Group], sizes: dict[str, int]
    ) -> TracedArray:
        """The array rearranged by a pattern of these groups."""
        pattern = Pattern(tuple(before), tuple(after))
        return self.made_by(Rearrange(self.expression, pattern, tuple(sizes.items())))

    def _reshaped(self, shape: tuple[int, ...]) -> TracedArray:
        """Dimensions merged until both shapes have the same, then split."""
        runs = _common_runs(self.shape, shape)
        result = self
        if any(len(old) != 1 for old, _ in runs):
            before, merged, _ = _groups([old for old, _ in runs])
            result = result.rearranged(before, merged, {})
        if any(len(new) != 1 for _, new in runs):
            after, split, sizes = _groups([new for _, new in runs])
            result = result.rearranged(split, after, sizes)
        return result


def _groups(
    runs: Sequence[tuple[int, ...]],
) -> tuple[list[Group], list[Group], dict[str, int]]:
    """Dimensions apart, and each run of them as one; the sizes of those in runs of several.

    >>> _groups([(2, 3), (4,)])
    ([('a',), ('b',), ('c',)], [('a', 'b'), ('c',)], {'a': 2, 'b': 3})
    """
    free = iter(letters(sum(map(len, runs))))
    named = [[(next(free), n) for n in run] for run in runs]
    sizes = {name: n for run in named if len(run) > 1 for name, n in run}
    apart: list[Group] = [(name,) for run in named for name, _ in run]
    return apart, [tuple(name for name, _ in run) for run in named], sizes


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
            refuse("a slice with a negative step")
        return Span(start, max(start, stop), step)
    if isinstance(entry, bool | np.bool_) or not isinstance(entry, int | np.integer):
        refuse("an index that is no integer and no slice")
    number = int(entry)
    if not -size <= number < size:
        raise IndexError(f"index {number} is out of bounds for size {size}")
    return number % size
