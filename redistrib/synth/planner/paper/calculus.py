"""The paper's distributed types and collectives, as a view of ours.

A dimension of the paper is `tile{axes}global`, axes minor first, with tile * product of axes equal
to global; all axes are prime, so a mesh axis of size 4 is two axes. Its collectives touch only the
minor-most axis of a dimension, its *top*:

    all_gather i          c{x,...}n                 ->  (c|x|){...}n
    dynamic_slice i x     c{...}n, x replicated     ->  (c/|x|){x,...}n         if |x| divides c
    all_to_all i j        i: c{x,...}n, j: d{...}m  ->  i: (c|x|){...}n, j: (d/|x|){x,...}m
    all_permute           any two types with tiles of one shape

These are the strong rules. The weak ones take types up to the order of the axes of a dimension, so
that every axis is a top: a weak collective is a strong one between two permutes. The rewriting
needs three permutes by name: swap two tops (T), replace a top by a replicated axis (R), swap two
axes within a dimension (W).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import NoReturn

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Local, is_chain, primes
from redistrib.types.mesh import Mesh
from redistrib.types.notation import format_factor

# --- types -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dim:
    """`tile{axes}size`: elements per device, prime axes minor first, elements in all."""

    tile: int
    axes: tuple[DeviceDigit, ...]
    size: int


@dataclass(frozen=True, slots=True)
class PaperType:
    """A distributed array type of the paper on a mesh whose axes are cut into `system`, all prime.

    >>> mesh = Mesh(x=4, y=2)
    >>> t = ArrayType.parse("f32[8{y,x}, 6]", mesh)
    >>> str(PaperType.of(t, prime_system(t)))
    '[1{x:(2)2,x:(1)2,y}8, 6{}6]'
    """

    mesh: Mesh
    system: tuple[DeviceDigit, ...]
    dims: tuple[Dim, ...]

    @classmethod
    def of(cls, t: ArrayType, system: Sequence[DeviceDigit]) -> PaperType:
        """The paper's view of a type whose device digits split on `system`.

        Raises LayoutError for a type that the paper cannot express: partial axes, local factors.
        """
        _check_expressible(t)
        dims = []
        for n, tile, factors in zip(t.shape, t.tile_shape, t.dims, strict=True):
            axes = [
                digit
                for factor in factors
                if isinstance(factor, DeviceDigit)
                for digit in system
                if digit.axis == factor.axis and factor.pre <= digit.pre < factor.end
            ]
            dims.append(Dim(tile, tuple(reversed(axes)), n))
        return cls(t.mesh, tuple(system), tuple(dims))

    def array_type(self, dtype: str) -> ArrayType:
        """The same layout as a type of ours."""
        factors = [tuple(reversed(dim.axes)) for dim in self.dims]
        return ArrayType(self.mesh, dtype, [dim.size for dim in self.dims], factors)

    @property
    def tile_shape(self) -> tuple[int, ...]:
        """Shape of what one device holds. Types that agree in it differ by an all_permute."""
        return tuple(dim.tile for dim in self.dims)

    @property
    def tile_size(self) -> int:
        """Elements that one device holds."""
        return prod(self.tile_shape)

    @property
    def owners(self) -> dict[DeviceDigit, IndexDigit]:
        """Every axis in use with the index digit that it owns."""
        result = {}
        for number, dim in enumerate(self.dims):
            pre = 1
            for axis in reversed(dim.axes):
                result[axis] = IndexDigit(number, pre, axis.size)
                pre *= axis.size
        return result

    @property
    def replicated(self) -> tuple[DeviceDigit, ...]:
        """The axes that own nothing, in the order of the system."""
        used = {axis for dim in self.dims for axis in dim.axes}
        return tuple(axis for axis in self.system if axis not in used)

    def weak(self) -> PaperType:
        """The weak type: the axes of each dimension in the order of the system."""
        return self.with_axes(tuple(sorted(dim.axes, key=self.system.index)) for dim in self.dims)

    def with_axes(self, axes: Iterable[tuple[DeviceDigit, ...]]) -> PaperType:
        """The type with other axes, per dimension, minor first."""
        dims = [
            Dim(dim.size // prod(a.size for a in new), new, dim.size)
            for dim, new in zip(self.dims, axes, strict=True)
        ]
        return replace(self, dims=tuple(dims))

    def name(self, axis: DeviceDigit) -> str:
        """The text of an axis."""
        return format_factor(axis, self.mesh)

    def __str__(self) -> str:
        dims = [
            f"{dim.tile}{{{','.join(map(self.name, dim.axes))}}}{dim.size}" for dim in self.dims
        ]
        return f"[{', '.join(dims)}]"


def prime_system(*types: ArrayType) -> tuple[DeviceDigit, ...]:
    """The mesh of `types` with its axes cut into primes so that every device digit splits.

    Where the types leave a choice, smaller primes are major.

    >>> mesh = Mesh(x=12)
    >>> [str(d) for d in prime_system(ArrayType.parse("f32[12{x:(1)3}]", mesh))]
    ['x:(1)3', 'x:(3)2', 'x:(6)2']

    Raises LayoutError for a type that the paper cannot express, and if no cut serves all types.
    """
    mesh = types[0].mesh
    cuts: dict[str, set[int]] = {name: {1, size} for name, size in mesh.axes}
    for t in types:
        _check_expressible(t)
        for device, _ in t.placements:
            cuts[device.axis] |= {device.pre, device.end}
    system = []
    for name, ends in cuts.items():
        bounds = sorted(ends)
        if not is_chain(bounds):
            raise LayoutError(
                "the paper's types need one cut of each mesh axis into primes; sub-axes of "
                f"{name} begin and end at {bounds}, and these do not divide each other",
                axis=name,
                bounds=bounds,
            )
        for low, high in pairwise(bounds):
            for p in primes(high // low):
                system.append(DeviceDigit(name, low, p))
                low *= p  # noqa: PLW2901
    return tuple(system)


def _check_expressible(t: ArrayType) -> None:
    known = "strategies auto, collectives and direct take every type"
    if t.partial:
        raise LayoutError(
            f"the paper's types have no partial axes; got {t}; {known}", type=t, partial=t.partial
        )
    for dim, factors in enumerate(t.dims):
        for factor in factors:
            if isinstance(factor, Local):
                raise LayoutError(
                    "a dimension of the paper's types is tile{axes}global, with nothing local "
                    f"but the tile; got the local factor {factor} in dimension {dim} of {t}; "
                    f"{known}",
                    type=t,
                    factor=str(factor),
                )


# --- collectives -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gather:
    """all_gather: the top of a dimension becomes replicated."""

    dim: int
    axis: DeviceDigit


@dataclass(frozen=True, slots=True)
class Slice:
    """dynamic_slice: a replicated axis becomes the top of a dimension."""

    dim: int
    axis: DeviceDigit


@dataclass(frozen=True, slots=True)
class Move:
    """all_to_all: the top of one dimension becomes the top of another."""

    source: int
    target: int
    axis: DeviceDigit


@dataclass(frozen=True, slots=True)
class SwapTops:
    """T: the top `a` of dimension `first` and the top `b` of `second`, of one size, swap."""

    first: int
    second: int
    a: DeviceDigit
    b: DeviceDigit


@dataclass(frozen=True, slots=True)
class ReplaceTop:
    """R: a replicated axis takes the place of the top of a dimension, of its size."""

    dim: int
    old: DeviceDigit
    new: DeviceDigit


@dataclass(frozen=True, slots=True)
class SwapWithin:
    """W: two axes of a dimension swap places, whatever their sizes."""

    dim: int
    a: DeviceDigit
    b: DeviceDigit


@dataclass(frozen=True, slots=True)
class Permute:
    """all_permute to these axes, per dimension, minor first."""

    axes: tuple[tuple[DeviceDigit, ...], ...]


Step = Gather | Slice | Move | SwapTops | ReplaceTop | SwapWithin
"""What is rewritten; the named permutes make up every permute between types of one tile shape."""

Operation = Step | Permute


def apply(t: PaperType, step: Operation) -> PaperType:
    """The strong typing rule of one collective.

    Raises LayoutError where an axis is not the top, or is not replicated, or does not divide a
    tile, or where a permute would change the shape of the tile.
    """
    axes = [dim.axes for dim in t.dims]
    match step:
        case Gather(dim, axis):
            _pop(t, axes, dim, axis)
        case Slice(dim, axis):
            _push(t, axes, dim, axis)
        case Move(source, target, axis):
            _pop(t, axes, source, axis)
            _push(t, axes, target, axis)
        case SwapTops(first, second, a, b):
            _pop(t, axes, first, a)
            _pop(t, axes, second, b)
            _same_size(t, a, b)
            axes[first] = (b, *axes[first])
            axes[second] = (a, *axes[second])
        case ReplaceTop(dim, old, new):
            _pop(t, axes, dim, old)
            _same_size(t, old, new)
            _push(t, axes, dim, new)
        case SwapWithin(dim, a, b):
            if a not in axes[dim] or b not in axes[dim]:
                _fail(t, f"{t.name(a)} and {t.name(b)} are axes of dimension {dim}")
            swap = {a: b, b: a}
            axes[dim] = tuple(swap.get(axis, axis) for axis in axes[dim])
        case Permute(new_axes):
            used = [axis for dim in new_axes for axis in dim]
            if len(set(used)) < len(used) or not set(used) <= set(t.system):
                _fail(t, "a permute uses axes of the mesh, each once")
            after = t.with_axes(new_axes)
            if after.tile_shape != t.tile_shape:
                _fail(t, f"a permute keeps the shape of the tile, not so {after}")
            return after
    return t.with_axes(axes)


def apply_weak(t: PaperType, step: Gather | Slice | Move) -> PaperType:
    """The weak typing rule: any axis of a dimension is its top. The result is a weak type.

    Raises LayoutError where the strong rule fails whatever the order of the axes.
    """
    match step:
        case Gather(dim, axis) | Move(dim, _, axis):
            others = tuple(other for other in t.dims[dim].axes if other != axis)
            if len(others) == len(t.dims[dim].axes):
                _fail(t, f"{t.name(axis)} is an axis of dimension {dim}")
            on_top = [
                d.axes if number != dim else (axis, *others) for number, d in enumerate(t.dims)
            ]
            t = t.with_axes(on_top)
        case Slice():
            pass
    return apply(t, step).weak()


def interpret(t: PaperType, program: Iterable[Operation]) -> list[PaperType]:
    """The types before, between and after the steps of a program, by the strong rules.

    Raises LayoutError where a step does not apply.
    """
    types = [t]
    for step in program:
        types.append(apply(types[-1], step))
    return types


def describe(t: PaperType, step: Operation) -> str:
    """A step as text."""
    name = t.name
    match step:
        case Gather(dim, axis):
            return f"all_gather {dim} over {name(axis)}"
        case Slice(dim, axis):
            return f"dynamic_slice {dim} by {name(axis)}"
        case Move(source, target, axis):
            return f"all_to_all {source} -> {target} of {name(axis)}"
        case SwapTops(first, second, a, b):
            return f"all_permute tops {name(a)} of {first}, {name(b)} of {second}"
        case ReplaceTop(dim, old, new):
            return f"all_permute top {name(old)} of {dim} by {name(new)}"
        case SwapWithin(dim, a, b):
            return f"all_permute {name(a)}, {name(b)} within {dim}"
        case Permute():
            return "all_permute"


def _pop(t: PaperType, axes: list[tuple[DeviceDigit, ...]], dim: int, axis: DeviceDigit) -> None:
    if axes[dim][:1] != (axis,):
        _fail(t, f"{t.name(axis)} is the minor-most axis of dimension {dim}")
    axes[dim] = axes[dim][1:]


def _push(t: PaperType, axes: list[tuple[DeviceDigit, ...]], dim: int, axis: DeviceDigit) -> None:
    if any(axis in used for used in axes):
        _fail(t, f"{t.name(axis)} is replicated")
    tile = t.dims[dim].size // prod(a.size for a in axes[dim])
    if not tile or tile % axis.size:
        _fail(t, f"{t.name(axis)} divides the tile of dimension {dim}")
    axes[dim] = (axis, *axes[dim])


def _same_size(t: PaperType, a: DeviceDigit, b: DeviceDigit) -> None:
    if a.size != b.size:
        _fail(t, f"{t.name(a)} and {t.name(b)} have one size")


def _fail(t: PaperType, rule: str) -> NoReturn:
    raise LayoutError(f"the rule needs that {rule}; got {t}", type=t)
