"""The normal form of an expression: a target array as a disjoint union of atoms.

An *atom* copies one view into another: its digits walk the target and the source at once, each with
a stride in one dimension of either. Take `concat(0, q, k)` with q of shape (4, 8), k of (2, 8):

    target[0:4] from q   digits  4 (dim 0, stride 1 | dim 0, stride 1), 8 (dim 1 ... | dim 1 ...)
    target[4:6] from k   offset (4, 0) in the target, digits 2 and 8 likewise

A view need not be a box: of `rearrange(stack(0, a, b), "two n -> (n two)")` the atom of `a` has one
digit with stride 2 in the target. Transposes, splits and merges change digits alone; a slice or a
split that falls inside a digit cuts the atom, at most twice per digit where sizes divide each
other.

Law (coverage): the target views of an array are disjoint and their sizes add up to its size, so
each element gets exactly one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import gcd, prod

from redistrib.errors import WeightMapError
from redistrib.models.interpret import Shape
from redistrib.models.pattern import Regrouping

MAX_ATOMS = 1 << 16
"""Of one target: more come only of strides that do not divide each other."""


@dataclass(frozen=True, slots=True)
class AtomDigit:
    """`size` steps, each `stride` further in dimension `dim` of the target, and so in the source.

    A source stride of 0 repeats the same element.
    """

    size: int
    dim: int
    stride: int
    source_dim: int
    source_stride: int


@dataclass(frozen=True, slots=True)
class Atom:
    """A view of a target and the view of a source, of equal shape, that it is copied from.

    `source` is the number of a source among those of the target, None for zeros. `dtypes` are those
    of the source and of each cast after it.
    Digits are in the order of the target: by dimension, then major to minor.
    """

    digits: tuple[AtomDigit, ...]
    offset: tuple[int, ...]
    source: int | None
    source_offset: tuple[int, ...]
    dtypes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Elements of the view."""
        return prod(digit.size for digit in self.digits)

    def taken(self, place: int, start: int, count: int, every: int = 1) -> Atom:
        """Only the steps start, start + every, ... of a digit, `count` of them."""
        digit = self.digits[place]
        shorter = AtomDigit(
            count, digit.dim, digit.stride * every, digit.source_dim, digit.source_stride * every
        )
        kept = (shorter,) if count > 1 else ()
        return replace(
            self,
            digits=(*self.digits[:place], *kept, *self.digits[place + 1 :]),
            offset=_moved(self.offset, digit.dim, start * digit.stride),
            source_offset=_moved(self.source_offset, digit.source_dim, start * digit.source_stride),
        )

    def cut(self, place: int, minor: int) -> Atom:
        """A digit as two, the minor one of this size, which divides it."""
        digit = self.digits[place]
        parts = (
            AtomDigit(
                digit.size // minor,
                digit.dim,
                digit.stride * minor,
                digit.source_dim,
                digit.source_stride * minor,
            ),
            replace(digit, size=minor),
        )
        kept = tuple(part for part in parts if part.size > 1)
        return replace(self, digits=(*self.digits[:place], *kept, *self.digits[place + 1 :]))

    def on(self, dim: int) -> list[int]:
        """The places of the digits that walk a dimension, major to minor."""
        places = [p for p, digit in enumerate(self.digits) if digit.dim == dim and digit.stride]
        return sorted(places, key=lambda place: -self.digits[place].stride)

    def swapped(self) -> Atom:
        """The atom with target and source in each other's place."""
        digits = tuple(
            AtomDigit(d.size, d.source_dim, d.source_stride, d.dim, d.stride) for d in self.digits
        )
        return replace(self, digits=digits, offset=self.source_offset, source_offset=self.offset)

    def sorted(self) -> Atom:
        """The atom with its digits in order, neighbours that are one run merged."""
        merged: list[AtomDigit] = []
        for digit in sorted(self.digits, key=lambda d: (d.dim, -d.stride)):
            last = merged[-1] if merged else None
            if last is not None and _one_run(last, digit):
                merged[-1] = replace(digit, size=last.size * digit.size)
            else:
                merged.append(digit)
        return replace(self, digits=tuple(merged))


@dataclass(frozen=True, slots=True)
class AtomArray:
    """An array made of atoms, on the way from the sources to a target."""

    shape: tuple[int, ...]
    dtype: str
    atoms: tuple[Atom, ...]


