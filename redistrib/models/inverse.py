"""The inverse of a weight map, where there is one: sources from targets.

    qkv = concat(0, q, k)                                q = qkv[0:4], k = qkv[4:6]
    q = qkv[0:4], k = qkv[4:6]                           qkv = concat(0, q, k)
    wq = cast(rearrange(q, "a b -> b a"), f32)           q = cast(rearrange(wq, "b a -> a b"), bf16)

What a target takes of a source is a *piece*: the steps (rearrangements and indices) that lead from
the source to it, and the expression, over targets, that has its value. Steps that all pieces of a
source share are undone after the pieces are put together along the first dimension in which they
differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, assert_never

import numpy as np

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
from redistrib.models.interpret import Shape, Shapes, interpret, shapes_of, spans
from redistrib.models.names import Binding, Name, number
from redistrib.models.pattern import Pattern
from redistrib.models.rule import Rule
from redistrib.models.weight_map import WeightMap
from redistrib.types.dtypes import numpy_dtype


class _Rearranged(NamedTuple):
    """A rearrangement of an array of this shape, without repeats; `sizes` has that of each name."""

    pattern: Pattern
    sizes: tuple[tuple[str, int], ...]
    shape: tuple[int, ...]

    def undo(self, array: Expression) -> Expression:
        """The array before, from the array after."""
        pattern = Pattern(self.pattern.after, self.pattern.before)
        inside = {name for group in pattern.before if len(group) > 1 for name in group}
        return Rearrange(array, pattern, tuple(s for s in self.sizes if s[0] in inside))


class _Selected(NamedTuple):
    """The part of an array with these indices; dropped dimensions have a single one."""

    shape: tuple[int, ...]
    spans: tuple[range, ...]
    dropped: frozenset[int]


class _Piece(NamedTuple):
    """The expression `value`, over targets, has what `steps` make of a source."""

    source: str
    steps: tuple[_Rearranged | _Selected, ...]
    value: Expression


def inverse(weights: WeightMap, shapes: Mapping[str, tuple[tuple[int, ...], object]]) -> WeightMap:
    """The map that makes the sources, of these shapes and dtypes, from the targets.

    Raises WeightMapError where a source is lost, in whole or in part, or a cast rounds. Where two
    targets have the same part of a source, the first gives it.

    >>> w = WeightMap.parse("qkv = concat(0, q, kv)")
    >>> print(inverse(w, {"q": ((4, 8), "f32"), "kv": ((2, 8), "f32")}))
    q = qkv[0:4, 0:8]
    kv = qkv[4:6, 0:8]
    """
    known = shapes_of(shapes)
    pieces: dict[str, list[_Piece]] = {name: [] for name in known}

    def shape_of(part: Expression, binding: Binding) -> Shape:
        return interpret(part, known.__getitem__, Shapes(), binding)

    for target in weights.targets(known).values():
        value = Source(Name.literal(target.name))
        for piece in _pieces(target.rule.expression, value, (), shape_of, target.binding):
            pieces[piece.source].append(piece)
    return WeightMap(
        Rule(Name.literal(name), _assembled(name, known[name].shape, pieces[name]))
        for name in known
    )


def _pieces(
    node: Expression,
    value: Expression,
    steps: tuple[_Rearranged | _Selected, ...],
    shape_of: Callable[[Expression, Binding], Shape],
    binding: Binding,
) -> Iterator[_Piece]:
    """What `value` says of the sources of a node; `steps` lead from the node's array to it."""
    if steps and isinstance(node, Concat | Stack | Pad):
        raise WeightMapError(f"part of what is put together is not undone; got a slice of {node}")
    match node:
        case Source(name=name):
            yield _Piece(name.text(binding), steps, value)
        case Concat(dim=dim, parts=parts):
            shapes = [shape_of(part, binding).shape for part in parts]
            place, start = dim % len(shapes[0]), 0
            for part, shape in zip(parts, shapes, strict=True):
                inside = [Span(0, n) for n in shape]
                inside[place] = Span(start, start + shape[place])
                start += shape[place]
                yield from _pieces(part, Index(value, tuple(inside)), (), shape_of, binding)
        case Stack(dim=dim, parts=parts, over=over):
            numbers = range(over.start, over.stop) if over else range(len(parts))
            for count, n in enumerate(numbers):
                part = parts[0] if over else parts[n]
                inner = {**binding, over.placeholder: n} if over else binding
                rank = len(shape_of(part, inner).shape) + 1
                picked: tuple[Span | int, ...] = (*(Span() for _ in range(dim % rank)), count)
                yield from _pieces(part, Index(value, picked), (), shape_of, inner)
        case Rearrange(array=array, pattern=pattern, sizes=sizes):
            known = {name: number(size, binding) for name, size in sizes}
            shape = shape_of(array, binding).shape
            once, step = _without_repeats(pattern, shape, known)
            if steps and once is not None:
                raise WeightMapError(f"part of what is repeated is not undone; got {node}")
            if steps:
                yield from _pieces(array, value, (step, *steps), shape_of, binding)
            else:
                value = once(value) if once is not None else value
                yield from _pieces(array, step.undo(value), (), shape_of, binding)
        case Index(array=array, entries=entries):
            shape = shape_of(array, binding).shape
            spans_of, dropped = spans(entries, shape, binding)
            selected = _Selected(shape, tuple(spans_of), frozenset(dropped))
            yield from _pieces(array, value, (selected, *steps), shape_of, binding)
        case Pad(array=array):
            kept = tuple(Span(0, n) for n in shape_of(array, binding).shape)
            yield from _pieces(array, Index(value, kept), (), shape_of, binding)
        case Cast(array=array, dtype=dtype):
            before = shape_of(array, binding).dtype
            if not np.can_cast(numpy_dtype(before), numpy_dtype(dtype), "safe"):
                raise WeightMapError(
                    f"a cast from {before} to {dtype} may round: nothing undoes it"
                )
            yield from _pieces(array, Cast(value, before), steps, shape_of, binding)
        case _:
            assert_never(node)


