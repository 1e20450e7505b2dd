"""What a step takes by the profile of a plan, derived without the planner.

    seconds = latency * latencies + received bytes / (bandwidth * efficiency)

of the slowest link that the step crosses, on the mesh that it starts on. Of an exchange onto
another mesh these are received or sent bytes, whichever are more, over the links of all owners and
that of the first level in which all devices of both meshes are, or else the profile's own.

On x=2,y=4 under levels of 4 devices, a line along y is devices 0 to 3 or 4 to 7, inside a level,
and one along x is not: x has the link of the profile. On x=8 the minor 4 positions of x are inside
and its major 2 are not: x:(2)4 has the link of the level. What rings have is in `rings`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, lcm, prod
from typing import Any, NamedTuple

import numpy as np

from redistrib.checker.claims import require
from redistrib.checker.rings import Level, Ring, by_level, speed_on
from redistrib.types.digits import DeviceDigit, apart, parse_device_digit, primes
from redistrib.types.mesh import Mesh

COMMUNICATING = (
    "all_gather",
    "all_to_all",
    "collective_permute",
    "reduce_scatter",
    "all_reduce",
    "exchange",
)


class Spot(NamedTuple):
    """The (latency, bandwidth) of a digit, and the ring that it lies along."""

    link: tuple[float, float]
    ring: Ring | None = None


@dataclass(frozen=True, slots=True)
class Links:
    """The links of parts of axes of a mesh, and the default outside of them."""

    parts: list[tuple[DeviceDigit, Spot]]
    default: Spot
    groups: list[tuple[int, Spot]]
    """The devices of each level and the link inside; the last is that of the profile."""
    mesh: Mesh
    rounds: bool
    efficiency: dict[str, float]

    @staticmethod
    def of(profile: Any, mesh: Mesh) -> Links:
        """The links of a profile as a plan has it, its levels resolved on the mesh."""
        data = profile.get("levels", ())
        sizes = [level["devices"] for level in data]
        right = all(a < b for a, b in pairwise([0, *sizes]))
        require(right, "levels have positive sizes, smallest group first")
        efficiency = profile.get("efficiency", {})
        right = {*efficiency} <= {*COMMUNICATING} and all(0 < x <= 1 for x in efficiency.values())
        require(right, "the efficiency of a communicating collective is above 0 and at most 1")
        require(profile["exchange"] in ("call", "rounds"), "an exchange is a call or rounds")
        levels = [Level.of(level, below) for level, below in zip(data, [1, *sizes], strict=False)]
        for level in data:
            _link(level)
        named = profile.get("axes", {})
        parts = []
        gaps = False  # in which the link of the profile counts
        stride = mesh.num_devices
        for axis, size in mesh.axes:
            stride //= size
            names = [name for name in named if name.partition(":")[0] == axis]
            parts += [(parse_device_digit(name, size), _link(named[name])) for name in names]
            end = size if not names else 1
            for level in levels:
                start = size // _inner(mesh, size, stride, level.devices)
                if start < end and end % start == 0:
                    inside = DeviceDigit(axis, start, end // start)
                    on_rings = level.parts(mesh, inside, stride * (size // end))
                    parts += [(part, Spot(level.link, ring)) for part, ring in on_rings]
                    end = start
            if end > 1:
                parts.append((DeviceDigit(axis, 1, end), _link(profile)))
            whole = prod(part.size for part, _ in parts if part.axis == axis) == size
            gaps = gaps or not whole
        # Where all links are one it is the default, too.
        used = {
            Spot(spot.link, spot.ring and spot.ring.level.loose)
            for part, spot in parts
            if part.size > 1
        }
        default = used.pop() if len(used) == 1 and not gaps else _link(profile)
        groups = [(level.devices, Spot(level.link, level.loose)) for level in levels]
        groups.append((0, _link(profile)))
        return Links(parts, default, groups, mesh, profile["exchange"] == "rounds", efficiency)

    def seconds(
        self,
        name: str,
        crossed: Iterable[DeviceDigit],
        size: int,
        latencies: int,
        onto: Mesh | None = None,
    ) -> float:
        """Latency and bytes over bandwidth, of the slowest link that a step crosses."""
        spots = [link for digit in crossed for link in self._crossed(digit)]
        if onto is not None:
            spots.append((self._to(onto), 1))
        elif not spots:
            spots.append((self.default, 1))
        links = [spot.link for spot, _ in spots if spot.ring is None]
        rings = [(spot.ring, devices) for spot, devices in spots if spot.ring is not None]
        links += [speed_on(along, name) for along in by_level(rings)]
        latencies = latencies if self.rounds or name != "exchange" else 1
        bandwidth = min(b for _, b in links) * self.efficiency.get(name, 1.0)
        return max(a for a, _ in links) * latencies + size / bandwidth

    def _to(self, other: Mesh) -> Spot:
        """The link of the first group that the devices of this mesh and another are all in."""
        ids = [np.array(m.devices or (0, m.num_devices - 1)) for m in (self.mesh, other)]
        ends = np.array([(devices.min(), devices.max()) for devices in ids])
        inside = (link for group, link in self.groups[:-1] if not np.ptp(ends // group))
        return next(inside, self.groups[-1][1])

    def _crossed(self, digit: DeviceDigit) -> list[tuple[Spot, int]]:
        """The links of the parts that a digit meets, and of what is in none of them.

        Each with the devices that it joins.
        """
        # Primes of the digit that no part has.
        missing = Counter(primes(digit.size))
        met = []
        whole = []
        for part, spot in self.parts:
            if apart(part, digit):
                continue
            first, last = lcm(part.pre, digit.pre), gcd(part.end, digit.end)
            size = max(1, last // first)
            missing -= Counter(primes(size))
            ring = spot.ring
            if ring is not None:  # known only of what is all of the part between two cuts
                cuts = {part.pre, part.end, digit.pre, digit.end}
                nested = first < last == first * size and {first, last} <= cuts
                ring = ring.up_to(first // part.pre) if nested else ring.level.off_rings([ring])
            met.append((Spot(spot.link, ring), size))
            whole.append(spot.ring)
        # Of parts on rings that a digit only crosses, the slowest counts.
        if missing.total() and any(spot.ring for spot, _ in met) and self._holds(digit):
            link, ring = min((spot for spot, _ in met), key=_slowness)
            ring = ring and ring.level.off_rings(whole)
            return [(Spot(link, ring), digit.size)]
        return met + ([(self.default, digit.size)] if missing.total() else [])

    def _holds(self, digit: DeviceDigit) -> bool:
        """Whether each position of a digit is in some part."""
        end = digit.pre
        for first, last in sorted((p.pre, p.end) for p, _ in self.parts if p.axis == digit.axis):
            end = last if first <= end < last else end
        return end >= digit.end


def _slowness(spot: Spot) -> tuple[float, float, int]:
    """Least for the slowest; of links that are as slow for the one of the larger groups."""
    latency, bandwidth = spot.link
    return bandwidth, -latency, -(spot.ring.level.devices if spot.ring else 0)


def _link(data: Any) -> Spot:
    latency, bandwidth = data["latency"], data["bandwidth"]
    require(latency >= 0 and bandwidth > 0, "a latency is at least 0, a bandwidth above 0")
    return Spot((latency, bandwidth))


def _inner(mesh: Mesh, size: int, stride: int, group: int) -> int:
    """How many neighbours on an axis always have their ids in one group of consecutive ones.

    At most; devices that are `stride` apart are neighbours on it.
    """
    if mesh.devices is None and group >= mesh.num_devices:
        return size
    for inner in range(size, 1, -1):
        if size % inner == 0:
            if mesh.devices is None:  # blocks of inner * stride ids, each with its neighbours
                if group % (inner * stride) == 0:
                    return inner
                continue
            groups = np.array(mesh.devices).reshape(-1, inner, stride) // group
            if (groups == groups[:, :1]).all():
                return inner
    return 1
