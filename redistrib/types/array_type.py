"""The type of a distributed array: dtype, global shape, and which device holds which element.

Per dimension a list of factors, major to minor; what remains is one trailing local factor. Every
factor has a stride, so a type is a map from index digits to owners, and that map is its meaning:
a device holds exactly the elements whose owned digits agree with its coordinates.

On x=2,y=2, `f32[8{y}, 6{_3,x}]` cuts dimension 0 into halves, one per coordinate on y, and
dimension 1 into 3 x 2, whose minor digit x owns: each device has every second column. Position 1
has the coordinates x=0, y=1:

>>> t = ArrayType.parse("f32[8{y}, 6{_3,x}]", Mesh(x=2, y=2))
>>> [(str(device), str(index)) for device, index in t.placements]
[('y:(1)2', '0:(1)2'), ('x:(1)2', '1:(3)2')]
>>> t.tile_shape, [indices.tolist() for indices in t.tile(1)]
((4, 3), [[4, 5, 6, 7], [0, 2, 4]])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.display import to_html
from redistrib.errors import LayoutError
from redistrib.text import brief
from redistrib.types import dtypes
from redistrib.types.canonical import (
    as_device_digit,
    as_dims,
    as_list,
    as_reduction,
    as_shape,
    as_uneven,
    canonical_dim,
    canonical_partial,
    check_uses,
)
from redistrib.types.digits import DeviceDigit, Factor, IndexDigit, Local, Placement, complement
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.notation import format_factor, format_type, read_type
from redistrib.types.uneven import Rule, count_held, most_held, runs_held
from redistrib.types.uneven_form import canonical_uneven


@dataclass(frozen=True, slots=True, init=False)
class ArrayType:
    """dtype, global shape, factors per dimension, partial axes with their reduction, on a mesh.

    A factor is an axis `"x"`, a part of one `"x:(1)2"`, or a local factor `"_8"`; `partial` lists
    axes or parts of axes over which the array is an unreduced `reduction` (sum, prod, max, min).

    `uneven` gives the rule of each dimension that its factors need not divide: "ceil", "balanced",
    "nested" or "sizes(3,3,4)" (docs/uneven.md).

    Construction canonicalises (each meaning has one form on a mesh, so `==` is equivalence), then
    checks. Raises LayoutError with the rule that is broken, what was given and what is legal.

    `shape` is global, in elements; without `dims` the array is replicated. Sizes are whole numbers,
    not floats or truth values, and a dimension has at most 2**60 positions.

    >>> mesh = Mesh(x=2, y=4)
    >>> t = ArrayType(mesh, "float32", (8, 16), [("x:(1)2",), ("_2", "y")])
    >>> str(t), t.tile_shape, t.tile_bytes
    ('f32[8{x}, 16{_2,y}]', (4, 4), 64)
    >>> t == ArrayType.parse("f32[8{x}, 16{_2,y,_2}]", mesh)
    True
    >>> t = ArrayType(mesh, "float32", (10,), [("y",)], uneven={0: "ceil"})
    >>> str(t), t.tile_shape, [t.tile_shape_at(position) for position in range(4)]
    ('f32[10{y}:ceil]', (3,), [(3,), (3,), (3,), (1,)])
    """

    mesh: Mesh
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[tuple[Factor, ...], ...] = field(compare=False)
    partial: tuple[DeviceDigit, ...]
    reduction: str | None
    uneven: tuple[tuple[int, Rule], ...] = field(compare=False)
    """The dimensions that are not even, with their rules."""
    _meaning: tuple[object, ...] = field(repr=False)
    _tile_shape: tuple[int, ...] = field(repr=False, compare=False)
    _hash: int = field(repr=False, compare=False)

    def __init__(
        self,
        mesh: Mesh,
        dtype: object,
        shape: Sequence[int],
        dims: Sequence[Sequence[str | Factor]] | None = None,
        partial: Iterable[str | Factor] = (),
        reduction: str | None = "sum",
        uneven: Mapping[int, str | Rule] | None = None,
    ) -> None:
        if not isinstance(mesh, Mesh):
            raise LayoutError(f"a type is on a Mesh; got {brief(mesh)}", mesh=mesh)
        name = dtypes.dtype_name(dtype)
        sizes = as_shape(shape)
        factors = [()] * len(sizes) if dims is None else as_dims(dims, len(sizes), mesh)
        rules = as_uneven(uneven, len(sizes)) if uneven else {}
        self._set(mesh, name, sizes, factors, _as_partial(partial, mesh), reduction, rules)

    def _set(
        self,
        mesh: Mesh,
        dtype: str,
        shape: tuple[int, ...],
        dims: Sequence[Sequence[Factor]],
        partial: Sequence[DeviceDigit],
        reduction: str | None,
        rules: Mapping[int, Rule],
    ) -> None:
        """Set the fields, each legal by itself, in canonical form, and check them together."""
        forms = {d: canonical_uneven(shape[d], dims[d], rule, mesh) for d, rule in rules.items()}
        factors = tuple(
            [
                forms[dim].factors if dim in forms else canonical_dim(raw, n, mesh)
                for dim, (raw, n) in enumerate(zip(dims, shape, strict=True))
            ]
        )
        meaning: tuple[object, ...] = factors
        uneven = tuple([(dim, form.rule) for dim, form in forms.items() if form.rule is not None])
        tile_shape = [*map(_local_size, shape, factors)]
        for dim, rule in uneven:
            tile_shape[dim] = most_held(shape[dim], factors[dim], rule)
            meaning = (*meaning[:dim], forms[dim].meaning, *meaning[dim + 1 :])
        summed = canonical_partial(partial, mesh) if partial and all(shape) else ()
        kept = as_reduction(reduction, partial=bool(summed))
        check_uses(factors, summed, mesh)
        set_ = object.__setattr__
        set_(self, "mesh", mesh)
        set_(self, "dtype", dtype)
        set_(self, "shape", shape)
        set_(self, "dims", factors)
        set_(self, "partial", summed)
        set_(self, "reduction", kept)
        set_(self, "uneven", uneven)
        set_(self, "_meaning", meaning)
        set_(self, "_tile_shape", tuple(tile_shape))
        # Types are keys of memos that answer in microseconds.
        set_(self, "_hash", hash((mesh, dtype, shape, meaning, summed, kept)))

    @classmethod
    def parse(cls, text: str, mesh: Mesh) -> ArrayType:
        """The type written as text, for example `f32[4096{x:(1)2}, 1024{_8,y}] sum{z}`.

        A rule for uneven blocks follows the factors of its dimension: `f32[32001{x}:ceil, 64]`.

        Raises TypeSyntaxError with the column for malformed text, LayoutError for an illegal type.
        """
        parsed = read_type(text)
        layout = parsed.dims, parsed.partial, parsed.reduction, parsed.uneven
        return cls(mesh, parsed.dtype, parsed.shape, *layout)

    @classmethod
    def from_placements(
        cls,
        mesh: Mesh,
        dtype: str,
        shape: Sequence[int],
        placements: Iterable[Placement],
        partial: Iterable[DeviceDigit] = (),
        reduction: str | None = "sum",
    ) -> ArrayType:
        """The type in which each device digit owns its index digit and the rest is local.

        Raises LayoutError if index digits overlap or are not nested.
        """
        rank = len(shape if isinstance(shape, tuple) else as_shape(shape))
        return cls(mesh, dtype, shape, _factors(placements, rank), partial, reduction)

    def replace(
        self,
        *,
        mesh: Mesh | None = None,
        dims: Sequence[Sequence[str | Factor]] | None = None,
        placements: Iterable[Placement] | None = None,
        partial: Iterable[str | DeviceDigit] | None = None,
        reduction: str | None = None,
    ) -> ArrayType:
        """The type with some of its fields changed; `placements` are another way to give `dims`.

        New dims are even; other changes leave the rules of uneven ones as they are. Without
        `partial` the partial set stays; without `reduction` its reduction, or a sum where there was
        none.

        >>> t = ArrayType.parse("f32[8{x}] max{y}", Mesh(x=2, y=4))
        >>> str(t.replace(dims=[()])), str(t.replace(partial=[]))
        ('f32[8] max{y}', 'f32[8{x}]')
        """
        mesh = self.mesh if mesh is None else mesh
        if placements is not None:
            dims = _factors(placements, len(self.shape))
        if not isinstance(mesh, Mesh):
            raise LayoutError(f"a type is on a Mesh; got {brief(mesh)}", mesh=mesh)
        rules = dict(self.uneven) if dims is None else {}
        if dims is None and mesh is self.mesh:  # what stays is legal
            factors: Sequence[Sequence[Factor]] = self.dims
        else:
            factors = as_dims(self.dims if dims is None else dims, len(self.shape), mesh)
        t = object.__new__(ArrayType)
        t._set(
            mesh,
            self.dtype,
            self.shape,
            factors,
            _as_partial(self.partial if partial is None else partial, mesh),
            (self.reduction or "sum") if reduction is None else reduction,
            rules,
        )
        return t

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Every device digit with the index digit that it owns, in order of dimensions.

        Under the rule ceil they are digits of the padded size, under the others of block numbers.
        """
        placements = []
        for dim, factors in enumerate(self.dims):
            pre = 1
            for factor in factors:
                if isinstance(factor, DeviceDigit):
                    placements.append((factor, IndexDigit(dim, pre, factor.size)))
                pre *= factor.size
        return tuple(placements)

    @property
    def owners(self) -> tuple[DeviceDigit, ...]:
        """Every device digit that owns an index digit, in order of dimensions."""
        return tuple(device for device, _ in self.placements)

    @property
    def size(self) -> int:
        """Global number of elements."""
        return prod(self.shape)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Shape of what one device holds; local factors keep their order, major to minor.

        Of an uneven type, of the largest tile, which some device has.
        """
        return self._tile_shape

    def tile_shape_at(self, position: int) -> tuple[int, ...]:
        """Shape of what the device at a position (row-major) holds: the same at all if even.

        Raises LayoutError if the position is outside the mesh.
        """
        self.mesh.coordinates(position)
        shape = [*self._tile_shape]
        for dim, rule in self.uneven:
            values = self._owner_values(dim, position)
            shape[dim] = count_held(self.shape[dim], self.dims[dim], rule, values)
        return tuple(shape)

    @property
    def tile_size(self) -> int:
        """Elements that one device holds, of the largest tile."""
        return prod(self._tile_shape)

    @property
    def tile_bytes(self) -> int:
        """Bytes that one device holds, of the largest tile."""
        return self.tile_size * dtypes.itemsize(self.dtype)

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return dtypes.itemsize(self.dtype)

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """The numpy dtype; BackendError where it needs ml_dtypes and there is none."""
        return dtypes.numpy_dtype(self.dtype)

    @property
    def free_digits(self) -> tuple[DeviceDigit, ...]:
        """The device digits that neither own nor are partial: the array is replicated over them.

        >>> t = ArrayType.parse("f32[8{x:(2)2}]", Mesh(x=8, y=3))
        >>> [str(digit) for digit in t.free_digits]
        ['x:(1)2', 'x:(4)2', 'y:(1)3']
        """
        used = [*self.owners, *self.partial]
        return tuple(
            free
            for axis in whole_axes(self.mesh)
            for free in complement([d for d in used if d.axis == axis.axis], axis)
        )

    @property
    def block_shape(self) -> tuple[int, ...]:
        """Per dimension, the positions that stay together: its trailing local factor.

        >>> ArrayType.parse("f32[24{_2,x}, 5]", Mesh(x=3)).block_shape
        (4, 5)
        """
        sizes = []
        for n, factors in zip(self.shape, self.dims, strict=True):
            sizes.append(n // prod(factor.size for factor in factors))
        return tuple(sizes)

    def digit_coordinate(self, device: DeviceDigit, position: int) -> int:
        """The value of a device digit at a position of the mesh."""
        device = as_device_digit(device, self.mesh)
        axis_size = self.mesh.axis_size(device.axis)
        coordinate = self.mesh.coordinates(position)[device.axis]
        return coordinate // (axis_size // device.end) % device.size

    def tile(self, position: int) -> tuple[NDArray[np.intp], ...]:
        """What the device at `position` (row-major) holds: global indices per dimension.

        The tile is `array[numpy.ix_(*tile)]`, in this order of indices.

        >>> [i.tolist() for i in ArrayType.parse("f32[8{_2,x}, 2]", Mesh(x=2)).tile(1)]
        [[2, 3, 6, 7], [0, 1]]
        """
        result = []
        for dim in range(len(self.shape)):
            runs = self.index_runs(dim, position)
            sizes = runs[:, 1] - runs[:, 0]
            # An index is where its run starts, and as far from there as from its place in the tile.
            offsets = runs[:, 0] - (np.cumsum(sizes) - sizes)
            result.append(np.repeat(offsets, sizes) + np.arange(sizes.sum()))
        return tuple(result)

    def index_runs(self, dim: int, position: int) -> NDArray[np.intp]:
        """What the device at a position holds of a dimension: ascending runs, `[run, 2]`.

        >>> t = ArrayType.parse("f32[10{_2,x}:ceil]", Mesh(x=2))
        >>> t.index_runs(0, 1).tolist()
        [[3, 6], [9, 10]]
        """
        values = self._owner_values(dim, position)
        return runs_held(self.shape[dim], self.dims[dim], dict(self.uneven).get(dim), values)

    def _owner_values(self, dim: int, position: int) -> list[int]:
        """The values of the digits that own a dimension, at a position."""
        owners = [f for f in self.dims[dim] if isinstance(f, DeviceDigit)]
        return [self.digit_coordinate(owner, position) for owner in owners]

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        # Built anew: the hash of another process means nothing here.
        layout = (self.dims, self.partial, self.reduction, dict(self.uneven))
        return (ArrayType, (self.mesh, self.dtype, self.shape, *layout))

    def __str__(self) -> str:
        return format_type(
            self.mesh,
            self.dtype,
            self.shape,
            self.dims,
            self.partial,
            self.reduction,
            dict(self.uneven),
        )

    def _repr_html_(self) -> str:
        return to_html(self)

    def __repr__(self) -> str:
        dims = [tuple(format_factor(f, self.mesh) for f in dim) for dim in self.dims]
        partial = tuple(format_factor(f, self.mesh) for f in self.partial)
        tail = f", partial={partial}, reduction={self.reduction!r}" if partial else ""
        if self.uneven:
            tail += f", uneven={ {dim: str(rule) for dim, rule in self.uneven} }"
        return f"ArrayType({self.mesh!r}, {self.dtype!r}, {self.shape}, {dims}{tail})"


def _factors(placements: Iterable[Placement], rank: int) -> list[list[Factor]]:
    """The factors of each dimension in which each device digit owns its index digit."""
    owned: list[list[Placement]] = [[] for _ in range(rank)]
    for placement in as_list(placements, "placements are pairs of digits", ordered=False):
        device, index = _pair(placement)
        if not 0 <= index.dim < rank or device.size != index.size:
            raise LayoutError(
                f"a device digit owns an index digit of its size, of one of {rank} "
                f"dimensions; got {device} and {index}",
                digit=device,
            )
        owned[index.dim].append((device, index))
    dims: list[list[Factor]] = []
    for entries in owned:
        entries.sort(key=lambda entry: entry[1].pre)
        factors: list[Factor] = []
        end = 1
        for device, index in entries:
            if index.pre % end:
                raise LayoutError(
                    f"owned index digits of a dimension are nested and disjoint; "
                    f"got {[str(i) for _, i in entries]}",
                    placements=entries,
                )
            if index.pre > end:
                factors.append(Local(index.pre // end))
            factors.append(device)
            end = index.end
        dims.append(factors)
    return dims


def _as_partial(partial: object, mesh: Mesh) -> list[DeviceDigit]:
    """The parts of axes of a partial set, however they are given."""
    axes = as_list(partial, "partial is a set of axes", ordered=False)
    return [as_device_digit(axis, mesh) for axis in axes]


def _pair(placement: object) -> Placement:
    """A device digit and the index digit that it owns. Raises LayoutError for anything else."""
    if isinstance(placement, tuple) and len(placement) == 2:
        device, index = placement
        if isinstance(device, DeviceDigit) and isinstance(index, IndexDigit):
            dim, pre, size = index
            if type(dim) is type(pre) is type(size) is int and pre > 0:
                return device, index
    raise LayoutError(
        f"a placement is a device digit and the index digit it owns; got {brief(placement)}",
        placement=placement,
    )


def _local_size(n: int, factors: tuple[Factor, ...]) -> int:
    return n // prod([factor.size for factor in factors if isinstance(factor, DeviceDigit)])
