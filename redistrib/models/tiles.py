"""Positions of a type in arithmetic: who holds which tile, and which of its replicas.

With `f32[8{y}]` on x=2, y=4 (positions 0 to 7, y fastest), position 6 has the coordinate 2 on y and
is replica 1 of that tile; the replicas of the tile are positions 2 and 6.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product
from math import prod

from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, weight
from redistrib.types.mesh import whole_axes


class Tiles:
    """Which position holds which tile of a type.

    >>> from redistrib.types.mesh import Mesh
    >>> tiles = Tiles(ArrayType.parse("f32[8{y}]", Mesh(x=2, y=4)))
    >>> tiles.coordinate(tiles.owners[0], 6), tiles.replica(6), tiles.replicas, tiles.offsets
    (2, 1, 2, [0, 4])
    """

    def __init__(self, t: ArrayType) -> None:
        axes = whole_axes(t.mesh)
        self.type = t
        self.ids = t.mesh.ids
        self.places = {device: position for position, device in enumerate(self.ids)}
        self.owners = t.owners
        self.partial = t.partial
        self.free = t.free_digits
        self._weights = {d: weight(d, axes) for d in (*self.owners, *t.partial, *self.free)}
        self.replicas = prod(digit.size for digit in self.free)
        self._shapes: dict[int, tuple[int, ...]] = {}

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

    def shape_at(self, position: int) -> tuple[int, ...]:
        """The shape of the tile at a position; `type.tile_shape` is that of the largest."""
        if position not in self._shapes:
            self._shapes[position] = self.type.tile_shape_at(position)
        return self._shapes[position]

    @cached_property
    def offsets(self) -> list[int]:
        """How far each replica of a tile is from the first, in positions."""
        weights = [self._weights[digit] for digit in self.free]
        return [
            sum(n * weight for n, weight in zip(values, weights, strict=True))
            for values in product(*(range(digit.size) for digit in self.free))
        ]

    def holds_value(self, position: int) -> bool:
        """Whether a position holds the value of a partial type, and not the identity."""
        return not self.partial or not any(
            self.coordinate(digit, position) for digit in self.partial
        )
