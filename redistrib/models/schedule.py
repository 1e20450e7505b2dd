"""Who sends what to whom for one `Copy`, derived by each device alone.

Of a copy, the digits that walk the coordinates of the *source* alone are the pieces that a target
tile is made of: each comes from another device. Take `t: f32[8]` on 2 devices from `w: f32[8{x}]`
on 4 others, with digits  4 (inside, stride 2 | coordinate of x)  and  2 (inside | inside): every
target takes in 4 pieces of 2 elements.

Tiles of an uneven type differ in shape. Views are first those of the largest tile, of both sides;
`placed` puts them where they are in smaller ones, dimension by dimension.

Law (senders). Piece e is cut into `parts`. If several targets hold the same tile, on devices that
have nothing of the source, part s crosses to replica (e parts + s + turn) mod targets alone, and
goes on to the others from there: every element crosses once. Otherwise each device keeps what it
holds, and takes the rest itself. Of the source's replicas the senders take turns: those that want
the same piece, in the order of fan (the value of the digits that walk the target alone), replica
and part, are served by replicas turn, turn + 1, ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import gcd, prod

from redistrib.models.copies import Copy, CopyDigit, Walk
from redistrib.models.tiles import Tiles, solve
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.dtypes import itemsize

Run = tuple[int, int, int]
"""count, stride in the target tile, stride in the source tile; elements. Stride 0 repeats."""


@dataclass(frozen=True, slots=True)
class View:
    """Elements of a target tile and of what they are copied from, by offset and runs."""

    target_offset: int
    source_offset: int
    runs: tuple[Run, ...]

    @property
    def size(self) -> int:
        """Elements written in the target."""
        return prod(count for count, _, _ in self.runs)

    @property
    def distinct(self) -> int:
        """Elements read of the source, each once: what crosses a wire."""
        return prod(count for count, _, stride in self.runs if stride)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One view, from a position of the source's mesh to one of the target's.

    With `relayed`, from the target tile of another position of the target's mesh, which has it from
    the source: source offset and strides are then those of the target.
    """

    sender: int
    receiver: int
    view: View
    relayed: bool = False


