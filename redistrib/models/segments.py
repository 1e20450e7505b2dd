"""Segmented types: an array whose tile is the concatenation of the tiles of its parts.

What tensor-parallel inference means by a fused weight is, on rank r, `cat(q_r, k_r, v_r)`:

    bf16[4096{tp}|1024{tp}|1024{tp}, 4096]

has three parts along dimension 0, each over tp. On tp=8 a tile has 512 + 128 + 128 rows. That is
not `6144{_3,tp}`, three equal parts: with grouped queries q is larger than k and v.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from redistrib.errors import LayoutError, TypeSyntaxError
from redistrib.text import brief, is_kind
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh


@dataclass(frozen=True, slots=True)
class SegmentedType:
    """Parts of one array along `dim`, each with a type of its own.

    The parts are on one mesh, of one dtype, without partial axes, and agree in all other
    dimensions: there they have the same factors. Raises LayoutError where they do not.

    >>> t = SegmentedType.parse("bf16[16{tp}|4{tp}|4{tp}, 3]", Mesh(tp=4))
    >>> t.shape, t.tile_shape, str(t)
    ((24, 3), (6, 3), 'bf16[16{tp}|4{tp}|4{tp}, 3]')
    """

    parts: tuple[ArrayType, ...]
    dim: int

    def __post_init__(self) -> None:
        if not is_kind(self.parts, Sequence) or not self.parts:
            raise LayoutError(f"a segmented type has at least one part; got {brief(self.parts)}")
        object.__setattr__(self, "parts", tuple(self.parts))
        if odd := [part for part in self.parts if not is_kind(part, ArrayType)]:
            raise LayoutError(f"the parts of a segmented type are types; got {brief(odd[0])}")
        first = self.parts[0]
        if type(self.dim) is not int or not 0 <= self.dim < len(first.shape):
            raise LayoutError(
                f"parts follow each other along a dimension of {first}; got {brief(self.dim)}"
            )
        for part in self.parts:
            others = [
                (n, factors)
                for dim, (n, factors) in enumerate(zip(part.shape, part.dims, strict=True))
                if dim != self.dim
            ]
            same = [
                (n, factors)
                for dim, (n, factors) in enumerate(zip(first.shape, first.dims, strict=True))
                if dim != self.dim
            ]
            same_kind = (part.mesh, part.dtype, len(part.shape)) == (
                first.mesh,
                first.dtype,
                len(first.shape),
            )
            if part.uneven:
                raise LayoutError(
                    f"the parts of a segmented type are even; got {part}: pad it to a size "
                    f"that its axes divide, or give it an array of its own",
                    parts=self.parts,
                )
            if not same_kind or others != same or part.partial:
                raise LayoutError(
                    f"the parts of a segmented type agree in mesh, dtype and all dimensions but "
                    f"one, and are not partial; got {first} and {part}",
                    parts=self.parts,
                )

    @classmethod
    def parse(cls, text: str, mesh: Mesh) -> SegmentedType:
        """The type written like `bf16[4096{tp}|1024{tp}, 4096]`.

        Raises TypeSyntaxError unless one dimension has parts, and what ArrayType.parse raises.
        """
        if not isinstance(text, str):
            raise TypeSyntaxError(f"a type is a text; got {brief(text)}", text=text)
        head, bracket, body = text.partition("[")
        dims, closing, tail = body.rpartition("]")
        entries = re.split(r",(?![^{(]*[})])", dims)
        places = [dim for dim, entry in enumerate(entries) if "|" in entry]
        if not (bracket and closing) or len(places) != 1:
            raise TypeSyntaxError(
                f"a segmented type has parts in one dimension, as in f32[8{{x}}|4{{x}}, 3]; got "
                f"{text!r}",
                text=text,
                column=1,
            )
        dim = places[0]
        parts = [
            ArrayType.parse(
                f"{head}[{','.join([*entries[:dim], part, *entries[dim + 1 :]])}]{tail}", mesh
            )
            for part in entries[dim].split("|")
        ]
        return cls(tuple(parts), dim)

    @property
    def mesh(self) -> Mesh:
        """The mesh of all parts."""
        return self.parts[0].mesh

    @property
    def dtype(self) -> str:
        """The short name of the dtype."""
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The global shape."""
        return _joined([part.shape for part in self.parts], self.dim)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """The shape of what one device holds."""
        return _joined([part.tile_shape for part in self.parts], self.dim)

    def tile_shape_at(self, position: int) -> tuple[int, ...]:
        """The shape of what the device at a position holds, the same at all."""
        self.mesh.coordinates(position)
        return self.tile_shape

    @property
    def tile_bytes(self) -> int:
        """Bytes that one device holds."""
        return sum(part.tile_bytes for part in self.parts)

    def __str__(self) -> str:
        texts = [str(part) for part in self.parts]
        head, _, body = texts[0].partition("[")
        entries = [
            re.split(r", (?![^{]*\})", t.partition("[")[2].rpartition("]")[0]) for t in texts
        ]
        dims = entries[0]
        dims[self.dim] = "|".join(entry[self.dim] for entry in entries)
        return f"{head}[{', '.join(dims)}]{body.rpartition(']')[2]}"


AnyType = ArrayType | SegmentedType


def parse_any(text: str, mesh: Mesh) -> AnyType:
    """The type in a text, segmented or not. Raises TypeSyntaxError or LayoutError."""
    segmented = is_kind(text, str) and "|" in text
    return (SegmentedType if segmented else ArrayType).parse(text, mesh)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an array, or all of it: its type, and where its tile is in the array's tile.

    `tile_shape` is that of the whole tile, `start` the element of it, row-major, at which the
    tile of the part begins.
    """

    type: ArrayType
    tile_shape: tuple[int, ...]
    start: int = 0


def parts_of(t: AnyType) -> tuple[Part, ...]:
    """The parts of a type.

    >>> t = SegmentedType.parse("f32[3, 8{x}|4{x}]", Mesh(x=4))
    >>> [(str(part.type), part.start) for part in parts_of(t)]
    [('f32[3, 8{x}]', 0), ('f32[3, 4{x}]', 2)]
    """
    if isinstance(t, ArrayType):
        return (Part(t, t.tile_shape),)
    below = prod(t.tile_shape[t.dim + 1 :])
    starts = accumulate((part.tile_shape[t.dim] for part in t.parts), initial=0)
    return tuple(
        Part(part, t.tile_shape, start * below)
        for part, start in zip(t.parts, starts, strict=False)
    )


def cuts_of(t: AnyType) -> tuple[int, tuple[int, ...]]:
    """The dimension that a type is cut in, and the size of each part there; (0, ()) for none."""
    if isinstance(t, ArrayType):
        return 0, ()
    return t.dim, tuple(part.shape[t.dim] for part in t.parts)


def _joined(shapes: Sequence[tuple[int, ...]], dim: int) -> tuple[int, ...]:
    first = shapes[0]
    return (*first[:dim], sum(shape[dim] for shape in shapes), *first[dim + 1 :])
