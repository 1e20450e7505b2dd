"""The type of a distributed array: dtype, global shape, and which device holds which element.

Per dimension a list of factors, major to minor; what remains is one trailing local factor. Every
factor has a stride, so a type is a map from index digits to owners, and that map is its meaning:
a device holds exactly the elements whose owned digits agree with its coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.errors import LayoutError
from redistrib.types import dtypes
from redistrib.types.digits import (
    DeviceDigit,
    Factor,
    IndexDigit,
    Local,
    Placement,
    coalesce,
    complement,
    is_chain,
    is_number,
    parse_device_digit,
)
from redistrib.types.mesh import Mesh, whole_axes
from redistrib.types.reduction import REDUCTIONS


@dataclass(frozen=True, slots=True, init=False)
class ArrayType:
    """dtype, global shape, factors per dimension, partial axes with their reduction, on a mesh.

    A factor is an axis `"x"`, a part of one `"x:(1)2"`, or a local factor `"_8"`; `partial` lists
    axes or parts of axes over which the array is an unreduced `reduction` (sum, prod, max, min).

    Construction canonicalises (each meaning has one form on a mesh, so `==` is equivalence), then
    checks. Raises LayoutError with the rule that is broken.

    >>> mesh = Mesh(x=2, y=4)
    >>> t = ArrayType(mesh, "float32", (8, 16), [("x:(1)2",), ("_2", "y")])
    >>> str(t), t.tile_shape, t.tile_bytes
    ('f32[8{x}, 16{_2,y}]', (4, 4), 64)
    >>> t == ArrayType.parse("f32[8{x}, 16{_2,y,_2}]", mesh)
    True
    """

    mesh: Mesh
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[tuple[Factor, ...], ...]
    partial: tuple[DeviceDigit, ...]
    reduction: str | None
    _tile_shape: tuple[int, ...] = field(repr=False, compare=False)
    _hash: int = field(repr=False, compare=False)

    def __init__(
        self,
        mesh: Mesh,
        dtype: object,
        shape: Sequence[int],
        dims: Sequence[Sequence[str | Factor]] | None = None,
        partial: Iterable[str | DeviceDigit] = (),
        reduction: str | None = "sum",
    ) -> None:
        sizes = tuple(int(n) for n in shape)
        if dims is None:
            dims = [()] * len(sizes)
        if any(n < 0 for n in sizes):
            raise LayoutError(f"dimensions are not negative; got {list(sizes)}", shape=sizes)
        if len(dims) != len(sizes):
            raise LayoutError(
                f"each of the {len(sizes)} dimensions has a list of factors; got {len(dims)} lists",
                shape=sizes,
                dims=dims,
            )
        factors = [[_as_factor(f, mesh) for f in dim] for dim in dims]
        partials = [_as_device_digit(f, mesh) for f in partial]
        canonical = tuple(
            _canonical_dim(dim, n, mesh) if n else () for dim, n in zip(factors, sizes, strict=True)
        )
        canonical_partial = _canonical_partial(partials, mesh) if all(sizes) else ()
        if canonical_partial and reduction not in REDUCTIONS:
            raise LayoutError(
                f"a reduction is one of {', '.join(REDUCTIONS)}; got {reduction!r}",
                reduction=reduction,
            )
        set_ = object.__setattr__
        set_(self, "mesh", mesh)
        set_(self, "dtype", dtypes.dtype_name(dtype))
        set_(self, "shape", sizes)
        set_(self, "dims", canonical)
        set_(self, "partial", canonical_partial)
        set_(self, "reduction", reduction if canonical_partial else None)
        set_(self, "_tile_shape", tuple(map(_local_size, sizes, canonical)))
        meaning = (mesh, self.dtype, sizes, canonical, canonical_partial, self.reduction)
        set_(self, "_hash", hash(meaning))  # types are keys of memos that answer in microseconds
        _check(self)

    @classmethod
    def parse(cls, text: str, mesh: Mesh) -> ArrayType:
        """The type written as text, for example `f32[4096{x:(1)2}, 1024{_8,y}] sum{z}`.

        Raises TypeSyntaxError with the column for malformed text, LayoutError for an illegal type.
        """
        from redistrib.types.notation import parse_type

        return parse_type(text, mesh)

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
        owned: list[list[Placement]] = [[] for _ in shape]
        for placement in placements:
            device, index = placement
            if not 0 <= index.dim < len(owned) or device.size != index.size:
                raise LayoutError(
                    f"a device digit owns an index digit of its size, of one of {len(owned)} "
                    f"dimensions; got {device} and {index}",
                    digit=device,
                )
            owned[index.dim].append(placement)
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
        return cls(mesh, dtype, shape, dims, partial, reduction)

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Every device digit with the index digit that it owns, in order of dimensions."""
        found = []
        for dim, factors in enumerate(self.dims):
            pre = 1
            for factor in factors:
                if isinstance(factor, DeviceDigit):
                    found.append((factor, IndexDigit(dim, pre, factor.size)))
                pre *= factor.size
        return tuple(found)

    @property
    def size(self) -> int:
        """Global number of elements."""
        return prod(self.shape)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Shape of what one device holds; local factors keep their order, major to minor."""
        return self._tile_shape

    @property
    def tile_size(self) -> int:
        """Elements that one device holds."""
        return prod(self._tile_shape)

    @property
    def tile_bytes(self) -> int:
        """Bytes that one device holds."""
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
        used = [*(device for device, _ in self.placements), *self.partial]
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
        for n, factors in zip(self.shape, self.dims, strict=True):
            indices = np.zeros(1, dtype=np.intp)
            stride = n
            for factor in factors:
                stride //= factor.size
                match factor:
                    case DeviceDigit():
                        indices = indices + self.digit_coordinate(factor, position) * stride
                    case Local(k):
                        indices = (indices[:, None] + np.arange(k) * stride).reshape(-1)
            result.append((indices[:, None] + np.arange(stride)).reshape(-1))
        return tuple(result)

    def with_partial(
        self, partial: Iterable[DeviceDigit], reduction: str | None = "sum"
    ) -> ArrayType:
        """The same layout with another partial set."""
        return ArrayType(self.mesh, self.dtype, self.shape, self.dims, partial, reduction)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[object, ...]:
        # Built anew: the hash of another process means nothing here.
        fields = (self.mesh, self.dtype, self.shape, self.dims, self.partial, self.reduction)
        return (ArrayType, fields)

    def __str__(self) -> str:
        from redistrib.types.notation import format_type

        return format_type(self)

    def __repr__(self) -> str:
        from redistrib.types.notation import format_factor

        dims = [tuple(format_factor(f, self.mesh) for f in dim) for dim in self.dims]
        partial = tuple(format_factor(f, self.mesh) for f in self.partial)
        tail = f", partial={partial}, reduction={self.reduction!r}" if partial else ""
        return f"ArrayType({self.mesh!r}, {self.dtype!r}, {self.shape}, {dims}{tail})"


def _as_factor(factor: str | Factor, mesh: Mesh) -> Factor:
    if isinstance(factor, str) and factor[:1] == "_" and is_number(factor[1:]):
        factor = Local(int(factor[1:]))
    if isinstance(factor, Local):
        if factor.size < 1:
            raise LayoutError(f"a local factor is positive; got {factor}", factor=str(factor))
        return factor
    return _as_device_digit(factor, mesh)


def _as_device_digit(factor: str | Factor, mesh: Mesh) -> DeviceDigit:
    if isinstance(factor, str):
        name = factor.partition(":")[0]
        factor = parse_device_digit(factor, mesh.axis_size(name))
    if not isinstance(factor, DeviceDigit):
        raise LayoutError(f"a partial factor is an axis or a part of one; got {factor}")
    size = mesh.axis_size(factor.axis)
    if factor.pre < 1 or factor.size < 1 or size % factor.end:
        raise LayoutError(
            f"a sub-axis {factor.axis}:(m)k needs m*k to divide the size of the axis, {size}; "
            f"got {factor}",
            axis=factor.axis,
            factor=str(factor),
        )
    return factor


def _canonical_dim(factors: list[Factor], n: int, mesh: Mesh) -> tuple[Factor, ...]:
    split = prod(factor.size for factor in factors)
    if n % split:
        raise uneven(n, split, f"{n}{{{','.join(_name(factor, mesh) for factor in factors)}}}")
    merged = coalesce(factor for factor in factors if factor.size > 1)
    if merged and isinstance(merged[-1], Local):
        merged.pop()
    return tuple(merged)


def uneven(size: int, product: int, given: str) -> LayoutError:
    """The error for a dimension that its factors, of this product, do not divide."""
    below, above = size // product * product, (size // product + 1) * product
    legal = f"sizes: {below} and {above}" if below else f"size: {above}"
    return LayoutError(
        f"an uneven layout has no type, so pad the dimension: its factors divide its size; "
        f"got {given} with product {product}; nearest legal {legal}",
        size=size,
        product=product,
    )


def _canonical_partial(partial: list[DeviceDigit], mesh: Mesh) -> tuple[DeviceDigit, ...]:
    if not partial:
        return ()
    order = {name: i for i, (name, _) in enumerate(mesh.axes)}
    kept = sorted((d for d in partial if d.size > 1), key=lambda d: (order[d.axis], d.pre))
    return tuple(d for d in coalesce(kept) if isinstance(d, DeviceDigit))


def _local_size(n: int, factors: tuple[Factor, ...]) -> int:
    return n // prod(factor.size for factor in factors if isinstance(factor, DeviceDigit))


def _check(t: ArrayType) -> None:
    """Per axis the digits used are disjoint and their bounds form a divisibility chain."""
    used: dict[str, list[DeviceDigit]] = {}
    for factors in t.dims:
        for factor in factors:
            if isinstance(factor, DeviceDigit):
                used.setdefault(factor.axis, []).append(factor)
    for factor in t.partial:
        used.setdefault(factor.axis, []).append(factor)
    for axis, digits in used.items():
        if len(digits) == 1:
            continue
        digits.sort(key=lambda d: (d.pre, d.end))
        for a, b in pairwise(digits):
            if b.pre < a.end and (a.pre == b.pre or b.pre % a.pre == 0):
                raise LayoutError(
                    f"an axis is used once over all dimensions and the partial set; "
                    f"got {_name(a, t.mesh)} and {_name(b, t.mesh)}",
                    axis=axis,
                )
        bounds = sorted({1, t.mesh.axis_size(axis), *(b for d in digits for b in (d.pre, d.end))})
        if not is_chain(bounds):
            raise LayoutError(
                f"the sub-axes of an axis are nested: each bound divides the next; "
                f"got {', '.join(_name(d, t.mesh) for d in digits)} with bounds {bounds}",
                axis=axis,
            )


def _name(digit: Factor, mesh: Mesh) -> str:
    from redistrib.types.notation import format_factor

    return format_factor(digit, mesh)
