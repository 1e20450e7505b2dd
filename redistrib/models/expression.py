"""How one array is made from others: expressions, and their meaning.

    concat(0, q, k, v)                  one after the other along dimension 0
    wq[:, {i}]                          of a stack of layers the one of this layer
    rearrange(w, "(h d) m -> h m d", d=128)

An expression is data: it knows no layouts and no arrays. `redistrib.models.interpret` gives it a
meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, assert_never

from redistrib.errors import WeightMapError
from redistrib.models.names import Affine, Binding, Name, Number, integer
from redistrib.models.pattern import Pattern
from redistrib.text import brief, is_kind
from redistrib.types.dtypes import dtype_name

MAX_DEPTH = 100
"""Of expressions in one another."""
MAX_LEAVES = 1 << 16
"""Sources that one expression takes, each time that it takes one."""


class Position(NamedTuple):
    """Where in a text an expression stands; both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """`depth` of expressions in one another; `leaves`: sources, those of a range counted apart."""

    position: Position | None = field(default=None, compare=False, repr=False)
    depth: int = field(default=0, init=False, compare=False, repr=False)
    leaves: int = field(default=1, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self, Source):
            return
        inner = _expressions(type(self).__name__.lower(), parts(self))  # type: ignore[arg-type]
        depth = 1 + max(part.depth for part in inner)
        leaves = sum(part.leaves for part in inner)
        if isinstance(self, Stack) and self.over is not None:
            leaves *= self.over.stop - self.over.start
        if depth > MAX_DEPTH:
            raise WeightMapError(f"at most {MAX_DEPTH} expressions are in one another", depth=depth)
        if leaves > MAX_LEAVES:
            raise WeightMapError(
                f"an expression takes at most {MAX_LEAVES} sources; this one takes {leaves}",
                sources=leaves,
            )
        object.__setattr__(self, "depth", depth)
        object.__setattr__(self, "leaves", leaves)

    def __iter__(self) -> NoReturn:
        raise WeightMapError("an expression has no length that is known, so nothing goes over it")

    def __getitem__(self, index: Any) -> Expression:
        """Part of the array, as numpy has it: integers drop their dimension, steps are positive."""
        entries = index if isinstance(index, tuple) else (index,)
        (array,) = _expressions("index", (self,))
        return Index(array, tuple(map(_entry, entries))) if entries else array


@dataclass(frozen=True, slots=True)
class Source(_Node):
    """A source array, by name."""

    name: Name

    def __str__(self) -> str:
        return str(self.name)


@dataclass(frozen=True, slots=True)
class Span:
    """`start:stop:step` of a dimension; None is its own start or end."""

    start: Number | None = None
    stop: Number | None = None
    step: int = 1

    def __str__(self) -> str:
        start, stop = ("" if bound is None else str(bound) for bound in (self.start, self.stop))
        return f"{start}:{stop}" + (f":{self.step}" if self.step != 1 else "")


@dataclass(frozen=True, slots=True)
class Index(_Node):
    """Part of an array: a number picks one index and drops the dimension, a span keeps it."""

    array: Expression
    entries: tuple[Number | Span, ...]

    def __str__(self) -> str:
        return f"{self.array}[{', '.join(map(str, self.entries))}]"


@dataclass(frozen=True, slots=True)
class Concat(_Node):
    """Arrays one after the other along a dimension."""

    dim: int
    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return f"concat({self.dim}, {', '.join(map(str, self.parts))})"


@dataclass(frozen=True, slots=True)
class Over:
    """`{e} in 0:128`: a placeholder takes the values from `start` up to, not including, `stop`."""

    placeholder: str
    start: int
    stop: int

    def __post_init__(self) -> None:
        Affine(self.placeholder)
        start = integer("the first value of a placeholder", self.start, least=0)
        integer("the end of a placeholder's values", self.stop, least=start)

    def __str__(self) -> str:
        return f"{{{self.placeholder}}} in {self.start}:{self.stop}"


