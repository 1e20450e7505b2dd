"""What a step costs: alpha-beta per mesh axis (DESIGN: section 5)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Literal

from redistrib.errors import RedistribError
from redistrib.synth.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Exchange,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.routing import exchange_traffic
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.refinement import Refinement


@dataclass(frozen=True, slots=True)
class Link:
    """One mesh axis: `latency` in seconds a collective, `bandwidth` in bytes a second a device."""

    latency: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Profile:
    """A hardware profile: a link for every axis, and how an exchange runs.

    `axes` overrides the link for axes by name. A collective over several axes has the largest
    latency and the least bandwidth of them. An exchange is one call ("call", as in MPI) or a round
    of permutes per sender ("rounds", as in jax.lax), each round with its own latency.
    """

    name: str
    link: Link
    axes: tuple[tuple[str, Link], ...] = ()
    exchange: Literal["call", "rounds"] = "rounds"

    def seconds(
        self, axes: Iterable[DeviceDigit], received_bytes: int, latencies: int = 1
    ) -> float:
        """Time of one communicating step."""
        if not self.axes:
            return self.link.latency * latencies + received_bytes / self.link.bandwidth
        links = dict(self.axes)
        used = [links.get(device.axis, self.link) for device in axes] or [self.link]
        latency = max(link.latency for link in used)
        return latency * latencies + received_bytes / min(link.bandwidth for link in used)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """The profile in a TOML file with `latency`, `bandwidth`, and tables `axes.NAME` of both.

        Raises RedistribError if the file is missing or not such a profile.
        """
        try:
            data = tomllib.loads(Path(path).read_text())
            return cls(
                data.get("name", Path(path).stem),
                Link(float(data["latency"]), float(data["bandwidth"])),
                tuple(
                    (axis, Link(float(link["latency"]), float(link["bandwidth"])))
                    for axis, link in data.get("axes", {}).items()
                ),
                data.get("exchange", "rounds"),
            )
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
            raise RedistribError(
                f"a profile is {', '.join(PROFILES)} or a TOML file with latency (s) and bandwidth "
                f"(bytes/s); got {str(path)!r}: {error}",
                profile=path,
            ) from error


DEFAULT_PROFILE = Profile("default", Link(latency=1e-6, bandwidth=1e11))
PROFILES = {DEFAULT_PROFILE.name: DEFAULT_PROFILE}


def find_profile(profile: Profile | str | None) -> Profile:
    """A profile given as such, by name, or by the path of its file; None is the default one."""
    match profile:
        case None:
            return DEFAULT_PROFILE
        case Profile():
            return profile
        case str():
            return PROFILES.get(profile) or Profile.load(profile)


@dataclass(frozen=True, slots=True)
class StepTraffic:
    """Bytes that the worst device receives and sends in one step, and the latencies it pays."""

    received_bytes: int
    sent_bytes: int
    latencies: int = 1


LOCAL = (DynamicSlice, ReplicatedToPartial, ShardedToPartial)
"""The collectives that move nothing between devices."""


def received_elements(step: Collective, tile: int) -> int:
    """Elements that each device receives in a step other than an exchange, from a tile of `tile`.

    The table in DESIGN, section 2: s elements per tile, groups of k devices.
    """
    k = prod(device.size for device in step.axes)
    match step:
        case DynamicSlice() | ReplicatedToPartial() | ShardedToPartial():
            return 0
        case AllGather():
            return tile * (k - 1)
        case AllToAll() | ReduceScatter():
            return tile // k * (k - 1)
        case CollectivePermute(routes, table):
            if table is not None:
                return 0 if table.sources == tuple(range(k)) else tile
            return 0 if all(old == new for old, new in routes) else tile
        case AllReduce():
            # a reduce_scatter and an all_gather of chunks that differ by one element at most
            return tile + (k - 2) * ceil(tile / k)
        case Exchange():
            raise AssertionError("the traffic of an exchange depends on both its types")


def step_traffic(
    step: Collective,
    before: ArrayType,
    after: ArrayType,
    refinement: Refinement | None = None,
) -> StepTraffic:
    """The traffic of a step between two types; `refinement` is theirs, where it is known."""
    itemsize = before.itemsize
    if isinstance(step, Exchange):
        traffic = exchange_traffic(before, after, refinement)
        return StepTraffic(traffic.received * itemsize, traffic.sent * itemsize, traffic.peers)
    received = received_elements(step, before.tile_size) * itemsize
    return StepTraffic(received, received, 2 if isinstance(step, AllReduce) else 1)


def price_step(step: Collective, tile: int, itemsize: int, profile: Profile) -> tuple[int, float]:
    """Tile after a step other than an exchange, in elements, and its seconds."""
    received = received_elements(step, tile)
    if isinstance(step, LOCAL):
        seconds = 0.0
    else:
        latencies = 2 if isinstance(step, AllReduce) else 1
        seconds = profile.seconds(step.axes, received * itemsize, latencies)
    k = prod(device.size for device in step.axes)
    match step:
        case DynamicSlice() | ReduceScatter():
            return tile // k, seconds
        case AllGather() | ShardedToPartial():
            return tile * k, seconds
        case _:
            return tile, seconds
