"""Common refinement: cut dimensions and axes so that two types share their digits.

A cut is a divisor of an object (a dimension or an axis): the number of positions before it. A use
of an axis digit in a dimension maps cuts of the one to cuts of the other, so cuts propagate. The
least fixpoint U of the cuts that the two types make is unique; the pair is *aligned* iff every U is
a divisibility chain, and then every index digit is local or owned by one device digit of its size,
in both types. Otherwise the largest chain of cuts that all of them respect splits the pair into
*components*: runs of dimensions and axes joined by a use, independent of each other.

On x=4,y=2, `f32[8{x}] -> f32[8{y}]` the target cuts the dimension at 2, which falls inside x and
cuts it at 2 as well. On x=6, `f32[12{x}] -> f32[12{_2,x}]` cuts x at 2 and at 3: not aligned.

>>> from redistrib.types.mesh import Mesh
>>> mesh = Mesh(x=4, y=2)
>>> src, dst = (ArrayType.parse(text, mesh) for text in ("f32[8{x}]", "f32[8{y}]"))
>>> common_cuts([src, dst])
{0: [1, 2, 4, 8], 'x': [1, 2, 4], 'y': [1, 2]}
>>> [str(digit) for digit in refine(src, dst).src], [str(digit) for digit in refine(src, dst).dst]
(['x:(1)2', 'x:(2)2'], ['y:(1)2'])
>>> six = Mesh(x=6)
>>> refine(*(ArrayType.parse(text, six) for text in ("f32[12{x}]", "f32[12{_2,x}]"))).aligned
False
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from math import gcd, lcm

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    cut,
    divisors,
    inside,
    is_chain,
)

_Object = int | str  # a dimension or an axis
_Use = tuple[int, int, int, str, int]  # dim, lo, hi, axis, pre: axis digit owns [lo, hi) of dim
_Uses = dict[_Object, list[_Use]]
_Cuts = dict[_Object, set[int]]


@dataclass(frozen=True, slots=True)
class Component:
    """Runs of dimensions and of axes joined by a use; `aligned` if its runs are single digits."""

    dims: tuple[IndexDigit, ...]
    axes: tuple[DeviceDigit, ...]
    src: tuple[Placement, ...]
    dst: tuple[Placement, ...]
    aligned: bool


@dataclass(frozen=True, slots=True)
class Refinement:
    """The common digits of two types.

    `dims[i]` are the cut runs of dimension i, `axes` those of all axes in mesh order; `src` and
    `dst` give, per device digit, the index digit it owns on either side, split at the cuts.
    """

    aligned: bool
    dims: tuple[tuple[IndexDigit, ...], ...]
    axes: tuple[DeviceDigit, ...]
    src: dict[DeviceDigit, IndexDigit]
    dst: dict[DeviceDigit, IndexDigit]
    _components: list[Component] = field(default_factory=list, repr=False, compare=False)

    @property
    def changed(self) -> tuple[DeviceDigit, ...]:
        """The device digits that own something else in the target than in the source."""
        src, dst = self.src, self.dst
        return tuple(d for d in sorted({*src, *dst}) if src.get(d) != dst.get(d))

    def components(self) -> list[Component]:
        """The components that some use joins, in order of dimensions. Idle axes are in none."""
        if not self._components:
            self._components[:] = [*self._join()]  # at once: several threads may ask
        return self._components

    def _join(self) -> Iterable[Component]:
        # Runs are numbered: dimension runs, then axis runs.
        runs: list[IndexDigit | DeviceDigit] = [run for dim in self.dims for run in dim]
        runs += self.axes
        number = {run: n for n, run in enumerate(runs)}

        def run_of(digit: IndexDigit | DeviceDigit) -> int:
            known = number.get(digit)
            if known is None:  # a piece of a misaligned run
                known = next(n for n, run in enumerate(runs) if inside(digit, run))
            return known

        group: dict[int, list[int]] = {}
        uses = []
        for placements in (self.src, self.dst):
            for device, index in placements.items():
                a, b = run_of(index), run_of(device)
                uses.append((a, b, device, index))
                first, second = group.setdefault(a, [a]), group.setdefault(b, [b])
                if first is not second:
                    first += second
                    for member in second:
                        group[member] = first
        of_group: dict[int, tuple[list[Placement], list[Placement]]] = {}
        aligned = dict.fromkeys(map(id, group.values()), True)
        for place, (a, b, device, index) in enumerate(uses):
            key = id(group[a])
            sides = of_group.setdefault(key, ([], []))
            sides[place >= len(self.src)].append((device, index))
            aligned[key] &= runs[a] == index and runs[b] == device
        count = len(runs) - len(self.axes)
        for key, members in {id(group[run]): group[run] for run in sorted(group)}.items():
            members.sort()
            src, dst = of_group[key]
            yield Component(
                tuple(r for n in members if n < count and isinstance(r := runs[n], IndexDigit)),
                tuple(r for n in members if n >= count and isinstance(r := runs[n], DeviceDigit)),
                tuple(src),
                tuple(dst),
                aligned[key],
            )


def refine(src: ArrayType, dst: ArrayType) -> Refinement:
    """The common refinement of two types over the same shape and mesh (docs/theory.md, section 3).

    >>> from redistrib.types.mesh import Mesh
    >>> mesh = Mesh(x=4, y=2)
    >>> r = refine(ArrayType.parse("f32[8{x}]", mesh), ArrayType.parse("f32[8{y}]", mesh))
    >>> r.aligned, [str(d) for d in r.dims[0]], [str(d) for d in r.axes]
    (True, ['0:(1)2', '0:(2)2', '0:(4)2'], ['x:(1)2', 'x:(2)2', 'y:(1)2'])
    """
    check_pair(src, dst)
    orig, uses = _own_cuts((src, dst))
    least = _closed(orig, uses)
    cuts = {obj: sorted(positions) for obj, positions in least.items()}
    aligned = all(is_chain(chain) for chain in cuts.values())
    if not aligned:
        cuts = _common_chains(orig, least, _sizes(src), uses, (src, dst))
    dims = tuple(
        [
            tuple([IndexDigit(dim, a, b // a) for a, b in pairwise(cuts[dim])])
            for dim in range(len(src.shape))
        ]
    )
    axes = tuple(
        [DeviceDigit(name, a, b // a) for name, _ in src.mesh.axes for a, b in pairwise(cuts[name])]
    )
    return Refinement(aligned, dims, axes, _split(src, cuts), _split(dst, cuts))


def common_cuts(types: Sequence[ArrayType]) -> dict[int | str, list[int]]:
    """Per dimension and axis the cuts of all types, closed under all their uses, ascending.

    The least fixpoint U of `refine`, for any number of types of one shape and mesh.
    """
    return {obj: sorted(cuts) for obj, cuts in _closed(*_own_cuts(types)).items()}


def _sizes(t: ArrayType) -> dict[_Object, int]:
    return {**dict(enumerate(t.shape)), **dict(t.mesh.axes)}


def _own_cuts(
    types: Sequence[ArrayType],
) -> tuple[_Cuts, _Uses]:
    """The cuts that types of one shape and mesh make themselves, and the uses of each object."""
    uses: _Uses = {}
    orig: _Cuts = {obj: {1, max(n, 1)} for obj, n in _sizes(types[0]).items()}
    for t in types:
        for dim, factors in enumerate(t.dims):
            lo = 1
            for factor in factors:
                hi = lo * factor.size
                orig[dim].add(hi)
                if isinstance(factor, DeviceDigit):
                    use = (dim, lo, hi, factor.axis, factor.pre)
                    uses.setdefault(dim, []).append(use)
                    uses.setdefault(factor.axis, []).append(use)
                    orig[factor.axis] |= {factor.pre, factor.end}
                lo = hi
        for factor in t.partial:
            orig[factor.axis] |= {factor.pre, factor.end}
    return orig, uses


def _closed(orig: _Cuts, uses: _Uses) -> _Cuts:
    least = {obj: set(cuts) for obj, cuts in orig.items()}
    # The first and the last cut of an object are inside no use.
    _propagate(least, [(obj, c) for obj, cuts in orig.items() for c in sorted(cuts)[1:-1]], uses)
    return least


def check_pair(src: ArrayType, dst: ArrayType) -> None:
    """Raise LayoutError unless both types have one mesh, one shape, one dtype, and are even."""
    check_array(src, dst)
    for t in (src, dst):
        if t.uneven:
            raise LayoutError(f"digits are of even types; got {t}", type=t)
    _check_same("mesh", src, dst, src.mesh, dst.mesh)


def check_array(src: ArrayType, dst: ArrayType) -> None:
    """Raise LayoutError unless both types have one shape and one dtype."""
    _check_same("shape", src, dst, list(src.shape), list(dst.shape))
    _check_same("dtype", src, dst, src.dtype, dst.dtype)


def _check_same(subject: str, src: ArrayType, dst: ArrayType, a: object, b: object) -> None:
    if a != b:
        raise LayoutError(
            f"source and target have one {subject}; got {a} and {b}", src=src, dst=dst
        )


def _images(obj: _Object, cut: int, uses: _Uses) -> Iterable[tuple[_Object, int]]:
    """Where a cut strictly inside a use falls on the other side of the use."""
    for dim, lo, hi, axis, pre in uses.get(obj, ()):
        if isinstance(obj, int):
            if lo < cut < hi and cut % lo == 0 and hi % cut == 0:
                yield axis, pre * (cut // lo)
        else:
            end = pre * (hi // lo)
            if pre < cut < end and cut % pre == 0 and end % cut == 0:
                yield dim, lo * (cut // pre)


def _propagate(
    cuts: _Cuts,
    new: list[tuple[_Object, int]],
    uses: _Uses,
) -> None:
    while new:
        obj, cut = new.pop()
        for other, image in _images(obj, cut, uses):
            if image not in cuts[other]:
                cuts[other].add(image)
                new.append((other, image))


def _common_chains(
    orig: _Cuts, least: _Cuts, sizes: dict[_Object, int], uses: _Uses, ends: Sequence[ArrayType]
) -> dict[_Object, list[int]]:
    """The cuts of a misaligned pair that both types respect, a chain per object."""
    allowed = _respected(orig, sizes, uses)
    cuts = {obj: least[obj] & allowed[obj] for obj in orig}
    added = 1
    while added:
        added = sum(_add(joint, cuts, allowed, uses) for joint in _joints(cuts, ends))
    return {obj: sorted(positions) for obj, positions in cuts.items()}


def _respected(orig: _Cuts, sizes: dict[_Object, int], uses: _Uses) -> _Cuts:
    """The cuts that both types respect: comparable to theirs, as are all the images.

    A greatest fixpoint: a cut goes when one of its images has gone.
    """
    allowed = {
        obj: {c for c in divisors(max(n, 1)) if comparable(c, orig[obj])}
        for obj, n in sizes.items()
    }
    while gone := [
        (obj, c)
        for obj, cuts in allowed.items()
        for c in cuts
        if any(image not in allowed[other] for other, image in _images(obj, c, uses))
    ]:
        for obj, c in gone:
            allowed[obj].discard(c)
    return allowed


def _joints(cuts: _Cuts, ends: Sequence[ArrayType]) -> list[tuple[_Object, int]]:
    """Cuts that may part a run of the source from one of the target that overlaps it.

    Where the runs [a, a') and [b, b') of the two sides overlap, everything from lcm(a, b) down to
    gcd(a', b') is inside both.
    """
    joints = []
    sides = [_sorted_union(cuts, _own_cuts([t])[0]) for t in ends]
    for obj in cuts:
        for (a, a_next), (b, b_next) in product(*(pairwise(side[obj]) for side in sides)):
            low, high = lcm(a, b), gcd(a_next, b_next)
            if high % low == 0:
                joints += [(obj, joint) for joint in sorted({low, high} - cuts[obj])]
    return joints


def _sorted_union(cuts: _Cuts, more: _Cuts) -> dict[_Object, list[int]]:
    return {obj: sorted(cuts[obj] | more[obj]) for obj in cuts}


def _add(joint: tuple[_Object, int], cuts: _Cuts, allowed: _Cuts, uses: _Uses) -> bool:
    """Add a cut with its images when all of them are allowed and comparable; whether it was new."""
    group: _Cuts = {obj: set() for obj in cuts}
    group[joint[0]].add(joint[1])
    _propagate(group, [joint], uses)
    if all(more <= cuts[obj] for obj, more in group.items()):
        return False
    for obj, more in group.items():
        if not (more <= allowed[obj] and all(comparable(c, cuts[obj] | more) for c in more)):
            return False
    for obj, more in group.items():
        cuts[obj] |= more
    return True


def comparable(cut: int, cuts: Iterable[int]) -> bool:
    """Whether a cut divides each of the others or is divided by it."""
    return all(cut % c == 0 or c % cut == 0 for c in cuts)


def _split(t: ArrayType, cuts: dict[_Object, list[int]]) -> dict[DeviceDigit, IndexDigit]:
    """The placements of a type, split wherever a cut of the dimension falls inside one."""
    pieces = {}
    for device, index in t.placements:
        within = [c for c in cuts[index.dim] if index.pre < c < index.end]
        if not within:
            pieces[device] = index
            continue
        for part in cut(index, within):
            pre = device.pre * (part.pre // index.pre)
            pieces[DeviceDigit(device.axis, pre, part.size)] = part
    return pieces
