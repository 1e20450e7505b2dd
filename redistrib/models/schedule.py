"""Who sends what to whom for one `Copy`, derived by each device alone.

Of a copy, the digits that walk the coordinates of the *source* alone are the pieces that a target
tile is made of: each comes from another device. Take `t: f32[8]` on 2 devices from `w: f32[8{x}]`
on 4 others, with digits  4 (inside, stride 2 | coordinate of x)  and  2 (inside | inside): every
target takes in 4 pieces of 2 elements.

Tiles of an uneven type differ in shape. Views are first those of the largest tile, of both sides;
`placed` puts them where they are in smaller ones.

Law (senders). Piece number e is cut into `parts` parts. If several targets hold the same tile, on
devices that have nothing of the source, part s of it crosses to one of these replicas alone, number
`(e * parts + s + relaying) % replicas`, which passes it on to the others: every element crosses
once. Otherwise each device keeps what it holds, and takes the rest itself. Of the source's replicas
the senders take turns: those that want the same piece, in the order of fan (the value of the digits
that walk the target alone), replica and part, are served by replicas serving, serving + 1, ... A
`Turn` is where both begin, or an order in which those that have given more serve less.
One that is itself replica r of the source, of another tile, is served by replica r + serving, and
its further parts by others, as far apart as can be: on one mesh those that want a piece and do not
hold it are then spread over the replicas, whichever they are.

Positions, and offsets in tiles, are linear in the counts of all digits: what each piece, fan and
part adds to them is a table, made once for all devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from redistrib.models.copies import Copy, CopyDigit, Walk
from redistrib.models.tile_views import Run, View, merged, relaid
from redistrib.models.tiles import Tiles
from redistrib.types.digits import DeviceDigit
from redistrib.types.dtypes import itemsize


class Delivery(NamedTuple):
    """One view, from a position of the source's mesh to one of the target's.

    With `relayed`, from the target tile of another position of the target's mesh, which has it from
    the source: source offset and strides are then those of the target.
    """

    sender: int
    receiver: int
    view: View
    relayed: bool = False


class Turn(NamedTuple):
    """The replica of a source that serves first, and that of a target that passes on first.

    With a `deal`, its replicas serve in that order, and not in their own.
    """

    serving: int = 0
    relaying: int = 0
    deal: tuple[int, ...] = ()

    def server(self, item: int, replicas: int) -> int:
        """The replica that gives the items with a number, modulo the replicas."""
        return self.deal[item % replicas] if self.deal else (item + self.serving) % replicas

    def items(self, replica: int, replicas: int) -> list[int]:
        """The numbers of the items that a replica gives."""
        if self.deal:
            return [n for n, dealt in enumerate(self.deal) if dealt == replica]
        return [(replica - self.serving) % replicas]


class Route:
    """The deliveries of one copy, between a source type and a target type.

    Parts of pieces have `least_part` bytes at least, and cross with `part_bytes`. The replicas of
    one source tile give `served` parts, those of a target tile pass on `relayed`. `apart`: no
    device is on both meshes; only then the ids of the devices do not count. `takers`: at most so
    many devices take the same piece, where some of those that want it hold it.
    """

    def __init__(
        self,
        copy: Copy,
        source: Tiles,
        target: Tiles,
        least_part: int = 1,
        *,
        apart: bool = False,
        takers: int = 0,
    ) -> None:
        self.copy, self.source, self.target = copy, source, target
        self.inside, self.pieces, self.fans, self.ranks = (
            [
                d
                for d in copy.digits
                if bool(d.target.owner) is in_target and bool(d.source.owner) is in_source
            ]
            for in_target, in_source in ((False, False), (False, True), (True, False), (True, True))
        )
        self.uneven = bool(source.type.uneven or target.type.uneven)
        self.apart = apart
        # What is passed on is read from target tiles, so it has their dtype.
        narrow = copy.dtypes[-1] == narrowest(copy.dtypes)
        self.relays = apart and narrow and target.replicas > 1
        # Pieces and receivers share already: pieces are cut where there are fewer than replicas.
        self.receivers = 1 if self.relays else target.replicas
        fans = prod(digit.size for digit in self.fans) * self.receivers
        pieces = prod(digit.size for digit in self.pieces)
        most = max(
            source.replicas // (takers or fans), target.replicas // pieces if self.relays else 1
        )
        size = prod(d.size for d in self.inside if d.source.stride) * itemsize(copy.dtypes[0])
        most = max(1, min(most, size // least_part))
        self.parts, kept, cut = _in_parts(self.inside, most)
        elements = prod(d.size for d in self.inside if d.source.stride) // self.parts
        self.part_bytes = elements * itemsize(narrowest(copy.dtypes))
        self.served = fans * self.parts
        self.part_step = source.replicas // min(self.parts, source.replicas)
        self.relayed = pieces * self.parts if self.relays else 0
        self._holders: dict[int, int] = {}
        self._tables(kept, cut)

    def _tables(self, kept: tuple[CopyDigit, ...], cut: CopyDigit | None) -> None:
        """What the pieces, fans and parts add to positions and offsets, and the runs of views."""
        source, target = self.source, self.target
        # Of the last position that was asked for: by replica, what it gives.
        self._sent: tuple[int, dict[int, list[Delivery]]] = (-1, {})
        self._holder = sum(source.weight(d) * value for d, value in self.copy.source.coordinates)
        self._receiver = sum(target.weight(d) * value for d, value in self.copy.target.coordinates)
        self._from_ranks = _steps(source, [d.source for d in self.ranks])
        self._to_ranks = _steps(target, [d.target for d in self.ranks])
        self._pieces = _table(
            self.pieces,
            _steps(source, [d.source for d in self.pieces]),
            [d.target.stride for d in self.pieces],
        )
        self._fans = _table(
            self.fans,
            _steps(target, [d.target for d in self.fans]),
            [d.source.stride for d in self.fans],
        )
        step = (cut.target.stride, cut.source.stride) if cut else (0, 0)
        self._parts = [(part * step[0], part * step[1]) for part in range(self.parts)]
        runs = _runs((cut, *kept) if cut else kept), _runs(kept)
        self._whole_runs, self._runs = runs if self.uneven else (merged(runs[0]), merged(runs[1]))
        self._relayed_runs = tuple((n, t, t if s else 0) for n, t, s in self._runs)
        self._solved = _Solver(
            target,
            self.copy.target.coordinates,
            [(d.target, d.size) for d in (*self.fans, *self.ranks)],
        )
        self._solved_in_source = _Solver(
            source,
            self.copy.source.coordinates,
            [(d.source, d.size) for d in (*self.pieces, *self.ranks)],
        )

    def receives(self, position: int, turn: Turn) -> Iterator[Delivery]:
        """What a position of the target's mesh takes in, and what it keeps of its own."""
        target, source = self.target, self.source
        counts = self._solved(position) if target.holds_value(position) else None
        if counts is None:
            return
        fans = len(self.fans)
        fan, (_, origin) = _entry(self.fans, self._fans, counts[:fans])
        origin += self.copy.source.offset
        holder = self._holder + _dot(counts[fans:], self._from_ranks)
        home = None if self.apart else source.places.get(target.ids[position])
        held = None if home is None else self._held_by(home)
        replica = target.replica(position)
        item = (fan * self.receivers + replica % self.receivers) * self.parts
        relay, beside = turn.relaying, position - target.offsets[replica]
        for step, start in self._pieces:
            place = self.copy.target.offset + start
            if home is not None and holder + step == held:
                yield Delivery(home, position, View(place, origin, self._whole_runs))
                continue
            for part, (target_shift, source_shift) in enumerate(self._parts):
                passes_on = (relay + part) % target.replicas
                if self.relays and passes_on != replica:
                    view = View(place + target_shift, place + target_shift, self._relayed_runs)
                    yield Delivery(beside + target.offsets[passes_on], position, view, True)
                else:
                    view = View(place + target_shift, origin + source_shift, self._runs)
                    server = turn.server(self._server(item + part, home), source.replicas)
                    yield Delivery(holder + step + source.offsets[server], position, view)
            relay += self.parts

    def sends(self, position: int, turn: Turn) -> Iterator[Delivery]:
        """What a position of the source's mesh gives to others."""
        counts = self._solved_in_source(position)
        if counts is None:
            return
        # Those that this replica serves have these numbers among all that want the piece.
        replicas = self.source.replicas
        mine = turn.items(self.source.replica(position), replicas)
        if self.apart:
            items = (item for first in mine for item in range(first, self.served, replicas))
            yield from self._asked(position, counts, items, turn.relaying)
            return
        last, by_replica = self._sent
        if last != position:
            by_replica = {}
            held = self._held_by(position)
            deliveries = self._asked(position, counts, range(self.served), 0)
            for item, delivery in enumerate(deliveries):
                home = self.source.places.get(self.target.ids[delivery.receiver])
                if home is None or self._held_by(home) != held:
                    by_replica.setdefault(self._server(item, home), []).append(delivery)
            self._sent = position, by_replica  # one device asks for all turns, or each in turn
        for first in mine:
            yield from by_replica.get(first, [])

    def _asked(
        self, position: int, counts: Sequence[int], items: Iterable[int], relaying: int
    ) -> Iterator[Delivery]:
        """The deliveries from a position of the source's mesh to the takers with these numbers."""
        pieces = len(self.pieces)
        number, (_, place) = _entry(self.pieces, self._pieces, counts[:pieces])
        place += self.copy.target.offset
        first = self._receiver + _dot(counts[pieces:], self._to_ranks)
        relay = relaying + number * self.parts
        for item in items:
            taker, part = divmod(item, self.parts)
            fan, receiver = divmod(taker, self.receivers)
            step, origin = self._fans[fan]
            target_shift, source_shift = self._parts[part]
            if self.relays:
                receiver = (relay + part) % self.target.replicas
            to = first + step + self.target.offsets[receiver]
            origin += self.copy.source.offset + source_shift
            yield Delivery(position, to, View(place + target_shift, origin, self._runs))

    def relay_sends(self, position: int, turn: Turn) -> Iterator[Delivery]:
        """What a position of the target's mesh passes on to the other replicas of its tile."""
        target = self.target
        if not self.relays or not target.holds_value(position) or self._solved(position) is None:
            return
        replica = target.replica(position)
        others = [
            position - target.offsets[replica] + offset
            for other, offset in enumerate(target.offsets)
            if other != replica
        ]
        mine = (replica - turn.relaying) % target.replicas
        for item in range(mine, self.relayed, target.replicas):
            number, part = divmod(item, self.parts)
            place = self.copy.target.offset + self._pieces[number][1] + self._parts[part][0]
            view = View(place, place, self._relayed_runs)
            yield from (Delivery(position, other, view, True) for other in others)

    def _server(self, item: int, home: int | None) -> int:
        """The replica that gives a part at turn 0; `home`: where the taker is in the source."""
        if home is not None:
            item = self.source.replica(home) + item % self.parts * self.part_step
        return item % self.source.replicas

    def placed(self, delivery: Delivery) -> Delivery:
        """The delivery with its view in the tiles that its two devices have."""
        source = self.target if delivery.relayed else self.source
        ends = self.target, delivery.receiver, source, delivery.sender
        return delivery._replace(view=relaid(delivery.view, *ends))

    def _held_by(self, position: int) -> int:
        """The first position that holds the same source tile as a position."""
        if position not in self._holders:
            weights = [(self.source.weight(d), d.size) for d, _ in self.copy.source.coordinates]
            self._holders[position] = sum(w * (position // w % size) for w, size in weights)
        return self._holders[position]


def all_of(copy: Copy, tiles: Tiles, position: int, read: Tiles | None = None) -> View | None:
    """All that a copy writes at a position of its target's mesh; None if that is nothing.

    What it reads is there too, in tiles of `read`; none for a fill.
    """
    owned = [digit for digit in copy.digits if digit.target.owner]
    counts = _Solver(tiles, copy.target.coordinates, [(d.target, d.size) for d in owned])(position)
    if counts is None or not tiles.holds_value(position):
        return None
    start = copy.source.offset + sum(
        count * digit.source.stride
        for count, digit in zip(counts, owned, strict=True)
        if digit.source.owner is None
    )
    inside = tuple(digit for digit in copy.digits if digit.target.owner is None)
    view = View(copy.target.offset, start, _runs(inside))
    return relaid(view, tiles, position, read or tiles, position)


class _Solver:
    """Finds the counts of digits with which a copy reaches a position of a mesh."""

    def __init__(
        self,
        tiles: Tiles,
        start: Sequence[tuple[DeviceDigit, int]],
        digits: Sequence[tuple[Walk, int]],
    ) -> None:
        self._number = len(digits)
        self._owners = []
        for owner, value in start:
            steps = [(w.stride, n, k) for k, (w, n) in enumerate(digits) if w.owner == owner]
            entry = tiles.weight(owner), owner.size, value, sorted(steps, reverse=True)
            self._owners.append(entry)

    def __call__(self, position: int) -> list[int] | None:
        """The counts by digit; None if it does not get there.

        Steps are nested: each is larger than what all smaller ones reach together.
        """
        counts = [0] * self._number
        for weight, size, start, steps in self._owners:
            remainder = position // weight % size - start
            for stride, most, digit in steps:
                if remainder < 0:
                    return None
                counts[digit] = min(remainder // stride, most - 1)
                remainder -= counts[digit] * stride
            if remainder:
                return None
        return counts


def _steps(tiles: Tiles, walks: Sequence[Walk]) -> list[int]:
    """How many positions further one step of each digit leads."""
    return [tiles.weight(walk.owner) * walk.stride for walk in walks if walk.owner is not None]


def _dot(counts: Sequence[int], steps: Sequence[int]) -> int:
    return sum(n * step for n, step in zip(counts, steps, strict=True))


def _table(
    digits: Sequence[CopyDigit], positions: Sequence[int], offsets: Sequence[int]
) -> list[tuple[int, int]]:
    """For all values of some digits, the first one slowest, what they add to two sums."""
    return [
        (_dot(values, positions), _dot(values, offsets))
        for values in product(*(range(d.size) for d in digits))
    ]


def _entry(
    digits: Sequence[CopyDigit], table: Sequence[tuple[int, int]], counts: Sequence[int]
) -> tuple[int, tuple[int, int]]:
    """The number and the entry of some values in such a table."""
    number = 0
    for digit, count in zip(digits, counts, strict=True):
        number = number * digit.size + count
    return number, table[number]


def narrowest(dtypes: tuple[str, ...]) -> str:
    """The narrowest dtype of a chain of casts, the first of equals: elements cross in it.

    >>> narrowest(("f32", "bf16", "f32"))
    'bf16'
    """
    return min(dtypes, key=itemsize)


def _in_parts(
    inside: list[CopyDigit], most: int
) -> tuple[int, tuple[CopyDigit, ...], CopyDigit | None]:
    """A digit cut off those inside both tiles, for parts of a piece: at most so many, and equal."""
    sizes = [_divisor(d.size, most) if d.source.stride else 1 for d in inside]
    parts = max(sizes, default=1)
    if parts == 1:
        return 1, tuple(inside), None
    best = inside[sizes.index(parts)]
    size = best.size // parts
    cut = CopyDigit(
        parts,
        Walk(None, best.target.stride * size),
        Walk(None, best.source.stride * size),
    )
    kept = [CopyDigit(size, d.target, d.source) if d is best else d for d in inside]
    return parts, tuple(kept), cut


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is at most so much.

    >>> _divisor(224, 3), _divisor(12, 20)
    (2, 12)
    """
    return next(n for n in range(min(number, most), 0, -1) if number % n == 0)


def _runs(digits: tuple[CopyDigit, ...]) -> tuple[Run, ...]:
    """Digits inside both tiles as runs."""
    ordered = sorted(digits, key=lambda d: -d.target.stride)
    return tuple((d.size, d.target.stride, d.source.stride) for d in ordered)
