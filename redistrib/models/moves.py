"""The moves of a whole model as data: one per target array, in order.

Two layers on 4 devices, `wq.{i}: f32[8{x}, 6]`, to 4 other devices, `t.{i}: f32[6, 8{y}]`, by the
map `t.{i} = rearrange(wq.{i}, "a b -> b a")`: each `Move` names its target, the sources it is made
of, and its `Step`s, which both layers share. A step is a `Copy` (redistrib.models.copies): for all
devices at once, what goes where. `transfers` are those of one device, which derives them alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from redistrib.errors import LayoutError
from redistrib.models.balance import Crossing, balanced
from redistrib.models.bounds import Taken, least_bytes
from redistrib.models.copies import Copy
from redistrib.models.loads import Load, load_of, routed
from redistrib.models.memory import LEAST_CHUNK, Memory
from redistrib.models.order import Bytes
from redistrib.models.schedule import Delivery, Route, Turn, View, all_of, narrowest
from redistrib.models.segments import AnyType, Part, parts_of
from redistrib.models.tiles import Tiles
from redistrib.models.transfers import Schedule, Transfer
from redistrib.models.weight_map import WeightMap
from redistrib.synth.plan.data import Plan
from redistrib.synth.plan.profile import Profile
from redistrib.text import as_integer, brief
from redistrib.types.array_type import ArrayType
from redistrib.types.dtypes import itemsize

CHUNK = 64 << 20
"""Bytes of scratch that a move uses at most, where the budget allows it."""
LEAST_PART = 1 << 20
"""Bytes below which a piece is not cut: then replicas share arrays, and not each of them."""
PHASES = 3
"""Of a move: from sources, between the replicas of a target, from targets of one's own."""


@dataclass(frozen=True, slots=True)
class Again:
    """A copy that puts the same elements on the same devices, of a target made before.

    Its dtypes are those of the step that takes from it, or the first of them.
    """

    target: str
    part: int
    copy: Copy


@dataclass(frozen=True, slots=True)
class Step:
    """One copy into part number `part` of a target.

    `irregular`: its atom was cut, since sizes do not divide each other. With `again`, as for tied
    weights, each device has the elements already, in another target.
    """

    part: int
    copy: Copy
    irregular: bool
    again: Again | None = None


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


@dataclass(frozen=True, slots=True)
class Loads:
    """Bytes by device: received, sent, and what it receives at least, however it is done."""

    received: Bytes
    sent: Bytes
    least: Bytes