@dataclass(frozen=True, slots=True)
class Stack(_Node):
    """Arrays of one shape along a new dimension; with `over`, one part for each of its values."""

    dim: int
    parts: tuple[Expression, ...]
    over: Over | None = None

    def __str__(self) -> str:
        over = f"{self.over}: " if self.over else ""
        return f"stack({self.dim}, {over}{', '.join(map(str, self.parts))})"


@dataclass(frozen=True, slots=True)
class Rearrange(_Node):
    """Dimensions split, reordered, merged and repeated by an einops pattern."""

    array: Expression
    pattern: Pattern
    sizes: tuple[tuple[str, Number], ...] = ()

    def __str__(self) -> str:
        sizes = "".join(f", {name}={size}" for name, size in self.sizes)
        return f'rearrange({self.array}, "{self.pattern}"{sizes})'


@dataclass(frozen=True, slots=True)
class Pad(_Node):
    """Zeros after the end of a dimension, up to a size."""

    array: Expression
    dim: int
    size: Number

    def __str__(self) -> str:
        return f"pad({self.array}, {self.dim}, {self.size})"


@dataclass(frozen=True, slots=True)
class Cast(_Node):
    """Another dtype, element by element, as numpy's `astype` rounds."""

    array: Expression
    dtype: str

    def __str__(self) -> str:
        return f"cast({self.array}, {self.dtype})"


Expression = Source | Index | Concat | Stack | Rearrange | Pad | Cast


def source(name: str) -> Source:
    """The source array of this name; `{i}` in it is a placeholder. Raises WeightMapError.

    >>> print(concat(0, source("layers.{i}.k"), source("layers.{i}.v"))[:8])
    concat(0, layers.{i}.k, layers.{i}.v)[:8]
    """
    return Source(Name.parse(_text("a name", name)))


def concat(dim: int, *arrays: Expression) -> Concat:
    """The arrays one after the other along a dimension.

    Raises WeightMapError for what is no expression; whether shapes and dtypes agree is checked when
    the map is applied.
    """
    return Concat(integer("the dimension of a concat", dim), _expressions("concat", arrays))


def stack(dim: int, *arrays: Expression, over: tuple[str, int, int] | Over | None = None) -> Stack:
    """The arrays along a new dimension.

    `over=("e", 0, 128)` stacks one part for each value of the placeholder `{e}`. Raises
    WeightMapError for what is no expression, and with `over` for more than one.
    """
    if over is not None and not isinstance(over, Over):
        if not is_kind(over, tuple) or len(over) != 3:
            raise WeightMapError(f'over is like ("e", 0, 128); got {over!r:.60}', over=over)
        over = Over(*over)
    checked = _expressions("stack", arrays)
    if over is not None and len(checked) != 1:
        raise WeightMapError(f"a stack over a placeholder has one part; got {len(checked)}")
    return Stack(integer("the dimension of a stack", dim), checked, over)


def rearrange(array: Expression, pattern: str, **sizes: Number) -> Rearrange:
    """The array with its dimensions split, reordered, merged or repeated by an einops pattern.

    Names that stand on the right alone need a size, and repeat the array. Raises WeightMapError for
    a malformed pattern.

    >>> print(rearrange(source("wq"), "(h d) m -> h m d", d=128))
    rearrange(wq, "(h d) m -> h m d", d=128)
    """
    (checked,) = _expressions("rearrange", (array,))
    checked_sizes = {name: _number("a size", size) for name, size in sizes.items()}
    return Rearrange(
        checked, Pattern.parse(_text("a pattern", pattern)), tuple(checked_sizes.items())
    )


def pad(array: Expression, dim: int, size: Number) -> Pad:
    """The array with zeros after the end of a dimension, so that it has this size, in elements.

    Raises WeightMapError for what is no expression or no number.
    """
    (checked,) = _expressions("pad", (array,))
    return Pad(checked, integer("the dimension of a pad", dim), _number("a size", size))


def cast(array: Expression, dtype: object) -> Cast:
    """The array in another dtype, rounded as numpy's `astype` does.

    Raises WeightMapError for what is no expression, LayoutError for an unknown dtype.
    """
    (checked,) = _expressions("cast", (array,))
    return Cast(checked, dtype_name(dtype))


