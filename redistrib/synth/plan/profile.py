"""Hardware profiles: what the links of a machine take, in seconds and bytes a second.

A profile is a TOML file or an object; docs/oracle.md has the format and the profiles that come
with the library.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from math import inf, isfinite, prod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from redistrib.errors import RedistribError
from redistrib.synth.plan.collectives import BY_NAME
from redistrib.text import as_number, brief
from redistrib.types.digits import DeviceDigit
from redistrib.types.mesh import Mesh


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
    smallest group first; an axis has the link of the first level that holds each of its lines
    (`on` finds it). `axes` gives the link of axes by name, whatever their level. A collective over
    several axes has the largest latency and the least bandwidth of them. An exchange is one call
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

    def __post_init__(self) -> None:
        sizes = [level.devices for level in self.levels]
        if sizes != sorted(set(sizes)):
            raise RedistribError(f"levels come smallest group first; got {sizes}")
        if self.exchange not in get_args(Execution):
            raise RedistribError(
                f"exchange is {' or '.join(get_args(Execution))}; got {self.exchange!r}"
            )
        for what, pairs in (("axes", self.axes), ("efficiency", self.efficiency)):
            if len(dict(pairs)) != len(pairs):
                raise RedistribError(f"{what} of a profile are named once; got {pairs}")
        _check_keys("efficiency", dict(self.efficiency), COMMUNICATING)
        for collective, fraction in self.efficiency:
            if not 0 < fraction <= 1:
                raise RedistribError(
                    f"the efficiency of {collective} is above 0 and at most 1; got {fraction}"
                )

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
    what: str, data: Mapping[str, Any], known: Iterable[str], needed: Iterable[str] = ()
) -> None:
    if missing := [key for key in needed if key not in data]:
        raise RedistribError(f"{what} has {' and '.join(missing)}")
    if unknown := [key for key in data if key not in known]:
        raise RedistribError(f"{what} has the keys {', '.join(known)}; got {unknown[0]!r}")


def _number(key: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else inf
    except OverflowError:  # an integer above all floats
        number = inf
    if isinstance(value, bool) or not isfinite(number):
        raise RedistribError(f"{key} is a finite number; got {value!r}")
    return number


def _parse_link(what: str, data: object, also: tuple[str, ...] = ()) -> Link:
    if not isinstance(data, dict):
        raise RedistribError(f"{what} is a table with latency and bandwidth; got {data!r}")
    _check_keys(what, data, (*LINK_KEYS, *also), (*LINK_KEYS, *also))
    return Link(*(_number(key, data[key]) for key in LINK_KEYS))


def _parse_level(data: Any) -> Level:
    link = _parse_link("a level", data, ("devices",))
    return Level(data["devices"], link)


def _link_data(link: Link) -> dict[str, float]:
    return {"latency": link.latency, "bandwidth": link.bandwidth}


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
    at = [name for name, _ in mesh.axes].index(axis)
    sizes = [size for _, size in mesh.axes]
    if mesh.devices is None:
        # Each block of so many ids holds the lines that start in it from end to end. Where blocks
        # do not fit into groups, the first block that a group ends in has a line across that end.
        block = prod(sizes[at:])
        return sizes[at] == 1 or group % block == 0 or mesh.num_devices <= group
    groups = np.array(mesh.devices).reshape(sizes) // group
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
        case str() | Path():
            return Profile.load(profile)
    raise RedistribError(
        f"a profile is a Profile, a name ({', '.join(profile_names())}) or the path of a file; "
        f"got {brief(profile)}",
        profile=profile,
    )
