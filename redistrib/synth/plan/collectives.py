"""The collectives and their typing rules: one frozen dataclass each, `apply(type) -> type`.

A rule is stated on digits. It raises LayoutError where a device digit does not have the role that
the rule needs (owner of an index digit, free, or partial) or an index digit is not local.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

from redistrib.errors import LayoutError
from redistrib.synth.plan.tables import PermuteTable, RoutingTable
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    apart,
    piece_of,
    split_off,
)
from redistrib.types.mesh import Mesh


class _Layout:
    """The roles of device digits while a rule rewrites them."""

    def __init__(self, t: ArrayType) -> None:
        self.type = t
        self.placements = list(t.placements)
        self.partial = list(t.partial)

    def release(self, device: DeviceDigit) -> IndexDigit:
        """Make an owner free; gives the index digit that it owned."""
        at = self.find(device)
        index = None if at is None else piece_of(self.placements[at], device)
        if at is None or index is None:
            raise LayoutError(f"{device} owns no index digit of {self.type}", digit=device)
        self.placements[at : at + 1] = split_off(self.placements[at], device)
        return index

    def reduce(self, device: DeviceDigit) -> None:
        """Make a partial digit free."""
        at = self.find_partial(device)
        if at is None:
            raise LayoutError(f"{device} is not partial in {self.type}", digit=device)
        left = split_off(_alone(self.partial[at]), device)
        self.partial[at : at + 1] = [d for d, _ in left]

    def find(self, device: DeviceDigit) -> int | None:
        """Which placement a device digit is part of, if any."""
        for at, placement in enumerate(self.placements):
            if piece_of(placement, device) is not None:
                return at
        return None

    def find_partial(self, device: DeviceDigit) -> int | None:
        """Which partial digit a device digit is part of, if any."""
        for at, whole in enumerate(self.partial):
            if piece_of(_alone(whole), device) is not None:
                return at
        return None

    def own(self, device: DeviceDigit, index: IndexDigit) -> None:
        """Make a free digit the owner of a local index digit."""
        if device.size != index.size:
            raise LayoutError(f"an owner has the size of what it owns; got {device} and {index}")
        self.check_free(device)
        self.check_local(index)
        self.placements.append((device, index))

    def check_local(self, index: IndexDigit) -> None:
        if not 0 <= index.dim < len(self.type.shape) or self.type.shape[index.dim] % index.end:
            raise LayoutError(f"{self.type} has no index digit {index}", digit=index)
        for _, owned in self.placements:
            if owned.dim == index.dim and not apart(owned, index):
                raise LayoutError(f"index digit {index} is not local in {self.type}", digit=index)

    def check_free(self, device: DeviceDigit) -> None:
        for used in (*(d for d, _ in self.placements), *self.partial):
            if used.axis == device.axis and not apart(used, device):
                raise LayoutError(f"{device} is not free in {self.type}", digit=device)
        if self.type.mesh.axis_size(device.axis) % device.end:
            raise LayoutError(f"the mesh of {self.type} has no digit {device}", digit=device)

    def done(self, reduction: str | None = None) -> ArrayType:
        t = self.type
        return ArrayType.from_placements(
            t.mesh, t.dtype, t.shape, self.placements, self.partial, reduction or t.reduction
        )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A collective on device digits and the index digits that they own before or after it."""

    placements: tuple[Placement, ...]

    @property
    def axes(self) -> tuple[DeviceDigit, ...]:
        """The device digits."""
        return tuple([device for device, _ in self.placements])


@dataclass(frozen=True, slots=True)
class DynamicSlice(_Placed):
    """Each device keeps its part: a free device digit becomes owner of a local index digit."""

    collective: ClassVar[str] = "dynamic_slice"

    def apply(self, t: ArrayType) -> ArrayType:
        layout = _Layout(t)
        for device, index in self.placements:
            layout.own(device, index)
        return layout.done()


@dataclass(frozen=True, slots=True)
class AllGather(_Placed):
    """Owned index digits become local: the devices of a group exchange all they hold."""

    collective: ClassVar[str] = "all_gather"

    def apply(self, t: ArrayType) -> ArrayType:
        layout = _Layout(t)
        for device, index in self.placements:
            _check_owned(layout.release(device), device, index, t)
        return layout.done()


@dataclass(frozen=True, slots=True)
class Move:
    """A device digit leaves one index digit and becomes owner of another."""

    device: DeviceDigit
    source: IndexDigit
    target: IndexDigit


@dataclass(frozen=True, slots=True)
class AllToAll:
    """Owned index digits become local while local ones of the same sizes become owned."""

    moves: tuple[Move, ...]
    collective: ClassVar[str] = "all_to_all"

    def apply(self, t: ArrayType) -> ArrayType:
        layout = _Layout(t)
        for move in self.moves:
            # The target must be local before the exchange, not by an earlier move of it.
            layout.check_local(move.target)
        for move in self.moves:
            _check_owned(layout.release(move.device), move.device, move.source, t)
        for move in self.moves:
            layout.own(move.device, move.target)
        return layout.done()

    @property
    def axes(self) -> tuple[DeviceDigit, ...]:
        return tuple([move.device for move in self.moves])


