"""Collectives over several links, each cut into one for each link where that is cheaper.

Example: n=4,g=8 with 50 GB/s along n and 450 GB/s along g. A gather over both takes what it
receives, 31 tiles, at 50 GB/s; one over n, 3 tiles at 50 GB/s, and one over g, 28 tiles at 450.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from redistrib.synth.plan.collectives import AllGather, AllToAll, Collective, ReduceScatter
from redistrib.synth.plan.price import price_step
from redistrib.synth.plan.profile import Profile
from redistrib.types.digits import DeviceDigit, Placement

_T = TypeVar("_T")


def add_steps(
    steps: list[Collective], seconds: float, tile: int, itemsize: int, profile: Profile
) -> tuple[list[Collective], float, int]:
    """Steps from a tile of so many elements, the seconds up to their end, and the tile there.

    `seconds` are those before the steps.
    """
    result: list[Collective] = []
    for step in steps:
        _, after, cost = price_step(step, tile, itemsize, profile)
        cut = _by_link(step, tile, itemsize, profile, cost) if profile.axes else None
        if cut is None:
            result.append(step)
            seconds += cost
        else:
            result += cut[0]
            for cost in cut[1]:
                seconds += cost
        tile = after
    return result, seconds, tile


def _by_link(
    step: Collective, tile: int, itemsize: int, profile: Profile, uncut_seconds: float
) -> tuple[list[Collective], list[float]] | None:
    """A step from a tile cut into one for each link, with their seconds, where that is cheaper.

    What is slow comes where tiles are small: first in a gather, last in a reduce_scatter.
    """
    parts: list[Collective]
    match step:
        case AllGather(placements) if len(placements) > 1:
            parts = [AllGather(g) for g in _links(placements, profile, _device)]
        case ReduceScatter(placements) if len(placements) > 1:
            parts = [ReduceScatter(g) for g in _links(placements, profile, _device)[::-1]]
        case AllToAll(moves) if len(moves) > 1:
            parts = [AllToAll(g) for g in _links(moves, profile, lambda m: m.device)]
        case _:
            return None
    if len(parts) == 1:
        return None
    costs, total = [], 0.0
    for part in parts:
        _, tile, cost = price_step(part, tile, itemsize, profile)
        costs.append(cost)
        total += cost
    return (parts, costs) if total < uncut_seconds else None


def _device(placement: Placement) -> DeviceDigit:
    return placement[0]


def _links(
    moved: Sequence[_T], profile: Profile, device: Callable[[_T], DeviceDigit]
) -> list[tuple[_T, ...]]:
    """The items in groups by the link that they move over, the slowest link first."""
    groups: dict[tuple[float, float], list[_T]] = {}
    for item in moved:
        link = profile.link_of(device(item))
        groups.setdefault((link.bandwidth, -link.latency), []).append(item)
    return [tuple(groups[speed]) for speed in sorted(groups)]
