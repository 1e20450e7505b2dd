"""What a collective takes on a torus, derived without the planner: rings, their bounds and shares.

A level with `torus` has its devices on rings, the last of them neighbours by id. A digit of device
ids runs along one ring if it starts and ends where digits of that ring do. Of the digits that a
step crosses on one ring, the product of their sizes is its group, and the end of the largest the
devices that it reaches over; groups / reach have the ring to themselves.

On a torus of 4x4, ids 0 to 3 are a ring, and so are 0, 4, 8 and 12: the digit of 4 values that are
4 ids apart is the first ring, and reaches over all 4 of its devices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log2, prod
from typing import Any

import numpy as np

from redistrib.checker.claims import require
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring of a level, counted from the major one; None what lies along no ring of it.

    Of a digit on it `end` is how many of its `devices` the digit spans, from the first. Of what
    lies along none, it is one more than the links between its devices that are farthest apart.
    """

    level: Level
    number: int | None
    devices: int
    end: int

    @property
    def hops(self) -> int:
        """The most links between two devices of it, the shorter way around where it is closed."""
        closed = self.number is not None and self.devices >= self.level.wraps
        return min(self.end - 1, self.devices // 2) if closed else self.end - 1

    def up_to(self, positions: int) -> Ring:
        """The ring of what has so many positions of this digit before it."""
        if self.number is None:
            return self
        return Ring(self.level, self.number, self.devices, self.end // positions)


@dataclass(frozen=True, slots=True)
class Level:
    """A level of a plan: its devices, its link, and the rings inside it."""

    devices: int
    link: tuple[float, float]
    torus: tuple[int, ...]
    wraps: int
    hop: float
    below: int

    @staticmethod
    def of(data: Any, below: int) -> Level:
        """The level of a plan over another one, of whose groups each has so many devices."""
        torus, wraps, hop = data.get("torus", ()), data.get("wraps", 1), data.get("hop", 0.0)
        right = not torus or (all(torus) and prod(torus) * below == data["devices"])
        require(right, "the rings of a torus have the devices of their level")
        require(wraps > 0 and hop >= 0, "a ring wraps from one device on, a hop is at least 0")
        link = data["latency"], data["bandwidth"]
        return Level(data["devices"], link, tuple(torus), wraps, hop, below)

    @property
    def loose(self) -> Ring | None:
        """What lies along no ring, anywhere in the level; None where all devices are alike."""
        return self._off(self.most_hops) if self.torus or self.hop else None

    @property
    def most_hops(self) -> int:
        """The links between the two devices that are farthest apart."""
        return self._hops([devices - 1 for devices in self.torus])

    def _hops(self, far: Sequence[int]) -> int:
        """The links from one device to another that is so far away along each ring."""
        return sum(
            n if devices < self.wraps else min(n, devices // 2)
            for n, devices in zip(far, self.torus, strict=True)
        )

    def _off(self, hops: int) -> Ring:
        most = max(self.torus, default=0)
        return Ring(self, None, most, hops + 1)

    def off_rings(self, rings: Iterable[Ring | None]) -> Ring | None:
        """What lies along none of these rings of this level, but where digits along them do."""
        on_level = [ring for ring in rings if ring is not None and ring.level == self]
        return self._off(hops_along(on_level)) if on_level else None

    def _scattered(self, mesh: Mesh, stride: int, size: int) -> Ring:
        """What so many values lie along, `stride` positions apart, that are a digit of no ring."""
        devices = mesh.devices
        if devices is None:  # in order: further groups of the level are as the first one
            devices = tuple(range(min(self.devices, mesh.num_devices)))
        nodes = np.array(devices).reshape(-1, size, stride) // self.below
        far = []
        for n in range(len(self.torus)):
            apart = prod(self.torus[n + 1 :])
            places = nodes // apart % self.torus[n]
            far.append(int((places.max(axis=1) - places.min(axis=1)).max()))
        return self._off(self._hops(far))

    def parts(
        self, mesh: Mesh, part: DeviceDigit, stride: int
    ) -> list[tuple[DeviceDigit, Ring | None]]:
        """A part of an axis inside this level, ring by ring, minor first.

        `stride` are the positions of the mesh from one value of it to the next.
        """
        if not self.torus:
            return [(part, self.loose)]
        digits: list[tuple[DeviceDigit, Ring | None]] = []
        size = part.size
        while size > 1:
            run = next(n for n in range(size, 0, -1) if size % n == 0 and _apart(mesh, stride, n))
            if run == 1:  # ids in no order
                whole = DeviceDigit(part.axis, part.pre, size)
                return [*digits, (whole, self._scattered(mesh, stride, size))]
            digit = DeviceDigit(part.axis, part.pre * (size // run), run)
            along = self._along(mesh, digit, stride, _apart(mesh, stride, run))
            digits += along or [(digit, self._scattered(mesh, stride, run))]
            size, stride = size // run, stride * run
        return digits

    def _along(
        self, mesh: Mesh, digit: DeviceDigit, stride: int, apart: int
    ) -> list[tuple[DeviceDigit, Ring | None]]:
        """A digit of ids so far `apart`, cut where one ring ends and the next one starts.

        Its values are `stride` positions apart. Empty where it does not run along rings.
        """
        digits: list[tuple[DeviceDigit, Ring | None]] = []
        first, size = self.below, digit.size
        for number in reversed(range(len(self.torus))):
            devices = self.torus[number]
            last = first * devices
            if size > 1 and apart < last:
                # It may end anywhere on a ring if none of its lines goes on beyond it.
                part = size if apart * size <= last else last // apart
                if apart % first or size % part:
                    return []
                if last % (apart * part) and not _fit(mesh, stride, part, last):
                    return []
                cut = DeviceDigit(digit.axis, digit.pre * (size // part), part)
                digits.append((cut, Ring(self, number, devices, apart * part // first)))
                size, apart, stride = size // part, apart * part, stride * part
            first = last
        return digits if size == 1 else []


def _apart(mesh: Mesh, stride: int, size: int) -> int:
    """How far apart in ids so many values are, `stride` positions apart; 0: they are no digit.

    The same everywhere, from a multiple of all of them on, upwards or downwards.
    """
    if mesh.devices is None or size == 1:
        return stride
    lines = np.array(mesh.devices).reshape(-1, size, stride).swapaxes(1, 2).reshape(-1, size)
    if lines[0, 0] > lines[0, -1]:
        lines = lines[:, ::-1]
    apart = int(lines[0, 1] - lines[0, 0])
    whole = (lines == lines[:, :1] + apart * np.arange(size)).all()
    return apart if whole and not (lines[:, 0] % (apart * size) >= apart).any() else 0


def _fit(mesh: Mesh, stride: int, size: int, group: int) -> bool:
    """Whether one group of so many consecutive ids has all devices of each line.

    A line is so many devices, `stride` positions apart.
    """
    if mesh.devices is None:
        return mesh.num_devices <= group
    lines = np.array(mesh.devices).reshape(-1, size, stride) // group
    return not np.ptp(lines, axis=1).any()


def speed_on(rings: Sequence[tuple[Ring, int]], name: str) -> tuple[float, float]:
    """Latency and bandwidth over digits on the rings of one level, each with its size."""
    level, group = rings[0][0].level, prod(size for _, size in rings)
    latency, bandwidth = level.link
    gathers = name in ("all_gather", "reduce_scatter", "all_reduce")
    if not level.torus:  # a tree
        return latency + level.hop * max(0.0, log2(group) - 1), bandwidth
    latency += level.hop * max(0, hops_along([ring for ring, _ in rings]) - 1)
    if any(ring.number is None for ring, _ in rings):
        share = 0.5 if gathers else 1 / max(2, max(level.torus) / 2)
        return latency, bandwidth * share
    shares = []
    for number in sorted({ring.number for ring, _ in rings if ring.number is not None}):
        on_it = [(ring, size) for ring, size in rings if ring.number == number]
        reach, around = max(ring.end for ring, _ in on_it), on_it[0][0].devices
        whole = reach == around >= level.wraps
        shares.append(_share(name, gathers, prod(size for _, size in on_it), reach, whole))
    # Gathers use all rings at once; what moves to other devices uses one after the other.
    share = sum(shares) if gathers else min(shares)
    if name == "all_to_all":
        share = min(1.0, share) * (group - 1) / group
    return latency, bandwidth * share


def hops_along(rings: Sequence[Ring]) -> int:
    """The links between devices that digits along these rings of one level join.

    Ring after ring; of what lies along none the most.
    """
    of_rings = {
        number: max(ring.hops for ring in rings if ring.number == number)
        for number in {ring.number for ring in rings if ring.number is not None}
    }
    off = [ring.hops for ring in rings if ring.number is None]
    return max([*off, sum(of_rings.values())])


def _share(name: str, gathers: bool, group: int, reach: int, whole: bool) -> float:
    """The part of the bandwidth of a ring, or of a line on it, that a group has."""
    if gathers:
        return group / reach / (1 if whole else 2)
    passed = reach / (4 if whole else 2)
    return 1 / (passed if name == "all_to_all" else max(2, passed))


def by_level(rings: Iterable[tuple[Ring, int]]) -> list[list[tuple[Ring, int]]]:
    """Digits on rings, those of one level together."""
    levels: dict[int, list[tuple[Ring, int]]] = {}
    for ring, size in rings:
        levels.setdefault(ring.level.devices, []).append((ring, size))
    return [*levels.values()]