def _without_repeats(
    pattern: Pattern, shape: tuple[int, ...], known: dict[str, int]
) -> tuple[Callable[[Expression], Expression] | None, _Rearranged]:
    """What takes one of the repeats of a pattern, if it has any, and the pattern without them."""
    fitted = pattern.fit(shape, known)
    before = [name for group in pattern.before for name in group]
    sizes = dict(zip(before, fitted.digits, strict=True))
    after = tuple(tuple(n for n in group if n in sizes) for group in pattern.after)
    step = _Rearranged(Pattern(pattern.before, after), tuple(sizes.items()), shape)
    new = [name for group in pattern.after for name in group if name not in sizes]
    if not new:
        return None, step
    if not all(known[name] for name in new):
        raise WeightMapError(f"what is repeated no time is lost; the pattern is '{pattern}'")
    apart = Pattern(pattern.after, (*((name,) for name in new), *after))
    named = tuple((n, (sizes | known)[n]) for g in pattern.after if len(g) > 1 for n in g)

    def once(value: Expression) -> Expression:
        return Index(Rearrange(value, apart, named), (0,) * len(new))

    return once, step


def _assembled(name: str, shape: tuple[int, ...], pieces: Sequence[_Piece]) -> Expression:
    """An array of this shape from pieces of it. Raises WeightMapError if they are not all of it."""
    for piece in pieces:
        if not piece.steps:
            return piece.value
    kinds: dict[_Rearranged | None, list[_Piece]] = {}
    for piece in pieces:
        first = piece.steps[0]
        kinds.setdefault(first if isinstance(first, _Rearranged) else None, []).append(piece)
    partly: _PartlyError | None = None
    for step, group in kinds.items():
        try:
            if step is None:
                return _joined(name, shape, group, {})
            stripped = [piece._replace(steps=piece.steps[1:]) for piece in group]
            inner = step.pattern.fit(shape, dict(step.sizes)).shape
            return step.undo(_assembled(name, inner, stripped))
        except _PartlyError as error:
            partly = partly or error
    raise partly or _PartlyError(f"no target has anything of the source {name}", source=name)


class _PartlyError(WeightMapError):
    """Some part of a source is in no piece."""


def _joined(
    name: str, shape: tuple[int, ...], pieces: Sequence[_Piece], fixed: dict[int, range]
) -> Expression:
    """An array from pieces that select parts of it, which agree in the dimensions `fixed`."""
    first = pieces[0].steps[0]
    assert isinstance(first, _Selected)
    spans_of = [step.spans for piece in pieces if isinstance(step := piece.steps[0], _Selected)]
    ranges = tuple(fixed.get(dim, range(n)) for dim, n in enumerate(shape))
    open_ = [
        dim
        for dim, span in enumerate(ranges)
        if dim not in fixed and (dim in first.dropped or any(s[dim] != span for s in spans_of))
    ]
    if not open_:
        inner = tuple(len(ranges[d]) for d in range(len(shape)) if d not in first.dropped)
        return _assembled(name, inner, [p._replace(steps=p.steps[1:]) for p in pieces])
    dim = open_[0]
    groups: dict[range, list[_Piece]] = {}
    for piece, spans_ in sorted(zip(pieces, spans_of, strict=True), key=lambda x: x[1][dim].start):
        groups.setdefault(spans_[dim], []).append(piece)
    ends = [0, *(span.stop for span in groups)]
    starts = [*(span.start for span in groups), shape[dim]]
    alike = all(
        isinstance(p.steps[0], _Selected) and p.steps[0].dropped == first.dropped for p in pieces
    )
    if ends != starts or any(span.step != 1 for span in groups) or not alike:
        raise _PartlyError(
            f"the targets do not have all of the source {name} along dimension {dim}: they have "
            f"{', '.join(f'{s.start}:{s.stop}:{s.step}' for s in groups)} of {shape[dim]}",
            source=name,
        )
    parts = tuple(_joined(name, shape, group, {**fixed, dim: s}) for s, group in groups.items())
    place = dim - sum(d < dim for d in first.dropped & fixed.keys())
    if dim in first.dropped:
        return Stack(place, parts)
    return Concat(place, parts)
