"""What a combination of choices takes at least, in less time than its price (`three_phase.py`).

Example: n=2,g=4 with 50 GB/s along n and 450 GB/s along g. A gather of both, whose `Groups` are
(2, 4), the slowest link first, receives 7 tiles. Where n comes first one of them goes along n, and
no order takes fewer. So the floor is the latency of n, a tile at 50 GB/s and six at 450.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from math import prod
from operator import mul
from typing import NamedTuple

from redistrib.synth.plan.collectives import AllReduce
from redistrib.synth.plan.links import Link
from redistrib.synth.plan.profile import Profile
from redistrib.synth.planner.chains import Choice, devices_of
from redistrib.synth.planner.reductions import PartialRoles
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit, Placement
from redistrib.types.mesh import Mesh

ROUNDING = 1e-12
"""What sums over several links may be off by, relatively."""
Groups = tuple[int, ...]
"""Per link the devices in a group along it."""
_Speeds = list[tuple[float, float]]


class _Parts(NamedTuple):
    """The groups of each part of a choice, in the order in which the parts run.

    Of what is local the devices of all links. Several digits may move along one chain, a `longer`
    one.
    """

    sliced: int
    scattered: Groups
    gathered_early: Groups
    spread_early: int
    moving: Groups
    longer: bool
    sliced_late: int
    scattered_late: Groups
    gathered: Groups


class Floor:
    """Lower bounds of the seconds of combinations of these choices, from the tile of `src`."""

    def __init__(
        self, src: ArrayType, roles: PartialRoles, options: list[list[Choice]], profile: Profile
    ) -> None:
        self._tile, self._itemsize = src.tile_size, src.itemsize
        self._profile, self._links = profile, _links(profile, src.mesh)
        self._scatter, self._gather, self._reduce, self._move = _speeds(profile, src.mesh)
        self._known: dict[DeviceDigit, Groups] = {}
        self._none = (1,) * len(self._links)
        self._summed = self._groups(roles.reduce)
        self._parts = {
            id(choice): self._parts_of(choice, roles) for choices in options for choice in choices
        }

    def seconds(self, choices: Sequence[Choice]) -> float:
        """What the steps of a combination take at least."""
        sliced = spread = sliced_late = 1
        scattered = early = moving = late = gathered = self._none
        longer = False
        for choice in choices:
            parts = self._parts[id(choice)]
            sliced *= parts.sliced
            spread *= parts.spread_early
            sliced_late *= parts.sliced_late
            scattered = self._both(scattered, parts.scattered)
            early = self._both(early, parts.gathered_early)
            moving = self._both(moving, parts.moving)
            late = self._both(late, parts.scattered_late)
            gathered = self._both(gathered, parts.gathered)
            longer = longer or parts.longer
        reduced = self._remaining(self._both(scattered, late))
        # Added as the steps are, in their order: a sum of floats whose terms are no larger is not.
        # Over several links a term is itself a sum, and rounding may make it larger.
        held, seconds = self._tile // sliced, 0.0
        if scattered != self._none:
            seconds += self._shrinking(held, scattered)
            held //= prod(scattered)
        if reduced != self._none:
            least = [2 * (held - held // size - 1) for size in accumulate(reduced, mul)]
            seconds += self._shared(self._reduce, reduced, least, AllReduce.latencies)
        if early != self._none:
            seconds += self._growing(held, early)
            held *= prod(early)
        held *= spread
        if moving != self._none:
            least = [held - held // size for size in accumulate(moving, mul)]
            if longer:  # what a device of a longer chain needs, another one has
                least[-1] = held
            seconds += self._shared(self._move, moving, least)
        held //= sliced_late
        if late != self._none:
            seconds += self._shrinking(held, late)
            held //= prod(late)
        if gathered != self._none:
            seconds += self._growing(held, gathered)
        return seconds if len(self._links) == 1 else seconds * (1 - ROUNDING)

    def _remaining(self, scattered: Groups) -> Groups:
        """What is summed and not scattered."""
        if scattered is self._none:
            return self._summed
        sizes = list(zip(self._summed, scattered, strict=True))
        if all(size % part == 0 for size, part in sizes):
            return tuple(size // part for size, part in sizes)
        # A digit over several links was scattered in part, or one digit in two ways, for nothing.
        return (*self._none[1:], max(1, prod(self._summed) // prod(scattered)))

    def _growing(self, held: int, groups: Groups) -> float:
        """Of gathers, the slowest first: while tiles are small."""
        latency = timed = 0.0
        for size, (least, bandwidth) in zip(groups, self._gather, strict=True):
            if size > 1:
                latency = max(latency, least)
                timed += held * (size - 1) * self._itemsize / bandwidth
                held *= size
        return latency + timed

    def _shrinking(self, held: int, groups: Groups) -> float:
        """Of reduce_scatters, the slowest last."""
        latency = timed = 0.0
        for size, (least, bandwidth) in zip(groups[::-1], self._scatter[::-1], strict=True):
            if size > 1:
                latency = max(latency, least)
                timed += (held - held // size) * self._itemsize / bandwidth
                held //= size
        return latency + timed

    def _shared(
        self, speeds: _Speeds, groups: Groups, least: Sequence[int], latencies: int = 1
    ) -> float:
        """Of elements of which the `least` of each link crosses it or a slower one.

        That of the last link is all of them.
        """
        crossed = [
            (elements, speed)
            for size, elements, speed in zip(groups, least, speeds, strict=True)
            if size > 1
        ]
        latency = max([speed[0] for _, speed in crossed])
        slower, timed = 0, 0.0
        for elements, (_, bandwidth) in [*crossed[:-1], (least[-1], crossed[-1][1])]:
            timed += max(0, elements - slower) * self._itemsize / bandwidth
            slower = max(slower, elements)
        return latency * latencies + timed

    def _both(self, groups: Groups, others: Groups) -> Groups:
        if others is self._none:
            return groups
        return others if groups is self._none else tuple(map(mul, groups, others))

    def _parts_of(self, choice: Choice, roles: PartialRoles) -> _Parts:
        scattered, sliced = roles.part_reduced(choice.slices)
        spread, early = roles.part_produced(choice.early)
        scattered_late, sliced_late = roles.part_reduced(choice.late)
        _, gathered = roles.part_produced(choice.gathers)
        return _Parts(
            devices_of(sliced),
            self._owners(scattered),
            self._owners(early),
            devices_of(spread),
            self._groups(choice.devices),
            len(choice.devices) > 1,
            devices_of(sliced_late),
            self._owners(scattered_late),
            self._owners(gathered),
        )

    def _owners(self, placements: Sequence[Placement]) -> Groups:
        return self._groups([device for device, _ in placements]) if placements else self._none

    def _groups(self, devices: Iterable[DeviceDigit]) -> Groups:
        groups = self._none
        for device in devices:
            groups = self._both(groups, self._known.get(device) or self._group(device))
        return groups

    def _group(self, device: DeviceDigit) -> Groups:
        """The groups of one digit: along the fastest link that it crosses."""
        crossed = self._profile.links_of(device)
        known = [n for n, link in enumerate(self._links) if link in crossed]
        number = max(known, default=len(self._links) - 1)
        sizes = list(self._none)
        sizes[number] = device.size
        self._known[device] = tuple(sizes)
        return self._known[device]


@lru_cache(maxsize=16)
def _links(profile: Profile, mesh: Mesh) -> list[Link]:
    """The links of a mesh, the slowest first; where rings add up, one that is faster than all."""
    links = {*profile.used_links(mesh)} or {profile.link}
    if any(link.place for link in links):
        return [profile.fastest(mesh)]
    return sorted(links, key=lambda link: (link.bandwidth, -link.latency))


@lru_cache(maxsize=16)
def _speeds(profile: Profile, mesh: Mesh) -> list[_Speeds]:
    """Of scatters, gathers, reductions and moves latency and bandwidth over each link."""
    efficiency = dict(profile.efficiency)
    kinds = (
        ("reduce_scatter",),
        ("all_gather",),
        ("all_reduce",),
        ("all_to_all", "collective_permute"),
    )
    most = [max(efficiency.get(collective, 1.0) for collective in kind) for kind in kinds]
    links = _links(profile, mesh)
    return [[(link.latency, link.bandwidth * part) for link in links] for part in most]
