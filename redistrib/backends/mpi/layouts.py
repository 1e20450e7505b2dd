"""What each rank holds of an array: the tiles of a type, or of a layout with uneven tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from redistrib.backends.mpi.index_ranges import IndexRanges
from redistrib.errors import LayoutError
from redistrib.types import dtypes
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Local
from redistrib.types.mesh import Mesh

Box = tuple[IndexRanges, ...]
"""What a rank holds: per dimension the indices, with their places in the tile."""

Rule = Literal["ceil", "balanced"]


@dataclass(frozen=True, slots=True)
class UnevenType:
    """Blocks of dimensions that need not divide: per dimension the axes that own it, by a rule.

    Over k devices, a dimension of n falls into consecutive blocks. `ceil`: blocks of ceil(n / k),
    the last ones shorter or empty, as XLA and GSPMD pad them. `balanced`: the first n % k blocks
    have one more than the others, as numpy.array_split and most MPI codes cut.

    Raises LayoutError for an unknown axis or rule, or an axis that is used twice.

    >>> t = UnevenType(Mesh(x=4), "f32", (5,), [("x",)], "ceil")
    >>> [t.tile_shape(p) for p in range(4)]
    [(2,), (2,), (1,), (0,)]
    >>> t = UnevenType(Mesh(x=4), "f32", (5,), [("x",)], "balanced")
    >>> [t.tile_shape(p) for p in range(4)]
    [(2,), (1,), (1,), (1,)]
    """

    mesh: Mesh
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[tuple[str, ...], ...]
    rule: Rule

    def __init__(
        self,
        mesh: Mesh,
        dtype: object,
        shape: Sequence[int],
        dims: Sequence[Sequence[str]],
        rule: Rule,
    ) -> None:
        if rule not in ("ceil", "balanced"):
            raise LayoutError(f"the rule is 'ceil' or 'balanced'; got {rule!r}", rule=rule)
        sizes, axes = tuple(int(n) for n in shape), tuple(tuple(dim) for dim in dims)
        if len(sizes) != len(axes) or any(n < 0 for n in sizes):
            raise LayoutError(
                f"each dimension has a size of at least 0 and a list of axes; got {list(sizes)} "
                f"and {list(axes)}",
                shape=sizes,
                dims=axes,
            )
        used = [name for dim in axes for name in dim]
        for name in used:
            mesh.axis_size(name)
            if used.count(name) > 1:
                raise LayoutError(f"an axis is used once; got {name} twice", axis=name)
        for name, value in zip(
            self.__slots__, (mesh, dtypes.dtype_name(dtype), sizes, axes, rule), strict=True
        ):
            object.__setattr__(self, name, value)

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """The numpy dtype; BackendError where it needs ml_dtypes and there is none."""
        return dtypes.numpy_dtype(self.dtype)

    def block(self, dim: int, position: int) -> tuple[int, int]:
        """The range of indices of a dimension that the device at a position holds."""
        n, count, number = self.shape[dim], 1, 0
        coordinates = self.mesh.coordinates(position)
        for name in self.dims[dim]:
            size = self.mesh.axis_size(name)
            count, number = count * size, number * size + coordinates[name]
        match self.rule:
            case "ceil":
                step = -(-n // count)
                return min(number * step, n), min((number + 1) * step, n)
            case "balanced":
                step, more = divmod(n, count)
                start = number * step + min(number, more)
                return start, start + step + (number < more)
            case _:
                assert_never(self.rule)

    def tile_shape(self, position: int) -> tuple[int, ...]:
        """Shape of what the device at a position holds; a dimension of it may be 0."""
        blocks = [self.block(dim, position) for dim in range(len(self.shape))]
        return tuple(stop - start for start, stop in blocks)

    def tile(self, position: int) -> tuple[NDArray[np.intp], ...]:
        """What the device at a position holds: global indices per dimension."""
        return tuple(np.arange(*self.block(dim, position)) for dim in range(len(self.shape)))

    def __str__(self) -> str:
        dims = [
            f"{n}{{{','.join(axes)}}}" if axes else str(n)
            for n, axes in zip(self.shape, self.dims, strict=True)
        ]
        return f"{self.dtype}[{', '.join(dims)}] {self.rule}"


AnyType = ArrayType | UnevenType


def tile_shape_of(t: AnyType, position: int) -> tuple[int, ...]:
    """Shape of the tile at a position of the mesh."""
    return t.tile_shape(position) if isinstance(t, UnevenType) else t.tile_shape


def largest_tile(t: AnyType) -> int:
    """Elements of the largest tile."""
    if isinstance(t, ArrayType):
        return t.tile_size
    return max(prod(t.tile_shape(p)) for p in range(t.mesh.num_devices))


def boxes_of(t: AnyType) -> list[Box]:
    """What every position of the mesh holds; equal index sets are one object."""
    known: dict[tuple[Any, ...], IndexRanges] = {}
    found = []
    for position in range(t.mesh.num_devices):
        runs = []
        for dim in range(len(t.shape)):
            key: tuple[Any, ...]
            if isinstance(t, UnevenType):
                start, stop = t.block(dim, position)
                key = dim, start, stop
                if key not in known:
                    known[key] = IndexRanges.packed([start], [stop - start])
            else:
                owners = [f for f in t.dims[dim] if isinstance(f, DeviceDigit)]
                values = [t.digit_coordinate(owner, position) for owner in owners]
                key = dim, *values
                if key not in known:
                    known[key] = _digit_runs(t, dim, values)
            runs.append(known[key])
        found.append(tuple(runs))
    return found


def _digit_runs(t: ArrayType, dim: int, values: Sequence[int]) -> IndexRanges:
    """The indices of a dimension with these values of its owned digits."""
    left = iter(values)
    starts = np.zeros(1, np.int64)
    stride = t.shape[dim]
    for factor in t.dims[dim]:
        stride //= factor.size
        match factor:
            case DeviceDigit():
                starts = starts + next(left) * stride
            case Local(size):
                starts = (starts[:, None] + np.arange(size) * stride).reshape(-1)
            case _:
                assert_never(factor)
    return IndexRanges.packed(starts, np.full(len(starts), stride))
