"""Common refinement: cut dimensions and axes so that two types share their digits.

A cut is a divisor of an object (a dimension or an axis): the number of positions before it. A use
of an axis digit in a dimension maps cuts of the one to cuts of the other, so cuts propagate. The
least fixpoint U of the cuts that the two types make is unique; the pair is *aligned* iff every U is
a divisibility chain, and then every index digit is local or owned by one device digit of its size,
in both types. Otherwise the largest chain of cuts that all of them respect splits the pair into
*components*: runs of dimensions and axes joined by a use, independent of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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

    def components(self) -> list[Component]:
        """The components that some use joins, in order of dimensions. Idle axes are in none."""
        if not self._components:
            self._components.extend(self._join())
        return self._components

    def _join(self) -> Iterable[Component]:
        # Runs are numbered: dimension runs, then axis runs.
        runs: list[IndexDigit | DeviceDigit] = [run for dim in self.dims for run in dim]
        runs += self.axes
        number = {run: at for at, run in enumerate(runs)}

        def run_of(digit: IndexDigit | DeviceDigit) -> int:
            found = number.get(digit)
            if found is None:  # a piece of a misaligned run
                found = next(at for at, run in enumerate(runs) if inside(digit, run))
            return found

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
        whole = dict.fromkeys(map(id, group.values()), True)
        for at, (a, b, device, index) in enumerate(uses):
            key = id(group[a])
            sides = of_group.setdefault(key, ([], []))
            sides[at >= len(self.src)].append((device, index))
            whole[key] &= runs[a] == index and runs[b] == device
        count = len(runs) - len(self.axes)
        for key, members in {id(group[at]): group[at] for at in sorted(group)}.items():
            members.sort()
            src, dst = of_group[key]
            yield Component(
                tuple(r for n in members if n < count and isinstance(r := runs[n], IndexDigit)),
                tuple(r for n in members if n >= count and isinstance(r := runs[n], DeviceDigit)),
                tuple(src),
                tuple(dst),
                whole[key],
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
    sizes = _sizes(src)
    orig, uses = _own_cuts((src, dst))
    least = _closed(orig, uses)
    cuts = {obj: sorted(found) for obj, found in least.items()}
    aligned = all(is_chain(chain) for chain in cuts.values())
    if not aligned:
        cuts = _common_chains(orig, least, sizes, uses, src, dst)
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
) -> tuple[dict[_Object, set[int]], dict[_Object, list[_Use]]]:
    """The cuts that types of one shape and mesh make themselves, and the uses of each object."""
    uses: dict[_Object, list[_Use]] = {}
    orig: dict[_Object, set[int]] = {obj: {1, max(n, 1)} for obj, n in _sizes(types[0]).items()}
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


def _closed(
    orig: dict[_Object, set[int]], uses: dict[_Object, list[_Use]]
) -> dict[_Object, set[int]]:
    least = {obj: set(cuts) for obj, cuts in orig.items()}
    # The first and the last cut of an object are inside no use.
    _propagate(least, [(obj, c) for obj, cuts in orig.items() for c in sorted(cuts)[1:-1]], uses)
    return least


def check_pair(src: ArrayType, dst: ArrayType) -> None:
    """Raise LayoutError unless both types have one mesh, one shape and one dtype."""
    check_array(src, dst)
    _check_same("mesh", src, dst, src.mesh, dst.mesh)


def check_array(src: ArrayType, dst: ArrayType) -> None:
    """Raise LayoutError unless both types have one shape and one dtype."""
    _check_same("shape", src, dst, list(src.shape), list(dst.shape))
    _check_same("dtype", src, dst, src.dtype, dst.dtype)


def _check_same(what: str, src: ArrayType, dst: ArrayType, a: object, b: object) -> None:
    if a != b:
        raise LayoutError(f"source and target have one {what}; got {a} and {b}", src=src, dst=dst)


def _images(
    obj: _Object, cut: int, uses: dict[_Object, list[_Use]]
) -> Iterable[tuple[_Object, int]]:
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
    cuts: dict[_Object, set[int]],
    new: list[tuple[_Object, int]],
    uses: dict[_Object, list[_Use]],
) -> None:
    while new:
        obj, cut = new.pop()
        for other, image in _images(obj, cut, uses):
            if image not in cuts[other]:
                cuts[other].add(image)
                new.append((other, image))


def _common_chains(
    orig: dict[_Object, set[int]],
    least: dict[_Object, set[int]],
    sizes: dict[_Object, int],
    uses: dict[_Object, list[_Use]],
    src: ArrayType,
    dst: ArrayType,
) -> dict[_Object, list[int]]:
    """The cuts of a misaligned pair that both types respect, a chain per object."""

    def comparable(cut: int, cuts: Iterable[int]) -> bool:
        return all(cut % c == 0 or c % cut == 0 for c in cuts)

    allowed = {
        obj: {c for c in divisors(max(n, 1)) if comparable(c, orig[obj])}
        for obj, n in sizes.items()
    }
    shrinking = True
    while shrinking:  # greatest fixpoint: a cut stays while all its images stay
        shrinking = False
        for obj, found in allowed.items():
            for c in list(found):
                if any(image not in allowed[other] for other, image in _images(obj, c, uses)):
                    found.discard(c)
                    shrinking = True
    cuts = {obj: least[obj] & allowed[obj] for obj in orig}

    def own_cuts(t: ArrayType) -> dict[_Object, list[int]]:
        found: dict[_Object, set[int]] = {obj: set(cuts[obj]) for obj in cuts}
        for dim, factors in enumerate(t.dims):
            lo = 1
            for factor in factors:
                found[dim] |= {lo, lo * factor.size}
                if isinstance(factor, DeviceDigit):
                    found[factor.axis] |= {factor.pre, factor.end}
                lo *= factor.size
        for factor in t.partial:
            found[factor.axis] |= {factor.pre, factor.end}
        return {obj: sorted(c) for obj, c in found.items()}

    def close(obj: _Object, cut: int) -> bool:
        """Add a cut with its images when all of them are allowed and comparable."""
        group: dict[_Object, set[int]] = {o: set() for o in cuts}
        group[obj].add(cut)
        _propagate(group, [(obj, cut)], uses)
        for other, more in group.items():
            for c in more:
                if c not in allowed[other] or not comparable(c, cuts[other] | more):
                    return False
        if all(more <= cuts[other] for other, more in group.items()):
            return False
        for other, more in group.items():
            cuts[other] |= more
        return True

    growing = True
    while growing:
        growing = False
        for obj, (ours, theirs) in {
            obj: (a, b)
            for (obj, a), b in zip(own_cuts(src).items(), own_cuts(dst).values(), strict=True)
        }.items():
            for a, a_next in pairwise(ours):
                for b, b_next in pairwise(theirs):
                    low, high = lcm(a, b), gcd(a_next, b_next)
                    if high % low == 0:
                        for cut in sorted({low, high} - cuts[obj]):
                            growing |= close(obj, cut)
    return {obj: sorted(found) for obj, found in cuts.items()}


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
