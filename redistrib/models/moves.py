"""The moves of a whole model as data: one per target array, in order.

Two layers on 4 devices, `wq.{i}: f32[8{x}, 6]`, to 4 other devices, `t.{i}: f32[6, 8{y}]`, by the
map `t.{i} = rearrange(wq.{i}, "a b -> b a")`: each `Move` names its target, the sources it is made
of, and its `Step`s, which both layers share. A step is a `Copy` (redistrib.models.copies): for all
devices at once, what goes where. `transfers` are those of one device, which derives them alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from math import prod

from redistrib.errors import LayoutError
from redistrib.models.atoms import Atom
from redistrib.models.balance import Crossing, balanced
from redistrib.models.copies import Copy
from redistrib.models.loads import routed
from redistrib.models.schedule import Delivery, Route, Turn, all_of
from redistrib.models.segments import AnyType, Part, parts_of
from redistrib.models.tile_views import View, joined
from redistrib.models.tiles import Tiles
from redistrib.models.transfers import Schedule, Transfer
from redistrib.models.weight_map import WeightMap
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import Profile
from redistrib.text import as_integer, brief
from redistrib.types.array_type import ArrayType

LEAST_PART = 1 << 20
"""Bytes below which a piece is not cut: then replicas share arrays, and not each of them."""
MAX_KEPT = 1024
"""Deliveries of one array to and from one device that are kept for other arrays like it."""
PHASES = 3
"""Of a move: from sources, between the replicas of a target, from targets of one's own."""


@dataclass(frozen=True, slots=True)
class EarlierPart:
    """Part number `part` of a target that was made before, on the same devices."""

    target: str
    part: int


@dataclass(frozen=True, slots=True)
class Step:
    """One copy of an atom into part number `part` of a target.

    `irregular`: the atom was cut, since sizes do not divide each other. With `earlier`, as for tied
    weights, each device has the elements already: the copy is from that target, on each device.
    """

    part: int
    copy: Copy
    irregular: bool
    atom: Atom
    earlier: EarlierPart | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """How one target array is made; `sources` are names of arrays with the number of a part."""

    target: str
    sources: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]

    @property
    def irregular(self) -> bool:
        """Whether some atom of the array was cut to fit the tiles."""
        return any(step.irregular for step in self.steps)