class AtomArrays:
    """The kind of array that is a union of atoms."""

    def dtype_of(self, array: AtomArray) -> str:
        return array.dtype

    def index(self, array: AtomArray, spans: Sequence[range], dropped: Sequence[int]) -> AtomArray:
        atoms: Iterable[Atom] = array.atoms
        for dim, span in enumerate(spans):
            if span != range(array.shape[dim]):
                atoms = [part for atom in atoms for part in _selected(atom, dim, span)]
        kept = [dim for dim in range(len(spans)) if dim not in dropped]
        place = {dim: n for n, dim in enumerate(kept)}
        shape = tuple(len(spans[dim]) for dim in kept)
        return _array(shape, array.dtype, (_on_dims(atom, place, kept) for atom in atoms))

    def concat(self, dim: int, parts: Sequence[AtomArray]) -> AtomArray:
        starts = accumulate((part.shape[dim] for part in parts), initial=0)
        atoms = [
            replace(atom, offset=_moved(atom.offset, dim, start))
            for start, part in zip(starts, parts, strict=False)
            for atom in part.atoms
        ]
        shape = list(parts[0].shape)
        shape[dim] = sum(part.shape[dim] for part in parts)
        return _array(tuple(shape), parts[0].dtype, atoms)

    def stack(self, dim: int, parts: Sequence[AtomArray]) -> AtomArray:
        shape = parts[0].shape
        place = {d: d + (d >= dim) for d in range(len(shape))}
        atoms = []
        for number, part in enumerate(parts):
            for atom in part.atoms:
                offset = (*atom.offset[:dim], number, *atom.offset[dim:])
                digits = tuple(replace(d, dim=place[d.dim]) for d in atom.digits)
                atoms.append(replace(atom, offset=offset, digits=digits))
        return _array((*shape[:dim], len(parts), *shape[dim:]), parts[0].dtype, atoms)

    def rearrange(self, array: AtomArray, regrouping: Regrouping) -> AtomArray:
        atoms = list(array.atoms)
        # Split the last dimension first: those before it keep their numbers.
        for dim in reversed(range(len(array.shape))):
            sizes = [
                n for n, d in zip(regrouping.digits, regrouping.split, strict=True) if d == dim
            ]
            atoms = [part for atom in atoms for part in split(atom, dim, sizes)]
        place = {dim: n for n, dim in enumerate(regrouping.order)}
        atoms = [_on_dims(atom, place, regrouping.order) for atom in atoms]
        sizes = [regrouping.digits[dim] for dim in regrouping.order]
        for place_of_new, size in regrouping.repeats:
            atoms = [_repeated(atom, place_of_new, size) for atom in atoms]
            sizes.insert(place_of_new, size)
        return _array(
            regrouping.shape,
            array.dtype,
            (_merged(atom, sizes, regrouping.merged, len(regrouping.shape)) for atom in atoms),
        )

    def pad(self, array: AtomArray, dim: int, size: int) -> AtomArray:
        start = array.shape[dim]
        shape = (*array.shape[:dim], size, *array.shape[dim + 1 :])
        filled = (*array.shape[:dim], size - start, *array.shape[dim + 1 :])
        offset = tuple(start if d == dim else 0 for d in range(len(shape)))
        digits = tuple(AtomDigit(n, d, 1, 0, 0) for d, n in enumerate(filled) if n != 1)
        zeros = Atom(digits, offset, None, (), (array.dtype,))
        return _array(shape, array.dtype, [*array.atoms, zeros])

    def cast(self, array: AtomArray, dtype: str) -> AtomArray:
        atoms = [
            replace(atom, dtypes=(*atom.dtypes, dtype) if atom.source is not None else (dtype,))
            if atom.dtypes[-1] != dtype
            else atom
            for atom in array.atoms
        ]
        return _array(array.shape, dtype, atoms)


def whole(source: int, shape: Shape) -> AtomArray:
    """A source array, as one atom of itself.

    >>> whole(0, Shape((4, 8), "f32")).atoms[0].digits[1]
    AtomDigit(size=8, dim=1, stride=1, source_dim=1, source_stride=1)
    """
    digits = tuple(AtomDigit(n, d, 1, d, 1) for d, n in enumerate(shape.shape) if n != 1)
    origin = (0,) * len(shape.shape)
    return _array(shape.shape, shape.dtype, [Atom(digits, origin, source, origin, (shape.dtype,))])


