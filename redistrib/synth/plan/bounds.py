"""The lower bound: elements that the worst device must receive, whatever the plan.

Worked example, on x=2, y=3 (six devices): `[6, 6{y}] sum{x} -> [6, 6] sum{x}`. An element has
K = 2 addends, one on each of the two devices that hold it. In the target it is again a sum of two
addends, each on the r = 3 devices of a row. Either both addends go to their own row, 2 receipts
each; or one row takes both, which is 1 receipt to bring them together and 2 more for the copies,
and the other row holds zeros. Three receipts an element are the least, 36 elements make 108, and
of six devices the worst takes at least 18 elements.

The proof is in docs/theory.md, section 4, and `proofs/addends.py`. A message holds a value of one
element, computed from addends of that element.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, prod

from redistrib.synth.plan.blocks import block_bound
from redistrib.synth.plan.routing import exchange_traffic, lower_bound
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, apart, is_chain, split_at
from redistrib.types.overlap import held_fraction
from redistrib.types.refinement import Refinement, refine


def lower_bound_elements(
    src: ArrayType, dst: ArrayType, refinement: Refinement | None = None
) -> int:
    """Elements that the worst device must receive on the way from `src` to `dst`.

    `refinement` is that of the two types, where it is known already.

    >>> from redistrib.types.mesh import Mesh
    >>> texts = "i64[6, 6{y}] sum{x}", "i64[6, 6] sum{x}"
    >>> lower_bound_elements(*(ArrayType.parse(text, Mesh(x=2, y=3)) for text in texts))
    18
    """
    if not dst.size:
        return 0
    if src.uneven or dst.uneven:
        return block_bound(src, dst)
    if src.mesh != dst.mesh:
        return _across(src, dst)
    if not (src.partial or dst.partial):
        return lower_bound(src, dst, refinement)
    return ceil(max(_by_worst_row(src, dst), _by_mean(src, dst, refinement)))


def _across(src: ArrayType, dst: ArrayType) -> int:
    """Between two meshes. A partial target on devices of the source has no bound but 0."""
    if not (src.partial or dst.partial):
        return exchange_traffic(src, dst).received
    if not dst.partial:
        return dst.tile_size  # each device that wants a sum receives something of every element
    shared = src.mesh.shares_devices(dst.mesh)
    return 0 if shared else ceil(Fraction(dst.tile_size, _count(dst.partial)))


def _by_worst_row(src: ArrayType, dst: ArrayType) -> Fraction:
    """A row: the devices that differ in the partial digits of the target alone.

    They have one target tile among them, as addends. Of an element of it whose addends are not all
    in the row already, one device of the row receives something.
    """
    addends = _count(dst.partial)
    if _kept(src, dst) < _count(src.partial):
        return Fraction(dst.tile_size, addends)
    cuts = [
        (d.axis, end) for d in dst.partial for end in (d.pre, d.end) if _nested(src, dst, d.axis)
    ]
    same_in_a_row = [
        (device, index)
        for device, index in split_at(src.placements, cuts)
        if all(apart(device, digit) for digit in dst.partial)
    ]
    held = src.replace(placements=same_in_a_row, partial=())
    return Fraction(lower_bound(held, dst.replace(partial=())), addends)


def _by_mean(src: ArrayType, dst: ArrayType, refinement: Refinement | None) -> Fraction:
    """The mean over devices of the receipts that K > 1 addends of an element take.

    Where a row of r devices (copies of one addend of the target) takes several addends, K - 1 + r
    receipts bring the addends together and to each of them, one less if one of them holds an addend
    from the start. An addend that stays on the devices that hold it takes none at all.
    """
    addends, copies = _count(src.partial), _count(dst.free_digits)
    if addends == 1:
        return Fraction(0)
    refinement = refinement or refine(src, dst)
    held = prod((held_fraction(c) for c in refinement.components()), start=Fraction(1))
    receipts = addends + copies - 1 - _saved(src, dst) * held
    return receipts * Fraction(dst.size, dst.mesh.num_devices)


def _saved(src: ArrayType, dst: ArrayType) -> int:
    """Receipts that an element saves that some device both holds and needs."""
    addends, copies = _count(src.partial), _count(dst.free_digits)
    if not dst.partial or _releases(src, dst):
        return 1  # no addend is on all the devices that want it
    kept = _kept(src, dst)
    if kept == addends:
        return addends + copies - 1  # all of them
    nested = all(_nested(src, dst, name) for name, _ in src.mesh.axes)
    return kept if nested else min(kept, addends) + copies - 1


def _kept(src: ArrayType, dst: ArrayType) -> int:
    """The most addends of an element that may stay as they are: those of the common digits."""
    if src.partial and dst.partial and src.reduction != dst.reduction:
        return 1
    kept = 1
    for name, _ in src.mesh.axes:
        before, after = ([d for d in t.partial if d.axis == name] for t in (src, dst))
        if _nested(src, dst, name):
            kept *= prod(_common(a, b) for a in before for b in after)
        else:
            kept *= min(_count(before), _count(after))
    return kept


def _releases(src: ArrayType, dst: ArrayType) -> bool:
    """Whether a digit that owns or is partial in the source is free in the target."""
    return any(
        _common(digit, free) > 1
        for digit in _used(src)
        for free in dst.free_digits
        if digit.axis == free.axis and _nested(src, dst, digit.axis)
    )


def _nested(src: ArrayType, dst: ArrayType, axis: str) -> bool:
    """Whether the digits of both types cut an axis into a chain."""
    digits = [d for t in (src, dst) for d in _used(t) if d.axis == axis]
    return is_chain(sorted({bound for d in digits for bound in (d.pre, d.end)}))


def _used(t: ArrayType) -> tuple[DeviceDigit, ...]:
    return (*t.owners, *t.partial)


def _common(a: DeviceDigit, b: DeviceDigit) -> int:
    """The size of what two digits of an axis have in common, where their bounds are a chain."""
    return max(min(a.end, b.end) // max(a.pre, b.pre), 1)


def _count(digits: tuple[DeviceDigit, ...] | list[DeviceDigit]) -> int:
    return prod(digit.size for digit in digits)
