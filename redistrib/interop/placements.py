"""DTensor placements, read and written as digits of the array that are left on the device.

Placements apply from left to right to what is left on the device. Shard(d) takes the most
significant local digit of dimension d; _StridedShard(d, split_factor) the one that has split_factor
positions before it, in what is local at that moment. So a strided shard is a type like any other,
and a local factor before an axis (block-cyclic, fused QKV) is one with nothing to its right. On
dp=2,tp=4, `[_StridedShard(dim=0, sf=4), Shard(dim=0)]` of 16 elements: dp takes the digit of size 2
with 4 positions before it, `0:(4)2`, and tp the most significant of what is left, `0:(1)4`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

from redistrib.errors import LayoutError
from redistrib.interop.words import no_word, whole_partial
from redistrib.synth.planner.prime_digits import merge_state
from redistrib.text import Scanner
from redistrib.types import dtypes
from redistrib.types.array_type import ArrayType
from redistrib.types.canonical import uneven
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, is_chain
from redistrib.types.mesh import Mesh

_REDUCTIONS = {"sum": "sum", "product": "prod", "max": "max", "min": "min"}
_NAMES = {reduction: name for name, reduction in _REDUCTIONS.items()}
_WORD = re.compile(r"[a-z_]+")
# The compact form runs them together: `RP(sum)S(0)`.
_NAME = re.compile(
    r"_StridedShard|_SS|_S|Shard|S|Replicate|R|_NormPartial|_NormP|_?MaskPartial|_?MaskP|Partial|P"
)
_PLACEMENT = "Shard, Replicate, Partial or _StridedShard, or S, R, P or _S"


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard of a dimension, with `before` local positions before it; `order` if one is stated."""

    dim: int
    before: int
    order: int | None
    column: int


def format_dtensor(t: ArrayType) -> str:
    """The placements of a type, strided where an axis is not the most significant one left.

    >>> format_dtensor(ArrayType(Mesh(dp=2, tp=4), "f32", (16,), [("tp", "dp")]))
    '[_StridedShard(dim=0, sf=4), Shard(dim=0)]'

    Raises LayoutError for what placements have no word for.
    """
    partial = set(whole_partial(t, "a DTensor placement"))
    tile = _Tile(t.shape)
    words = []
    for axis, size in t.mesh.axes:
        owned = [placement for placement in t.placements if placement[0].axis == axis]
        if axis in partial:
            words.append(f"Partial({_NAMES[t.reduction or 'sum']})")
        elif owned:
            owned.sort()
            first = owned[0][1]
            before = tile.before(first)
            try:
                taken = tile.take(DeviceDigit(axis, 1, size), first.dim, before)
            except LayoutError:
                taken = []
            if merge_state(dict(taken)) != merge_state(dict(owned)):
                raise no_word("a DTensor placement", f"what {axis} owns", t)
            strided = f"_StridedShard(dim={first.dim}, sf={before})"
            words.append(f"Shard(dim={first.dim})" if before == 1 else strided)
        else:
            words.append("Replicate()")
    return f"[{', '.join(words)}]"