def sources(expression: Expression) -> list[Source]:
    """The sources in an expression, in the order of its text, each time that one stands there."""
    if isinstance(expression, Source):
        return [expression]
    return [leaf for part in parts(expression) for leaf in sources(part)]


def source_names(expression: Expression, binding: Binding) -> list[str]:
    """The names of the source arrays that an expression takes under a binding, each time.

    >>> a, b = (Source(Name.parse(name)) for name in ("a.{i}", "a.0"))
    >>> source_names(concat(0, a, b), {"i": 0})
    ['a.0', 'a.0']
    """
    if isinstance(expression, Source):
        return [expression.name.text(binding)]
    bindings = [binding]
    if isinstance(expression, Stack) and (over := expression.over) is not None:
        bindings = [{**binding, over.placeholder: n} for n in range(over.start, over.stop)]
    return [
        name for also in bindings for part in parts(expression) for name in source_names(part, also)
    ]


def free_placeholders(expression: Expression) -> frozenset[str]:
    """The placeholders that need a value from outside: those that no stack in it is over."""
    inner = [free_placeholders(part) for part in parts(expression)]
    free = _own_numbers(expression).union(*inner)
    if isinstance(expression, Source):
        return expression.name.placeholders
    if isinstance(expression, Stack) and expression.over is not None:
        return free - {expression.over.placeholder}
    return free


def number_placeholders(expression: Expression) -> frozenset[str]:
    """The free placeholders that indices and sizes depend on, not only names."""
    inner = [number_placeholders(part) for part in parts(expression)]
    placeholders = _own_numbers(expression).union(*inner)
    if isinstance(expression, Stack) and expression.over is not None:
        return placeholders - {expression.over.placeholder}
    return placeholders


def parts(expression: Expression) -> tuple[Expression, ...]:
    """The expressions that an expression is made from directly."""
    match expression:
        case Source():
            return ()
        case Concat(parts=inner) | Stack(parts=inner):
            return inner
        case Index(array=array) | Rearrange(array=array) | Pad(array=array) | Cast(array=array):
            return (array,)
        case _:
            assert_never(expression)


def _own_numbers(expression: Expression) -> frozenset[str]:
    """The placeholders in the indices and sizes of one expression, not of its parts."""
    match expression:
        case Index(entries=entries):
            ends = [(e.start, e.stop) if isinstance(e, Span) else (e,) for e in entries]
            return _of_numbers(number for numbers in ends for number in numbers)
        case Rearrange(sizes=sizes):
            return _of_numbers(size for _, size in sizes)
        case Pad(size=size):
            return _of_numbers([size])
        case _:
            return frozenset()


def _of_numbers(numbers: Any) -> frozenset[str]:
    return frozenset(n.placeholder for n in numbers if isinstance(n, Affine))


def _entry(entry: object) -> Number | Span:
    match entry:
        case Affine():
            return entry
        case slice(start=start, stop=stop, step=step) | Span(start=start, stop=stop, step=step):
            stride = 1 if step is None else integer("a step", step)
            if stride < 1:
                raise WeightMapError(f"the step of a slice is positive; got {stride}")
            return Span(_bound(start), _bound(stop), stride)
        case _:
            return integer("an index", entry)


def _bound(bound: object) -> Number | None:
    return None if bound is None else _number("a bound", bound)


def _number(label: str, value: object) -> Number:
    return value if isinstance(value, Affine) else integer(label, value)


def _text(label: str, value: object) -> str:
    if not isinstance(value, str):
        raise WeightMapError(f"{label} is a text; got {value!r}", value=value)
    return value


def _expressions(kind: str, parts: Sequence[object]) -> tuple[Expression, ...]:
    for part in parts:
        if not isinstance(part, _Node):
            raise WeightMapError(
                f"a {kind} is of expressions, such as source('name'); got {brief(part)}", value=part
            )
    if not parts:
        raise WeightMapError(f"a {kind} has at least one part")
    return tuple(parts)  # type: ignore[arg-type]