@dataclass(slots=True)
class _Memo:
    """What is derived when it is asked for, and then kept: of the same plan, always the same."""

    tiles: dict[ArrayType, Tiles] = field(default_factory=dict)
    tiles_of: dict[int, list[Tiles]] = field(default_factory=dict)
    layouts: dict[object, Tiles] = field(default_factory=dict)
    alike: dict[int, Tiles] = field(default_factory=dict)
    parts: dict[AnyType, tuple[Part, ...]] = field(default_factory=dict)
    deliveries: dict[object, tuple[list[Delivery], list[Delivery]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelMoves:
    """The moves of all arrays of a model, with what they take. Bytes are per device.

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
        made = move.target
        for step, crossing in zip(move.steps, self.crossings[move.target], strict=True):
            if crossing is not None:
                route, source, target, turn = crossing
                receiver, sender = target.places.get(device), source.places.get(device)
                if receiver is None and sender is None:
                    continue
                assert step.copy.number is not None
                name, _ = move.sources[step.copy.number]
                now, relayed = self._deliveries(route, receiver, sender, turn)
                here, there, dtypes = source.ids, target.ids, step.copy.dtypes
                for a, b, view, _ in now:
                    yield Transfer(here[a], there[b], made, name, view, dtypes)
                for a, b, view, _ in relayed:
                    late.append(Transfer(there[a], there[b], made, made, view, dtypes[-1:], 1))
                continue
            place = self._tiles_of(self.dst[move.target])[step.part].places.get(device)
            if place is not None and step.again is not None:
                late += self._from_own(move, step, place)
            elif place is not None:
                yield from self._fill(move, step, place)
        yield from self._identity(move, device)
        yield from sorted(late, key=lambda transfer: transfer.phase)

    def pattern(self, move: Move) -> object:
        """All that the transfers of a move depend on but types, names of arrays, and device ids."""
        return tuple(
            (step.part, step.copy.number, step.again, *_made_by(step, crossing))
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
        made = self._memo.deliveries
        key = id(route), receiver, sender, turn
        if key not in made:
            found: list[Delivery] = []
            if receiver is not None:
                found += route.receives(receiver, turn)
                found += route.relay_sends(receiver, turn)
            if sender is not None:
                found += route.sends(sender, turn)
            if route.uneven:
                found = [*map(route.placed, found)]
            made[key] = [d for d in found if not d.relayed], [d for d in found if d.relayed]
        return made[key]

    def _fill(self, move: Move, step: Step, place: int) -> Iterator[Transfer]:
        tiles = self._tiles(self.target_part(move, step).type)
        view = all_of(step.copy, tiles, place)
        if view is not None:
            device = tiles.ids[place]
            yield Transfer(None, device, move.target, None, view, step.copy.dtypes[-1:])

    def _from_own(self, move: Move, step: Step, place: int) -> Iterator[Transfer]:
        assert step.again is not None
        tiles = self._tiles(self.target_part(move, step).type)
        again = step.again
        read = self._tiles_of(self.dst[again.target])[again.part]
        view = all_of(step.copy, tiles, place, again.copy, read)
        if view is not None:
            device = tiles.ids[place]
            dtypes = step.copy.dtypes[len(again.copy.dtypes) - 1 :]
            yield Transfer(device, device, move.target, again.target, view, dtypes, 2)

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
        made = self._memo.parts
        if t not in made:
            made[t] = parts_of(t)
        return made[t]

    def _tiles(self, t: ArrayType) -> Tiles:
        made = self._memo.tiles
        if t not in made:
            made[t] = Tiles(t)
        return made[t]

    def _alike(self, tiles: Tiles) -> Tiles:
        """The first tiles of the same layout, whatever their devices: stages of a pipeline."""
        made = self._memo.alike
        if id(tiles) not in made:
            t = tiles.type
            key = t.mesh.axes, t.shape, t.dims, t.uneven, t.partial
            made[id(tiles)] = self._memo.layouts.setdefault(key, tiles)
        return made[id(tiles)]

    @cached_property
    def crossings(self) -> dict[str, list[Crossing | None]]:
        """For each target and each step of it, who serves whom; None for what does not cross."""
        apart: dict[tuple[int, int], bool] = {}
        routes: dict[object, Route] = {}
        made: list[tuple[Route, Tiles, Tiles]] = []
        for move in self.moves:
            targets = self._tiles_of(self.dst[move.target])
            for step in move.steps:
                copy = step.copy
                if copy.number is None or step.again is not None:
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
                made.append((routes[key], source, target))
        crossings = iter(balanced(made))
        return {
            move.target: [
                None if step.copy.number is None or step.again is not None else next(crossings)
                for step in move.steps
            ]
            for move in self.moves
        }

    def _tiles_of(self, t: AnyType) -> list[Tiles]:
        """The tiles of the parts of a type that the plan has: such types are one object each."""
        made = self._memo.tiles_of
        if id(t) not in made:
            made[id(t)] = [self._tiles(part.type) for part in self._parts(t)]
        return made[id(t)]

    # --- figures -----------------------------------------------------------------------------

    @cached_property
    def loads(self) -> Loads:
        """What every device receives and sends, in bytes, in the order of `devices`."""
        place = {device: n for n, device in enumerate(self.devices)}
        received, sent = np.zeros((2, len(place)), np.int64)
        for plan in self.reductions.values():
            own = [place[device] for device in plan.src.mesh.ids]
            received[own] += plan.received_bytes
            sent[own] += plan.sent_bytes
        loads: dict[int, Load] = {}
        crossings = self.crossings  # makes the tiles
        places = {
            id(tiles): np.array([place[device] for device in tiles.ids])
            for tiles in self._memo.tiles.values()
        }
        taken: dict[object, list[Taken]] = {}
        for move in self.moves:
            for step, crossing in zip(move.steps, crossings[move.target], strict=True):
                if crossing is None:
                    continue
                route, source, target, turn = crossing
                if id(route) not in loads:
                    loads[id(route)] = load_of(route)
                load = loads[id(route)].turned(route, turn)
                here, there = places[id(target)], places[id(source)]
                width = itemsize(narrowest(step.copy.dtypes))
                received[here] += load.received * width
                assert step.copy.number is not None
                view = Taken(step.copy, here, load.received, width)
                taken.setdefault(move.sources[step.copy.number], []).append(view)
                sent[here] += load.relayed * width
                sent[there] += load.sent * width
        return Loads(received, sent, least_bytes(taken, len(place)))

    @property
    def received_bytes(self) -> int:
        """What the worst device takes in over the whole move."""
        return int(self.loads.received.max(initial=0))

    @property
    def sent_bytes(self) -> int:
        """What the worst device gives away over the whole move."""
        return int(self.loads.sent.max(initial=0))

    @property
    def lower_bound_bytes(self) -> int:
        """What the worst device takes in at least, however it is done.

        The elements that its target tiles need and its source tiles do not hold, in the narrowest
        dtype on the way. Of views of one source that may share elements the largest counts alone,
        so that nothing is counted twice.
        """
        return int(self.loads.least.max(initial=0))

    @property
    def seconds(self) -> float:
        """An estimate under the profile: a latency per array, and the bytes of the worst device."""
        link = self.profile.link
        worst = max(self.received_bytes, self.sent_bytes)
        moving = sum(1 for move in self.moves if any(s.copy.number is not None for s in move.steps))
        reducing = sum(plan.seconds for plan in self.reductions.values())
        return reducing + moving * link.latency + worst / link.bandwidth

    @cached_property
    def _memory(self) -> Memory:
        return Memory.of(self.src, self.dst, self.reductions, self.moves, keep=self.keep_sources)

    @property
    def alive_bytes(self) -> tuple[int, ...]:
        """What the worst device holds while each array moves, in order, without scratch."""
        return tuple(int(row.max(initial=0)) for row in self._memory.alive)

    @property
    def peak_bytes(self) -> int:
        """Sources not yet released + targets + scratch, at the worst moment on the worst device."""
        return self._memory.peak(self.chunk_bytes, into_targets=self.into_targets)

    @property
    def least_budget_bytes(self) -> int:
        """The peak with chunks of scratch as small as they get: planning with it succeeds."""
        return self._memory.peak(LEAST_CHUNK, into_targets=self.into_targets)

    def together(self, first: int, last: int) -> tuple[int, int]:
        """Bytes of the worst device where moves `first` to `last` run as one; and its scratch."""
        return self._memory.together(first, last, self.chunk_bytes, into_targets=self.into_targets)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of scratch on a device at a time: as large as the budget allows."""
        chunk = CHUNK
        while self.memory_budget is not None and chunk > LEAST_CHUNK:
            if self._memory.peak(chunk, into_targets=self.into_targets) <= self.memory_budget:
                break
            chunk //= 2
        return chunk

    @property
    def _budget_text(self) -> str:
        text = f"least budget {self.least_budget_bytes}"
        if self.least_budget_bytes > self.order_bound_bytes:
            text += f"; no order needs less than {self.order_bound_bytes}"
        return text

    def __str__(self) -> str:
        irregular = [move.target for move in self.moves if move.irregular]
        unused = self.unused_sources
        lines = [
            f"{len(self.moves)} arrays from {len(self.src)}, {len(self.devices)} devices",
            f"  received   {self.received_bytes} bytes on the worst device "
            f"(bound {self.lower_bound_bytes})",
            f"  sent       {self.sent_bytes} bytes on the worst device",
            f"  peak       {self.peak_bytes} bytes ({self._budget_text})",
            f"  time       {self.seconds * 1e3:.3g} ms under profile {self.profile.name}",
        ]
        if irregular:
            lines.append(
                f"  irregular  {len(irregular)} arrays whose cuts fall inside tiles, such as "
                f"{irregular[0]}"
            )
        if unused:
            lines.append(f"  unused     {len(unused)} sources, such as {unused[0]}")
        return "\n".join(lines)

    @cached_property
    def unused_sources(self) -> tuple[str, ...]:
        """The sources that no target is made from."""
        used = {name for move in self.moves for name, _ in move.sources}
        return tuple(name for name in self.src if name not in used)


def _made_by(step: Step, crossing: Crossing | None) -> tuple[int, Turn | None]:
    """What makes the transfers of a step, an object that the plan keeps, and whose turn it is."""
    return (id(step.copy), None) if crossing is None else (id(crossing.route), crossing.turn)
