"""The normal forms of targets: which parts of which sources, as atoms.

Of `qkv.{i} = concat(0, q.{i}, k.{i})` the targets qkv.0 and qkv.1 have the same atoms, of sources
number 0 and 1, and differ in the names of these alone. A segmented source counts as several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from redistrib.models.atoms import AtomArray, AtomArrays, whole
from redistrib.models.expression import number_placeholders, source_names
from redistrib.models.interpret import Shape, interpret
from redistrib.models.rule import Target


@dataclass(frozen=True, slots=True)
class NormalForm:
    """A target as atoms, part by part, of parts of sources: `sources` are their names and numbers.

    An array that is not segmented is one part, number 0.
    """

    sources: tuple[tuple[str, int], ...]
    shape: tuple[int, ...]
    parts: tuple[AtomArray, ...]


Cuts = tuple[int, tuple[int, ...]]
"""A dimension, and the sizes of parts along it; no sizes for an array in one part."""
WHOLE: Cuts = (0, ())


class NormalForms:
    """The normal forms of targets over sources of these shapes.

    `cuts` say which sources are in parts. Targets of one rule mostly differ in the names of their
    sources alone, as layers of a model do; their atoms are made once.
    """

    def __init__(self, shapes: Mapping[str, Shape], cuts: Mapping[str, Cuts] | None = None) -> None:
        self._shapes = shapes
        self._cuts = cuts or {}
        self._made: dict[object, tuple[AtomArray, ...]] = {}

    def of(self, target: Target, cuts: Cuts = WHOLE) -> NormalForm:
        """The normal form of a target, which may be in parts itself. Raises WeightMapError."""
        expression, binding = target.rule.expression, target.binding
        taken = source_names(expression, binding)
        names = {name: n for n, name in enumerate(dict.fromkeys(taken))}
        parts = [
            (name, number)
            for name in names
            for number in range(max(1, len(self._cuts.get(name, WHOLE)[1])))
        ]
        shapes = tuple((self._shapes[name], self._cuts.get(name, WHOLE)) for name in names)
        numbers = tuple((k, binding[k]) for k in sorted(number_placeholders(expression)))
        # Of concat(0, a.{i}, a.0, a.1) a layer may take its first source twice, or its second.
        places = tuple(names[name] for name in taken)
        key = id(target.rule), shapes, places, numbers, cuts
        if key not in self._made:
            place = {part: n for n, part in enumerate(parts)}

            def get(name: str) -> AtomArray:
                return self._source(name, place[name, 0])

            array = interpret(expression, get, AtomArrays(), binding)
            self._made[key] = tuple(_in_parts(array, cuts))
        arrays = self._made[key]
        dim, sizes = cuts
        shape = arrays[0].shape
        if sizes:
            shape = (*shape[:dim], sum(part.shape[dim] for part in arrays), *shape[dim + 1 :])
        return NormalForm(tuple(parts), shape, arrays)

    def same(self, name: str, cuts: Cuts = WHOLE) -> NormalForm:
        """The normal form of a source as it is."""
        source_cuts = self._cuts.get(name, WHOLE)
        key = self._shapes[name], source_cuts, cuts
        if key not in self._made:
            self._made[key] = tuple(_in_parts(self._source(name, 0), cuts))
        return NormalForm(
            tuple((name, n) for n in range(max(1, len(source_cuts[1])))),
            self._shapes[name].shape,
            self._made[key],
        )

    def _source(self, name: str, number: int) -> AtomArray:
        """A source as atoms of its parts, numbered from `number` on."""
        shape = self._shapes[name]
        dim, sizes = self._cuts.get(name, WHOLE)
        if not sizes:
            return whole(number, shape)
        shapes = [
            Shape((*shape.shape[:dim], n, *shape.shape[dim + 1 :]), shape.dtype) for n in sizes
        ]
        return AtomArrays().concat(dim, [whole(number + n, part) for n, part in enumerate(shapes)])


def _in_parts(array: AtomArray, cuts: Cuts) -> Iterator[AtomArray]:
    dim, sizes = cuts
    if not sizes:
        yield array
        return
    ends = [*accumulate(sizes)]
    for start, end in zip([0, *ends], ends, strict=False):
        spans = [range(n) for n in array.shape]
        spans[dim] = range(start, end)
        yield AtomArrays().index(array, spans, ())
