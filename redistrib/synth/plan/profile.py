"""Hardware profiles: what the links of a machine take, in seconds and bytes a second.

A profile is a TOML file or an object; docs/oracle.md has the format and the profiles that come
with the library.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from math import gcd, inf, isfinite, lcm, prod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from redistrib.errors import RedistribError
from redistrib.synth.plan.collectives import BY_NAME
from redistrib.text import as_number, brief
from redistrib.types.digits import DeviceDigit, apart, divisors, parse_device_digit
from redistrib.types.mesh import Mesh, whole_axes


@dataclass(frozen=True, slots=True)
class Link:
    """One mesh axis: `latency` in seconds a collective, `bandwidth` in bytes a second a device."""

    latency: float
    bandwidth: float

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


@dataclass(frozen=True, slots=True)
class Level:
    """The link inside groups of so many consecutive device ids, for example within a node."""

    devices: int
    link: Link

    def __post_init__(self) -> None:
        if type(self.devices) is not int or self.devices < 1:
            raise RedistribError(
                f"the devices of a level are a positive number; got {self.devices!r}"
            )


Execution = Literal["call", "rounds"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A hardware profile: a link for every axis, and how the backend runs each collective.

    `link` is the one across the whole machine. `levels` are faster links inside groups of devices,
    smallest group first; a part of an axis has the link of the first level that holds each of its
    lines (`on` finds it). `axes` gives the link of axes, or of parts of axes, by name, whatever
    their level. A collective over several of them has the largest latency and the least bandwidth
    of all that it crosses. An exchange is one call
    ("call", as in MPI) or a round of permutes per sender ("rounds", as in jax.lax), each round with
    its own latency. `efficiency` is the fraction of the bandwidth that a collective, by name,
    reaches. `source` says where the numbers come from.

    Raises RedistribError for an efficiency that is not above 0 and at most 1 or of no communicating
    collective, levels out of order, an axis named twice, or another way to run an exchange.
    """

    name: str
    link: Link
    axes: tuple[tuple[str, Link], ...] = ()
    exchange: Execution = "rounds"
    levels: tuple[Level, ...] = ()
    efficiency: tuple[tuple[str, float], ...] = ()
    source: str = ""
    across: Link | None = field(default=None, repr=False)
    """Of a profile on two meshes the link from one to the other; it has no spelling in a file."""
    _of_axis: dict[str, Link | list[tuple[DeviceDigit, Link]]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        sizes = [level.devices for level in self.levels]
        if sizes != sorted(set(sizes)):
            raise RedistribError(f"levels come smallest group first; got {sizes}")
        if self.exchange not in get_args(Execution):
            raise RedistribError(
                f"exchange is {' or '.join(get_args(Execution))}; got {self.exchange!r}"
            )
        for key, pairs in (("axes", self.axes), ("efficiency", self.efficiency)):
            if len(dict(pairs)) != len(pairs):
                raise RedistribError(f"{key} of a profile are named once; got {pairs}")
        _check_keys("efficiency", dict(self.efficiency), COMMUNICATING)
        for collective, fraction in self.efficiency:
            if not 0 < fraction <= 1:
                raise RedistribError(
                    f"the efficiency of {collective} is above 0 and at most 1; got {fraction}"
                )
        object.__setattr__(self, "_of_axis", _by_axis(self.axes))

    def seconds(
        self,
        axes: Iterable[DeviceDigit],
        received_bytes: int,
        latencies: int = 1,
        collective: str = "",
        onto: bool = False,
    ) -> float:
        """Time of one communicating step; `onto` another mesh or not."""
        if collective == "exchange" and self.exchange == "call":
            latencies = 1
        latency, bandwidth = self.speed(axes, collective, onto)
        return latency * latencies + received_bytes / bandwidth

    def speed(
        self, axes: Iterable[DeviceDigit], collective: str = "", onto: bool = False
    ) -> tuple[float, float]:
        """Latency and bandwidth of a collective over these axes, and onto another mesh if so."""
        latency, bandwidth = self.link.latency, self.link.bandwidth
        if self.axes or self.across:
            used = [self.across or self.link] if onto else []
            used += [link for device in axes for link in self.links_of(device)]
            if len(used) == 1:
                latency, bandwidth = used[0].latency, used[0].bandwidth
            elif used:
                latency = max([link.latency for link in used])
                bandwidth = min([link.bandwidth for link in used])
        if self.efficiency:
            bandwidth *= dict(self.efficiency).get(collective, 1.0)
        return latency, bandwidth

    def on(self, mesh: Mesh, other: Mesh | None = None) -> Profile:
        """This profile with its levels resolved into the links of the axes of a mesh.

        What goes onto the `other` mesh crosses the link of the first level that holds all devices
        of both, else that of the profile.

        Where all axes have the same link, that is the one link of the result. Of an axis that runs
        over several levels, each part has its link: of 4 devices, two to a node, the minor digit is
        inside. Parts between nodes have the profile's own link and are not listed.

        >>> node = Profile("two per node", Link(1e-5, 1e10), levels=(Level(2, Link(1e-6, 1e11)),))
        >>> [axis for axis, link in node.on(Mesh(x=4, y=2)).axes]
        ['y']
        >>> [(axis, link.latency) for axis, link in node.on(Mesh(x=4)).axes]
        [('x:(2)2', 1e-06)]
        """
        if not (self.levels or self.axes):
            return self
        return _resolved(self, mesh, None if other == mesh else other)

    @property
    def uniform(self) -> bool:
        """Whether every axis has the same link."""
        return all(link == self.link for _, link in self.axes)

    def links_of(self, device: DeviceDigit) -> list[Link]:
        """The links that a part of an axis crosses, the levels aside."""
        known = self._of_axis.get(device.axis, self.link)
        if isinstance(known, Link):
            return [known]
        met = [(part, link) for part, link in known if not apart(part, device)]
        links = [link for _, link in met]
        named = prod(gcd(part.end, device.end) // lcm(part.pre, device.pre) for part, _ in met)
        return links if named == device.size else [*links, self.link]

    @property
    def cuts_axes(self) -> bool:
        """Whether some axis has several links, one for each part."""
        return any(":" in name for name, _ in self.axes)

    def parts_of(self, axis: str) -> list[DeviceDigit]:
        """The parts of an axis that have links of their own."""
        known = self._of_axis.get(axis, self.link)
        return [] if isinstance(known, Link) else [part for part, _ in known]

    def link_of(self, device: DeviceDigit) -> Link:
        """The slowest link that a part of an axis crosses, the levels aside."""
        links = self.links_of(device)
        if len(links) == 1:
            return links[0]
        return Link(max(link.latency for link in links), min(link.bandwidth for link in links))

    def used_links(self, mesh: Mesh) -> list[Link]:
        """The links that the axes of a mesh have, those of size 1 aside."""
        return [link for axis in whole_axes(mesh) for link in self.links_of(axis)]

    def fastest(self, mesh: Mesh) -> Link:
        """No collective on a mesh takes less than over this link."""
        if not self.axes:
            return self.link
        links = self.used_links(mesh) or [self.link]
        return Link(min(link.latency for link in links), max(link.bandwidth for link in links))

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """The profile in a TOML file (the format: docs/oracle.md).

        Raises RedistribError if the file is missing or not such a profile.
        """
        try:
            return cls.from_toml(Path(path).read_text(encoding="utf-8"), Path(path).stem)
        except (OSError, ValueError, RedistribError) as error:
            near = get_close_matches(str(path), profile_names(), n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise RedistribError(
                f"a profile is {', '.join(profile_names())} or a TOML file with latency (s) and "
                f"bandwidth (bytes/s); got {str(path)!r}{hint}: {error}",
                profile=path,
            ) from error

    @classmethod
    def from_toml(cls, text: str, name: str = "profile") -> Profile:
        """The profile in a TOML text; `name` where it gives none. Raises RedistribError."""
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # no TOML, or a number too long to read
            raise RedistribError(str(error)) from error
        return cls.from_data(data, name)

    @classmethod
    def from_data(cls, data: object, name: str = "profile") -> Profile:
        """The profile in the tables of a TOML file or the object of a JSON text.

        `name` where it gives none. Raises RedistribError, also for a key that is not known.
        """
        if not isinstance(data, dict):
            raise RedistribError(f"a profile is a table of keys and values; got {data!r}")
        _check_keys("a profile", data, PROFILE_KEYS, LINK_KEYS)
        for key, kind in (
            ("name", str),
            ("source", str),
            ("axes", dict),
            ("levels", list),
            ("efficiency", dict),
        ):
            if not isinstance(data.get(key, kind()), kind):
                raise RedistribError(f"{key} of a profile is a {kind.__name__}; got {data[key]!r}")
        return cls(
            data.get("name", name),
            Link(*(_number(key, data[key]) for key in LINK_KEYS)),
            tuple(
                (axis, _parse_link(f"axes.{axis}", link))
                for axis, link in data.get("axes", {}).items()
            ),
            data.get("exchange", "rounds"),
            tuple(_parse_level(level) for level in data.get("levels", ())),
            tuple((c, _number(c, part)) for c, part in data.get("efficiency", {}).items()),
            data.get("source", ""),
        )

    def to_data(self) -> dict[str, Any]:
        """The profile as the object that `from_data` reads; what it does not use is left out.

        >>> Profile("node", Link(1e-6, 1e11)).to_data()
        {'name': 'node', 'latency': 1e-06, 'bandwidth': 100000000000.0, 'exchange': 'rounds'}
        """
        optional = {
            "axes": {axis: _link_data(link) for axis, link in self.axes},
            "levels": [
                {"devices": level.devices, **_link_data(level.link)} for level in self.levels
            ],
            "efficiency": dict(self.efficiency),
            "source": self.source,
        }
        return {
            "name": self.name,
            **_link_data(self.link),
            "exchange": self.exchange,
            **{key: value for key, value in optional.items() if value},
        }


LINK_KEYS = ("latency", "bandwidth")
PROFILE_KEYS = (*LINK_KEYS, "name", "source", "exchange", "levels", "axes", "efficiency")
COMMUNICATING = tuple(name for name, kind in BY_NAME.items() if kind.communicates)


def _check_keys(
    label: str, data: Mapping[str, Any], known: Iterable[str], needed: Iterable[str] = ()
) -> None:
    if missing := [key for key in needed if key not in data]:
        raise RedistribError(f"{label} has {' and '.join(missing)}")
    if unknown := [key for key in data if key not in known]:
        raise RedistribError(f"{label} has the keys {', '.join(known)}; got {unknown[0]!r}")


def _number(key: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else inf
    except OverflowError:  # an integer above all floats
        number = inf
    if isinstance(value, bool) or not isfinite(number):
        raise RedistribError(f"{key} is a finite number; got {value!r}")
    return number


def _parse_link(label: str, data: object, also: tuple[str, ...] = ()) -> Link:
    if not isinstance(data, dict):
        raise RedistribError(f"{label} is a table with latency and bandwidth; got {data!r}")
    _check_keys(label, data, (*LINK_KEYS, *also), (*LINK_KEYS, *also))
    return Link(*(_number(key, data[key]) for key in LINK_KEYS))


def _parse_level(data: Any) -> Level:
    link = _parse_link("a level", data, ("devices",))
    return Level(data["devices"], link)


def _link_data(link: Link) -> dict[str, float]:
    return {"latency": link.latency, "bandwidth": link.bandwidth}


def _by_axis(
    axes: tuple[tuple[str, Link], ...],
) -> dict[str, Link | list[tuple[DeviceDigit, Link]]]:
    """Per axis its link, or the links of its parts."""
    links: dict[str, Link | list[tuple[DeviceDigit, Link]]] = {}
    for name, link in axes:
        if ":" not in name:
            links[name] = link
            continue
        part = parse_device_digit(name)
        parts = links.setdefault(part.axis, [])
        if isinstance(parts, Link):
            raise RedistribError(f"an axis has one link, or a link for each part; got {name}")
        parts.append((part, link))
    return links


@lru_cache(maxsize=256)
def _resolved(profile: Profile, mesh: Mesh, other: Mesh | None) -> Profile:
    """The links of the axes of a mesh, each by the name of an axis or of a part of one."""
    if other is not None and profile.across is None:
        profile = replace(profile, across=_between(profile, mesh, other))
    links = list(profile.axes)
    named = {axis_of(name) for name, _ in links}
    for axis in whole_axes(mesh):
        if axis.axis not in named:
            links += _links_by_level(profile, mesh, axis)
    order = {name: number for number, (name, _) in enumerate(mesh.axes)}
    links = [entry for entry in links if axis_of(entry[0]) in order]
    links.sort(key=lambda entry: order[axis_of(entry[0])])
    resolved = replace(profile, axes=tuple(links), levels=())
    used = {*resolved.used_links(mesh)}
    if len(used) == 1:
        return replace(profile, link=used.pop(), axes=(), levels=())
    return replace(resolved, axes=tuple(entry for entry in links if entry[1] != profile.link))


def _between(profile: Profile, mesh: Mesh, other: Mesh) -> Link:
    """The link from one mesh to another: that of the first level that holds all their devices."""
    ids = [(0, m.num_devices - 1) if m.devices is None else m.devices for m in (mesh, other)]
    first, last = min(map(min, ids)), max(map(max, ids))
    held = (
        level.link for level in profile.levels if first // level.devices == last // level.devices
    )
    return next(held, profile.link)


def _links_by_level(profile: Profile, mesh: Mesh, axis: DeviceDigit) -> list[tuple[str, Link]]:
    """The links along an axis, part by part: on 4 nodes of 8 devices, x=32 is 4 beside 8."""
    links: list[tuple[DeviceDigit, Link]] = []
    end = axis.size
    for level in profile.levels:
        start = axis.size // _inner(mesh, axis, level.devices)
        if start < end and end % start == 0:
            links.append((DeviceDigit(axis.axis, start, end // start), level.link))
            end = start
    if end > 1:
        links.append((DeviceDigit(axis.axis, 1, end), profile.link))
    # By name where one link holds all of it.
    return [(axis.axis if part == axis else str(part), link) for part, link in reversed(links)]


def axis_of(name: str) -> str:
    """The axis that a name of a profile is of: `x` and `x:(4)8` are of x."""
    return name.partition(":")[0]


def _inner(mesh: Mesh, axis: DeviceDigit, group: int) -> int:
    """How many positions of an axis, its minor ones, are in one group of consecutive ids."""
    number = [name for name, _ in mesh.axes].index(axis.axis)
    stride = prod(size for _, size in mesh.axes[number + 1 :])
    if mesh.devices is None:
        # Each block of so many ids holds the lines that start in it from end to end. Where blocks
        # do not fit into groups, the first block that a group ends in has a line across that end.
        if mesh.num_devices <= group:
            return axis.size
        return gcd(axis.size, group // stride) if group % stride == 0 else 1
    groups = np.array(mesh.devices) // group
    for inner in reversed(divisors(axis.size)):
        lines = groups.reshape(-1, inner, stride)
        if (lines == lines[:, :1]).all():
            return inner
    return 1


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
        case str() | Path():
            return Profile.load(profile)
    raise RedistribError(
        f"a profile is a Profile, a name ({', '.join(profile_names())}) or the path of a file; "
        f"got {brief(profile)}",
        profile=profile,
    )