def _array(shape: tuple[int, ...], dtype: str, atoms: Iterable[Atom]) -> AtomArray:
    kept = []
    for atom in atoms:
        if atom.size:
            kept.append(atom.sorted())
        if len(kept) > MAX_ATOMS:
            raise WeightMapError(
                f"an array is made of at most {MAX_ATOMS} views; strides that do not divide each "
                f"other, as in x[::3] reshaped to rows of 4, make more",
                shape=shape,
            )
    return AtomArray(shape, dtype, tuple(kept))


def _moved(offset: tuple[int, ...], dim: int, by: int) -> tuple[int, ...]:
    return (*offset[:dim], offset[dim] + by, *offset[dim + 1 :]) if by else offset


def _one_run(major: AtomDigit, minor: AtomDigit) -> bool:
    """Whether two digits step like one, in the target and in the source."""
    if major.dim != minor.dim or major.stride != minor.stride * minor.size:
        return False
    if not (major.source_stride or minor.source_stride):
        return True
    same = major.source_dim == minor.source_dim
    return same and major.source_stride == minor.source_stride * minor.size


def _extent(digits: Iterable[AtomDigit]) -> int:
    """How far digits reach: the largest sum of their steps."""
    return sum((digit.size - 1) * digit.stride for digit in digits)