class Route:
    """The deliveries of one copy, between a source type and a target type.

    `turn` is the replica that serves first. Parts of pieces have `least_part` bytes at least.
    """

    def __init__(
        self, copy: Copy, source: Tiles, target: Tiles, turn: int, least_part: int = 1
    ) -> None:
        self.copy, self.source, self.target, self.turn = copy, source, target, turn
        self.inside = [d for d in copy.digits if d.target.owner is None and d.source.owner is None]
        self.pieces = [d for d in copy.digits if d.target.owner is None and d.source.owner]
        self.fans = [d for d in copy.digits if d.target.owner and d.source.owner is None]
        self.ranks = [d for d in copy.digits if d.target.owner and d.source.owner]
        self.uneven = bool(source.type.uneven or target.type.uneven)
        apart = source.places.keys().isdisjoint(target.places)
        # What is passed on is read from target tiles, so it has their dtype.
        narrow = copy.dtypes[-1] == narrowest(copy.dtypes)
        self.relays = apart and narrow and target.replicas > 1
        # Pieces and receivers share already: pieces are cut where there are fewer than replicas.
        self.receivers = 1 if self.relays else target.replicas
        fans = prod(digit.size for digit in self.fans) * self.receivers
        pieces = prod(digit.size for digit in self.pieces)
        most = max(source.replicas // fans, target.replicas // pieces if self.relays else 1)
        size = prod(d.size for d in self.inside if d.source.stride) * itemsize(copy.dtypes[0])
        most = max(1, min(most, size // least_part))
        self.parts, self._whole, self._cut = _in_parts(self.inside, most)

    def receives(self, position: int) -> Iterator[Delivery]:
        """What a position of the target's mesh takes in, and what it keeps of its own."""
        if not self.target.holds_value(position):
            return
        known = self._solved(position)
        if known is None:
            return
        own = self.source.places.get(self.target.ids[position])
        replica = self.target.replica(position)
        for number, values in enumerate(product(*(range(d.size) for d in self.pieces))):
            counts = {**known, **dict(zip(map(id, self.pieces), values, strict=True))}
            coordinates = self._source_coordinates(counts)
            if own is not None and self._holds(own, coordinates):
                yield Delivery(own, position, self._view(counts, None))
                continue
            for part in range(self.parts):
                view = self._view(counts, part)
                if self.relays:
                    relay = (part + number * self.parts + self.turn) % self.target.replicas
                    if relay != replica:
                        sender = self._beside(position, relay)
                        yield Delivery(sender, position, _from_target(view), relayed=True)
                        continue
                yield Delivery(self._sender(coordinates, counts, replica, part), position, view)

    def sends(self, position: int) -> Iterator[Delivery]:
        """What a position of the source's mesh gives to others or keeps."""
        known = self._solved_in_source(position)
        if known is None:
            return
        number = 0
        for digit in self.pieces:
            number = number * digit.size + known[id(digit)]
        for values in product(*(range(d.size) for d in self.fans)):
            counts = {**known, **dict(zip(map(id, self.fans), values, strict=True))}
            coordinates = self._target_coordinates(counts)
            source = self._source_coordinates(counts)
            for part in range(self.parts):
                replicas: range | tuple[int, ...] = range(self.target.replicas)
                if self.relays:
                    replicas = ((part + number * self.parts + self.turn) % self.target.replicas,)
                for replica in replicas:
                    receiver = self.target.position(coordinates, replica)
                    own = self.source.places.get(self.target.ids[receiver])
                    if own is not None and self._holds(own, source):
                        if own == position and part == 0:
                            yield Delivery(own, receiver, self._view(counts, None))
                    elif self._sender(source, counts, replica, part) == position:
                        yield Delivery(position, receiver, self._view(counts, part))

    def relay_sends(self, position: int) -> Iterator[Delivery]:
        """What a position of the target's mesh passes on to the other replicas of its tile."""
        if not self.relays or not self.target.holds_value(position):
            return
        known = self._solved(position)
        if known is None:
            return
        replica = self.target.replica(position)
        for number, values in enumerate(product(*(range(d.size) for d in self.pieces))):
            counts = {**known, **dict(zip(map(id, self.pieces), values, strict=True))}
            for part in range(self.parts):
                if (part + number * self.parts + self.turn) % self.target.replicas == replica:
                    view = _from_target(self._view(counts, part))
                    for other in range(self.target.replicas):
                        if other != replica:
                            yield Delivery(position, self._beside(position, other), view, True)

    def placed(self, delivery: Delivery) -> Delivery:
        """The delivery with its view in the tiles that its two devices have."""
        source = self.target if delivery.relayed else self.source
        ends = self.target.type, delivery.receiver, source.type, delivery.sender
        return replace(delivery, view=relaid(delivery.view, *ends))

    def all_of(
        self, position: int, other: Copy | None, read: ArrayType | None = None
    ) -> View | None:
        """All that the copy writes at a position of the target's mesh; None if it has no part.

        The source side is another copy's target, of the type `read`, which has the same digits;
        none for a fill.
        """
        known = self._solved(position) if self.target.holds_value(position) else None
        if known is None:
            return None
        inside = [
            (d, 0 if other is None else other.digits[n].target.stride)
            for n, d in enumerate(self.copy.digits)
            if d.target.owner is None
        ]
        digits = [CopyDigit(d.size, d.target, Walk(None, stride)) for d, stride in inside]
        start = other.target.offset if other is not None else 0
        view = View(self.copy.target.offset, start, _runs(tuple(digits)))
        read = read or self.target.type
        return relaid(view, self.target.type, position, read, position)

    def _solved(self, position: int) -> dict[int, int] | None:
        """The counts of the digits that walk coordinates of the target; None if it has no part."""
        walks = [(d, d.target.owner, d.target.stride) for d in (*self.fans, *self.ranks)]
        return _counts(walks, dict(self.copy.target.coordinates), self.target, position)

    def _solved_in_source(self, position: int) -> dict[int, int] | None:
        walks = [(d, d.source.owner, d.source.stride) for d in (*self.pieces, *self.ranks)]
        return _counts(walks, dict(self.copy.source.coordinates), self.source, position)

    def _source_coordinates(self, counts: Mapping[int, int]) -> dict[DeviceDigit, int]:
        coordinates = dict(self.copy.source.coordinates)
        for digit in (*self.pieces, *self.ranks):
            assert digit.source.owner is not None
            coordinates[digit.source.owner] += counts[id(digit)] * digit.source.stride
        return coordinates

    def _target_coordinates(self, counts: Mapping[int, int]) -> dict[DeviceDigit, int]:
        coordinates = dict(self.copy.target.coordinates)
        for digit in (*self.fans, *self.ranks):
            assert digit.target.owner is not None
            coordinates[digit.target.owner] += counts[id(digit)] * digit.target.stride
        return coordinates

    def _holds(self, position: int, coordinates: Mapping[DeviceDigit, int]) -> bool:
        return all(self.source.coordinate(d, position) == v for d, v in coordinates.items())

    def _sender(
        self,
        coordinates: Mapping[DeviceDigit, int],
        counts: Mapping[int, int],
        replica: int,
        part: int,
    ) -> int:
        fan = 0
        for digit in self.fans:
            fan = fan * digit.size + counts[id(digit)]
        item = (fan * self.receivers + replica % self.receivers) * self.parts + part
        return self.source.position(coordinates, (item + self.turn) % self.source.replicas)

    def _beside(self, position: int, replica: int) -> int:
        """The position with the same target tile that is another replica of it."""
        owners = {d: self.target.coordinate(d, position) for d in self.target.owners}
        return self.target.position(owners, replica)

    def _view(self, counts: Mapping[int, int], part: int | None) -> View:
        """What of the tiles a piece is, or a part of a piece."""
        target, source = self.copy.target.offset, self.copy.source.offset
        for digit in self.pieces:
            target += counts[id(digit)] * digit.target.stride
        for digit in self.fans:
            source += counts[id(digit)] * digit.source.stride
        digits = self._whole
        if part is not None and self._cut is not None:
            target += part * self._cut.target.stride
            source += part * self._cut.source.stride
        elif self._cut is not None:
            digits = (self._cut, *digits)
        runs = _runs(digits)
        return View(target, source, runs if self.uneven else _merged(runs))


def relaid(view: View, target: ArrayType, receiver: int, source: ArrayType, sender: int) -> View:
    """A view of the largest tiles of two types as one of the tiles at two positions.

    Runs are neighbours or not in the tiles that there are, so they are merged only now.
    """
    there = target.tile_shape, target.tile_shape_at(receiver)
    here = source.tile_shape, source.tile_shape_at(sender)
    runs = [(n, _relaid(t, *there), _relaid(s, *here)) for n, t, s in view.runs]
    starts = _relaid(view.target_offset, *there), _relaid(view.source_offset, *here)
    return View(*starts, _merged(runs))


def _relaid(number: int, largest: Sequence[int], actual: Sequence[int]) -> int:
    """The row-major number, in a tile of a shape, of an element given in a larger one.

    >>> _relaid(9, (2, 8), (2, 5))
    6
    """
    if largest == actual:
        return number
    found, below = 0, 1
    for of_largest, size in zip(reversed(largest), reversed(actual), strict=True):
        number, place = divmod(number, of_largest)
        found += place * below
        below *= size
    return found


def narrowest(dtypes: tuple[str, ...]) -> str:
    """The narrowest dtype of a chain of casts, the first of equals: elements cross in it.

    >>> narrowest(("f32", "bf16", "f32"))
    'bf16'
    """
    return min(dtypes, key=itemsize)


def _counts(
    walks: list[tuple[CopyDigit, DeviceDigit | None, int]],
    start: Mapping[DeviceDigit, int],
    tiles: Tiles,
    position: int,
) -> dict[int, int] | None:
    """The counts of digits with which a copy reaches a position; None if it does not."""
    counts: dict[int, int] = {}
    for owner, value in start.items():
        digits = [(digit, stride) for digit, walked, stride in walks if walked == owner]
        found = solve([(d.size, s) for d, s in digits], tiles.coordinate(owner, position) - value)
        if found is None:
            return None
        counts |= {id(digit): n for (digit, _), n in zip(digits, found, strict=True)}
    return counts


def _in_parts(
    inside: list[CopyDigit], most: int
) -> tuple[int, tuple[CopyDigit, ...], CopyDigit | None]:
    """A digit cut off those inside both tiles, for parts of a piece: at most so many, and equal."""
    best = max(inside, key=lambda d: gcd(d.size, most) if d.source.stride else 1, default=None)
    parts = gcd(best.size, most) if best is not None and best.source.stride else 1
    if best is None or parts == 1:
        return 1, tuple(inside), None
    rest = best.size // parts
    cut = CopyDigit(
        parts,
        Walk(None, best.target.stride * rest),
        Walk(None, best.source.stride * rest),
    )
    kept = [CopyDigit(rest, d.target, d.source) if d is best else d for d in inside]
    return parts, tuple(kept), cut


def _runs(digits: tuple[CopyDigit, ...]) -> tuple[Run, ...]:
    """Digits inside both tiles as runs."""
    ordered = sorted(digits, key=lambda d: -d.target.stride)
    return tuple((d.size, d.target.stride, d.source.stride) for d in ordered)


def _merged(given: Iterable[Run]) -> tuple[Run, ...]:
    """The same runs, neighbours that are one run merged."""
    runs: list[Run] = []
    for count, target, source in given:
        if count == 1:
            continue
        if runs and runs[-1][1:] == (target * count, source * count):
            runs[-1] = (runs[-1][0] * count, target, source)
        else:
            runs.append((count, target, source))
    return tuple(runs)


def _from_target(view: View) -> View:
    """The view of a delivery that is read from the same place of another target tile."""
    runs = tuple((count, target, target if source else 0) for count, target, source in view.runs)
    return View(view.target_offset, view.target_offset, runs)