@dataclass(slots=True)
class _Memo:
    """What is derived when it is asked for, and then kept: of the same plan, always the same."""

    tiles: dict[ArrayType, Tiles] = field(default_factory=dict)
    tiles_of: dict[int, list[Tiles]] = field(default_factory=dict)
    layouts: dict[object, Tiles] = field(default_factory=dict)
    alike: dict[int, Tiles] = field(default_factory=dict)
    parts: dict[AnyType, tuple[Part, ...]] = field(default_factory=dict)
    deliveries: dict[object, tuple[list[Delivery], list[Delivery]]] = field(default_factory=dict)
    relayed: dict[tuple[int, ...], list[Delivery]] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelMoves:
    """The moves of all arrays of a model.

    `reductions` are plans for the partial sources, run first; `moves` are in order. Pieces that
    replicas share are cut down to `least_part` bytes. `device_of` says, where devices were
    relabelled, which device got the tiles that were asked of which. `order_bound_bytes`:
    in no other order of the moves is `least_budget_bytes` below it.
    """

    src: dict[str, AnyType]
    dst: dict[str, AnyType]
    weights: WeightMap
    reductions: dict[str, Plan]
    moves: tuple[Move, ...]
    profile: Profile
    keep_sources: bool
    into_targets: bool
    memory_budget: int | None = None
    least_part: int = LEAST_PART
    device_of: dict[int, int] = field(default_factory=dict)
    order_bound_bytes: int = 0

    @cached_property
    def devices(self) -> tuple[int, ...]:
        """The ids of all devices, ascending."""
        types = {id(t): t for t in (*self.src.values(), *self.dst.values())}
        meshes = {t.mesh for t in types.values()}
        return tuple(sorted({device for mesh in meshes for device in mesh.ids}))

    # --- schedules ---------------------------------------------------------------------------

    def schedule(self, device: int) -> Schedule:
        """All transfers of one device, in order.

        Raises LayoutError for a device that has no part in the move.
        """
        if as_integer(device) not in self.devices:
            raise LayoutError(
                f"device {brief(device)} is in no mesh of this plan of {len(self.devices)} devices",
                device=device,
            )
        transfers: list[Transfer] = []
        for move in self.moves:
            transfers += self.transfers(move, device)
        return Schedule(device, tuple(transfers))

    def transfers(self, move: Move, device: int) -> Iterator[Transfer]:
        """What a device fills, receives, passes on and sends for one move, phase by phase."""
        late: list[Transfer] = []
        relayed: list[list[Delivery]] = []
        target_name = move.target
        for step, crossing in zip(move.steps, self.crossings[move.target], strict=True):
            if crossing is not None:
                route, source, target, turn = crossing
                receiver, sender = target.places.get(device), source.places.get(device)
                if receiver is None and sender is None:
                    continue
                assert step.copy.number is not None
                name, _ = move.sources[step.copy.number]
                now, later = self._deliveries(route, receiver, sender, turn)
                source_ids, target_ids, dtypes = source.ids, target.ids, step.copy.dtypes
                for a, b, view, _ in now:
                    yield Transfer(source_ids[a], target_ids[b], target_name, name, view, dtypes)
                if later:
                    relayed.append(later)
                continue
            place = self._tiles_of(self.dst[move.target])[step.part].places.get(device)
            if place is not None and step.earlier is not None:
                late += self._from_own(move, step, place)
            elif place is not None:
                yield from self._fill(move, step, place)
        yield from self._identity(move, device)
        ids, dtype = self.dst[target_name].mesh.ids, (self.dst[target_name].dtype,)
        for a, b, view, _ in self._relayed(relayed):
            yield Transfer(ids[a], ids[b], target_name, target_name, view, dtype, 1)
        yield from late

    def pattern(self, move: Move) -> object:
        """All that the transfers of a move depend on but types, names of arrays, and device ids."""
        return tuple(
            (step.part, step.copy.number, step.earlier, *_made_by(step, crossing))
            for step, crossing in zip(move.steps, self.crossings[move.target], strict=True)
        )

    def target_part(self, move: Move, step: Step) -> Part:
        """The part of a target that a step writes."""
        return self._parts(self.dst[move.target])[step.part]

    def source_type(self, name: str) -> AnyType:
        """The type of a source when it moves: reduced, if it was partial."""
        return self.reductions[name].dst if name in self.reductions else self.src[name]

    def _deliveries(
        self, route: Route, receiver: int | None, sender: int | None, turn: Turn
    ) -> tuple[list[Delivery], list[Delivery]]:
        """What positions receive, keep and send, and what is relayed; layers share it."""
        memo = self._memo.deliveries
        key = id(route), receiver, sender, turn
        if key not in memo:
            deliveries: list[Delivery] = []
            if receiver is not None:
                deliveries += route.receives(receiver, turn)
                deliveries += route.relay_sends(receiver, turn)
            if sender is not None:
                deliveries += route.sends(sender, turn)
            if route.uneven:
                deliveries = [*map(route.placed, deliveries)]
            direct = [d for d in deliveries if not d.relayed]
            relayed = [d for d in deliveries if d.relayed]
            if len(deliveries) > MAX_KEPT and not relayed:
                return direct, []
            memo[key] = direct, relayed
        return memo[key]

    def _relayed(self, lists: Sequence[list[Delivery]]) -> list[Delivery]:
        """What replicas of a target pass on to each other in a move, joined; layers share it."""
        memo = self._memo.relayed
        key = tuple(map(id, filter(None, lists)))  # those that are not empty are kept: see above
        if key not in memo:
            by_peers: dict[tuple[int, int], list[View]] = {}
            for delivery in chain.from_iterable(lists):
                by_peers.setdefault(delivery[:2], []).append(delivery.view)
            memo[key] = [
                Delivery(*peers, view, True)
                for peers, views in sorted(by_peers.items())
                for view in sorted(joined(views))
            ]
        return memo[key]

    def _fill(self, move: Move, step: Step, place: int) -> Iterator[Transfer]:
        tiles = self._tiles(self.target_part(move, step).type)
        view = all_of(step.copy, tiles, place)
        if view is not None:
            device = tiles.ids[place]
            yield Transfer(None, device, move.target, None, view, step.copy.dtypes[-1:])

    def _from_own(self, move: Move, step: Step, place: int) -> Iterator[Transfer]:
        assert step.earlier is not None
        tiles = self._tiles(self.target_part(move, step).type)
        earlier = step.earlier
        read = self._tiles_of(self.dst[earlier.target])[earlier.part]
        view = all_of(step.copy, tiles, place, read)
        if view is not None:
            device = tiles.ids[place]
            dtypes = step.copy.dtypes
            yield Transfer(device, device, move.target, earlier.target, view, dtypes, 2)

    def _identity(self, move: Move, device: int) -> Iterator[Transfer]:
        """A partial target holds the value on one device, the identity on the others."""
        for part in self._parts(self.dst[move.target]):
            tiles = self._tiles(part.type)
            place = tiles.places.get(device)
            if place is not None and not tiles.holds_value(place):
                view = View(0, 0, ((prod(part.type.tile_shape_at(place)), 1, 0),))
                yield Transfer(
                    None,
                    device,
                    move.target,
                    None,
                    view,
                    (part.type.dtype,),
                    reduction=part.type.reduction,
                )

    @cached_property
    def _memo(self) -> _Memo:
        return _Memo()

    def _parts(self, t: AnyType) -> tuple[Part, ...]:
        memo = self._memo.parts
        if t not in memo:
            memo[t] = parts_of(t)
        return memo[t]

    def _tiles(self, t: ArrayType) -> Tiles:
        memo = self._memo.tiles
        if t not in memo:
            memo[t] = Tiles(t)
        return memo[t]

    def _alike(self, tiles: Tiles) -> Tiles:
        """The first tiles of the same layout, whatever their devices: stages of a pipeline."""
        memo = self._memo.alike
        if id(tiles) not in memo:
            t = tiles.type
            key = t.mesh.axes, t.shape, t.dims, t.uneven, t.partial
            memo[id(tiles)] = self._memo.layouts.setdefault(key, tiles)
        return memo[id(tiles)]

    @cached_property
    def crossings(self) -> dict[str, list[Crossing | None]]:
        """For each target and each step of it, who serves whom; None for what does not cross."""
        apart: dict[tuple[int, int], bool] = {}
        routes: dict[object, Route] = {}
        entries: list[tuple[Route, Tiles, Tiles]] = []
        for move in self.moves:
            targets = self._tiles_of(self.dst[move.target])
            for step in move.steps:
                copy = step.copy
                if copy.number is None or step.earlier is not None:
                    continue
                name, part = move.sources[copy.number]
                source, target = self._tiles_of(self.source_type(name))[part], targets[step.part]
                ends = id(source), id(target)
                if ends not in apart:
                    apart[ends] = source.places.keys().isdisjoint(target.places)
                key: object = (id(copy), *ends)
                if apart[ends]:
                    key = id(copy), id(self._alike(source)), id(self._alike(target))
                if key not in routes:
                    routes[key] = routed(copy, source, target, self.least_part, apart=apart[ends])
                entries.append((routes[key], source, target))
        crossings = iter(balanced(entries))
        return {
            move.target: [
                None if step.copy.number is None or step.earlier is not None else next(crossings)
                for step in move.steps
            ]
            for move in self.moves
        }

    def _tiles_of(self, t: AnyType) -> list[Tiles]:
        """The tiles of the parts of a type that the plan has: such types are one object each."""
        memo = self._memo.tiles_of
        if id(t) not in memo:
            memo[id(t)] = [self._tiles(part.type) for part in self._parts(t)]
        return memo[id(t)]


def _made_by(step: Step, crossing: Crossing | None) -> tuple[int, Turn | None]:
    """What makes the transfers of a step, an object that the plan keeps, and whose turn it is."""
    return (id(step.copy), None) if crossing is None else (id(crossing.route), crossing.turn)
