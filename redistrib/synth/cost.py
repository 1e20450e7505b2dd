"""What a step costs: alpha-beta per mesh axis, under a hardware profile (docs/oracle.md).

    seconds = latency * latencies + received bytes / (bandwidth * efficiency)

of the slowest link that the step crosses. Profiles are TOML files: see docs/oracle.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from math import ceil, isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

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
from redistrib.synth.routing import Traffic, exchange_traffic
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import Mesh
from redistrib.types.refinement import Refinement


@dataclass(frozen=True, slots=True)
class Link:
    """One mesh axis: `latency` in seconds a collective, `bandwidth` in bytes a second a device."""

    latency: float
    bandwidth: float

    def __post_init__(self) -> None:
        if not (0 <= self.latency < float("inf") and 0 < self.bandwidth < float("inf")):
            raise RedistribError(
                "a link has a latency (s) of at least 0 and a bandwidth (bytes/s) above 0, both "
                f"finite; got latency {self.latency} and bandwidth {self.bandwidth}",
                link=self,
            )


@dataclass(frozen=True, slots=True)
class Level:
    """The link inside groups of so many consecutive device ids, for example within a node."""

    devices: int
    link: Link


Execution = Literal["call", "rounds"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A hardware profile: a link for every axis, and how the backend runs each collective.

    `link` is the one across the whole machine. `levels` are faster links inside groups of devices,
    smallest group first; an axis has the link of the first level that holds each of its lines
    (`on` finds it). `axes` gives the link of axes by name, whatever their level. A collective over
    several axes has the largest latency and the least bandwidth of them. An exchange is one call
    ("call", as in MPI) or a round of permutes per sender ("rounds", as in jax.lax), each round with
    its own latency. `efficiency` is the fraction of the bandwidth that a collective, by name,
    reaches. `source` says where the numbers come from.
    """

    name: str
    link: Link
    axes: tuple[tuple[str, Link], ...] = ()
    exchange: Execution = "rounds"
    levels: tuple[Level, ...] = ()
    efficiency: tuple[tuple[str, float], ...] = ()
    source: str = ""

    def seconds(
        self,
        axes: Iterable[DeviceDigit],
        received_bytes: int,
        latencies: int = 1,
        collective: str = "",
    ) -> float:
        """Time of one communicating step."""
        if collective == "exchange" and self.exchange == "call":
            latencies = 1
        if not self.axes:
            latency, bandwidth = self.link.latency, self.link.bandwidth
        else:
            links = dict(self.axes)
            used = [links.get(device.axis, self.link) for device in axes] or [self.link]
            latency = max(link.latency for link in used)
            bandwidth = min(link.bandwidth for link in used)
        if self.efficiency:
            bandwidth *= dict(self.efficiency).get(collective, 1.0)
        return latency * latencies + received_bytes / bandwidth

    def on(self, mesh: Mesh) -> Profile:
        """This profile with its levels resolved into the links of the axes of a mesh.

        Where all axes have the same link, that is the one link of the result.

        >>> node = Profile("two per node", Link(1e-5, 1e10), levels=(Level(2, Link(1e-6, 1e11)),))
        >>> [axis for axis, link in node.on(Mesh(x=4, y=2)).axes]
        ['y']
        """
        return _resolved(self, mesh) if self.levels or self.axes else self

    @property
    def uniform(self) -> bool:
        """Whether every axis has the same link."""
        return all(link == self.link for _, link in self.axes)

    def link_of(self, axis: str) -> Link:
        """The link of an axis, the levels aside."""
        return dict(self.axes).get(axis, self.link)

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """The profile in a TOML file (the format: docs/oracle.md).

        Raises RedistribError if the file is missing or not such a profile.
        """
        try:
            return cls.from_toml(Path(path).read_text(encoding="utf-8"), Path(path).stem)
        except (OSError, ValueError, RedistribError) as error:
            raise RedistribError(
                f"a profile is {', '.join(profile_names())} or a TOML file with latency (s) and "
                f"bandwidth (bytes/s); got {str(path)!r}: {error}",
                profile=path,
            ) from error

    @classmethod
    def from_toml(cls, text: str, name: str = "profile") -> Profile:
        """The profile in a TOML text; `name` where it gives none. Raises RedistribError."""
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # no TOML, or a number too long to read
            raise RedistribError(str(error)) from error
        _check_keys("a profile", data, PROFILE_KEYS, LINK_KEYS)
        for key, kind in (("axes", dict), ("levels", list), ("efficiency", dict)):
            if not isinstance(data.get(key, kind()), kind):
                raise RedistribError(f"{key} of a profile is a {kind.__name__}; got {data[key]!r}")
        levels = tuple(_parse_level(level) for level in data.get("levels", ()))
        sizes = [level.devices for level in levels]
        if sizes != sorted(set(sizes)):
            raise RedistribError(f"levels come smallest group first; got {sizes}")
        execution = data.get("exchange", "rounds")
        if execution not in get_args(Execution):
            raise RedistribError(
                f"exchange is {' or '.join(get_args(Execution))}; got {execution!r}"
            )
        efficiency = data.get("efficiency", {})
        _check_keys("efficiency", efficiency, COMMUNICATING)
        for collective, fraction in efficiency.items():
            if not 0 < _number(collective, fraction) <= 1:
                raise RedistribError(
                    f"the efficiency of {collective} is above 0 and at most 1; got {fraction}"
                )
        return cls(
            str(data.get("name", name)),
            Link(*(_number(key, data[key]) for key in LINK_KEYS)),
            tuple(
                (axis, _parse_link(f"axes.{axis}", link))
                for axis, link in data.get("axes", {}).items()
            ),
            execution,
            levels,
            tuple((c, float(fraction)) for c, fraction in efficiency.items()),
            str(data.get("source", "")),
        )


