"""The collectives: one frozen dataclass each, with all its facts.

`apply` is the typing rule, stated on digits: the type after a step from the type before it. It
raises LayoutError where a device digit does not have the role that the rule needs (owner of an
index digit, free, or partial) or an index digit is not local. `tile_traffic` gives the elements
that each device receives and those of its tile after the step, from those of its tile before it
(docs/theory.md, section 2: tiles of s elements, groups of k devices), `transposed` the step that
backpropagation runs, given the type before this one, `crossed` the digits that data crosses, and
`fields` what JSON has of it. The checker, the certificate and the proofs have their own statement
of each; a test compares all of them.

On x=2,y=4 an all_to_all that turns f32[8{x}, 8] into f32[8, 8{x}] moves the digit x from rows to
columns; each device, with a tile of 32 elements, keeps half of them and receives the other half:

>>> rows = ArrayType.parse("f32[8{x}, 8]", Mesh(x=2, y=4))
>>> step = AllToAll((Move(DeviceDigit("x", 1, 2), IndexDigit(0, 1, 2), IndexDigit(1, 1, 2)),))
>>> str(step.apply(rows)), step.tile_traffic(rows.tile_size), step.latencies
('f32[8, 8{x}]', (16, 32), 1)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import Any, ClassVar, Self, get_args

from redistrib.errors import LayoutError, RedistribError
from redistrib.synth.plan.blocks import exchanged
from redistrib.synth.plan.fields import (
    Field,
    read_device_digit,
    read_device_digits,
    read_digit_pairs,
    read_fields,
    read_index_digit,
    read_items,
    read_list,
    read_permute_table,
    read_placements,
    read_routing_tables,
    read_text,
    shown,
    write_permute_table,
    write_routing_tables,
    write_text_rows,
    write_texts,
)
from redistrib.synth.plan.roles import Roles
from redistrib.synth.plan.tables import PermuteTable, RoutingTable
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, IndexDigit, Placement, apart
from redistrib.types.mesh import Mesh
from redistrib.types.refinement import refine

PLACEMENTS = Field("placements", "placements", write_text_rows, read_placements)
DIGITS = Field("digits", "digits", write_texts, read_device_digits)
ONTO = "dst_mesh"
"""What JSON has for the mesh of an exchange to another mesh."""
REDUCTION = Field("reduction", "reduction", str, read_text)


class _Facts(ABC):
    """What is common to all collectives, and what is true of most."""

    __slots__ = ()
    collective: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]]
    """The fields that define a step in JSON."""
    communicates: ClassVar[bool] = True
    """Whether data moves between devices; what is local takes no time."""
    latencies: ClassVar[int] = 1
    """How many rounds it takes, each with a latency; an exchange has one per sender instead."""

    @property
    @abstractmethod
    def axes(self) -> tuple[DeviceDigit, ...]:
        """The device digits that the step names."""

    @property
    def group_size(self) -> int:
        """How many devices have all values of the digits between them."""
        return prod([device.size for device in self.axes])

    def crossed(self, before: ArrayType) -> tuple[DeviceDigit, ...]:
        """The device digits that data crosses on the way from the type `before`."""
        return self.axes

    @abstractmethod
    def apply(self, t: ArrayType) -> ArrayType:
        """The type after the step. Raises LayoutError where the rule does not hold of `t`."""

    @classmethod
    def from_data(cls, data: dict[str, Any], dst_mesh: Mesh | None = None) -> Self:
        """The step of a JSON object; `dst_mesh` is the mesh of the target, if it is another."""
        return cls(**read_fields(cls.fields, data))


@dataclass(frozen=True, slots=True)
class _Placed(_Facts):
    """A collective on device digits and the index digits that they own before or after it."""

    placements: tuple[Placement, ...]
    fields: ClassVar[tuple[Field, ...]] = (PLACEMENTS,)

    @property
    def axes(self) -> tuple[DeviceDigit, ...]:
        return tuple([device for device, _ in self.placements])


@dataclass(frozen=True, slots=True)
class DynamicSlice(_Placed):
    """Each device keeps its part: a free device digit becomes owner of a local index digit."""

    collective: ClassVar[str] = "dynamic_slice"
    communicates: ClassVar[bool] = False

    def apply(self, t: ArrayType) -> ArrayType:
        roles = Roles(t)
        for device, index in self.placements:
            roles.own(device, index)
        return roles.typed()

    def tile_traffic(self, tile: int) -> tuple[int, int]:
        """Nothing; 1/k of the tile."""
        return 0, tile // self.group_size

    def transposed(self, before: ArrayType) -> TileCollective:
        """The part becomes an addend of the whole."""
        return ShardedToPartial(self.placements, "sum")


@dataclass(frozen=True, slots=True)
class AllGather(_Placed):
    """Owned index digits become local: the devices of a group exchange all they hold."""

    collective: ClassVar[str] = "all_gather"

    def apply(self, t: ArrayType) -> ArrayType:
        roles = Roles(t)
        for device, index in self.placements:
            roles.release_from(device, index)
        return roles.typed()

    def tile_traffic(self, tile: int) -> tuple[int, int]:
        """The tiles of the others; all of them."""
        k = self.group_size
        return tile * (k - 1), tile * k

    def transposed(self, before: ArrayType) -> TileCollective:
        """What was copied to all is summed over all."""
        return ReduceScatter(self.placements)


@dataclass(frozen=True, slots=True)
class Move:
    """A device digit leaves one index digit and becomes owner of another."""

    device: DeviceDigit
    source: IndexDigit
    target: IndexDigit


def _write_moves(moves: tuple[Move, ...]) -> list[list[str]]:
    return write_text_rows((move.device, move.source, move.target) for move in moves)


def _read_moves(value: Any, label: str) -> tuple[Move, ...]:
    items = [read_items(item, label, 3) for item in read_list(value, label)]
    return tuple(
        Move(read_device_digit(a, label), read_index_digit(b, label), read_index_digit(c, label))
        for a, b, c in items
    )


@dataclass(frozen=True, slots=True)
class AllToAll(_Facts):
    """Owned index digits become local while local ones of the same sizes become owned."""

    moves: tuple[Move, ...]
    collective: ClassVar[str] = "all_to_all"
    fields: ClassVar[tuple[Field, ...]] = (Field("moves", "moves", _write_moves, _read_moves),)

    @property
    def axes(self) -> tuple[DeviceDigit, ...]:
        return tuple([move.device for move in self.moves])

    def apply(self, t: ArrayType) -> ArrayType:
        roles = Roles(t)
        for move in self.moves:
            # The target must be local before the exchange, not by an earlier move of it.
            roles.check_local(move.target)
        for move in self.moves:
            roles.release_from(move.device, move.source)
        for move in self.moves:
            roles.own(move.device, move.target)
        return roles.typed()

    def tile_traffic(self, tile: int) -> tuple[int, int]:
        """All but 1/k of a tile; as much as before."""
        k = self.group_size
        return tile // k * (k - 1), tile

    def transposed(self, before: ArrayType) -> TileCollective:
        return AllToAll(tuple(Move(move.device, move.target, move.source) for move in self.moves))


@dataclass(frozen=True, slots=True)
class CollectivePermute(_Facts):
    """Tiles change devices whole: `(old, new)` in `routes` gives what `old` owned to `new`.

    The routes permute a set of device digits; free and partial digits among them change their
    roles likewise. `table` instead routes device by device.
    """

    routes: tuple[tuple[DeviceDigit, DeviceDigit], ...]
    table: PermuteTable | None = None
    collective: ClassVar[str] = "collective_permute"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("routes", "routes", write_text_rows, read_digit_pairs, ()),
        Field("table", "table", write_permute_table, read_permute_table, None),
    )

    @property
    def axes(self) -> tuple[DeviceDigit, ...]:
        return self.table.axes if self.table else tuple(old for old, _ in self.routes)

    def apply(self, t: ArrayType) -> ArrayType:
        if self.table is not None:
            return self.table.apply(t)
        olds = {old for old, _ in self.routes}
        if olds != {new for _, new in self.routes} or len(olds) != len(self.routes):
            raise LayoutError(f"the routes of a permute are a permutation; got {self.routes}")
        if not all(apart(a, b) for a, b in combinations(olds, 2)):
            raise LayoutError(f"the digits that a permute routes are nested; got {self.routes}")
        roles = Roles(t)
        owners, partial = [], []
        for old, new in self.routes:
            if old.size != new.size:
                raise LayoutError(f"a route joins digits of one size; got {old} and {new}")
            if roles.owner(old) is not None:
                owners.append((new, roles.release(old)))
            elif roles.addend(old) is not None:
                roles.reduce(old)
                partial.append(new)
            else:
                roles.check_free(old)
        for new, index in owners:
            roles.own(new, index)
        roles.partial += partial
        return roles.typed()

    def tile_traffic(self, tile: int) -> tuple[int, int]:
        """A tile, unless every device keeps its own; as much as before."""
        if self.table is not None:
            moved = self.table.sources != tuple(range(self.group_size))
        else:
            moved = any(old != new for old, new in self.routes)
        return tile if moved else 0, tile

    def transposed(self, before: ArrayType) -> TileCollective:
        if self.table is not None:
            return CollectivePermute((), self.table.inverse(before))
        return CollectivePermute(tuple((new, old) for old, new in self.routes))

    @classmethod
    def from_data(cls, data: dict[str, Any], dst_mesh: Mesh | None = None) -> Self:
        """The step of a JSON object, which has either routes or a table."""
        if ("routes" in data) == ("table" in data):
            raise RedistribError("a collective_permute has either routes or a table")
        return cls(**{"routes": (), **read_fields(cls.fields, data)})


@dataclass(frozen=True, slots=True)
class ReduceScatter(_Placed):
    """Partial device digits become owners of local index digits of the reduced array."""

    collective: ClassVar[str] = "reduce_scatter"

    def apply(self, t: ArrayType) -> ArrayType:
        roles = Roles(t)
        for device, _ in self.placements:
            roles.reduce(device)
        for device, index in self.placements:
            roles.own(device, index)
        return roles.typed()

    def tile_traffic(self, tile: int) -> tuple[int, int]:
        """An addend of its part from each of the others; 1/k of the tile."""
        k = self.group_size
        return tile // k * (k - 1), tile // k

    def transposed(self, before: ArrayType) -> TileCollective:
        """What was summed over all is copied to all."""
        return AllGather(self.placements)


@dataclass(frozen=True, slots=True)
class AllReduce(_Facts):
    """Partial device digits become free: every device holds the reduced tile."""

    digits: tuple[DeviceDigit, ...]
    collective: ClassVar[str] = "all_reduce"
    fields: ClassVar[tuple[Field, ...]] = (DIGITS,)
    latencies: ClassVar[int] = 2

    @property
    def axes(self) -> tuple[DeviceDigit, ...]:
        return self.digits

    def apply(self, t: ArrayType) -> ArrayType:
        roles = Roles(t)
        for device in self.digits:
            roles.reduce(device)
        return roles.typed()

    def tile_traffic(self, tile: int) -> tuple[int, int]:
        """That of a reduce_scatter and an all_gather, of chunks that differ by one element."""
        k = self.group_size
        return tile + (k - 2) * -(-tile // k), tile

    def transposed(self, before: ArrayType) -> TileCollective:
        return self


@dataclass(frozen=True, slots=True)
class Exchange(_Placed):
    """Any re-ownership point to point; `placements` says who owns what afterwards.

    The sender of an element is found digit by digit: a device digit that owns an index digit in
    the source has the value of that index digit in the element. For the others, `(f, g)` in
    `replicas` means that digit f of the sender is digit g of the receiver; `tables` decide for the
    components that share no digits; every other digit of the sender is that of the receiver.
    To another `mesh`, g is a digit of that mesh, every other digit is 0, and a receiver that holds
    an element keeps it; or one table, of positions of both meshes, decides. Where the type before
    or after is uneven, `blocks` is the text of the one after, and its blocks tell all.

    Its traffic and its transpose depend on both its types: `routing.exchange_traffic` has them.
    """

    replicas: tuple[tuple[DeviceDigit, DeviceDigit], ...] = ()
    tables: tuple[RoutingTable, ...] = ()
    mesh: Mesh | None = None
    blocks: str | None = None
    collective: ClassVar[str] = "exchange"
    fields: ClassVar[tuple[Field, ...]] = (
        PLACEMENTS,
        Field("replicas", "replicas", write_text_rows, read_digit_pairs),
        Field("tables", "tables", write_routing_tables, read_routing_tables, ()),
        Field("onto", "mesh", lambda _: ONTO, read_text, None),
        Field("blocks", "blocks", str, read_text, None),
    )

    def apply(self, t: ArrayType) -> ArrayType:
        if self.mesh is not None and t.partial:
            raise LayoutError(f"an array is reduced before it goes to another mesh; got {t}")
        if self.blocks is not None:
            return exchanged(t, ArrayType.parse(self.blocks, self.mesh or t.mesh))
        return t.replace(mesh=self.mesh, placements=self.placements)

    def crossed(self, before: ArrayType) -> tuple[DeviceDigit, ...]:
        if self.mesh is None and self.blocks is None:
            return refine(before, self.apply(before)).changed
        # A digit of another mesh may have the name of one here; it is not crossed here.
        owns = self.placements if self.mesh is None else ()
        return tuple(sorted({device for device, _ in (*before.placements, *owns)}))

    @classmethod
    def from_data(cls, data: dict[str, Any], dst_mesh: Mesh | None = None) -> Self:
        """The step of a JSON object; `dst_mesh` is the mesh of the target, if it is another."""
        attributes = read_fields(cls.fields, data)
        if "mesh" in attributes:
            if attributes["mesh"] != ONTO or dst_mesh is None:
                raise RedistribError(
                    f"onto is {ONTO!r}, in a plan that has one; got {shown(data['onto'])}"
                )
            attributes["mesh"] = dst_mesh
        return cls(**attributes)


@dataclass(frozen=True, slots=True)
class ReplicatedToPartial(_Facts):
    """Free device digits become partial: value 0 keeps the data, the others the identity."""

    digits: tuple[DeviceDigit, ...]
    reduction: str
    collective: ClassVar[str] = "replicated_to_partial"
    fields: ClassVar[tuple[Field, ...]] = (REDUCTION, DIGITS)
    communicates: ClassVar[bool] = False

    @property
    def axes(self) -> tuple[DeviceDigit, ...]:
        return self.digits

    def apply(self, t: ArrayType) -> ArrayType:
        roles = Roles(t)
        for device in self.digits:
            roles.check_free(device)
            roles.partial.append(device)
        return roles.typed_partial(self.reduction)

    def tile_traffic(self, tile: int) -> tuple[int, int]:
        """Nothing; as much as before."""
        return 0, tile

    def transposed(self, before: ArrayType) -> TileCollective:
        return self


@dataclass(frozen=True, slots=True)
class ShardedToPartial(_Placed):
    """Owners become partial: each keeps its part of a tile that is the identity elsewhere."""

    reduction: str
    collective: ClassVar[str] = "sharded_to_partial"
    fields: ClassVar[tuple[Field, ...]] = (REDUCTION, PLACEMENTS)
    communicates: ClassVar[bool] = False

    def apply(self, t: ArrayType) -> ArrayType:
        roles = Roles(t)
        for device, index in self.placements:
            roles.release_from(device, index)
            roles.partial.append(device)
        return roles.typed_partial(self.reduction)

    def tile_traffic(self, tile: int) -> tuple[int, int]:
        """Nothing; k times the tile."""
        return 0, tile * self.group_size

    def transposed(self, before: ArrayType) -> TileCollective:
        """Of the sum each device keeps its part."""
        return DynamicSlice(self.placements)


TileCollective = (
    DynamicSlice
    | AllGather
    | AllToAll
    | CollectivePermute
    | ReduceScatter
    | AllReduce
    | ReplicatedToPartial
    | ShardedToPartial
)
"""The collectives whose traffic is told by the sizes of tiles and groups alone."""

Collective = TileCollective | Exchange

BY_NAME: dict[str, type[Collective]] = {kind.collective: kind for kind in get_args(Collective)}