@dataclass(frozen=True, slots=True)
class CollectivePermute:
    """Tiles change devices whole: `(old, new)` in `routes` gives what `old` owned to `new`.

    The routes permute a set of device digits; free and partial digits among them change their
    roles likewise. `table` instead routes device by device.
    """

    routes: tuple[tuple[DeviceDigit, DeviceDigit], ...]
    table: PermuteTable | None = None
    collective: ClassVar[str] = "collective_permute"

    def apply(self, t: ArrayType) -> ArrayType:
        if self.table is not None:
            return self.table.apply(t)
        olds = {old for old, _ in self.routes}
        if olds != {new for _, new in self.routes} or len(olds) != len(self.routes):
            raise LayoutError(f"the routes of a permute are a permutation; got {self.routes}")
        if not all(apart(a, b) for a, b in combinations(olds, 2)):
            raise LayoutError(f"the digits that a permute routes are nested; got {self.routes}")
        layout = _Layout(t)
        owners, partial = [], []
        for old, new in self.routes:
            if old.size != new.size:
                raise LayoutError(f"a route joins digits of one size; got {old} and {new}")
            if layout.find(old) is not None:
                owners.append((new, layout.release(old)))
            elif layout.find_partial(old) is not None:
                layout.reduce(old)
                partial.append(new)
            else:
                layout.check_free(old)
        for new, index in owners:
            layout.own(new, index)
        layout.partial += partial
        return layout.done()

    @property
    def axes(self) -> tuple[DeviceDigit, ...]:
        return self.table.axes if self.table else tuple(old for old, _ in self.routes)


@dataclass(frozen=True, slots=True)
class ReduceScatter(_Placed):
    """Partial device digits become owners of local index digits of the reduced array."""

    collective: ClassVar[str] = "reduce_scatter"

    def apply(self, t: ArrayType) -> ArrayType:
        layout = _Layout(t)
        for device, _ in self.placements:
            layout.reduce(device)
        for device, index in self.placements:
            layout.own(device, index)
        return layout.done()


@dataclass(frozen=True, slots=True)
class AllReduce:
    """Partial device digits become free: every device holds the reduced tile."""

    axes: tuple[DeviceDigit, ...]
    collective: ClassVar[str] = "all_reduce"

    def apply(self, t: ArrayType) -> ArrayType:
        layout = _Layout(t)
        for device in self.axes:
            layout.reduce(device)
        return layout.done()


@dataclass(frozen=True, slots=True)
class Exchange(_Placed):
    """Any re-ownership point to point; `placements` says who owns what afterwards.

    The sender of an element is found digit by digit: a device digit that owns an index digit in
    the source has the value of that index digit in the element. For the others, `(f, g)` in
    `replicas` means that digit f of the sender is digit g of the receiver; `tables` decide for the
    components that share no digits; every other digit of the sender is that of the receiver.
    An exchange to another `mesh` has one table: of positions of both meshes.
    """

    replicas: tuple[tuple[DeviceDigit, DeviceDigit], ...] = ()
    tables: tuple[RoutingTable, ...] = ()
    mesh: Mesh | None = None
    collective: ClassVar[str] = "exchange"

    def apply(self, t: ArrayType) -> ArrayType:
        if self.mesh is not None and t.partial:
            raise LayoutError(f"an array is reduced before it goes to another mesh; got {t}")
        return ArrayType.from_placements(
            self.mesh or t.mesh, t.dtype, t.shape, self.placements, t.partial, t.reduction
        )


@dataclass(frozen=True, slots=True)
class ReplicatedToPartial:
    """Free device digits become partial: value 0 keeps the data, the others the identity."""

    axes: tuple[DeviceDigit, ...]
    reduction: str
    collective: ClassVar[str] = "replicated_to_partial"

    def apply(self, t: ArrayType) -> ArrayType:
        layout = _Layout(t)
        for device in self.axes:
            layout.check_free(device)
            layout.partial.append(device)
        return _to_partial(layout, self.reduction)


@dataclass(frozen=True, slots=True)
class ShardedToPartial(_Placed):
    """Owners become partial: each keeps its part of a tile that is the identity elsewhere."""

    reduction: str
    collective: ClassVar[str] = "sharded_to_partial"

    def apply(self, t: ArrayType) -> ArrayType:
        layout = _Layout(t)
        for device, index in self.placements:
            _check_owned(layout.release(device), device, index, t)
            layout.partial.append(device)
        return _to_partial(layout, self.reduction)


Collective = (
    DynamicSlice
    | AllGather
    | AllToAll
    | CollectivePermute
    | ReduceScatter
    | AllReduce
    | Exchange
    | ReplicatedToPartial
    | ShardedToPartial
)


def _alone(device: DeviceDigit) -> Placement:
    """A digit that owns nothing, in the shape of a placement, so that the same split serves."""
    return device, IndexDigit(0, device.pre, device.size)


def _check_owned(owned: IndexDigit, device: DeviceDigit, index: IndexDigit, t: ArrayType) -> None:
    if owned != index:
        raise LayoutError(f"{device} owns {owned} in {t}, not {index}", digit=device)


def _to_partial(layout: _Layout, reduction: str) -> ArrayType:
    t = layout.type
    if t.partial and t.reduction != reduction:
        raise LayoutError(f"{t} is a partial {t.reduction}; got another reduction, {reduction}")
    return layout.done(reduction)
