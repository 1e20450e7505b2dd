"""Arithmetic of coordinates: the digits of a row-major position over axes, for arrays of them.

`axes` are disjoint device digits, whole axes of a mesh for example; `digits` lie inside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from redistrib.types.digits import DeviceDigit, inside
from redistrib.types.mesh import Mesh

Positions = NDArray[np.intp]


def whole_axes(mesh: Mesh) -> tuple[DeviceDigit, ...]:
    """The axes of a mesh as digits, without those of size 1: its positions are row-major over them.

    >>> [str(axis) for axis in whole_axes(Mesh(x=2, y=1, z=3))]
    ['x:(1)2', 'z:(1)3']
    """
    return tuple(DeviceDigit(name, 1, size) for name, size in mesh.axes if size > 1)


def weight(digit: DeviceDigit, axes: Sequence[DeviceDigit]) -> int:
    """How many positions further the next value of a digit is.

    >>> axes = [DeviceDigit("x", 1, 4), DeviceDigit("y", 1, 3)]
    >>> weight(DeviceDigit("x", 2, 2), axes), weight(DeviceDigit("x", 1, 2), axes)
    (3, 6)
    """
    at = next(n for n, axis in enumerate(axes) if inside(digit, axis))
    return axes[at].end // digit.end * prod(axis.size for axis in axes[at + 1 :])


def digit_values(
    digits: Iterable[DeviceDigit], at: Positions, axes: Sequence[DeviceDigit]
) -> Positions:
    """The row-major value of these digits at positions over `axes`, elementwise.

    >>> axes = [DeviceDigit("x", 1, 4), DeviceDigit("y", 1, 3)]
    >>> digit_values([DeviceDigit("y", 1, 3), DeviceDigit("x", 2, 2)], np.arange(12), axes)
    array([0, 2, 4, 1, 3, 5, 0, 2, 4, 1, 3, 5])
    """
    values = np.zeros_like(at)
    for digit in digits:
        values = values * digit.size + at // weight(digit, axes) % digit.size
    return values


def with_digits(
    at: Positions, digits: Sequence[DeviceDigit], values: Positions, axes: Sequence[DeviceDigit]
) -> Positions:
    """The positions over `axes` with these digits set to a row-major value, elementwise.

    >>> axes = [DeviceDigit("x", 1, 4), DeviceDigit("y", 1, 3)]
    >>> with_digits(np.arange(12), [DeviceDigit("x", 2, 2)], np.array([1]), axes)
    array([ 3,  4,  5,  3,  4,  5,  9, 10, 11,  9, 10, 11])
    """
    for digit in reversed(digits):
        step = weight(digit, axes)
        at = at + (values % digit.size - at // step % digit.size) * step
        values = values // digit.size
    return at