def _selected(atom: Atom, dim: int, span: range) -> Iterator[Atom]:
    """The part of an atom with these indices of a dimension, which are numbered anew."""
    for part in between(atom, dim, span.start, span.stop):
        for kept in _congruent(part, dim, span.start, span.step):
            digits = tuple(
                replace(d, stride=d.stride // span.step) if d.dim == dim else d for d in kept.digits
            )
            offset = list(kept.offset)
            offset[dim] = (offset[dim] - span.start) // span.step
            yield replace(kept, digits=digits, offset=tuple(offset))


def between(atom: Atom, dim: int, low: int, high: int) -> Iterator[Atom]:
    """The part of an atom with the indices of a dimension from low up to high."""
    places = atom.on(dim)
    start = atom.offset[dim]
    if not places:
        if low <= start < high:
            yield atom
        return
    place, digit = places[0], atom.digits[places[0]]
    minor = _extent(atom.digits[p] for p in places[1:])
    # Steps of the major digit whose minor ones are all inside, and the two that may be cut.
    first = max(0, -(-(low - start) // digit.stride))
    end = min(digit.size, (high - 1 - start - minor) // digit.stride + 1)
    if first < end:
        yield atom.taken(place, first, end - first)
    touched_first = max(0, -(-(low - start - minor) // digit.stride))
    touched_end = min(digit.size, (high - 1 - start) // digit.stride + 1)
    for step in range(touched_first, touched_end):
        if not first <= step < end:
            yield from between(atom.taken(place, step, 1), dim, low, high)


def _congruent(atom: Atom, dim: int, start: int, step: int) -> Iterator[Atom]:
    """The part of an atom with indices start, start + step, ... of a dimension."""
    for place in atom.on(dim):
        digit = atom.digits[place]
        if digit.stride % step:
            period = step // gcd(digit.stride, step)
            for residue in range(min(period, digit.size)):
                count = -(-(digit.size - residue) // period)
                yield from _congruent(
                    atom.taken(place, residue, count, period),
                    dim,
                    start,
                    step,
                )
            return
    if (atom.offset[dim] - start) % step == 0:
        yield atom


def split(atom: Atom, dim: int, sizes: Sequence[int]) -> list[Atom]:
    """An atom with a dimension as several, of these sizes, major to minor; the first may be any."""
    if len(sizes) == 1:
        return [atom]
    if not sizes:  # of size 1, and dropped
        offset = (*atom.offset[:dim], *atom.offset[dim + 1 :])
        return [replace(_shifted(atom, dim + 1, -1), offset=offset)]
    minor = prod(sizes[1:])
    atoms = []
    for part in aligned(atom, dim, minor):
        start = part.offset[dim]
        offset = (*part.offset[:dim], start // minor, start % minor, *part.offset[dim + 1 :])
        digits = []
        for digit in part.digits:
            if digit.dim > dim:
                digits.append(replace(digit, dim=digit.dim + 1))
            elif digit.dim == dim and digit.stride % minor:
                digits.append(replace(digit, dim=dim + 1))
            elif digit.dim == dim:
                digits.append(replace(digit, stride=digit.stride // minor))
            else:
                digits.append(digit)
        atoms += split(replace(part, digits=tuple(digits), offset=offset), dim + 1, sizes[1:])
    return atoms


def aligned(atom: Atom, dim: int, minor: int) -> Iterator[Atom]:
    """An atom cut so that, in a dimension seen as rows of `minor`, no digit crosses a row's end.

    Each digit then steps by whole rows or stays within one.
    """
    if minor == 0:
        return
    places = [p for p in atom.on(dim) if atom.digits[p].stride % minor]
    column = atom.offset[dim] % minor
    if column + _extent(atom.digits[p] for p in places) < minor:
        yield atom
        return
    yield from (
        part for cut in _cut_once(atom, places, column, minor) for part in aligned(cut, dim, minor)
    )


def _cut_once(atom: Atom, places: Sequence[int], column: int, minor: int) -> Iterator[Atom]:
    """An atom cut once, where the most major of some digits crosses the end of a row."""
    place, digit = places[0], atom.digits[places[0]]
    below = _extent(atom.digits[p] for p in places[1:])
    if digit.stride > minor or minor % digit.stride:
        period = minor // gcd(digit.stride, minor)
        for residue in range(min(period, digit.size)):
            count = -(-(digit.size - residue) // period)
            yield atom.taken(place, residue, count, period)
    elif column % digit.stride + below >= digit.stride:
        # The digits below reach over the next step of this one: cut these first.
        room = digit.stride - column % digit.stride
        yield from _cut_at(atom, places[1:], room)
    else:
        per_row = minor // digit.stride
        begun = column // digit.stride
        if begun == 0 and digit.size % per_row == 0:
            yield atom.cut(place, per_row)
            return
        head = min(digit.size, per_row - begun) if begun else 0
        body = (digit.size - head) // per_row * per_row
        for start, count in ((0, head), (head, body), (head + body, digit.size - head - body)):
            if count:
                yield atom.taken(place, start, count)


def _cut_at(atom: Atom, places: Sequence[int], room: int) -> Iterator[Atom]:
    """An atom in two or more, so that the sum of some digits stays below `room` or does not."""
    place, digit = places[0], atom.digits[places[0]]
    below = _extent(atom.digits[p] for p in places[1:])
    inside = min(digit.size, max(0, (room - 1 - below) // digit.stride + 1))
    outside = min(digit.size, -(-room // digit.stride))
    for start, count in ((0, inside), (outside, digit.size - outside)):
        if count:
            yield atom.taken(place, start, count)
    for step in range(inside, outside):
        cut = atom.taken(place, step, 1)
        remaining = [p - (p > place) for p in places[1:]]
        yield from _cut_at(cut, remaining, room - step * digit.stride)


def _on_dims(atom: Atom, place: Mapping[int, int], order: Sequence[int]) -> Atom:
    """An atom with its dimensions in another order, or fewer of them."""
    digits = tuple(replace(digit, dim=place[digit.dim]) for digit in atom.digits)
    return replace(atom, digits=digits, offset=tuple(atom.offset[dim] for dim in order))


def _repeated(atom: Atom, dim: int, size: int) -> Atom:
    """An atom with a new dimension along which it repeats."""
    moved = _shifted(atom, dim, 1)
    new = (AtomDigit(size, dim, 1, 0, 0),) if size != 1 else ()
    offset = (*atom.offset[:dim], 0, *atom.offset[dim:])
    return replace(moved, digits=(*moved.digits, *new), offset=offset)


def _merged(atom: Atom, sizes: Sequence[int], merged: Sequence[int], rank: int) -> Atom:
    """An atom with runs of dimensions as one, by row-major numbers."""
    weights = [
        prod(n for n, m in zip(sizes[d + 1 :], merged[d + 1 :], strict=True) if m == merged[d])
        for d in range(len(sizes))
    ]
    offset = [0] * rank
    for dim, start in enumerate(atom.offset):
        offset[merged[dim]] += start * weights[dim]
    digits = tuple(
        replace(digit, dim=merged[digit.dim], stride=digit.stride * weights[digit.dim])
        for digit in atom.digits
    )
    return replace(atom, digits=digits, offset=tuple(offset))


def _shifted(atom: Atom, start: int, by: int) -> Atom:
    """An atom with the dimensions from `start` on numbered otherwise."""
    digits = tuple(
        replace(digit, dim=digit.dim + by) if digit.dim >= start else digit for digit in atom.digits
    )
    return replace(atom, digits=digits)
