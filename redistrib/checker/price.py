"""What a step takes by the profile of a plan, derived without the planner.

    seconds = latency * latencies + received bytes / (bandwidth * efficiency)

of the slowest link that the step crosses. On x=2,y=4 under levels of 4 devices, a line along y is
devices 0 to 3 or 4 to 7, inside a level, and one along x is not: x has the link of the profile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from redistrib.checker.claims import require
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import Mesh

COMMUNICATING = (
    "all_gather",
    "all_to_all",
    "collective_permute",
    "reduce_scatter",
    "all_reduce",
    "exchange",
)


@dataclass(frozen=True, slots=True)
class Links:
    """The (latency, bandwidth) of each axis of the mesh of the source and of what is on none."""

    axes: dict[str, tuple[float, float]]
    rest: tuple[float, float]
    rounds: bool
    efficiency: dict[str, float]

    @staticmethod
    def of(profile: Any, mesh: Mesh) -> Links:
        """The links of a profile as a plan has it, its levels resolved on the mesh."""
        groups = [level["devices"] for level in profile.get("levels", ())]
        right = all(a < b for a, b in pairwise([0, *groups]))
        require(right, "levels have positive sizes, smallest group first")
        efficiency = profile.get("efficiency", {})
        right = {*efficiency} <= {*COMMUNICATING} and all(0 < x <= 1 for x in efficiency.values())
        require(right, "the efficiency of a communicating collective is above 0 and at most 1")
        require(profile["exchange"] in ("call", "rounds"), "an exchange is a call or rounds")
        axes = {axis: _link(link) for axis, link in profile.get("axes", {}).items()}
        stride = mesh.num_devices
        for axis, size in mesh.axes:
            stride //= size
            for level in profile.get("levels", ()):
                if axis not in axes and _within(mesh, size, stride, level["devices"]):
                    axes[axis] = _link(level)
        rest = _link(profile)
        used = {axes.get(axis, rest) for axis, size in mesh.axes if size > 1}
        rest = used.pop() if len(used) == 1 else rest
        return Links(axes, rest, profile["exchange"] == "rounds", efficiency)

    def seconds(
        self, name: str, crossed: Iterable[DeviceDigit], size: int, latencies: int
    ) -> float:
        """Latency and bytes over bandwidth, of the slowest link that a step crosses."""
        links = [self.axes.get(digit.axis, self.rest) for digit in crossed] or [self.rest]
        latencies = latencies if self.rounds or name != "exchange" else 1
        bandwidth = min(b for _, b in links) * self.efficiency.get(name, 1.0)
        return max(a for a, _ in links) * latencies + size / bandwidth


def _link(data: Any) -> tuple[float, float]:
    latency, bandwidth = data["latency"], data["bandwidth"]
    require(latency >= 0 and bandwidth > 0, "a latency is at least 0, a bandwidth above 0")
    return latency, bandwidth


def _within(mesh: Mesh, size: int, stride: int, group: int) -> bool:
    """Whether each line of devices `stride` apart has its ids in one group of consecutive ones."""
    if mesh.devices is None:  # blocks of size * stride ids, each with its lines
        return size == 1 or group % (size * stride) == 0 or group >= mesh.num_devices
    groups = np.array(mesh.devices).reshape(-1, size, stride) // group
    return bool((groups == groups[:, :1]).all())
