"""What the notations of other projects have words for, and the one error where they have none."""

from __future__ import annotations

from collections.abc import Sequence

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Factor
from redistrib.types.mesh import Mesh


def no_word(notation: str, what: str, t: ArrayType) -> LayoutError:
    """The error for a layout that a notation cannot say."""
    return LayoutError(f"{notation} has no word for {what}; got {t}", notation=notation, type=t)


def owners(t: ArrayType, notation: str) -> list[list[DeviceDigit]]:
    """The device digits of each dimension, major to minor.

    Raises LayoutError where a local factor stands before one.
    """
    found: list[list[DeviceDigit]] = []
    for factors in t.dims:
        digits = [factor for factor in factors if isinstance(factor, DeviceDigit)]
        if len(digits) < len(factors):
            raise no_word(notation, "a local factor before an axis", t)
        found.append(digits)
    return found


def whole_owners(t: ArrayType, notation: str) -> list[list[str]]:
    """The axes of each dimension, major to minor. Raises LayoutError for parts of axes too."""
    return [[_whole(digit, t, notation) for digit in digits] for digits in owners(t, notation)]


def whole_partial(t: ArrayType, notation: str) -> list[str]:
    """The axes of the partial set. Raises LayoutError for parts of axes."""
    return [_whole(digit, t, notation) for digit in t.partial]


def with_copies(
    mesh: Mesh,
    dtype: object,
    shape: Sequence[int],
    dims: Sequence[Sequence[str | Factor]],
    partial: Sequence[str | DeviceDigit],
    copies: Sequence[str | DeviceDigit],
) -> ArrayType:
    """The type where a text also names axes that hold copies.

    Raises LayoutError for an illegal type, also where an axis of `copies` has another role.
    """
    if copies:
        ArrayType(mesh, dtype, shape, dims, (*partial, *copies))
    return ArrayType(mesh, dtype, shape, dims, partial)


def check_sum(t: ArrayType, notation: str) -> None:
    """Raise LayoutError for partial reductions other than a sum."""
    if t.reduction not in (None, "sum"):
        raise no_word(notation, f"a partial {t.reduction}", t)


def check_complete(t: ArrayType, notation: str) -> None:
    """Raise LayoutError for a partial array."""
    if t.partial:
        raise no_word(notation, "a partial array", t)


def check_device_order(t: ArrayType, notation: str) -> None:
    """Raise LayoutError for a mesh with an order of devices of its own."""
    if t.mesh.devices is not None:
        raise no_word(notation, "the order of the devices of a mesh", t)


def _whole(digit: DeviceDigit, t: ArrayType, notation: str) -> str:
    if digit.size != t.mesh.axis_size(digit.axis):
        raise no_word(notation, f"a part of an axis, {digit}", t)
    return digit.axis


def mesh_digits(mesh: Mesh, pre: int, size: int) -> list[DeviceDigit]:
    """A digit of the row-major position of a mesh as digits of its axes, major first.

    >>> [str(d) for d in mesh_digits(Mesh(x=2, y=4), 1, 4)]
    ['x:(1)2', 'y:(1)2']

    Raises LayoutError where the digit and the axes are not nested.
    """
    found = []
    before = 1
    for name, length in mesh.axes:
        low, high = max(pre, before), min(pre * size, before * length)
        if low < high:
            if low % pre or high % low or low % before or (before * length) % high:
                raise LayoutError(
                    f"positions are digits of the axes of the mesh {mesh}; got the part with "
                    f"{size} values that has {pre} positions before it",
                    mesh=mesh,
                )
            found.append(DeviceDigit(name, low // before, high // low))
        before *= length
    return found


def split_sizes(mesh: Mesh, sizes: Sequence[int]) -> list[list[DeviceDigit]]:
    """The row-major position of a mesh cut into parts of these sizes, major to minor.

    Raises LayoutError unless their product is the number of devices and they nest in the axes.
    """
    parts = []
    pre = 1
    for size in sizes:
        parts.append(mesh_digits(mesh, pre, size))
        pre *= size
    if pre != mesh.num_devices:
        raise LayoutError(
            f"the parts of a mesh of {mesh.num_devices} devices multiply to that; "
            f"got {' x '.join(map(str, sizes))}",
            mesh=mesh,
        )
    return parts
