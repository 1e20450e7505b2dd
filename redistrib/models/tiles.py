"""Positions of a type in arithmetic: who holds which tile, and which of its replicas.

With `f32[8{y}]` on x=2, y=4 (positions 0 to 7, y fastest), position 6 has the coordinate 2 on y and
is replica 1 of that tile; the replicas of the tile are positions 2 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, weight
from redistrib.types.mesh import whole_axes


class Tiles:
    """Which position holds which tile of a type.

    >>> from redistrib.types.mesh import Mesh
    >>> tiles = Tiles(ArrayType.parse("f32[8{y}]", Mesh(x=2, y=4)))
    >>> y = tiles.owners[0]
    >>> tiles.coordinate(y, 6), tiles.replica(6), tiles.position({y: 2}, 1), tiles.replicas
    (2, 1, 6, 2)
    """

    def __init__(self, t: ArrayType) -> None:
        axes = whole_axes(t.mesh)
        self.type = t
        self.ids = t.mesh.ids
        self.places = {device: position for position, device in enumerate(self.ids)}
        self.owners = tuple(device for device, _ in t.placements)
        self.partial = t.partial
        self.free = t.free_digits
        self._weights = {d: weight(d, axes) for d in (*self.owners, *t.partial, *self.free)}
        self.replicas = prod(digit.size for digit in self.free)

    def weight(self, digit: DeviceDigit) -> int:
        """How many positions further the next value of a digit is."""
        return self._weights[digit]

    def coordinate(self, digit: DeviceDigit, position: int) -> int:
        """The value of a digit of the type, or of one that it leaves free, at a position."""
        return position // self._weights[digit] % digit.size

    def replica(self, position: int) -> int:
        """The number of a position among those that hold the same tile."""
        number = 0
        for digit in self.free:
            number = number * digit.size + self.coordinate(digit, position)
        return number

    def position(self, coordinates: Mapping[DeviceDigit, int], replica: int) -> int:
        """The position with these coordinates on the owners that is this replica of its tile.

        Coordinate 0 on partial digits: there the value is.
        """
        position = sum(self._weights[digit] * value for digit, value in coordinates.items())
        for digit in reversed(self.free):
            position += replica % digit.size * self._weights[digit]
            replica //= digit.size
        return position

    def holds_value(self, position: int) -> bool:
        """Whether a position holds the value of a partial type, and not the identity."""
        return not any(self.coordinate(digit, position) for digit in self.partial)


def solve(steps: Sequence[tuple[int, int]], value: int) -> list[int] | None:
    """The counts, each below its size, with which (size, step) pairs make up a value; or None.

    Steps are nested: each is larger than what all smaller ones reach together.

    >>> solve([(2, 4), (3, 1)], 6), solve([(2, 4), (3, 1)], 3)
    ([1, 2], None)
    """
    counts = [0] * len(steps)
    for n in sorted(range(len(steps)), key=lambda n: -steps[n][1]):
        size, step = steps[n]
        counts[n] = min(value // step, size - 1) if value >= 0 else 0
        value -= counts[n] * step
    return None if value else counts
