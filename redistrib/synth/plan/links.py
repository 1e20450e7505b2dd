"""Links, and what a collective over some of them takes: on a torus, rings share what passes them.

Example: a torus of 16x16 with 100 GB/s into a device along each ring, both ways. Along a whole ring
an all_gather has 100 GB/s and along both rings 200, since either brings other parts. Over 8
neighbours of a ring it has 50: a line has no way around its end. In an all_to_all along a ring the
pieces pass 4 links each, a quarter of the ring, so a device with a tile of B bytes needs the time
of 4 B at 100 GB/s: V/(4W) for an array of V bytes.

A group *reaches* over so many devices of a ring. One of every fourth device of 16 reaches over 16,
and three others like it want the same links: of them a gather has a quarter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import inf, isfinite, log2, prod

from redistrib.errors import RedistribError
from redistrib.text import as_number, brief

ASIDE = -1
"""In place of the number of a ring: what is a digit of none."""
GATHERING = ("all_gather", "reduce_scatter", "all_reduce")
"""Collectives in which every link of a ring carries what its devices want, in both directions."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a digit lies in a level whose devices are not all alike.

    It runs along the `ring` with this number, which has `side` devices, 0 of a switch; with all
    digits below it, it `reaches` over so many of them. `closed` is whether the ring has a link from
    its end to its start. What is ASIDE reaches as far as a line along which a message passes as
    many links. A ring of the level has `longest` devices at most, and from one device to another a
    message passes `diameter` links at most. `hop` is in seconds.
    """

    level: int
    ring: int
    reach: int
    side: int
    closed: bool
    longest: int
    diameter: int
    hop: float

    @property
    def passes(self) -> int:
        """How many links a message along it passes at most."""
        return min(self.reach - 1, self.side // 2) if self.closed else self.reach - 1

    def aside(self, passes: int) -> Place:
        """A line in the same level, along which a message passes so many links."""
        return replace(self, ring=ASIDE, reach=passes + 1, closed=False)


@dataclass(frozen=True, slots=True)
class Link:
    """One mesh axis: `latency` in seconds a collective, `bandwidth` in bytes a second a device.

    `place` is where the axis lies in its level, None where that makes no difference; it has no
    spelling in a file. Then `bandwidth` is what one ring gives a device in both directions.
    """

    latency: float
    bandwidth: float
    place: Place | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        latency, bandwidth = as_number(self.latency), as_number(self.bandwidth)
        if not (0 <= latency < inf and 0 < bandwidth < inf):
            raise RedistribError(
                "a link has a latency (s) of at least 0 and a bandwidth (bytes/s) above 0, both "
                f"finite; got latency {brief(self.latency)} and bandwidth {brief(self.bandwidth)}",
                latency=self.latency,
                bandwidth=self.bandwidth,
            )
        # numbers of one kind have one spelling in JSON and divide alike
        object.__setattr__(self, "latency", latency)
        object.__setattr__(self, "bandwidth", bandwidth)

    @property
    def where(self) -> tuple[int, ...]:
        """Its place as numbers that have an order."""
        place = self.place
        return () if place is None else (place.level, place.ring, place.reach)

    def below(self, positions: int) -> Link:
        """The link of a part of its axis that has so many positions before it."""
        place = self.place
        if place is None or place.ring == ASIDE or positions == 1:
            return self
        return replace(self, place=replace(place, reach=place.reach // positions))

    @property
    def anywhere(self) -> Link:
        """The link of what lies anywhere in the same level."""
        place = self.place
        return self if place is None else replace(self, place=place.aside(place.diameter))


@dataclass(frozen=True, slots=True)
class Level:
    """The link inside groups of so many consecutive device ids, for example within a node.

    `torus` are the devices along each of its rings, major first; their product is that of the level
    over those of the level below. A ring of `wraps` devices or more is closed, a shorter one is a
    line. `hop` is in seconds: for each further device that a collective passes on a ring, or
    without a torus for each further time that its group doubles, as in a tree.
    """

    devices: int
    link: Link
    torus: tuple[int, ...] = ()
    wraps: int = 1
    hop: float = 0.0

    def __post_init__(self) -> None:
        for key, value in (("devices", self.devices), ("wraps", self.wraps)):
            if type(value) is not int or value < 1:
                raise RedistribError(f"the {key} of a level are a positive number; got {value!r}")
        if not all(type(side) is int and side > 0 for side in self.torus):
            raise RedistribError(
                f"a torus is the devices along each ring, positive numbers; got {list(self.torus)}"
            )
        hop = as_number(self.hop)
        if not (isfinite(hop) and hop >= 0):
            raise RedistribError(f"a hop is in seconds, finite and at least 0; got {self.hop!r}")
        object.__setattr__(self, "hop", hop)

    def passes(self, spans: Iterable[int]) -> int:
        """How many links a message passes at most that goes so far along each ring."""
        ways = zip(self.torus, spans, strict=True)
        return sum(min(span, side // 2) if side >= self.wraps else span for side, span in ways)

    @property
    def anywhere(self) -> Link:
        """The link of what is anywhere inside it."""
        return self.aside(self._diameter)

    @property
    def _diameter(self) -> int:
        return self.passes(side - 1 for side in self.torus)

    def aside(self, passes: int) -> Link:
        """The link of what is no digit of a ring, where a message passes so many links."""
        if not self.torus and not self.hop:
            return self.link
        return self._placed(ASIDE, passes + 1, max(self.torus, default=0), closed=False)

    def along(self, ring: int, reach: int) -> Link:
        """The link of a digit that reaches over so many devices of a ring."""
        side = self.torus[ring]
        return self._placed(ring, reach, side, side >= self.wraps)

    def _placed(self, ring: int, reach: int, side: int, closed: bool) -> Link:
        longest, diameter = max(self.torus, default=0), self._diameter
        place = Place(self.devices, ring, reach, side, closed, longest, diameter, self.hop)
        return replace(self.link, place=place)


Crossed = tuple[Link, int]
"""A link and the size of the digit that has it."""


def speed_over(crossed: Sequence[Crossed], collective: str) -> tuple[float, float]:
    """Latency and bandwidth of a collective over digits with these links, one at least.

    The largest latency and the least bandwidth of all levels.
    """
    latency, bandwidth = 0.0, inf
    placed: dict[int, list[Crossed]] = {}
    for link, size in crossed:
        if link.place is None:
            latency, bandwidth = max(latency, link.latency), min(bandwidth, link.bandwidth)
        else:
            placed.setdefault(link.place.level, []).append((link, size))
    for digits in placed.values():
        of_level = _in_level(tuple(digits), collective)
        latency, bandwidth = max(latency, of_level[0]), min(bandwidth, of_level[1])
    return latency, bandwidth


def _slowness(link: Link) -> tuple[float, float, int]:
    """Least for the slowest link; of equals for that of the larger level."""
    return link.bandwidth, -link.latency, -(link.place.level if link.place else 0)


def link_across(links: Sequence[Link]) -> Link:
    """The link of a digit that is cut otherwise than those with these links: the slowest counts.

    In its level a message passes as many links as along all of them.
    """
    slowest = min(links, key=_slowness)
    if (place := slowest.place) is None:
        return slowest
    places = [other for link in links if (other := link.place) and other.level == place.level]
    return replace(slowest, place=place.aside(_passes(places)))


def _passes(places: Sequence[Place]) -> int:
    """How many links of one level a message passes: ring after ring, or along what is ASIDE.

    Parts of what is ASIDE lie inside of it, so that together they take no longer.
    """
    rings: dict[int, int] = {}
    aside = 0
    for place in places:
        if place.ring == ASIDE:
            aside = max(aside, place.passes)
        else:
            rings[place.ring] = max(place.passes, rings.get(place.ring, 0))
    return max(aside, sum(rings.values()))


@lru_cache(maxsize=1 << 14)
def _in_level(digits: tuple[Crossed, ...], collective: str) -> tuple[float, float]:
    """Latency and bandwidth of a collective over digits of one level."""
    link = digits[0][0]
    size = prod([size for _, size in digits])
    places = [(place, size) for link, size in digits if (place := link.place) is not None]
    hop = places[0][0].hop
    if not places[0][0].side:
        return link.latency + hop * max(0.0, log2(size) - 1), link.bandwidth
    latency = link.latency + hop * max(0, _passes([place for place, _ in places]) - 1)
    if any(place.ring == ASIDE for place, _ in places):
        longest = places[0][0].longest
        share = 1 / 2 if collective in GATHERING else 1 / max(2, longest / 2)
        return latency, link.bandwidth * share
    rings: dict[int, list[tuple[Place, int]]] = {}
    for place, of_digit in sorted(places, key=lambda entry: entry[0].ring):
        rings.setdefault(place.ring, []).append((place, of_digit))
    shares = []
    for along in rings.values():
        reach = max(place.reach for place, _ in along)
        closed = along[0][0].closed and reach == along[0][0].side
        group = prod([of_digit for _, of_digit in along])
        shares.append(_share(collective, group, reach, closed))
    if collective in GATHERING:  # each ring brings a part
        return latency, link.bandwidth * sum(shares)
    share = min(shares)  # all that moves passes each ring
    if collective == "all_to_all":
        share = min(1.0, share) * (size - 1) / size
    return latency, link.bandwidth * share


def _share(collective: str, group: int, reach: int, closed: bool) -> float:
    """Of the bandwidth of a ring, what a group has that reaches over so many devices of it."""
    if collective in GATHERING:
        return group / reach / (1 if closed else 2)
    # A piece passes a quarter of a ring, or so much that half of a line passes its middle one way.
    passing = reach / 4 if closed else reach / 2
    # What goes to one device goes one way.
    return 1 / passing if collective == "all_to_all" else 1 / max(2, passing)
