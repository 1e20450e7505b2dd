"""The lower bound of a pair, derived from its digits alone; the planner has its own derivation.

An element of a partial sum has some *addends*, one per value of the partial digits. A *row* is the
devices that differ in the partial digits of the target only: one tile of it, as addends.

On x=2,y=3, from `[6, 6{y}] sum{x}` to `[6, 6] sum{x}`, an element has 2 addends, and each addend of
the target is on 3 devices. 2 - 1 + 3 receipts bring the addends together and to all copies, one
less since a device that wants their sum holds one: 3 for each of 36 elements, over 6 devices 18.

>>> from redistrib.types.mesh import Mesh
>>> texts = "f32[6, 6{y}] sum{x}", "f32[6, 6] sum{x}"
>>> lower_bound(*(ArrayType.parse(text, Mesh(x=2, y=3)) for text in texts))
18
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil, prod

from redistrib.checker.blocks import block_bound
from redistrib.checker.claims import Effort
from redistrib.checker.parts import parts_of, size_of
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, apart, inside, split_at


def lower_bound(src: ArrayType, dst: ArrayType, effort: Effort | None = None) -> int:
    """Elements that the worst device must receive (docs/theory.md, section 4)."""
    if not src.size:
        return 0
    effort = effort or Effort()
    if src.uneven or dst.uneven:
        return block_bound(src, dst, effort)
    addends, rows = size_of(src.partial), size_of(dst.partial)
    if addends == rows == 1:
        if src.mesh != dst.mesh and not src.mesh.shares_devices(dst.mesh):
            return dst.tile_size
        return dst.tile_size - prod(part.least_overlap() for part in parts_of(src, dst, effort))
    if src.mesh != dst.mesh:
        shared = src.mesh.shares_devices(dst.mesh)
        return 0 if shared and rows > 1 else -(-dst.tile_size // rows)
    stay, released, nested = _what_stays(src, dst)
    row = dst.tile_size
    if stay == addends:  # what all devices of a row, which differ in partial digits only, hold
        cuts = {(d.axis, end) for d in dst.partial for end in (d.pre, d.end) if d.axis in nested}
        pieces = split_at(src.placements, cuts)
        fixed = [(d, i) for d, i in pieces if all(apart(d, digit) for digit in dst.partial)]
        held = src.replace(placements=fixed, partial=())
        parts = parts_of(held, dst.replace(partial=()), effort)
        row -= prod(part.least_overlap() for part in parts)
    if addends == 1:
        return -(-row // rows)
    copies = size_of(dst.free_digits)
    all_nested = {name for name, _ in src.mesh.axes} <= nested
    saved = stay + (copies - 1) * (stay == addends or not all_nested)
    saved = 1 if released or rows == 1 else min(saved, addends + copies - 1)
    receipts = (
        addends + copies - 1 - saved * prod(part.held() for part in parts_of(src, dst, effort))
    )
    return ceil(max(Fraction(row, rows), receipts * Fraction(dst.size, dst.mesh.num_devices)))


def _what_stays(src: ArrayType, dst: ArrayType) -> tuple[int, bool, set[str]]:
    """How many addends of an element may stay, whether a digit in use becomes free, nested axes."""
    stay, released, nested = 1, False, set()
    for axis, size in src.mesh.axes:
        before, after = ([d for d in t.partial if d.axis == axis] for t in (src, dst))
        used = [
            [*partial, *(d for d, _ in t.placements if d.axis == axis)]
            for t, partial in ((src, before), (dst, after))
        ]
        ends = sorted({1, size, *(end for d in used[0] + used[1] for end in (d.pre, d.end))})
        if any(b % a for a, b in pairwise(ends)):
            stay *= min(size_of(before), size_of(after))
            continue
        nested.add(axis)
        for low, high in pairwise(ends):
            in_src, in_dst, partial_before, partial_after = (
                any(inside(DeviceDigit(axis, low, high // low), d) for d in digits)
                for digits in (*used, before, after)
            )
            stay *= high // low if partial_before and partial_after else 1
            released |= in_src and not in_dst
    other = src.partial and dst.partial and src.reduction != dst.reduction
    return 1 if other else stay, released, nested