LINK_KEYS = ("latency", "bandwidth")
PROFILE_KEYS = (*LINK_KEYS, "name", "source", "exchange", "levels", "axes", "efficiency")
COMMUNICATING = tuple(
    kind.collective
    for kind in (AllGather, AllToAll, CollectivePermute, ReduceScatter, AllReduce, Exchange)
)


def _check_keys(
    what: str, data: Mapping[str, Any], known: Iterable[str], needed: Iterable[str] = ()
) -> None:
    if missing := [key for key in needed if key not in data]:
        raise RedistribError(f"{what} has {' and '.join(missing)}")
    if unknown := [key for key in data if key not in known]:
        raise RedistribError(f"{what} has the keys {', '.join(known)}; got {unknown[0]!r}")


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise RedistribError(f"{key} is a finite number; got {value!r}")
    return float(value)


def _parse_link(what: str, data: object, also: tuple[str, ...] = ()) -> Link:
    if not isinstance(data, dict):
        raise RedistribError(f"{what} is a table with latency and bandwidth; got {data!r}")
    _check_keys(what, data, (*LINK_KEYS, *also), (*LINK_KEYS, *also))
    return Link(*(_number(key, data[key]) for key in LINK_KEYS))


def _parse_level(data: Any) -> Level:
    link = _parse_link("a level", data, ("devices",))
    devices = data["devices"]
    if isinstance(devices, bool) or not isinstance(devices, int) or devices < 1:
        raise RedistribError(f"the devices of a level are a positive number; got {devices!r}")
    return Level(devices, link)


@lru_cache(maxsize=256)
def _resolved(profile: Profile, mesh: Mesh) -> Profile:
    links = dict(profile.axes)
    for axis, _ in mesh.axes:
        level = next((v.link for v in profile.levels if _within(mesh, axis, v.devices)), None)
        if level is not None:
            links.setdefault(axis, level)
    used = {links.get(axis, profile.link) for axis, size in mesh.axes if size > 1}
    if len(used) == 1:
        return replace(profile, link=used.pop(), axes=(), levels=())
    kept = tuple((axis, links[axis]) for axis, _ in mesh.axes if axis in links)
    return replace(profile, axes=kept, levels=())


def _within(mesh: Mesh, axis: str, group: int) -> bool:
    """Whether all devices of each line along an axis are in one group of consecutive ids."""
    names = [name for name, _ in mesh.axes]
    groups = np.array(mesh.ids).reshape([size for _, size in mesh.axes]) // group
    at = names.index(axis)
    return bool((groups == groups.take([0], axis=at)).all())


DEFAULT_PROFILE = Profile("default", Link(latency=1e-6, bandwidth=1e11))


