"""The row-major position of a mesh, and permutations of positions, as digits of its axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redistrib.errors import LayoutError
from redistrib.types.digits import DeviceDigit, Positions
from redistrib.types.mesh import Mesh


def mesh_digits(mesh: Mesh, pre: int, size: int) -> list[DeviceDigit]:
    """A digit of the row-major position of a mesh as digits of its axes, major first.

    >>> [str(d) for d in mesh_digits(Mesh(x=2, y=4), 1, 4)]
    ['x:(1)2', 'y:(1)2']

    Raises LayoutError where the digit and the axes are not nested.
    """
    digits = []
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
            digits.append(DeviceDigit(name, low // before, high // low))
        before *= length
    return digits


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


def linear_digits(values: Positions) -> list[tuple[int, int]] | None:
    """A permutation of 0..n-1 as a mixed-radix number: (size, step) of its digits, major first.

    >>> linear_digits(np.array([0, 4, 1, 5, 2, 6, 3, 7]))
    [(4, 1), (2, 4)]
    >>> linear_digits(np.array([0, 2, 1])) is None
    True
    """
    if values[0] != 0:
        return None
    digits: list[tuple[int, int]] = []
    while values.size > 1:
        steps = np.diff(values)
        step = int(steps[0])
        others = np.flatnonzero(steps != step)
        size = int(others[0]) + 1 if others.size else values.size
        if step < 1 or values.size % size:
            return None
        rows = values.reshape(-1, size)
        if not np.array_equal(rows, rows[:, :1] + step * np.arange(size)):
            return None
        digits.append((size, step))
        values = rows[:, 0]
    return digits[::-1]
