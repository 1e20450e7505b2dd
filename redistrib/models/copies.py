"""Atoms under layouts: what of a source tile is copied where in a target tile, for all devices.

An atom is cut until each of its digits, on either side, steps over the coordinate of one device
digit or stays inside the tile. On 4 devices, with `w: f32[8{x}, 6]` on both sides and the map
`t = rearrange(w, "a b -> b a")` to `t: f32[6, 8{y}]` on 4 others, the atom of `w` has two digits:

    size 6   inside the target tile, stride 2      inside the source tile, stride 1
    size 8   is cut at 2, the tiles' size:
      size 4   the coordinate of y, step 1         the coordinate of x, step 1
      size 2   inside, stride 1                    inside, stride 6

so one `Copy` describes all 4 moves. Where sizes do not divide each other (three segments of unequal
size over 8 devices) an atom is cut into several copies, each with its range of coordinates: the
atom is *irregular*. So it is where a type is uneven: under `ceil` it is cut like one of the padded
size, under other rules block by block. Strides are those of the largest tile.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from redistrib.models.atoms import Atom, aligned, between
from redistrib.models.segments import Part
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.uneven import Ceil, block_ends, padded_size


@dataclass(frozen=True, slots=True)
class Walk:
    """Where one more step of a digit leads, on one side.

    With an `owner`, to the device whose coordinate on it is `stride` larger; else `stride` elements
    further in the row-major tile (0: the same element again).
    """

    owner: DeviceDigit | None
    stride: int


@dataclass(frozen=True, slots=True)
class CopyDigit:
    """`size` steps, walking both sides at once."""

    size: int
    target: Walk
    source: Walk


@dataclass(frozen=True, slots=True)
class Start:
    """Where the first element of a copy is: `coordinates` of the owners, `offset` in the tile."""

    coordinates: tuple[tuple[DeviceDigit, int], ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Line:
    """Positions in one dimension: `start`, and (count, stride) of each digit that walks from it."""

    start: int
    steps: tuple[tuple[int, int], ...]

    def extent(self, modulus: int) -> int:
        """How far the steps reach that are no multiples of the modulus; all of them, of 0."""
        kept = (step for step in self.steps if not modulus or step[1] % modulus)
        return sum((count - 1) * stride for count, stride in kept)


@dataclass(frozen=True, slots=True)
class Copy:
    """Equal copies between tiles of a source array and of a target array.

    `source` is the number of the array among the sources of its target; None: a fill with zeros.
    `dtypes` are those of the source and of each cast after it. `reads` are the positions of the
    source in each of its dimensions.
    """

    digits: tuple[CopyDigit, ...]
    target: Start
    source: Start
    number: int | None
    dtypes: tuple[str, ...]
    reads: tuple[Line, ...] = ()


def copies(atom: Atom, target: Part, source: Part | None) -> list[tuple[Atom, Copy]]:
    """An atom, cut, as copies between tiles of two arrays; `source` is None where it is a fill."""
    parts = _cut(atom, target)
    if source is not None:
        parts = [cut.swapped() for part in parts for cut in _cut(part.swapped(), source)]
    result = []
    for part in parts:
        digits = []
        for digit in part.digits:
            walk = _walk(source, digit.source_dim, digit.source_stride) if source else Walk(None, 0)
            digits.append(CopyDigit(digit.size, _walk(target, digit.dim, digit.stride), walk))
        start = _start(source, part.source_offset) if source else Start((), 0)
        first, reads = _start(target, part.offset), _lines(part)
        result.append((part, Copy(tuple(digits), first, start, part.source, part.dtypes, reads)))
    return result


def _lines(atom: Atom) -> tuple[Line, ...]:
    """The positions that an atom reads, in each dimension of its source."""
    steps: list[list[tuple[int, int]]] = [[] for _ in atom.source_offset]
    for digit in atom.digits:
        if digit.source_stride:
            steps[digit.source_dim].append((digit.size, digit.source_stride))
    return tuple(Line(n, tuple(s)) for n, s in zip(atom.source_offset, steps, strict=True))


def _blocks(t: ArrayType, dim: int) -> tuple[int, ...] | None:
    """The ends of the blocks of a dimension that no factors tell; None for any other."""
    rule = dict(t.uneven).get(dim)
    if rule is None or isinstance(rule, Ceil):
        return None
    return block_ends(t.shape[dim], tuple(factor.size for factor in t.dims[dim]), rule)


@dataclass(frozen=True, slots=True)
class _Factor:
    """A factor of a dimension: `weight` positions are one step of it."""

    size: int
    weight: int
    owner: DeviceDigit | None
    stride: int  # elements of the row-major tile, for a local factor


def _factors(array: Part, dim: int) -> list[_Factor]:
    """The factors of a dimension, major to minor, with the trailing local one.

    Those of blocks have no weight: a digit that is inside one block stays there.
    """
    t = array.type
    below = prod(array.tile_shape[dim + 1 :])
    if _blocks(t, dim) is not None:
        return [_Factor(t.shape[dim], 1, None, below)]
    factors = []
    weight = padded_size(t.shape[dim], t.dims[dim]) if t.dims[dim] else t.shape[dim]
    inside = weight // prod(f.size for f in t.dims[dim] if isinstance(f, DeviceDigit))
    for factor in t.dims[dim]:
        weight //= factor.size
        owner = factor if isinstance(factor, DeviceDigit) else None
        if owner is None:
            inside //= factor.size
        factors.append(_Factor(factor.size, weight, owner, inside * below))
    return [*factors, _Factor(weight, 1, None, below)]


def _cut(atom: Atom, array: Part) -> list[Atom]:
    """An atom, cut so that no digit of its target crosses the end of a factor of the type."""
    parts = [atom]
    for dim in range(len(array.type.shape)):
        ends = _blocks(array.type, dim)
        if ends is not None:
            blocks = [(a, b) for a, b in pairwise(ends) if a < b]
            parts = [cut for part in parts for a, b in blocks for cut in between(part, dim, a, b)]
        for factor in _factors(array, dim)[:-1]:
            parts = [cut for part in parts for cut in aligned(part, dim, factor.weight)]
    return parts


def _walk(array: Part, dim: int, stride: int) -> Walk:
    if not stride:
        return Walk(None, 0)
    factor = next(factor for factor in _factors(array, dim) if factor.weight <= stride)
    steps = stride // factor.weight
    return Walk(factor.owner, steps if factor.owner else steps * factor.stride)


def _start(array: Part, offset: Sequence[int]) -> Start:
    coordinates, inside = [], array.start
    for dim, position in enumerate(offset):
        ends = _blocks(array.type, dim)
        if ends is not None:
            number = bisect_right(ends, position) - 1
            inside += (position - ends[number]) * prod(array.tile_shape[dim + 1 :])
            for device, index in reversed(array.type.placements):
                if index.dim == dim:
                    number, value = divmod(number, device.size)
                    coordinates.append((device, value))
            continue
        for factor in _factors(array, dim):
            value = position // factor.weight % factor.size if factor.size else 0
            if factor.owner is None:
                inside += value * factor.stride
            else:
                coordinates.append((factor.owner, value))
    return Start(tuple(coordinates), inside)
