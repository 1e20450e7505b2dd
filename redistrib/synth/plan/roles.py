"""The roles of device digits in a layout, while the rule of a collective rewrites them.

A device digit *owns* an index digit, is *partial* or is *free*: the array is replicated over it. On
x=2,y=4 the type f32[8{x}] sum{y:(1)2} has x as owner of 0:(1)2, y:(1)2 partial and y:(2)2 free:

>>> from redistrib.types.mesh import Mesh
>>> t = ArrayType.parse("f32[8{x}] sum{y:(1)2}", Mesh(x=2, y=4))
>>> roles = Roles(t)
>>> str(roles.release(DeviceDigit("x", 1, 2)))  # x is free now, and 0:(1)2 local
'0:(1)2'
>>> roles.own(DeviceDigit("y", 2, 2), IndexDigit(0, 1, 2))
>>> str(roles.typed())
'f32[8{y:(2)2}] sum{y:(1)2}'
"""

from __future__ import annotations

from redistrib.errors import LayoutError
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    apart,
    piece_of,
    split_off,
)


class Roles:
    """The roles of the digits of a type. Every method raises LayoutError for another role."""

    def __init__(self, t: ArrayType) -> None:
        self.type = t
        self.placements = list(t.placements)
        self.partial = list(t.partial)

    def owner(self, device: DeviceDigit) -> int | None:
        """Which placement a device digit is part of, if any."""
        for number, placement in enumerate(self.placements):
            if piece_of(placement, device) is not None:
                return number
        return None

    def addend(self, device: DeviceDigit) -> int | None:
        """Which partial digit a device digit is part of, if any."""
        for number, digit in enumerate(self.partial):
            if piece_of(_owning_nothing(digit), device) is not None:
                return number
        return None

    def release(self, device: DeviceDigit) -> IndexDigit:
        """Make an owner free; gives the index digit that it owned."""
        number = self.owner(device)
        index = None if number is None else piece_of(self.placements[number], device)
        if number is None or index is None:
            raise LayoutError(f"{device} owns no index digit of {self.type}", digit=device)
        self.placements[number : number + 1] = split_off(self.placements[number], device)
        return index

    def release_from(self, device: DeviceDigit, index: IndexDigit) -> None:
        """Make the owner of an index digit free."""
        owned = self.release(device)
        if owned != index:
            raise LayoutError(f"{device} owns {owned} in {self.type}, not {index}", digit=device)

    def reduce(self, device: DeviceDigit) -> None:
        """Make a partial digit free."""
        number = self.addend(device)
        if number is None:
            raise LayoutError(f"{device} is not partial in {self.type}", digit=device)
        pieces = split_off(_owning_nothing(self.partial[number]), device)
        self.partial[number : number + 1] = [digit for digit, _ in pieces]

    def own(self, device: DeviceDigit, index: IndexDigit) -> None:
        """Make a free digit the owner of a local index digit."""
        if device.size != index.size:
            raise LayoutError(f"an owner has the size of what it owns; got {device} and {index}")
        self.check_free(device)
        self.check_local(index)
        self.placements.append((device, index))

    def check_local(self, index: IndexDigit) -> None:
        """Raise LayoutError unless this is an index digit of the type that no device digit owns."""
        if not 0 <= index.dim < len(self.type.shape) or self.type.shape[index.dim] % index.end:
            raise LayoutError(f"{self.type} has no index digit {index}", digit=index)
        for _, owned in self.placements:
            if owned.dim == index.dim and not apart(owned, index):
                raise LayoutError(f"index digit {index} is not local in {self.type}", digit=index)

    def check_free(self, device: DeviceDigit) -> None:
        """Raise LayoutError unless a device digit owns nothing and is not partial."""
        for used in (*(digit for digit, _ in self.placements), *self.partial):
            if used.axis == device.axis and not apart(used, device):
                raise LayoutError(f"{device} is not free in {self.type}", digit=device)
        if self.type.mesh.axis_size(device.axis) % device.end:
            raise LayoutError(f"the mesh of {self.type} has no digit {device}", digit=device)

    def typed(self, reduction: str | None = None) -> ArrayType:
        """The type with the roles as they are now; an uneven one has its owners as they were."""
        t = self.type
        placements = None if self.placements == [*t.placements] else self.placements
        return t.replace(placements=placements, partial=self.partial, reduction=reduction)

    def typed_partial(self, reduction: str) -> ArrayType:
        """The type as they are now, whose partial digits are addends of `reduction`."""
        t = self.type
        if t.partial and t.reduction != reduction:
            raise LayoutError(f"{t} is a partial {t.reduction}; got another reduction, {reduction}")
        return self.typed(reduction)


def _owning_nothing(device: DeviceDigit) -> Placement:
    """A digit that owns nothing, in the shape of a placement, so that the same split serves."""
    return device, IndexDigit(0, device.pre, device.size)
