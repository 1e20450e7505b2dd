"""DTensor placements, read and written as digits of the array that are left on the device.

Placements apply from left to right to what is left on the device. Shard(d) takes the most
significant local digit of dimension d; _StridedShard(d, split_factor) the one that has split_factor
positions before it, in what is local at that moment. So a strided shard is a type like any other,
and a local factor before an axis (block-cyclic, fused QKV) is one with nothing to its right. On
dp=2,tp=4, `[_StridedShard(dim=0, sf=4), Shard(dim=0)]` of 16 elements: dp takes the digit of size 2
with 4 positions before it, `0:(4)2`, and tp the most significant of what is left, `0:(1)4`. Of 10
elements, tp has blocks of 3, 3, 3 and 1, and dp cuts each of these: `10{tp,dp}:nested`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from math import prod
from typing import Any

import numpy as np

from redistrib.errors import LayoutError
from redistrib.interop.words import no_word, whole_partial
from redistrib.synth.planner.prime_digits import merge_state
from redistrib.text import Scanner
from redistrib.types import dtypes
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, Positions, is_chain
from redistrib.types.mesh import Mesh
from redistrib.types.uneven import NESTED

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

    Where blocks are uneven, axes that do not cut from left to right have their order stated, as in
    `Shard(dim=0)[1]`: strided shards would be others. Raises LayoutError for what placements have
    no word for.
    """
    partial = set(whole_partial(t, "a DTensor placement"))
    t, stated = _as_if_even(t)
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
            if axis in stated:
                words.append(f"Shard(dim={first.dim})[{stated[axis]}]")
            else:
                words.append(f"Shard(dim={first.dim})" if before == 1 else strided)
        else:
            words.append("Replicate()")
    return f"[{', '.join(words)}]"


def _as_if_even(t: ArrayType) -> tuple[ArrayType, dict[str, int]]:
    """A type with the same placements, in which a dimension cut in turns has one row per device.

    Also the turns of axes that do not cut an uneven dimension from left to right. Raises
    LayoutError for uneven blocks that no order of axes cuts, each by ceil what is left.
    """
    shape, dims, stated = [*t.shape], [*t.dims], dict[str, int]()
    for dim, rule in t.uneven:
        owners = {f.axis for f in t.dims[dim] if isinstance(f, DeviceDigit)}
        axes = [name for name, _ in t.mesh.axes if name in owners]  # first tried as they are
        dimension = ArrayType(t.mesh, t.dtype, [shape[dim]], [dims[dim]], uneven={0: rule})
        for order in permutations(axes):
            by_turns = ArrayType(t.mesh, t.dtype, [shape[dim]], [order], uneven={0: NESTED})
            if by_turns == dimension:
                digits = [DeviceDigit(axis, 1, t.mesh.axis_size(axis)) for axis in order]
                shape[dim], dims[dim] = prod(digit.size for digit in digits), tuple(digits)
                if [*order] != axes:
                    stated |= {axis: turn for turn, axis in enumerate(order)}
                break
        else:
            raise no_word("a DTensor placement", f"uneven blocks under the rule {rule}", t)
    return ArrayType(t.mesh, t.dtype, shape, dims, t.partial, t.reduction or "sum"), stated