class _Tile:
    """The index digits of an array that are local still, per dimension, major to minor."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.local = [[IndexDigit(dim, 1, n)] for dim, n in enumerate(shape)]

    def take(self, device: DeviceDigit, dim: int, before: int) -> list[Placement]:
        """Give a device digit the local digit of its size that has `before` positions before it.

        That digit may consist of several digits of the array. Raises LayoutError where it is not
        nested with them or does not divide what is left.
        """
        left = prod(digit.size for digit in self.local[dim])
        if device.size == 1 or not left:
            return []  # nothing to own
        if left % (before * device.size):
            what = f"{left} local positions of dimension {dim} for a shard over {device.size}"
            factor = f" devices with split factor {before}" if before > 1 else " devices"
            raise uneven(left, before * device.size, what + factor)
        rest: list[IndexDigit] = []
        taken: list[Placement] = []
        low, high = before, before * device.size
        start = 1
        for digit in self.local[dim]:
            end = start * digit.size
            cuts = [start, *(cut for cut in (low, high) if start < cut < end), end]
            if not is_chain(cuts):
                break
            for a, b in pairwise(cuts):
                piece = IndexDigit(dim, digit.pre * (a // start), b // a)
                if low <= a and b <= high:
                    taken.append((DeviceDigit(device.axis, device.pre * (a // low), b // a), piece))
                elif b > a:
                    rest.append(piece)
            start = end
        else:
            if prod(owner.size for owner, _ in taken) == device.size:
                self.local[dim] = rest
                return taken
        sizes = [digit.size for digit in self.local[dim]]
        raise LayoutError(
            f"a shard over {device.size} devices with split factor {before} nests "
            f"in the local digits of dimension {dim}; got digits of sizes {sizes}",
            dim=dim,
        )

    def before(self, index: IndexDigit) -> int:
        """Local positions before an index digit of the array."""
        count = 1
        for digit in self.local[index.dim]:
            if digit.pre <= index.pre < digit.end:
                return count * (index.pre // digit.pre)
            count *= digit.size
        return count


@dataclass(frozen=True, slots=True)
class Array:
    """What is known of an array before its placements are read: given, or stated by the text."""

    mesh: Mesh | None
    shape: tuple[int, ...] | None
    dtype: object

    def stated(self, scanner: Scanner, column: int, **fields: Any) -> Array:
        """With what the text states at a column, which is what was given if anything was."""
        for name, value in fields.items():
            given = getattr(self, name)
            if name == "dtype" and given is not None:
                given = dtypes.dtype_name(given)
            if given is not None and given != value:
                scanner.fail(f"the given {name}, {given!r}", column)
        return replace(self, **fields)


def read_placements(
    scanner: Scanner, array: Array, start: int, orders: dict[int, list[int]] | None = None
) -> ArrayType:
    """The type of an array with the placements that begin at `start`, an index of the text.

    `orders` gives, per tensor dimension, the mesh dimensions that shard it, first to last.
    """
    scanner.at = start
    mesh, shape, dtype = array.mesh, array.shape, array.dtype
    missing = "a text that states the {}, as none is given"
    if mesh is None:
        scanner.fail(missing.format("mesh"), start + 1)
    if shape is None:
        scanner.fail(missing.format("shape"), start + 1)
    if dtype is None:
        scanner.fail(missing.format("dtype"), start + 1)
    bracket = scanner.accept("[", "(")
    close = {"[": "]", "(": ")", None: None}[bracket]
    shards: list[tuple[DeviceDigit, _Shard]] = []
    partial: list[str] = []
    reduction = "sum"
    for at, (axis, size) in enumerate(mesh.axes):
        if at and not scanner.accept(",") and bracket == "[":
            scanner.fail(f"',' and a placement for each of the {len(mesh.axes)} mesh dimensions")
        column = scanner.column
        match scanner.take(_NAME, _PLACEMENT):
            case "_StridedShard" | "_S" | "_SS":
                shard = _shard(scanner, len(shape), column, strided=True)
                shards.append((DeviceDigit(axis, 1, size), shard))
            case "Shard" | "S":
                shard = _shard(scanner, len(shape), column)
                for place, number in enumerate((orders or {}).get(shard.dim, ())):
                    if number == at:
                        shard = replace(shard, order=place)
                shards.append((DeviceDigit(axis, 1, size), shard))
            case "Partial" | "P":
                name = _reduction(scanner)
                if partial and name != reduction:
                    scanner.fail(f"one reduction for all, {_NAMES[reduction]}", column)
                partial.append(axis)
                reduction = name
            case "Replicate" | "R":
                if scanner.accept("("):
                    scanner.expect(")")
            case word:
                scanner.fail(f"a layout; {word} is no reduction of elements", column)
    if close:
        scanner.accept(",")
        scanner.expect(close)
    tile = _Tile(shape)
    placements: list[Placement] = []
    for device, shard in _in_order(shards, scanner):
        placements += tile.take(device, shard.dim, shard.before)
    summed = ArrayType(mesh, dtype, shape, partial=partial, reduction=reduction)
    return summed.replace(placements=placements)


def _shard(scanner: Scanner, rank: int, start: int, *, strided: bool = False) -> _Shard:
    """What follows the name of a shard, which is at column `start`."""
    scanner.expect("(")
    if scanner.accept("dim"):
        scanner.expect("=")
    column = scanner.column
    negative = scanner.accept("-")
    dim = scanner.integer("a tensor dimension")
    dim = rank - dim if negative else dim
    if not 0 <= dim < rank:
        scanner.fail(f"a tensor dimension below {rank}", column)
    before = 1
    if strided:
        scanner.expect(",")
        if scanner.accept("split_factor", "sf"):
            scanner.expect("=")
        before = scanner.integer("a split factor", 1)
    scanner.expect(")")
    order = None
    if scanner.accept("["):
        order = scanner.integer("the order of this shard")
        scanner.expect("]")
    return _Shard(dim, before, order, start)


def _reduction(scanner: Scanner) -> str:
    """What follows the name of a partial placement; nothing stands for a sum."""
    if not scanner.accept("(") or scanner.accept(")"):
        return "sum"
    if scanner.accept("reduce_op"):
        scanner.expect("=")
    column = scanner.column
    quote = scanner.accept("'", '"')
    name = scanner.take(_WORD, "a reduction")
    if name not in _REDUCTIONS:
        scanner.fail(f"one of {', '.join(_REDUCTIONS)}", column)
    if quote:
        scanner.expect(quote)
    scanner.expect(")")
    return _REDUCTIONS[name]


def _in_order(
    shards: Sequence[tuple[DeviceDigit, _Shard]], scanner: Scanner
) -> list[tuple[DeviceDigit, _Shard]]:
    """Shards as they apply: left to right, or per tensor dimension in the order that is stated."""
    result = list(shards)
    for dim in {shard.dim for _, shard in shards}:
        places = [at for at, (_, shard) in enumerate(shards) if shard.dim == dim]
        orders = [shards[at][1].order for at in places]
        if all(order is None for order in orders):
            continue
        column = shards[places[0]][1].column
        if sorted(order for order in orders if order is not None) != list(range(len(places))):
            scanner.fail(f"an order [0] to [{len(places) - 1}] on each shard of {dim}", column)
        for at, place in zip(places, orders, strict=True):
            if place is not None:
                result[places[place]] = shards[at]
    return result