@lru_cache(maxsize=1)
def profile_names() -> tuple[str, ...]:
    """The names of the profiles that come with the library."""
    files = resources.files("redistrib").joinpath("profiles").iterdir()
    shipped = [file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")]
    return (DEFAULT_PROFILE.name, *sorted(shipped))


@lru_cache(maxsize=64)
def _shipped(name: str) -> Profile:
    file = resources.files("redistrib").joinpath("profiles", f"{name}.toml")
    return Profile.from_toml(file.read_text(encoding="utf-8"), name)


def find_profile(profile: Profile | str | Path | None) -> Profile:
    """A profile given as such, by name, or by the path of its file; None is the default one."""
    match profile:
        case None:
            return DEFAULT_PROFILE
        case Profile():
            return profile
        case str() if profile == DEFAULT_PROFILE.name:
            return DEFAULT_PROFILE
        case str() if profile in profile_names():
            return _shipped(profile)
        case _:
            return Profile.load(profile)


@dataclass(frozen=True, slots=True)
class StepTraffic:
    """Bytes that the worst device receives and sends in one step, and the latencies it pays."""

    received_bytes: int
    sent_bytes: int
    latencies: int = 1


LOCAL = (DynamicSlice, ReplicatedToPartial, ShardedToPartial)
"""The collectives that move nothing between devices."""


def step_sizes(step: Collective, tile: int) -> tuple[int, int]:
    """What each device receives in a step other than an exchange, and its tile after; elements.

    The table in docs/theory.md, section 2: s elements per tile, groups of k devices.
    """
    k = 1
    for device in step.axes:
        k *= device.size
    match step:
        case DynamicSlice():
            return 0, tile // k
        case AllGather():
            return tile * (k - 1), tile * k
        case AllToAll():
            return tile // k * (k - 1), tile
        case CollectivePermute(routes, table):
            if table is not None:
                moved = table.sources != tuple(range(k))
            else:
                moved = any(old != new for old, new in routes)
            return tile if moved else 0, tile
        case ReduceScatter():
            return tile // k * (k - 1), tile // k
        case AllReduce():
            # a reduce_scatter and an all_gather of chunks that differ by one element at most
            return tile + (k - 2) * ceil(tile / k), tile
        case ReplicatedToPartial():
            return 0, tile
        case ShardedToPartial():
            return 0, tile * k
        case Exchange():
            raise AssertionError("the traffic of an exchange depends on both its types")


def step_traffic(
    step: Collective,
    before: ArrayType,
    after: ArrayType,
    known: Refinement | Traffic | None = None,
) -> StepTraffic:
    """The traffic of a step between two types.

    `known` is their refinement, or the answer for an exchange in elements, where that was found.
    """
    itemsize = before.itemsize
    if isinstance(step, Exchange):
        traffic = known if isinstance(known, Traffic) else exchange_traffic(before, after, known)
        return StepTraffic(traffic.received * itemsize, traffic.sent * itemsize, traffic.peers)
    received = step_sizes(step, before.tile_size)[0] * itemsize
    return StepTraffic(received, received, 2 if isinstance(step, AllReduce) else 1)


def step_seconds(
    step: Collective, before: ArrayType, traffic: StepTraffic, profile: Profile
) -> float:
    """Time of a step from the type `before`."""
    if isinstance(step, LOCAL):
        return 0.0
    axes = crossed(step, before) if profile.axes else ()
    return profile.seconds(axes, traffic.received_bytes, traffic.latencies, step.collective)


def exchange_seconds(
    src: ArrayType, dst: ArrayType, received: int, peers: int, profile: Profile
) -> float:
    """Time of an exchange in which the worst device receives so many elements."""
    axes = crossed(Exchange(dst.placements), src) if profile.axes else ()
    return profile.seconds(axes, received * src.itemsize, peers, Exchange.collective)


def crossed(step: Collective, before: ArrayType) -> tuple[DeviceDigit, ...]:
    """The device digits that data crosses: for an exchange, those whose ownership changes."""
    if isinstance(step, Exchange):
        changed = set(before.placements).symmetric_difference(step.placements)
        return tuple(sorted({device for device, _ in changed}))
    return step.axes


def price_step(
    step: Collective, tile: int, itemsize: int, profile: Profile
) -> tuple[int, int, float]:
    """Of a step other than an exchange: bytes received, elements of the tile after it, seconds."""
    elements, after = step_sizes(step, tile)
    received = elements * itemsize
    if isinstance(step, LOCAL):
        return received, after, 0.0
    latencies = 2 if isinstance(step, AllReduce) else 1
    return received, after, profile.seconds(step.axes, received, latencies, step.collective)


@dataclass(frozen=True, slots=True)
class StepCost:
    """One step: seconds, bytes that its worst device receives, bytes of the tile after it."""

    seconds: float
    received_bytes: int
    tile_bytes: int
    communicates: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What a move costs: estimated seconds, bytes per device, and communicating steps."""

    seconds: float
    received_bytes: int
    peak_tile_bytes: int
    num_collectives: int


def price_steps(
    src: ArrayType,
    dst: ArrayType,
    steps: Sequence[Collective],
    profile: Profile,
    known: Refinement | Traffic | None = None,
) -> tuple[StepCost, ...]:
    """What each step of a plan costs.

    `known` is the refinement of its ends or the traffic of its exchange, where that was found.
    Types between the steps are made only where there is an exchange.
    """
    found = []
    held, itemsize = src.tile_size, src.itemsize
    for at, step in enumerate(steps):
        if isinstance(step, Exchange):
            before, after = src, dst
            if len(steps) > 1:
                for earlier in steps[:at]:
                    before = earlier.apply(before)
                after = step.apply(before)
                known = known if isinstance(known, Traffic) else None
            traffic = step_traffic(step, before, after, known)
            received, held = traffic.received_bytes, after.tile_size
            seconds = step_seconds(step, before, traffic, profile)
        else:
            received, held, seconds = price_step(step, held, itemsize, profile)
        found.append(StepCost(seconds, received, held * itemsize, not isinstance(step, LOCAL)))
    return tuple(found)


def total_seconds(steps: Iterable[StepCost]) -> float:
    """The seconds of a plan, added in the order of its steps.

    One by one, as prices of batches are; `sum` of floats rounds otherwise since Python 3.12.
    """
    seconds = 0.0
    for step in steps:
        seconds += step.seconds
    return seconds


def total_cost(src: ArrayType, steps: Sequence[StepCost]) -> Cost:
    """The cost of a plan from the type `src`."""
    return Cost(
        total_seconds(steps),
        sum(step.received_bytes for step in steps),
        max([src.tile_bytes, *(step.tile_bytes for step in steps)]),
        sum(step.communicates for step in steps),
    )