class _Tile:
    """The index digits of an array that are local still, per dimension, major to minor."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.local = [[IndexDigit(dim, 1, n)] for dim, n in enumerate(shape)]

    def take(self, device: DeviceDigit, dim: int, before: int) -> list[Placement]:
        """Give a device digit the local digit of its size that has `before` positions before it.

        That digit may consist of several digits of the array. Raises LayoutError where it is not
        nested with them or does not divide what is left.
        """
        size = prod(digit.size for digit in self.local[dim])
        if device.size == 1 or not size:
            return []  # nothing to own
        if size % (before * device.size):
            raise LayoutError(
                f"a strided shard that is uneven goes before the shards of its dimension that its "
                f"split factor counts; got split factor {before} of dimension {dim}, and "
                f"{size // device.size} shards beside it",
                dim=dim,
            )
        kept: list[IndexDigit] = []
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
                    kept.append(piece)
            start = end
        else:
            if prod(owner.size for owner, _ in taken) == device.size:
                self.local[dim] = kept
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
        """This array with fields that the text states at a column.

        Raises TypeSyntaxError where another value was given.
        """
        for name, value in fields.items():
            previous = getattr(self, name)
            if name == "dtype" and previous is not None:
                previous = dtypes.dtype_name(previous)
            if previous is not None and previous != value:
                scanner.fail(f"the given {name}, {previous!r}", column)
        return replace(self, **fields)


def read_placements(
    scanner: Scanner, array: Array, start: int, orders: dict[int, list[int]] | None = None
) -> ArrayType:
    """The type of an array with the placements that begin at `start`, an index of the text.

    `orders` gives, per tensor dimension, the mesh dimensions that shard it, first to last.
    """
    scanner.offset = start
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
    for mesh_dim, (axis, size) in enumerate(mesh.axes):
        if mesh_dim and not scanner.accept(",") and bracket == "[":
            scanner.fail(f"',' and a placement for each of the {len(mesh.axes)} mesh dimensions")
        column = scanner.column
        match scanner.take(_NAME, _PLACEMENT):
            case "_StridedShard" | "_S" | "_SS":
                shard = _shard(scanner, len(shape), column, strided=True)
                shards.append((DeviceDigit(axis, 1, size), shard))
            case "Shard" | "S":
                shard = _shard(scanner, len(shape), column)
                for place, number in enumerate((orders or {}).get(shard.dim, ())):
                    if number == mesh_dim:
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
    summed = ArrayType(mesh, dtype, shape, partial=partial, reduction=reduction)
    return _sharded(summed, _in_order(shards, scanner))


def _sharded(t: ArrayType, ordered: Sequence[tuple[DeviceDigit, _Shard]]) -> ArrayType:
    """A type with shards as they apply, one after the other."""
    shape = t.shape
    # Where axes do not divide a dimension, each cuts by ceil what the ones before it left. Which
    # one is before which is told by a dimension that they do divide: of a row per device.
    rules = dict.fromkeys(_undivided(shape, ordered), NESTED)
    sizes = [
        prod(d.size for d, shard in ordered if shard.dim == dim) if dim in rules else n
        for dim, n in enumerate(shape)
    ]
    tile = _Tile(sizes)
    placements: list[Placement] = []
    for device, shard in ordered:
        placements += tile.take(device, shard.dim, shard.before)
    dims = ArrayType(t.mesh, t.dtype, sizes).replace(placements=placements).dims
    t = ArrayType(t.mesh, t.dtype, shape, dims, t.partial, t.reduction, rules)
    for dim in rules:
        _check_strided(t, dim, [(d, s.before) for d, s in ordered if s.dim == dim])
    return t


def _check_strided(t: ArrayType, dim: int, shards: Sequence[tuple[DeviceDigit, int]]) -> None:
    """Raise LayoutError where torch's own strided shards are not those of cuts one after the other.

    A strided shard cuts `before` pieces of what is left, and then each piece among the devices.
    Another shard after it cuts what these are together, which may be elsewhere.
    """
    if all(before == 1 for _, before in shards):
        return
    parts: dict[tuple[int, ...], Positions] = {(): np.arange(t.shape[dim])}
    for device, before in shards:
        cut = {key: _chunks(rows, before) for key, rows in parts.items()}
        parts = {
            (*key, part): np.concatenate([_chunks(piece, device.size)[part] for piece in pieces])
            for key, pieces in cut.items()
            for part in range(device.size)
        }
    for position in range(t.mesh.num_devices):
        key = tuple(t.digit_coordinate(device, position) for device, _ in shards)
        if not np.array_equal(parts[key], t.tile(position)[dim]):
            raise LayoutError(
                f"uneven strided shards have a type where they are what {t} is, cuts one after the "
                f"other; torch gives the device at position {position} other rows",
                type=t,
            )


def _chunks(rows: Positions, count: int) -> list[Positions]:
    """Rows as torch.chunk cuts them, with empty chunks at the end."""
    size = -(-len(rows) // count)
    return [rows[part * size : (part + 1) * size] for part in range(count)]


def _undivided(shape: Sequence[int], shards: Sequence[tuple[DeviceDigit, _Shard]]) -> set[int]:
    """The dimensions of which some shard does not divide what the shards before it leave."""
    sizes, undivided = [*shape], set()
    for device, shard in shards:
        if sizes[shard.dim] % (shard.before * device.size) and device.size > 1:
            undivided.add(shard.dim)
        sizes[shard.dim] //= device.size
    return undivided


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
        indices = [index for index, (_, shard) in enumerate(shards) if shard.dim == dim]
        orders = [shards[index][1].order for index in indices]
        if all(order is None for order in orders):
            continue
        column = shards[indices[0]][1].column
        if sorted(order for order in orders if order is not None) != list(range(len(indices))):
            scanner.fail(f"an order [0] to [{len(indices) - 1}] on each shard of {dim}", column)
        for index, order in zip(indices, orders, strict=True):
            if order is not None:
                result[indices[order]] = shards[index]
    return result
