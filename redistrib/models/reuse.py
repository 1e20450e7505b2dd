"""Reuse: what devices have of a source already, since earlier targets are made of it too.

Take `w: f32[8{x}]` on 4 devices and two targets on all of 2 others, `t = w[0:6]` and `u = w[2:8]`.
When u is made, its devices have six of the elements: its atom, u[0:6] from w[2:8], is cut where t
ends, and becomes two steps,

    u[0:4] from t[2:6]   on the device itself
    u[4:6] from w[6:8]   as before

The atom of t tells where its elements are in t: its digits walk w and t at once, so the position in
w of an element of u, in mixed radix by these digits, is a position in t. A part of u comes from t
where every device that needs it has it; else it crosses, as if t were not there.

So does a tied weight, and a source that is wanted in two dtypes: what is cast further is made of
what is not. Of a target that is on more devices the others are made, if memory has it made first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from redistrib.models.atoms import Atom, AtomDigit, between, split
from redistrib.models.bounds import apart, overlapping
from redistrib.models.copies import Copy, copies
from redistrib.models.moves import EarlierPart, Move, Step
from redistrib.models.segments import AnyType, Part, parts_of

MAX_TRIED = 16
"""Earlier steps that one may take from, and parts that it is cut into for one of them."""
END = 1 << 62
"""After every index of a dimension."""


class _Place(NamedTuple):
    """A step, by the number of its move and its own."""

    move: int
    step: int


class _Brought(NamedTuple):
    """A step whose elements cross, the number of its move, and the target that has them then."""

    move: int
    step: Step
    target: str


def made_once(moves: Iterable[Move], src: Types, dst: Types) -> Iterator[Move]:
    """The moves, in order; what devices have of an earlier target they copy from it."""
    moves = [*moves]
    by_source: dict[tuple[str, int], list[_Place]] = {}
    for n, move in enumerate(moves):
        for k, step in enumerate(move.steps):
            if step.copy.number is not None:
                by_source.setdefault(move.sources[step.copy.number], []).append(_Place(n, k))
    changed: dict[_Place, list[Step]] = {}
    grouped: dict[tuple[int, ...], list[list[int]]] = {}  # layers share their copies
    shared = _Shared(src, dst)
    for source, places in by_source.items():
        if len(places) == 1:
            continue
        steps = [moves[place.move].steps[place.step] for place in places]
        key = tuple(id(step.copy) for step in steps)
        if key not in grouped:
            grouped[key] = overlapping([step.copy.reads for step in steps])
        for group in grouped[key]:
            if len(group) > 1:
                pairs = [(places[n], steps[n]) for n in sorted(group)]
                changed |= shared.steps(source, moves, pairs)
    for n, move in enumerate(moves):
        cuts = [changed.get(_Place(n, k), [step]) for k, step in enumerate(move.steps)]
        if any(cut != [step] for cut, step in zip(cuts, move.steps, strict=True)):
            yield replace(move, steps=tuple(step for cut in cuts for step in cut))
        else:
            yield move


Types = Mapping[str, AnyType]


class _Shared:
    """Cuts steps that read one source where an earlier target has a part; layers share cuts."""

    def __init__(self, src: Types, dst: Types) -> None:
        self._src, self._dst = src, dst
        self._parts: dict[int, tuple[Part, ...]] = {}
        self._made: dict[tuple[int, int], list[tuple[Step, bool]]] = {}

    def steps(
        self, source: tuple[str, int], moves: Sequence[Move], places: Sequence[tuple[_Place, Step]]
    ) -> dict[_Place, list[Step]]:
        """What replaces steps of one source, given in order, by place; without unchanged steps."""
        brought: list[_Brought] = []
        changed = {}
        for place, step in places:
            target = moves[place.move].target
            crossing, copied = [step], []
            tried = 0
            for earlier in brought:
                if tried == MAX_TRIED or not self._fits(earlier, step, target):
                    continue
                taken: list[Step] = []
                remaining: list[Step] = []
                for part in crossing:
                    if apart(part.copy.reads, earlier.step.copy.reads):
                        remaining.append(part)
                        continue
                    tried += 1
                    for cut, held in self._cut(source, target, part, earlier):
                        (taken if held else remaining).append(cut)
                held_part = EarlierPart(earlier.target, earlier.step.part)
                copied += [replace(cut, earlier=held_part) for cut in taken]
                crossing = remaining
            if copied:
                changed[place] = [*crossing, *copied]
            brought += [_Brought(place.move, cut, target) for cut in crossing]
        return changed

    def _fits(self, earlier: _Brought, step: Step, target: str) -> bool:
        """Whether both are on the same devices, and the earlier is the same, or not yet cast."""
        earlier_part, part = self._part(earlier.target, earlier.step), self._part(target, step)
        before = earlier.step.copy.dtypes
        return (
            earlier_part.type.mesh == part.type.mesh
            and set(earlier_part.type.partial) <= set(part.type.partial)
            and before == step.copy.dtypes[: len(before)]
        )

    def _cut(
        self, source: tuple[str, int], target: str, step: Step, earlier: _Brought
    ) -> list[tuple[Step, bool]]:
        """A step in parts, each with whether it copies from the target of the earlier step."""
        key = id(step), id(earlier.step)
        if key not in self._made:
            shared = shared_parts(step.atom, earlier.step.atom)
            part = self._part(target, step)
            earlier_part = self._part(earlier.target, earlier.step)
            name, number = source
            origin = self._parts_of(self._src[name])[number]
            result: list[tuple[Step, bool]] = []
            for crossing, in_target in shared:
                taken = [] if in_target is None else copies(in_target, part, earlier_part)
                held = bool(taken) and all(on_own(copy) for _, copy in taken)
                cuts = taken if held else copies(crossing, part, origin)
                irregular = step.irregular or len(shared) > 1 or len(cuts) > 1
                result += [(Step(step.part, copy, irregular, atom), held) for atom, copy in cuts]
            if not any(held for _, held in result) or len(result) > MAX_TRIED:
                result = [(step, False)]
            self._made[key] = result
        return self._made[key]

    def _part(self, target: str, step: Step) -> Part:
        return self._parts_of(self._dst[target])[step.part]

    def _parts_of(self, t: AnyType) -> tuple[Part, ...]:
        if id(t) not in self._parts:
            self._parts[id(t)] = parts_of(t)
        return self._parts[id(t)]


def on_own(copy: Copy) -> bool:
    """Whether every device that receives a copy holds its source elements itself."""
    starts = dict(copy.target.coordinates)
    return all(
        starts.get(owner) == value
        and not any(
            owner in (d.target.owner, d.source.owner) and d.target != d.source for d in copy.digits
        )
        for owner, value in copy.source.coordinates
    )


class _Coordinate(NamedTuple):
    """One of those that tell a position in a dimension: `first + weight * coordinate`, summed.

    `digit` is the one of the other atom that walks it, None where it has one value.
    """

    dim: int
    weight: int
    first: int
    digit: AtomDigit | None


def shared_parts(atom: Atom, other: Atom) -> list[tuple[Atom, Atom | None]]:
    """An atom in parts; each as it is, and as one of the other's target, if it has it.

    Both are of one source. All is one part where their elements are not told apart by digits.
    """
    uncut: list[tuple[Atom, Atom | None]] = [(atom, None)]
    parts = [atom.swapped()]
    outside: list[Atom] = []
    coordinates = [_Coordinate(dim, 1, 0, None) for dim in range(len(atom.source_offset))]

    def keep(place: int, low: int, high: int) -> None:
        nonlocal parts
        for a, b in ((0, low), (high, END)):
            outside.extend(_back(p, coordinates) for q in parts for p in between(q, place, a, b))
        parts = [p for q in parts for p in between(q, place, low, high)]

    for dim in reversed(range(len(coordinates))):
        digits = [d for d in other.digits if d.source_dim == dim and d.source_stride]
        digits.sort(key=lambda d: -d.source_stride)
        start, place = other.source_offset[dim], dim
        reach = [
            sum((d.size - 1) * d.source_stride for d in digits[n:]) for n in range(len(digits) + 1)
        ]
        keep(place, start, start + reach[0] + 1)
        parts = [_shifted_down(part, dim, start) for part in parts]
        coordinates[dim] = _Coordinate(dim, 1, start, None)
        for digit, below in zip(digits, reach[1:], strict=True):
            step, first = digit.source_stride, coordinates[place].first
            if below >= step:
                return uncut
            if step > 1:
                parts = [cut for part in parts for cut in split(part, place, (1, step))]
                coordinates.insert(place + 1, _Coordinate(dim, 1, 0, None))
            coordinates[place] = _Coordinate(dim, step, first, digit)
            keep(place, 0, digit.size)
            place += step > 1
        if coordinates[place].digit is None:
            keep(place, 0, 1)
        if len(parts) + len(outside) > MAX_TRIED:
            return uncut
    inside = [(_back(part, coordinates), _through(part, coordinates, other)) for part in parts]
    return [*inside, *((part, None) for part in outside)] if inside else uncut


def _shifted_down(atom: Atom, dim: int, by: int) -> Atom:
    offset = list(atom.offset)
    offset[dim] -= by
    return replace(atom, offset=tuple(offset))


def _back(part: Atom, coordinates: Sequence[_Coordinate]) -> Atom:
    """A part with coordinates of the source as its target, as a part of the source."""
    offset = [0] * (1 + max((c.dim for c in coordinates), default=-1))
    for position, c in zip(part.offset, coordinates, strict=True):
        offset[c.dim] += c.first + c.weight * position
    digits = []
    for d in part.digits:
        dim, weight = (coordinates[d.dim].dim, coordinates[d.dim].weight) if d.stride else (0, 0)
        digits.append(AtomDigit(d.size, d.source_dim, d.source_stride, dim, d.stride * weight))
    return replace(
        part, digits=tuple(digits), offset=part.source_offset, source_offset=tuple(offset)
    ).sorted()


def _through(part: Atom, coordinates: Sequence[_Coordinate], other: Atom) -> Atom:
    """A part with coordinates of the source as its target, as a part of another atom's target."""
    offset = list(other.offset)
    for position, c in zip(part.offset, coordinates, strict=True):
        if c.digit is not None:
            offset[c.digit.dim] += c.digit.stride * position
    digits = []
    for d in part.digits:
        walked = coordinates[d.dim].digit if d.stride else None
        dim, stride = (walked.dim, walked.stride) if walked is not None else (0, 0)
        digits.append(AtomDigit(d.size, d.source_dim, d.source_stride, dim, d.stride * stride))
    dtypes = part.dtypes[len(other.dtypes) - 1 :]
    return Atom(tuple(digits), part.source_offset, part.source, tuple(offset), dtypes).sorted()
